/**
 * Launches `linear_packed.cu` and `linear_pack.cu`: products of few tokens with packed weights, and what packs and unpacks
 * them.
 *
 * @module
 */
import type { CudaFunction, CudaModule, CudaProperties, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { CudaKernel } from "../cuda/compile.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import {
  cudaMatrixBytes,
  type CudaMatrixShape,
  type CudaPackedType,
  RECORD_BYTES,
  RECORD_COLS,
  STRIP_ROWS,
  type StripHalf,
} from "./cuda_layout.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import packSource from "./linear_pack.cu" with { type: "text" };
import source from "./linear_packed.cu" with { type: "text" };

/** Most tokens of a product with packed weights. */
export const MAX_PACKED_TOKENS = 4;

const OUTPUT_CODE: Readonly<Record<LinearOutput, number>> = { bf16: 0, f32: 1, add: 2, swiglu: 3 };
const WEIGHT_CODE: Readonly<Record<CudaPackedType, number>> = { Q8_0: 1, Q4_0: 2, Q4_1: 3 };
const HALF_CODE: Readonly<Record<StripHalf, number>> = { first: 1, second: 2 };
const PACK_BLOCKS = 1056;
const PACK_THREADS = 256;

/** One product out[M, N] (+)= x[M, K] w[N, K]ᵀ of packed weights. */
export interface PackedShape {
  /** Type of the weights. */
  readonly dtype: CudaPackedType;
  /** N, outputs of a token; for `swiglu` gate and up have so many rows each. */
  readonly rows: number;
  /** K, inputs of a token, a multiple of 32. */
  readonly cols: number;
  /** M, at most {@linkcode MAX_PACKED_TOKENS}. */
  readonly tokens: number;
  /** What it leaves. `add` takes the f32 there as they are when the sums are done. */
  readonly output: LinearOutput;
  /** Takes f32 inputs and normalises them: w sees x * gain, the sum is divided by sqrt(mean(x²) + epsilon). */
  readonly norm?: { readonly epsilon: number };
  /** Values between two rows of x, a multiple of 8. @default {K} */
  readonly xStride?: number;
  /** Values between two rows of the output. @default {N} */
  readonly outStride?: number;
}

/** Where the operands of one launch lie, aligned to 16 bytes. */
export interface PackedOperands {
  /** Records as {@linkcode PackedLinear.pack} makes them; for `swiglu` of gate and up that share strips. */
  readonly weights: DevicePtr;
  /** x[M, K], bf16; f32 with `norm`. */
  readonly x: DevicePtr;
  /** out[M, N]. */
  readonly out: DevicePtr;
  /** Gain of the norm, f32 [K]. */
  readonly gain?: DevicePtr;
  /**
   * Whether the launch may begin before its predecessor has ended. It reads weights at once, everything else when the
   * predecessor is done. @default {false}
   */
  readonly programmatic?: boolean;
}

/** How a kernel divides the work; the order of summation depends on `warps` alone. */
export interface PackedSchedule {
  /** Tokens there is room for. */
  readonly room: number;
  /** Warps of a block that multiply. */
  readonly warps: number;
  /** Pieces in flight in shared memory for each warp. */
  readonly stages: number;
  /** Chunks of a piece. */
  readonly piece: number;
  /** Strips whose sums are on their way from the warps that multiply to the one that adds them. */
  readonly slots: number;
  /** Blocks of a multiprocessor that registers leave room for. */
  readonly resident: number;
  /** Blocks of the launch. */
  readonly blocks: number;
}

function checkPacked({ dtype, rows, cols, tokens, xStride = cols, outStride = rows }: PackedShape): void {
  cudaMatrixBytes({ dtype, rows, cols });
  const wrong = !Number.isInteger(tokens) || tokens < 1 || tokens > MAX_PACKED_TOKENS
    ? `axis M (tokens) must be 1 to ${MAX_PACKED_TOKENS}, got ${tokens}`
    : xStride < cols || xStride % 8 !== 0
    ? `xStride must be a multiple of 8 of at least ${cols}, got ${xStride}`
    : outStride < rows
    ? `outStride must be at least ${rows}, got ${outStride}`
    : undefined;
  if (wrong !== undefined) throw new RangeError(`Cannot plan a product of packed weights: ${wrong}`);
}

/** Columns from which on sixteen warps have enough to do. */
const MANY_COLUMNS = 2048;
/** Chunks of 64 columns in flight for a block: together with the inputs of one token not half of the shared memory. */
const STAGED_CHUNKS: Readonly<Record<CudaPackedType, number>> = { Q8_0: 64, Q4_0: 128, Q4_1: 112 };

/**
 * Chooses the schedule of a product on a GPU with `multiprocessors`.
 *
 * @throws {RangeError} when a size is out of range; names it.
 */
