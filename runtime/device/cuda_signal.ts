/**
 * How the host learns that the GPU is done: a word of host memory that the last kernel writes and the host polls. A blocking
 * wait of the driver costs tens of microseconds.
 *
 * @module
 */
import type { CudaContext, CudaStream, DevicePtr, PinnedBuffer } from "../../ffi/cuda/cuda.ts";

/** Looks at the word between two looks at the stream, which cost a call. */
const SPINS = 1 << 14;

/** A word that counts what is done. */
export class CudaSignal implements Disposable {
  readonly #buffer: PinnedBuffer;
  readonly #word: Int32Array;
  #last = 0;

  /** Nothing is done. */
  constructor(context: CudaContext) {
    this.#buffer = context.pinned(4);
    this.#word = new Int32Array(this.#buffer.buffer, 0, 1);
  }

  /** The word as the GPU sees it. */
  get address(): DevicePtr {
    return this.#buffer.address;
  }

  /** A number to be signalled after all those before. They count up and wrap as 32-bit integers do. */
  next(): number {
    this.#last = (this.#last + 1) | 0;
    return this.#last;
  }

  /** Whether `number`, or one behind it, was signalled. */
  reached(number: number): boolean {
    return ((Atomics.load(this.#word, 0) - number) | 0) >= 0;
  }

  /**
   * Waits until `number` is signalled on `stream`.
   *
   * @throws {CudaError} when the GPU failed before.
   * @throws {Error} when the stream ended without the signal.
   */
  wait(number: number, stream: CudaStream): void {
    for (;;) {
      for (let spin = 0; spin < SPINS; spin++) if (this.reached(number)) return;
      if (stream.idle && !this.reached(number)) {
        throw new Error(
          `Cannot wait for the GPU: wanted signal ${number}, got ${Atomics.load(this.#word, 0)} at the end`,
        );
      }
    }
  }

  /** Gives the word back. */
  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}
