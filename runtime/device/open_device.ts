/**
 * Picks and opens the device that runs a model.
 *
 * @module
 */
import type { OpenModel } from "../model/model.ts";
import type { CudaDeviceOptions } from "./cuda_device.ts";
import type { Device } from "./device.ts";
import { kvBlocks, type KvSize } from "./kv_size.ts";
import { ReferenceDevice } from "./reference_device.ts";
import { WasmDevice, type WasmDeviceOptions } from "./wasm_device.ts";

/** Devices that can be asked for; `auto` takes the fastest one this host has. */
export type DeviceChoice = "auto" | "wasm" | "reference" | "cuda";

/** How to open a device; what another kind of device than the one that is opened would take is not looked at. */
export interface OpenDeviceOptions
  extends
    Omit<WasmDeviceOptions, "blocks">,
    Pick<KvSize, "kvBytes" | "kvTokens">,
    Pick<CudaDeviceOptions, "ordinal" | "memoryUtilization" | "deterministic" | "onKernel"> {
  /** Which device. @default {"auto"} */
  readonly kind?: DeviceChoice;
  /** KV blocks in the pool. @default {of the stated size; see `kvBlocks` and, for a GPU, `memoryUtilization`} */
  readonly blocks?: number;
  /** Told why `auto` did not take a device that is faster than the one it takes. */
  readonly onPassedOver?: (reason: string) => void;
}

/** Devices that `auto` tries, the fastest first. A device that was not proven on hardware is not among them. */
const AUTOMATIC: readonly ("cuda" | "wasm")[] = ["wasm"];

/**
 * Opens a device and loads the model's weights into it. The model may be disposed afterwards.
 *
 * @throws {RangeError} when weights and KV pool do not fit, or a size is one that the device cannot have.
 * @throws {Deno.errors.NotFound} for `cuda`, when there is no driver or no library, saying where it looked.
 * @throws {CudaError} for `cuda`, when the driver refuses.
 */
export async function openDevice(model: OpenModel, options: OpenDeviceOptions): Promise<Device> {
  const kind = options.kind ?? "auto";
  switch (kind) {
    case "auto":
      return await openFastest(model, options);
    case "wasm":
      return await WasmDevice.open(model, { ...options, blocks: hostBlocks(model, options) });
    case "reference":
      return new ReferenceDevice(model, { ...options, blocks: hostBlocks(model, options) });
    case "cuda":
      return await openCuda(model, options);
    default:
      return kind satisfies never;
  }
}

async function openFastest(model: OpenModel, options: OpenDeviceOptions): Promise<Device> {
  const [first, ...others] = AUTOMATIC;
  try {
    return await openDevice(model, { ...options, kind: first });
  } catch (error) {
    if (others.length === 0) throw error;
    options.onPassedOver?.(`${first} is not used: ${error instanceof Error ? error.message : error}`);
    return await openDevice(model, { ...options, kind: others[0] });
  }
}

function hostBlocks(model: OpenModel, options: OpenDeviceOptions): number {
  const { kvBytes, kvTokens, kvType = "f16", blockTokens = 16 } = options;
  return options.blocks ?? kvBlocks(model.config, { kvBytes, kvTokens, kvType, blockTokens });
}

/** What runs on a GPU is loaded only where one is asked for. */
async function openCuda(model: OpenModel, options: OpenDeviceOptions): Promise<Device> {
  const { CudaDevice } = await import("./cuda_device.ts");
  const { CUDA_BLOCK_TOKENS } = await import("./cuda_tables.ts");
  const { kvBytes, kvTokens } = options;
  const blocks = options.blocks ??
    (kvBytes === undefined && kvTokens === undefined
      ? undefined
      : kvBlocks(model.config, { kvBytes, kvTokens, kvType: "bf16", blockTokens: CUDA_BLOCK_TOKENS }));
  return CudaDevice.open(model, { ...options, blocks });
}
