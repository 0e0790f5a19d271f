/**
 * Opens the kernel module: one shared memory, one instance on the calling thread, and `threads - 1` compute Workers.
 *
 * Instances are made here rather than by wasm-bindgen's glue, which keeps one instance per process: two runtimes with
 * memories of their own can live side by side.
 *
 * @module
 */
import { allowedCpus, setAllowedCpus } from "../../ffi/affinity.ts";
import { adviseHugePages } from "../../ffi/huge_pages.ts";
import type { KernelExports } from "./lib/exports.ts";
import KERNELS from "./lib/kernels.b64" with { type: "text" };
import { requireFeatures } from "./features.ts";
import { instantiate } from "./instantiate.ts";
import { type ComputeThread, startThread, type ThreadStarter } from "./threads.ts";

export type { KernelExports };

const PAGE_BYTES = 65536;
const MAX_BYTES = 65536 * PAGE_BYTES;
const MAIN_STACK_BYTES = 1 << 20;

/** How to open the kernel module. */
export interface WasmOptions {
  /** Compute threads, the calling thread included; at least 1. */
  readonly threads: number;
  /** Most bytes the memory may grow to; a whole number of 64 KiB pages, at most 4 GiB. @default {4294967296} */
  readonly maxMemoryBytes?: number;
  /**
   * Pins every compute thread, the calling one included, to a CPU of its own where that is possible: Linux, FFI
   * permission and as many CPUs as threads. @default {false}
   */
  readonly pin?: boolean;
  /** Starts the compute threads. @default {Workers of the calling thread} */
  readonly startThread?: ThreadStarter;
}

/** The kernel module, ready to compute. Calls block the calling thread and come from that thread alone. */
export class WasmRuntime implements Disposable {
  /** Compute threads, the calling one included. */
  readonly threads: number;
  /** Whether each compute thread has a CPU of its own. */
  readonly pinned: boolean;
  /** Address of the thread team, the first argument of every kernel that uses all threads. */
  readonly team: number;
  readonly #exports: KernelExports;
  readonly #memory: WebAssembly.Memory;
  readonly #workers: readonly ComputeThread[];
  readonly #restoreCpus: readonly number[];
  #bytes: Uint8Array<ArrayBufferLike>;
  #disposed = false;

  /** Takes over what {@linkcode openWasm} made. */
  constructor(
    parts: {
      exports: KernelExports;
      memory: WebAssembly.Memory;
      team: number;
      workers: readonly ComputeThread[];
      restoreCpus: readonly number[];
    },
  ) {
    this.threads = parts.workers.length + 1;
    this.pinned = parts.restoreCpus.length > 0;
    this.team = parts.team;
    this.#exports = parts.exports;
    this.#memory = parts.memory;
    this.#workers = parts.workers;
    this.#restoreCpus = parts.restoreCpus;
    this.#bytes = new Uint8Array(parts.memory.buffer);
  }

  /** The kernels. @throws {ReferenceError} after dispose. */
  get exports(): KernelExports {
    this.#check();
    return this.#exports;
  }

  /** Bytes the memory has grown to. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /**
   * The whole memory. Memory grows with allocations and a view keeps its length, so ask again after one.
   *
   * @throws {ReferenceError} after dispose.
   */
  get bytes(): Uint8Array<ArrayBufferLike> {
    this.#check();
    // The buffer object changes whenever the memory has grown.
    if (this.#bytes.buffer !== this.#memory.buffer) this.#bytes = new Uint8Array(this.#memory.buffer);
    return this.#bytes;
  }

  /** `length` bytes at `address`. */
  u8(address: number, length: number): Uint8Array<ArrayBufferLike> {
    return new Uint8Array(this.bytes.buffer, address, length);
  }

  /** `length` 32-bit integers at `address`. */
  i32(address: number, length: number): Int32Array<ArrayBufferLike> {
    return new Int32Array(this.bytes.buffer, address, length);
  }

  /** `length` 32-bit unsigned integers at `address`. */
  u32(address: number, length: number): Uint32Array<ArrayBufferLike> {
    return new Uint32Array(this.bytes.buffer, address, length);
  }

  /** `length` 32-bit floats at `address`. */
  f32(address: number, length: number): Float32Array<ArrayBufferLike> {
    return new Float32Array(this.bytes.buffer, address, length);
  }

  /**
   * Allocates `bytes` zeroed bytes, aligned to 64.
   *
   * @throws {RangeError} when the memory's maximum is reached.
   */
  alloc(bytes: number): number {
    return this.#allocated(bytes, bytes < MAX_BYTES ? this.exports.alloc(bytes) : 0);
  }

  /**
   * Allocates `bytes` bytes of any content, aligned to 64. Memory never used before costs no time here.
   *
   * @throws {RangeError} when the memory's maximum is reached.
   */
  allocUntouched(bytes: number): number {
    return this.#allocated(bytes, bytes < MAX_BYTES ? this.exports.alloc_untouched(bytes) : 0);
  }

  /**
   * Address of `bytes` zeroed bytes in pages of their own, which are never freed. Takes no time and, until they are
   * written, no memory; unlike an allocation it may be 2 GiB or more.
   *
   * @throws {RangeError} when the memory's maximum is reached.
   */
  grow(bytes: number): number {
    this.#check();
    try {
      return this.#memory.grow(Math.ceil(bytes / PAGE_BYTES)) * PAGE_BYTES;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return this.#allocated(bytes, 0);
    }
  }

  #allocated(bytes: number, address: number): number {
    if (address === 0) {
      throw new RangeError(
        `Cannot allocate ${bytes} bytes of WebAssembly memory: ${this.memoryBytes} bytes are in use or reserved already`,
      );
    }
    return address;
  }

