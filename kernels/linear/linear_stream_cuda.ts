/**
 * Launches `linear_stream.cu`: products of up to 64 tokens that run at the speed of reading the weights.
 *
 * @module
 */
import type {
  CudaContext,
  CudaFunction,
  CudaModule,
  CudaProperties,
  CudaStream,
  DevicePtr,
} from "../../ffi/cuda/cuda.ts";
import type { CudaKernel } from "../cuda/compile.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import type { LinearOutput } from "./linear_direct_cuda.ts";
import source from "./linear_stream.cu" with { type: "text" };

/** One product out[M, N] (+)= x[M, K] w[N, K]ᵀ of bf16 weights. */
export interface StreamShape {
  /** N, outputs of a token. The weights are [N, K]; for `swiglu` gate and up, one behind the other: [2N, K]. */
  readonly rows: number;
  /** K, a multiple of 8. */
  readonly cols: number;
  /** M, at most {@linkcode MAX_STREAM_TOKENS}. */
  readonly tokens: number;
  /** What it leaves. */
  readonly output: LinearOutput;
  /** Values between two rows of x, a multiple of 8. @default {K} */
  readonly xStride?: number;
  /** Values between two rows of the output. @default {N} */
  readonly outStride?: number;
}

/** Where the operands of one launch lie, aligned to 16 bytes. */
export interface StreamOperands {
  /** Weights, row-major. */
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

/** Most tokens of a product. */
export const MAX_STREAM_TOKENS = 64;

/** How a kernel divides the work; the order of summation does not depend on it. */
export interface StreamSchedule {
  /** Padded tokens. */
  readonly padded: number;
  /** Warpgroups that multiply. */
  readonly warpgroups: number;
  /** Pieces of a warpgroup; two for `swiglu`, gate and up. */
  readonly pieces: number;
  /** Rows of a piece, at most 64. */
  readonly pieceRows: number;
  /** Pieces of weights that shared memory holds, a multiple of a tile's pieces. */
  readonly weightSlots: number;
  /** Chunks of inputs that it holds. */
  readonly inputSlots: number;
  /** 64 columns times this are a chunk. */
  readonly atoms: number;
  /** Pieces of weights of a block that are still to be asked for when the next kernel may begin. */
  readonly releaseAhead: number;
  /** Blocks of a launch on a multiprocessor, at most. */
  readonly blocks: number;
}

/** What a schedule may be asked for. */
export type StreamChoice =
  & Partial<Pick<StreamSchedule, "pieceRows" | "atoms">>
  & {
    /** Pieces of a tile. */
    readonly tilePieces?: number;
    /** Tiles of a multiprocessor. */
    readonly waves?: number;
    /**
     * Blocks of a multiprocessor that shared memory leaves room for. With 2 one's weights arrive while another ends, also
     * of the next product. @default {1}
     */
    readonly resident?: 1 | 2;
  };

/** Schedules worth timing, by name. */
export const STREAM_CHOICES = { stream: {}, streamPairs: { resident: 2 } } as const satisfies Record<
  string,
  StreamChoice
>;

/** One of {@linkcode STREAM_CHOICES}. */
export type StreamKind = keyof typeof STREAM_CHOICES;

/** Rows of the tensor cores' operand. */
const OPERAND_ROWS = 64;
/** A row of the tensor cores' swizzled operand. */
const ATOM_ROW_BYTES = 128;
const MAX_PIECES = 4;
const MAX_SLOTS = 32;
/** Barriers of both rings. */
const BARRIER_BYTES = 4 * 8 * MAX_SLOTS;
/** Chunks of inputs that are held at least. */
const MIN_INPUT_SLOTS = 3;
/** What a block can have, alone on a multiprocessor and with another: the system takes 1 KB of each. */
const SHARED_BYTES = { 1: 227 * 1024, 2: 113 * 1024 } as const;
const OUTPUT_CODE: Readonly<Record<LinearOutput, number>> = { bf16: 0, f32: 1, add: 2, swiglu: 3 };
const ARGUMENT_BYTES = 320;
const EXTRA_THREADS = 64;

function checkShape({ rows, cols, tokens, xStride = cols, outStride = rows }: StreamShape): void {
  const positive = (value: number) => Number.isSafeInteger(value) && value > 0;
  const wrong = !positive(rows)
    ? `axis N (rows) must be a positive integer, got ${rows}`
    : !positive(cols) || cols % 8 !== 0
    ? `axis K (cols) must be a positive multiple of 8, got ${cols}`
    : !positive(tokens) || tokens > MAX_STREAM_TOKENS
    ? `axis M (tokens) must be 1 to ${MAX_STREAM_TOKENS}, got ${tokens}`
    : xStride < cols || xStride % 8 !== 0
    ? `xStride must be a multiple of 8 of at least ${cols}, got ${xStride}`
    : outStride < rows
    ? `outStride must be at least ${rows}, got ${outStride}`
    : undefined;
  if (wrong !== undefined) throw new RangeError(`Cannot plan a product: ${wrong}`);
}

/**
 * Chooses the schedule of a product on a GPU with `multiprocessors`.
 *
 * @throws {RangeError} when a size is out of range; names it.
 */
export function streamSchedule(
  shape: StreamShape,
  multiprocessors: number,
  choice: StreamChoice = {},
): StreamSchedule {
  checkShape(shape);
  const { rows, tokens, output } = shape;
  const { resident = 1, atoms = resident === 1 ? 4 : 2 } = choice;
  const padded = [8, 16, 32].find((size) => tokens <= size) ?? MAX_STREAM_TOKENS;
  const pair = output === "swiglu";
  const share = (pair ? 2 * rows : rows) / multiprocessors;
  const tilePieces = choice.tilePieces ?? (pair || (resident === 1 && share > OPERAND_ROWS) ? 2 : 1);
  const waves = choice.waves ?? Math.ceil(share / (tilePieces * OPERAND_ROWS));
  const pieceRows = choice.pieceRows ?? Math.min(OPERAND_ROWS, Math.ceil(share / waves / tilePieces));
  const pieces = pair || tilePieces === MAX_PIECES ? 2 : 1;
  // Inputs come late, when the predecessor has ended: they want to be asked for as far ahead as the weights that wait.
  const inputSlotsOf = (slots: number): number =>
    Math.min(MAX_SLOTS, Math.max(MIN_INPUT_SLOTS, slots / tilePieces + (tilePieces === 1 ? 1 : 0)));
  const fits = (slots: number): boolean =>
    streamSharedBytes({ pieceRows, padded, atoms, weightSlots: slots, inputSlots: inputSlotsOf(slots) }) <=
      SHARED_BYTES[resident];
  // A slot serves one warpgroup only.
  let weightSlots = MAX_SLOTS - MAX_SLOTS % tilePieces;
  while (weightSlots > tilePieces && !fits(weightSlots)) weightSlots -= tilePieces;
  const inputSlots = inputSlotsOf(weightSlots);
  return {
    padded,
    warpgroups: tilePieces / pieces,
    pieces,
    pieceRows,
    weightSlots,
    inputSlots,
    atoms,
    releaseAhead: weightSlots,
    blocks: resident,
  };
}

/** Shared memory of a piece: groups of eight rows. */
function slotBytes({ pieceRows, atoms }: Pick<StreamSchedule, "pieceRows" | "atoms">): number {
  return Math.ceil(pieceRows / 8) * 8 * ATOM_ROW_BYTES * atoms;
}

/** Shared memory of a block. */
export function streamSharedBytes(
  { pieceRows, padded, atoms, weightSlots, inputSlots }: Pick<
    StreamSchedule,
    "pieceRows" | "padded" | "atoms" | "weightSlots" | "inputSlots"
  >,
): number {
  const inputs = Math.max(
    inputSlots * padded * ATOM_ROW_BYTES * atoms,
    OPERAND_ROWS * ATOM_ROW_BYTES - slotBytes({ pieceRows, atoms: 1 }),
  );
  return weightSlots * slotBytes({ pieceRows, atoms }) + inputs + BARRIER_BYTES;
}

/** Tiles of rows of a product. */
function tilesOf({ rows, output }: StreamShape, { warpgroups, pieces, pieceRows }: StreamSchedule): number {
  return Math.ceil(rows / (pieceRows * warpgroups * (output === "swiglu" ? 1 : pieces)));
}

/** The kernel of a product, for compiling it with others. */
export function streamKernel({ output }: StreamShape, schedule: StreamSchedule): CudaKernel {
  const { padded, warpgroups, pieces, atoms } = schedule;
  return {
    name: "linear_stream",
    source,
    defines: {
      TOKENS: padded,
      OUTPUT: OUTPUT_CODE[output],
      WARPGROUPS: warpgroups,
      PIECES: pieces,
      ATOMS: atoms,
    },
  };
}

/** A product of one shape, compiled. */
export class StreamPlan {
  /** The product. */
  readonly shape: StreamShape;
  /** How it runs. */
  readonly schedule: StreamSchedule;
  readonly #context: CudaContext;
  readonly #function: CudaFunction;
  readonly #grid: number;
  readonly #maps = new Map<string, Uint8Array<ArrayBuffer>>();

