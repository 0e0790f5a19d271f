/**
 * Row `three-small`: forty short requests on three small instances, beside one request three times too long for any of
 * them, against the same forty without it on instances that lend nothing.
 *
 * @module
 */
import { pause } from "../../tests/cluster/deadline.ts";
import { ClusterProcesses, type MemberProcess } from "../../tests/cluster/cluster_processes.ts";
import { summarize } from "../statistics.ts";
import { type BenchContext, drawPrompt } from "./bench_context.ts";
import { holderMemory } from "./holder_memory.ts";
import type { Measured } from "./result.ts";

/** Tokens of KV of each instance. */
const KV_TOKENS = 1024;
const INSTANCES = 3;
const SHORTS = 40;
const SHORT_PROMPT = 128;
const SHORT_OUTPUT = 64;
const LONG_OUTPUT = 64;
const LONG_PROMPT = 3 * KV_TOKENS - LONG_OUTPUT;
const QUICK_SHORTS = 9;
/** Samples at most: each takes minutes. */
const MOST_SAMPLES = 3;
const ANSWER_MS = 900_000;
const SETTLE_MS = 30_000;
const REST_MS = 1500;

/** What a set of instances did. */
interface ShortRun {
  /** Time until the last short request was done, ms. */
  readonly ms: number;
  /** CPU time of all members until then, ms. */
  readonly cpuMs: number;
  /** CPU time of all members after that, until the long request was done, ms. */
  readonly cpuAfterMs: number;
  /** Time until the long request was done, ms. */
  readonly longMs: number;
}

/** Measures the row. */
export async function measureThreeSmall(context: BenchContext): Promise<Measured> {
  const { model, modelPath, options: { repeats, seed, quick, warmMs }, log } = context;
  const shorts = quick ? QUICK_SHORTS : SHORTS;
  const samples = Math.min(repeats, MOST_SAMPLES);
  const base: ShortRun[] = [];
  const mixed: ShortRun[] = [];
  const longCpu: number[] = [];
  let next = seed * 1_000_000;
  const draw = (tokens: number) => drawPrompt(tokens, next++);
  for (let sample = 0; sample < samples; sample++) {
    await using processes = new ClusterProcesses(modelPath);
    const separate = await startInstances(processes, { prefix: `own-${sample}`, policy: "builtin:local-only" });
    await warmUp(separate, { warmMs, draw });
    base.push(await runShorts(separate, { shorts, draw }));
    for (const member of separate) await member.kill();
    const together = await startInstances(processes, { prefix: `pool-${sample}`, policy: "builtin:infinite-llm" });
    const holder = await processes.start({
      name: `holder-${sample}`,
      role: "holder",
      kvMemory: holderMemory(model, LONG_PROMPT + LONG_OUTPUT),
      join: [together[0]],
    });
    const all = [...together, holder];
    await processes.settled(SETTLE_MS, all);
    await warmUp(together, { warmMs, draw });
    const before = cpuMs(all);
    await complete(together[0], draw(LONG_PROMPT), LONG_OUTPUT);
    longCpu.push(cpuMs(all) - before);
    await pause(REST_MS);
    mixed.push(await runShorts(together, { shorts, draw, long: draw(LONG_PROMPT), others: [holder] }));
    log(
      `  short requests: ${(base[sample].ms / 1000).toFixed(1)} s alone, ${
        (mixed[sample].ms / 1000).toFixed(1)
      } s beside ` +
        `the long one, whose share is ${shareOf(mixed[sample], longCpu[sample]).toFixed(2)}`,
    );
  }
  const shares = mixed.map((run, i) => shareOf(run, longCpu[i]));
  const speeds = mixed.map((run, i) => base[i].ms / run.ms);
  return {
    figures: summarize(speeds.map((speed, i) => speed / (1 - shares[i]))),
    how:
      `${INSTANCES} instances of ${KV_TOKENS} tokens of KV and a holder of ${
        LONG_PROMPT + LONG_OUTPUT
      }, all processes; ` +
      `${shorts} requests of ${SHORT_PROMPT} + ${SHORT_OUTPUT} tokens sent at once to the instances in turn, over HTTP, ` +
      `with one of ${LONG_PROMPT} + ${LONG_OUTPUT}; its share of CPU time is what it takes of all members' user and ` +
      `system time when it runs alone, less what is used after the last short request, over what all use until then`,
    details: [
      {
        what: "short requests alone on instances that lend nothing",
        unit: "ms",
        figures: summarize(base.map(({ ms }) => ms)),
      },
      { what: "short requests beside the long one", unit: "ms", figures: summarize(mixed.map(({ ms }) => ms)) },
      { what: "their throughput, against alone", unit: "×", figures: summarize(speeds) },
      { what: "the long request's share of CPU time", unit: "×", figures: summarize(shares) },
      { what: "CPU time of the long request alone", unit: "ms", figures: summarize(longCpu) },
      { what: "CPU time of the short requests alone", unit: "ms", figures: summarize(base.map(({ cpuMs }) => cpuMs)) },
      {
        what: "CPU time of both until the last short one",
        unit: "ms",
        figures: summarize(mixed.map(({ cpuMs }) => cpuMs)),
      },
      {
        what: "the long request, beside the short ones",
        unit: "ms",
        figures: summarize(mixed.map(({ longMs }) => longMs)),
      },
    ],
  };
}

