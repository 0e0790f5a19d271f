/**
 * A GPU for the tests of kernels.
 *
 * @module
 */
import {
  CudaContext,
  CudaLibraries,
  type CudaStream,
  type DevicePtr,
  Nvrtc,
  type PinnedBuffer,
} from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "./kernel_cache.ts";

/** A GPU, a stream, kernels, and memory that is freed together. */
export class TestGpu implements Disposable {
  /** The GPU. */
  readonly context: CudaContext;
  /** Where everything runs. */
  readonly stream: CudaStream;
  /** Compiled kernels. */
  readonly kernels: KernelCache;
  readonly #stack = new DisposableStack();
  /** What {@linkcode missing} found out, which costs a context. */
  static #missing: { readonly reason: string | undefined } | undefined;
  /** Stay open to the end of the process: to make a context and load the compiler takes longer than most tests. */
  static #kept: readonly Disposable[] = [];

  /** Opens GPU 0. @throws {Error} when there is none. */
  constructor() {
    this.context = this.#stack.use(CudaContext.open());
    this.stream = this.#stack.use(this.context.stream());
    this.kernels = KernelCache.open(this.context);
  }

  /** Why there is no GPU for tests; undefined when there is one. */
  static missing(): string | undefined {
    TestGpu.#missing ??= { reason: TestGpu.#obstacle() };
    return TestGpu.#missing.reason;
  }

  static #obstacle(): string | undefined {
    const driver = CudaLibraries.find().tryGet("driver");
    if (driver === undefined) return "no NVIDIA driver";
    if (Deno.permissions.querySync({ name: "ffi", path: driver.path }).state !== "granted") {
      return "no permission to load the NVIDIA driver";
    }
    try {
      const context = CudaContext.open();
      const maxMajor = Number.parseInt(context.properties.driverVersion);
      TestGpu.#kept = [context, Nvrtc.open(context.libraries.get("nvrtc", { maxMajor }))];
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Address of `bytes` bytes of 0xff: NaN as f32 and as bf16, -1 as i32, so that what a kernel does not write shows. */
  poisoned(bytes: number): DevicePtr {
    const { address } = this.#stack.use(this.context.alloc(Math.max(bytes, 1)));
    this.stream.fill(address, 0xff, Math.max(bytes, 1));
    return address;
  }

  /** Address of `bytes` bytes of 0. */
  zeroed(bytes: number): DevicePtr {
    const address = this.poisoned(bytes);
    this.stream.fill(address, 0, Math.max(bytes, 1));
    return address;
  }

  /** Pinned host memory. */
  pinned(bytes: number): PinnedBuffer {
    return this.#stack.use(this.context.pinned(bytes));
  }

  /** Address of a copy of `values`. */
  upload(values: ArrayBufferView): DevicePtr {
    return this.uploadWithRoom(values, 0);
  }

  /** Address of a copy of `values` with `bytes` bytes of 0xff behind: what there is room for and does not count. */
  uploadWithRoom(values: ArrayBufferView, bytes: number): DevicePtr {
    const address = this.poisoned(values.byteLength + bytes);
    this.stream.copyToDevice(address, new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice());
    return address;
  }

  /** Address of a copy of `values` as bf16, rounded to nearest even, with `room` bytes of 0xff behind. */
  uploadBf16(values: Float32Array, room = 0): DevicePtr {
    return this.uploadWithRoom(Uint16Array.from(values, bf16Bits), room);
  }

  /** Address of one u32. */
  word(value: number): DevicePtr {
    return this.upload(Uint32Array.of(value));
  }

  /** Bytes from `address` on, after all work. */
  bytes(address: DevicePtr, count: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(count);
    this.stream.copyFromDevice(bytes, address);
    return bytes;
  }

  /** Values of f32 from `address` on, after all work. */
  f32(address: DevicePtr, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.bytes(address, 4 * count).buffer);
  }

  /** Values of i32 from `address` on, after all work. */
  i32(address: DevicePtr, count: number): Int32Array<ArrayBuffer> {
    return new Int32Array(this.bytes(address, 4 * count).buffer);
  }

  /** Values of bf16 from `address` on, after all work. */
  bf16(address: DevicePtr, count: number): Float32Array<ArrayBuffer> {
    return Float32Array.from(new Uint16Array(this.bytes(address, 2 * count).buffer), bf16Value);
  }

  /** Frees everything. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/** Bits of the bf16 nearest to an f32, ties to even; NaN stays NaN. */
export function bf16Bits(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  return Number.isNaN(value) ? 0x7fff : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** Value of the bits of a bf16. */
export function bf16Value(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, bits << 16);
  return view.getFloat32(0);
}

/** The bf16 nearest to a value, ties to even. */
export function roundBf16(value: number): number {
  return bf16Value(bf16Bits(value));
}

/** Registers a test that needs a GPU; ignored, with the reason in its name, where there is none. */
export function gpuTest(name: string, body: (gpu: TestGpu) => void): void {
  const missing = TestGpu.missing();
  Deno.test({
    name: missing === undefined ? name : `${name} (ignored: ${missing})`,
    ignore: missing !== undefined,
    fn: () => {
      using gpu = new TestGpu();
      body(gpu);
    },
  });
}
