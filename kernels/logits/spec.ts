/**
 * logits - what a sampler needs of a row of logits: lse = ln sum exp(x[v]) and the largest 64 of them.
 *
 * x [V] f32 -> lse f32, ids i32 and logits f32 [min(64, V)], descending, equal logits by lower id first. A NaN makes lse NaN and
 * counts as -Infinity among the candidates; a row of -Infinity has lse = -Infinity.
 *
 * Needs: V >= 1.
 *
 * Roofline: bytes = 4 V from the L2 cache, read about twice; one exponential (17 instructions for 4 values) bounds it.
 *
 * Schedule (kernels/wasm/src/logits.rs): chunks of 4096 any thread may take, joined in order; candidates from the groups of 64
 * whose maximum reaches the 64th largest maximum. On CUDA (logits.cu) rows are also bf16, chunks the same, candidates from the
 * threads whose largest logit reaches a floor that 64 threads reach; places beyond min(64, V) hold id -1 and -Infinity.
 *
 * Test: launch_test.ts, logits_cuda_test.ts. Time: `deno run -A kernels/logits/launch_bench.ts`.
 *
 * @module
 */

/** Most candidates reported. */
export const CANDIDATES = 64;

/** What a sampler needs of one row. */
export interface LogitSummary {
  /** ln sum exp(logit). */
  readonly logSumExp: number;
  /** Ids of the largest logits, descending. */
  readonly ids: Int32Array;
  /** Their logits. */
  readonly logits: Float32Array;
}

/** Checks a row. @throws {RangeError} when it is empty. */
export function checkLogits(row: Float32Array): void {
  if (row.length === 0) throw new RangeError("Cannot summarise logits: axis V must be at least 1, got 0");
}

/**
 * Absolute tolerance of lse against the f64 reference: exponentials and their 1024 additions a lane, in practice 1e-6
 * relatively, plus half an ulp of lse. It holds for CUDA too, whose exponentials are right to 2^-22 and whose sums are short.
 */
export const TOLERANCE = { absolute: 1.5e-6, relative: 1.2e-7 } as const;

/** Seeds of test and bench data. */
export const SEEDS = { test: 71, bench: 72 } as const;