  /** Takes a compiled kernel; {@linkcode StreamLinear.plans} makes these. */
  constructor(
    { shape, schedule, context, module }: {
      readonly shape: StreamShape;
      readonly schedule: StreamSchedule;
      readonly context: CudaContext;
      readonly module: CudaModule;
    },
  ) {
    this.shape = shape;
    this.schedule = schedule;
    this.#context = context;
    this.#function = module.function("linear_stream");
    // Products that share a kernel may want different amounts.
    this.#function.setSharedBytes(SHARED_BYTES[1]);
    this.#function.preferShared();
    this.#grid = Math.min(context.properties.multiprocessors * schedule.blocks, tilesOf(shape, schedule));
  }

  /** Enqueues the product. An output has the same bits for every M. @throws {CudaError} */
  run(stream: CudaStream, { weights, x, out, programmatic }: StreamOperands): void {
    const { rows, cols, tokens, output, xStride = cols, outStride = rows } = this.shape;
    const { padded, warpgroups, pieceRows, weightSlots, inputSlots, releaseAhead } = this.schedule;
    const bytes = new Uint8Array(ARGUMENT_BYTES);
    const view = new DataView(bytes.buffer);
    bytes.set(
      this.#map({
        address: weights,
        rows: output === "swiglu" ? 2 * rows : rows,
        columns: cols,
        rowBytes: 2 * cols,
        boxRows: pieceRows,
      }),
      0,
    );
    bytes.set(this.#map({ address: x, rows: tokens, columns: cols, rowBytes: 2 * xStride, boxRows: padded }), 128);
    view.setBigUint64(256, out, true);
    const tiles = tilesOf(this.shape, this.schedule);
    [tokens, rows, cols, outStride, pieceRows, tiles, weightSlots, inputSlots, releaseAhead].forEach(
      (value, i) => view.setUint32(264 + 4 * i, value, true),
    );
    stream.launch(this.#function, {
      grid: [this.#grid],
      block: [128 * warpgroups + EXTRA_THREADS],
      sharedBytes: streamSharedBytes(this.schedule),
      args: [{ bytes }],
      programmatic,
    });
  }

