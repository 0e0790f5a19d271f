/**
 * Picks and opens the device that runs a model.
 *
 * @module
 */
import type { OpenModel } from "../model/model.ts";
import type { Device } from "./device.ts";
import { ReferenceDevice } from "./reference_device.ts";
import { WasmDevice, type WasmDeviceOptions } from "./wasm_device.ts";

/** Devices that can be asked for; `auto` takes the fastest one this host has. */
export type DeviceChoice = "auto" | "wasm" | "reference" | "cuda";

/** How to open a device. */
export interface OpenDeviceOptions extends WasmDeviceOptions {
  /** Which device. @default {"auto"} */
  readonly kind?: DeviceChoice;
}

/**
 * Opens a device and loads the model's weights into it. The model may be disposed afterwards.
 *
 * @throws {TypeError} for `cuda`, which this version does not have.
 * @throws {RangeError} when weights and KV pool do not fit.
 */
export async function openDevice(model: OpenModel, options: OpenDeviceOptions): Promise<Device> {
  const kind = options.kind ?? "auto";
  switch (kind) {
    case "auto":
    case "wasm":
      return await WasmDevice.open(model, options);
    case "reference":
      return new ReferenceDevice(model, options);
    case "cuda":
      throw new TypeError('Cannot open a CUDA device: this version has none, use "wasm" or "auto"');
    default:
      return kind satisfies never;
  }
}
