/**
 * Steps of a CUDA device: those of whole sequences, and those of which some segments are elsewhere.
 *
 * @module
 */
import type { CudaContext, CudaStream } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import type { ModelConfig } from "../model/model.ts";
import type { BatchSize } from "./batch_check.ts";
import type { StepRunner } from "./checked_step.ts";
import type { CudaAttention } from "./cuda_attention.ts";
import { productRows } from "./cuda_buckets.ts";
import type { CudaForward, LogitPlaces, StepSizes } from "./cuda_forward.ts";
import type { CudaKvStore } from "./cuda_kv_store.ts";
import { CudaOutput, CudaSummaries } from "./cuda_output.ts";
import { type DevicePlan, planAddress, type PlanCapacity, planPlaces, writePlan } from "./cuda_plan.ts";
import type { CudaResident } from "./cuda_resident.ts";
import { CudaSignal } from "./cuda_signal.ts";
import { planSpread } from "./cuda_spread.ts";
import { CudaSpreadMemory, CudaSpreadStep } from "./cuda_spread_step.ts";
import { CudaStaging } from "./cuda_staging.ts";
import { CudaTables } from "./cuda_table_memory.ts";
import { CudaTurns } from "./cuda_turns.ts";
import { CudaWhole, type StepTimes } from "./cuda_whole.ts";
import type { FollowingStep, StepOutput, StepSequence, StepStop } from "./device.ts";
import type { SequenceNode } from "./step_nodes.ts";

/** What steps stand on; it stays the caller's. */
export interface CudaStepsParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Sizes. */
  readonly config: ModelConfig;
  /** The layers. */
  readonly forward: CudaForward;
  /** Attention to whole sequences. */
  readonly attention: CudaAttention;
  /** The pool. */
  readonly store: CudaKvStore;
  /** The layers of small steps as one kernel, where that was chosen. */
  readonly resident?: CudaResident;
  /** Sizes of the steps. */
  readonly sizes: StepSizes;
  /** Entries of a block table at first. */
  readonly tableWidth: number;
  /** Whether decoding runs captured steps. */
  readonly graphs: boolean;
  /** Whether kernels may begin before their predecessor has ended. */
  readonly overlap: boolean;
  /** Whether the last layer of a step that is not captured computes only tokens whose logits are wanted. */
  readonly trim: boolean;
  /** Whether steps are begun ahead. */
  readonly ahead: boolean;
  /** Whether the GPU's time for steps is taken. */
  readonly timing: boolean;
}

/** A checked batch. */
export interface CudaBatch {
  /** Its sequences. */
  readonly batch: readonly StepSequence[];
  /** Its totals. */
  readonly size: BatchSize;
  /** For each sequence, its nodes when segments are absent. */
  readonly nodes: readonly (readonly SequenceNode[])[];
  /** The step that probably comes next, checked too. */
  readonly following?: FollowingStep;
}

/** A step on its way: its stops, and what a spread one takes and gives. */
interface Course {
  readonly stops: Generator<StepStop, StepOutput>;
  readonly spread?: CudaSpreadStep;
}

/** Runs steps, one at a time: beginning another one ends the last. */
export class CudaSteps implements Disposable {
  readonly #parts: CudaStepsParts;
  readonly #stream: CudaStream;
  readonly #signal: CudaSignal;
  readonly #summaries: CudaSummaries;
  readonly #plans: CudaStaging;
  readonly #spread: CudaSpreadMemory;
  readonly #tables: CudaTables;
  readonly #whole: CudaWhole;
  readonly #reads: CudaStream;
  readonly #opened: DisposableStack;
  #busy = false;

  /** Takes memory for plans and tables. @throws {CudaError} when there is not enough. */
  constructor(parts: CudaStepsParts) {
    const { context, sizes, tableWidth } = parts;
    using opened = new DisposableStack();
    this.#parts = parts;
    this.#stream = opened.use(context.stream());
    this.#reads = opened.use(context.stream());
    this.#signal = opened.use(new CudaSignal(context));
    this.#summaries = opened.use(new CudaSummaries(context, productRows(sizes.maxLogitRows)));
    this.#plans = opened.use(new CudaStaging(context));
    this.#spread = opened.use(new CudaSpreadMemory(context));
    this.#tables = opened.use(
      new CudaTables({ context, width: tableWidth, stream: this.#stream, kernels: parts.store.plans }),
    );
    this.#whole = opened.use(
      new CudaWhole({
        ...parts,
        stream: this.#stream,
        reads: this.#reads,
        signal: this.#signal,
        tables: this.#tables,
      }),
    );
    this.#opened = opened.move();
  }

  /** Sizes of the captured steps there are. */
  get buckets(): readonly number[] {
    return this.#whole.buckets;
  }

  /** See {@linkcode CudaWhole.served}. */
  get served(): number {
    return this.#whole.served;
  }

  /** See {@linkcode CudaWhole.times}. */
  get times(): StepTimes | undefined {
    return this.#whole.times;
  }