function shareOf({ cpuMs, cpuAfterMs }: ShortRun, longCpuMs: number): number {
  return Math.min(1, Math.max(0, longCpuMs - cpuAfterMs) / cpuMs);
}

async function startInstances(
  processes: ClusterProcesses,
  { prefix, policy }: { readonly prefix: string; readonly policy: string },
): Promise<MemberProcess[]> {
  const settings = (i: number) => ({ name: `${prefix}-${i}`, kvTokens: KV_TOKENS, flags: ["--memory-policy", policy] });
  const first = await processes.start(settings(0));
  const members = [first];
  for (let i = 1; i < INSTANCES; i++) members.push(await processes.start({ ...settings(i), join: [first] }));
  await processes.settled(SETTLE_MS, members);
  return members;
}

/** Every instance computes until its kernels are in their final tier. */
async function warmUp(
  members: readonly MemberProcess[],
  { warmMs, draw }: { readonly warmMs: number; readonly draw: (tokens: number) => Int32Array },
): Promise<void> {
  for (const member of members) {
    const until = performance.now() + warmMs;
    do await complete(member, draw(SHORT_PROMPT), SHORT_OUTPUT); while (performance.now() < until);
  }
  await pause(REST_MS);
}

async function runShorts(
  members: readonly MemberProcess[],
  options: {
    readonly shorts: number;
    readonly draw: (tokens: number) => Int32Array;
    readonly long?: Int32Array;
    readonly others?: readonly MemberProcess[];
  },
): Promise<ShortRun> {
  const { shorts, draw, long, others = [] } = options;
  const all = [...members, ...others];
  const prompts = Array.from({ length: shorts }, () => draw(SHORT_PROMPT));
  const cpuBegun = cpuMs(all);
  const begun = performance.now();
  const longDone = long === undefined
    ? undefined
    : complete(members[0], long, LONG_OUTPUT).then(() => performance.now());
  longDone?.catch(() => {});
  await Promise.all(prompts.map((prompt, i) => complete(members[i % members.length], prompt, SHORT_OUTPUT)));
  const ms = performance.now() - begun;
  const cpuThen = cpuMs(all);
  const longMs = (await longDone ?? begun) - begun;
  return { ms, cpuMs: cpuThen - cpuBegun, cpuAfterMs: cpuMs(all) - cpuThen, longMs };
}

/** Completes a prompt. @throws {Error} when the answer is not as long as asked for. */
async function complete(member: MemberProcess, prompt: Int32Array, tokens: number): Promise<void> {
  const response = await fetch(`${member.where.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: [...prompt], max_tokens: tokens, temperature: 0, ignore_eos: true }),
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  const body: { readonly usage?: { readonly completion_tokens: number } } = await response.json();
  if (!response.ok || body.usage?.completion_tokens !== tokens) {
    throw new Error(
      `Cannot complete a prompt at ${member.name}: ${response.status} ${JSON.stringify(body).slice(0, 200)}`,
    );
  }
}

/** User and system time of the members so far, ms; a clock tick is 10 ms. */
function cpuMs(members: readonly MemberProcess[]): number {
  return members.reduce((sum, { where: { pid } }) => {
    const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
    // Behind the name, which may hold spaces: state is field 3, user and system time are 14 and 15.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) * 10;
  }, 0);
}
