/**
 * Compiled kernels.
 *
 * @module
 */
import { DRIVER } from "./driver_constants.ts";
import { cString } from "./host_memory.ts";
import { type ContextScope, OwnedHandle } from "./owned_handle.ts";

/** The driver's handle of a module. */
export type ModuleHandle = bigint & { readonly brand: "CUmodule" };

/** The driver's handle of a kernel. */
export type FunctionHandle = bigint & { readonly brand: "CUfunction" };

/** Most parameters looked for; more than fit into the 4 KB that kernels take, at 16 bytes each. */
const MAX_PARAMETERS = 256;

/** A loaded cubin; unloaded on dispose, and its functions with it. */
export class CudaModule extends OwnedHandle<ModuleHandle> {
  /** Takes a module of the driver; {@linkcode load} makes these. */
  constructor(scope: ContextScope, handle: ModuleHandle) {
    super(scope, "CUDA module", handle);
  }

  /** Loads a cubin. @throws {CudaError} when it was not made for this device. */
  static load(scope: ContextScope, cubin: Uint8Array): CudaModule {
    const { driver } = scope;
    scope.enter();
    const handle = new BigUint64Array(1);
    const code = driver.symbols.cuModuleLoadData(handle, cubin as BufferSource);
    if (code !== 0) {
      throw driver.error(code, { call: "cuModuleLoadData", context: `load a cubin of ${cubin.length} bytes` });
    }
    return new CudaModule(scope, handle[0] as ModuleHandle);
  }

  /** The kernel of that name (`extern "C" __global__`). @throws {CudaError} when there is none. @throws {ReferenceError} */
  function(name: string): CudaFunction {
    const { driver } = this.scope;
    this.scope.enter();
    const handle = new BigUint64Array(1);
    const code = driver.symbols.cuModuleGetFunction(handle, this.handle, cString(name));
    if (code !== 0) throw driver.error(code, { call: "cuModuleGetFunction", context: `find the kernel ${name}` });
    return new CudaFunction(this.scope, handle[0] as FunctionHandle, name);
  }

  protected override free(handle: ModuleHandle): void {
    const { driver } = this.scope;
    driver.check(driver.symbols.cuModuleUnload(handle), { call: "cuModuleUnload", context: "unload a module" });
  }
}

/** A kernel. Belongs to its module and must not be launched after the module is disposed. */
export class CudaFunction {
  /** The driver's handle. */
  readonly handle: FunctionHandle;
  /** Its name. */
  readonly name: string;
  /** Sizes of its parameters in bytes, in order. */
  readonly parameterBytes: readonly number[];
  /** Registers of a thread. */
  readonly registers: number;
  /** Local memory of a thread in bytes: arrays and spilled registers. */
  readonly localBytes: number;
  readonly #scope: ContextScope;

  /** Asks the driver about the kernel; `CudaModule.function` makes these. */
  constructor(scope: ContextScope, handle: FunctionHandle, name: string) {
    this.#scope = scope;
    this.handle = handle;
    this.name = name;
    this.registers = this.#attribute(DRIVER.CU_FUNC_ATTRIBUTE_NUM_REGS);
    this.localBytes = this.#attribute(DRIVER.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES);
    this.parameterBytes = this.#parameters();
  }

  /** Lets launches ask for up to `bytes` of dynamic shared memory; needed above 48 KB. @throws {CudaError} */
  setSharedBytes(bytes: number): void {
    const attribute = DRIVER.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    this.#setAttribute(attribute, bytes, `give ${this.name} ${bytes} bytes of shared memory`);
  }

  /**
   * Has a multiprocessor give all it can to shared memory while the kernel runs. Kernels that want it divided differently
   * are never on one multiprocessor together. @throws {CudaError}
   */
  preferShared(): void {
    const attribute = DRIVER.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
    this.#setAttribute(attribute, DRIVER.CU_SHAREDMEM_CARVEOUT_MAX_SHARED, `give ${this.name} all shared memory`);
  }

  /** Lets launches ask for clusters of more than 8 blocks. @throws {CudaError} */
  allowLargeClusters(): void {
    const attribute = DRIVER.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
    this.#setAttribute(attribute, 1, `let ${this.name} have large clusters`);
  }

  /** Blocks of `threads` threads and `sharedBytes` of dynamic shared memory that fit a multiprocessor. @throws {CudaError} */
  blocksPerMultiprocessor(threads: number, sharedBytes = 0): number {
    const { driver } = this.#scope;
    const blocks = new Int32Array(1);
    const { cuOccupancyMaxActiveBlocksPerMultiprocessor: ask } = driver.symbols;
    const code = ask(blocks, this.handle, threads, BigInt(sharedBytes));
    driver.check(code, {
      call: "cuOccupancyMaxActiveBlocksPerMultiprocessor",
      context: `fit ${this.name} on a multiprocessor`,
    });
    return blocks[0];
  }

  #attribute(attribute: number): number {
    const { driver } = this.#scope;
    const value = new Int32Array(1);
    const code = driver.symbols.cuFuncGetAttribute(value, attribute, this.handle);
    driver.check(code, { call: "cuFuncGetAttribute", context: `inspect the kernel ${this.name}` });
    return value[0];
  }

  #setAttribute(attribute: number, value: number, context: string): void {
    const { driver } = this.#scope;
    const code = driver.symbols.cuFuncSetAttribute(this.handle, attribute, value);
    driver.check(code, { call: "cuFuncSetAttribute", context });
  }

  #parameters(): readonly number[] {
    const { driver } = this.#scope;
    const offset = new BigUint64Array(1);
    const bytes = new BigUint64Array(1);
    const sizes: number[] = [];
    for (let index = 0; index < MAX_PARAMETERS; index++) {
      const code = driver.symbols.cuFuncGetParamInfo(this.handle, BigInt(index), offset, bytes);
      // That is how the driver says that there are no more.
      if (code === DRIVER.CUDA_ERROR_INVALID_VALUE) return sizes;
      driver.check(code, { call: "cuFuncGetParamInfo", context: `inspect the kernel ${this.name}` });
      sizes.push(Number(bytes[0]));
    }
    throw new RangeError(`Cannot use the kernel ${this.name}: wanted at most ${MAX_PARAMETERS} parameters, got more`);
  }
}
