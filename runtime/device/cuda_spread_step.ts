/**
 * The layers of a step of which some segments are elsewhere: queries go out, partials come in.
 *
 * @module
 */
import type { CudaContext, CudaStream, DevicePtr, PinnedBuffer } from "../../ffi/cuda/cuda.ts";
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { ModelConfig } from "../model/model.ts";
import { addressAt } from "./cuda_address.ts";
import type { CudaAttention } from "./cuda_attention.ts";
import type { CudaForward } from "./cuda_forward.ts";
import type { CudaKvStore } from "./cuda_kv_store.ts";
import { type DevicePlan, planAddress } from "./cuda_plan.ts";
import type { CudaSignal } from "./cuda_signal.ts";
import type { SpreadPlan } from "./cuda_spread.ts";
import { CudaStaging } from "./cuda_staging.ts";
import type { CudaTurns } from "./cuda_turns.ts";
import type { StepSequence, StepStop } from "./device.ts";

/** Memory of spread steps, one step at a time. */
export class CudaSpreadMemory implements Disposable {
  /** Partials: o of all slots, then lse of all slots. */
  readonly partials: CudaStaging;
  readonly #context: CudaContext;
  #queries: PinnedBuffer | undefined;

  /** Nothing yet. */
  constructor(context: CudaContext) {
    this.#context = context;
    this.partials = new CudaStaging(context);
  }

  /** Host memory for `bytes` bytes of queries. Nothing may be on the way there. @throws {CudaError} */
  queries(bytes: number): PinnedBuffer {
    if (this.#queries === undefined || this.#queries.bytes < bytes) {
      this.#queries?.[Symbol.dispose]();
      this.#queries = undefined;
      this.#queries = this.#context.pinned(2 ** Math.ceil(Math.log2(bytes)));
    }
    return this.#queries;
  }

  /** Frees it. */
  [Symbol.dispose](): void {
    this.partials[Symbol.dispose]();
    this.#queries?.[Symbol.dispose]();
  }
}

/** Queries of jobs begin at a multiple of this behind the partials. */
const ALIGNMENT = 256;

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** What a spread step stands on. */
export interface CudaSpreadParts {
  /** Sizes. */
  readonly config: ModelConfig;
  /** The layers. */
  readonly forward: CudaForward;
  /** Attention to whole sequences. */
  readonly attention: CudaAttention;
  /** The pool. */
  readonly store: CudaKvStore;
  /** Where it runs. */
  readonly stream: CudaStream;
  /** Tells that queries are there. */
  readonly signal: CudaSignal;
  /** Its memory. */
  readonly memory: CudaSpreadMemory;
  /** Its turns. */
  readonly turns: CudaTurns;
  /** Its sequences. */
  readonly batch: readonly StepSequence[];
  /** The plan on the device; its extra words are `spread.words`, then the plan of the chunks. */
  readonly plan: DevicePlan;
  /** Items of the chunks. */
  readonly chunkItems: number;
  /** Who attends to what. */
  readonly spread: SpreadPlan;
  /** Multiply-accumulates of one layer. */
  readonly layerWork: number;
}

/** Runs the layers of one spread step. */
export class CudaSpreadStep {
  readonly #parts: CudaSpreadParts;
  readonly #width: number;
  readonly #queries: PinnedBuffer;

