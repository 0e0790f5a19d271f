/**
 * Launches of `attend_decode.cu`: attention of one query token a job over the paged pool, at the speed of the memory.
 *
 * @module
 */
import type { CudaContext, CudaFunction, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import { kvDefines } from "../kv_copy/pool_layout.ts";
import type { AttendPlainShape, PoolLayer } from "./attend_plain_cuda.ts";
import { DecodeLayout } from "./decode_layout.ts";
import planSource from "./attend_decode_plan.cu" with { type: "text" };
import source from "./attend_decode.cu" with { type: "text" };

const PLAN_THREADS = 256;
/** Constants of the plan's model for pages of half the bytes: it takes more CTAs to use all of the memory rate. */
const FP8_PLAN = { SATURATE: "140.f" } as const;
/** Words of one node of a list: query row, first word in the tables, pages, output row. */
export const DECODE_NODE_WORDS = 4;
/** No array. */
const NULL = 0n as DevicePtr;

/** What a plan is made over: the first tokens of sequences. */
export interface DecodeSequences {
  /** Sequences, at most the plan's `jobs`; fixes the launch, lengths do not. */
  readonly count: number;
  /** Tokens attended to, i32 [count]; 0 gives o = 0 and lse = -Infinity. */
  readonly lengths: DevicePtr;
  /** Block tables, i32 [rows, tableWidth]; entries behind the last page are not read. */
  readonly tables: DevicePtr;
  /** Entries of a table. */
  readonly tableWidth: number;
  /** Table of each sequence, i32 [count]; below 0 for padding, a sequence of no tokens. @default {sequence i has table i} */
  readonly rows?: DevicePtr;
  /** Row of queries and results of each sequence, i32 [count]. @default {sequence i has row i} */
  readonly queries?: DevicePtr;
}

/** What a plan is made over: nodes of the merge tree, all of whose tokens are attended to. */
export interface DecodeNodes {
  /** Nodes, at most the plan's `jobs`. */
  readonly count: number;
  /** Nodes, {@linkcode DECODE_NODE_WORDS} i32 each, aligned to 16 bytes; pages are a power of two, at least 1. */
  readonly nodes: DevicePtr;
  /** Block ids, i32. */
  readonly tables: DevicePtr;
}

/** One layer of a plan. */
export interface DecodeLayer extends PoolLayer {
  /** Queries, bf16 [rows, heads, headDim], rotated, not scaled. */
  readonly q: DevicePtr;
  /** Results as bf16 [rows, heads, headDim]. @default {not written} */
  readonly out?: DevicePtr;
  /** Results as f32 [rows, heads, headDim]. @default {not written} */
  readonly o?: DevicePtr;
  /** Their log-sum-exp, f32 [rows, heads], natural logarithm. @default {not written} */
  readonly lse?: DevicePtr;
  /** Whether the launch may begin before its predecessor has ended. @default {false} */
  readonly programmatic?: boolean;
  /**
   * Whether, in a programmatic launch, pages may be fetched before the predecessor has ended: all but the last of each
   * sequence. Then everything before the predecessor must have ended when it lets this launch begin, the plan's launch
   * among it, and the predecessor must write no page but the last.
   *
   * @default {false}
   */
  readonly early?: boolean;
}

/** The compiled kernels for one shape. */
export class AttendDecode {
  /** Sizes. */
  readonly layout: DecodeLayout;
  readonly #context: CudaContext;
  readonly #plan: CudaFunction;
  readonly #attend: CudaFunction;

  /**
   * Compiles or finds them.
   *
   * @throws {RangeError} when more than 16 query heads share a KV head, or the head is odd or wider than 256.
   * @throws {Error} when the GPU has no bulk copies (compute capability below 9.0).
   */
  constructor(context: CudaContext, kernels: KernelCache, shape: AttendPlainShape) {
    const { major, multiprocessors } = context.properties;
    if (major < 9) {
      throw new Error(`Cannot load attend_decode: wanted compute capability 9.0 or newer, got ${major}`);
    }
    this.layout = new DecodeLayout(shape, multiprocessors);
    this.#context = context;
    const { group, stages, ctasPerMultiprocessor, sharedBytes } = this.layout;
    const defines = {
      HEAD_DIM: shape.headDim,
      GROUP: group,
      STAGES: stages,
      CTAS: ctasPerMultiprocessor,
      ...kvDefines(shape.kvType),
    };
    const [plan, attend] = kernels.modules([
      { name: "attend_decode_plan", source: planSource, defines: shape.kvType === "fp8" ? FP8_PLAN : {} },
      { name: "attend_decode", source, defines },
    ]);
    this.#plan = plan.function("attend_decode_plan");
    this.#attend = attend.function("attend_decode");
    this.#attend.setSharedBytes(sharedBytes);
  }

  /** Makes an empty plan for up to `jobs` sequences or nodes. @throws {RangeError} @throws {CudaError} */
  plan(jobs: number): DecodePlan {
    return new DecodePlan(this.#context, this.layout, { jobs, plan: this.#plan, attend: this.#attend });
  }
}

/**
 * How the work of a step is spread over the GPU, made on the GPU from lengths that lie there and used by every layer. Owns
 * the workspace of its launches, which must therefore follow one another.
 */
export class DecodePlan implements Disposable {
  /** Sequences or nodes there is room for. */
  readonly jobs: number;
  readonly #layout: DecodeLayout;
  readonly #plan: CudaFunction;
  readonly #attend: CudaFunction;
  readonly #memory: DeviceBuffer;
  readonly #entryNodes: number;
  #tables: DevicePtr = NULL;

  /** Allocates; {@linkcode AttendDecode.plan} makes these. @throws {RangeError} @throws {CudaError} */
  constructor(
    context: CudaContext,
    layout: DecodeLayout,
    options: { readonly jobs: number; readonly plan: CudaFunction; readonly attend: CudaFunction },
  ) {
    this.jobs = options.jobs;
    this.#layout = layout;
    this.#plan = options.plan;
    this.#attend = options.attend;
    this.#entryNodes = layout.entryNodes(this.jobs);
    this.#memory = context.alloc(layout.workspaceBytes(this.jobs));
    using stream = context.stream();
    const slots = layout.places.slots(this.jobs);
    stream.fill(this.#memory.address, 0, slots);
    stream.fill(this.#memory.at(slots), 0xff, this.#memory.bytes - slots);
    stream.synchronize();
  }

  /**
   * Enqueues planning over sequences.
   *
   * @param level Cuts into nodes of 2^level pages, or of more where they would not fit the workspace, instead of what is
   * thought best; results have the same bits.
   * @throws {RangeError} when there are more sequences than there is room for.
   */
  sequences(stream: CudaStream, work: DecodeSequences, level?: number): void {
    const { count, lengths, tables, tableWidth, rows = NULL, queries = NULL } = work;
    this.#launch(stream, { count, lengths, rows, queries, tableWidth, nodes: NULL, tables, level });
  }

  /** Enqueues planning over nodes. @throws {RangeError} when there are more nodes than there is room for. */
  nodes(stream: CudaStream, { count, nodes, tables }: DecodeNodes): void {
    this.#launch(stream, { count, lengths: NULL, rows: NULL, queries: NULL, tableWidth: 0, nodes, tables });
  }

  /** Enqueues attention of one layer of what was planned last. @throws {Error} when nothing was. */
  attend(stream: CudaStream, work: DecodeLayer): void {
    const { layer, blockBytes, q, out = NULL, o = NULL, lse = NULL, programmatic = false, early = false } = work;
    if (this.#tables === NULL) throw new Error("Cannot attend: wanted a plan, got none");
    const { shape: { kvHeads, headDim }, ctas, threads, sharedBytes, places } = this.#layout;
    stream.launch(this.#attend, {
      grid: [ctas],
      block: [threads],
      sharedBytes,
      args: [
        { ptr: layer },
        { u64: BigInt(blockBytes) },
        { ptr: this.#tables },
        { ptr: q },
        { ptr: this.#memory.at(places.header) },
        { ptr: this.#memory.at(places.entries) },
        { ptr: this.#memory.at(places.tickets) },
        { ptr: this.#memory.at(places.arrivals) },
        { ptr: this.#memory.at(places.slots(this.jobs)) },
        { ptr: out },
        { ptr: o },
        { ptr: lse },
        { i32: kvHeads },
        { f32: 1 / Math.sqrt(headDim) },
        { i32: programmatic && early ? 1 : 0 },
      ],
      programmatic,
    });
  }

  /** Frees the workspace. Idempotent. */
  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }

  #launch(
    stream: CudaStream,
    { count, lengths, rows, queries, tableWidth, nodes, tables, level = -1 }: {
      readonly count: number;
      readonly lengths: DevicePtr;
      readonly rows: DevicePtr;
      readonly queries: DevicePtr;
      readonly tableWidth: number;
      readonly nodes: DevicePtr;
      readonly tables: DevicePtr;
      readonly level?: number;
    },
  ): void {
    if (!Number.isInteger(count) || count < 0 || count > this.jobs) {
      throw new RangeError(`Cannot plan attention: wanted at most ${this.jobs} sequences or nodes, got ${count}`);
    }
    const { shape: { kvHeads }, ctas, slotNodes, places, alone } = this.#layout;
    this.#tables = tables;
    stream.launch(this.#plan, {
      grid: [1],
      block: [PLAN_THREADS],
      sharedBytes: (3 * count + 3) * 4,
      args: [
        { ptr: lengths },
        { ptr: rows },
        { ptr: queries },
        { i32: tableWidth },
        { ptr: nodes },
        { ptr: tables },
        { i32: count },
        { i32: kvHeads },
        { i32: ctas },
        { i32: slotNodes },
        { i32: this.#entryNodes },
        { i32: level },
        { i32: alone ? 1 : 0 },
        { ptr: this.#memory.at(places.header) },
        { ptr: this.#memory.at(places.entries) },
      ],
    });
  }
}
