/**
 * Steps of a CUDA device: captured ones for decoding, layer by layer for everything else.
 *
 * @module
 */
import type { CudaContext, CudaGraph, CudaStream, DeviceBuffer } from "../../ffi/cuda/cuda.ts";
import type { ModelConfig } from "../model/model.ts";
import type { BatchSize } from "./batch_check.ts";
import type { StepRunner } from "./checked_step.ts";
import type { CudaAttention } from "./cuda_attention.ts";
import { bucketCapacity, decodeBucket, isDecode, LARGEST_BUCKET, productRows } from "./cuda_buckets.ts";
import type { CudaForward, StepSizes } from "./cuda_forward.ts";
import type { CudaKvStore } from "./cuda_kv_store.ts";
import { CudaOutput, CudaSummaries } from "./cuda_output.ts";
import { type DevicePlan, planAddress, type PlanCapacity, planPlaces, writePlan } from "./cuda_plan.ts";
import { CudaSignal } from "./cuda_signal.ts";
import { planSpread } from "./cuda_spread.ts";
import { CudaSpreadMemory, CudaSpreadStep } from "./cuda_spread_step.ts";
import { CudaStaging } from "./cuda_staging.ts";
import { TableMirror, type TablePatches, type TableSize, tableSizeFor } from "./cuda_tables.ts";
import { CudaTurns } from "./cuda_turns.ts";
import type { StepOutput, StepSequence, StepStop } from "./device.ts";
import type { SequenceNode } from "./step_nodes.ts";

/** Tables at first. */
const FIRST_TABLES = 64;
/** Words before the pairs of table entries that are sent ahead of a step. */
const PATCH_HEADER_WORDS = 4;

/** What steps stand on; it stays the caller's. */
export interface CudaStepsParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Sizes. */
  readonly config: ModelConfig;
  /** The layers. */
  readonly forward: CudaForward;
  /** Attention to whole sequences. */
  readonly attention: CudaAttention;
  /** The pool. */
  readonly store: CudaKvStore;
  /** Sizes of the steps. */
  readonly sizes: StepSizes;
  /** Entries of a block table at first. */
  readonly tableWidth: number;
  /** Whether decoding runs captured steps. */
  readonly graphs: boolean;
  /** Whether kernels may begin before their predecessor has ended. */
  readonly overlap: boolean;
}

/** A checked batch. */
export interface CudaBatch {
  /** Its sequences. */
  readonly batch: readonly StepSequence[];
  /** Its totals. */
  readonly size: BatchSize;
  /** For each sequence, its nodes when segments are absent. */
  readonly nodes: readonly (readonly SequenceNode[])[];
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
  /** Plans of captured steps, whose addresses graphs keep. */
  readonly #captured: CudaStaging;
  /** Plans of other steps. */
  readonly #plans: CudaStaging;
  readonly #spread: CudaSpreadMemory;
  readonly #graphs = new Map<number, CudaGraph>();
  readonly #opened: DisposableStack;
  #mirror: TableMirror;
  #tables: DeviceBuffer;
  #busy = false;

