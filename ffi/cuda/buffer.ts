/**
 * Memory of the device, and host memory that the device reaches.
 *
 * @module
 */
import { DRIVER } from "./driver_constants.ts";
import { type ContextScope, OwnedHandle } from "./owned_handle.ts";

/** An address in the memory of a device, or of host memory as the device sees it. */
export type DevicePtr = bigint & { readonly brand: "DevicePtr" };

/** Bytes of a page of WebAssembly memory. */
const WASM_PAGE_BYTES = 65536;

/** Largest pinned buffer: a WebAssembly memory with 32-bit addresses. */
const MAX_PINNED_BYTES = 2 ** 32;

/** The memory may be used from every context, and the device may read and write it. */
const REGISTER_FLAGS = DRIVER.CU_MEMHOSTREGISTER_PORTABLE | DRIVER.CU_MEMHOSTREGISTER_DEVICEMAP;

/** Memory of the device, aligned to 256 bytes; freed on dispose. */
export class DeviceBuffer extends OwnedHandle<DevicePtr> {
  /** Its size. */
  readonly bytes: number;

  /** Takes memory of the driver; {@linkcode allocate} makes these. */
  constructor(scope: ContextScope, address: DevicePtr, bytes: number) {
    super(scope, "device buffer", address);
    this.bytes = bytes;
  }

  /** Allocates. @throws {CudaError} when there is not enough memory. @throws {RangeError} */
  static allocate(scope: ContextScope, bytes: number): DeviceBuffer {
    checkSize("device memory", bytes, Number.MAX_SAFE_INTEGER);
    const { driver } = scope;
    scope.enter();
    const address = new BigUint64Array(1);
    const code = driver.symbols.cuMemAlloc_v2(address, BigInt(bytes));
    if (code !== 0) {
      throw driver.error(code, { call: "cuMemAlloc_v2", context: `allocate ${bytes} bytes of device memory` });
    }
    return new DeviceBuffer(scope, address[0] as DevicePtr, bytes);
  }

  /** Address of its first byte. @throws {ReferenceError} after dispose. */
  get address(): DevicePtr {
    return this.handle;
  }

  /** Address of byte `offset`; the end is allowed. @throws {RangeError} when it lies outside. @throws {ReferenceError} */
  at(offset: number): DevicePtr {
    if (!(Number.isSafeInteger(offset) && offset >= 0 && offset <= this.bytes)) {
      throw new RangeError(`Cannot address a device buffer: wanted an offset from 0 to ${this.bytes}, got ${offset}`);
    }
    return this.handle + BigInt(offset) as DevicePtr;
  }

  protected override free(address: DevicePtr): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuMemFree_v2(address), {
      call: "cuMemFree_v2",
      context: `free ${this.bytes} bytes of device memory`,
    });
  }
}

/**
 * Host memory that stays in place and that the device reads and writes through {@linkcode address}; given back on dispose.
 *
 * The memory is that of a WebAssembly memory, which begins at a page and cannot be detached, and is registered with the
 * driver. So its views stay valid for JavaScript after dispose, and no pointer has to be turned into a view. The device
 * writes behind the engine's back: poll a word with `Atomics.load`. Dispose it before its thread ends: the driver would
 * keep memory that is gone.
 */
export class PinnedBuffer extends OwnedHandle<DevicePtr> {
  /** Bytes asked for. */
  readonly bytes: number;
  readonly #memory: ArrayBuffer;

  /** Takes memory of the driver; {@linkcode allocate} makes these. */
  constructor(scope: ContextScope, address: DevicePtr, memory: ArrayBuffer, bytes: number) {
    super(scope, "pinned buffer", address);
    this.bytes = bytes;
    this.#memory = memory;
  }

  /** Allocates and registers. @throws {CudaError} when the driver refuses. @throws {RangeError} */
  static allocate(scope: ContextScope, bytes: number): PinnedBuffer {
    checkSize("pinned memory", bytes, MAX_PINNED_BYTES);
    const { driver } = scope;
    scope.enter();
    const pages = Math.ceil(bytes / WASM_PAGE_BYTES);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer as ArrayBuffer;
    // Pinning walks over every page: with large ones it takes a fraction of the time.
    driver.host.adviseHugePages(memory);
    const context = `pin ${bytes} bytes of host memory`;
    const code = driver.symbols.cuMemHostRegister_v2(memory, BigInt(memory.byteLength), REGISTER_FLAGS);
    driver.check(code, { call: "cuMemHostRegister_v2", context });
    try {
      const address = new BigUint64Array(1);
      const code = driver.symbols.cuMemHostGetDevicePointer_v2(address, memory, 0);
      driver.check(code, { call: "cuMemHostGetDevicePointer_v2", context });
      return new PinnedBuffer(scope, address[0] as DevicePtr, memory, bytes);
    } catch (error) {
      driver.symbols.cuMemHostUnregister(memory);
      throw error;
    }
  }

  /** Its first byte as the device sees it. @throws {ReferenceError} after dispose. */
  get address(): DevicePtr {
    return this.handle;
  }

  /**
   * Its memory, at least {@linkcode bytes} long (a multiple of 64 KiB), zero at first: name the length when making views.
   *
   * @throws {ReferenceError} after dispose.
   */
  get buffer(): ArrayBuffer {
    this.requireOpen();
    return this.#memory;
  }

  /** As {@linkcode DeviceBuffer.at}. @throws {RangeError} @throws {ReferenceError} */
  at(offset: number): DevicePtr {
    if (!(Number.isSafeInteger(offset) && offset >= 0 && offset <= this.bytes)) {
      throw new RangeError(`Cannot address a pinned buffer: wanted an offset from 0 to ${this.bytes}, got ${offset}`);
    }
    return this.handle + BigInt(offset) as DevicePtr;
  }

  protected override free(): void {
    const { driver } = this.scope;
    const code = driver.symbols.cuMemHostUnregister(this.#memory);
    driver.check(code, { call: "cuMemHostUnregister", context: `release ${this.bytes} bytes of pinned memory` });
  }
}

function checkSize(what: string, bytes: number, most: number): void {
  if (!(Number.isSafeInteger(bytes) && bytes > 0 && bytes <= most)) {
    throw new RangeError(`Cannot allocate ${what}: wanted 1 to ${most} bytes, got ${bytes}`);
  }
}
