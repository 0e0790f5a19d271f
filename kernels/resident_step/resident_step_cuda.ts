/**
 * Launches `resident_step.cu`.
 *
 * @module
 */
import type { CudaContext, CudaFunction, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import type { ResidentLayout } from "./resident_layout.ts";
import source from "./resident_step.cu" with { type: "text" };

/** Bytes of the kernel's argument. */
const STEP_BYTES = 136;
/** Places in it, bytes. */
const AT = { addresses: 0, blocks: 112, tableWidth: 116, epsilon: 120, scale: 124, magnitude: 128 } as const;
/** Addresses of a layer's weights. */
const LAYER_ADDRESSES = 6;
/** A byte of a word that has not arrived. */
const EMPTY_BYTE = 0xff;

/** Addresses of the weights of one layer: bf16 matrices [out, in], f32 vectors. */
export interface ResidentLayer {
  /** [hidden] */
  readonly attentionNorm: DevicePtr;
  /** [(heads + 2 kvHeads) headDim, hidden]: query, key, value. */
  readonly qkv: DevicePtr;
  /** [hidden, heads headDim] */
  readonly output: DevicePtr;
  /** [hidden] */
  readonly mlpNorm: DevicePtr;
  /** [2 intermediate, hidden]: gate, up. */
  readonly gateUp: DevicePtr;
  /** [hidden, intermediate] */
  readonly down: DevicePtr;
}

/** What a kernel is made of; all of it stays the caller's. */
export interface ResidentParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Sizes. */
  readonly layout: ResidentLayout;
  /** Weights. */
  readonly layers: readonly ResidentLayer[];
  /** bf16 [vocab, hidden] */
  readonly embedding: DevicePtr;
  /** Added to the mean square in norms. */
  readonly normEps: number;
  /** Radians per token of each pair. */
  readonly inverseFrequencies: Float64Array;
  /** Factor on cosine and sine. */
  readonly magnitude: number;
}

/** Arrays of one launch, on the device. */
export interface ResidentWork {
  /** Ids of the tokens, i32 [tokens]. */
  readonly ids: DevicePtr;
  /** Their positions, u32 [tokens]. */
  readonly positions: DevicePtr;
  /** Their tables, i32 [tokens]; a sequence has at most one token. */
  readonly sequences: DevicePtr;
  /** How many tokens there are, one u32. */
  readonly count: DevicePtr;
  /** Block tables, i32 [sequences, tableWidth]. */
  readonly tables: DevicePtr;
  /** Entries of a table. */
  readonly tableWidth: number;
  /** The first layer of the pool, bf16. */
  readonly pool: DevicePtr;
  /** Bytes from a layer to the next. */
  readonly layerBytes: number;
  /** Bytes from a block to the next. */
  readonly blockBytes: number;
  /** Blocks. */
  readonly blocks: number;
  /** Residual stream behind the last layer, f32 [tokens, hidden]; rows from `count` on stay as they are. */
  readonly residual: DevicePtr;
}

/** The layers of a decode step as one kernel; launches must follow each other. */
export class ResidentStepKernel implements Disposable {
  readonly #function: CudaFunction;
  readonly #parts: ResidentParts;
  readonly #layers: DeviceBuffer;
  readonly #frequencies: DeviceBuffer;
  readonly #exchange: DeviceBuffer;
  readonly #steps: DeviceBuffer;
  readonly #opened: DisposableStack;

  /** Compiles or finds it and takes its memory. @throws {CudaError} when there is not enough. */
  constructor(parts: ResidentParts) {
    const { context, kernels, layout, layers, inverseFrequencies } = parts;
    const { shape } = layout;
    using opened = new DisposableStack();
    this.#parts = parts;
    const module = kernels.module({
      name: "resident_step",
      source,
      defines: {
        HIDDEN: shape.hidden,
        HEADS: shape.heads,
        KV_HEADS: shape.kvHeads,
        HEAD_DIM: shape.headDim,
        INTERMEDIATE: shape.intermediate,
        LAYERS: shape.layers,
        VOCAB: shape.vocab,
        PAIRS: shape.pairs,
        HALVES: shape.pairing === "halves" ? 1 : 0,
        TOKENS: shape.tokens,
        PARTS: layout.parts,
        WARPS: layout.warps,
        SLOTS: layout.slots,
        SHARED_BYTES: layout.sharedBytes,
        EXCHANGE_BYTES: layout.exchangeBytes,
      },
    });
    this.#function = module.function("resident_step");
    this.#function.setSharedBytes(layout.sharedBytes);
    const addresses = layers.flatMap((layer) => [
      layer.attentionNorm,
      layer.qkv,
      layer.output,
      layer.mlpNorm,
      layer.gateUp,
      layer.down,
    ]);
    this.#layers = opened.use(context.alloc(8 * LAYER_ADDRESSES * layers.length));
    this.#frequencies = opened.use(context.alloc(Math.max(inverseFrequencies.byteLength, 8)));
    this.#exchange = opened.use(context.alloc(layout.exchangeBytes));
    this.#steps = opened.use(context.alloc(4));
    using stream = context.stream();
    stream.copyToDevice(this.#layers.address, new Uint8Array(BigUint64Array.from(addresses).buffer));
    stream.copyToDevice(this.#frequencies.address, new Uint8Array(inverseFrequencies.slice().buffer));
    stream.fill(this.#exchange.address, EMPTY_BYTE, layout.exchangeBytes);
    stream.fill(this.#steps.address, 0, 4);
    stream.synchronize();
    this.#opened = opened.move();
  }

  /** Enqueues a step. */
  launch(stream: CudaStream, work: ResidentWork): void {
    const { layout, embedding, normEps, magnitude } = this.#parts;
    const bytes = new Uint8Array(STEP_BYTES);
    const view = new DataView(bytes.buffer);
    const addresses = [
      this.#layers.address,
      embedding,
      work.ids,
      work.positions,
      work.sequences,
      work.count,
      work.tables,
      this.#frequencies.address,
      work.pool,
      BigInt(work.layerBytes),
      BigInt(work.blockBytes),
      this.#exchange.address,
      this.#steps.address,
      work.residual,
    ];
    addresses.forEach((address, index) => view.setBigUint64(AT.addresses + 8 * index, address, true));
    view.setUint32(AT.blocks, work.blocks, true);
    view.setUint32(AT.tableWidth, work.tableWidth, true);
    view.setFloat32(AT.epsilon, normEps, true);
    view.setFloat32(AT.scale, 1 / Math.sqrt(layout.shape.headDim), true);
    view.setFloat32(AT.magnitude, magnitude, true);
    stream.launch(this.#function, {
      grid: [layout.ctas],
      block: [32 * (layout.warps + 1)],
      sharedBytes: layout.sharedBytes,
      args: [{ bytes }],
      cooperative: true,
    });
  }

  /** Frees its memory. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }
}