export function packedSchedule(shape: PackedShape, multiprocessors: number): PackedSchedule {
  checkPacked(shape);
  const { dtype, rows, cols, tokens, output } = shape;
  const room = tokens === 1 ? 1 : MAX_PACKED_TOKENS;
  const strips = Math.ceil(rows / (output === "swiglu" ? STRIP_ROWS / 2 : STRIP_ROWS));
  const warps = cols < MANY_COLUMNS ? 8 : 16;
  // A warp's columns of a strip come in one piece or in several equal ones.
  const share = Math.ceil(cols / RECORD_COLS / warps);
  const most = dtype === "Q8_0" ? 2 : 4;
  const piece = Math.ceil(share / Math.ceil(share / most));
  return {
    room,
    warps,
    stages: Math.max(2, Math.floor(STAGED_CHUNKS[dtype] / (warps * piece))),
    piece,
    slots: 4,
    resident: room === 1 ? 2 : 1,
    blocks: Math.min(strips, multiprocessors),
  };
}

/** Shared memory that a block of a product takes, bytes. */
export function packedSharedBytes(
  { dtype, cols }: Pick<PackedShape, "dtype" | "cols">,
  { room, warps, stages, piece, slots }: PackedSchedule,
): number {
  const chunks = Math.ceil(cols / RECORD_COLS);
  const inputs = chunks * room * (128 + 8 + (dtype === "Q4_1" ? 8 : 0));
  const barriers = 8 * (warps * stages + 2 * slots);
  const sums = 4 * room * (slots * warps * STRIP_ROWS + warps + 1);
  return barriers + warps * stages * piece * RECORD_BYTES[dtype] + inputs + sums;
}

/** The kernel of a product, for compiling it with others. */
export function packedKernel({ dtype, norm }: PackedShape, schedule: PackedSchedule): CudaKernel {
  const { room, warps, resident, stages, piece, slots } = schedule;
  return {
    name: "linear_packed",
    source,
    defines: {
      WEIGHTS: WEIGHT_CODE[dtype],
      TOKENS: room,
      NORM: norm === undefined ? 0 : 1,
      STAGES: stages,
      PIECE: piece,
      SLOTS: slots,
      WARPS: warps,
      RESIDENT: resident,
    },
  };
}

/** A product of one shape, compiled. */
export class PackedPlan {
  /** The product. */
  readonly shape: PackedShape;
  /** How it runs. */
  readonly schedule: PackedSchedule;
  readonly #function: CudaFunction;
  readonly #sharedBytes: number;

  /** Takes a compiled kernel; {@linkcode PackedLinear.plans} makes these. */
  constructor(shape: PackedShape, schedule: PackedSchedule, kernel: CudaFunction) {
    this.shape = shape;
    this.schedule = schedule;
    this.#function = kernel;
    this.#sharedBytes = packedSharedBytes(shape, schedule);
  }

  /** Enqueues the product. An output has the same bits for every M. @throws {TypeError} when the gain is missing. @throws {CudaError} */
  run(stream: CudaStream, { weights, x, out, gain, programmatic }: PackedOperands): void {
    const { rows, cols, tokens, output, norm, xStride = cols, outStride = rows } = this.shape;
    if (norm !== undefined && gain === undefined) throw new TypeError("Cannot multiply: wanted the gain of the norm");
    const view = new DataView(new ArrayBuffer(64));
    [weights, x, gain ?? 0n, out].forEach((address, i) => view.setBigUint64(8 * i, address, true));
    [tokens, rows, cols, xStride, outStride, OUTPUT_CODE[output]].forEach((value, i) =>
      view.setUint32(32 + 4 * i, value, true)
    );
    view.setFloat32(56, norm?.epsilon ?? 0, true);
    stream.launch(this.#function, {
      grid: [this.schedule.blocks],
      block: [32 * (this.schedule.warps + 1)],
      sharedBytes: this.#sharedBytes,
      args: [{ bytes: new Uint8Array(view.buffer) }],
      programmatic,
    });
  }
}

/** A matrix in the model file's blocks, or some of its rows, and where its records are. */
export interface PackedRows extends CudaMatrixShape {
  /** Type of the weights. */
  readonly dtype: CudaPackedType;
  /** Records, of which every byte is 0 at first, aligned to 16 bytes. */
  readonly to: DevicePtr;
  /** Stored rows. */
  readonly from: DevicePtr;
  /** Row of the matrix that the first of them is. @default {0} */
  readonly first?: number;
  /** Which half of the strips is the matrix's. @default {all of them} */
  readonly half?: StripHalf;
}

