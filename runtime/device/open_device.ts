/**
 * Picks and opens the device that runs a model.
 *
 * @module
 */
import { CudaLibraries } from "../../ffi/cuda/libraries.ts";
import type { KvType } from "../../kernels/dtype.ts";
import type { OpenModel } from "../model/model.ts";
import type { CudaDeviceOptions } from "./cuda_device.ts";
import type { Device } from "./device.ts";
import { gpuObstacle } from "./gpu_obstacle.ts";
import { kvBlocks, type KvSize } from "./kv_size.ts";
import { ReferenceDevice } from "./reference_device.ts";
import { WasmDevice, type WasmDeviceOptions } from "./wasm_device.ts";

/** Devices that can be asked for; `auto` takes a GPU where there is one that can be used, else WASM. */
export type DeviceChoice = "auto" | "wasm" | "reference" | "cuda";

/** How to open a device; what another kind of device than the one that is opened would take is not looked at. */
export interface OpenDeviceOptions
  extends
    Omit<WasmDeviceOptions, "blocks">,
    Pick<KvSize, "kvBytes" | "kvTokens">,
    Pick<
      CudaDeviceOptions,
      "ordinal" | "memoryUtilization" | "deterministic" | "weights" | "kernelDirectory" | "libraries" | "onKernel"
    > {
  /** Which device. @default {"auto"} */
  readonly kind?: DeviceChoice;
  /** KV blocks in the pool. @default {of the stated size; see `kvBlocks` and, for a GPU, `memoryUtilization`} */
  readonly blocks?: number;
  /** Told why `auto` takes no GPU: a sentence without its full stop. */
  readonly onPassedOver?: (reason: string) => void;
}

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
      return await WasmDevice.open(model, { ...options, ...hostPool(model, options) });
    case "reference":
      return new ReferenceDevice(model, { ...options, ...hostPool(model, options) });
    case "cuda":
      return await openCuda(model, options);
    default:
      return kind satisfies never;
  }
}

async function openFastest(model: OpenModel, options: OpenDeviceOptions): Promise<Device> {
  const libraries = options.libraries ?? CudaLibraries.find();
  let obstacle = gpuObstacle(libraries);
  if (obstacle === undefined) {
    try {
      return await openCuda(model, { ...options, libraries });
    } catch (error) {
      // A compiler's log has more lines, which whoever asks for the GPU sees.
      [obstacle] = String(error instanceof Error ? error.message : error).split("\n");
    }
  }
  options.onPassedOver?.(`Computing with WASM, not on a GPU: ${obstacle}`);
  return await openDevice(model, { ...options, kind: "wasm" });
}

/** Element type and size of a pool in the host's memory. */
function hostPool(model: OpenModel, options: OpenDeviceOptions): { readonly kvType: KvType; readonly blocks: number } {
  const { kvBytes, kvTokens, blockTokens = 16 } = options;
  // Exact products deserve exact keys and values.
  const { kvType = options.activations === "f32" ? "f32" : "f16" } = options;
  return { kvType, blocks: options.blocks ?? kvBlocks(model.config, { kvBytes, kvTokens, kvType, blockTokens }) };
}

/** What runs on a GPU is loaded only where one is asked for. */
async function openCuda(model: OpenModel, options: OpenDeviceOptions): Promise<Device> {
  const { CudaDevice } = await import("./cuda_device.ts");
  const { CUDA_BLOCK_TOKENS } = await import("./cuda_tables.ts");
  const { cudaBlockBytes } = await import("./cuda_pool.ts");
  const { kvBytes, kvTokens, kvType = "bf16" } = options;
  const size = { kvBytes, kvTokens, kvType, blockTokens: CUDA_BLOCK_TOKENS };
  const blocks = options.blocks ??
    (kvBytes === undefined && kvTokens === undefined
      ? undefined
      : kvBlocks(model.config, { ...size, blockBytes: cudaBlockBytes({ ...model.config, kvType }) }));
  return CudaDevice.open(model, { ...options, blocks });
}
