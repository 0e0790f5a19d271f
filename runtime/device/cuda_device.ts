/**
 * The CUDA device: a model in the memory of one GPU, compiled kernels, captured steps.
 *
 * Longer than other files because everything a device owns is opened, and freed, in one order here.
 *
 * @module
 */
import { CudaContext, type CudaLibraries } from "../../ffi/cuda/cuda.ts";
import { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { KV_ELEMENT_BYTES, type KvType } from "../../kernels/dtype.ts";
import { PackedLinear } from "../../kernels/linear/linear_packed_cuda.ts";
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import { WeightKernels } from "../../kernels/weight_bf16/weight_bf16_cuda.ts";
import type { ModelConfig, OpenModel } from "../model/model.ts";
import { checkBatch, checkBlock, checkBlockBytes, checkWhole } from "./batch_check.ts";
import { CheckedStep, complete, type StepRunner } from "./checked_step.ts";
import { CudaAttention } from "./cuda_attention.ts";
import { DECODE_BUCKETS, LARGEST_BUCKET } from "./cuda_buckets.ts";
import { CudaForward, forwardBytes, type StepSizes } from "./cuda_forward.ts";
import { CudaKvStore } from "./cuda_kv_store.ts";
import { tellLoss } from "./cuda_loss.ts";
import { keptForm, type WeightForm } from "./cuda_kept.ts";
import type { KeptForm } from "./cuda_matrix.ts";
import { cudaBlocks, DEFAULT_MEMORY_UTILIZATION } from "./cuda_memory.ts";
import { CudaPacked } from "./cuda_packed.ts";
import { checkCudaPool, cudaBlockBytes, type CudaPool } from "./cuda_pool.ts";
import { CudaDirect } from "./cuda_direct.ts";
import { CudaResident } from "./cuda_resident.ts";
import { CudaSteps } from "./cuda_step.ts";
import { cudaStepTokens } from "./cuda_step_tokens.ts";
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import { enqueueDecodeLayers, type StepTimes } from "./cuda_whole.ts";
import {
  CudaWeights,
  type CudaWeightsOptions,
  type StoredTypes,
  storedTypes,
  type WeightVariant,
} from "./cuda_weights.ts";
import type {
  AttendRange,
  Device,
  DeviceInfo,
  DeviceOptions,
  DeviceStep,
  KvLayout,
  NodePartial,
  NodeWork,
  StepHints,
  StepOutput,
  StepSequence,
} from "./device.ts";
import { layoutOf } from "./kv_layout.ts";
import { sequenceNodes } from "./step_nodes.ts";

/** Rows of logits of a step when nothing is asked for. */
const DEFAULT_LOGIT_ROWS = 256;
/** Sequences of the model's full context beyond which a pool that is sized by memory does not grow. */
const MOST_CONTEXTS = 1024;

/** How to open a CUDA device. Blocks have 64 tokens, keys and values are bf16 or fp8; other wishes are refused. */
export interface CudaDeviceOptions extends Omit<DeviceOptions, "blocks"> {
  /** KV blocks in the pool. @default {what memory allows, see `memoryUtilization`} */
  readonly blocks?: number;
  /** Number of the GPU. @default {0} */
  readonly ordinal?: number;
  /** Share of the GPU's memory that this process may use, when `blocks` is left out. @default {0.9} */
  readonly memoryUtilization?: number;
  /** Where the CUDA libraries are. @default {they are searched for} */
  readonly libraries?: CudaLibraries;
  /**
   * Gives a sequence the same bits whatever else is in the step and however its tokens were cut into steps: slower.
   *
   * @default {false}
   */
  readonly deterministic?: boolean;
  /** Whether few tokens are multiplied by kernels of our own where they are faster than the library's. @default {true} */
  readonly direct?: boolean;
  /**
   * Whether the layers of small decode steps run as one kernel: where that is faster and pays, wherever it can, or never. Never in
   * deterministic mode. At most one device of a process may have it on a GPU: two such steps at the same time may wait for
   * each other for ever. @default {"never"}
   */
  readonly resident?: "faster" | "always" | "never";
  /**
   * In which form weights are kept that are packed in the model's file.
   *
   * @default {"bf16"}
   */
  readonly weights?: WeightForm;
  /** Whether the last layer of a step with prompts computes only tokens whose logits are wanted. @default {true} */
  readonly trim?: boolean;
  /** Whether decoding runs captured steps. @default {true} */
  readonly graphs?: boolean;
  /** Whether kernels may begin before their predecessor has ended; they wait inside for its results. @default {true} */
  readonly overlap?: boolean;
  /**
   * Whether the next step is begun with the tokens that the GPU chooses, before it is asked for. Results are the same.
   *
   * @default {true}
   */
  readonly ahead?: boolean;
  /** Whether {@linkcode CudaDevice.times} tells the GPU's time for steps; for measurements. @default {false} */
  readonly timing?: boolean;
  /** Where compiled kernels are kept. @default {the user's cache directory} */
  readonly kernelDirectory?: string;
  /** Called before each kernel that has to be compiled. */
  readonly onKernel?: (name: string) => void;
  /** Called while weights load. */
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
}

/** Everything a device owns, in the order it was made. */
interface Parts {
  readonly opened: DisposableStack;
  readonly context: CudaContext;
  readonly store: CudaKvStore;
  readonly steps: CudaSteps;
  readonly config: ModelConfig;
  readonly info: DeviceInfo;
}

/** Runs a model on one GPU. */
export class CudaDevice implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  /** See {@linkcode Device.layout}. */
  readonly layout: KvLayout;
  readonly #opened: DisposableStack;
  readonly #context: CudaContext;
  readonly #store: CudaKvStore;
  readonly #steps: CudaSteps;
  #step: CheckedStep | undefined;

  /** Takes over what {@linkcode CudaDevice.open} made. */
  constructor({ opened, context, store, steps, config, info }: Parts) {
    this.info = info;
    this.config = config;
    this.layout = store.layout;
    this.#opened = opened;
    this.#context = context;
    this.#store = store;
    this.#steps = steps;
  }

  /**
   * Loads a model's weights and makes the KV pool. The model may be disposed afterwards.
   *
   * @throws {Deno.errors.NotFound} when there is no driver or no library, saying where it looked.
   * @throws {RangeError} when there is no GPU of that number, or a size is not one a CUDA device has, or memory is short.
   * @throws {CudaError} when the driver or a compiler refuses.
   */
  static open(model: OpenModel, options: CudaDeviceOptions = {}): CudaDevice {
    const { onProgress } = options;
    return open(model.config, {
      stored: storedTypes(model.weights),
      weights: (made) => CudaWeights.load(model, { ...made, onProgress }),
    }, options);
  }

  /**
   * As {@linkcode CudaDevice.open}, with random weights and KV made on the GPU: a model's size and speed without its file.
   */
  static random(
    config: ModelConfig,
    options: CudaDeviceOptions & Partial<Omit<WeightVariant, "keep">> & { readonly seed?: number } = {},
  ): CudaDevice {
    const { tied = false, biases = false, stored, seed = 1 } = options;
    return open(config, {
      stored,
      weights: (made) => CudaWeights.random(config, { ...made, tied, biases, stored, seed }),
      // Padding of a head stays zero.
      pool: config.headDim % 64 !== 0 ? undefined : (pool, { stream, kernels }) => {
        const count = pool.blocks * pool.blockBytes / KV_ELEMENT_BYTES[pool.kvType];
        kernels.randomMatrix(stream, { to: pool.block(0), count, seed, scale: 1, type: pool.kvType });
        stream.synchronize();
      },
    }, options);
  }

  /** See {@linkcode Device.blocks}. */
  get blocks(): number {
    return this.info.blocks;
  }

  /** See {@linkcode Device.blockBytes}. */
  get blockBytes(): number {
    return this.#store.blockBytes;
  }

  /** See {@linkcode Device.storedTokens}. */
  get storedTokens(): number {
    return this.#store.storedTokens;
  }

  /** Sizes of the captured steps there are so far. */
  get buckets(): readonly number[] {
    return this.#steps.buckets;
  }

  /** Steps so far that had been begun when they were asked for. */
  get stepsAhead(): number {
    return this.#steps.served;
  }

  /** When the GPU worked on the last step of whole sequences; undefined when time is not taken. */
  get times(): StepTimes | undefined {
    return this.#steps.times;
  }

  /** See {@linkcode Device.step}. @throws {DeviceLostError} when the GPU failed for good. @throws {CudaError} */
  step(batch: readonly StepSequence[], hints: StepHints = {}): StepOutput {
    checkWhole(batch);
    return complete(this.begin(batch, hints));
  }

  /** See {@linkcode Device.begin}. @throws {DeviceLostError} when the GPU failed for good. @throws {CudaError} */
  begin(batch: readonly StepSequence[], { following }: StepHints = {}): DeviceStep {
    this.#enter();
    if (this.#step?.running) {
      throw new Error("Cannot begin a step: wanted the last one done or abandoned, got one that is neither");
    }
    const size = checkBatch(batch, this.info, this.config);
    if (following !== undefined) checkBatch(following.batch, this.info, this.config);
    const nodes = batch.map((sequence) => sequenceNodes(sequence));
    const runner = tellLossOf(tellLoss(() => this.#steps.begin({ batch, size, nodes, following })));
    this.#step = new CheckedStep({ runner, batch, nodes, sizes: this.config });
    return this.#step;
  }

  /** See {@linkcode Device.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    this.#enter();
    return this.#store.attendNodes(layer, work);
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    this.#enter();
    return this.#store.attend(layer, ranges);
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    this.#enter();
    checkBlock(block, this);
    tellLoss(() => this.#steps.keepOff(block, false));
    return this.#store.readBlock(block);
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.#enter();
    checkBlockBytes(block, bytes, this);
    tellLoss(() => this.#steps.keepOff(block, true));
    this.#store.writeBlock(block, bytes);
  }

  /** Frees everything on the GPU. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  /** Several devices may share a thread. */
  #enter(): void {
    if (this.#opened.disposed) throw new ReferenceError("Cannot use the device: it was disposed");
    tellLoss(() => this.#context.makeCurrent());
  }
}

function tellLossOf(runner: StepRunner): StepRunner {
  return { ...runner, advance: (budget) => tellLoss(() => runner.advance(budget)) };
}

/** What a device's memory is filled with. */
interface Contents {
  readonly stored?: StoredTypes;
  readonly weights: (options: CudaWeightsOptions & { readonly keep: KeptForm }) => CudaWeights;
  readonly pool?: (pool: CudaPool, options: CudaWeightsOptions) => void;
}

function open(config: ModelConfig, contents: Contents, options: CudaDeviceOptions): CudaDevice {
  const { blockTokens = CUDA_BLOCK_TOKENS, kvType = "bf16" satisfies KvType, deterministic = false } = options;
  const layout = layoutOf(config, { blockTokens, kvType });
  checkCudaPool({ layout, blocks: options.blocks ?? 1 });
  const sizes: StepSizes = {
    maxStepTokens: options.maxStepTokens ?? cudaStepTokens(config).most,
    maxLogitRows: options.maxLogitRows ?? DEFAULT_LOGIT_ROWS,
  };
  using opened = new DisposableStack();
  const context = opened.use(CudaContext.open({ ordinal: options.ordinal, libraries: options.libraries }));
  const kernels = KernelCache.open(context, {
    directory: options.kernelDirectory,
    onProgress: (done, total, name) => {
      if (done < total) options.onKernel?.(name);
    },
  });
  using stream = context.stream();
  const filling = { context, stream, kernels: new WeightKernels(kernels) };
  const keep = keptForm({
    wanted: options.weights ?? "bf16",
    config,
    stored: contents.stored,
    properties: context.properties,
    memoryBytes: context.memory().totalBytes * (options.memoryUtilization ?? DEFAULT_MEMORY_UTILIZATION),
    deterministic,
  });
  const packing = keep === "bf16" ? undefined : new PackedLinear(kernels, context.properties);
  const weights = opened.use(contents.weights({ ...filling, packing, keep }));
  const packed = keep === "bf16"
    ? undefined
    : opened.use(new CudaPacked({ context, kernels, config, weights, sizes: deterministic ? [] : DECODE_BUCKETS }));
  const direct = !deterministic && (options.direct ?? true) && CudaDirect.supports(context.properties, config)
    ? new CudaDirect({ context, kernels, config, sizes: DECODE_BUCKETS })
    : undefined;
  const contextBlocks = Math.ceil(config.contextLength / CUDA_BLOCK_TOKENS);
  const blocks = options.blocks ?? cudaBlocks({
    ...context.memory(),
    weightBytes: weights.bytes,
    stepBytes: forwardBytes(config, sizes),
    blockBytes: cudaBlockBytes(layout),
    utilization: options.memoryUtilization,
    mostBlocks: MOST_CONTEXTS * contextBlocks,
  });
  const store = opened.use(new CudaKvStore({ context, kernels, layout, blocks, deterministic }));
  contents.pool?.(store.pool, filling);
  const forward = opened.use(
    new CudaForward({
      context,
      kernels,
      config,
      weights,
      pool: store.pool,
      sizes,
      deterministic,
      direct,
      packed,
    }),
  );
  const attention = opened.use(
    new CudaAttention({
      context,
      kernels,
      layout,
      plain: store.attention,
      deterministic,
      sequences: LARGEST_BUCKET,
    }),
  );
  const { resident: wish = "never" } = options;
  const wanted = (options.graphs ?? true) && !deterministic &&
    (wish === "always" || wish === "faster" && CudaResident.pays(weights));
  const resident = !wanted ? undefined : CudaResident.tryOpen({
    context,
    kernels,
    config,
    weights,
    pool: store.pool,
    residual: forward.residual,
    maxStepTokens: sizes.maxStepTokens,
  });
  if (resident !== undefined) {
    opened.use(resident);
    if (wish === "always") resident.chooseAll();
    else {
      resident.chooseByTime(stream, (plan) => enqueueDecodeLayers({ config, forward, attention, store, stream }, plan));
    }
  }
  const steps = opened.use(
    new CudaSteps({
      context,
      kernels,
      config,
      resident,
      forward,
      attention,
      store,
      sizes,
      tableWidth: Math.min(blocks, contextBlocks),
      graphs: options.graphs ?? true,
      overlap: options.overlap ?? true,
      trim: options.trim ?? true,
      ahead: options.ahead ?? true,
      timing: options.timing ?? false,
    }),
  );
  const { name, ordinal } = context.properties;
  return new CudaDevice({
    opened: opened.move(),
    context,
    store,
    steps,
    config,
    info: {
      kind: "cuda",
      ordinal,
      deterministic,
      description: `cuda:${ordinal}, ${name}, bf16${kvType === "bf16" ? "" : `, KV ${kvType}`}${
        deterministic ? ", deterministic" : ""
      }`,
      blockTokens,
      blocks,
      blockBytes: store.pool.blockBytes,
      weightBytes: weights.bytes,
      kvType,
      activations: options.activations ?? "f32",
      ...sizes,
    },
  });
}
