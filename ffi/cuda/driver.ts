/**
 * The loaded CUDA driver.
 *
 * @module
 */
import { DRIVER } from "./driver_constants.ts";
import { DRIVER_SYMBOLS, DRIVER_VERSION_SYMBOLS, type DriverSymbols } from "./driver_symbols.ts";
import { CudaError, type FailedCall, isLost } from "./error.ts";
import { HostMemory } from "./host_memory.ts";
import type { FoundLibrary } from "./libraries.ts";
import { openLibrary } from "./open_library.ts";

/** Oldest CUDA version whose driver has every function of the table: 12.4, drivers 550 and newer. */
const OLDEST_VERSION = 12040;

/** The driver: its functions, their results, and C's view of host memory. Closed on dispose. */
export class CudaDriver implements Disposable {
  /** Where it was loaded from. */
  readonly path: string;
  /** Newest CUDA version it serves, 1000 times the major version plus 10 times the minor one. */
  readonly version: number;
  /** Addresses of host memory. */
  readonly host: HostMemory;
  readonly #library: Deno.DynamicLibrary<typeof DRIVER_SYMBOLS>;
  #open = true;

  /** Loads it; {@linkcode open} also checks and initialises it. */
  constructor(path: string, version: number) {
    this.path = path;
    this.version = version;
    this.#library = openLibrary({ path }, DRIVER_SYMBOLS);
    this.host = new HostMemory(this.#library.symbols);
  }

  /**
   * Loads and initialises the driver.
   *
   * @throws {Error} when it cannot be loaded or is too old.
   * @throws {CudaError} when it finds no GPU it can use.
   */
  static open(library: Pick<FoundLibrary, "path">): CudaDriver {
    const version = driverVersion(library.path);
    if (version < OLDEST_VERSION) {
      throw new Error(
        `Cannot use the NVIDIA driver at ${library.path}: wanted CUDA ${cudaVersion(OLDEST_VERSION)} or newer, got ` +
          cudaVersion(version),
      );
    }
    const driver = new CudaDriver(library.path, version);
    try {
      driver.check(driver.symbols.cuInit(0), { call: "cuInit", context: "start the NVIDIA driver" });
      return driver;
    } catch (error) {
      driver[Symbol.dispose]();
      throw error;
    }
  }

  /** Its functions. @throws {ReferenceError} when it is closed. */
  get symbols(): DriverSymbols {
    if (!this.#open) throw new ReferenceError("Cannot call the NVIDIA driver: it is closed");
    return this.#library.symbols;
  }

  /** Throws unless `code` is success. @throws {CudaError} */
  check(code: number, failed: FailedCall): void {
    if (code !== DRIVER.CUDA_SUCCESS) throw this.error(code, failed);
  }

  /** The error for a result. */
  error(code: number, failed: FailedCall): CudaError {
    return new CudaError({ ...failed, code, codeName: this.#codeName(code), lost: isLost(code) });
  }

  /** Unloads it. Idempotent. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#library.close();
  }

  #codeName(code: number): string {
    const text = new BigUint64Array(1);
    // The driver does not know codes of its successors.
    return this.symbols.cuGetErrorName(code, text) === DRIVER.CUDA_SUCCESS ? this.host.text(text[0]) : "unknown error";
  }
}

/** `13.0` for 13000. */
export function cudaVersion(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

function driverVersion(path: string): number {
  const library = openLibrary({ path }, DRIVER_VERSION_SYMBOLS);
  try {
    const version = new Int32Array(1);
    const code = library.symbols.cuDriverGetVersion(version);
    if (code !== DRIVER.CUDA_SUCCESS) throw new Error(`Cannot ask ${path} for its version: it returned ${code}`);
    return version[0];
  } finally {
    library.close();
  }
}
