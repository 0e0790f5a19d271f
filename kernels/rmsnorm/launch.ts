/**
 * Launches RMSNorm on the WASM runtime.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { checkRmsnorm, type RmsnormInput } from "./spec.ts";

/** y [T, N]: see the formula of the spec. @throws {RangeError} when an axis does not match. */
export function rmsnorm(wasm: WasmRuntime, input: RmsnormInput): Float32Array {
  const { rows, width } = checkRmsnorm(input);
  using arena = new Arena(wasm);
  const [x, w, y] = [arena.copy(input.x), arena.copy(input.w), arena.poisoned(input.x.length)];
  wasm.exports.rmsnorm_run(x, w, y, rows, width, input.eps);
  return wasm.f32(y, input.x.length).slice();
}
