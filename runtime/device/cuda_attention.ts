/**
 * Attention of a step's tokens to their own sequences: which kernel runs, and what it reads besides the plan.
 *
 * @module
 */
import type { CudaContext, CudaStream } from "../../ffi/cuda/cuda.ts";
import type { AttendPlain, PoolLayer } from "../../kernels/attend_partial/attend_plain_cuda.ts";
import { AttendPrefill } from "../../kernels/attend_partial/attend_prefill_cuda.ts";
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

  /** Compiles or finds the kernels. */
  constructor({ context, kernels, layout, plain, deterministic }: CudaAttentionParts) {
    this.#plain = plain;
    this.#prefill = deterministic || layout.headDim % 8 !== 0
      ? undefined
      : new AttendPrefill(context, { kernels, shape: layout });
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
    });
  }

  /** Attends for a step with one token a sequence. */
  attendDecode(stream: CudaStream, layer: AttendLayer): void {
    this.attendTokens(stream, layer);
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
    this.#prefill?.[Symbol.dispose]();
  }
}