  /** Takes memory. @throws {CudaError} when there is not enough. */
  constructor(parts: CudaSpreadParts) {
    const { config: { heads, headDim }, memory, spread } = parts;
    this.#parts = parts;
    this.#width = heads * headDim;
    this.#queries = memory.queries(4 * this.#width * spread.tokens);
    memory.partials.reserve(
      aligned(4 * spread.slots * (this.#width + heads)) + 2 * spread.jobs * this.#width,
    );
  }

  /** Queries of a sequence in the current layer. */
  queries(index: number): Float32Array {
    const { batch, spread, forward, stream } = this.#parts;
    const count = this.#width * batch[index].tokens.length;
    const row = spread.firstRow[index];
    if (row !== undefined) return new Float32Array(this.#queries.buffer, 4 * this.#width * row, count);
    const first = batch.slice(0, index).reduce((sum, { tokens }) => sum + tokens.length, 0);
    const stored = new Uint16Array(count);
    stream.copyFromDevice(new Uint8Array(stored.buffer), addressAt(forward.queries, 2 * this.#width * first));
    return new Float32Array(Uint32Array.from(stored, (bits) => bits << 16).buffer);
  }

  /** Takes the partial of a node from elsewhere. */
  store(index: number, node: number, { o, lse }: AttentionPartial): void {
    const { spread: { slots, slotOf }, config: { heads }, memory: { partials } } = this.#parts;
    const slot = slotOf[index][node];
    new Float32Array(partials.memory, 4 * slot * this.#width, o.length).set(o);
    new Float32Array(partials.memory, 4 * (slots * this.#width + slot * heads), lse.length).set(lse);
  }

  /** Runs the layers; stops for queries and partials. */
  *layers(): Generator<StepStop, void> {
    const { config, forward, attention, store, stream, signal, turns, plan, spread, chunkItems, layerWork } =
      this.#parts;
    const { plans, pool } = store;
    const { places } = spread;
    const words = (word: number) => planAddress(plan, plan.places.extra + word);
    attention.prepareJobs(stream, {
      count: spread.jobs,
      lengths: words(places.jobLengths),
      tables: words(places.jobTables),
      entries: plan.tables,
    });
    for (let layer = 0; layer < config.layers; layer++) {
      yield* turns.spend(layerWork);
      forward.project(stream, layer, plan);
      plans.queriesOut(stream, {
        q: forward.queries,
        tokens: words(places.tokens),
        out: this.#queries.address,
        rows: spread.tokens,
        width: this.#width,
      });
      const number = signal.next();
      plans.signalValue(stream, { value: number, word: signal.address });
      yield* turns.wait(number);
      yield { kind: "queries", layer };
      const at = pool.layer(layer);
      const { o, lse } = this.#slots();
      if (spread.whole) {
        attention.attendTokens(stream, { plan, forward, pool: at }, plan.places.extra + places.wholeTables);
      }
      store.attention.attendTasks(stream, {
        ...at,
        tasks: spread.tasks,
        q: forward.queries,
        tables: plan.tables,
        taskList: words(places.tasks),
        o,
        lse,
      });
      this.#attendJobs(layer);
      attention.attendChunks(stream, { plan, forward, pool: at }, {
        items: chunkItems,
        words: plan.places.extra + spread.words.length,
        partial: { o, lse },
      });
      yield { kind: "partials", layer };
      this.#send();
      store.attention.mergeNodes(stream, {
        tokens: spread.lists,
        lists: words(places.lists),
        nodes: words(places.nodes),
        out: forward.attended,
        o,
        lse,
      });
      forward.finish(stream, layer, plan);
    }
  }

  /** Attention of single tokens to their nodes here. */
  #attendJobs(layer: number): void {
    const { attention, forward, store, stream, plan, spread: { jobs, places, remoteSlots } } = this.#parts;
    if (jobs === 0) return;
    const q = this.#jobQueries();
    store.plans.queriesGather(stream, {
      q: forward.queries,
      tokens: planAddress(plan, plan.places.extra + places.jobTokens),
      out: q,
      rows: jobs,
      width: this.#width,
    });
    const { o, lse } = this.#slots();
    attention.attendJobs(stream, {
      ...store.pool.layer(layer),
      q,
      o: addressAt(o, 4 * remoteSlots * this.#width),
      lse: addressAt(lse, 4 * remoteSlots * this.#parts.config.heads),
    });
  }

  /** Where the queries of the jobs go: behind the partials. */
  #jobQueries(): DevicePtr {
    const { spread: { slots }, config: { heads }, memory: { partials } } = this.#parts;
    return partials.device(aligned(4 * slots * (this.#width + heads)));
  }

  #slots() {
    const { spread: { slots }, memory: { partials } } = this.#parts;
    return { o: partials.device(), lse: partials.device(4 * slots * this.#width) };
  }

  /** Sends the partials from elsewhere to the device. */
  #send(): void {
    const { spread: { slots, remoteSlots }, config: { heads }, stream, memory: { partials } } = this.#parts;
    const lseAt = 4 * slots * this.#width;
    stream.copy(partials.device(), partials.host(), 4 * remoteSlots * this.#width);
    stream.copy(partials.device(lseAt), partials.host(lseAt), 4 * remoteSlots * heads);
  }
}
