/**
 * Steps whose segments are all in the pool: one captured graph for each size of a step of single tokens, kernel by kernel
 * otherwise, and one step begun ahead, so that the GPU computes on while the host chooses tokens, plans and enqueues.
 *
 * Everything a step leaves exists twice: while the host reads what one step left, the next one fills the other side.
 *
 * Longer than other files because a step, its guess and the sides they use share one state.
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
import { logitRows } from "./batch_check.ts";
import type { CudaAttention, MixedPlan } from "./cuda_attention.ts";
import { bucketCapacity, decodeBucket, isDecode, LARGEST_BUCKET, productRows } from "./cuda_buckets.ts";
import { bufferRows, type CudaForward, type StepSizes } from "./cuda_forward.ts";
import { canFollow, type GuessedSequence, lastRows, matchGuess, stepBehind, writtenBlocks } from "./cuda_guess.ts";
import type { CudaKvStore } from "./cuda_kv_store.ts";
import { CudaOutput, CudaSummaries } from "./cuda_output.ts";
import { type DevicePlan, planAddress, type PlanCapacity, planPlaces, writePlan } from "./cuda_plan.ts";
import type { CudaResident } from "./cuda_resident.ts";
import type { CudaSignal } from "./cuda_signal.ts";
import { CudaStaging } from "./cuda_staging.ts";
import type { CudaTables } from "./cuda_table_memory.ts";
import type { CudaTurns } from "./cuda_turns.ts";
import type { FollowingStep, StepOutput, StepSequence, StepStop } from "./device.ts";

/** Steps whose chosen tokens are kept. */
const RING_STEPS = 4;
/** Words of a row to be sampled. */
const SAMPLE_ROW_WORDS = SAMPLE_ROW_BYTES / 4;
/** Parts of a plan begin at multiples of this many words. */
const PART_WORDS = 4;
/** Table entries and words for attention that a plan of a step that is not captured has room for at first. */
const FIRST_PATCHES = 1 << 14;

/** What steps stand on; it stays the caller's. */
export interface CudaWholeParts {
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
  /** The layers of small steps as one kernel, where that was chosen. */
  readonly resident?: CudaResident;
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
  /** Whether steps of single tokens are captured. */
  readonly graphs: boolean;
  /** Whether kernels may begin before their predecessor has ended. */
  readonly overlap: boolean;
  /** Whether the last layer of a step that is not captured computes only tokens whose logits are wanted. */
  readonly trim: boolean;
  /** Whether steps are begun ahead. */
  readonly ahead: boolean;
  /** Whether the GPU's time for each step is taken. */
  readonly timing: boolean;
}

/** When the GPU worked on a step, ms of its own clock. */
export interface StepTimes {
  /** When it began. */
  readonly beganMs: number;
  /** When it was done. */
  readonly endedMs: number;
}

/** What one of two steps in a row reads and leaves. */
interface Side {
  /** Plans of captured steps, whose graphs know where it lies. */
  readonly captured: CudaStaging;
  /** Plans of others. */
  readonly plain: CudaStaging;
  readonly logits: DevicePtr;
  readonly summaries: CudaSummaries;
  readonly graphs: Map<number, CudaGraph>;
  /** The same with the layers as one kernel. */
  readonly residentGraphs: Map<number, CudaGraph>;
  /** Marks around its step, when time is taken. */
  readonly marks?: { readonly began: CudaEvent; readonly ended: CudaEvent };
}

/** A step on its way. */
interface Flight {
  readonly side: Side;
  readonly plan: DevicePlan;
  /** Its signal. */
  readonly number: number;
  /** What it computes. */
  readonly batch: readonly StepSequence[];
  /** Number of the step of the ring that holds its unknown tokens; undefined when it has none. */
  readonly sampled: number | undefined;
}

/** Where the tokens come from that a step goes on with and the host does not know. */
interface Front {
  readonly flight: Flight;
  readonly sample: SampleKernel;
  /** Rows to be sampled, one for each row of logits there is room for. */
  readonly rows: Int32Array;
}

/** A step that was begun ahead. */
interface Guess {
  readonly flight: Flight;
  /** For each sequence, the row of the ring with its token. */
  readonly sources: readonly (number | undefined)[];
  /** Blocks that others have written to since it was begun. */
  readonly changed: Set<number>;
}

