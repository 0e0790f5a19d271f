/**
 * Heartbeats of one member: everything once, then what changed.
 *
 * @module
 */
import type { MemberIdentity } from "../protocol/member.ts";
import type { Heartbeat, PlacementEntry } from "../protocol/messages.ts";

/** What a member says about itself now; the placement entries are all there are. */
export type MemberSnapshot = Omit<Heartbeat, "kind" | "version" | "base">;

interface Known {
  /** As it is; with 0 blocks once it is gone. */
  readonly entry: PlacementEntry;
  /** The version that first said so. */
  readonly version: number;
}

/**
 * Builds heartbeats. One that is not complete carries every entry that changed after the version which the gManager
 * acknowledged last, so a heartbeat or an acknowledgement that is lost leaves no gap.
 */
export class HeartbeatWriter {
  readonly #maxUnacknowledged: number;
  readonly #known = new Map<string, Known>();
  #version = 0;
  /** What the gManager surely has; undefined when the next heartbeat is complete. */
  #acknowledged?: number;
  /** The version that last dropped entries which are gone: nothing can build on an earlier one. */
  #forgotten = 0;
  #manager = "";

  /**
   * Makes the writer of one incarnation of a member.
   *
   * @throws {RangeError} when the setting is not a positive whole number.
   */
  constructor(options: {
    /** Heartbeats without an acknowledgement after which the next one is complete again. @default 30 */
    readonly maxUnacknowledged?: number;
  } = {}) {
    const { maxUnacknowledged = 30 } = options;
    if (!Number.isInteger(maxUnacknowledged) || maxUnacknowledged < 1) {
      throw new RangeError(
        `Cannot write heartbeats: wanted maxUnacknowledged a positive whole number, got ${maxUnacknowledged}`,
      );
    }
    this.#maxUnacknowledged = maxUnacknowledged;
  }

  /** Version of the latest heartbeat; 0 before the first. */
  get version(): number {
    return this.#version;
  }

  /**
   * Builds the next heartbeat for a gManager. It is complete when that one has changed, or its epoch, or it asked.
   *
   * @throws {RangeError} when two entries are about the same sequence and member.
   */
  write(snapshot: MemberSnapshot, to: { readonly manager: MemberIdentity; readonly epoch: number }): Heartbeat {
    const manager = `${to.manager.incarnation}/${to.epoch}`;
    if (manager !== this.#manager) this.#acknowledged = undefined;
    this.#manager = manager;
    const version = ++this.#version;
    this.#note(snapshot.entries);
    const base = this.#acknowledged;
    if (base === undefined || version - base > this.#maxUnacknowledged) {
      this.#acknowledged = undefined;
      this.#forget(version);
      this.#forgotten = version;
      return { ...snapshot, kind: "heartbeat", version, entries: [...this.#known.values()].map(({ entry }) => entry) };
    }
    const entries = [...this.#known.values()].filter((known) => known.version > base).map(({ entry }) => entry);
    return { ...snapshot, kind: "heartbeat", version, base, entries };
  }

  /** Takes note of an answer; one of another gManager or epoch than the latest heartbeat's changes nothing. */
  acknowledge(
    ack: { readonly version: number; readonly wantFull: boolean },
    from: { readonly manager: MemberIdentity; readonly epoch: number },
  ): void {
    if (`${from.manager.incarnation}/${from.epoch}` !== this.#manager) return;
    if (ack.wantFull) {
      this.#acknowledged = undefined;
    } else if (
      ack.version >= this.#forgotten && ack.version <= this.#version && ack.version > (this.#acknowledged ?? 0)
    ) {
      this.#acknowledged = ack.version;
      this.#forget(ack.version);
    }
  }

  /** Compares all entries with what earlier versions said. */
  #note(entries: readonly PlacementEntry[]): void {
    const present = new Set<string>();
    for (const entry of entries) {
      if (entry.blocks === 0) continue;
      const key = `${entry.sequence}\n${entry.member}`;
      if (present.has(key)) {
        throw new RangeError(
          `Cannot write a heartbeat: wanted one entry for ${entry.sequence} on ${entry.member}, got two`,
        );
      }
      present.add(key);
      const known = this.#known.get(key);
      if (known === undefined || !sameEntry(known.entry, entry)) {
        this.#known.set(key, { entry, version: this.#version });
      }
    }
    for (const [key, { entry }] of this.#known) {
      if (present.has(key) || entry.blocks === 0) continue;
      this.#known.set(key, { entry: { ...entry, blocks: 0, ranges: [] }, version: this.#version });
    }
  }

  /** Drops entries that are gone and of which the gManager knows. */
  #forget(version: number): void {
    for (const [key, known] of this.#known) {
      if (known.entry.blocks === 0 && known.version <= version) this.#known.delete(key);
    }
  }
}

function sameEntry(a: PlacementEntry, b: PlacementEntry): boolean {
  return a.blocks === b.blocks && a.local === b.local && a.length === b.length && a.pinned === b.pinned &&
    a.ranges.length === b.ranges.length && a.ranges.every((range, i) => {
      const other = b.ranges[i];
      return range.from === other.from && range.to === other.to && range.sinceMs === other.sinceMs;
    });
}
