/**
 * One round of chaos: starts the members, asks, harms, heals, and checks that every answer is the undisturbed one and that
 * the survivors hold nothing.
 *
 * @module
 */
import { SEGMENT_TOKENS } from "../../runtime/device/device.ts";
import { type AnsweredToken, AnswerError } from "./answers.ts";
import { ChaosFaults } from "./chaos_faults.ts";
import type { Moment, PlannedMember, PlannedRequest, RoundPlan } from "./chaos_plan.ts";
import { ClusterProcesses, type MemberProcess } from "./cluster_processes.ts";
import { pause } from "./deadline.ts";
import type { Reference } from "./reference.ts";

/** What a round needs. */
export interface RoundSetting {
  /** Path of the plan's model. */
  readonly model: string;
  /** Path of a key file for members. */
  readonly keyFile: string;
  /** Bytes of KV of one token of that model. */
  readonly tokenBytes: number;
  /** Answers of one large instance of it. */
  readonly reference: Reference;
}

/** How a request ended. */
export type RequestEnd =
  /** With the undisturbed answer. */
  | "same"
  /** Its client went away; what it had was the beginning of the undisturbed answer. */
  | "aborted"
  /** With an error, because its front was killed or had left. */
  | "front gone"
  /** With an error, because what was left could not hold it. */
  | "no room"
  /** With an error, because what was left could not hold it beside the other requests. */
  | "crowded out";

/** What became of a round. */
export interface RoundReport {
  /** How each request ended; fewer when the round failed. */
  readonly ends: readonly RequestEnd[];
  /** How long it took, ms. */
  readonly ms: number;
  /** What happened, a line each. */
  readonly history: readonly string[];
  /** What was not as it should be. */
  readonly failure?: string;
}

/** Most time of an answer, ms. */
const ANSWER_MS = 120_000;
/** Most time after which a healed cluster is whole, ms: a lease lives 10 s. */
const REST_MS = 40_000;
/** Lines of a member's log shown with a failure. */
const LOG_LINES = 12;

/** Runs a round. Whatever it started has ended when this resolves. */
export async function runRound(plan: RoundPlan, setting: RoundSetting): Promise<RoundReport> {
  const startMs = performance.now();
  const history: string[] = [];
  const note = (line: string) => {
    history.push(`${((performance.now() - startMs) / 1000).toFixed(2)} s  ${line}`);
  };
  const ends: RequestEnd[] = [];
  let failure: string | undefined;
  await using processes = new ClusterProcesses(setting.model);
  try {
    // First, so that it takes no time from the members.
    for (const { question } of plan.requests) await setting.reference.answer(question);
    ends.push(...await play({ ...setting, plan, processes, note }));
  } catch (error) {
    failure = error instanceof Error
      ? `${error.message}${error.cause === undefined ? "" : `: ${error.cause}`}`
      : `${error}`;
    for (const { name, log } of processes.started) {
      // Looks at reports are no news.
      const lines = log.trimEnd().split("\n").filter((line) => !line.includes("path=/cluster status=200"));
      history.push(...lines.slice(-LOG_LINES).map((line) => `${name}: ${line}`));
    }
  }
  return { ends, ms: performance.now() - startMs, history, failure };
}

interface Stage extends RoundSetting {
  readonly plan: RoundPlan;
  readonly processes: ClusterProcesses;
  readonly note: (line: string) => void;
}

async function play(stage: Stage): Promise<RequestEnd[]> {
  const { plan, processes, note } = stage;
  const launch = (member: PlannedMember, join: readonly MemberProcess[]) => launchMember(stage, { member, join });
  const [first, ...rest] = plan.members;
  const manager = await (await launch(first, [])).ready();
  const others = await Promise.all(rest.map(async (member) => await (await launch(member, [manager])).ready()));
  const members = [manager, ...others];
  await processes.settled(REST_MS, members);
  const tokens = plan.members.reduce((sum, { kvTokens }) => sum + kvTokens, 0);
  const fulls = members.filter(({ settings }) => settings.role === "full");
  await Promise.all(fulls.map((member) => processes.reaches(member, { tokens, ms: REST_MS })));
  note("the cluster is whole");

  const faults = new ChaosFaults(members, { processes, launch, note });
  const moments = new Moments(plan.requests.length);
  const asked = plan.requests.map((request, index) => askOne({ request, index, faults, moments }, stage));
  const harmed = plan.faults.map(async ({ moment, harm }) => {
    await moments.wait(moment);
    await faults.harm(harm);
  });
  // All are waited for, so that nothing goes on after a failure.
  for (const result of await Promise.allSettled([...asked, ...harmed])) {
    if (result.status === "rejected") throw result.reason;
  }
  await comeToRest(faults, stage);
  return await Promise.all(asked);
}

async function launchMember(
  { plan, processes, tokenBytes, keyFile }: Stage,
  { member, join }: { readonly member: PlannedMember; readonly join: readonly MemberProcess[] },
): Promise<MemberProcess> {
  const { name, role, kvTokens } = member;
  return await processes.launch({
    name,
    role,
    kvTokens,
    kvMemory: `${kvTokens * tokenBytes / 1024}KiB`,
    join,
    proxied: true,
    // All of it, so that what can be held does not depend on what was held lately.
    flags: [
      ...role === "full" ? ["--lend-share", "1"] : [],
      ...plan.keyed ? ["--cluster-key-file", keyFile] : [],
    ],
  });
}

