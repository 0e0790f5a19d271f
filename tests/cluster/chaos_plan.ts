/**
 * What happens in a round of chaos: the members, what is asked of them and what is done to them, all of it drawn from one
 * seed.
 *
 * @module
 */
import { Random } from "../simulation/random.ts";
import type { Question } from "./answers.ts";

/** A member to start with. */
export interface PlannedMember {
  /** Name; that of the first one, which carries the gManager, is `m0`. */
  readonly name: string;
  /** What it does. */
  readonly role: "full" | "holder";
  /** KV tokens that it holds. */
  readonly kvTokens: number;
}

/** A request. */
export interface PlannedRequest {
  /** Member that is asked. */
  readonly front: string;
  /** When, ms from the start of the round. */
  readonly atMs: number;
  /** What. */
  readonly question: Question;
  /** Tokens after which its client goes away. */
  readonly abortAfter?: number;
}

/** When something is done: so long after the start, or after a request has so many tokens. */
export type Moment =
  | { readonly kind: "time"; readonly ms: number }
  | { readonly kind: "tokens"; readonly request: number; readonly count: number; readonly ms: number };

/** What is done to a link, for a while. */
export type LinkHarm =
  | { readonly how: "cut" | "reset" }
  | { readonly how: "delay"; readonly latencyMs: number; readonly jitterMs: number }
  | { readonly how: "narrow"; readonly bytesPerSecond: number }
  | { readonly how: "half-open"; readonly swallow: readonly ("up" | "down")[] }
  | { readonly how: "corrupt" | "truncate"; readonly direction: "up" | "down"; readonly after: number };

/** What is done. */
export type Harm =
  | { readonly kind: "kill"; readonly member: string; readonly back: boolean }
  | { readonly kind: "pause"; readonly member: string; readonly ms: number }
  | { readonly kind: "link"; readonly member: string; readonly ms: number; readonly harm: LinkHarm }
  | { readonly kind: "evacuate"; readonly member: string; readonly ms: number }
  | { readonly kind: "move"; readonly draw: number }
  | { readonly kind: "leave"; readonly member: string; readonly how: "signal" | "operator" }
  | { readonly kind: "join"; readonly member: PlannedMember };

/** One fault. */
export interface PlannedFault {
  /** When. */
  readonly moment: Moment;
  /** What. */
  readonly harm: Harm;
}

/** A round. */
export interface RoundPlan {
  /** Its seed. */
  readonly seed: number;
  /** Which model. */
  readonly model: "synthetic" | "real";
  /** Whether the members share a key; without one nothing proves that bytes came as they were sent. */
  readonly keyed: boolean;
  /** Members to start with. */
  readonly members: readonly PlannedMember[];
  /** Requests in order of time. */
  readonly requests: readonly PlannedRequest[];
  /** Faults. */
  readonly faults: readonly PlannedFault[];
}

/** Share of the rounds with the real model. */
const REAL_SHARE = 0.1;
/** Token ids are drawn below this: every model has so many. */
const IDS = 250;

/** Draws the round of a seed; `model` instead of a drawn one. */
export function drawRound(seed: number, { model }: { readonly model?: RoundPlan["model"] } = {}): RoundPlan {
  const random = new Random(seed);
  const drawn = random.stream("model").chance(REAL_SHARE) ? "real" : "synthetic";
  const chosen = model ?? drawn;
  const members = drawMembers(random.stream("members"), chosen);
  const requests = drawRequests(random.stream("requests"), { members, model: chosen });
  const faults = drawFaults(random.stream("faults"), { members, requests });
  const corrupt = faults.some(({ harm }) => harm.kind === "link" && harm.harm.how === "corrupt");
  return { seed, model: chosen, keyed: corrupt || random.stream("key").chance(0.5), members, requests, faults };
}

/** The plan in a few lines. */
export function describePlan({ seed, model, keyed, members, requests, faults }: RoundPlan): string {
  return [
    `seed ${seed}, ${model} model, ${keyed ? "with a key" : "without a key"}, ${
      members.map(({ name, kvTokens }) => `${name} ${kvTokens}`).join(", ")
    }`,
    ...requests.map(({ front, atMs, question, abortAfter }, i) =>
      `request ${i} at ${front} after ${atMs} ms: ${question.prompt.length} + ${question.maxTokens}` +
      `${question.stream === true ? ", streamed" : ""}, temperature ${question.temperature}` +
      `${abortAfter === undefined ? "" : `, client leaves after ${abortAfter}`}`
    ),
    ...faults.map(({ moment, harm }) => `${JSON.stringify(harm)} at ${JSON.stringify(moment)}`),
  ].join("\n  ");
}

/** The command that plays a round again; `model` if one was asked for. */
export function replayCommand({ seed }: RoundPlan, { model }: { readonly model?: RoundPlan["model"] } = {}): string {
  return `deno task chaos --rounds 1 --seed ${seed}${model === undefined ? "" : ` --model ${model}`}`;
}

function drawMembers(random: Random, model: RoundPlan["model"]): PlannedMember[] {
  const sizes = model === "real" ? [512, 768] : [512, 768, 1024];
  const members: PlannedMember[] = Array.from({ length: random.integer(2, 4) }, (_, i) => ({
    name: `m${i}`,
    role: "full",
    kvTokens: random.pick(sizes),
  }));
  if (random.chance(0.4)) members.push({ name: "h0", role: "holder", kvTokens: random.pick([512, 1024]) });
  return members;
}

