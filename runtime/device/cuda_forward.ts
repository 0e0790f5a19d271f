/**
 * The layers of a model on a GPU, but for attention: each method enqueues its kernels.
 *
 * @module
 */
import type { CudaContext, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { EmbedKernel } from "../../kernels/embed/embed_cuda.ts";
import { LogitsKernel } from "../../kernels/logits/logits_cuda.ts";
import { RmsnormKernel } from "../../kernels/rmsnorm/rmsnorm_cuda.ts";
import { RopeKernels } from "../../kernels/rope/rope_cuda.ts";
import { SwigluKernel } from "../../kernels/swiglu/swiglu_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import { DECODE_BUCKETS, LARGEST_BUCKET, productRows } from "./cuda_buckets.ts";
import { type DevicePlan, planAddress } from "./cuda_plan.ts";
import type { CudaPool } from "./cuda_pool.ts";
import { CudaProducts, DETERMINISTIC_ROWS, type TunedProduct } from "./cuda_products.ts";
import type { CudaSkinny, SkinnyProduct } from "./cuda_skinny.ts";
import { type CudaWeights, qkvRows } from "./cuda_weights.ts";

/** Buffers begin at multiples of this. */
const ALIGNMENT = 1024;

/** Fills what products are timed with. */
const TUNING_BYTE = 0x3c;

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
  /** Products of few tokens, where there are kernels for them. */
  readonly skinny?: CudaSkinny;
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
  /** Where attention leaves its result, bf16 [tokens, heads * headDim]. */
  readonly attended: DevicePtr;
  /** Logits, f32 [rows, vocab]. */
  readonly logits: DevicePtr;
  readonly #parts: CudaForwardParts;
  readonly #buffer: DeviceBuffer;
  readonly #places: BufferPlaces;
  readonly #products: CudaProducts;
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
    });
    this.#swiglu = new SwigluKernel(kernels, { intermediate: config.intermediate, input: "bf16" });
    this.#logits = new LogitsKernel(kernels, {
      vocab: config.vocab,
      input: "f32",
      maxRows: productRows(sizes.maxLogitRows),
    });
    this.#places = bufferPlaces(config, { sizes, logitScratch: this.#logits.scratchBytes });
    this.#buffer = opened.use(context.alloc(this.#places.bytes));
    this.#products = opened.use(new CudaProducts(context, { deterministic }));
    this.queries = this.#buffer.at(this.#places.queries);
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
    const { config, weights, pool } = this.#parts;
    const { places, capacity: { tokens } } = plan;
    const count = planAddress(plan, places.tokenCount);
    const block = weights.layers[layer];
    if (this.#skinny(tokens) === undefined) {
      this.#normalize(stream, block.attentionNorm, plan);
      this.#products.run(stream, {
        rows: tokens,
        n: qkvRows(config),
        k: config.hidden,
        out: "bf16",
        add: false,
        a: this.#at("normed"),
        w: block.qkv,
        d: this.#at("qkv"),
      });
    } else {
      this.#normalizedProduct(stream, plan, { matrix: "qkv", layer, gain: block.attentionNorm, out: this.#at("qkv") });
    }
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
    const { config: { hidden, heads, headDim, intermediate }, weights } = this.#parts;
    const { places, capacity: { tokens } } = plan;
    const block = weights.layers[layer];
    const residual = this.#at("residual");
    const skinny = this.#skinny(tokens);
    if (skinny !== undefined) {
      const { overlap } = plan;
      skinny.run(stream, { matrix: "output", layer, tokens, x: this.attended, out: residual, overlap });
      const gated = this.#at("gated");
      this.#normalizedProduct(stream, plan, { matrix: "gateUp", layer, gain: block.mlpNorm, out: gated });
      skinny.run(stream, { matrix: "down", layer, tokens, x: gated, out: residual, overlap });
      return;
    }
    this.#products.run(stream, {
      rows: tokens,
      n: hidden,
      k: heads * headDim,
      out: "f32",
      add: true,
      a: this.attended,
      w: block.output,
      d: residual,
    });
    this.#normalize(stream, block.mlpNorm, plan);
    this.#products.run(stream, {
      rows: tokens,
      n: 2 * intermediate,
      k: hidden,
      out: "bf16",
      add: false,
      a: this.#at("normed"),
      w: block.gateUp,
      d: this.#at("gateUp"),
    });
    this.#swiglu.launch(stream, {
      gateUp: this.#at("gateUp"),
      count: planAddress(plan, places.tokenCount),
      y: this.#at("gated"),
      tokens,
      programmatic: plan.overlap,
    });
    this.#products.run(stream, {
      rows: tokens,
      n: hidden,
      k: intermediate,
      out: "f32",
      add: true,
      a: this.#at("gated"),
      w: block.down,
      d: residual,
    });
  }

  /** Logits of the wanted rows and their summary. */
  head(stream: CudaStream, plan: DevicePlan, { logits, ...summary }: LogitPlaces): void {
    const { config: { hidden, vocab }, weights } = this.#parts;
    const { places, capacity: { tokens, rows } } = plan;
    if (rows === 0) return;
    const count = planAddress(plan, places.rowCount);
    this.#norm.launch(stream, {
      x: this.#at("residual"),
      inputRows: tokens,
      w: weights.outputNorm,
      rows: planAddress(plan, places.rows),
      count,
      y: this.#at("logitInputs"),
      outputRows: rows,
      programmatic: plan.overlap,
    });
    const skinny = this.#skinny(rows);
    if (skinny === undefined) {
      this.#products.run(stream, {
        rows,
        n: vocab,
        k: hidden,
        out: "f32",
        add: false,
        a: this.#at("logitInputs"),
        w: weights.head,
        d: logits,
      });
    } else {
      skinny.run(stream, {
        matrix: "head",
        layer: 0,
        tokens: rows,
        x: this.#at("logitInputs"),
        out: logits,
        overlap: plan.overlap,
      });
    }
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

  /** Chooses the algorithms of the products of few tokens, which take most of a decode step. */
  #tune(stream: CudaStream): void {
    const { config: { hidden, heads, headDim, intermediate, vocab }, weights, sizes } = this.#parts;
    const { layers } = weights;
    const upTo = (most: number) => DECODE_BUCKETS.filter((bucket) => bucket <= most);
    const rows = bufferRows(Math.min(LARGEST_BUCKET, sizes.maxStepTokens));
    const logitRows = bufferRows(Math.min(LARGEST_BUCKET, sizes.maxLogitRows));
    // Any numbers do: bytes of bf16 near 0.01.
    stream.fill(this.#at("normed"), TUNING_BYTE, 2 * rows * hidden);
    stream.fill(this.attended, TUNING_BYTE, 2 * rows * heads * headDim);
    stream.fill(this.#at("gated"), TUNING_BYTE, 2 * rows * intermediate);
    stream.fill(this.#at("logitInputs"), TUNING_BYTE, 2 * logitRows * hidden);
    const rowCounts = upTo(sizes.maxStepTokens);
    const [normed, residual] = [this.#at("normed"), this.#at("residual")];
    const inner = { rowCounts, out: "bf16", add: false, k: hidden, a: normed } as const;
    const added = { rowCounts, out: "f32", add: true, n: hidden, d: residual } as const;
    const products: TunedProduct[] = [
      { ...inner, n: qkvRows(this.#parts.config), d: this.#at("qkv"), weights: layers.map(({ qkv }) => qkv) },
      { ...added, k: heads * headDim, a: this.attended, weights: layers.map(({ output }) => output) },
      { ...inner, n: 2 * intermediate, d: this.#at("gateUp"), weights: layers.map(({ gateUp }) => gateUp) },
      { ...added, k: intermediate, a: this.#at("gated"), weights: layers.map(({ down }) => down) },
      {
        rowCounts: upTo(sizes.maxLogitRows),
        out: "f32",
        add: false,
        n: vocab,
        k: hidden,
        a: this.#at("logitInputs"),
        d: this.logits,
        weights: [weights.head],
      },
    ];
    for (const product of products) this.#products.tune(stream, product);
    stream.fill(residual, 0, 4 * rows * hidden);
    stream.synchronize();
  }

  /** What multiplies so few tokens, when that is not the library. */
  #skinny(tokens: number): CudaSkinny | undefined {
    const { skinny } = this.#parts;
    return skinny?.takes(tokens) ? skinny : undefined;
  }

  /** A norm and the product behind it, in one kernel where that can be. */
  #normalizedProduct(
    stream: CudaStream,
    plan: DevicePlan,
    { gain, ...product }: Pick<SkinnyProduct, "matrix" | "layer" | "out"> & { readonly gain: DevicePtr },
  ): void {
    const { overlap, capacity: { tokens } } = plan;
    const skinny = this.#skinny(tokens);
    if (skinny === undefined) throw new RangeError(`Cannot multiply: ${tokens} tokens are too many for this kernel`);
    if (skinny.norms(tokens)) {
      skinny.run(stream, { ...product, tokens, x: this.#at("residual"), gain, overlap });
    } else {
      this.#normalize(stream, gain, plan);
      skinny.run(stream, { ...product, tokens, x: this.#at("normed"), overlap });
    }
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
