/**
 * Launches the rotary embedding on the WASM runtime.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { checkRope, type RopeInput } from "./spec.ts";

/** Rotated heads [T, H, D]: see the formula of the spec. @throws {RangeError} when an axis does not match. */
export function rope(wasm: WasmRuntime, input: RopeInput): Float32Array {
  const { heads } = checkRope(input);
  const { positions, headDim, inverseFrequencies, pairing, magnitude = 1 } = input;
  using arena = new Arena(wasm);
  const x = arena.copy(input.x);
  wasm.exports.rope_run(
    x,
    arena.copy(Uint32Array.from(positions)),
    positions.length,
    heads,
    headDim,
    arena.copy(inverseFrequencies),
    inverseFrequencies.length,
    pairing === "halves" ? 1 : 0,
    magnitude,
  );
  return wasm.f32(x, input.x.length).slice();
}
