/**
 * Tells the end of a GPU from a call that failed.
 *
 * @module
 */
import { CudaError } from "../../ffi/cuda/cuda.ts";
import { DeviceLostError } from "./device_lost_error.ts";

/** Runs what may find the GPU gone. @throws {DeviceLostError} when it is; else what `body` throws. */
export function tellLoss<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw error instanceof CudaError && error.lost ? new DeviceLostError(error) : error;
  }
}
