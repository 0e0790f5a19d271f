/**
 * The end of a device.
 *
 * @module
 */

/** Code of the error with which requests end that ran on such a device. */
export const DEVICE_LOST_CODE = "device_lost";

/** A device can do nothing more in this process: a kernel touched what it must not, or the hardware failed. */
export class DeviceLostError extends Error {
  /** Always `DeviceLostError`. */
  override readonly name: string = "DeviceLostError";

  /** Says what happened. */
  constructor(cause: Error) {
    super(`Cannot use the device any more: ${cause.message}`, { cause });
  }
}
