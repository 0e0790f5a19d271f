/**
 * Errors of the CUDA libraries.
 *
 * @module
 */
import { DRIVER } from "./driver_constants.ts";

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

/** What {@linkcode CudaError} says of a call besides its result. */
export type FailedCall = Pick<CudaErrorOptions, "call" | "context" | "detail">;

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

/**
 * Results after which a context can do nothing more: uncorrectable memory or link faults, kernels that touched what they
 * must not or were stopped, a driver that is shutting down or does not know.
 */
const LOST: ReadonlySet<number> = new Set([
  DRIVER.CUDA_ERROR_DEINITIALIZED,
  DRIVER.CUDA_ERROR_ECC_UNCORRECTABLE,
  DRIVER.CUDA_ERROR_NVLINK_UNCORRECTABLE,
  DRIVER.CUDA_ERROR_CONTAINED,
  DRIVER.CUDA_ERROR_ILLEGAL_ADDRESS,
  DRIVER.CUDA_ERROR_LAUNCH_TIMEOUT,
  DRIVER.CUDA_ERROR_CONTEXT_IS_DESTROYED,
  DRIVER.CUDA_ERROR_ASSERT,
  DRIVER.CUDA_ERROR_HARDWARE_STACK_ERROR,
  DRIVER.CUDA_ERROR_ILLEGAL_INSTRUCTION,
  DRIVER.CUDA_ERROR_MISALIGNED_ADDRESS,
  DRIVER.CUDA_ERROR_INVALID_ADDRESS_SPACE,
  DRIVER.CUDA_ERROR_INVALID_PC,
  DRIVER.CUDA_ERROR_LAUNCH_FAILED,
  DRIVER.CUDA_ERROR_TENSOR_MEMORY_LEAK,
  DRIVER.CUDA_ERROR_UNKNOWN,
]);

/** Whether a result of the driver means that the context is dead. */
export function isLost(code: number): boolean {
  return LOST.has(code);
}