/** A step to be run. */
export interface WholeStep {
  /** Its sequences, which fit the tables. */
  readonly batch: readonly StepSequence[];
  /** Rows of logits. */
  readonly rows: number;
  /** What probably comes next. */
  readonly following?: FollowingStep;
  /** Its turns. */
  readonly turns: CudaTurns;
}

/** Runs steps of whole sequences, one after the other. */
export class CudaWhole implements Disposable {
  readonly #parts: CudaWholeParts;
  readonly #sides: readonly [Side, Side];
  readonly #sample: SampleKernel | undefined;
  readonly #sampleState: DeviceBuffer;
  readonly #ringMemory: PinnedBuffer;
  readonly #ring: SampleRing;
  /** Rows of logits that both sides have room for. */
  readonly #most: number;
  readonly #opened: DisposableStack;
  readonly #epoch: CudaEvent | undefined;
  #times: StepTimes | undefined;
  #served = 0;
  #sampled = 0;
  #guess: Guess | undefined;
  /** A guess that came to nothing and may still run. */
  #dropped: Flight | undefined;

  /** Takes memory. @throws {CudaError} when there is not enough. */
  constructor(parts: CudaWholeParts) {
    const { context, kernels, config, sizes, forward } = parts;
    using opened = new DisposableStack();
    this.#parts = parts;
    this.#most = Math.min(LARGEST_BUCKET, sizes.maxStepTokens, sizes.maxLogitRows);
    const extra = SAMPLE_ROW_WORDS * LARGEST_BUCKET;
    const captured = { ...bucketCapacity(LARGEST_BUCKET), extra };
    const tokens = sizes.maxStepTokens;
    const rows = Math.max(LARGEST_BUCKET, productRows(sizes.maxLogitRows));
    const plain = {
      tokens,
      sequences: LARGEST_BUCKET,
      rows,
      patches: FIRST_PATCHES,
      extra: extra + FIRST_PATCHES,
    };
    const mark = () => opened.use(context.event({ timing: true }));
    const staging = (capacity: PlanCapacity): CudaStaging => {
      const made = opened.use(new CudaStaging(context));
      made.reserve(4 * planPlaces(capacity).words);
      return made;
    };
    const side = (logits: DevicePtr): Side => ({
      captured: staging(captured),
      plain: staging(plain),
      logits,
      summaries: opened.use(new CudaSummaries(context, rows)),
      graphs: new Map(),
      residentGraphs: new Map(),
      ...(parts.timing && { marks: { began: mark(), ended: mark() } }),
    });
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
    const all = this.#sides.flatMap(({ graphs, residentGraphs }) => [...graphs.keys(), ...residentGraphs.keys()]);
    return [...new Set(all)].sort((a, b) => a - b);
  }

