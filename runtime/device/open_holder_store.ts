/**
 * Opens the memory of a holder, which has no model, on the device asked for.
 *
 * @module
 */
import type { KvLayout, KvStore } from "./device.ts";
import { kvStoreBlocks } from "./kv_size.ts";
import { openKvStore } from "./wasm_kv_store.ts";

/** What a holder lends where nothing else is said, bytes. */
export const DEFAULT_HOLDER_BYTES: number = 512 * 2 ** 20;

/** What computes for a holder. */
export interface HolderDevice {
  /** Which device; `auto` is the processors: memory is what is lent, and a GPU's is taken only where it is asked for. */
  readonly kind: "auto" | "wasm" | "cuda";
  /** Number of the GPU. @default {0} */
  readonly ordinal?: number;
  /** Share of the GPU's memory that this process may use, when no size is given. @default {0.9} */
  readonly memoryUtilization?: number;
  /** Whether a GPU attends in the one order of a deterministic device. @default {false} */
  readonly deterministic?: boolean;
}

/** How to open a holder's memory. */
export interface HolderStoreOptions extends HolderDevice {
  /** What it holds: the borrowers' shape, with blocks as they travel. A GPU's own blocks have other sizes. */
  readonly layout: KvLayout;
  /** Its size, bytes. @default {on a GPU what may be in use of it, else 512 MiB} */
  readonly kvBytes?: number;
  /** Compute threads where processors compute. @default {1} */
  readonly threads?: number;
}

/**
 * Opens it.
 *
 * @throws {RangeError} when the size holds no block, or the layout is not one that the device has.
 * @throws {CudaError} when a GPU refuses.
 */
export async function openHolderStore(options: HolderStoreOptions): Promise<KvStore> {
  const { kind, layout, kvBytes, threads } = options;
  switch (kind) {
    case "auto":
    case "wasm": {
      // Numbers of fp8 travel as bf16 and are exact in it.
      const own: KvLayout = layout.kvType === "fp8" ? { ...layout, kvType: "bf16" } : layout;
      return await openKvStore({ layout: own, blocks: kvStoreBlocks(own, kvBytes ?? DEFAULT_HOLDER_BYTES), threads });
    }
    case "cuda": {
      // What runs on a GPU is loaded only where one is asked for.
      const { openCudaKvStore } = await import("./cuda_kv_store.ts");
      const { cudaBlockBytes } = await import("./cuda_pool.ts");
      const { CUDA_BLOCK_TOKENS } = await import("./cuda_tables.ts");
      const own: KvLayout = { ...layout, blockTokens: CUDA_BLOCK_TOKENS };
      const blocks = kvBytes === undefined ? undefined : holdsBlocks(kvBytes, cudaBlockBytes(own));
      return openCudaKvStore({ ...options, layout: own, storedTokens: layout.blockTokens, blocks });
    }
    default:
      return kind satisfies never;
  }
}

function holdsBlocks(kvBytes: number, blockBytes: number): number {
  const blocks = Math.floor(kvBytes / blockBytes);
  if (blocks >= 1) return blocks;
  throw new RangeError(`Cannot size the KV pool: one block of a GPU takes ${blockBytes} bytes, got ${kvBytes} bytes`);
}