  /** Takes memory for plans and tables. @throws {CudaError} when there is not enough. */
  constructor(parts: CudaStepsParts) {
    const { context, sizes, tableWidth } = parts;
    using opened = new DisposableStack();
    this.#parts = parts;
    this.#stream = opened.use(context.stream());
    this.#signal = opened.use(new CudaSignal(context));
    this.#summaries = opened.use(new CudaSummaries(context, productRows(sizes.maxLogitRows)));
    this.#captured = opened.use(new CudaStaging(context));
    this.#captured.reserve(4 * planPlaces(bucketCapacity(LARGEST_BUCKET)).words);
    this.#plans = opened.use(new CudaStaging(context));
    this.#spread = opened.use(new CudaSpreadMemory(context));
    const size = { rows: FIRST_TABLES, width: tableWidth };
    this.#mirror = new TableMirror(size);
    this.#tables = context.alloc(4 * size.rows * size.width);
    opened.defer(() => this.#tables[Symbol.dispose]());
    opened.defer(() => this.#dropGraphs());
    this.#opened = opened.move();
  }

  /** Sizes of the captured steps there are. */
  get buckets(): readonly number[] {
    return [...this.#graphs.keys()];
  }

  /** Begins a step. @throws {CudaError} when the GPU failed, or no memory is left for tables or partials. */
  begin(work: CudaBatch): StepRunner {
    // An abandoned step may still read its plan.
    if (this.#busy) this.#stream.synchronize();
    this.#busy = true;
    const turns = new CudaTurns({ signal: this.#signal, stream: this.#stream });
    const { stops, spread } = this.#course(work, turns);
    const spreadStep = (): CudaSpreadStep => {
      if (spread === undefined) throw new Error("Cannot exchange queries: no segment of the step is absent");
      return spread;
    };
    return {
      advance: (budget) => {
        turns.left = budget;
        const stop = stops.next();
        if (stop.done !== true) return stop.value;
        this.#busy = false;
        return { kind: "done", output: stop.value };
      },
      queries: (index) => spreadStep().queries(index),
      store: (index, node, partial) => spreadStep().store(index, node, partial),
    };
  }

  /** Frees memory and graphs. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  #course(work: CudaBatch, turns: CudaTurns): Course {
    const { batch, size, nodes } = work;
    const { sizes: { maxStepTokens, maxLogitRows }, graphs } = this.#parts;
    if (size.tokens === 0) return { stops: this.#nothing() };
    this.#fit(tableSizeFor(batch, this.#mirror.size));
    if (nodes.some(({ length }) => length > 0)) return this.#spreadCourse(work, turns);
    const bucket = graphs && isDecode(batch)
      ? decodeBucket(batch.length, Math.min(maxStepTokens, maxLogitRows))
      : undefined;
    return { stops: bucket === undefined ? this.#whole(work, turns) : this.#decode(bucket, work, turns) };
  }

  *#nothing(): Generator<StepStop, StepOutput> {
    yield* [];
    return this.#output(0);
  }

  /** A step with all its segments, layer by layer. */
  *#whole({ batch, size }: CudaBatch, turns: CudaTurns): Generator<StepStop, StepOutput> {
    const { config, forward, attention, store } = this.#parts;
    const stream = this.#stream;
    const extra = attention.plan(batch, this.#mirror.size.width);
    const { plan, number } = this.#upload({ batch, size, extra });
    forward.begin(stream, plan);
    for (let layer = 0; layer < config.layers; layer++) {
      yield* turns.spend(this.#layerWork(size));
      forward.project(stream, layer, plan);
      attention.attend(stream, { plan, forward, pool: store.pool.layer(layer) }, extra);
      forward.finish(stream, layer, plan);
    }
    return yield* this.#finish({ plan, number, size, turns });
  }

  /** A step with one token a sequence, as it was captured. */
  *#decode(bucket: number, { batch, size }: CudaBatch, turns: CudaTurns): Generator<StepStop, StepOutput> {
    const capacity = bucketCapacity(bucket);
    const number = this.#signal.next();
    const patches = this.#sendAhead(this.#mirror.update(batch), capacity.patches);
    const words = new Int32Array(this.#captured.memory, 0, planPlaces(capacity).words);
    writePlan(words, { step: number, batch, patches }, capacity);
    const graph = this.#graphs.get(bucket);
    if (graph !== undefined) {
      graph.launch(this.#stream);
      yield* turns.wait(number);
      return this.#output(size.rows);
    }
    // The first step of its size runs as it is: what libraries load when it is first used cannot be captured.
    this.#enqueue(capacity);
    yield* turns.wait(number);
    this.#graphs.set(bucket, this.#stream.capture(() => this.#enqueue(capacity)));
    return this.#output(size.rows);
  }

  #spreadCourse(work: CudaBatch, turns: CudaTurns): Course {
    const { batch, nodes, size } = work;
    const spread = planSpread({ batch, nodes, tableWidth: this.#mirror.size.width });
    const uploaded = this.#upload({ batch, size, extra: spread.words });
    const step = new CudaSpreadStep({
      ...this.#parts,
      batch,
      spread,
      turns,
      plan: uploaded.plan,
      stream: this.#stream,
      signal: this.#signal,
      memory: this.#spread,
      layerWork: this.#layerWork(size),
    });
    return { stops: this.#spreadStops({ ...uploaded, step, size, turns }), spread: step };
  }

  *#spreadStops(
    { plan, number, step, size, turns }: {
      readonly plan: DevicePlan;
      readonly number: number;
      readonly step: CudaSpreadStep;
      readonly size: BatchSize;
      readonly turns: CudaTurns;
    },
  ): Generator<StepStop, StepOutput> {
    this.#parts.forward.begin(this.#stream, plan);
    yield* step.layers();
    return yield* this.#finish({ plan, number, size, turns });
  }

  *#finish(
    { plan, number, size, turns }: {
      readonly plan: DevicePlan;
      readonly number: number;
      readonly size: BatchSize;
      readonly turns: CudaTurns;
    },
  ): Generator<StepStop, StepOutput> {
    this.#parts.forward.head(this.#stream, plan, this.#summaries.places);
    this.#end(plan);
    yield* turns.wait(number);
    return this.#output(size.rows);
  }

  /** Everything of a captured step, from its plan in host memory to its signal. */
  #enqueue(capacity: PlanCapacity): void {
    const { config, forward, attention, store } = this.#parts;
    const stream = this.#stream;
    const plan = this.#place(this.#captured, capacity);
    stream.copy(plan.address, this.#captured.host(), 4 * plan.places.words);
    this.#patch(plan);
    attention.planDecode(stream, plan);
    forward.begin(stream, plan);
    for (let layer = 0; layer < config.layers; layer++) {
      forward.project(stream, layer, plan);
      attention.attendDecode(stream, { plan, forward, pool: store.pool.layer(layer) });
      forward.finish(stream, layer, plan);
    }
    forward.head(stream, plan, this.#summaries.places);
    this.#end(plan);
  }

  /** Writes a plan of just the right size and sends it. */
  #upload(
    { batch, size, extra }: {
      readonly batch: readonly StepSequence[];
      readonly size: BatchSize;
      readonly extra: Int32Array;
    },
  ): { readonly plan: DevicePlan; readonly number: number } {
    const patches = this.#mirror.update(batch);
    const capacity: PlanCapacity = {
      tokens: size.tokens,
      sequences: batch.length,
      rows: size.rows,
      patches: patches.length / 2,
      extra: extra.length,
    };
    const { words } = planPlaces(capacity);
    this.#plans.reserve(4 * words);
    const number = this.#signal.next();
    writePlan(
      new Int32Array(this.#plans.memory, 0, words),
      { step: number, batch, patches, extra },
      capacity,
    );
    const plan = this.#place(this.#plans, capacity);
    this.#stream.copy(plan.address, this.#plans.host(), 4 * words);
    if (patches.length > 0) this.#patch(plan);
    return { plan, number };
  }

  /** Sends table entries at once when there are more than a plan takes; gives those that are left. */
  #sendAhead(patches: TablePatches, most: number): TablePatches {
    if (patches.length <= 2 * most) return patches;
    const words = PATCH_HEADER_WORDS + patches.length;
    this.#plans.reserve(4 * words);
    const memory = new Int32Array(this.#plans.memory, 0, words);
    memory[0] = patches.length / 2;
    memory.set(patches, PATCH_HEADER_WORDS);
    this.#stream.copy(this.#plans.device(), this.#plans.host(), 4 * words);
    this.#parts.store.plans.patchTables(this.#stream, {
      count: this.#plans.device(),
      pairs: this.#plans.device(4 * PATCH_HEADER_WORDS),
      tables: this.#tables.address,
      most: patches.length / 2,
    });
    return patches.subarray(0, 0);
  }

  #patch(plan: DevicePlan): void {
    this.#parts.store.plans.patchTables(this.#stream, {
      count: planAddress(plan, plan.places.patchCount),
      pairs: planAddress(plan, plan.places.patches),
      tables: plan.tables,
      most: plan.capacity.patches,
    });
  }

  #end(plan: DevicePlan): void {
    this.#parts.store.plans.signalDone(this.#stream, {
      step: planAddress(plan, plan.places.step),
      word: this.#signal.address,
    });
  }

  #place(staging: CudaStaging, capacity: PlanCapacity): DevicePlan {
    return {
      capacity,
      places: planPlaces(capacity),
      address: staging.device(),
      tables: this.#tables.address,
      tableWidth: this.#mirror.size.width,
      overlap: this.#parts.overlap,
    };
  }

  #output(rows: number): StepOutput {
    const { config: { vocab }, forward: { logits } } = this.#parts;
    return new CudaOutput({ rows, vocab, logits, summaries: this.#summaries, stream: this.#stream });
  }

  /** Makes the tables larger where a batch needs it. */
  #fit(size: TableSize): void {
    const now = this.#mirror.size;
    if (size.rows === now.rows && size.width === now.width) return;
    this.#dropGraphs();
    const tables = this.#parts.context.alloc(4 * size.rows * size.width);
    this.#tables[Symbol.dispose]();
    this.#tables = tables;
    this.#mirror = new TableMirror(size);
  }

  #dropGraphs(): void {
    for (const graph of this.#graphs.values()) graph[Symbol.dispose]();
    this.#graphs.clear();
  }

  /** Multiply-accumulates of one layer, without attention. */
  #layerWork({ tokens }: BatchSize): number {
    const { hidden, heads, kvHeads, headDim, intermediate } = this.#parts.config;
    return tokens * hidden * (2 * (heads + kvHeads) * headDim + 3 * intermediate);
  }
}
