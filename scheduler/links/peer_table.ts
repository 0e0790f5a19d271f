/**
 * The open links of a member by peer, and whether another may be added.
 *
 * @module
 */
import type { MemberCard } from "../protocol/member.ts";
import { PeerError, type PeerLink } from "./link.ts";

/** What becomes of a new link: it opens, it is one too many, or it opens in place of one to an earlier run of the peer. */
export type Admission =
  | { readonly kind: "open" }
  | { readonly kind: "duplicate" }
  | { readonly kind: "replace"; readonly link: PeerLink };

/** Open links by the name of the peer: at most one each. */
export class PeerTable<L extends PeerLink> {
  readonly #links = new Map<string, L>();

  /** The open links. */
  links(): readonly L[] {
    return [...this.#links.values()];
  }

  /** The open link to exactly this run of a peer. */
  find(peer: { readonly name: string; readonly incarnation: string }): L | undefined {
    const link = this.#links.get(peer.name);
    return link?.peer.incarnation === peer.incarnation ? link : undefined;
  }

  /**
   * Says what a link to `peer` would be.
   *
   * @throws {PeerError} `refused`, when a member of that name is linked from another place.
   */
  admit(peer: MemberCard): Admission {
    const link = this.#links.get(peer.name);
    if (link === undefined) return { kind: "open" };
    if (link.peer.incarnation === peer.incarnation) return { kind: "duplicate" };
    if (link.peer.clusterUrl === peer.clusterUrl) return { kind: "replace", link };
    throw new PeerError(
      `Cannot link with ${peer.name} at ${peer.clusterUrl}: wanted one member of that name, got another at ${link.peer.clusterUrl}`,
      { code: "refused" },
    );
  }

  /** Adds an open link. */
  add(link: L): void {
    this.#links.set(link.peer.name, link);
  }

  /** Takes a link out; does nothing when it is not in. */
  remove(link: L): void {
    if (this.#links.get(link.peer.name) === link) this.#links.delete(link.peer.name);
  }
}
