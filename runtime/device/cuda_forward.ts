/**
 * The layers of a model on a GPU, but for attention: each method enqueues its kernels.
 *
 * Longer than other files because every kernel of a layer works on the same buffers, which are made and sized here.
 *
 * @module
 */
import type { CudaContext, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { EmbedKernel } from "../../kernels/embed/embed_cuda.ts";
import { LogitsKernel } from "../../kernels/logits/logits_cuda.ts";
import { RmsnormKernel } from "../../kernels/rmsnorm/rmsnorm_cuda.ts";
import { RopeKernels } from "../../kernels/rope/rope_cuda.ts";
import type { StepPlanKernels } from "../../kernels/step_plan/step_plan_cuda.ts";
import { SwigluKernel } from "../../kernels/swiglu/swiglu_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import { DECODE_BUCKETS, LARGEST_BUCKET, productRows } from "./cuda_buckets.ts";
import type { CudaDirect, DirectMatrix } from "./cuda_direct.ts";
import { CudaLinear } from "./cuda_linear.ts";
import { type CudaMatrix, formOf } from "./cuda_matrix.ts";
import type { CudaPacked } from "./cuda_packed.ts";
import { type DevicePlan, planAddress } from "./cuda_plan.ts";
import type { CudaPool } from "./cuda_pool.ts";
import { CudaProducts, DETERMINISTIC_ROWS, type Product } from "./cuda_products.ts";
import { CudaTimer } from "./cuda_timer.ts";
import { type CudaWeights, qkvRows } from "./cuda_weights.ts";

/** Buffers begin at multiples of this. */
const ALIGNMENT = 1024;

/** Fills what products are timed with. */
const TUNING_BYTE = 0x3c;
/** Tokens of the steps of prompts, whose products are tuned too: the library's first choice for 8192 is up to a fifth slower. */
const LARGE_STEPS = [2048, 4096, 8192] as const;
/** Matrices that a product is timed with. */
const TUNED_MATRICES = 8;

/** Sizes of a device's steps. */
export interface StepSizes {
  /** Most tokens of a step. */
  readonly maxStepTokens: number;
  /** Most rows of logits of a step. */
  readonly maxLogitRows: number;
}

/** What the layers stand on; it stays the caller's. */
export interface CudaForwardParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** Weights. */
  readonly weights: CudaWeights;
  /** Where keys and values go. */
  readonly pool: CudaPool;
  /** Sizes of the steps. */
  readonly sizes: StepSizes;
  /** Whether a row has the same bits whatever rows are beside it. */
  readonly deterministic: boolean;
  /** Products of few tokens, where there are kernels for them; chosen here where they are faster than the library. */
  readonly direct?: CudaDirect;
  /** Products of packed weights; wanted where matrices are kept packed. */
  readonly packed?: CudaPacked;
}

/** Where logits and their summary go. */
export interface LogitPlaces extends SummaryPlaces {
  /** Logits, f32 [rows, vocab], with room for {@linkcode bufferRows} of them. */
  readonly logits: DevicePtr;
}

/** Where the summary of the logits goes. */
export interface SummaryPlaces {
  /** ln sum exp of each row, f32 [rows]. */
  readonly lse: DevicePtr;
  /** Ids of the largest logits of each row, i32 [rows, 64]. */
  readonly ids: DevicePtr;
  /** Those logits, f32 [rows, 64]. */
  readonly top: DevicePtr;
}

/** Where the buffers lie, bytes from the start. */
interface BufferPlaces {
  readonly bytes: number;
  readonly residual: number;
  readonly normed: number;
  readonly qkv: number;
  readonly queries: number;
  readonly attended: number;
  readonly gateUp: number;
  readonly gated: number;
  readonly turns: number;
  readonly frequencies: number;
  readonly logitInputs: number;
  readonly logits: number;
  readonly logitScratch: number;
}

/** Rows that a buffer for `rows` rows has, whichever way products round them up. */
export function bufferRows(rows: number): number {
  return Math.ceil(productRows(rows) / DETERMINISTIC_ROWS) * DETERMINISTIC_ROWS;
}

