/**
 * Decode steps of a CUDA device: one captured graph for each size, and one step begun ahead, so that the GPU computes on while
 * the host chooses tokens and plans.
 *
 * Everything a step leaves exists twice: while the host reads what one step left, the next one fills the other side.
 *
 * @module
 */
import type {
  CudaContext,
  CudaEvent,
  CudaGraph,
  CudaStream,
  DeviceBuffer,
  DevicePtr,
  PinnedBuffer,
} from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import { SAMPLE_STATE_BYTES, SampleKernel } from "../../kernels/sample/sample_cuda.ts";
import { SampleRing, sampleRingBytes } from "../../kernels/sample/sample_ring.ts";
import { SAMPLE_ROW_BYTES, writeSampleRow } from "../../kernels/sample/sample_rows.ts";
import type { ModelConfig } from "../model/model.ts";
import type { CudaAttention } from "./cuda_attention.ts";
import { bucketCapacity, decodeBucket, isDecode, LARGEST_BUCKET } from "./cuda_buckets.ts";
import { bufferRows, type CudaForward, type StepSizes } from "./cuda_forward.ts";
import { blockAt, canGuess, type GuessedRow, matchGuess, stepBehind } from "./cuda_guess.ts";
import type { CudaKvStore } from "./cuda_kv_store.ts";
import { CudaOutput, CudaSummaries } from "./cuda_output.ts";
import { type DevicePlan, planAddress, type PlanCapacity, planPlaces, writePlan } from "./cuda_plan.ts";
import type { CudaSignal } from "./cuda_signal.ts";
import { CudaStaging } from "./cuda_staging.ts";
import type { CudaTables } from "./cuda_table_memory.ts";
import type { TablePatches } from "./cuda_tables.ts";
import type { CudaTurns } from "./cuda_turns.ts";
import type { StepOutput, StepSequence, StepStop } from "./device.ts";

/** Steps whose chosen tokens are kept. */
const RING_STEPS = 4;
/** Words of a row to be sampled. */
const SAMPLE_ROW_WORDS = SAMPLE_ROW_BYTES / 4;

/** What decode steps stand on; it stays the caller's. */
export interface CudaDecodeParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Sizes. */
  readonly config: ModelConfig;
  /** The layers. */
  readonly forward: CudaForward;
  /** Attention. */
  readonly attention: CudaAttention;
  /** The pool. */
  readonly store: CudaKvStore;
  /** Sizes of the steps. */
  readonly sizes: StepSizes;
  /** Where steps run. */
  readonly stream: CudaStream;
  /** Where logits are read while a step runs. */
  readonly reads: CudaStream;
  /** Tells that a step is done. */
  readonly signal: CudaSignal;
  /** Block tables. */
  readonly tables: CudaTables;
  /** Whether kernels may begin before their predecessor has ended. */
  readonly overlap: boolean;
  /** Whether steps are begun ahead. */
  readonly ahead: boolean;
  /** Whether the GPU's time for each step is taken. */
  readonly timing: boolean;
}

/** When the GPU worked on a decode step, ms of its own clock. */
export interface StepTimes {
  /** When it began. */
  readonly beganMs: number;
  /** When it was done. */
  readonly endedMs: number;
}

/** What one of two steps in a row reads and leaves. */
interface Side {
  readonly plan: CudaStaging;
  readonly logits: DevicePtr;
  readonly summaries: CudaSummaries;
  readonly graphs: Map<number, CudaGraph>;
  /** Marks around its step, when time is taken. */
  readonly marks?: { readonly began: CudaEvent; readonly ended: CudaEvent };
}

/** A step on its way. */
interface Flight {
  readonly side: Side;
  readonly bucket: number;
  readonly plan: DevicePlan;
  /** Its signal. */
  readonly number: number;
  /** Rows it computes. */
  readonly rows: number;
}

/** A step that was begun ahead. */
interface Guess {
  readonly flight: Flight;
  /** Number of the step of the ring that holds its tokens. */
  readonly sampled: number;
  /** Its rows, and the row of the ring with the token of each. */
  readonly rows: readonly { readonly position: number; readonly block: number; readonly source: number }[];
}

