/**
 * Launches `linear_skinny.cu` and `linear_packed.cu`: products of few tokens that run at the speed of reading the weights.
 *
 * @module
 */
import type { CudaFunction, CudaModule, CudaProperties, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { CudaKernel } from "../cuda/compile.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { type CudaMatrixShape, type CudaWeightType, TILE_BYTES, tiledBytes, tilesOf } from "./cuda_layout.ts";
import packedSource from "./linear_packed.cu" with { type: "text" };
import skinnySource from "./linear_skinny.cu" with { type: "text" };

/** What a product leaves: `add` adds f32 to what is there; `swiglu` is bf16 silu(gate) * up of a matrix of gate and up rows. */
export type SkinnyOutput = "bf16" | "f32" | "add" | "swiglu";

/** One product out[M, N] (+)= x[M, K] w[N, K]ᵀ. */
export interface SkinnyShape extends CudaMatrixShape {
  /**
   * N, outputs of a token. The weights are [N, K]; for `swiglu` two such matrices, gate and up, of which each is tiled for
   * itself, the second directly behind the first (row-major: 2N rows).
   */
  readonly rows: number;
  /** M, at most {@linkcode maxTokens}. */
  readonly tokens: number;
  /** What it leaves. */
  readonly output: SkinnyOutput;
  /** Takes f32 inputs and normalises them: w sees bf16(x * gain), the sum is divided by sqrt(mean(x²) + epsilon). M at most 8. */
  readonly norm?: { readonly epsilon: number };
  /**
   * `tiles` as {@linkcode SkinnyLinear.pack} makes them, or for BF16 `rows`: row-major through a tensor map of 64 x 64 boxes in
   * the 128-byte swizzle; K a multiple of 8.
   *
   * @default {"tiles"}
   */
  readonly layout?: "tiles" | "rows";
  /** Values between two rows of x; rows start at multiples of 16 bytes. @default {K} */
  readonly xStride?: number;
  /** Values between two rows of the output. @default {N} */
  readonly outStride?: number;
}

/** Where the operands of one launch lie. */
export interface SkinnyOperands {
  /** Weights in tiles, aligned to 16 bytes, or the tensor map of row-major ones. */
  readonly weights: DevicePtr | Uint8Array;
  /** x[M, K], bf16 (f32 with `norm`), aligned to 16 bytes. */
  readonly x: DevicePtr;
  /** out[M, N]. */
  readonly out: DevicePtr;
  /** Gain of the norm, f32 [K], aligned to 16 bytes. */
  readonly gain?: DevicePtr;
  /**
   * Whether the launch may begin before its predecessor has ended. It reads weights at once, everything else when the
   * predecessor is done. @default {false}
   */
  readonly programmatic?: boolean;
}

/** CTAs of a cluster, each with a part of K. */
const SLICES = 4;
/** Shared memory of a CTA that leaves room for one of the next launch: half a multiprocessor's, less what the system takes. */
const HALF_SHARED_BYTES = 115_712;
/** Most dynamic shared memory of a CTA on Hopper. */
const MAX_SHARED_BYTES = 232_448;
/** More pieces of weights in flight bring nothing. */
const MOST_SLOTS = 6;
/** Most pieces of inputs the kernels have barriers for; of 64 tokens. */
const MAX_X_SLOTS = 64;
const MAX_X_SLOTS_64 = 16;
const OUTPUT_CODE: Readonly<Record<SkinnyOutput, number>> = { bf16: 0, f32: 1, add: 2, swiglu: 3 };
const WEIGHT_CODE: Readonly<Record<Exclude<CudaWeightType, "BF16">, number>> = { Q8_0: 0, Q4_0: 1, Q4_1: 2 };
const PACK_BLOCKS = 1056;
const PACK_THREADS = 256;

/** Most tokens of a product with weights of a type. */
export function maxTokens(dtype: CudaWeightType): number {
  return dtype === "BF16" ? 64 : 16;
}

/** How a launch uses shared memory and the grid. */
export interface SkinnySchedule {
  /** Padded tokens, the kernel's TOKENS. */
  readonly tokens: number;
  /** Threads of a CTA. */
  readonly threads: number;
  /** Clusters of four CTAs. */
  readonly clusters: number;
  /** Tiles of 64 rows, or pairs of them, over all clusters. */
  readonly units: number;
  /** Pieces of weights in the ring. */
  readonly slots: number;
  /** Pieces of inputs that shared memory holds. */
  readonly xSlots: number;
  /** Dynamic shared memory of a CTA. */
  readonly sharedBytes: number;
}

/**
 * Chooses the schedule of a product on a GPU with `multiprocessors`.
 *
 * @throws {RangeError} when a size is out of range; names it.
 */
export function schedule(shape: SkinnyShape, multiprocessors: number): SkinnySchedule {
  const { dtype, rows, cols, tokens, norm, layout = "tiles", xStride = cols, outStride = rows } = shape;
  tiledBytes({ dtype, rows, cols });
  const most = norm === undefined ? maxTokens(dtype) : 8;
  const alignment = norm === undefined ? 8 : 4;
  const wrong = !Number.isInteger(tokens) || tokens < 1 || tokens > most
    ? `axis M (tokens) must be 1 to ${most}, got ${tokens}`
    : layout === "rows" && (dtype !== "BF16" || cols % 8 !== 0)
    ? `row-major weights must be BF16 with K a multiple of 8, got ${dtype} and ${cols}`
    : xStride < cols || tokens > 1 && xStride % alignment !== 0
    ? `xStride must be a multiple of ${alignment} of at least ${cols}, got ${xStride}`
    : outStride < rows
    ? `outStride must be at least ${rows}, got ${outStride}`
    : undefined;
  if (wrong !== undefined) throw new RangeError(`Cannot plan a product: ${wrong}`);
  const padded = [8, 16, 32, 64].find((size) => tokens <= size) ?? most;
  const units = tilesOf(rows);
  // As many as fit, but none that has fewer tiles than the others could take along.
  const available = Math.max(1, Math.floor(multiprocessors / SLICES));
  const clusters = Math.ceil(units / Math.ceil(units / available));
  const memory = dtype === "BF16" ? skinnyMemory(shape, padded) : packedMemory(shape, padded);
  return { tokens: padded, clusters, units, ...memory };
}

/** Pieces of `tiles` column tiles in the largest quarter of K. */
function largestSlice(cols: number, tiles: number): number {
  const all = tilesOf(cols);
  return Math.max(
    ...Array.from({ length: SLICES }, (_, quarter) => {
      const from = Math.floor(all * quarter / SLICES);
      return Math.ceil((Math.floor(all * (quarter + 1) / SLICES) - from) / tiles);
    }),
    1,
  );
}

type Memory = Pick<SkinnySchedule, "threads" | "slots" | "xSlots" | "sharedBytes">;

/** Bytes of the kernels' barriers. */
function barrierBytes(maxXSlots: number): number {
  return 8 * (2 * 32 + 2 * maxXSlots + 3);
}

function skinnyMemory({ cols, norm }: SkinnyShape, tokens: number): Memory {
  const loaders = tokens === 64 ? 2 : tokens === 32 ? 3 : 4;
  const [pieceBytes, xBytes] = [2 * TILE_BYTES.BF16, tokens * 256];
  const maxXSlots = tokens === 64 ? MAX_X_SLOTS_64 : MAX_X_SLOTS;
  const sumBytes = 512 * (tokens === 64 ? 64 : tokens + 2);
  const fixed = (xSlots: number): number =>
    xSlots * xBytes + sumBytes + (norm === undefined ? 0 : 4 * tokens * (SLICES + xSlots)) + barrierBytes(maxXSlots);
  const slotsWith = (xSlots: number): number =>
    Math.min(MOST_SLOTS, Math.floor((HALF_SHARED_BYTES - fixed(xSlots)) / pieceBytes));
  const pieces = largestSlice(cols, 2);
  // Inputs that stay are read once; holding them must not cost more than one piece of the ring.
  const stay = norm !== undefined || pieces <= loaders || slotsWith(pieces) >= slotsWith(loaders) - 1;
  const xSlots = stay ? pieces : loaders;
  const slots = Math.max(3, slotsWith(xSlots));
  const sharedBytes = slots * pieceBytes + fixed(xSlots);
  return {
    threads: 32 * (7 + loaders),
    slots,
    xSlots,
    sharedBytes: checkShared(sharedBytes, { cols, xSlots, maxXSlots }),
  };
}

function packedMemory({ dtype, cols, tokens: used, norm }: SkinnyShape, tokens: number): Memory {
  const pieceBytes = 4 * TILE_BYTES[dtype];
  const xSlots = largestSlice(cols, 4);
  const fixed = xSlots * (512 * used + 32 * tokens) + 1024 * (tokens + 2) +
    (norm === undefined ? 0 : 4 * tokens * (SLICES + xSlots)) + barrierBytes(MAX_X_SLOTS);
  const slots = Math.max(4, Math.min(16, Math.floor((HALF_SHARED_BYTES - fixed) / pieceBytes)));
  return {
    threads: 480,
    slots,
    xSlots,
    sharedBytes: checkShared(slots * pieceBytes + fixed, { cols, xSlots, maxXSlots: MAX_X_SLOTS }),
  };
}

function checkShared(
  bytes: number,
  { cols, xSlots, maxXSlots }: { readonly cols: number; readonly xSlots: number; readonly maxXSlots: number },
): number {
  if (bytes <= MAX_SHARED_BYTES && xSlots <= maxXSlots) return bytes;
  throw new RangeError(
    `Cannot plan a product: axis K (cols) of ${cols} takes ${bytes} bytes of shared memory, at most ${MAX_SHARED_BYTES} fit`,
  );
}

/** The kernel of a product, for compiling it with others. */
export function skinnyKernel(shape: SkinnyShape, { tokens }: Pick<SkinnySchedule, "tokens">): CudaKernel {
  const { dtype, output, norm, layout = "tiles" } = shape;
  const defines = { TOKENS: tokens, OUTPUT: OUTPUT_CODE[output], NORM: norm === undefined ? 0 : 1 };
  return dtype === "BF16"
    ? { name: "linear_skinny", source: skinnySource, defines: { ...defines, ROW_MAJOR: layout === "rows" ? 1 : 0 } }
    : { name: "linear_packed", source: packedSource, defines: { ...defines, WEIGHTS: WEIGHT_CODE[dtype] } };
}

/** A product of one shape, compiled. */
export class SkinnyPlan {
  /** The product. */
  readonly shape: SkinnyShape;
  /** How it runs. */
  readonly schedule: SkinnySchedule;
  readonly #function: CudaFunction;

  /** Takes a compiled kernel; {@linkcode SkinnyLinear.plans} makes these. */
  constructor(shape: SkinnyShape, schedule: SkinnySchedule, module: CudaModule) {
    this.shape = shape;
    this.schedule = schedule;
    this.#function = module.function(shape.dtype === "BF16" ? "linear_skinny" : "linear_packed");
    this.#function.setSharedBytes(MAX_SHARED_BYTES);
  }

  /**
   * Enqueues the product. Outputs have the same bits for every M up to 64 (packed weights: 16) and for both layouts.
   *
   * @throws {TypeError} when the gain is missing or the weights are not of the plan's layout. @throws {CudaError}
   */
  run(stream: CudaStream, operands: SkinnyOperands): void {
    const { weights, programmatic } = operands;
    const { clusters, threads, sharedBytes } = this.schedule;
    const rowMajor = this.shape.layout === "rows";
    if (rowMajor !== (typeof weights !== "bigint")) {
      throw new TypeError(
        `Cannot multiply: wanted ${rowMajor ? "the tensor map of row-major" : "the address of tiled"} weights`,
      );
    }
    const args = { bytes: this.#arguments(operands) };
    stream.launch(this.#function, {
      grid: [SLICES * clusters],
      block: [threads],
      sharedBytes,
      args: typeof weights === "bigint" ? [args] : [args, { bytes: weights }],
      programmatic,
    });
  }

  /** The kernels' `LinearArgs`. */
  #arguments({ weights, x, out, gain }: SkinnyOperands): Uint8Array {
    const { rows, cols, tokens, norm, xStride = cols, outStride = rows } = this.shape;
    const { units, xSlots, slots } = this.schedule;
    if (norm !== undefined && gain === undefined) throw new TypeError("Cannot multiply: wanted the gain of the norm");
    const view = new DataView(new ArrayBuffer(80));
    [typeof weights === "bigint" ? weights : 0n, x, gain ?? 0n, out].forEach((address, i) =>
      view.setBigUint64(8 * i, address, true)
    );
    [tokens, rows, cols, xStride, outStride, units, tilesOf(rows), xSlots, slots, 0].forEach((value, i) =>
      view.setUint32(32 + 4 * i, value, true)
    );
    view.setFloat32(72, norm?.epsilon ?? 0, true);
    return new Uint8Array(view.buffer);
  }
}

