/**
 * Whether two members fit together.
 *
 * @module
 */
import { PeerError } from "../links/link.ts";
import type { KvFormat, MemberCard } from "./member.ts";

const FORMAT_KEYS = [
  "modelDigest",
  "kvType",
  "layout",
  "layers",
  "heads",
  "kvHeads",
  "headDim",
  "blockTokens",
  "segmentTokens",
  "blockBytes",
] as const satisfies readonly (keyof KvFormat)[];

/** The first field in which two formats differ. */
export function formatDifference(own: KvFormat, other: KvFormat): keyof KvFormat | undefined {
  return FORMAT_KEYS.find((key) => own[key] !== other[key]);
}

/**
 * Checks a peer's card against one's own.
 *
 * @throws {PeerError} `refused`, naming the peer, what differs, what was wanted and what came.
 */
export function checkPeer(own: MemberCard, peer: MemberCard): void {
  const refuse = (what: string, wanted: unknown, got: unknown) =>
    new PeerError(`Cannot link ${own.name} with ${peer.name}: wanted ${what} ${wanted}, got ${got}`, {
      code: "refused",
    });
  if (peer.incarnation === own.incarnation) {
    throw new PeerError(`Cannot link ${own.name} with ${peer.name}: it is itself`, { code: "refused" });
  }
  if (peer.protocol !== own.protocol) throw refuse("protocol", own.protocol, peer.protocol);
  if (peer.pluginApi !== own.pluginApi) throw refuse("plugin API", own.pluginApi, peer.pluginApi);
  if (peer.name === own.name) {
    throw new PeerError(
      `Cannot link ${own.name} with ${peer.name}: wanted different names, got the same at ${own.clusterUrl} and ${peer.clusterUrl}`,
      { code: "refused" },
    );
  }
  if (own.format !== undefined && peer.format !== undefined) {
    const differs = formatDifference(own.format, peer.format);
    if (differs !== undefined) throw refuse(differs, own.format[differs], peer.format[differs]);
  }
}