function bufferPlaces(
  config: ModelConfig,
  { sizes, logitScratch }: { readonly sizes: StepSizes; readonly logitScratch: number },
): BufferPlaces {
  const { hidden, heads, headDim, intermediate, vocab, rope } = config;
  const rows = bufferRows(sizes.maxStepTokens);
  const logitRows = bufferRows(sizes.maxLogitRows);
  let next = 0;
  const take = (bytes: number): number => {
    const at = next;
    next = Math.ceil((next + bytes) / ALIGNMENT) * ALIGNMENT;
    return at;
  };
  const places = {
    residual: take(4 * rows * hidden),
    normed: take(2 * rows * hidden),
    qkv: take(2 * rows * qkvRows(config)),
    queries: take(2 * rows * heads * headDim),
    attended: take(2 * rows * heads * headDim),
    gateUp: take(4 * rows * intermediate),
    gated: take(2 * rows * intermediate),
    turns: take(4 * rows * rope.dimensions),
    frequencies: take(8 * rope.inverseFrequencies.length),
    logitInputs: take(2 * logitRows * hidden),
    logits: take(4 * logitRows * vocab),
    logitScratch: take(logitScratch),
  };
  return { ...places, bytes: next };
}

/** Bytes of the buffers of a device's steps, without the kernels' scratch memory, which is small beside them. */
export function forwardBytes(config: ModelConfig, sizes: StepSizes): number {
  return bufferPlaces(config, { sizes, logitScratch: 0 }).bytes;
}

/** Runs the layers. */
export class CudaForward implements Disposable {
  /** Queries of the current layer, bf16 [tokens, heads * headDim], rotated. */
  readonly queries: DevicePtr;
  /** Residual stream of the step's tokens, f32 [tokens, hidden]. */
  readonly residual: DevicePtr;
  /** Where attention leaves its result, bf16 [tokens, heads * headDim]. */
  readonly attended: DevicePtr;
  /** Logits, f32 [rows, vocab]. */
  readonly logits: DevicePtr;
  readonly #parts: CudaForwardParts;
  readonly #buffer: DeviceBuffer;
  readonly #places: BufferPlaces;
  readonly #linear: CudaLinear;
  readonly #embed: EmbedKernel;
  readonly #norm: RmsnormKernel;
  readonly #rope: RopeKernels;
  readonly #swiglu: SwigluKernel;
  readonly #logits: LogitsKernel;
  readonly #opened: DisposableStack;

