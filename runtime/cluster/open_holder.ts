/**
 * Opens a holder: a member that lends memory and has no model.
 *
 * @module
 */
import { BlockPool } from "../../scheduler/block_pool.ts";
import type { KvStore } from "../device/device.ts";
import { type HolderDevice, openHolderStore } from "../device/open_holder_store.ts";
import type { KvFormat } from "../../scheduler/protocol/member.ts";
import { startMember } from "./open_member.ts";
import { memberDigest } from "./open_member_digest.ts";
import type { ClusterOptions } from "./options.ts";
import type { ClusterControl } from "./report.ts";

/** A member without a model; disposing of it ends it. */
export interface OpenedMember extends AsyncDisposable {
  /** The cluster as it sees it. */
  readonly cluster: ClusterControl;
}

/**
 * Opens a holder: memory and the attention kernel, bound to the format of the first cluster it meets.
 *
 * @throws {Error} when the cluster port cannot be opened.
 */
export async function openHolder(
  options: {
    /** Its place in the cluster. */
    readonly cluster: ClusterOptions;
    /** Memory to lend, bytes. @default {on a GPU what may be in use of it, else 512 MiB} */
    readonly kvBytes?: number;
    /** What computes. @default {{ kind: "wasm" }} */
    readonly device?: HolderDevice;
    /** Compute threads. */
    readonly threads: number;
    /** Takes a line of its log. */
    readonly log: (message: string) => void;
  },
): Promise<OpenedMember> {
  const { cluster, kvBytes, threads, device = { kind: "wasm" }, log } = options;
  let store: KvStore | undefined;
  const bind = async (format: KvFormat): Promise<{ store: KvStore; pool: BlockPool }> => {
    store?.[Symbol.dispose]();
    store = undefined;
    const { layers, heads, kvHeads, headDim, blockTokens, kvType } = format;
    const layout = { layers, heads, kvHeads, headDim, blockTokens, kvType };
    store = await openHolderStore({ ...device, layout, kvBytes, threads });
    return { store, pool: new BlockPool(store.blocks) };
  };
  const opened = await startMember({
    cluster,
    role: "holder",
    kernelDigest: await memberDigest({ ...device, kind: device.kind === "cuda" ? "cuda" : "wasm" }),
    log,
    parts: {
      kind: "holder",
      emptyPool: new BlockPool(1),
      bind: (format, done) => {
        bind(format).then(done, (error) => done(error instanceof Error ? error : new Error(String(error))));
      },
    },
  });
  return {
    cluster: opened.control,
    [Symbol.asyncDispose]() {
      opened[Symbol.dispose]();
      store?.[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}