function ids(count: number, seed: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.integer(3, IDS - 1));
}

function drawRequests(
  random: Random,
  { members, model }: { readonly members: readonly PlannedMember[]; readonly model: RoundPlan["model"] },
): PlannedRequest[] {
  const fronts = members.filter(({ role }) => role === "full");
  const total = members.reduce((sum, { kvTokens }) => sum + kvTokens, 0);
  const home = Math.max(...fronts.map(({ kvTokens }) => kvTokens));
  const shared = ids(random.integer(64, 400), random.bits());
  const most = model === "real" ? 32 : 400;
  const requests = Array.from({ length: random.integer(2, 5) }, (_, i): PlannedRequest => {
    const long = i === 0 || random.chance(0.25);
    const maxTokens = random.integer(long ? most >> 2 : 4, most);
    // Room for what the others need, so that it can run unless something is lost.
    const length = long
      ? random.integer(Math.min(home + 16, total - maxTokens - 256), Math.max(home + 16, Math.floor(total * 0.6)))
      : random.integer(4, 300);
    const prompt = random.chance(0.5)
      ? [...shared, ...ids(Math.max(1, length - shared.length), random.bits())]
      : ids(length, random.bits());
    const stream = random.chance(0.7);
    return {
      front: random.pick(fronts).name,
      atMs: i === 0 ? 0 : random.integer(0, 1000),
      question: {
        prompt,
        maxTokens,
        temperature: random.pick([0, 0.8, 1]),
        seed: random.integer(1, 1e6),
        stream,
      },
      abortAfter: stream && random.chance(0.1) ? random.integer(1, maxTokens) : undefined,
    };
  });
  return requests.sort((a, b) => a.atMs - b.atMs);
}

function drawFaults(
  random: Random,
  { members, requests }: { readonly members: readonly PlannedMember[]; readonly requests: readonly PlannedRequest[] },
): PlannedFault[] {
  const fulls = members.filter(({ role }) => role === "full");
  let joined = 0;
  // One instance always stays, so that something can be checked.
  let gone = 0;
  const drawHarm = (): Harm => {
    const member = random.pick(members).name;
    const leaves = () => gone < fulls.length - 1 && ++gone > 0;
    switch (
      random.pick([
        "kill",
        "kill",
        "kill",
        "pause",
        "pause",
        "link",
        "link",
        "link",
        "evacuate",
        "move",
        "move",
        "leave",
        "join",
      ])
    ) {
      case "kill":
        if (!leaves()) return { kind: "move", draw: random.bits() };
        return { kind: "kill", member, back: random.chance(0.3) };
      case "pause":
        return { kind: "pause", member, ms: Math.round(200 * 40 ** random.unit()) };
      case "link":
        return { kind: "link", member, ms: random.integer(50, 3000), harm: drawLinkHarm(random) };
      case "evacuate":
        return { kind: "evacuate", member, ms: random.integer(200, 3000) };
      case "leave":
        if (!leaves()) return { kind: "move", draw: random.bits() };
        return { kind: "leave", member, how: random.pick(["signal", "operator"]) };
      case "join": {
        const holder = random.chance(0.5);
        const name = `j${joined++}`;
        return { kind: "join", member: { name, role: holder ? "holder" : "full", kvTokens: random.pick([512, 1024]) } };
      }
      default:
        return { kind: "move", draw: random.bits() };
    }
  };
  return Array.from({ length: random.integer(1, 4) }, (): PlannedFault => {
    const streamed = requests.map((_, i) => i).filter((i) => requests[i].question.stream === true);
    const moment: Moment = streamed.length === 0 || random.chance(0.4)
      ? { kind: "time", ms: random.integer(0, 1500) }
      : drawTokens(random, { request: random.pick(streamed), requests });
    return { moment, harm: drawHarm() };
  });
}

function drawTokens(
  random: Random,
  { request, requests }: { readonly request: number; readonly requests: readonly PlannedRequest[] },
): Moment {
  const { maxTokens } = requests[request].question;
  return { kind: "tokens", request, count: random.integer(1, Math.ceil(maxTokens / 2)), ms: random.integer(0, 100) };
}

function drawLinkHarm(random: Random): LinkHarm {
  switch (random.pick(["cut", "reset", "delay", "narrow", "half-open", "corrupt", "truncate"])) {
    case "cut":
      return { how: "cut" };
    case "reset":
      return { how: "reset" };
    case "delay":
      return { how: "delay", latencyMs: random.integer(5, 300), jitterMs: random.integer(0, 50) };
    case "narrow":
      return { how: "narrow", bytesPerSecond: random.integer(20_000, 500_000) };
    case "half-open":
      return { how: "half-open", swallow: random.pick([["up"], ["down"], ["up", "down"]]) };
    case "corrupt":
      return { how: "corrupt", direction: random.pick(["up", "down"]), after: random.integer(0, 4000) };
    default:
      return { how: "truncate", direction: random.pick(["up", "down"]), after: random.integer(0, 4000) };
  }
}