  /** Takes the buffers and compiles or finds the kernels. @throws {CudaError} when there is not enough memory. */
  constructor(parts: CudaForwardParts) {
    const { context, kernels, config, sizes, deterministic } = parts;
    using opened = new DisposableStack();
    this.#parts = parts;
    this.#embed = new EmbedKernel(kernels, config);
    this.#norm = new RmsnormKernel(kernels, { hidden: config.hidden, eps: config.normEps });
    const { rope } = config;
    this.#rope = new RopeKernels(kernels, {
      ...config,
      pairs: rope.dimensions / 2,
      pairing: rope.pairing,
      magnitude: rope.magnitude,
      input: "bf16",
      kvType: parts.pool.kvType,
    });
    this.#swiglu = new SwigluKernel(kernels, { intermediate: config.intermediate, input: "bf16" });
    this.#logits = new LogitsKernel(kernels, {
      vocab: config.vocab,
      input: "f32",
      maxRows: productRows(sizes.maxLogitRows),
    });
    this.#places = bufferPlaces(config, { sizes, logitScratch: this.#logits.scratchBytes });
    this.#buffer = opened.use(context.alloc(this.#places.bytes));
    const products = opened.use(new CudaProducts(context, { deterministic }));
    this.#linear = new CudaLinear({ products, direct: parts.direct, packed: parts.packed });
    this.queries = this.#buffer.at(this.#places.queries);
    this.residual = this.#at("residual");
    this.attended = this.#buffer.at(this.#places.attended);
    this.logits = this.#buffer.at(this.#places.logits);
    using stream = context.stream();
    // Rows that no token fills go through products too; they may hold anything but what slows arithmetic down.
    stream.fill(this.#buffer.address, 0, this.#places.bytes);
    stream.copyToDevice(
      this.#buffer.at(this.#places.frequencies),
      new Uint8Array(Float64Array.from(rope.inverseFrequencies).buffer),
    );
    stream.synchronize();
    this.#tune(stream);
    this.#opened = opened.move();
  }

  /** Multiply-accumulates of one layer of a step of so many tokens, without attention. */
  layerWork(tokens: number): number {
    const { hidden, heads, kvHeads, headDim, intermediate } = this.#parts.config;
    return tokens * hidden * (2 * (heads + kvHeads) * headDim + 3 * intermediate);
  }

  /** Fills the residual stream of the step's tokens, and what all layers share. */
  begin(stream: CudaStream, plan: DevicePlan): void {
    const { places, capacity: { tokens } } = plan;
    const count = planAddress(plan, places.tokenCount);
    this.#embed.launch(stream, {
      ids: planAddress(plan, places.tokens),
      count,
      table: this.#parts.weights.embedding,
      x: this.#at("residual"),
      tokens,
      programmatic: plan.overlap,
    });
    this.#rope.makeTable(stream, {
      positions: planAddress(plan, places.positions),
      count,
      inverseFrequencies: this.#at("frequencies"),
      turns: this.#at("turns"),
      tokens,
      programmatic: plan.overlap,
    });
  }

  /** Makes the layer's queries, and puts its keys and values into the pool. */
  project(stream: CudaStream, layer: number, plan: DevicePlan): void {
    const { weights, pool } = this.#parts;
    const { places, capacity: { tokens } } = plan;
    const count = planAddress(plan, places.tokenCount);
    const block = weights.layers[layer];
    this.#multiplyNormed(stream, plan, { matrix: "qkv", gain: block.attentionNorm, weights: block.qkv });
    const { layer: address, blockBytes } = pool.layer(layer);
    this.#rope.append(stream, {
      qkv: this.#at("qkv"),
      bias: block.qkvBias,
      turns: this.#at("turns"),
      positions: planAddress(plan, places.positions),
      sequences: planAddress(plan, places.tables),
      tables: plan.tables,
      maxBlocks: plan.tableWidth,
      count,
      q: this.queries,
      pool: address,
      blockBytes,
      blocks: pool.blocks,
      tokens,
      programmatic: plan.overlap,
    });
  }

  /** Output projection and MLP of a layer whose attention is done. */
  finish(stream: CudaStream, layer: number, plan: DevicePlan): void {
    const { tokens } = plan.capacity;
    const block = this.#parts.weights.layers[layer];
    this.#multiply(stream, plan, { matrix: "output", tokens, weights: block.output });
    this.#multiplyNormed(stream, plan, { matrix: "gateUp", gain: block.mlpNorm, weights: block.gateUp });
    this.#multiply(stream, plan, { matrix: "down", tokens, weights: block.down });
  }

  /**
   * Brings the tokens whose logits are wanted to the front, once the last attention is done: what comes behind needs no
   * others. Nothing is done where these are most of the tokens.
   *
   * @returns the plan of the rest.
   */
  keepWanted(stream: CudaStream, plan: DevicePlan, kernels: StepPlanKernels): DevicePlan {
    const { capacity, places } = plan;
    const { hidden, heads, headDim } = this.#parts.config;
    const { rows } = capacity;
    const kept = productRows(rows);
    if (rows === 0 || 2 * kept > capacity.tokens) return plan;
    const tokens = planAddress(plan, places.rows);
    // A row of the residual stream is twice as many values of 16 bits.
    const moves = [
      { from: this.residual, by: this.#at("normed"), width: 2 * hidden },
      { from: this.attended, by: this.#at("qkv"), width: heads * headDim },
    ];
    for (const { from, by, width } of moves) {
      kernels.queriesGather(stream, { q: from, tokens, out: by, rows, width });
      stream.copy(from, by, 2 * rows * width);
    }
    return {
      ...plan,
      capacity: { ...capacity, tokens: kept },
      places: { ...places, tokenCount: places.rowCount },
      wantedFirst: true,
    };
  }

  /** Logits of the wanted rows and their summary. */
  head(stream: CudaStream, plan: DevicePlan, { logits, ...summary }: LogitPlaces): void {
    const { weights } = this.#parts;
    const { places, capacity: { tokens, rows } } = plan;
    if (rows === 0) return;
    const count = planAddress(plan, places.rowCount);
    this.#norm.launch(stream, {
      x: this.#at("residual"),
      inputRows: tokens,
      w: weights.outputNorm,
      rows: plan.wantedFirst ? undefined : planAddress(plan, places.rows),
      count,
      y: this.#at("logitInputs"),
      outputRows: rows,
      programmatic: plan.overlap,
    });
    this.#multiply(stream, plan, { matrix: "head", tokens: rows, weights: weights.head, d: logits });
    this.#logits.launch(stream, {
      logits,
      count,
      scratch: this.#at("logitScratch"),
      ...summary,
      rows,
      programmatic: plan.overlap,
    });
  }

  /** Frees the buffers. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  /** Sizes of a product, and where its operands lie. */
  #operands(matrix: DirectMatrix): Omit<Product, "rows" | "w"> {
    const { config } = this.#parts;
    const { hidden, heads, headDim, intermediate, vocab } = config;
    const inner = { out: "bf16", add: false, k: hidden, a: this.#at("normed") } as const;
    const added = { out: "f32", add: true, n: hidden, d: this.#at("residual") } as const;
    switch (matrix) {
      case "qkv":
        return { ...inner, n: qkvRows(config), d: this.#at("qkv") };
      case "output":
        return { ...added, k: heads * headDim, a: this.attended };
      case "gateUp":
        return { ...inner, n: 2 * intermediate, d: this.#at("gateUp") };
      case "down":
        return { ...added, k: intermediate, a: this.#at("gated") };
      case "head":
        return { out: "f32", add: false, n: vocab, k: hidden, a: this.#at("logitInputs"), d: this.logits };
      default:
        return matrix satisfies never;
    }
  }

  /** A norm of the residual stream and the product behind it, as one kernel where that was chosen. */
  #multiplyNormed(
    stream: CudaStream,
    plan: DevicePlan,
    { matrix, gain, weights }: {
      readonly matrix: "qkv" | "gateUp";
      readonly gain: DevicePtr;
      readonly weights: CudaMatrix<DevicePtr>;
    },
  ): void {
    const { overlap, capacity: { tokens } } = plan;
    const out = this.#at(matrix === "gateUp" ? "gated" : "qkv");
    const product = { matrix, tokens, weights, x: this.#at("residual"), gain, out, overlap };
    if (this.#linear.tryNormed(stream, product)) return;
    this.#normalize(stream, gain, plan);
    this.#multiply(stream, plan, { matrix, tokens, weights });
  }

  /** A product of a step and, behind gate and up, the activation, by whichever kernel was chosen. */
  #multiply(
    stream: CudaStream,
    plan: DevicePlan,
    { matrix, tokens, weights, d }: {
      readonly matrix: DirectMatrix;
      readonly tokens: number;
      readonly weights: CudaMatrix<DevicePtr>;
      readonly d?: DevicePtr;
    },
  ): void {
    const given = this.#operands(matrix);
    const operands = { ...given, d: d ?? given.d };
    const product = { matrix, tokens, weights, operands, gated: this.#at("gated"), overlap: plan.overlap };
    const activated = this.#linear.run(stream, product);
    if (matrix === "gateUp" && !activated) this.#activate(stream, plan);
  }

  #activate(stream: CudaStream, plan: DevicePlan): void {
    const { overlap, places, capacity: { tokens } } = plan;
    this.#swiglu.launch(stream, {
      gateUp: this.#at("gateUp"),
      count: planAddress(plan, places.tokenCount),
      y: this.#at("gated"),
      tokens,
      programmatic: overlap,
    });
  }

  /**
   * Chooses what computes the products, which take most of a step: the fastest of the library's algorithms, or, for few
   * tokens, a kernel of our own.
   */
  #tune(stream: CudaStream): void {
    const { context, weights, sizes, deterministic } = this.#parts;
    if (deterministic) return;
    using timer = new CudaTimer(context, stream);
    // Any numbers do: bytes of bf16 near 0.01.
    stream.fill(this.#buffer.address, TUNING_BYTE, this.#places.frequencies);
    stream.fill(this.#at("logitInputs"), TUNING_BYTE, this.#places.logits - this.#places.logitInputs);
    for (const matrix of ["qkv", "output", "gateUp", "down", "head"] as const) {
      const all = matrix === "head" ? [weights.head] : weights.layers.map((layer) => layer[matrix]);
      const most = matrix === "head" ? sizes.maxLogitRows : sizes.maxStepTokens;
      const shared = {
        matrix,
        operands: this.#operands(matrix),
        x: this.#at("residual"),
        gain: weights.layers[0].attentionNorm,
      };
      for (const tokens of [...DECODE_BUCKETS, ...LARGE_STEPS].filter((tokens) => tokens <= most)) {
        // Many tokens take long and do not hang on where the weights come from.
        const count = tokens <= LARGEST_BUCKET ? TUNED_MATRICES : 1;
        for (const matrices of Map.groupBy(all, formOf).values()) {
          this.#linear.tune(stream, timer, { ...shared, tokens, matrices: matrices.slice(0, count) });
        }
      }
    }
    stream.fill(this.#buffer.address, 0, this.#places.frequencies);
    stream.synchronize();
  }

  #normalize(stream: CudaStream, w: DevicePtr, plan: DevicePlan): void {
    const { places, capacity: { tokens } } = plan;
    this.#norm.launch(stream, {
      x: this.#at("residual"),
      inputRows: tokens,
      w,
      count: planAddress(plan, places.tokenCount),
      y: this.#at("normed"),
      outputRows: tokens,
      programmatic: plan.overlap,
    });
  }

  #at(buffer: Exclude<keyof BufferPlaces, "bytes">): DevicePtr {
    return this.#buffer.at(this.#places[buffer]);
  }
}
