/**
 * Rows `repair`, `killed` and `paused`: a holder is lost while a sequence decodes with a part of its context there.
 *
 * @module
 */
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { ClusterProcesses, type MemberProcess } from "../../tests/cluster/cluster_processes.ts";
import { summarize } from "../statistics.ts";
import { type BenchContext, drawPrompt } from "./bench_context.ts";
import { Home, MOST_TOKENS, type Stream } from "./home.ts";
import { holderMemory } from "./holder_memory.ts";
import type { Measured } from "./result.ts";

/** Segments that are lost. */
const LOST = 2;
/** Tokens of context when only the notice is timed. */
const NOTICE_CONTEXT = 1024;
/** Tokens decoded before the holder is harmed. */
const LEAD = 8;

/** Tokens of KV beside the context of `repair`: the prefill beside it, what is generated, and a little. */
const ROOM = 1024;
/** Blocks that stay free when a pool is filled. */
const SPARE_BLOCKS = 4;

/** When the home gave a holder up. @throws {Error} when it does not. */
async function noticeMs(home: Home, holder: string): Promise<number> {
  const find = () => home.lines.find(({ message }) => message.startsWith(`lost ${holder}:`));
  await home.until(() => find() !== undefined, `${holder} to be given up`);
  return find()?.atMs ?? NaN;
}

/** Measures `repair`. */
export async function measureRepair(context: BenchContext): Promise<Measured> {
  const { model, modelPath, options: { context: tokens, repeats, seed, warmMs }, log } = context;
  const middle = tokens / SEGMENT_TOKENS / 2;
  const prompt = drawPrompt(tokens - 4 * LEAD, seed);
  using home = await Home.open({ model, name: "home", kvTokens: tokens + ROOM });
  await using processes = new ClusterProcesses(modelPath);
  await home.warm(warmMs);
  const repairs: number[] = [];
  const prefills: number[] = [];
  const pauses: number[] = [];
  for (let sample = 0; sample < repeats; sample++) {
    const holder = `holder-${sample}`;
    const process = await startHolder({ processes, home, context }, holder);
    const stream = await home.start(prompt, { maxTokens: ROOM / 2 });
    prefills.push(
      await prefillMs(home, {
        prompt: [
          ...prompt.slice(0, middle * SEGMENT_TOKENS),
          ...drawPrompt(LOST * SEGMENT_TOKENS, seed + 100 + sample),
        ],
        stream,
      }),
    );
    await home.place(stream, { segments: middle + LOST, to: holder, away: middle + LOST });
    await home.place(stream, { segments: middle, from: holder, to: "home", away: LOST });
    await evictCached(home, { stream, seed: seed + 200 + sample });
    await stream.reaches(stream.tokenMs.length + LEAD);
    home.steps.length = 0;
    await process.kill();
    const lostMs = await noticeMs(home, holder);
    const count = stream.tokenMs.length;
    await stream.reaches(count + LEAD);
    const mended = home.steps.filter(({ endMs, tokens, batch }) => endMs > lostMs && tokens > batch);
    const computed = mended.reduce((sum, { tokens }) => sum + tokens, 0);
    if (mended.length === 0 || computed < LOST * SEGMENT_TOKENS) {
      throw new Error(`Cannot time the repair: ${computed} tokens were computed again`);
    }
    repairs.push(mended[mended.length - 1].endMs - lostMs);
    const gaps = stream.tokenMs.map((ms, i) => i === 0 ? 0 : ms - stream.tokenMs[i - 1]);
    pauses.push(Math.max(...gaps));
    home.cancel(stream);
    log(`  repair ${repairs[sample].toFixed(0)} ms, prefill ${prefills[sample].toFixed(0)} ms`);
  }
  return {
    figures: summarize(repairs.map((ms, i) => ms / prefills[i])),
    how:
      `an instance and a holder process; segments ${middle} and ${
        middle + 1
      } of a sequence of ${tokens} tokens lie on ` +
      `the holder, which is killed; repair: from giving it up to the end of the last step that computes lost tokens; ` +
      `prefill: from a request with the same ${middle * SEGMENT_TOKENS} tokens cached and ${
        LOST * SEGMENT_TOKENS
      } others to its first token`,
    details: [
      { what: "repair", unit: "ms", figures: summarize(repairs) },
      { what: "prefill over the same context", unit: "ms", figures: summarize(prefills) },
      { what: "longest pause between two tokens, notice included", unit: "ms", figures: summarize(pauses) },
    ],
  };
}

