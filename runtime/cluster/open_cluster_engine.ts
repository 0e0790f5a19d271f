/**
 * Opens an engine that is a member of a cluster.
 *
 * @module
 */
import { Engine, type EngineOptions } from "../engine/engine.ts";
import type { EngineServerLink, ServedEngine } from "../engine/engine_server.ts";
import { MemberServer } from "./member_server.ts";
import { type OpenMember, openMember } from "./open_member.ts";
import type { ClusterOptions } from "./options.ts";

/** An engine in a cluster. */
export interface ClusterEngine {
  /** The engine; the member steps it. */
  readonly engine: Engine;
  /** The member; the caller disposes of it. */
  readonly member: OpenMember;
  /** Serves both. */
  readonly serve: (link: EngineServerLink) => ServedEngine;
}

/**
 * Opens a member over the device of `engineOptions`.
 *
 * @throws {Error} when the cluster port cannot be opened.
 * @throws {PluginError} when the memory policy cannot be loaded.
 */
export async function openClusterEngine(
  options: {
    /** Its place in the cluster. */
    readonly cluster: ClusterOptions;
    /** The engine without what a member adds. */
    readonly engineOptions: EngineOptions;
    /** Takes a line of the log. */
    readonly log: (message: string) => void;
  },
): Promise<ClusterEngine> {
  const { cluster, engineOptions, log } = options;
  const opened = await openMember({
    cluster,
    device: engineOptions.device,
    modelDigest: engineOptions.modelDigest,
    engine: (hooks) => new Engine({ ...engineOptions, ...hooks }),
    scheduler: engineOptions.policy,
    maxBatch: engineOptions.maxBatch,
    log,
  });
  const { engine } = opened.member;
  if (engine === undefined) throw new TypeError("Cannot open a member: wanted one with an engine");
  return {
    engine,
    member: opened,
    serve(link) {
      void opened.control.leaveAsked.then(() => link.send({ kind: "leave-asked" }));
      return new MemberServer(opened.member, link.send);
    },
  };
}
