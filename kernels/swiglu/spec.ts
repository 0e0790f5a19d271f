/**
 * swiglu - activation of a gated MLP: y[i] = silu(gate[i]) * up[i], silu(g) = g / (1 + exp(-g)).
 *
 * gate, up [N] f32 -> y [N] f32, each value by itself.
 *
 * Needs: arrays of equal length.
 *
 * Roofline: bytes = 12 N from the caches; about 25 instructions for 4 values.
 *
 * Schedule (kernels/wasm/src/activation.rs): 4 values at a time; exponential by range reduction and a polynomial. On CUDA
 * (swiglu.cu) gate and up are the two halves of each row of one product and y is bf16, the input of the next.
 *
 * Test: launch_test.ts, swiglu_cuda_test.ts. Time: `deno run -A kernels/swiglu/launch_bench.ts`.
 *
 * @module
 */
import { Axes } from "../axes.ts";

/** Inputs of the activation. */
export interface SwigluInput {
  /** Gate, [N]. */
  readonly gate: Float32Array;
  /** Up projection, [N]. */
  readonly up: Float32Array;
}

/** Checks the arguments. @throws {RangeError} when the lengths differ. */
export function checkSwiglu({ gate, up }: SwigluInput): void {
  const axes = new Axes("activate", {});
  axes.match("gate", gate.length, ["N"]);
  axes.match("up", up.length, ["N"]);
}

/**
 * Tolerances against the f64 reference: `relative` is 2 ulps of the exponential and 3 roundings; `absolute`, per unit of
 * |gate * up|, covers gates below -87, whose exponential is held at exp(87).
 */
export const TOLERANCE = { relative: 5e-7, absolute: 2e-38 } as const;

/**
 * The same for a bf16 result of the CUDA kernel: half a unit in the last of 8 places, 2^-8, after an exponential whose
 * argument is rounded once (88 times 2^-24) and which the special function unit gives to 2^-22.
 */
export const TOLERANCE_BF16 = { relative: 2 ** -8 + 1e-5, absolute: 2e-38 } as const;

/** Seeds of test and bench data. */
export const SEEDS = { test: 61, bench: 62 } as const;
