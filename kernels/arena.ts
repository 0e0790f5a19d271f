/**
 * Arrays in the kernel module's memory for the length of a call.
 *
 * @module
 */
import type { WasmRuntime } from "./wasm/instance.ts";

/** Memory of a {@linkcode WasmRuntime} that is freed together. */
export class Arena implements Disposable {
  readonly #wasm: WasmRuntime;
  readonly #stack = new DisposableStack();

  /** An arena in the memory of `wasm`. */
  constructor(wasm: WasmRuntime) {
    this.#wasm = wasm;
  }

  /** Address of `bytes` zeroed bytes, aligned to 64. @throws {RangeError} when the memory's maximum is reached. */
  bytes(bytes: number): number {
    return this.#stack.adopt(this.#wasm.alloc(bytes), (address) => this.#wasm.free(address, bytes));
  }

  /** Address of a copy of `values`. @throws {RangeError} as {@linkcode bytes}. */
  copy(values: Float32Array | Float64Array | Int32Array | Uint32Array): number {
    const address = this.bytes(values.byteLength);
    const source = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    this.#wasm.u8(address, values.byteLength).set(source);
    return address;
  }

  /** Address of `length` f32 that hold NaN, so that what a kernel does not write shows. @throws {RangeError} as {@linkcode bytes}. */
  poisoned(length: number): number {
    const address = this.bytes(length * 4);
    this.#wasm.f32(address, length).fill(NaN);
    return address;
  }

  /** Frees everything. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}
