/**
 * Launches `linear_packed_wide.cu`: products of up to 64 tokens with packed weights.
 *
 * @module
 */
import type { CudaContext, CudaFunction, CudaProperties, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { CudaKernel } from "../cuda/compile.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { cudaMatrixBytes, type CudaPackedType, RECORD_BYTES, RECORD_COLS, STRIP_ROWS } from "./cuda_layout.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import source from "./linear_packed_wide.cu" with { type: "text" };

/** Most tokens of a product. */
export const MAX_WIDE_TOKENS = 64;

/** One product out[M, N] (+)= x[M, K] w[N, K]ᵀ of packed weights, each rounded to bf16. */
export interface WideShape {
  /** Type of the weights. */
  readonly dtype: CudaPackedType;
  /** N, outputs of a token; for `swiglu` gate and up have so many rows each. */
  readonly rows: number;
  /** K, inputs of a token, a multiple of 32. */
  readonly cols: number;
  /** M, at most {@linkcode MAX_WIDE_TOKENS}. */
  readonly tokens: number;
  /** What it leaves. */
  readonly output: LinearOutput;
  /** Values between two rows of x, a multiple of 8. @default {K} */
  readonly xStride?: number;
  /** Values between two rows of the output. @default {N} */
  readonly outStride?: number;
}

/** Where the operands of one launch lie, aligned to 16 bytes. */
export interface WideOperands {
  /** Records; for `swiglu` of gate and up that share strips. */
  readonly weights: DevicePtr;
  /** x[M, K], bf16. */
  readonly x: DevicePtr;
  /** out[M, N]. */
  readonly out: DevicePtr;
  /**
   * Whether the launch may begin before its predecessor has ended. It reads weights at once, everything else when the
   * predecessor is done. @default {false}
   */
  readonly programmatic?: boolean;
}

/** How a kernel divides the work; the order of summation depends on the shape, the tile and `blocks`. */
export interface WideSchedule {
  /** Padded tokens. */
  readonly padded: number;
  /** Warpgroups that multiply. */
  readonly warpgroups: number;
  /** Strips of a warp. */
  readonly pieces: number;
  /** Blocks of a multiprocessor that registers leave room for. */
  readonly resident: number;
  /** Stages of weights of each warp. */
  readonly weightSlots: number;
  /** Chunks of inputs. */
  readonly inputSlots: number;
  /** Blocks of the launch. */
  readonly blocks: number;
}

const OUTPUT_CODE: Readonly<Record<LinearOutput, number>> = { bf16: 0, f32: 1, add: 2, swiglu: 3 };
const WEIGHT_CODE: Readonly<Record<CudaPackedType, number>> = { Q8_0: 1, Q4_0: 2, Q4_1: 3 };
/** Parts of a tile from which on blocks that are left over are few. */
const FEWEST_PARTS = 3;
/** Records of a stage and strip. */
const GROUP = 2;
const WARPS_OF_A_GROUP = 4;
/** Bytes of a token's columns of a chunk. */
const ATOM_ROW_BYTES = 128;
const MAX_SLOTS = 16;
const ARGUMENT_BYTES = 192;
const EXTRA_THREADS = 32;
/** Half of what blocks share, without what the system takes of each. */
const HALF_SHARED_BYTES = 228 * 1024 / 2 - 1024;
/** Room for the counters of all tiles, the same for every plan, since plans share it. */
const COUNTER_BYTES = 65536;

function checkWide({ dtype, rows, cols, tokens, xStride = cols, outStride = rows }: WideShape): void {
  cudaMatrixBytes({ dtype, rows, cols });
  const wrong = !Number.isInteger(tokens) || tokens < 1 || tokens > MAX_WIDE_TOKENS
    ? `axis M (tokens) must be 1 to ${MAX_WIDE_TOKENS}, got ${tokens}`
    : xStride < cols || xStride % 8 !== 0
    ? `xStride must be a multiple of 8 of at least ${cols}, got ${xStride}`
    : outStride < rows
    ? `outStride must be at least ${rows}, got ${outStride}`
    : undefined;
  if (wrong !== undefined) throw new RangeError(`Cannot plan a product of packed weights: ${wrong}`);
}

/** Tiles of rows of a product. */
function tilesOf(
  { rows, output }: WideShape,
  { warpgroups, pieces }: Pick<WideSchedule, "warpgroups" | "pieces">,
): number {
  const strips = Math.ceil(rows / (output === "swiglu" ? STRIP_ROWS / 2 : STRIP_ROWS));
  return Math.ceil(strips / (warpgroups * WARPS_OF_A_GROUP * pieces));
}

/**
 * Chooses the schedule of a product on a GPU with `multiprocessors`.
 *
 * @throws {RangeError} when a size is out of range; names it.
 */
export function wideSchedule(
  shape: WideShape,
  multiprocessors: number,
  changes: Partial<WideSchedule> = {},
): WideSchedule {
  checkWide(shape);
  const { dtype, cols, tokens } = shape;
  const padded = [16, 32].find((size) => tokens <= size) ?? MAX_WIDE_TOKENS;
  const warpgroups = changes.warpgroups ?? 2;
  const pieces = changes.pieces ?? (padded === 64 ? 2 : 1);
  const inputSlots = changes.inputSlots ?? Math.min(MAX_SLOTS, padded === 64 ? 5 : 8);
  const stageBytes = warpgroups * WARPS_OF_A_GROUP * pieces * GROUP * RECORD_BYTES[dtype];
  const barrierBytes = wideSharedBytes({ dtype }, { padded, warpgroups, pieces, inputSlots: 0, weightSlots: 0 });
  const left = HALF_SHARED_BYTES - inputSlots * padded * ATOM_ROW_BYTES - barrierBytes;
  const weightSlots = changes.weightSlots ?? Math.max(2, Math.min(MAX_SLOTS, Math.floor(left / stageBytes)));
  const tiles = tilesOf(shape, { warpgroups, pieces });
  const parts = Math.floor(multiprocessors / tiles);
  // Few tiles are cut into equal parts, so that a block has part of one alone.
  const fitting = parts >= FEWEST_PARTS ? tiles * parts : multiprocessors;
  return {
    padded,
    warpgroups,
    pieces,
    resident: changes.resident ?? 1,
    weightSlots,
    inputSlots,
    blocks: Math.min(tiles * Math.ceil(cols / RECORD_COLS), changes.blocks ?? fitting),
  };
}

/** Shared memory that a block of a product takes, bytes. */
export function wideSharedBytes(
  { dtype }: Pick<WideShape, "dtype">,
  { padded, warpgroups, pieces, inputSlots, weightSlots }: Omit<WideSchedule, "resident" | "blocks">,
): number {
  const warps = warpgroups * WARPS_OF_A_GROUP;
  return inputSlots * padded * ATOM_ROW_BYTES + warps * weightSlots * pieces * GROUP * RECORD_BYTES[dtype] +
    8 * MAX_SLOTS * (2 + warps) + 16;
}

/** The kernel of a product, for compiling it with others. */
export function wideKernel({ dtype }: WideShape, schedule: WideSchedule): CudaKernel {
  const { padded, warpgroups, pieces, resident } = schedule;
  return {
    name: "linear_packed_wide",
    source,
    defines: {
      WEIGHTS: WEIGHT_CODE[dtype],
      TOKENS: padded,
      WARPGROUPS: warpgroups,
      PIECES: pieces,
      RESIDENT: resident,
    },
  };
}

/** Bytes of the sums that blocks leave of parts of tiles. */
function sumBytes({ padded, warpgroups, pieces, blocks }: WideSchedule): number {
  return blocks * 2 * warpgroups * 128 * pieces * (padded / 2) * 4;
}

/** A product of one shape, compiled. */
export class WidePlan {
  /** The product. */
  readonly shape: WideShape;
  /** How it runs. */
  readonly schedule: WideSchedule;
  readonly #context: CudaContext;
  readonly #function: CudaFunction;
  readonly #sharedBytes: number;
  readonly #scratch: () => DevicePtr;
  readonly #maps = new Map<DevicePtr, Uint8Array<ArrayBuffer>>();

  /** Takes a compiled kernel; {@linkcode WideLinear.plans} makes these. */
  constructor(
    { shape, schedule, context, kernel, scratch }: {
      readonly shape: WideShape;
      readonly schedule: WideSchedule;
      readonly context: CudaContext;
      readonly kernel: CudaFunction;
      readonly scratch: () => DevicePtr;
    },
  ) {
    this.shape = shape;
    this.schedule = schedule;
    this.#context = context;
    this.#function = kernel;
    this.#scratch = scratch;
    this.#sharedBytes = wideSharedBytes(shape, schedule);
  }

  /** Enqueues the product. An output has the same bits for every M of as many padded tokens. @throws {CudaError} */
  run(stream: CudaStream, { weights, x, out, programmatic }: WideOperands): void {
    const { rows, cols, tokens, output, outStride = rows } = this.shape;
    const { warpgroups, weightSlots, inputSlots, blocks } = this.schedule;
    const bytes = new Uint8Array(ARGUMENT_BYTES);
    const view = new DataView(bytes.buffer);
    const counters = this.#scratch();
    bytes.set(this.#map(x), 0);
    [weights, out, counters + BigInt(COUNTER_BYTES), counters].forEach((address, i) =>
      view.setBigUint64(128 + 8 * i, address, true)
    );
    [tokens, rows, cols, outStride, weightSlots, inputSlots, OUTPUT_CODE[output]].forEach((value, i) =>
      view.setUint32(160 + 4 * i, value, true)
    );
    stream.launch(this.#function, {
      grid: [blocks],
      block: [128 * warpgroups + EXTRA_THREADS],
      sharedBytes: this.#sharedBytes,
      args: [{ bytes }],
      programmatic,
    });
  }

  #map(x: DevicePtr): Uint8Array<ArrayBuffer> {
    const { cols, tokens, xStride = cols } = this.shape;
    const known = this.#maps.get(x) ?? this.#context.tensorMap({
      address: x,
      rows: tokens,
      columns: cols,
      rowBytes: 2 * xStride,
      boxRows: this.schedule.padded,
    });
    this.#maps.set(x, known);
    return known;
  }
}

