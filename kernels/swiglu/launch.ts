/**
 * Launches the gated activation on the WASM runtime.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { checkSwiglu, type SwigluInput } from "./spec.ts";

/** y [N]: see the formula of the spec. @throws {RangeError} when the lengths differ. */
export function swiglu(wasm: WasmRuntime, input: SwigluInput): Float32Array {
  checkSwiglu(input);
  const count = input.gate.length;
  using arena = new Arena(wasm);
  const [gate, up, y] = [arena.copy(input.gate), arena.copy(input.up), arena.poisoned(count)];
  wasm.exports.swiglu_run(gate, up, y, count);
  return wasm.f32(y, count).slice();
}