/** Makes products for few tokens on one GPU, and the tiles they read. Hopper (compute capability 9.0) only. */
export class SkinnyLinear {
  readonly #kernels: KernelCache;
  readonly #multiprocessors: number;
  readonly #modules = new Map<string, CudaModule>();

  /** @throws {RangeError} when the GPU is not one that {@linkcode supports} says yes to. */
  constructor(kernels: KernelCache, properties: CudaProperties) {
    if (!SkinnyLinear.supports(properties)) {
      const { name, major, minor } = properties;
      throw new RangeError(
        `Cannot make skinny products: wanted compute capability 9.0, got ${major}.${minor} (${name})`,
      );
    }
    this.#kernels = kernels;
    this.#multiprocessors = properties.multiprocessors;
  }

  /** Whether a GPU runs these kernels. */
  static supports({ major }: Pick<CudaProperties, "major">): boolean {
    return major === 9;
  }

  /**
   * Compiles products that are not compiled yet, all at once.
   *
   * @throws {RangeError} when a shape is out of range. @throws {CudaError} when a kernel does not compile.
   */
  plans(shapes: readonly SkinnyShape[]): readonly SkinnyPlan[] {
    const wanted = shapes.map((shape) => {
      const chosen = schedule(shape, this.#multiprocessors);
      const kernel = skinnyKernel(shape, chosen);
      return { shape, chosen, kernel, key: JSON.stringify([kernel.name, kernel.defines]) };
    });
    const missing = new Map(
      wanted.filter(({ key }) => !this.#modules.has(key)).map(({ key, kernel }) => [key, kernel]),
    );
    const modules = this.#kernels.modules([...missing.values()]);
    [...missing.keys()].forEach((key, i) => this.#modules.set(key, modules[i]));
    return wanted.map(({ shape, chosen, key }) => {
      const module = this.#modules.get(key);
      if (module === undefined) throw new ReferenceError(`Cannot plan a product: no kernel ${key}`);
      return new SkinnyPlan(shape, chosen, module);
    });
  }

  /** One product: see {@linkcode plans}. */
  plan(shape: SkinnyShape): SkinnyPlan {
    return this.plans([shape])[0];
  }

  /**
   * Enqueues the tiling of a stored matrix: `from` row-major bf16, or blocks as the model file stores them; `to` has room for
   * {@linkcode tiledBytes}, aligned to 16 bytes. `from` may be freed when the stream has got there.
   *
   * @throws {RangeError} when the shape does not fit the type. @throws {CudaError}
   */
  pack(
    stream: CudaStream,
    { dtype, rows, cols, from, to }: CudaMatrixShape & { readonly from: DevicePtr; readonly to: DevicePtr },
  ): void {
    tiledBytes({ dtype, rows, cols });
    const shape = { dtype, rows, cols, tokens: 1, output: "bf16" } as const;
    const kernel = skinnyKernel(shape, { tokens: 8 });
    const key = JSON.stringify([kernel.name, kernel.defines]);
    const module = this.#modules.get(key) ?? this.#kernels.module(kernel);
    this.#modules.set(key, module);
    const sizes = dtype === "BF16" ? [rows, cols, cols] : [rows, cols];
    stream.launch(module.function(`${kernel.name}_pack`), {
      grid: [PACK_BLOCKS],
      block: [PACK_THREADS],
      args: [{ ptr: from }, ...sizes.map((u32) => ({ u32 })), { ptr: to }],
    });
  }
}
