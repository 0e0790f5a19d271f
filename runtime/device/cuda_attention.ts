/**
 * Attention of a step's tokens to their own sequences: which kernel runs, and what it reads besides the plan.
 *
 * @module
 */
import type { CudaContext, CudaStream } from "../../ffi/cuda/cuda.ts";
import { AttendDecode, type DecodePlan } from "../../kernels/attend_partial/attend_decode_cuda.ts";
import type { AttendPlain, PoolLayer } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { AttendPrefill } from "../../kernels/attend_partial/attend_prefill_cuda.ts";
import { MAX_DECODE_GROUP } from "../../kernels/attend_partial/decode_layout.ts";
import type { KernelCache } from "../../kernels/cuda/kernel_cache.ts";
import type { CudaForward } from "./cuda_forward.ts";
import { type DevicePlan, planAddress } from "./cuda_plan.ts";
import type { KvLayout, StepSequence } from "./device.ts";

/** What attention stands on; it stays the caller's. */
export interface CudaAttentionParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Its kernels. */
  readonly kernels: KernelCache;
  /** Shape of the pool. */
  readonly layout: KvLayout;
  /** The kernel that computes everything in one order. */
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
export function attentionKernels(major: number, { heads, kvHeads, headDim }: KvLayout): AttentionKernels {
  return {
    prefill: headDim % 8 === 0,
    decode: major >= 9 && headDim % 2 === 0 && heads / kvHeads <= MAX_DECODE_GROUP,
  };
}

/** One layer of a step. */
export interface AttendLayer {
  /** The plan; its extra words begin with what {@linkcode CudaAttention.plan} made. */
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
  readonly #opened: DisposableStack;

  /** Compiles or finds the kernels. */
  constructor({ context, kernels, layout, plain, deterministic, sequences }: CudaAttentionParts) {
    using opened = new DisposableStack();
    this.#plain = plain;
    const { heads, kvHeads, headDim } = layout;
    const shape = { heads, kvHeads, headDim };
    const { prefill, decode } = attentionKernels(context.properties.major, layout);
    if (!deterministic && prefill) this.#prefill = opened.use(new AttendPrefill(context, { kernels, shape }));
    if (!deterministic && decode) {
      this.#decode = opened.use(new AttendDecode(context, kernels, shape).plan(sequences));
    }
    this.#opened = opened.move();
  }

  /** What the kernel for several tokens a sequence reads: words of the plan. Sequence i uses table i of `tableWidth`. */
  plan(batch: readonly StepSequence[], tableWidth: number): Int32Array<ArrayBuffer> {
    if (this.#prefill === undefined) return new Int32Array(0);
    let token = 0;
    const chunks = batch.map(({ tokens: { length: tokens }, position }, index) => {
      const queryRow = token;
      token += tokens;
      return {
        queryRow,
        tokens,
        position,
        table: index * tableWidth,
        output: { kind: "final", row: queryRow } as const,
      };
    });
    return this.#prefill.plan(chunks);
  }

  /** Attends, whatever the number of tokens; `words` is what {@linkcode plan} made. */
  attend(stream: CudaStream, { plan, forward, pool }: AttendLayer, words: Int32Array): void {
    if (this.#prefill === undefined) {
      this.attendTokens(stream, { plan, forward, pool });
      return;
    }
    this.#prefill.launch(stream, {
      ...pool,
      q: forward.queries,
      table: plan.tables,
      plan: planAddress(plan, plan.places.extra),
      items: this.#prefill.items(words),
      out: forward.attended,
      programmatic: plan.overlap,
    });
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

  /** Frees what the kernels keep. */
  [Symbol.dispose](): void {
    this.#opened.dispose();
  }
}
