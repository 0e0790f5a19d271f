/**
 * One GPU as this process uses it.
 *
 * @module
 */
import { DeviceBuffer, PinnedBuffer } from "./buffer.ts";
import { CudaDriver, cudaVersion } from "./driver.ts";
import { DRIVER } from "./driver_constants.ts";
import { CudaError } from "./error.ts";
import { CudaEvent } from "./event.ts";
import { CudaLibraries } from "./libraries.ts";
import { CudaModule } from "./module.ts";
import { ContextScope } from "./owned_handle.ts";
import { CudaStream } from "./stream.ts";
import { encodeTensorMap, type TensorMapOptions } from "./tensor_map.ts";

/** What a GPU is. */
export interface CudaProperties {
  /** Its name, for example `NVIDIA H200`. */
  readonly name: string;
  /** Its number among the visible GPUs. */
  readonly ordinal: number;
  /** Compute capability before the point. */
  readonly major: number;
  /** Compute capability behind the point. */
  readonly minor: number;
  /** Multiprocessors. */
  readonly multiprocessors: number;
  /** Memory. */
  readonly totalBytes: number;
  /** Level 2 cache. */
  readonly l2Bytes: number;
  /** Most shared memory of a block, static and dynamic. */
  readonly sharedBytesPerBlock: number;
  /** Newest CUDA version the driver serves, for example `13.0`. */
  readonly driverVersion: string;
  /** Its id, as `nvidia-smi -L` prints it. */
  readonly uuid: string;
}

/** How to open a GPU. */
export interface CudaContextOptions {
  /** Number of the GPU. @default {0} */
  readonly ordinal?: number;
  /** Where the libraries are. Default: they are searched for. */
  readonly libraries?: CudaLibraries;
}

/**
 * The primary context of one GPU, retained until dispose; what was made in it is given back with it.
 *
 * A context is current on one thread after `open`, after {@linkcode makeCurrent} and after every call that makes something.
 * Whoever uses several contexts on one thread makes the right one current before it uses streams of another. Objects do not
 * cross threads: each thread opens its own, and all of one process and GPU share their memory.
 */
export class CudaContext implements Disposable {
  /** What the GPU is. */
  readonly properties: CudaProperties;
  /** Where the libraries are. */
  readonly libraries: CudaLibraries;
  readonly #driver: CudaDriver;
  readonly #device: number;
  readonly #scope: ContextScope;
  #open = true;

  /** Takes a retained context; {@linkcode open} makes these. */
  constructor(
    driver: CudaDriver,
    { device, ...rest }: {
      readonly device: number;
      readonly context: bigint;
      readonly properties: CudaProperties;
      readonly libraries: CudaLibraries;
    },
  ) {
    this.#driver = driver;
    this.#device = device;
    this.#scope = new ContextScope(driver, rest.context);
    this.properties = rest.properties;
    this.libraries = rest.libraries;
  }

  /**
   * Opens a GPU and makes its context current on this thread.
   *
   * @throws {Deno.errors.NotFound} when there is no driver; says where it looked and what to install.
   * @throws {Deno.errors.NotCapable} when the permission to load it is missing; names the flag.
   * @throws {RangeError} when there is no GPU of that number.
   * @throws {Error} when the driver is too old. @throws {CudaError} when it refuses.
   */
  static open({ ordinal = 0, libraries = CudaLibraries.find() }: CudaContextOptions = {}): CudaContext {
    const driver = CudaDriver.open(libraries.get("driver"));
    try {
      const device = deviceHandle(driver, ordinal);
      const properties = readProperties(driver, { device, ordinal });
      const context = new BigUint64Array(1);
      const code = driver.symbols.cuDevicePrimaryCtxRetain(context, device);
      driver.check(code, { call: "cuDevicePrimaryCtxRetain", context: `open GPU ${ordinal} (${properties.name})` });
      const opened = new CudaContext(driver, { device, context: context[0], properties, libraries });
      opened.makeCurrent();
      return opened;
    } catch (error) {
      driver[Symbol.dispose]();
      throw error;
    }
  }

  /** GPUs that the driver shows, in order. @throws as {@linkcode open}. */
  static list(libraries: CudaLibraries = CudaLibraries.find()): readonly CudaProperties[] {
    using driver = CudaDriver.open(libraries.get("driver"));
    return Array.from(
      { length: deviceCount(driver) },
      (_, ordinal) => readProperties(driver, { device: deviceHandle(driver, ordinal), ordinal }),
    );
  }

