/**
 * Memory of the kernel module that grows with what the host puts there.
 *
 * @module
 */
import type { WasmRuntime } from "../../kernels/wasm/instance.ts";

/** Least words of a buffer. */
const LEAST_WORDS = 1024;
/** Most words that a buffer grows by beyond what is asked for: 1 MiB. */
const MOST_SPARE_WORDS = 2 ** 18;

/** One growing buffer; what it held is lost when it grows. */
export class HostBuffer {
  readonly #runtime: WasmRuntime;
  #address = 0;
  #words = 0;

  /** An empty buffer in the memory of `runtime`. */
  constructor(runtime: WasmRuntime) {
    this.#runtime = runtime;
  }

  /**
   * Address of at least `words` 32-bit words of any content, aligned to 64.
   *
   * @throws {RangeError} when the memory's maximum is reached; the buffer is empty then.
   */
  reserve(words: number): number {
    if (words > this.#words) {
      if (this.#words > 0) this.#runtime.free(this.#address, this.#words * 4);
      this.#words = 0;
      const wanted = Math.max(LEAST_WORDS, words + Math.min(words, MOST_SPARE_WORDS));
      this.#address = this.#runtime.allocUntouched(wanted * 4);
      this.#words = wanted;
    }
    return this.#address;
  }
}
