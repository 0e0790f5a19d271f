/**
 * Launches `linear_direct.cu`: products of few tokens that run at the speed of reading the weights.
 *
 * @module
 */
import type { CudaFunction, CudaModule, CudaProperties, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { CudaKernel } from "../cuda/compile.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./linear_direct.cu" with { type: "text" };

/** What a product leaves: `add` adds f32 to what is there; `swiglu` is bf16 silu(gate) * up of a matrix of gate and up rows. */
export type LinearOutput = "bf16" | "f32" | "add" | "swiglu";

/** One product out[M, N] (+)= x[M, K] w[N, K]ᵀ of bf16 weights. */
export interface DirectShape {
  /** N, outputs of a token. The weights are [N, K]; for `swiglu` gate and up, one behind the other: [2N, K]. */
  readonly rows: number;
  /** K, inputs of a token, a multiple of 8. */
  readonly cols: number;
  /** M, at most {@linkcode MAX_DIRECT_TOKENS}. */
  readonly tokens: number;
  /** What it leaves. */
  readonly output: LinearOutput;
  /** Takes f32 inputs and normalises them: w sees bf16(x * gain), the sum is divided by sqrt(mean(x²) + epsilon). M at most 8. */
  readonly norm?: { readonly epsilon: number };
  /** Values between two rows of x, a multiple of 8. @default {K} */
  readonly xStride?: number;
  /** Values between two rows of the output. @default {N} */
  readonly outStride?: number;
}

/** Where the operands of one launch lie, aligned to 16 bytes. */
export interface DirectOperands {
  /** Row-major. */
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

/** Most tokens of a product. */
export const MAX_DIRECT_TOKENS = 32;

/** Most tokens of a product that normalises its inputs. */
export const MAX_NORM_TOKENS = 8;

const ROWS_OF_A_TILE = 16;
const OUTPUT_CODE: Readonly<Record<LinearOutput, number>> = { bf16: 0, f32: 1, add: 2, swiglu: 3 };

function checkDirect({ rows, cols, tokens, norm, xStride = cols, outStride = rows }: DirectShape): void {
  const most = norm === undefined ? MAX_DIRECT_TOKENS : MAX_NORM_TOKENS;
  const wrong = !Number.isSafeInteger(rows) || rows < 1
    ? `axis N (rows) must be a positive integer, got ${rows}`
    : !Number.isInteger(tokens) || tokens < 1 || tokens > most
    ? `axis M (tokens) must be 1 to ${most}, got ${tokens}`
    : !Number.isSafeInteger(cols) || cols < 1 || cols % 8 !== 0
    ? `axis K (cols) must be a multiple of 8, got ${cols}`
    : xStride < cols || xStride % 8 !== 0
    ? `xStride must be a multiple of 8 of at least ${cols}, got ${xStride}`
    : outStride < rows
    ? `outStride must be at least ${rows}, got ${outStride}`
    : undefined;
  if (wrong !== undefined) throw new RangeError(`Cannot plan a product: ${wrong}`);
}

/** How a kernel divides the work; the order of summation depends on `warps` alone. */
export interface DirectSchedule {
  /** Padded tokens. */
  readonly padded: number;
  /** Tiles of 16 rows of a block. */
  readonly rowTiles: number;
  /** Chunks of 64 columns in flight in a warp's registers. */
  readonly ahead: number;
  /** Warps of a block. */
  readonly warps: number;
  /** Blocks of a multiprocessor that registers leave room for. */
  readonly resident: number;
}

/** Columns from which on sixteen warps have work for longer than they take to start. */
const MANY_COLUMNS = 1536;

/**
 * Chooses the schedule of a product on a GPU with `multiprocessors`, as measured on an H100: small matrices get many blocks
 * of one tile, large ones blocks of two, which read x half as often.
 *
 * @throws {RangeError} when a size is out of range; names it.
 */
export function directSchedule(shape: DirectShape, multiprocessors: number): DirectSchedule {
  checkDirect(shape);
  const { rows, cols, tokens, output, norm } = shape;
  const padded = [8, 16, 32].find((size) => tokens <= size) ?? tokens;
  const pair = output === "swiglu";
  const tiles = Math.ceil(rows / ROWS_OF_A_TILE);
  const small = tiles <= 2 * multiprocessors;
  const rowTiles = pair || !small || padded === 32 ? 2 : 1;
  if (padded === 32) {
    const alone = tiles <= 2 * multiprocessors && !pair;
    return { padded, rowTiles, ahead: alone ? 2 : 1, warps: 8, resident: alone ? 1 : 2 };
  }
  if (padded === 8 && !pair && norm === undefined && cols >= MANY_COLUMNS) {
    return { padded, rowTiles: 1, ahead: 2, warps: 16, resident: 2 };
  }
  return { padded, rowTiles, ahead: rowTiles === 2 ? 2 : padded === 16 ? 3 : 4, warps: 8, resident: 2 };
}

/** The kernel of a product, for compiling it with others. */
export function directKernel({ output, norm }: DirectShape, schedule: DirectSchedule): CudaKernel {
  const { padded, rowTiles, ahead, warps, resident } = schedule;
  return {
    name: "linear_direct",
    source,
    defines: {
      TOKENS: padded,
      OUTPUT: OUTPUT_CODE[output],
      NORM: norm === undefined ? 0 : 1,
      ROW_TILES: rowTiles,
      AHEAD: ahead,
      WARPS: warps,
      RESIDENT: resident,
    },
  };
}

/** A product of one shape, compiled. */
export class DirectPlan {
  /** The product. */
  readonly shape: DirectShape;
  /** How it runs. */
  readonly schedule: DirectSchedule;
  readonly #function: CudaFunction;

  /** Takes a compiled kernel; {@linkcode DirectLinear.plans} makes these. */
  constructor(shape: DirectShape, schedule: DirectSchedule, module: CudaModule) {
    this.shape = shape;
    this.schedule = schedule;
    this.#function = module.function("linear_direct");
  }

  /** Enqueues the product. An output has the same bits for every M that takes as many warps. @throws {TypeError} when the gain is missing. @throws {CudaError} */
  run(stream: CudaStream, { weights, x, out, gain, programmatic }: DirectOperands): void {
    const { rows, cols, tokens, output, norm, xStride = cols, outStride = rows } = this.shape;
    if (norm !== undefined && gain === undefined) throw new TypeError("Cannot multiply: wanted the gain of the norm");
    const view = new DataView(new ArrayBuffer(56));
    [weights, x, gain ?? 0n, out].forEach((address, i) => view.setBigUint64(8 * i, address, true));
    [tokens, rows, cols, xStride, outStride].forEach((value, i) => view.setUint32(32 + 4 * i, value, true));
    view.setFloat32(52, norm?.epsilon ?? 0, true);
    const { rowTiles, warps } = this.schedule;
    const rowsOfABlock = ROWS_OF_A_TILE * (output === "swiglu" ? 1 : rowTiles);
    stream.launch(this.#function, {
      grid: [Math.ceil(rows / rowsOfABlock)],
      block: [32 * warps],
      args: [{ bytes: new Uint8Array(view.buffer) }],
      programmatic,
    });
  }
}

/** Makes products for few tokens on one GPU. */
export class DirectLinear {
  readonly #kernels: KernelCache;
  readonly #multiprocessors: number;
  readonly #modules = new Map<string, CudaModule>();

  /** @throws {RangeError} when the GPU is not one that {@linkcode supports} says yes to. */
  constructor(kernels: KernelCache, properties: CudaProperties) {
    if (!DirectLinear.supports(properties)) {
      const { name, major, minor } = properties;
      throw new RangeError(
        `Cannot make direct products: wanted compute capability 9.x, got ${major}.${minor} (${name})`,
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
  plans(shapes: readonly DirectShape[]): readonly DirectPlan[] {
    const wanted = shapes.map((shape) => {
      const schedule = directSchedule(shape, this.#multiprocessors);
      const kernel = directKernel(shape, schedule);
      return { shape, schedule, kernel, key: JSON.stringify(kernel.defines) };
    });
    const missing = new Map(
      wanted.filter(({ key }) => !this.#modules.has(key)).map(({ key, kernel }) => [key, kernel]),
    );
    const modules = this.#kernels.modules([...missing.values()]);
    [...missing.keys()].forEach((key, i) => this.#modules.set(key, modules[i]));
    return wanted.map(({ shape, schedule, key }) => {
      const module = this.#modules.get(key);
      if (module === undefined) throw new ReferenceError(`Cannot plan a product: no kernel ${key}`);
      return new DirectPlan(shape, schedule, module);
    });
  }

  /** One product: see {@linkcode plans}. */
  plan(shape: DirectShape): DirectPlan {
    return this.plans([shape])[0];
  }
}
