/**
 * One launch as the driver reads it: `CUlaunchConfig`, its attributes, the parameters and the array of their addresses.
 *
 * All of it lies in one buffer whose address is asked for once, so a launch writes numbers and calls one function.
 *
 * @module
 */
import type { DevicePtr } from "./buffer.ts";
import { DRIVER, DRIVER_LAYOUT } from "./driver_constants.ts";
import type { HostMemory } from "./host_memory.ts";
import type { CudaFunction } from "./module.ts";

/** A kernel argument, passed by value. `bytes` is a structure as C lays it out. */
export type KernelArg =
  | { readonly u32: number }
  | { readonly i32: number }
  | { readonly f32: number }
  | { readonly u64: bigint }
  | { readonly ptr: DevicePtr }
  | { readonly bytes: Uint8Array };

/** A {@linkcode KernelArg} of unknown kind. */
type AnyArg = {
  readonly u32?: number;
  readonly i32?: number;
  readonly f32?: number;
  readonly u64?: bigint;
  readonly ptr?: DevicePtr;
  readonly bytes?: Uint8Array;
};

/** Sizes along x, y and z; y and z are 1 where they are left out. */
export type Extent = readonly [x: number, y?: number, z?: number];

/** How to launch a kernel. */
export interface LaunchOptions {
  /** Blocks. */
  readonly grid: Extent;
  /** Threads of a block. */
  readonly block: Extent;
  /** Dynamic shared memory of a block; above 48 KB only after `CudaFunction.setSharedBytes`. @default {0} */
  readonly sharedBytes?: number;
  /** One for each parameter of the kernel. */
  readonly args: readonly KernelArg[];
  /** Blocks of a cluster; divides the grid. */
  readonly cluster?: Extent;
  /**
   * Lets the kernel begin before the one in front of it on the stream has ended; it waits for its results with
   * `griddepcontrol.wait`. @default {false}
   */
  readonly programmatic?: boolean;
  /** Has all blocks resident at once, so that they can wait for each other. @default {false} */
  readonly cooperative?: boolean;
}

/** Byte offsets in `CUlaunchConfig` and `CUlaunchAttribute`. */
const STREAM_OFFSET = DRIVER_LAYOUT["offsetof(CUlaunchConfig, hStream)"];
const ATTRIBUTES_OFFSET = DRIVER_LAYOUT["offsetof(CUlaunchConfig, attrs)"];
const ATTRIBUTE_COUNT_OFFSET = DRIVER_LAYOUT["offsetof(CUlaunchConfig, numAttrs)"];
const CONFIG_BYTES = DRIVER_LAYOUT["sizeof(CUlaunchConfig)"];
const ATTRIBUTE_BYTES = DRIVER_LAYOUT["sizeof(CUlaunchAttribute)"];
const ATTRIBUTE_VALUE_OFFSET = DRIVER_LAYOUT["offsetof(CUlaunchAttribute, value)"];

/** Most parameters of one launch. */
const MAX_PARAMETERS = 256;
/** Most bytes of parameters, as the driver has it since CUDA 12.1, and four more. */
const MAX_PARAMETER_BYTES = 32768;

/** Where the parts lie in the buffer. */
const ATTRIBUTES_AT = 64;
const ADDRESSES_AT = 512;
const SLOTS_AT = ADDRESSES_AT + 8 * MAX_PARAMETERS;
const STRUCTURES_AT = SLOTS_AT + 8 * MAX_PARAMETERS;
const TOTAL_BYTES = STRUCTURES_AT + MAX_PARAMETER_BYTES + 16 * MAX_PARAMETERS;

/** The launches of one stream, one at a time. */
export class LaunchBlock {
  /** `CUlaunchConfig`. */
  readonly config: Uint8Array<ArrayBuffer>;
  /** Addresses of the parameters, `void *kernelParams[]`. */
  readonly parameters: Uint8Array<ArrayBuffer>;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #floats: Float32Array<ArrayBuffer>;
  readonly #longs: BigUint64Array<ArrayBuffer>;
  readonly #base: bigint;
  readonly #slots: readonly bigint[];

  /** Lays out the launches of the stream with handle `stream`. */
  constructor(host: HostMemory, stream: bigint) {
    const memory = new ArrayBuffer(TOTAL_BYTES);
    this.#words = new Uint32Array(memory);
    this.#bytes = new Uint8Array(memory);
    this.#floats = new Float32Array(memory);
    this.#longs = new BigUint64Array(memory);
    this.config = new Uint8Array(memory, 0, CONFIG_BYTES);
    this.parameters = new Uint8Array(memory, ADDRESSES_AT, 8 * MAX_PARAMETERS);
    this.#base = host.address(memory);
    this.#slots = Array.from({ length: MAX_PARAMETERS }, (_, index) => this.#base + BigInt(SLOTS_AT + 8 * index));
    this.#longs[STREAM_OFFSET / 8] = stream;
    this.#longs[ATTRIBUTES_OFFSET / 8] = this.#base + BigInt(ATTRIBUTES_AT);
  }

