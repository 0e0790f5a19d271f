/**
 * Opens a gManager that is nothing else.
 *
 * @module
 */
import { BlockPool } from "../../scheduler/block_pool.ts";
import type { OpenedMember } from "./open_holder.ts";
import { startMember } from "./open_member.ts";
import type { ClusterOptions } from "./options.ts";

/**
 * Opens a gManager.
 *
 * @throws {Error} when the cluster port cannot be opened.
 */
export async function openManager(
  options: {
    /** Its place in the cluster. */
    readonly cluster: ClusterOptions;
    /** Takes a line of its log. */
    readonly log: (message: string) => void;
  },
): Promise<OpenedMember> {
  const opened = await startMember({
    ...options,
    role: "manager",
    kernelDigest: "",
    parts: {
      kind: "holder",
      emptyPool: new BlockPool(1),
      bind: (_format, done) => done(new TypeError("Cannot hold KV: a gManager alone has no memory")),
    },
  });
  return {
    cluster: opened.control,
    [Symbol.asyncDispose]() {
      opened[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}
