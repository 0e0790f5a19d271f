/**
 * Errors of the CUDA libraries.
 *
 * @module
 */

/** What {@linkcode CudaError} is made of. */
export interface CudaErrorOptions {
  /** Function that failed, for example `cuMemAlloc_v2`. */
  readonly call: string;
  /** Its result. */
  readonly code: number;
  /** The library's name for the result, for example `CUDA_ERROR_OUT_OF_MEMORY`. */
  readonly codeName: string;
  /** What was to be done: a verb and an object, as in `Cannot <context>: ...`. */
  readonly context: string;
  /** More than the name says, for example a compiler's log. */
  readonly detail?: string;
  /** Whether nothing works any more in this process. @default {false} */
  readonly lost?: boolean;
}

/** A call into a CUDA library failed. */
export class CudaError extends Error {
  /** Always `CudaError`. */
  override readonly name: string = "CudaError";
  /** Function that failed. */
  readonly call: string;
  /** Its result. */
  readonly code: number;
  /** The library's name for the result. */
  readonly codeName: string;
  /** What was to be done. */
  readonly context: string;
  /** Whether the context is dead: every later call fails too, and only a new process helps. */
  readonly lost: boolean;

  /** Puts the message together. */
  constructor({ call, code, codeName, context, detail, lost = false }: CudaErrorOptions) {
    super(`Cannot ${context}: ${call} returned ${codeName} (${code})${detail ? `: ${detail}` : ""}`);
    this.call = call;
    this.code = code;
    this.codeName = codeName;
    this.context = context;
    this.lost = lost;
  }
}

/** Results of the driver that this layer treats in a way of their own. */
export const DriverResult = {
  success: 0,
  invalidValue: 1,
  outOfMemory: 2,
  noDevice: 100,
  notReady: 600,
} as const;

/**
 * Results after which a context can do nothing more: uncorrectable memory or link faults (214, 220, 226), kernels that
 * touched what they must not or were stopped (700, 702, 709, 710, 714 to 719, 721), a driver that is shutting down (4)
 * or does not know (999).
 */
const LOST: ReadonlySet<number> = new Set([
  4,
  214,
  220,
  226,
  700,
  702,
  709,
  710,
  714,
  715,
  716,
  717,
  718,
  719,
  721,
  999,
]);

/** Whether a result of the driver means that the context is dead. */
export function isLost(code: number): boolean {
  return LOST.has(code);
}
