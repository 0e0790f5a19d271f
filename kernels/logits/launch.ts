/**
 * Launches the logit summary on the WASM runtime.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { CANDIDATES, checkLogits, type LogitSummary } from "./spec.ts";

/** Summary of a row: see the spec. @throws {RangeError} when it is empty. */
export function summariseLogits(wasm: WasmRuntime, row: Float32Array): LogitSummary {
  checkLogits(row);
  using arena = new Arena(wasm);
  const [x, out] = [arena.copy(row), arena.poisoned(2 + 2 * CANDIDATES)];
  wasm.exports.logits_run(x, row.length, out);
  const count = wasm.u32(out + 4, 1)[0];
  return {
    logSumExp: wasm.f32(out, 1)[0],
    ids: wasm.i32(out + 8, count).slice(),
    logits: wasm.f32(out + 8 + 4 * CANDIDATES, count).slice(),
  };
}
