/**
 * Attention of a step's tokens to their own sequences: which kernel runs, and what it reads besides the plan.
 *
 * @module
 */
import type { CudaContext, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import { AttendDecode, type DecodePlan } from "../../kernels/attend_partial/attend_decode_cuda.ts";
import type { AttendPlain, PoolLayer } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { AttendPrefill } from "../../kernels/attend_partial/attend_prefill_cuda.ts";
import { MAX_DECODE_GROUP } from "../../kernels/attend_partial/decode_layout.ts";
import type { PrefillChunk } from "../../kernels/attend_partial/prefill_plan.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import type { CudaForward } from "./cuda_forward.ts";
import { type DevicePlan, planAddress } from "./cuda_plan.ts";
import { cudaKvType } from "./cuda_pool.ts";
import type { KvLayout, StepSequence } from "./device.ts";

/** Most jobs of the decode kernel in a step that is not captured. */
const MOST_JOBS = 1024;
/** Parts of a plan begin at multiples of this many words. */
const PART_WORDS = 4;

/** What attention stands on; it stays the caller's. */
export interface CudaAttentionParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Shape of the pool. */
  readonly layout: KvLayout;
  /** The kernel that does what others cannot. */
  readonly plain: AttendPlain;
  /** Whether everything is computed in one order. */
  readonly deterministic: boolean;
  /** Most sequences of a captured step. */
  readonly sequences: number;
}

/** The kernels that were made for a GPU and a shape; the plain one does what they cannot. */
export interface AttentionKernels {
  /** For several tokens a sequence. */
  readonly prefill: boolean;
  /** For one token a sequence. */
  readonly decode: boolean;
}

/** Which kernels can do a shape on a GPU of this compute capability. */
export function attentionKernels(major: number, { heads, kvHeads, headDim, kvType }: KvLayout): AttentionKernels {
  return {
    // Of fp8, only the kernel of one generation reads pages.
    prefill: headDim % 8 === 0 && (kvType === "bf16" || major === 9 && headDim <= 128),
    decode: major >= 9 && headDim % 2 === 0 && heads / kvHeads <= MAX_DECODE_GROUP,
  };
}

/**
 * Whether the kernels for several tokens and for one give a token the same bits on a GPU of this compute capability, so that a
 * deterministic device can run them too.
 */
export function exactKernels(major: number, layout: KvLayout): boolean {
  const { prefill, decode } = attentionKernels(major, layout);
  return prefill && decode && major === 9 && layout.headDim <= 128 && layout.kvType === "bf16";
}

/** What the attention of a step of whole sequences reads beside the plan: single tokens by one kernel, more by another. */
export interface MixedPlan {
  /** Extra words of the plan: lengths and query rows of the jobs, then the chunks. */
  readonly words: Int32Array<ArrayBuffer>;
  /** Jobs: one for each sequence, of no tokens where it has several; or none at all. */
  readonly jobs: number;
  /** Words of the lengths, and of the rows. */
  readonly part: number;
  /** Items of the chunks. */
  readonly items: number;
}

function isSingle({ tokens }: StepSequence): boolean {
  return tokens.length === 1;
}

/** One layer of a step. */
export interface AttendLayer {
  /** The plan. */
  readonly plan: DevicePlan;
  /** Queries and where results go. */
  readonly forward: CudaForward;
  /** The layer of the pool. */
  readonly pool: PoolLayer;
}

/** Attention of steps whose segments are all in the pool. */
export class CudaAttention implements Disposable {
  readonly #plain: AttendPlain;
  readonly #prefill: AttendPrefill | undefined;
  readonly #decode: DecodePlan | undefined;
  /** For steps that are not captured. */
  readonly #jobs: DecodePlan | undefined;
  readonly #opened: DisposableStack;

  /** Compiles or finds the kernels. */
  constructor({ context, kernels, layout, plain, deterministic, sequences }: CudaAttentionParts) {
    using opened = new DisposableStack();
    this.#plain = plain;
    const { heads, kvHeads, headDim } = layout;
    const shape = { heads, kvHeads, headDim, kvType: cudaKvType(layout) };
    const { major } = context.properties;
    const { prefill, decode } = attentionKernels(major, layout);
    const fast = !deterministic || exactKernels(major, layout);
    if (fast && prefill) {
      const variant = deterministic ? "tree" : undefined;
      this.#prefill = opened.use(new AttendPrefill(context, { kernels, shape, variant }));
    }
    if (fast && decode) {
      const kernel = new AttendDecode(context, kernels, shape);
      this.#decode = opened.use(kernel.plan(sequences));
      this.#jobs = opened.use(kernel.plan(MOST_JOBS));
    }
    this.#opened = opened.move();
  }

