/**
 * What one seed stands for: who takes part, what is asked of them, and what goes wrong.
 *
 * @module
 */
import { CLUSTER_TIMINGS, type ClusterTimings } from "../../runtime/cluster/options.ts";
import type { Random } from "./random.ts";
import { CALM, type Weather } from "./weather.ts";

/** Memory policies that members run: the built-in ones, and two that must not matter. */
export type PolicyKind = "infinite-llm" | "spread" | "local-only" | "lying" | "throwing";

/** A process of the world. */
export interface NodeSpec {
  /** Name. */
  readonly name: string;
  /** Whether it has a model. */
  readonly role: "full" | "holder";
  /** Whether it carries a gManager. */
  readonly manager: boolean;
  /** Blocks of its pool. */
  readonly blocks: number;
  /** Most running sequences. */
  readonly maxBatch: number;
  /** Most tokens of a step. */
  readonly maxStepTokens: number;
  /** Memory policy. */
  readonly policy: PolicyKind;
  /** Cap on lent blocks, where there is one. */
  readonly lendShare?: number;
  /** Clock. */
  readonly skew: { readonly offsetMs: number; readonly rate: number };
}

/** Everything that can go wrong on purpose. */
export const FAULTS = [
  "crash",
  "host-down",
  "pause",
  "one-way",
  "isolate",
  "swizzle",
  "cut",
  "half-open",
  "jump",
  "device",
  "move",
  "evacuate",
  "pin",
  "leave",
] as const;

/** One of {@linkcode FAULTS}. */
export type FaultKind = typeof FAULTS[number];

/** What one seed stands for. */
export interface Scenario {
  /** Processes. */
  readonly nodes: readonly NodeSpec[];
  /** Tokens of a block. */
  readonly blockTokens: number;
  /** Tokens of a segment. */
  readonly segmentTokens: number;
  /** Times of the protocol. */
  readonly timings: ClusterTimings;
  /** What the wires do while things go wrong. */
  readonly weather: Weather;
  /** What goes wrong. */
  readonly faults: readonly FaultKind[];
  /** Mean time between faults, ms. */
  readonly faultMs: number;
  /** Requests before the world is healed. */
  readonly requests: number;
  /** Mean time between requests, ms. */
  readonly requestMs: number;
  /** Share of the requests whose client leaves. */
  readonly abort: number;
  /** Longest prompt, tokens. */
  readonly longest: number;
  /** Longest turn of a process, ms. */
  readonly turnMs: number;
  /** Work of a slice. */
  readonly sliceWork: number;
  /** Whether equal prefixes share KV. */
  readonly prefixCache: boolean;
  /** When the world is healed, ms. */
  readonly healMs: number;
}

/** Draws a scenario. */
export function drawScenario(random: Random): Scenario {
  const draw = random.stream("scenario");
  // Quiet worlds show that nothing is needed to go wrong for things to go right.
  const quiet = draw.chance(0.06);
  const blockTokens = draw.pick([4, 4, 8]);
  const segmentTokens = blockTokens * draw.pick([2, 2, 4]);
  const perSegment = segmentTokens / blockTokens;
  const full = draw.integer(1, 3);
  const holders = draw.integer(full === 1 ? 1 : 0, 3);
  const managers = !quiet && full > 1 && draw.chance(0.15) ? 2 : 1;
  const nodes = Array.from({ length: full + holders }, (_, index): NodeSpec => ({
    name: `${index < full ? "home" : "holder"}-${index}`,
    role: index < full ? "full" : "holder",
    manager: index < managers,
    blocks: perSegment * draw.integer(4, 12),
    maxBatch: draw.integer(1, 6),
    maxStepTokens: draw.pick([8, 16, 48]),
    policy: quiet
      ? draw.pick(["infinite-llm", "spread"])
      : draw.pick(["infinite-llm", "infinite-llm", "spread", "local-only", "lying", "throwing"]),
    lendShare: draw.chance(0.3) ? draw.pick([0.25, 0.5, 1]) : undefined,
    skew: { offsetMs: draw.real(0, 1e6), rate: draw.chance(0.5) ? 1 : draw.real(0.97, 1.03) },
  }));
  const scale = draw.pick([0.1, 0.2]);
  const faultMs = draw.pick([60, 200, 700]);
  const requests = draw.integer(4, 14);
  const requestMs = draw.real(20, 300);
  const capacity = nodes.reduce((sum, { blocks }) => sum + blocks, 0) * blockTokens;
  return {
    nodes,
    blockTokens,
    segmentTokens,
    timings: scaleTimings(scale),
    weather: quiet ? CALM : drawWeather(draw),
    faults: quiet ? [] : FAULTS.filter(() => draw.chance(0.3)),
    faultMs,
    requests,
    requestMs,
    abort: quiet ? 0 : draw.pick([0, 0.1, 0.4]),
    longest: Math.min(320, Math.floor(capacity * draw.pick([0.2, 0.6, 1.1]))),
    turnMs: draw.pick([0.5, 3, 12]),
    sliceWork: draw.pick([200, 2000, 1e9]),
    prefixCache: draw.chance(0.75),
    healMs: Math.max(3000, requests * requestMs) + draw.real(0, 3000),
  };
}

function drawWeather(draw: Random): Weather {
  const datagram = draw.chance(0.3);
  return {
    delayMs: draw.real(0.02, 0.5),
    jitterMs: draw.pick([0.1, 1, 10]),
    mode: datagram ? "datagram" : "stream",
    loss: datagram ? draw.pick([0, 0.003, 0.02]) : 0,
    duplicate: datagram ? draw.real(0, 0.3) : 0,
    late: datagram ? draw.real(0, 0.05) : 0,
    lateMs: datagram ? draw.real(10, 3000) : 0,
    refuse: draw.chance(0.3) ? draw.real(0, 0.5) : 0,
    corrupt: draw.chance(0.25) ? draw.real(0, 0.2) : 0,
    lie: draw.chance(0.2) ? draw.real(0, 0.02) : 0,
  };
}

function scaleTimings(scale: number): ClusterTimings {
  const { heartbeatMs, suspectMs, leaseMs, renewMs, partialMs, recallMs, planMs, callMs } = CLUSTER_TIMINGS;
  return {
    ...CLUSTER_TIMINGS,
    heartbeatMs: heartbeatMs * scale,
    suspectMs: suspectMs * scale,
    leaseMs: leaseMs * scale,
    renewMs: renewMs * scale,
    partialMs: partialMs * scale,
    recallMs: recallMs * scale,
    planMs: planMs * scale,
    callMs: callMs * scale,
  };
}
