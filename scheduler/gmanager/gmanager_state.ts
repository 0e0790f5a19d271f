/**
 * What a gManager knows: the directory of members and the request placement map, from heartbeats alone. Nothing of it is
 * stored; a gManager that starts with nothing has all of it again after one complete heartbeat of each member.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";
import type {
  Heartbeat,
  HeartbeatAck,
  LeaseReport,
  MemberStatus,
  MoveReport,
  PlacementEntry,
  RefusalCode,
} from "../protocol/messages.ts";
import { heartbeatProblem } from "./heartbeat_check.ts";
import { PastMembers } from "./past_members.ts";

/** Settings of {@linkcode GManagerState}. */
export interface GManagerStateOptions {
  /** Clock, ms; never goes back. */
  readonly now: () => number;
  /** Time between two heartbeats of a member. @default 1_000 */
  readonly heartbeatMs?: number;
  /** Heartbeats missed after which a member is `suspect`. @default 3 */
  readonly suspectAfter?: number;
  /** Silence after which a member is dropped. @default 5_000 */
  readonly dropMs?: number;
  /** Most members. @default 1_024 */
  readonly maxMembers?: number;
  /** Most placement entries, leases or moves of one member. @default 65_536 */
  readonly maxEntries?: number;
  /** Most blocks of one member. @default 2 ** 31 */
  readonly maxBlocks?: number;
  /** Incarnations remembered that were replaced, dropped or left. @default 4_096 */
  readonly maxPast?: number;
}

/** What became of a heartbeat. */
export type HeartbeatOutcome =
  /** It was new. */
  | {
    readonly kind: "accepted";
    /** The answer. */
    readonly ack: HeartbeatAck;
    /** Whether the member was not known before. */
    readonly joined: boolean;
    /** The run of the same member that it takes the place of: it is gone. */
    readonly replaced?: MemberIdentity;
  }
  /**
   * Another run of the member is in the directory. Either that one is gone or this heartbeat is late, and the next one
   * tells: where it builds on the acknowledged one, its sender lives and takes the place.
   */
  | { readonly kind: "pending"; readonly ack: HeartbeatAck }
  /** It repeats or precedes what is known: nothing has changed. */
  | { readonly kind: "ignored"; readonly detail: string; readonly ack?: HeartbeatAck }
  /** It cannot be true or its sender is gone: nothing has changed. */
  | { readonly kind: "refused"; readonly code: RefusalCode; readonly detail: string };

interface Member {
  /** The latest heartbeat, with only the entries that it carried. */
  heartbeat: Heartbeat;
  /** When it came. */
  atMs: number;
  /** The first version that was acknowledged. */
  readonly since: number;
  /** Whether `entries` is all of them. */
  whole: boolean;
  /** By sequence and member. */
  readonly entries: Map<string, PlacementEntry>;
}

/** Directory and request placement map. */
export class GManagerState {
  readonly #now: () => number;
  readonly #suspectMs: number;
  readonly #dropMs: number;
  readonly #maxMembers: number;
  readonly #limits: { readonly maxBlocks: number; readonly maxEntries: number };
  readonly #members = new Map<string, Member>();
  /** By name: another run than the one in the directory, which has not shown yet that it lives. */
  readonly #pending = new Map<string, Member>();
  readonly #past: PastMembers;

  /**
   * Makes an empty state.
   *
   * @throws {RangeError} when a setting is not positive.
   */
  constructor(options: GManagerStateOptions) {
    const {
      now,
      heartbeatMs = 1_000,
      suspectAfter = 3,
      dropMs = 5_000,
      maxMembers = 1_024,
      maxEntries = 65_536,
      maxBlocks = 2 ** 31,
      maxPast = 4_096,
    } = options;
    const settings = { heartbeatMs, suspectAfter, dropMs, maxMembers, maxEntries, maxBlocks, maxPast };
    for (const [name, value] of Object.entries(settings)) {
      if (!(value > 0)) throw new RangeError(`Cannot keep members: wanted ${name} above 0, got ${value}`);
    }
    this.#now = now;
    this.#suspectMs = heartbeatMs * suspectAfter;
    this.#dropMs = dropMs;
    this.#maxMembers = maxMembers;
    this.#limits = { maxBlocks, maxEntries };
    this.#past = new PastMembers(maxPast);
  }

