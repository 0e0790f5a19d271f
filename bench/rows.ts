/**
 * The rows of the benchmark: what is measured, in which unit, and the goal each row is held to.
 *
 * @module
 */

/** Identifies a row, on the command line and in the JSON. */
export type RowId =
  | "decode-128"
  | "decode-2000"
  | "prefill-512"
  | "prefill-2000"
  | "batch-8"
  | "first-token"
  | "warm-start"
  | "memory"
  | "health";

/** A limit of the machine, measured from inside WebAssembly; `read` and `dot` and `f32` use all threads. */
export type CeilingId = "read-1" | "read" | "dot" | "f32";

/**
 * What a goal compares with: the fastest native peer, wllama, the ceiling, a bare HTTP server, or nothing (the goal is
 * in the row's own unit).
 */
export type GoalBasis = "native" | "wllama" | "ceiling" | "bare" | "none";

/** One goal of a row. */
export interface Goal {
  /** What ours is divided by. */
  readonly basis: GoalBasis;
  /** What must be reached; absent where only an aim is stated. */
  readonly atLeast?: number;
  /** What we would like to reach. */
  readonly aim: number;
}

/** One row. */
export interface Row {
  /** Name on the command line. */
  readonly id: RowId;
  /** Name for people. */
  readonly title: string;
  /** Unit of every figure of the row. */
  readonly unit: "tokens/s" | "ms" | "MB" | "requests/s";
  /** Which way is better. */
  readonly better: "higher" | "lower";
  /** Ceilings measured beside it. */
  readonly ceilings: readonly CeilingId[];
  /** Goals. */
  readonly goals: readonly Goal[];
}

const AGAINST_WLLAMA: Goal = { basis: "wllama", atLeast: 5, aim: 12 };

/** Every row, in the order they are run. */
export const ROWS: readonly Row[] = [
  {
    id: "decode-128",
    title: "decode, batch 1, 128 tokens of context",
    unit: "tokens/s",
    better: "higher",
    ceilings: ["read-1", "read"],
    goals: [{ basis: "native", atLeast: 1.2, aim: 2 }, AGAINST_WLLAMA, { basis: "ceiling", aim: 0.88 }],
  },
  {
    id: "decode-2000",
    title: "decode, batch 1, 2,000 tokens of context",
    unit: "tokens/s",
    better: "higher",
    ceilings: ["read-1", "read"],
    goals: [{ basis: "native", atLeast: 1.4, aim: 2.6 }, AGAINST_WLLAMA, { basis: "ceiling", aim: 0.85 }],
  },
  {
    id: "prefill-512",
    title: "prefill, 512 tokens",
    unit: "tokens/s",
    better: "higher",
    ceilings: ["dot", "f32"],
    goals: [{ basis: "native", atLeast: 1.5, aim: 3 }, AGAINST_WLLAMA, { basis: "ceiling", aim: 0.65 }],
  },
  {
    id: "prefill-2000",
    title: "prefill, 2,000 tokens",
    unit: "tokens/s",
    better: "higher",
    ceilings: ["dot", "f32"],
    goals: [{ basis: "native", atLeast: 1.5, aim: 2 }, AGAINST_WLLAMA, { basis: "ceiling", aim: 0.65 }],
  },
  {
    id: "batch-8",
    title: "8 sequences decoding together, 128 tokens of context, total",
    unit: "tokens/s",
    better: "higher",
    ceilings: ["dot"],
    goals: [{ basis: "native", atLeast: 1.6, aim: 4 }, AGAINST_WLLAMA, { basis: "ceiling", aim: 0.45 }],
  },
  {
    id: "first-token",
    title: "first token of a 128-token prompt over HTTP",
    unit: "ms",
    better: "lower",
    ceilings: [],
    goals: [{ basis: "native", atLeast: 0.6, aim: 0.35 }],
  },
  {
    id: "warm-start",
    title: "warm start to ready",
    unit: "ms",
    better: "lower",
    ceilings: [],
    goals: [{ basis: "none", atLeast: 2000, aim: 1000 }],
  },
  {
    id: "memory",
    title: "memory above weights and KV pool",
    unit: "MB",
    better: "lower",
    ceilings: [],
    goals: [{ basis: "none", atLeast: 250, aim: 150 }],
  },
  {
    id: "health",
    title: "/health against a bare node:http handler",
    unit: "requests/s",
    better: "higher",
    ceilings: [],
    goals: [{ basis: "bare", atLeast: 0.5, aim: 0.7 }],
  },
];

/** Tokens generated in one sample of a decode row, after the first one. */
export const DECODED_TOKENS = 64;
/** Tokens of the KV pool when memory is measured: a 2,000-token prompt and {@linkcode DECODED_TOKENS} fill it. */
export const MEMORY_KV_TOKENS = 2064;
