/**
 * The layers of decode steps of small models as one kernel, where it is faster than a kernel for each of their parts.
 *
 * @module
 */
import { type CudaContext, CudaError, type CudaStream, type DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import {
  RESIDENT_TOKENS,
  type ResidentLayout,
  tryResidentLayout,
} from "../../kernels/resident_step/resident_layout.ts";
import { type ResidentLayer, ResidentStepKernel } from "../../kernels/resident_step/resident_step_cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import { bucketCapacity } from "./cuda_buckets.ts";
import { type DevicePlan, planAddress, planPlaces, writePlan } from "./cuda_plan.ts";
import type { CudaPool } from "./cuda_pool.ts";
import { CUDA_BLOCK_TOKENS } from "./cuda_tables.ts";
import { CudaTimer } from "./cuda_timer.ts";
import type { CudaLayerWeights, CudaWeights } from "./cuda_weights.ts";
import type { StepSequence } from "./device.ts";

/** Compute capability from which GPUs have bulk copies. */
const LEAST_MAJOR = 9;
/** KV tokens of the sequences that steps are timed with: the most for which a kernel is faster, it is taken up to. */
const TIMED_TOKENS = [8192, 2048, 1024, 512] as const;
/** Bytes of weights below which a step is too short for its kernels to be worth the seconds that they compile. */
const LEAST_BYTES = 2 ** 25;

/** What it stands on; all of it stays the caller's. */
export interface CudaResidentParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Sizes. */
  readonly config: ModelConfig;
  /** Weights. */
  readonly weights: CudaWeights;
  /** The pool, bf16. */
  readonly pool: CudaPool;
  /** Where the layers leave the residual stream, f32 [tokens, hidden]. */
  readonly residual: DevicePtr;
  /** Most tokens of a step. */
  readonly maxStepTokens: number;
}

/** Decode steps of few tokens of one model. */
export class CudaResident implements Disposable {
  readonly #parts: CudaResidentParts;
  readonly #steps: ReadonlyMap<number, ResidentStepKernel>;
  /** KV tokens up to which a kernel is taken, by its tokens. */
  readonly #longest = new Map<number, number>();
  readonly #opened: DisposableStack;