  /**
   * Lets the next `bytes` bytes of growth come in huge pages where the host has them: data that is read as a stream, such
   * as weights, then costs fewer page faults and address translations.
   *
   * @returns whether the host does so.
   */
  preferHugePages(bytes: number): boolean {
    return adviseHugePages(this.bytes, Math.min(this.memoryBytes + bytes, MAX_BYTES));
  }

  /** Frees what an allocation returned for the same size. */
  free(address: number, bytes: number): void {
    this.exports.dealloc(address, bytes);
  }

  /** Stops the compute threads and drops the memory. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#exports.team_stop(this.team);
    for (const worker of this.#workers) worker.terminate();
    if (this.#restoreCpus.length > 0) setAllowedCpus(this.#restoreCpus);
    this.#disposed = true;
    this.#bytes = new Uint8Array(0);
  }

  #check(): void {
    if (this.#disposed) throw new ReferenceError("Cannot use the WASM runtime: it was disposed");
  }
}

/**
 * Instantiates the kernel module and starts its compute threads.
 *
 * @throws {RangeError} when an option is out of range.
 * @throws {TypeError} when this host lacks a WebAssembly feature the kernels need.
 */
export async function openWasm(options: WasmOptions): Promise<WasmRuntime> {
  const { threads, maxMemoryBytes = MAX_BYTES, pin = false, startThread: start = startThread } = options;
  if (!Number.isInteger(threads) || threads < 1) {
    throw new RangeError(`Cannot open the WASM runtime: threads must be a positive integer, got ${threads}`);
  }
  if (maxMemoryBytes % PAGE_BYTES !== 0 || maxMemoryBytes < 64 * PAGE_BYTES || maxMemoryBytes > MAX_BYTES) {
    throw new RangeError(
      `Cannot open the WASM runtime: maxMemoryBytes must be whole 64 KiB pages from 4 MiB to 4 GiB, got ${maxMemoryBytes}`,
    );
  }
  requireFeatures();
  const module = await WebAssembly.compile(Uint8Array.fromBase64(KERNELS.trim()));
  const memory = new WebAssembly.Memory({ initial: 64, maximum: maxMemoryBytes / PAGE_BYTES, shared: true });
  const exports = instantiate(module, { memory, stackBytes: MAIN_STACK_BYTES });
  const cpus = pin ? allowedCpus() : [];
  const pinned = cpus.length >= threads;
  const team = exports.team_new(threads);
  const started = await Promise.allSettled(
    Array.from({ length: threads - 1 }, (_, index) => {
      const thread = index + 1;
      return start({ module, memory, team, thread, cpu: pinned ? cpus[thread] : undefined });
    }),
  );
  const workers = started.filter((result) => result.status === "fulfilled").map((result) => result.value);
  const failure = started.find((result) => result.status === "rejected");
  if (failure !== undefined) {
    exports.team_stop(team);
    for (const worker of workers) worker.terminate();
    throw failure.reason;
  }
  const restoreCpus = pinned && setAllowedCpus([cpus[0]]) ? cpus : [];
  return new WasmRuntime({ exports, memory, team, workers, restoreCpus });
}