  /** Runs a step. @throws {CudaError} when the GPU failed. */
  *run({ batch, rows, following, turns }: WholeStep): Generator<StepStop, StepOutput> {
    const served = this.#serve(batch);
    if (served === undefined) this.forget();
    else this.#served++;
    const flight = served?.flight ?? (yield* this.#begin(this.#freeSide(rows), { batch, turns }));
    const rowOf = served?.rowOf;
    this.#guess = undefined;
    const behind = following ?? stepBehind(batch);
    if (behind !== undefined && this.#canBegin(batch, { behind, flight })) {
      // What was dropped may still use the other side.
      if (this.#dropped !== undefined) yield* turns.wait(this.#dropped.number);
      this.#dropped = undefined;
      this.#guess = yield* this.#beginAhead(flight, { batch, behind, rowOf, turns });
    }
    yield* turns.wait(flight.number);
    this.#takeTime(flight);
    const { config: { vocab }, reads } = this.#parts;
    const { logits, summaries } = flight.side;
    return new CudaOutput({ rows, vocab, logits, summaries, stream: reads, rowOf });
  }

  /** Steps that had been begun when they were asked for. */
  get served(): number {
    return this.#served;
  }

  /** When the GPU worked on the last step; undefined when time is not taken. */
  get times(): StepTimes | undefined {
    return this.#times;
  }

  /** Gives up what was begun ahead: a step comes first that it knows nothing of. It may still run. */
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

  /**
   * Waits until nothing that was begun ahead writes to a block that others read or write now. Nothing is given up.
   *
   * @param change Whether the block is going to be written to.
   * @throws {CudaError} when the GPU failed.
   */
  keepOff(block: number, change: boolean): void {
    for (const flight of [this.#dropped, this.#guess?.flight]) {
      if (flight === undefined || this.#parts.signal.reached(flight.number)) continue;
      if (writtenBlocks(flight.batch).has(block)) this.#parts.signal.wait(flight.number, this.#parts.stream);
    }
    if (change) this.#guess?.changed.add(block);
  }

  /** Forgets the graphs: what they point to moves. Nothing may run. */
  dropGraphs(): void {
    for (const graphs of this.#sides.flatMap((side) => [side.graphs, side.residentGraphs])) {
      for (const graph of graphs.values()) graph[Symbol.dispose]();
      graphs.clear();
    }
  }

  /** Frees memory and graphs. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }

  /** The size that a batch is captured in; undefined when it is not. */
  #bucketOf(batch: readonly StepSequence[]): number | undefined {
    const { graphs } = this.#parts;
    return graphs && isDecode(batch) ? decodeBucket(batch.length, this.#most) : undefined;
  }

  #takeTime({ side: { marks } }: Flight): void {
    if (marks === undefined || this.#epoch === undefined) return;
    marks.ended.synchronize();
    this.#times = { beganMs: marks.began.msSince(this.#epoch), endedMs: marks.ended.msSince(this.#epoch) };
  }

  /** The guess, when it is this batch, and the row of each row in it. */
  #serve(batch: readonly StepSequence[]): { readonly flight: Flight; readonly rowOf: number[] } | undefined {
    if (this.#guess === undefined) return undefined;
    const { flight, sources, changed } = this.#guess;
    const { sampled } = flight;
    if (sampled !== undefined) {
      // The tokens were chosen right behind the step that the caller has read.
      while (!this.#ring.has(sampled)) if (this.#parts.stream.idle) break;
      if (!this.#ring.has(sampled)) return undefined;
    }
    if (changed.size > 0 && flight.batch.some((sequence) => reads(sequence, changed))) return undefined;
    const guessed = flight.batch.map((sequence, index): GuessedSequence => {
      const source = sources[index];
      if (source === undefined || sampled === undefined) return { sequence };
      const { outcome } = this.#ring.result(sampled, source);
      return { sequence, chosen: { token: outcome.kind === "chosen" ? outcome.id : undefined } };
    });
    const rowOf = matchGuess(batch, guessed);
    return rowOf && { flight, rowOf };
  }

  /** A side that no step on its way uses, with room for so many rows. */
  #freeSide(rows: number): Side {
    // The side of a dropped guess may still be in use; the other one's step was waited for.
    if (this.#dropped?.side !== this.#sides[0]) return this.#sides[0];
    if (rows <= this.#most) return this.#sides[1];
    this.settle();
    return this.#sides[0];
  }

  /** Whether a step can be begun behind another one. */
  #canBegin(
    batch: readonly StepSequence[],
    { behind, flight }: { readonly behind: FollowingStep; readonly flight: Flight },
  ): boolean {
    const rows = behind.batch.reduce((sum, sequence) => sum + logitRows(sequence), 0);
    return this.#sample !== undefined && rows <= this.#most && flight.plan.capacity.rows <= LARGEST_BUCKET &&
      canFollow(batch, behind) && this.#parts.tables.sizeFor(behind.batch) === undefined;
  }

  /** Begins the step behind `flight`, the row of whose logits that is row i of the batch is `rowOf[i]`. */
  *#beginAhead(
    flight: Flight,
    { batch, behind, rowOf, turns }: {
      readonly batch: readonly StepSequence[];
      readonly behind: FollowingStep;
      readonly rowOf: readonly number[] | undefined;
      readonly turns: CudaTurns;
    },
  ): Generator<StepStop, Guess> {
    const last = lastRows(batch);
    const sources = behind.sources.map((source) =>
      source === undefined ? undefined : rowOf?.[last[source]] ?? last[source]
    );
    const sample = sources.some((source) => source !== undefined) ? this.#sample : undefined;
    const front = sample && { flight, sample, rows: sampleRows(flight, { batch, behind, sources }) };
    const side = this.#sides[flight.side === this.#sides[0] ? 1 : 0];
    return {
      flight: yield* this.#begin(side, { batch: behind.batch, front, ahead: true, turns }),
      sources,
      changed: new Set(),
    };
  }

  /** Plans a step and enqueues it. */
  *#begin(
    side: Side,
    { batch, front, ahead = false, turns }: {
      readonly batch: readonly StepSequence[];
      readonly front?: Front;
      /** Whether another step may still run. */
      readonly ahead?: boolean;
      readonly turns: CudaTurns;
    },
  ): Generator<StepStop, Flight> {
    const { signal, tables, attention, stream } = this.#parts;
    const bucket = this.#bucketOf(batch);
    const mixed = bucket === undefined ? attention.plan(batch, tables.width) : undefined;
    const samplesAt = mixed === undefined ? 0 : Math.ceil(mixed.words.length / PART_WORDS) * PART_WORDS;
    const extra = new Int32Array(samplesAt + (front?.rows.length ?? 0));
    if (mixed !== undefined) extra.set(mixed.words);
    if (front !== undefined) extra.set(front.rows, samplesAt);
    const patches = bucket === undefined
      ? tables.update(batch)
      : tables.updateWithin(batch, { most: bucketCapacity(bucket).patches, ahead });
    const capacity: PlanCapacity = bucket === undefined
      ? { ...sizesOf(batch), patches: patches.length / 2, extra: extra.length }
      : { ...bucketCapacity(bucket), extra: extra.length };
    const staging = bucket === undefined ? side.plain : side.captured;
    const places = planPlaces(capacity);
    staging.reserve(4 * places.words);
    const number = signal.next();
    writePlan(
      new Int32Array(staging.memory, 0, places.words),
      { step: number, batch, patches, extra },
      capacity,
    );
    stream.copy(staging.device(), staging.host(), 4 * places.words);
    const plan: DevicePlan = {
      capacity,
      places,
      address: staging.device(),
      tables: tables.address,
      tableWidth: tables.width,
      overlap: this.#parts.overlap,
    };
    const sampled = front && this.#choose(front, { plan, samplesAt });
    if (side.marks !== undefined) stream.record(side.marks.began);
    if (mixed === undefined) this.#startCaptured(side, plan, batch);
    else yield* this.#enqueue(side, { plan, mixed, turns });
    if (side.marks !== undefined) stream.record(side.marks.ended);
    return { side, plan, number, batch, sampled };
  }

  /** Has the GPU choose the tokens of a step whose plan is sent. */
  #choose(
    { flight, sample, rows }: Front,
    { plan, samplesAt }: { readonly plan: DevicePlan; readonly samplesAt: number },
  ): number {
    const { lse, ids, top } = flight.side.summaries.places;
    sample.launch(this.#parts.stream, {
      rows: planAddress(plan, plan.places.extra + samplesAt),
      logits: flight.side.logits,
      lse,
      ids,
      top,
      count: planAddress(flight.plan, flight.plan.places.rowCount),
      tokens: planAddress(plan, plan.places.tokens),
      inputTokens: plan.capacity.tokens,
      state: this.#sampleState.address,
      ring: this.#ringMemory.address,
      ringSize: this.#ring.size,
      maxRows: rows.length / SAMPLE_ROW_WORDS,
    });
    this.#sampled = (this.#sampled + 1) >>> 0;
    return this.#sampled;
  }

  /** Enqueues a captured step whose plan is sent. */
  #startCaptured(side: Side, plan: DevicePlan, batch: readonly StepSequence[]): void {
    const { stream, resident } = this.#parts;
    const { tokens } = plan.capacity;
    const longest = batch.reduce((most, { position }) => Math.max(most, position + 1), 0);
    const taken = resident?.takes({ tokens, longest }) ? resident : undefined;
    const graphs = taken === undefined ? side.graphs : side.residentGraphs;
    const graph = graphs.get(tokens);
    if (graph !== undefined) return graph.launch(stream);
    // The first step of its size runs as it is: what libraries load when it is first used cannot be captured.
    this.#enqueueDecode(side, plan, taken);
    graphs.set(tokens, stream.capture(() => this.#enqueueDecode(side, plan, taken)));
  }

  /** Everything of a step of single tokens behind the copy of its plan, to its signal. */
  #enqueueDecode(side: Side, plan: DevicePlan, resident: CudaResident | undefined): void {
    this.#patchTables(plan);
    if (resident !== undefined) resident.run(this.#parts.stream, plan);
    else enqueueDecodeLayers(this.#parts, plan);
    this.#enqueueEnd(side, plan);
  }

  /** The same for any other step, in turns. */
  *#enqueue(
    side: Side,
    { plan, mixed, turns }: { readonly plan: DevicePlan; readonly mixed: MixedPlan; readonly turns: CudaTurns },
  ): Generator<StepStop, void> {
    const { config, forward, attention, store, stream, trim } = this.#parts;
    if (plan.capacity.patches > 0) this.#patchTables(plan);
    attention.prepare(stream, plan, mixed);
    forward.begin(stream, plan);
    let rest = plan;
    for (let layer = 0; layer < config.layers; layer++) {
      yield* turns.spend(forward.layerWork(plan.capacity.tokens));
      forward.project(stream, layer, plan);
      const last = trim && layer === config.layers - 1;
      // Behind the last layer's keys and values nothing counts but what logits are made of.
      if (last && plan.capacity.rows === 0) break;
      attention.attend(stream, { plan, forward, pool: store.pool.layer(layer) }, mixed);
      if (last) rest = forward.keepWanted(stream, plan, store.plans);
      forward.finish(stream, layer, rest);
    }
    this.#enqueueEnd(side, rest);
  }

  #patchTables(plan: DevicePlan): void {
    this.#parts.store.plans.patchTables(this.#parts.stream, {
      count: planAddress(plan, plan.places.patchCount),
      pairs: planAddress(plan, plan.places.patches),
      tables: plan.tables,
      most: plan.capacity.patches,
    });
  }

