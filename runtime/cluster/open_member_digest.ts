/**
 * What a member says about the bits that it computes, so that others know where equal ones cannot be expected.
 *
 * @module
 */
import type { DeviceInfo } from "../device/device.ts";
import { kernelDigest } from "../device/kernel_digest.ts";
import { openKvStore } from "../device/wasm_kv_store.ts";

/** Layout that kernels are probed with. Members compare what comes of it, so all run the same, whatever their own is. */
const SHAPE = { layers: 1, heads: 2, kvHeads: 1, headDim: 16 } as const;
/** Blocks of a probe. */
const BLOCKS = 2;

/** What computes for a member. */
export interface ProbedDevice extends Pick<DeviceInfo, "kind"> {
  /** Number of the GPU. @default {0} */
  readonly ordinal?: number;
  /** Whether the device gives the same bits whatever else it does. @default {false} */
  readonly deterministic?: boolean;
}

/**
 * The kind of a device, whether it is deterministic, and the digest of a known run of its attention kernel. A GPU that is not
 * deterministic gives other bits to other batches, so two members on such ones are equal only here.
 *
 * @throws {CudaError} when a GPU refuses.
 */
export async function memberDigest({ kind, ordinal, deterministic = false }: ProbedDevice): Promise<string> {
  switch (kind) {
    case "reference":
    case "wasm": {
      using probe = await openKvStore({ layout: { ...SHAPE, blockTokens: 16, kvType: "f32" }, blocks: BLOCKS });
      return `wasm ${kernelDigest(probe)}`;
    }
    case "cuda": {
      const { openCudaKvStore } = await import("../device/cuda_kv_store.ts");
      const layout = { ...SHAPE, blockTokens: 64, kvType: "bf16" } as const;
      using probe = openCudaKvStore({ layout, blocks: BLOCKS, ordinal, deterministic });
      return `cuda${deterministic ? " deterministic" : ""} ${kernelDigest(probe)}`;
    }
    default:
      return kind satisfies never;
  }
}