  /** Compiles or finds the kernels and takes their memory. @throws {CudaError} when there is not enough. */
  constructor(
    parts: CudaResidentParts,
    { layouts, layers }: { readonly layouts: readonly ResidentLayout[]; readonly layers: readonly ResidentLayer[] },
  ) {
    const { weights: { embedding }, config: { normEps, rope: { inverseFrequencies, magnitude } } } = parts;
    using opened = new DisposableStack();
    this.#parts = parts;
    this.#steps = new Map(layouts.map((layout) => [
      layout.shape.tokens,
      opened.use(
        new ResidentStepKernel({ ...parts, layout, layers, embedding, normEps, inverseFrequencies, magnitude }),
      ),
    ]));
    this.#opened = opened.move();
  }

  /**
   * Makes the kernels where the GPU has what they need, the model is small enough, its weights are bf16 without biases and
   * the pool is bf16; undefined elsewhere.
   */
  static tryOpen(parts: CudaResidentParts): CudaResident | undefined {
    const { context: { properties }, config, weights, pool, maxStepTokens } = parts;
    const { rope } = config;
    const layers = weights.layers.map(residentLayer).filter((layer) => layer !== undefined);
    if (layers.length < config.layers || properties.major < LEAST_MAJOR || pool.kvType !== "bf16") return undefined;
    const layouts = RESIDENT_TOKENS
      .filter((tokens) => tokens <= maxStepTokens)
      .map((tokens) =>
        tryResidentLayout(
          { ...config, pairs: rope.dimensions / 2, pairing: rope.pairing, tokens },
          properties,
        )
      )
      .filter((layout) => layout !== undefined);
    return layouts.length === 0 ? undefined : new CudaResident(parts, { layouts, layers });
  }

  /** Whether a model is so large that compiling the kernels pays. */
  static pays({ bytes }: Pick<CudaWeights, "bytes">): boolean {
    return bytes >= LEAST_BYTES;
  }

  /** Has all kernels taken from now on. */
  chooseAll(): void {
    for (const tokens of this.#steps.keys()) this.#longest.set(tokens, Infinity);
  }

  /** Takes the kernels that are faster than the layers that `others` enqueues, by timing. What is in the pool changes. */
  chooseByTime(stream: CudaStream, others: (plan: DevicePlan) => void): void {
    const { context } = this.#parts;
    using timer = new CudaTimer(context, stream);
    for (const tokens of this.#steps.keys()) {
      const longest = TIMED_TOKENS.find((length) => {
        using opened = new DisposableStack();
        const plan = this.#timedPlan(stream, { opened, tokens, length });
        const time = this.#tryTime(timer, { stream, plan });
        return time !== undefined && time < timer.ms(() => others(plan));
      });
      if (longest !== undefined) this.#longest.set(tokens, longest);
    }
  }

  /** A step of sequences of so many KV tokens, which share pages. */
  #timedPlan(
    stream: CudaStream,
    { opened, tokens, length }: {
      /** Owns the plan's memory. */
      readonly opened: DisposableStack;
      readonly tokens: number;
      readonly length: number;
    },
  ): DevicePlan {
    const { context, pool } = this.#parts;
    const capacity = bucketCapacity(tokens);
    const places = planPlaces(capacity);
    const tableWidth = Math.ceil(length / CUDA_BLOCK_TOKENS);
    const blocks = Int32Array.from({ length: tableWidth }, (_, page) => page % pool.blocks);
    const batch = Array.from({ length: tokens }, (): StepSequence => ({
      tokens: [0],
      position: length - 1,
      blocks,
      logits: "last",
    }));
    const words = new Int32Array(places.words);
    writePlan(words, { step: 0, batch, patches: new Int32Array(0) }, capacity);
    const table = Int32Array.from({ length: tokens * tableWidth }, (_, index) => blocks[index % tableWidth]);
    const memory = opened.use(context.alloc(words.byteLength));
    const tables = opened.use(context.alloc(table.byteLength));
    stream.copyToDevice(memory.address, new Uint8Array(words.buffer));
    stream.copyToDevice(tables.address, new Uint8Array(table.buffer));
    return { capacity, places, address: memory.address, tables: tables.address, tableWidth, overlap: true };
  }

  /** Milliseconds of a step; undefined when the GPU has no place for all blocks of the kernel at once. */
  #tryTime(
    timer: CudaTimer,
    { stream, plan }: { readonly stream: CudaStream; readonly plan: DevicePlan },
  ): number | undefined {
    try {
      return timer.ms(() => this.run(stream, plan));
    } catch (error) {
      if (error instanceof CudaError && !error.lost) return undefined;
      throw error;
    }
  }

  /** Numbers of tokens whose steps it takes. */
  get chosen(): readonly number[] {
    return [...this.#longest.keys()];
  }

  /** Whether it was chosen for steps with room for so many tokens, of sequences no longer than `longest`. */
  takes({ tokens, longest }: { readonly tokens: number; readonly longest: number }): boolean {
    return longest <= (this.#longest.get(tokens) ?? 0);
  }

  /** Enqueues the layers of a step, from its tokens to the residual stream. @throws {ReferenceError} when there is no kernel. */
  run(stream: CudaStream, plan: DevicePlan): void {
    const { pool, residual } = this.#parts;
    const { places, capacity: { tokens } } = plan;
    const step = this.#steps.get(tokens);
    if (step === undefined) throw new ReferenceError(`Cannot run a resident step: no kernel for ${tokens} tokens`);
    const { layer, blockBytes } = pool.layer(0);
    step.launch(stream, {
      ids: planAddress(plan, places.tokens),
      positions: planAddress(plan, places.positions),
      sequences: planAddress(plan, places.tables),
      count: planAddress(plan, places.tokenCount),
      tables: plan.tables,
      tableWidth: plan.tableWidth,
      pool: layer,
      layerBytes: pool.layerStride,
      blockBytes,
      blocks: pool.blocks,
      residual,
    });
  }

  /** Frees what the kernels keep. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }
}

/** The weights of a layer as the kernel wants them; undefined when they are packed or have biases. */
function residentLayer(
  { attentionNorm, qkv, qkvBias, output, mlpNorm, gateUp, down }: CudaLayerWeights,
): ResidentLayer | undefined {
  if (
    qkvBias !== undefined || qkv.full === undefined || output.full === undefined || gateUp.full === undefined ||
    down.full === undefined
  ) return undefined;
  return { attentionNorm, qkv: qkv.full, output: output.full, mlpNorm, gateUp: gateUp.full, down: down.full };
}
