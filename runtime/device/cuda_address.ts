/**
 * Arithmetic on device addresses.
 *
 * @module
 */
import type { DevicePtr } from "../../ffi/cuda/cuda.ts";

/** The address `bytes` behind `address`. */
export function addressAt(address: DevicePtr, bytes: number): DevicePtr {
  return address + BigInt(bytes) as DevicePtr;
}
