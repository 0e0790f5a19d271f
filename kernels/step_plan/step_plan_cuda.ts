/**
 * Launches of `step_plan.cu`: what a step needs besides the model's kernels.
 *
 * @module
 */
import type { CudaFunction, CudaStream, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { KernelCache } from "../cuda/kernel_cache.ts";
import source from "./step_plan.cu" with { type: "text" };

/** Threads of a block. */
const THREADS = 256;
/** Most blocks of a launch that patches tables. */
const PATCH_BLOCKS = 64;

/** Queries of some tokens of a step. */
export interface CopiedQueries {
  /** Queries of the step, bf16 [tokens, width]. */
  readonly q: DevicePtr;
  /** Numbers of the tokens, i32 [rows]. */
  readonly tokens: DevicePtr;
  /** Where they go. */
  readonly out: DevicePtr;
  /** How many tokens. */
  readonly rows: number;
  /** Values of a token. */
  readonly width: number;
}

/** The compiled kernels. */
export class StepPlanKernels {
  readonly #patch: CudaFunction;
  readonly #out: CudaFunction;
  readonly #gather: CudaFunction;
  readonly #in: CudaFunction;
  readonly #signal: CudaFunction;
  readonly #signalValue: CudaFunction;

  /** Compiles or finds them. */
  constructor(kernels: KernelCache) {
    const module = kernels.module({ name: "step_plan", source });
    this.#patch = module.function("patch_tables");
    this.#out = module.function("queries_out");
    this.#gather = module.function("queries_gather");
    this.#in = module.function("queries_in");
    this.#signal = module.function("signal_done");
    this.#signalValue = module.function("signal_value");
  }

  /** Writes table entries: `count` is the address of their number, at most `most`; `pairs` those of word and value. */
  patchTables(
    stream: CudaStream,
    work: {
      readonly count: DevicePtr;
      readonly pairs: DevicePtr;
      readonly tables: DevicePtr;
      readonly most: number;
    },
  ): void {
    stream.launch(this.#patch, {
      grid: [Math.max(1, Math.min(PATCH_BLOCKS, Math.ceil(work.most / THREADS)))],
      block: [THREADS],
      args: [{ ptr: work.count }, { ptr: work.pairs }, { ptr: work.tables }],
    });
  }

  /** Copies queries, see {@linkcode CopiedQueries}, to `out` as f32 [rows, width]. */
  queriesOut(stream: CudaStream, work: CopiedQueries): void {
    this.#copyQueries(stream, this.#out, work);
  }

  /** Copies queries, see {@linkcode CopiedQueries}, to `out` as they are, bf16 [rows, width]. */
  queriesGather(stream: CudaStream, work: CopiedQueries): void {
    this.#copyQueries(stream, this.#gather, work);
  }

  #copyQueries(stream: CudaStream, kernel: CudaFunction, { q, tokens, out, rows, width }: CopiedQueries): void {
    if (rows === 0) return;
    stream.launch(kernel, {
      grid: [rows],
      block: [THREADS],
      args: [{ ptr: q }, { ptr: tokens }, { ptr: out }, { i32: width }],
    });
  }

  /** Rounds `count` values of f32 queries to bf16. */
  queriesIn(
    stream: CudaStream,
    work: { readonly from: DevicePtr; readonly q: DevicePtr; readonly count: number },
  ): void {
    if (work.count === 0) return;
    stream.launch(this.#in, {
      grid: [Math.ceil(work.count / THREADS)],
      block: [THREADS],
      args: [{ ptr: work.from }, { ptr: work.q }, { i32: work.count }],
    });
  }

  /** Stores the word at `step` in the host's memory at `word` once everything before it is done. */
  signalDone(stream: CudaStream, work: { readonly step: DevicePtr; readonly word: DevicePtr }): void {
    stream.launch(this.#signal, { grid: [1], block: [1], args: [{ ptr: work.step }, { ptr: work.word }] });
  }

  /** Stores `value` in the host's memory at `word` once everything before it is done. */
  signalValue(stream: CudaStream, work: { readonly value: number; readonly word: DevicePtr }): void {
    stream.launch(this.#signalValue, { grid: [1], block: [1], args: [{ u32: work.value }, { ptr: work.word }] });
  }
}