  #map(options: Parameters<CudaContext["tensorMap"]>[0]): Uint8Array<ArrayBuffer> {
    const key = `${options.address} ${options.boxRows}`;
    const known = this.#maps.get(key) ?? this.#context.tensorMap(options);
    this.#maps.set(key, known);
    return known;
  }
}

/** Makes products of up to 64 tokens on one GPU. */
export class StreamLinear {
  readonly #context: CudaContext;
  readonly #kernels: KernelCache;
  readonly #modules = new Map<string, CudaModule>();

  /** @throws {RangeError} when the GPU is not one that {@linkcode supports} says yes to. */
  constructor(context: CudaContext, kernels: KernelCache) {
    const { properties } = context;
    if (!StreamLinear.supports(properties)) {
      const { name, major, minor } = properties;
      throw new RangeError(
        `Cannot make streamed products: wanted compute capability 9.0, got ${major}.${minor} (${name})`,
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
   * @throws {RangeError} when a shape is out of range. @throws {CudaError} when a kernel does not compile.
   */
  plans(shapes: readonly StreamShape[], choice?: StreamChoice): readonly StreamPlan[] {
    const wanted = shapes.map((shape) => {
      const schedule = streamSchedule(shape, this.#context.properties.multiprocessors, choice);
      const kernel = streamKernel(shape, schedule);
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
      return new StreamPlan({ shape, schedule, context: this.#context, module });
    });
  }

  /** One product: see {@linkcode plans}. */
  plan(shape: StreamShape, choice?: StreamChoice): StreamPlan {
    return this.plans([shape], choice)[0];
  }
}