  /**
   * Writes a launch of `kernel`.
   *
   * @throws {TypeError} when the number of arguments or the size of one is not the kernel's.
   * @throws {RangeError} when a number does not fit its type.
   */
  encode(kernel: CudaFunction, options: LaunchOptions): void {
    const { grid, block, sharedBytes = 0, args } = options;
    const words = this.#words;
    this.#writeExtent(DRIVER_LAYOUT["offsetof(CUlaunchConfig, gridDimX)"] / 4, grid);
    this.#writeExtent(DRIVER_LAYOUT["offsetof(CUlaunchConfig, blockDimX)"] / 4, block);
    words[DRIVER_LAYOUT["offsetof(CUlaunchConfig, sharedMemBytes)"] / 4] = sharedBytes;
    words[ATTRIBUTE_COUNT_OFFSET / 4] = this.#writeAttributes(options);
    const wanted = kernel.parameterBytes;
    if (args.length !== wanted.length) {
      throw new TypeError(`Cannot launch ${kernel.name}: wanted ${wanted.length} arguments, got ${args.length}`);
    }
    let structuresAt = STRUCTURES_AT;
    for (let index = 0; index < args.length; index++) {
      // Reading a property that is not there is several times faster than asking whether it is.
      const arg: AnyArg = args[index];
      const { bytes } = arg;
      const size = bytes === undefined ? this.#writeScalar(SLOTS_AT + 8 * index, arg) : bytes.length;
      if (size !== wanted[index]) throw mismatch(kernel, { index, arg: args[index] });
      if (bytes === undefined) {
        this.#longs[ADDRESSES_AT / 8 + index] = this.#slots[index];
      } else {
        this.#longs[ADDRESSES_AT / 8 + index] = this.#base + BigInt(structuresAt);
        this.#bytes.set(bytes, structuresAt);
        structuresAt += Math.ceil(size / 16) * 16;
      }
    }
  }

  /** Writes a number and gives its bytes; 0 when it does not fit its type. */
  #writeScalar(at: number, { ptr, u32, i32, f32, u64 }: AnyArg): number {
    if (ptr !== undefined) {
      this.#longs[at / 8] = ptr;
      return 8;
    }
    if (u32 !== undefined) {
      this.#words[at / 4] = u32;
      return u32 >>> 0 === u32 ? 4 : 0;
    }
    if (i32 !== undefined) {
      this.#words[at / 4] = i32;
      return (i32 | 0) === i32 ? 4 : 0;
    }
    if (f32 !== undefined) {
      this.#floats[at / 4] = f32;
      return 4;
    }
    if (u64 === undefined) return 0;
    this.#longs[at / 8] = u64;
    return 8;
  }

  #writeAttributes({ cluster, programmatic, cooperative }: LaunchOptions): number {
    let count = 0;
    const next = (id: number): number => {
      const at = (ATTRIBUTES_AT + ATTRIBUTE_BYTES * count++) / 4;
      this.#words[at] = id;
      return at + ATTRIBUTE_VALUE_OFFSET / 4;
    };
    if (cluster !== undefined) this.#writeExtent(next(DRIVER.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION), cluster);
    if (programmatic) this.#words[next(DRIVER.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)] = 1;
    if (cooperative) this.#words[next(DRIVER.CU_LAUNCH_ATTRIBUTE_COOPERATIVE)] = 1;
    return count;
  }

  #writeExtent(at: number, [x, y = 1, z = 1]: Extent): void {
    this.#words[at] = x;
    this.#words[at + 1] = y;
    this.#words[at + 2] = z;
  }
}

/** The error for an argument whose size or value is wrong. */
function mismatch(kernel: CudaFunction, { index, arg }: { readonly index: number; readonly arg: KernelArg }): Error {
  const subject = `Cannot launch ${kernel.name}: argument ${index}`;
  const [[kind, value]] = Object.entries(arg);
  const got = "bytes" in arg ? arg.bytes.length : "ptr" in arg || "u64" in arg ? 8 : 4;
  const wanted = kernel.parameterBytes[index];
  if (got === wanted) return new RangeError(`${subject} is no ${kind}, got ${value}`);
  return new TypeError(`${subject} has ${wanted} bytes, got ${kind} with ${got}`);
}
