/**
 * What a member knows of the others, and what it tells the gManager: heartbeats out, the directory back.
 *
 * @module
 */
import type { EpochGuard } from "../../scheduler/gmanager/epoch_guard.ts";
import { HeartbeatWriter, type MemberSnapshot } from "../../scheduler/gmanager/heartbeat_writer.ts";
import { clusterView, type NamedClusterView } from "../../scheduler/gmanager/planner_view.ts";
import type { MemberCard, MemberIdentity } from "../../scheduler/protocol/member.ts";
import type { Heartbeat, HeartbeatAck, MemberStatus } from "../../scheduler/protocol/messages.ts";
import type { Manager } from "./manager.ts";
import type { Peers } from "./peers.ts";
import type { MemberPorts } from "./ports.ts";

/** Makes a {@linkcode Directory}. */
export interface DirectoryOptions {
  /** Outside. */
  readonly ports: MemberPorts;
  /** Links. */
  readonly peers: Peers;
  /** Highest epoch seen. */
  readonly epochs: EpochGuard;
  /** Addresses of members to join. */
  readonly join: readonly string[];
  /** The gManager that this member carries. */
  readonly manager: Manager | undefined;
  /** What this member says about itself now. */
  readonly snapshot: () => MemberSnapshot;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Requests sent to a member that have not ended, by incarnation. */
  readonly forwarded: () => ReadonlyMap<string, number>;
}

/** Members. */
export class Directory {
  readonly #options: DirectoryOptions;
  readonly #writer = new HeartbeatWriter();
  /** Addresses at which a gManager may be. */
  readonly #managerUrls: Set<string>;
  /** Addresses that did not answer lately. */
  readonly #unreached = new Set<string>();
  #manager: MemberCard | undefined;
  #members: readonly MemberStatus[] = [];
  #atMs = 0;

  /** Knows nobody. */
  constructor(options: DirectoryOptions) {
    this.#options = options;
    this.#managerUrls = new Set(options.join);
  }

  /** The gManager that answered last, while it is reached. */
  get manager(): MemberCard | undefined {
    return this.#manager;
  }

  /** Starts to look for those to join. */
  start(): void {
    for (const url of this.#managerUrls) this.#options.peers.want(url);
  }

  /** What policies see: the others as the last directory said, this member as it is now. */
  view(): NamedClusterView {
    const { segmentTokens, snapshot } = this.#options;
    const own = snapshot();
    return clusterView({
      members: this.members(own),
      segmentTokens,
      format: own.card.format,
      self: own.card.name,
    });
  }

  /** This member as it is now, and the others whose link is open. */
  members(own: MemberSnapshot = this.#options.snapshot()): MemberStatus[] {
    const { peers, ports, forwarded } = this.#options;
    const sinceMs = ports.now() - this.#atMs;
    const sent = forwarded();
    const others = this.#members
      .filter(({ card }) => card.name !== own.card.name && peers.link(card.incarnation) !== undefined)
      .map((status) => {
        const { running, waiting } = status.load;
        // Requests sent since that report are not in it.
        const missing = Math.max(0, (sent.get(status.card.incarnation) ?? 0) - running - waiting);
        const load = missing > 0 ? { ...status.load, waiting: waiting + missing } : status.load;
        return { ...status, load, silentMs: status.silentMs + sinceMs };
      });
    return [statusOf(own), ...others];
  }

  /** A peer is reached. */
  reached(peer: MemberCard): void {
    this.#unreached.delete(peer.clusterUrl);
    const { managerUrl } = peer;
    if (managerUrl !== undefined && managerUrl !== this.#options.ports.network.url) {
      this.#managerUrls.add(managerUrl);
      this.#options.peers.want(managerUrl);
    }
    if (this.#managerUrls.has(peer.clusterUrl)) this.#beatTo(peer);
  }

  /** A peer is lost. */
  lost(incarnation: string): void {
    if (this.#manager?.incarnation === incarnation) this.#manager = undefined;
  }

  /** A peer has said goodbye. Where a gManager may be, another one may come. */
  left({ clusterUrl }: MemberCard): void {
    if (!this.#managerUrls.has(clusterUrl)) this.#options.peers.unwant(clusterUrl);
  }

  /** An address did not answer. @returns whether that is news. */
  failed(url: string): boolean {
    const known = this.#unreached.has(url);
    this.#unreached.add(url);
    return !known;
  }

  /** Reports to the gManager: the one that leads here, else the one that answers, else whoever may be it. */
  beat(): void {
    const { manager, peers, epochs, snapshot } = this.#options;
    if (manager !== undefined) {
      const { card } = snapshot();
      const ack = manager.heartbeat(card, this.#heartbeat(card));
      if (ack !== undefined) return this.acknowledged({ manager: card, epoch: epochs.highest }, ack);
    }
    const leader = this.#manager === undefined ? undefined : peers.link(this.#manager.incarnation)?.peer;
    if (leader !== undefined) return this.#beatTo(leader);
    for (const peer of peers.cards) if (this.#managerUrls.has(peer.clusterUrl)) this.#beatTo(peer);
  }

  /** A gManager has answered. */
  acknowledged(from: { readonly manager: MemberCard; readonly epoch: number }, ack: HeartbeatAck): void {
    const { peers, ports } = this.#options;
    const first = this.#manager?.incarnation !== from.manager.incarnation;
    this.#manager = from.manager;
    this.#writer.acknowledge(ack, from);
    // A member that was started anew takes the place of its earlier run with its second heartbeat.
    if (first && from.manager.incarnation !== this.#options.snapshot().card.incarnation) this.#beatTo(from.manager);
    const before = this.#members;
    this.#atMs = ports.now();
    this.#members = ack.members;
    const urls = new Set(ack.members.filter(({ card }) => card.role !== "manager").map(({ card }) => card.clusterUrl));
    urls.delete(ports.network.url);
    for (const { card: { clusterUrl } } of before) {
      if (urls.has(clusterUrl) || this.#managerUrls.has(clusterUrl)) continue;
      peers.unwant(clusterUrl);
      this.#unreached.delete(clusterUrl);
    }
    for (const url of urls) peers.want(url);
  }

  #beatTo(peer: MemberCard): void {
    this.#options.peers.tell(peer.incarnation, this.#heartbeat(peer));
  }

  #heartbeat(manager: MemberIdentity): Heartbeat {
    return this.#writer.write(this.#options.snapshot(), { manager, epoch: this.#options.epochs.highest });
  }
}

/** A member as its own report shows it. */
export function statusOf({ card, blocks, load, leaving }: MemberSnapshot): MemberStatus {
  return { card, blocks, load, silentMs: 0, state: leaving ? "leaving" : "alive" };
}