  /** Time at which {@linkcode sweep} has somebody to drop, if nobody is heard of until then. */
  get nextDropMs(): number | undefined {
    const oldest = Math.min(...Array.from(this.#members.values(), ({ atMs }) => atMs));
    return oldest === Infinity ? undefined : oldest + this.#dropMs + 1;
  }

  /** Takes note of a heartbeat that `from` has sent. */
  accept(from: MemberIdentity, heartbeat: Heartbeat): HeartbeatOutcome {
    const { name, incarnation } = heartbeat.card;
    if (name !== from.name || incarnation !== from.incarnation) {
      return refused("unable", `wanted a heartbeat of ${from.name} itself, got one of ${name}`);
    }
    const problem = heartbeatProblem(heartbeat, this.#limits);
    if (problem !== undefined) return refused("bad_shape", `heartbeat of ${name}: ${problem}`);
    this.sweep();
    const past = this.#past.get(incarnation);
    if (past === "gone") return refused("unable", `incarnation ${incarnation} of ${name} is gone`);
    const current = this.#members.get(name);
    const taken = current !== undefined && current.heartbeat.card.incarnation !== incarnation;
    const known = taken ? this.#pending.get(name) : current;
    const member = known?.heartbeat.card.incarnation === incarnation ? known : undefined;
    const version = member?.heartbeat.version ?? past ?? 0;
    if (heartbeat.version <= version) {
      const detail = `heartbeat of ${name}: wanted a version above ${version}, got ${heartbeat.version}`;
      return { kind: "ignored", detail, ack: member && this.#ack(member, heartbeat.version) };
    }
    if (current === undefined && this.#members.size >= this.#maxMembers) {
      return refused("over_cap", `wanted at most ${this.#maxMembers} members, ${name} is one more`);
    }
    if (member !== undefined && heartbeat.base !== undefined && this.#overflows(member, heartbeat)) {
      return refused("bad_shape", `heartbeat of ${name}: wanted at most ${this.#limits.maxEntries} entries in all`);
    }
    const updated = member ?? { heartbeat, atMs: 0, since: heartbeat.version, whole: false, entries: new Map() };
    this.#update(updated, heartbeat);
    if (taken) return this.#challenge(current, updated);
    this.#past.back(heartbeat.card);
    this.#members.set(name, updated);
    this.#pending.delete(name);
    return { kind: "accepted", ack: this.#ack(updated, heartbeat.version), joined: member === undefined };
  }

  /** Drops members that were silent for too long. @returns them. */
  sweep(): readonly MemberIdentity[] {
    const nowMs = this.#now();
    const dropped: MemberIdentity[] = [];
    for (const [name, { atMs, heartbeat: { card, version } }] of this.#members) {
      if (nowMs - atMs <= this.#dropMs) continue;
      this.#members.delete(name);
      this.#past.silent(card, version);
      dropped.push({ name, incarnation: card.incarnation });
    }
    for (const [name, { atMs }] of this.#pending) {
      if (nowMs - atMs > this.#dropMs) this.#pending.delete(name);
    }
    return dropped;
  }

  /** Takes a member off that said goodbye: nothing that comes late brings it back. @returns whether it was known. */
  remove(member: MemberIdentity): boolean {
    this.#past.gone(member);
    if (this.#pending.get(member.name)?.heartbeat.card.incarnation === member.incarnation) {
      this.#pending.delete(member.name);
    }
    if (this.#members.get(member.name)?.heartbeat.card.incarnation !== member.incarnation) return false;
    return this.#members.delete(member.name);
  }

  /** Members, in order of their joining. */
  directory(): MemberStatus[] {
    return this.#alive().map(({ heartbeat: { card, blocks, load, leaving }, atMs }) => {
      const silentMs = this.#now() - atMs;
      const state = leaving ? "leaving" : silentMs > this.#suspectMs ? "suspect" : "alive";
      return { card, blocks, load, silentMs, state };
    });
  }

  /** The request placement map: how much of each sequence lies where, as its home says. */
  placements(): PlacementEntry[] {
    return this.#alive().flatMap(({ entries }) => [...entries.values()]);
  }

  /** Leases, as their creditors say. */
  leases(): (LeaseReport & { readonly creditor: string })[] {
    return this.#alive().flatMap(({ heartbeat: { card, leases } }) =>
      leases.map((lease) => ({ ...lease, creditor: card.name }))
    );
  }

  /** Moves, as their homes say. */
  moves(): MoveReport[] {
    return this.#alive().flatMap(({ heartbeat: { moves } }) => moves);
  }

  /** Whether the placement map of every member is complete. */
  get whole(): boolean {
    return this.#alive().every(({ whole }) => whole);
  }

  /**
   * Checks the directory and the map.
   *
   * @throws {Error} with what does not hold.
   */
  checkIntegrity(): void {
    const incarnations = new Set<string>();
    for (const [name, { heartbeat: { card }, entries }] of this.#members) {
      if (card.name !== name || incarnations.has(card.incarnation) || this.#past.get(card.incarnation) !== undefined) {
        throw new Error(`Directory is broken: ${name} is ${card.name}/${card.incarnation}, known twice or gone`);
      }
      incarnations.add(card.incarnation);
      for (const entry of entries.values()) {
        if (entry.blocks < 1 || !entry.sequence.startsWith(`${name}/`)) {
          throw new Error(`Placement map is broken: ${name} has ${entry.blocks} blocks of ${entry.sequence}`);
        }
      }
    }
  }

  /** Puts another run of a member into the directory once it has shown that it got an answer from here. */
  #challenge(current: Member, challenger: Member): HeartbeatOutcome {
    const { heartbeat: { card, base, version }, since } = challenger;
    if (base === undefined || base < since) {
      this.#pending.set(card.name, challenger);
      return { kind: "pending", ack: this.#ack(challenger, version) };
    }
    const { name, incarnation } = current.heartbeat.card;
    this.#past.back(card);
    this.#past.gone({ name, incarnation });
    this.#pending.delete(name);
    this.#members.set(name, challenger);
    return {
      kind: "accepted",
      ack: this.#ack(challenger, version),
      joined: false,
      replaced: { name, incarnation },
    };
  }

  #overflows(member: Member, { entries }: Heartbeat): boolean {
    const added = entries.filter((entry) => entry.blocks > 0 && !member.entries.has(keyOf(entry))).length;
    return member.entries.size + added > this.#limits.maxEntries;
  }

  #update(member: Member, heartbeat: Heartbeat): void {
    const { base, entries } = heartbeat;
    // A heartbeat carries all that changed after its base, so it also fits what is newer than the base.
    const fits = base === undefined || (member.whole && base <= member.heartbeat.version);
    if (base === undefined) member.entries.clear();
    if (fits) {
      for (const entry of entries) {
        if (entry.blocks === 0) member.entries.delete(keyOf(entry));
        else member.entries.set(keyOf(entry), entry);
      }
    }
    member.whole = fits;
    member.heartbeat = heartbeat;
    member.atMs = this.#now();
  }

  #ack(member: Member, version: number): HeartbeatAck {
    return { kind: "heartbeat-ack", version, wantFull: !member.whole, members: this.directory() };
  }

  #alive(): Member[] {
    const nowMs = this.#now();
    return [...this.#members.values()].filter(({ atMs }) => nowMs - atMs <= this.#dropMs);
  }
}

function keyOf({ sequence, member }: PlacementEntry): string {
  return `${sequence}\n${member}`;
}

function refused(code: RefusalCode, detail: string): HeartbeatOutcome {
  return { kind: "refused", code, detail };
}