  /** Begins a step. @throws {CudaError} when the GPU failed, or no memory is left for tables or partials. */
  begin(work: CudaBatch): StepRunner {
    // An abandoned step may still read its plan.
    if (this.#busy) {
      this.#stream.synchronize();
      this.#whole.settle();
    }
    this.#busy = true;
    const turns = new CudaTurns({ signal: this.#signal, stream: this.#stream });
    const { stops, spread } = this.#course(work, turns);
    const spreadStep = (): CudaSpreadStep => {
      if (spread === undefined) throw new Error("Cannot exchange queries: no segment of the step is absent");
      return spread;
    };
    return {
      advance: (budget) => {
        turns.begin(budget);
        const stop = stops.next();
        if (stop.done !== true) return stop.value;
        this.#busy = false;
        return { kind: "done", output: stop.value };
      },
      queries: (index) => spreadStep().queries(index),
      store: (index, node, partial) => spreadStep().store(index, node, partial),
    };
  }

  /** See {@linkcode CudaWhole.keepOff}. */
  keepOff(block: number, change: boolean): void {
    this.#whole.keepOff(block, change);
  }

  /** Frees memory and graphs. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  #course(work: CudaBatch, turns: CudaTurns): Course {
    const { batch, size, nodes } = work;
    if (size.tokens === 0) return { stops: this.#nothing() };
    this.#fit(batch);
    if (nodes.every(({ length }) => length === 0)) {
      return { stops: this.#whole.run({ batch, rows: size.rows, following: work.following, turns }) };
    }
    this.#whole.forget();
    return this.#spreadCourse(work, turns);
  }

  *#nothing(): Generator<StepStop, StepOutput> {
    yield* [];
    return this.#output(0);
  }

  #spreadCourse(work: CudaBatch, turns: CudaTurns): Course {
    const { batch, nodes, size } = work;
    const { attention } = this.#parts;
    const [tableWidth, { kernels }] = [this.#tables.width, attention];
    const preferred = planSpread({ batch, nodes, tableWidth, kernels });
    const spread = preferred.jobs <= attention.mostJobs
      ? preferred
      : planSpread({ batch, nodes, tableWidth, kernels: { ...kernels, decode: false } });
    const chunks = attention.planChunks(spread.chunks);
    const extra = new Int32Array(spread.words.length + chunks.length);
    extra.set(spread.words);
    extra.set(chunks, spread.words.length);
    const plan = this.#upload({ batch, size, extra });
    const step = new CudaSpreadStep({
      ...this.#parts,
      batch,
      spread,
      chunkItems: attention.chunkItems(chunks),
      turns,
      plan,
      stream: this.#stream,
      signal: this.#signal,
      memory: this.#spread,
      layerWork: this.#parts.forward.layerWork(size.tokens),
    });
    return { stops: this.#spreadStops({ plan, step, size, turns }), spread: step };
  }

  *#spreadStops(
    { plan, step, size, turns }: {
      readonly plan: DevicePlan;
      readonly step: CudaSpreadStep;
      readonly size: BatchSize;
      readonly turns: CudaTurns;
    },
  ): Generator<StepStop, StepOutput> {
    this.#parts.forward.begin(this.#stream, plan);
    yield* step.layers();
    return yield* this.#finish({ plan, size, turns });
  }

  *#finish(
    { plan, size, turns }: { readonly plan: DevicePlan; readonly size: BatchSize; readonly turns: CudaTurns },
  ): Generator<StepStop, StepOutput> {
    const stream = this.#stream;
    this.#parts.forward.head(stream, plan, this.#logitPlaces());
    // Signals count up in the order of the stream: this one comes behind those of the layers.
    const number = this.#signal.next();
    this.#parts.store.plans.signalValue(stream, { value: number, word: this.#signal.address });
    yield* turns.wait(number);
    return this.#output(size.rows);
  }

  /** Writes a plan of just the right size and sends it. */
  #upload(
    { batch, size, extra }: {
      readonly batch: readonly StepSequence[];
      readonly size: BatchSize;
      readonly extra: Int32Array;
    },
  ): DevicePlan {
    const patches = this.#tables.update(batch);
    const capacity: PlanCapacity = {
      tokens: size.tokens,
      sequences: batch.length,
      rows: size.rows,
      patches: patches.length / 2,
      extra: extra.length,
    };
    const { words } = planPlaces(capacity);
    this.#plans.reserve(4 * words);
    writePlan(
      new Int32Array(this.#plans.memory, 0, words),
      { step: 0, batch, patches, extra },
      capacity,
    );
    const plan = this.#place(capacity);
    this.#stream.copy(plan.address, this.#plans.host(), 4 * words);
    if (patches.length > 0) this.#patch(plan);
    return plan;
  }

  #patch(plan: DevicePlan): void {
    this.#parts.store.plans.patchTables(this.#stream, {
      count: planAddress(plan, plan.places.patchCount),
      pairs: planAddress(plan, plan.places.patches),
      tables: plan.tables,
      most: plan.capacity.patches,
    });
  }

  #place(capacity: PlanCapacity): DevicePlan {
    return {
      capacity,
      places: planPlaces(capacity),
      address: this.#plans.device(),
      tables: this.#tables.address,
      tableWidth: this.#tables.width,
      overlap: this.#parts.overlap,
    };
  }

  #logitPlaces(): LogitPlaces {
    return { logits: this.#parts.forward.logits, ...this.#summaries.places };
  }

  #output(rows: number): StepOutput {
    const { config: { vocab }, forward: { logits } } = this.#parts;
    return new CudaOutput({ rows, vocab, logits, summaries: this.#summaries, stream: this.#reads });
  }

  /** Makes the tables larger where a batch needs it. */
  #fit(batch: readonly StepSequence[]): void {
    const size = this.#tables.sizeFor(batch);
    if (size === undefined) return;
    this.#stream.synchronize();
    this.#whole.settle();
    this.#whole.dropGraphs();
    this.#tables.grow(size);
  }
}
