/**
 * Opens members of a cluster that run no model. Their modules are loaded when they are needed.
 *
 * @module
 */
import type { ClusterOptions } from "../cluster/options.ts";
import type { ClusterControl } from "../cluster/report.ts";

/** A member without a model; disposing of it ends it. */
export interface OpenedMember extends AsyncDisposable {
  /** The cluster as it sees it. */
  readonly cluster: ClusterControl;
}

/** How to open a gManager. */
export interface OpenManagerOptions {
  /** Its place in the cluster. */
  readonly cluster: ClusterOptions;
  /** Takes a line of its log. */
  readonly log: (message: string) => void;
}

/** How to open a holder. */
export interface OpenHolderOptions extends OpenManagerOptions {
  /** Memory to lend, bytes. */
  readonly kvBytes: number;
  /** Compute threads. */
  readonly threads: number;
}

/** Opens a holder. */
export async function openHolder(options: OpenHolderOptions): Promise<OpenedMember> {
  const module: { openHolder(options: OpenHolderOptions): Promise<OpenedMember> } = await load("open_holder.ts");
  return await module.openHolder(options);
}

/** Opens a gManager. */
export async function openManager(options: OpenManagerOptions): Promise<OpenedMember> {
  const module: { openManager(options: OpenManagerOptions): Promise<OpenedMember> } = await load("open_manager.ts");
  return await module.openManager(options);
}

async function load<T>(name: string): Promise<T> {
  return await import(new URL(`../cluster/${name}`, import.meta.url).href);
}