/** Makes products of up to 64 tokens on one GPU; those of one instance run one after another. Frees their memory on dispose. */
export class WideLinear implements Disposable {
  readonly #context: CudaContext;
  readonly #kernels: KernelCache;
  readonly #functions = new Map<string, CudaFunction>();
  readonly #opened = new DisposableStack();
  #scratch: { readonly address: DevicePtr; readonly bytes: number } | undefined;

  /** @throws {RangeError} when the GPU is not one that {@linkcode supports} says yes to. */
  constructor(context: CudaContext, kernels: KernelCache) {
    const { properties } = context;
    if (!WideLinear.supports(properties)) {
      const { name, major, minor } = properties;
      throw new RangeError(
        `Cannot make products of packed weights: wanted compute capability 9.x, got ${major}.${minor} (${name})`,
      );
    }
    this.#context = context;
    this.#kernels = kernels;
  }

  /** Whether a GPU runs these kernels. */
  static supports({ major }: Pick<CudaProperties, "major">): boolean {
    return major === 9;
  }

  /**
   * Compiles products that are not compiled yet, all at once.
   *
   * @param changes parts of the schedules that are not left to {@linkcode wideSchedule}; for measurements.
   * @throws {RangeError} when a shape is out of range. @throws {CudaError} when a kernel does not compile, or for memory.
   */
  plans(shapes: readonly WideShape[], changes: Partial<WideSchedule> = {}): readonly WidePlan[] {
    const context = this.#context;
    const { multiprocessors, sharedBytesPerBlock } = context.properties;
    const wanted = shapes.map((shape) => {
      const schedule = wideSchedule(shape, multiprocessors, changes);
      const kernel = wideKernel(shape, schedule);
      return { shape, schedule, kernel, key: JSON.stringify(kernel.defines) };
    });
    const missing = new Map(
      wanted.filter(({ key }) => !this.#functions.has(key)).map(({ key, kernel }) => [key, kernel]),
    );
    const modules = this.#kernels.modules([...missing.values()]);
    [...missing.keys()].forEach((key, i) => {
      const kernel = modules[i].function("linear_packed_wide");
      kernel.setSharedBytes(sharedBytesPerBlock);
      kernel.preferShared();
      this.#functions.set(key, kernel);
    });
    this.#reserve(wanted.map(({ shape, schedule }) => {
      if (4 * tilesOf(shape, schedule) > COUNTER_BYTES) {
        throw new RangeError(`Cannot plan a product: wanted at most ${COUNTER_BYTES / 4} tiles of rows`);
      }
      return sumBytes(schedule);
    }));
    return wanted.map(({ shape, schedule, key }) => {
      const kernel = this.#functions.get(key);
      if (kernel === undefined) throw new ReferenceError(`Cannot plan a product: no kernel ${key}`);
      return new WidePlan({ shape, schedule, context, kernel, scratch: () => this.#memory() });
    });
  }

  /** One product: see {@linkcode plans}. */
  plan(shape: WideShape, changes: Partial<WideSchedule> = {}): WidePlan {
    return this.plans([shape], changes)[0];
  }

  /** Frees the memory that products share. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  /** Memory for the largest of some products; earlier memory stays, since captured launches may name it. */
  #reserve(sizes: readonly number[]): void {
    const bytes = Math.max(...sizes, 0);
    if (this.#scratch !== undefined && this.#scratch.bytes >= bytes) return;
    const { address } = this.#opened.use(this.#context.alloc(COUNTER_BYTES + bytes));
    using stream = this.#context.stream();
    stream.fill(address, 0, COUNTER_BYTES);
    stream.synchronize();
    this.#scratch = { address, bytes };
  }

  #memory(): DevicePtr {
    if (this.#scratch === undefined) throw new ReferenceError("Cannot multiply: no memory was taken for sums");
    return this.#scratch.address;
  }
}