/** Runs decode steps, one after the other. */
export class CudaDecode implements Disposable {
  readonly #parts: CudaDecodeParts;
  readonly #sides: readonly [Side, Side];
  readonly #sample: SampleKernel | undefined;
  readonly #sampleState: DeviceBuffer;
  readonly #ringMemory: PinnedBuffer;
  readonly #ring: SampleRing;
  readonly #most: number;
  readonly #opened: DisposableStack;
  readonly #epoch: CudaEvent | undefined;
  #times: StepTimes | undefined;
  #sampled = 0;
  #guess: Guess | undefined;
  /** A guess that came to nothing and may still run. */
  #dropped: Flight | undefined;

  /** Takes memory. @throws {CudaError} when there is not enough. */
  constructor(parts: CudaDecodeParts) {
    const { context, kernels, config, sizes, forward } = parts;
    using opened = new DisposableStack();
    this.#parts = parts;
    this.#most = Math.min(LARGEST_BUCKET, sizes.maxStepTokens, sizes.maxLogitRows);
    const capacity = { ...bucketCapacity(LARGEST_BUCKET), extra: SAMPLE_ROW_WORDS * LARGEST_BUCKET };
    const side = (logits: DevicePtr): Side => {
      const plan = opened.use(new CudaStaging(context));
      plan.reserve(4 * planPlaces(capacity).words);
      const mark = () => opened.use(context.event({ timing: true }));
      return {
        plan,
        logits,
        summaries: opened.use(new CudaSummaries(context, LARGEST_BUCKET)),
        graphs: new Map(),
        ...(parts.timing && { marks: { began: mark(), ended: mark() } }),
      };
    };
    const second = opened.use(context.alloc(4 * bufferRows(this.#most) * config.vocab));
    this.#sides = [side(forward.logits), side(second.address)];
    if (parts.ahead) this.#sample = new SampleKernel(kernels, { vocab: config.vocab, input: "f32" });
    this.#sampleState = opened.use(context.alloc(SAMPLE_STATE_BYTES));
    const size = { slots: RING_STEPS, rows: LARGEST_BUCKET };
    this.#ringMemory = opened.use(context.pinned(sampleRingBytes(size)));
    this.#ring = new SampleRing(this.#ringMemory.buffer, size);
    parts.stream.fill(this.#sampleState.address, 0, SAMPLE_STATE_BYTES);
    if (parts.timing) {
      this.#epoch = opened.use(context.event({ timing: true }));
      parts.stream.record(this.#epoch);
    }
    opened.defer(() => this.dropGraphs());
    this.#opened = opened.move();
  }

  /** Sizes of the captured steps there are. */
  get buckets(): readonly number[] {
    return [...new Set(this.#sides.flatMap(({ graphs }) => [...graphs.keys()]))].sort((a, b) => a - b);
  }

  /** The size that a batch runs in; undefined when it is no decode step, or too large a one. */
  bucketOf(batch: readonly StepSequence[]): number | undefined {
    return isDecode(batch) ? decodeBucket(batch.length, this.#most) : undefined;
  }

  /** Runs a decode step that fits the tables. @throws {CudaError} when the GPU failed. */
  *run(
    { bucket, batch, rows, turns }: {
      readonly bucket: number;
      readonly batch: readonly StepSequence[];
      /** Rows of logits. */
      readonly rows: number;
      readonly turns: CudaTurns;
    },
  ): Generator<StepStop, StepOutput> {
    const served = this.#serve(batch);
    if (served === undefined) this.forget();
    const { flight, rowOf } = served ?? { flight: this.#begin(bucket, batch), rowOf: undefined };
    this.#guess = undefined;
    const { tables } = this.#parts;
    if (this.#sample !== undefined && canGuess(batch) && tables.sizeFor(stepBehind(batch)) === undefined) {
      if (this.#dropped !== undefined) yield* turns.wait(this.#dropped.number);
      this.#dropped = undefined;
      this.#guess = this.#beginAhead(flight, {
        sample: this.#sample,
        batch,
        rowOf: rowOf ?? batch.map((_, index) => index),
      });
    }
    yield* turns.wait(flight.number);
    this.#takeTime(flight);
    const { config: { vocab }, reads } = this.#parts;
    const { logits, summaries } = flight.side;
    return new CudaOutput({ rows, vocab, logits, summaries, stream: reads, rowOf });
  }

  /** When the GPU worked on the last step; undefined when time is not taken. */
  get times(): StepTimes | undefined {
    return this.#times;
  }

  /** Gives up what was begun ahead: another step comes first, or blocks change. It may still run. */
  forget(): void {
    if (this.#guess !== undefined) this.#dropped = this.#guess.flight;
    this.#guess = undefined;
  }

  /** Gives up what was begun ahead and waits until it touches no block any more. @throws {CudaError} */
  settle(): void {
    this.forget();
    if (this.#dropped !== undefined) this.#parts.signal.wait(this.#dropped.number, this.#parts.stream);
    this.#dropped = undefined;
  }

  /** Forgets the graphs: what they point to moves. Nothing may run. */
  dropGraphs(): void {
    for (const { graphs } of this.#sides) {
      for (const graph of graphs.values()) graph[Symbol.dispose]();
      graphs.clear();
    }
  }

  /** Frees memory and graphs. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  #takeTime({ side: { marks } }: Flight): void {
    if (marks === undefined || this.#epoch === undefined) return;
    marks.ended.synchronize();
    this.#times = { beganMs: marks.began.msSince(this.#epoch), endedMs: marks.ended.msSince(this.#epoch) };
  }

  /** The guess, when it is this batch, and the row of each sequence in it. */
  #serve(batch: readonly StepSequence[]): { readonly flight: Flight; readonly rowOf: number[] } | undefined {
    if (this.#guess === undefined) return undefined;
    const { flight, sampled, rows } = this.#guess;
    const { stream } = this.#parts;
    // The tokens were chosen right behind the step that the caller has read.
    while (!this.#ring.has(sampled)) if (stream.idle) break;
    if (!this.#ring.has(sampled)) return undefined;
    const guessed = rows.map(({ position, block, source }): GuessedRow => {
      const { outcome } = this.#ring.result(sampled, source);
      return { position, block, token: outcome.kind === "chosen" ? outcome.id : undefined };
    });
    const rowOf = matchGuess(batch, guessed);
    return rowOf && { flight, rowOf };
  }

  /** Begins a step as the host planned it. */
  #begin(bucket: number, batch: readonly StepSequence[]): Flight {
    // The side of a dropped guess may still be in use; the other one's step was waited for.
    const side = this.#sides[this.#dropped?.side === this.#sides[0] ? 1 : 0];
    const { patches: most } = bucketCapacity(bucket);
    const patches = this.#parts.tables.updateWithin(batch, { most, ahead: false });
    const { plan, number } = this.#send(side, { bucket, batch, patches });
    this.#start(side, plan);
    return { side, bucket, plan, number, rows: batch.length };
  }

  /** Begins the step behind `flight`, whose rows `rowOf` are the batch's. */
  #beginAhead(
    flight: Flight,
    { sample, batch, rowOf }: {
      readonly sample: SampleKernel;
      readonly batch: readonly StepSequence[];
      readonly rowOf: readonly number[];
    },
  ): Guess | undefined {
    const bucket = decodeBucket(batch.length, this.#most);
    if (bucket === undefined) return undefined;
    const side = this.#sides[flight.side === this.#sides[0] ? 1 : 0];
    const behind = stepBehind(batch);
    const { patches: most } = bucketCapacity(bucket);
    const patches = this.#parts.tables.updateWithin(behind, { most, ahead: true });
    const extra = new Int32Array(SAMPLE_ROW_WORDS * flight.bucket);
    const bytes = new Uint8Array(extra.buffer);
    const place = (row: number) => bytes.subarray(SAMPLE_ROW_BYTES * row, SAMPLE_ROW_BYTES * (row + 1));
    for (let row = 0; row < flight.bucket; row++) writeSampleRow(place(row), { mode: { kind: "host" }, accepted: 0 });
    batch.forEach(({ next }, slot) => {
      if (next !== undefined) writeSampleRow(place(rowOf[slot]), { ...next, slot });
    });
    const { plan, number } = this.#send(side, { bucket, batch: behind, patches, extra });
    const { lse, ids, top } = flight.side.summaries.places;
    sample.launch(this.#parts.stream, {
      rows: planAddress(plan, plan.places.extra),
      logits: flight.side.logits,
      lse,
      ids,
      top,
      count: planAddress(flight.plan, flight.plan.places.rowCount),
      tokens: planAddress(plan, plan.places.tokens),
      inputTokens: bucket,
      state: this.#sampleState.address,
      ring: this.#ringMemory.address,
      ringSize: this.#ring.size,
      maxRows: flight.bucket,
    });
    this.#sampled = (this.#sampled + 1) >>> 0;
    this.#start(side, plan);
    return {
      flight: { side, bucket, plan, number, rows: batch.length },
      sampled: this.#sampled,
      rows: behind.map((sequence, index) => ({
        position: sequence.position,
        block: blockAt(sequence, sequence.position),
        source: rowOf[index],
      })),
    };
  }

  /** Writes a plan and sends it. */
  #send(
    side: Side,
    { bucket, batch, patches, extra }: {
      readonly bucket: number;
      readonly batch: readonly StepSequence[];
      readonly patches: TablePatches;
      readonly extra?: Int32Array;
    },
  ): { readonly plan: DevicePlan; readonly number: number } {
    const { stream, signal, tables, overlap } = this.#parts;
    const capacity: PlanCapacity = { ...bucketCapacity(bucket), extra: extra?.length ?? 0 };
    const places = planPlaces(capacity);
    const number = signal.next();
    writePlan(
      new Int32Array(side.plan.memory, 0, places.words),
      { step: number, batch, patches, extra },
      capacity,
    );
    stream.copy(side.plan.device(), side.plan.host(), 4 * places.words);
    const plan = {
      capacity,
      places,
      address: side.plan.device(),
      tables: tables.address,
      tableWidth: tables.width,
      overlap,
    };
    return { plan, number };
  }

  /** Enqueues a step whose plan is sent. */
  #start(side: Side, plan: DevicePlan): void {
    const { stream } = this.#parts;
    const graph = side.graphs.get(plan.capacity.tokens);
    if (side.marks !== undefined) stream.record(side.marks.began);
    // The first step of its size runs as it is: what libraries load when it is first used cannot be captured.
    if (graph === undefined) this.#enqueue(side, plan);
    else graph.launch(stream);
    if (side.marks !== undefined) stream.record(side.marks.ended);
    if (graph !== undefined) return;
    side.graphs.set(plan.capacity.tokens, stream.capture(() => this.#enqueue(side, plan)));
  }

  /** Everything of a step behind the copy of its plan, to its signal. */
  #enqueue(side: Side, plan: DevicePlan): void {
    const { config, forward, attention, store, stream, signal } = this.#parts;
    const { places } = plan;
    store.plans.patchTables(stream, {
      count: planAddress(plan, places.patchCount),
      pairs: planAddress(plan, places.patches),
      tables: plan.tables,
      most: plan.capacity.patches,
    });
    attention.planDecode(stream, plan);
    forward.begin(stream, plan);
    for (let layer = 0; layer < config.layers; layer++) {
      forward.project(stream, layer, plan);
      attention.attendDecode(stream, { plan, forward, pool: store.pool.layer(layer) });
      forward.finish(stream, layer, plan);
    }
    forward.head(stream, plan, { logits: side.logits, ...side.summaries.places });
    store.plans.signalDone(stream, { step: planAddress(plan, places.step), word: signal.address });
  }
}