interface Asked {
  readonly request: PlannedRequest;
  readonly index: number;
  readonly faults: ChaosFaults;
  readonly moments: Moments;
}

async function askOne({ request, index, faults, moments }: Asked, stage: Stage): Promise<RequestEnd> {
  const { plan, note, reference } = stage;
  const { question, front: name, atMs, abortAfter } = request;
  await pause(atMs);
  const expected = (await reference.answer(question)).tokens;
  const front = faults.member(name);
  const goneBefore = front === undefined || front.ended || faults.troubles.get(name)?.has("left") === true;
  try {
    if (front === undefined) throw new AnswerError(`Cannot ask ${name}: it never was`, { status: 0, code: "broken" });
    note(`request ${index} begins`);
    const { tokens, finish } = await front.ask(question, {
      timeoutMs: ANSWER_MS,
      onTokens: (count) => moments.tokens(index, count),
      abortAfter,
    });
    note(`request ${index} has ended: ${tokens.length} tokens, ${finish}`);
    const aborted = finish === "aborted";
    checkTokens(tokens, { expected: aborted ? expected.slice(0, tokens.length) : expected, index });
    return aborted ? "aborted" : "same";
  } catch (error) {
    if (!(error instanceof AnswerError)) throw new Error(`Cannot finish request ${index}`, { cause: error });
    const { status, code, message, tokens } = error;
    note(`request ${index} has failed after ${tokens.length} tokens: ${status} ${code} ${message}`);
    checkTokens(tokens, { expected: expected.slice(0, tokens.length), index });
    const left = faults.troubles.get(name)?.has("left") === true && code === "shutting_down";
    if (goneBefore || front?.killed === true || left) return "front gone";
    const room = code === "broken" ? "enough" : roomFor(request, { plan, faults });
    if (room !== "enough") return room;
    throw new Error(`Cannot excuse that request ${index} failed: ${status} ${code} ${message}`, { cause: error });
  } finally {
    moments.over(index);
  }
}

/** @throws {Error} naming the first token that differs. */
function checkTokens(
  actual: readonly AnsweredToken[],
  { expected, index }: { readonly expected: readonly AnsweredToken[]; readonly index: number },
): void {
  const at = expected.findIndex((token, i) => JSON.stringify(token) !== JSON.stringify(actual[i]));
  if (at < 0 && actual.length === expected.length) return;
  const place = at < 0 ? expected.length : at;
  throw new Error(
    `Cannot accept the answer of request ${index}: another one from token ${place} of ${expected.length} on: ` +
      `wanted ${JSON.stringify(expected[place])}, got ${JSON.stringify(actual[place])}`,
  );
}

/**
 * Room for a request in the members that nothing was done to, and in its front: enough when each instance of them can hold
 * it alone, or all of them together can hold it beside every other request.
 */
function roomFor(
  { question, front }: PlannedRequest,
  { plan, faults }: { readonly plan: RoundPlan; readonly faults: ChaosFaults },
): "enough" | "no room" | "crowded out" {
  const segments = (of: PlannedRequest["question"]) => Math.ceil((of.prompt.length + of.maxTokens) / SEGMENT_TOKENS);
  const well = plan.members.filter(({ name }) => name === front || (faults.troubles.get(name)?.size ?? 0) === 0);
  const homes = well.filter(({ role }) => role === "full");
  if (homes.every(({ kvTokens }) => question.prompt.length + question.maxTokens <= kvTokens)) return "enough";
  const capacity = well.reduce((sum, { kvTokens }) => sum + Math.floor(kvTokens / SEGMENT_TOKENS), 0);
  if (segments(question) > capacity) return "no room";
  return plan.requests.reduce((sum, request) => sum + segments(request.question), 0) > capacity
    ? "crowded out"
    : "enough";
}

/** Everything that went wrong is over: whoever is left sees the others, holds nothing, and answers. */
async function comeToRest(faults: ChaosFaults, { processes, reference, note }: Stage): Promise<void> {
  const { alive } = faults;
  for (const member of alive) {
    const { name } = member;
    if (faults.troubles.get(name)?.has("evacuated")) {
      await member.operate({ kind: "evacuate", member: name, undo: true });
    }
  }
  if (faults.managed) await processes.settled(REST_MS, alive);
  // Heartbeats of before say nothing.
  await pause(600);
  await processes.empty(REST_MS, alive);
  note("the survivors hold nothing");
  const question = { prompt: [3, 1, 4, 1, 5], maxTokens: 4, temperature: 0, seed: 1 };
  const expected = await reference.answer(question);
  for (const member of alive) {
    if (member.settings.role === "holder") continue;
    const { tokens } = await member.ask(question, { timeoutMs: ANSWER_MS });
    checkTokens(tokens, { expected: expected.tokens, index: -1 });
  }
}

/** Tells how far requests are. */
class Moments {
  readonly #counts: number[];
  readonly #waiting = new Set<() => void>();

  constructor(requests: number) {
    this.#counts = new Array<number>(requests).fill(0);
  }

  tokens(request: number, count: number): void {
    this.#counts[request] = count;
    this.#wake();
  }

  /** Nothing more comes of a request. */
  over(request: number): void {
    this.tokens(request, Infinity);
  }

  async wait(moment: Moment): Promise<void> {
    if (moment.kind === "tokens") {
      while (this.#counts[moment.request] < moment.count) {
        await new Promise<void>((resolve) => this.#waiting.add(resolve));
      }
    }
    await pause(moment.ms);
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