  #enqueueEnd({ logits, summaries }: Side, plan: DevicePlan): void {
    const { forward, store, stream, signal } = this.#parts;
    forward.head(stream, plan, { logits, ...summaries.places });
    store.plans.signalDone(stream, { step: planAddress(plan, plan.places.step), word: signal.address });
  }
}

/** The layers of a step of single tokens, a kernel for each of their parts: from its tokens to the residual stream. */
export function enqueueDecodeLayers(
  { config, forward, attention, store, stream }: Pick<
    CudaWholeParts,
    "config" | "forward" | "attention" | "store" | "stream"
  >,
  plan: DevicePlan,
): void {
  attention.planDecode(stream, plan);
  forward.begin(stream, plan);
  for (let layer = 0; layer < config.layers; layer++) {
    forward.project(stream, layer, plan);
    attention.attendDecode(stream, { plan, forward, pool: store.pool.layer(layer) });
    forward.finish(stream, layer, plan);
  }
}

/** Tokens, sequences and rows of a batch. */
function sizesOf(batch: readonly StepSequence[]): Pick<PlanCapacity, "tokens" | "sequences" | "rows"> {
  let [tokens, rows] = [0, 0];
  for (const sequence of batch) {
    tokens += sequence.tokens.length;
    rows += logitRows(sequence);
  }
  return { tokens, sequences: batch.length, rows };
}