/** Milliseconds to the first token of a prompt of which all but {@linkcode LOST} segments are cached. */
async function prefillMs(
  home: Home,
  options: { readonly prompt: readonly number[]; readonly stream: Stream },
): Promise<number> {
  const { prompt, stream } = options;
  const known = stream.tokenMs.length;
  // The other sequence decodes in the same steps otherwise.
  home.held.add(stream.handle);
  home.steps.length = 0;
  const begun = performance.now();
  const other = await home.start(prompt, { maxTokens: 1 });
  const computed = home.steps.reduce((sum, { tokens }) => sum + tokens, 0);
  home.held.delete(stream.handle);
  const decoded = stream.tokenMs.length - known;
  if (computed - decoded !== LOST * SEGMENT_TOKENS) {
    throw new Error(
      `Cannot time the prefill: wanted ${LOST * SEGMENT_TOKENS} tokens computed, got ${computed - decoded}`,
    );
  }
  return other.tokenMs[0] - begun;
}

/** Fills the pool once, so that no copy of what has moved away is left in the prefix cache. */
async function evictCached(
  home: Home,
  { stream, seed }: { readonly stream: Stream; readonly seed: number },
): Promise<void> {
  home.held.add(stream.handle);
  const { blocks: { free, cached }, blockTokens } = home.engine.stats();
  await home.start(drawPrompt((free + cached - SPARE_BLOCKS) * blockTokens, seed), { maxTokens: 1 });
  home.held.delete(stream.handle);
}

/** Measures `killed` or `paused`. */
export async function measureNotice(context: BenchContext, harm: "killed" | "paused"): Promise<Measured> {
  const { model, modelPath, options: { repeats, seed, warmMs }, log } = context;
  using home = await Home.open({ model, name: "home", kvTokens: NOTICE_CONTEXT + MOST_TOKENS });
  await using processes = new ClusterProcesses(modelPath);
  await home.warm(warmMs);
  const prompt = drawPrompt(NOTICE_CONTEXT, seed);
  const times: number[] = [];
  for (let sample = 0; sample < repeats; sample++) {
    const holder = `holder-${sample}`;
    const process = await startHolder({ processes, home, context }, holder);
    const stream = await home.start(prompt, { maxTokens: MOST_TOKENS });
    await home.place(stream, { segments: LOST, to: holder, away: LOST });
    await stream.reaches(stream.tokenMs.length + LEAD);
    const begun = performance.now();
    const dead = harm === "killed" ? process.kill() : process.pause();
    times.push(await noticeMs(home, holder) - begun);
    await dead;
    await process.kill();
    await stream.reaches(stream.tokenMs.length + LEAD);
    home.cancel(stream);
    log(`  ${times[sample].toFixed(1)} ms`);
  }
  return {
    figures: summarize(times),
    how: `an instance that decodes with ${
      LOST * SEGMENT_TOKENS
    } of ${NOTICE_CONTEXT} tokens on a holder process, from ${
      harm === "killed" ? "SIGKILL" : "SIGSTOP"
    } to giving the holder up`,
    details: [],
  };
}

async function startHolder(
  parts: { readonly processes: ClusterProcesses; readonly home: Home; readonly context: BenchContext },
  name: string,
): Promise<MemberProcess> {
  const { processes, home, context: { model, options: { context: tokens } } } = parts;
  const process = await processes.start({
    name,
    role: "holder",
    kvMemory: holderMemory(model, tokens),
    flags: ["--join", home.clusterUrl, "--gentle-fill", "0"],
  });
  await home.sees(2);
  return process;
}