/** Makes products of packed weights on one GPU. */
export class PackedLinear {
  readonly #kernels: KernelCache;
  readonly #multiprocessors: number;
  readonly #sharedBytes: number;
  readonly #functions = new Map<string, CudaFunction>();
  readonly #packing = new Map<CudaPackedType, CudaModule>();

  /** @throws {RangeError} when the GPU is not one that {@linkcode supports} says yes to. */
  constructor(kernels: KernelCache, properties: CudaProperties) {
    if (!PackedLinear.supports(properties)) {
      const { name, major, minor } = properties;
      throw new RangeError(
        `Cannot make products of packed weights: wanted compute capability 9.x, got ${major}.${minor} (${name})`,
      );
    }
    this.#kernels = kernels;
    this.#multiprocessors = properties.multiprocessors;
    this.#sharedBytes = properties.sharedBytesPerBlock;
  }

  /** Whether a GPU runs these kernels. */
  static supports({ major }: Pick<CudaProperties, "major">): boolean {
    return major === 9;
  }

  /** Whether there is a product of a shape: its inputs must fit into shared memory. */
  has(shape: PackedShape): boolean {
    if (shape.tokens > MAX_PACKED_TOKENS) return false;
    return packedSharedBytes(shape, packedSchedule(shape, this.#multiprocessors)) <= this.#sharedBytes;
  }

  /**
   * Compiles products that are not compiled yet, all at once.
   *
   * @param changes parts of the schedules that are not left to {@linkcode packedSchedule}; for measurements.
   * @throws {RangeError} when a shape is out of range. @throws {CudaError} when a kernel does not compile.
   */
  plans(shapes: readonly PackedShape[], changes: Partial<PackedSchedule> = {}): readonly PackedPlan[] {
    const wanted = shapes.map((shape) => {
      const schedule = { ...packedSchedule(shape, this.#multiprocessors), ...changes };
      const kernel = packedKernel(shape, schedule);
      return { shape, schedule, kernel, key: JSON.stringify(kernel.defines) };
    });
    const missing = new Map(
      wanted.filter(({ key }) => !this.#functions.has(key)).map(({ key, kernel }) => [key, kernel]),
    );
    const modules = this.#kernels.modules([...missing.values()]);
    [...missing.keys()].forEach((key, i) => {
      const kernel = modules[i].function("linear_packed");
      kernel.setSharedBytes(this.#sharedBytes);
      kernel.preferShared();
      this.#functions.set(key, kernel);
    });
    return wanted.map(({ shape, schedule, key }) => {
      const kernel = this.#functions.get(key);
      if (kernel === undefined) throw new ReferenceError(`Cannot plan a product: no kernel ${key}`);
      return new PackedPlan(shape, schedule, kernel);
    });
  }

  /** One product: see {@linkcode plans}. */
  plan(shape: PackedShape, changes: Partial<PackedSchedule> = {}): PackedPlan {
    return this.plans([shape], changes)[0];
  }

  /**
   * Enqueues the packing of stored rows. `from` may be freed when the stream has got there.
   *
   * @throws {RangeError} when the shape does not fit the type. @throws {CudaError}
   */
  pack(stream: CudaStream, { dtype, rows, cols, from, to, first = 0, half }: PackedRows): void {
    cudaMatrixBytes({ dtype, rows, cols });
    stream.launch(this.#packer(dtype).function("linear_pack"), {
      grid: [PACK_BLOCKS],
      block: [PACK_THREADS],
      args: [
        { ptr: from },
        { u32: rows },
        { u32: cols },
        { ptr: to },
        { u32: first },
        { u32: half === undefined ? 0 : HALF_CODE[half] },
      ],
    });
  }

  /**
   * Enqueues the unpacking of a matrix to bf16 [rows, cols] at `to`, aligned to 16 bytes, rounded as weights of bf16 are.
   *
   * @throws {RangeError} when the shape does not fit the type. @throws {CudaError}
   */
  unpack(stream: CudaStream, { dtype, rows, cols, from, to, half }: Omit<PackedRows, "first">): void {
    cudaMatrixBytes({ dtype, rows, cols });
    stream.launch(this.#packer(dtype).function("linear_unpack"), {
      grid: [PACK_BLOCKS],
      block: [PACK_THREADS],
      args: [
        { ptr: from },
        { u32: rows },
        { u32: cols },
        { ptr: to },
        { u32: half === undefined ? 0 : HALF_CODE[half] },
      ],
    });
  }

  #packer(dtype: CudaPackedType): CudaModule {
    const module = this.#packing.get(dtype) ??
      this.#kernels.module({ name: "linear_pack", source: packSource, defines: { WEIGHTS: WEIGHT_CODE[dtype] } });
    this.#packing.set(dtype, module);
    return module;
  }
}