/** Rows to be sampled behind `flight`: those of sequences that go on, at the places of their tokens. */
function sampleRows(
  flight: Flight,
  { batch, behind, sources }: {
    readonly batch: readonly StepSequence[];
    readonly behind: FollowingStep;
    /** Rows of the logits by sequence of the step behind. */
    readonly sources: readonly (number | undefined)[];
  },
): Int32Array {
  const words = new Int32Array(SAMPLE_ROW_WORDS * flight.plan.capacity.rows);
  const bytes = new Uint8Array(words.buffer);
  const place = (row: number) => bytes.subarray(SAMPLE_ROW_BYTES * row, SAMPLE_ROW_BYTES * (row + 1));
  for (let row = 0; row < flight.plan.capacity.rows; row++) {
    writeSampleRow(place(row), { mode: { kind: "host" }, accepted: 0 });
  }
  let slot = 0;
  for (const [index, { tokens }] of behind.batch.entries()) {
    const [row, source] = [sources[index], behind.sources[index]];
    const next = source === undefined ? undefined : batch[source].next;
    if (row !== undefined && next !== undefined) writeSampleRow(place(row), { ...next, slot });
    slot += tokens.length;
  }
  return words;
}

/** Whether a sequence's blocks are among these. */
function reads({ blocks }: StepSequence, among: ReadonlySet<number>): boolean {
  for (let i = 0; i < blocks.length; i++) if (among.has(blocks[i])) return true;
  return false;
}
