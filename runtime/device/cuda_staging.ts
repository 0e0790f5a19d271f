/**
 * Memory on both sides of the bus that grows with what passes through it.
 *
 * @module
 */
import type { CudaContext, DeviceBuffer, DevicePtr, PinnedBuffer } from "../../ffi/cuda/cuda.ts";

/** Least bytes. */
const LEAST_BYTES = 1 << 16;

/** A pair of buffers of one size, in host memory and on the device; what they held is lost when they grow. */
export class CudaStaging implements Disposable {
  readonly #context: CudaContext;
  #pair: { readonly host: PinnedBuffer; readonly device: DeviceBuffer } | undefined;
  #bytes = 0;

  /** An empty pair. */
  constructor(context: CudaContext) {
    this.#context = context;
  }

  /**
   * Makes room for `bytes` bytes. Nothing may be on the way in the pair.
   *
   * @returns whether the addresses are new.
   * @throws {CudaError} when there is no memory; the pair is empty then.
   */
  reserve(bytes: number): boolean {
    if (bytes <= this.#bytes) return false;
    this[Symbol.dispose]();
    const size = Math.max(LEAST_BYTES, 2 ** Math.ceil(Math.log2(bytes)));
    using opened = new DisposableStack();
    const host = opened.use(this.#context.pinned(size));
    const device = opened.use(this.#context.alloc(size));
    opened.move();
    this.#pair = { host, device };
    this.#bytes = size;
    return true;
  }

  /** The host's memory. */
  get memory(): ArrayBuffer {
    return this.#open().host.buffer;
  }

  /** Address of byte `offset` of the host's memory. */
  host(offset: number = 0): DevicePtr {
    return this.#open().host.at(offset);
  }

  /** Address of byte `offset` of the device's memory. */
  device(offset: number = 0): DevicePtr {
    return this.#open().device.at(offset);
  }

  /** Frees both. */
  [Symbol.dispose](): void {
    this.#pair?.host[Symbol.dispose]();
    this.#pair?.device[Symbol.dispose]();
    this.#pair = undefined;
    this.#bytes = 0;
  }

  #open(): { readonly host: PinnedBuffer; readonly device: DeviceBuffer } {
    if (this.#pair === undefined) throw new ReferenceError("Cannot use staging memory: nothing was reserved");
    return this.#pair;
  }
}