  /** The kernels that run beside the plain one. */
  get kernels(): AttentionKernels {
    return { prefill: this.#prefill !== undefined, decode: this.#jobs !== undefined };
  }

  /** Plans a step of whole sequences; sequence i uses table i of `tableWidth`. */
  plan(batch: readonly StepSequence[], tableWidth: number): MixedPlan {
    const fits = this.#prefill !== undefined && batch.length <= this.mostJobs;
    const decoded = fits ? isSingle : () => false;
    const jobs = batch.some(decoded) ? batch.length : 0;
    const lengths: number[] = [];
    const rows: number[] = [];
    const chunks: PrefillChunk[] = [];
    let token = 0;
    for (const [index, sequence] of batch.entries()) {
      const { tokens: { length: tokens }, position } = sequence;
      rows.push(token);
      lengths.push(decoded(sequence) ? position + 1 : 0);
      if (!decoded(sequence)) {
        const output = { kind: "final", row: token } as const;
        chunks.push({ queryRow: token, tokens, position, table: index * tableWidth, output });
      }
      token += tokens;
    }
    const chunkWords = this.planChunks(chunks);
    const part = jobs === 0 ? 0 : Math.ceil(jobs / PART_WORDS) * PART_WORDS;
    const words = new Int32Array(2 * part + chunkWords.length);
    if (jobs > 0) {
      words.set(lengths);
      words.set(rows, part);
    }
    words.set(chunkWords, 2 * part);
    return { words, jobs, part, items: this.#items(chunkWords) };
  }

  /** Spreads the work of a planned step's single tokens over the GPU, for all its layers. */
  prepare(stream: CudaStream, plan: DevicePlan, { jobs, part }: MixedPlan): void {
    if (jobs === 0) return;
    this.#jobs?.sequences(stream, {
      count: jobs,
      lengths: planAddress(plan, plan.places.extra),
      queries: planAddress(plan, plan.places.extra + part),
      tables: plan.tables,
      tableWidth: plan.tableWidth,
    });
  }

  /** Attends for a step that was planned and prepared. */
  attend(stream: CudaStream, { plan, forward, pool }: AttendLayer, { jobs, part, items }: MixedPlan): void {
    if (this.#prefill === undefined) {
      this.attendTokens(stream, { plan, forward, pool });
      return;
    }
    // Where a sequence has several tokens this leaves 0 for the first one, and the next launch what counts.
    if (jobs > 0) this.#jobs?.attend(stream, { ...pool, q: forward.queries, out: forward.attended });
    this.attendChunks(stream, { plan, forward, pool }, { items, words: plan.places.extra + 2 * part });
  }

  /** What the kernel for several tokens a sequence reads: words of a plan; none when there is nothing for it. */
  planChunks(chunks: readonly PrefillChunk[]): Int32Array<ArrayBuffer> {
    return chunks.length === 0 || this.#prefill === undefined ? new Int32Array(0) : this.#prefill.plan(chunks);
  }

  /** Attends to chunks that were planned; `words` is the first word of their plan. */
  attendChunks(
    stream: CudaStream,
    { plan, forward, pool }: AttendLayer,
    { items, words, partial }: {
      readonly items: number;
      readonly words: number;
      readonly partial?: { readonly o: DevicePtr; readonly lse: DevicePtr };
    },
  ): void {
    if (items === 0) return;
    this.#prefill?.launch(stream, {
      ...pool,
      q: forward.queries,
      table: plan.tables,
      plan: planAddress(plan, words),
      items,
      out: forward.attended,
      partial,
      programmatic: plan.overlap,
    });
  }

  /** Items of a plan of chunks. */
  chunkItems(words: Int32Array): number {
    return this.#items(words);
  }

  /** Most jobs of a step with absent segments. */
  get mostJobs(): number {
    return this.#jobs?.jobs ?? 0;
  }

  /** Spreads attention of single queries to ranges over the GPU, for all layers: `tables` are words of `entries`. */
  prepareJobs(
    stream: CudaStream,
    work: {
      readonly count: number;
      readonly lengths: DevicePtr;
      readonly tables: DevicePtr;
      readonly entries: DevicePtr;
    },
  ): void {
    if (work.count === 0) return;
    this.#jobs?.sequences(stream, {
      count: work.count,
      lengths: work.lengths,
      rows: work.tables,
      tables: work.entries,
      tableWidth: 1,
    });
  }

  /** Attends for the jobs that were prepared; row i of the queries and the results is job i's. */
  attendJobs(
    stream: CudaStream,
    work: PoolLayer & { readonly q: DevicePtr; readonly o: DevicePtr; readonly lse: DevicePtr },
  ): void {
    this.#jobs?.attend(stream, work);
  }

  /** Spreads the work of a step with one token a sequence over the GPU, for all its layers. */
  planDecode(stream: CudaStream, plan: DevicePlan): void {
    this.#decode?.sequences(stream, {
      count: plan.capacity.sequences,
      lengths: planAddress(plan, plan.places.lengths),
      tables: plan.tables,
      tableWidth: plan.tableWidth,
    });
  }

  /** Attends for a step with one token a sequence that was planned last. */
  attendDecode(stream: CudaStream, { plan, forward, pool }: AttendLayer): void {
    if (this.#decode === undefined) this.attendTokens(stream, { plan, forward, pool });
    else {
      this.#decode.attend(stream, {
        ...pool,
        q: forward.queries,
        out: forward.attended,
        programmatic: plan.overlap,
        // The rotation in front writes the last page alone, and lets this begin when all before it has ended.
        early: plan.overlap,
      });
    }
  }

  /** Attends token by token, in one order. `tables` is the word of each token's table. @default {the plan's} */
  attendTokens(
    stream: CudaStream,
    { plan, forward, pool }: AttendLayer,
    tables: number = plan.places.tables,
  ): void {
    this.#plain.attendTokens(stream, {
      ...pool,
      tokens: plan.capacity.tokens,
      q: forward.queries,
      tables: plan.tables,
      tableWidth: plan.tableWidth,
      positions: planAddress(plan, plan.places.positions),
      rows: planAddress(plan, tables),
      out: forward.attended,
    });
  }

  #items(words: Int32Array): number {
    return words.length === 0 ? 0 : this.#prefill?.items(words) ?? 0;
  }

  /** Frees what the kernels keep. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }
}