  /** What native handles made elsewhere need: the driver and the context. @throws {ReferenceError} after dispose. */
  get scope(): ContextScope {
    if (!this.#open) throw new ReferenceError("Cannot use a CUDA context: it is disposed");
    return this.#scope;
  }

  /** Memory of the GPU, over all processes. @throws {CudaError} */
  memory(): { readonly freeBytes: number; readonly totalBytes: number } {
    this.scope.enter();
    const free = new BigUint64Array(1);
    const total = new BigUint64Array(1);
    const code = this.#driver.symbols.cuMemGetInfo_v2(free, total);
    this.#driver.check(code, { call: "cuMemGetInfo_v2", context: "ask for free memory" });
    return { freeBytes: Number(free[0]), totalBytes: Number(total[0]) };
  }

  /** Allocates device memory, aligned to 256 bytes, with unknown contents. @throws {CudaError} @throws {RangeError} */
  alloc(bytes: number): DeviceBuffer {
    return DeviceBuffer.allocate(this.scope, bytes);
  }

  /** Allocates host memory that the device reaches, zero at first. @throws {CudaError} @throws {RangeError} */
  pinned(bytes: number): PinnedBuffer {
    return PinnedBuffer.allocate(this.scope, bytes);
  }

  /** Makes a stream. @throws {CudaError} */
  stream(options: { readonly priority?: "high" | "normal" } = {}): CudaStream {
    return CudaStream.create(this.scope, options);
  }

  /** Makes an event; only with `timing` does it know when it was reached. @throws {CudaError} */
  event(options: { readonly timing?: boolean } = {}): CudaEvent {
    return CudaEvent.create(this.scope, options);
  }

  /** Loads compiled kernels. @throws {CudaError} when they were not made for this GPU. */
  load(cubin: Uint8Array): CudaModule {
    return CudaModule.load(this.scope, cubin);
  }

  /** Describes a matrix to the copy engine, 128 bytes that kernels take as an argument. @throws {CudaError} */
  tensorMap(options: TensorMapOptions): Uint8Array<ArrayBuffer> {
    return encodeTensorMap(this.scope, options);
  }

  /** Blocks this thread until the GPU has done everything of this process. @throws {CudaError} */
  synchronize(): void {
    this.scope.enter();
    this.#driver.check(this.#driver.symbols.cuCtxSynchronize(), {
      call: "cuCtxSynchronize",
      context: "wait for the GPU",
    });
  }

  /** Makes this context current on the calling thread. @throws {CudaError} */
  makeCurrent(): void {
    this.scope.enter();
  }

  /** Gives back everything made in it, and the context. Idempotent. @throws {CudaError} unless the context is dead. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      this.#scope.disposeAll();
      const code = this.#driver.symbols.cuDevicePrimaryCtxRelease_v2(this.#device);
      this.#driver.check(code, {
        call: "cuDevicePrimaryCtxRelease_v2",
        context: `close GPU ${this.properties.ordinal}`,
      });
    } catch (error) {
      if (!(error instanceof CudaError && error.lost)) throw error;
    } finally {
      this.#driver[Symbol.dispose]();
    }
  }
}

function deviceCount(driver: CudaDriver): number {
  const count = new Int32Array(1);
  const code = driver.symbols.cuDeviceGetCount(count);
  if (code === DRIVER.CUDA_ERROR_NO_DEVICE) return 0;
  driver.check(code, { call: "cuDeviceGetCount", context: "count the GPUs" });
  return count[0];
}

function deviceHandle(driver: CudaDriver, ordinal: number): number {
  const count = deviceCount(driver);
  if (!(Number.isInteger(ordinal) && ordinal >= 0 && ordinal < count)) {
    const wanted = count === 0 ? "a visible GPU" : `a number from 0 to ${count - 1}`;
    throw new RangeError(`Cannot open GPU ${ordinal}: wanted ${wanted}, got ${count} GPUs`);
  }
  const device = new Int32Array(1);
  driver.check(driver.symbols.cuDeviceGet(device, ordinal), { call: "cuDeviceGet", context: `open GPU ${ordinal}` });
  return device[0];
}

function readProperties(
  driver: CudaDriver,
  { device, ordinal }: { readonly device: number; readonly ordinal: number },
): CudaProperties {
  const context = `inspect GPU ${ordinal}`;
  const attribute = (id: number): number => {
    const value = new Int32Array(1);
    driver.check(driver.symbols.cuDeviceGetAttribute(value, id, device), { call: "cuDeviceGetAttribute", context });
    return value[0];
  };
  const name = new Uint8Array(256);
  driver.check(driver.symbols.cuDeviceGetName(name, name.length, device), { call: "cuDeviceGetName", context });
  const uuid = new Uint8Array(16);
  driver.check(driver.symbols.cuDeviceGetUuid_v2(uuid, device), { call: "cuDeviceGetUuid_v2", context });
  const totalBytes = new BigUint64Array(1);
  driver.check(driver.symbols.cuDeviceTotalMem_v2(totalBytes, device), { call: "cuDeviceTotalMem_v2", context });
  return {
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
    ordinal,
    major: attribute(DRIVER.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
    minor: attribute(DRIVER.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
    multiprocessors: attribute(DRIVER.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
    totalBytes: Number(totalBytes[0]),
    l2Bytes: attribute(DRIVER.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
    sharedBytesPerBlock: attribute(DRIVER.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
    driverVersion: cudaVersion(driver.version),
    uuid: `GPU-${uuid.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")}`,
  };
}
