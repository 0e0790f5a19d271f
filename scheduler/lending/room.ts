/**
 * Room for sequences that this instance cannot hold alone.
 *
 * A sequence that fits the pool takes no part in this. One that does not asks other members for slots, starts when it has
 * them, and from then on lives on few local blocks: its lowest full segments move out, and the blocks they leave become
 * room for its next tokens.
 *
 * Why two such sequences never wait for each other for good: what is promised is reserved. A sequence starts only with
 * slots and local blocks that together hold all it was promised, and all it needs to use them is the end of its own moves.
 * A sequence that waits in the queue loses its slots with a refusal. One that outgrows its promise waits for nothing but
 * an answer, and the slots of those that wait are its own before it asks: with a refusal it takes the blocks of the lowest
 * rank, and if that is itself, gives back all it has. The highest rank is never preempted for another one, so some sequence
 * always goes on.
 *
 * @module
 */
import type { BlockPool } from "../block_pool.ts";
import type { BlockTables, FoundPrefix } from "../block_tables.ts";
import type { Sequence } from "../sequence.ts";
import type { MemoryDemands } from "./memory_demands.ts";
import type { BorrowedSegments } from "./borrowed_segments.ts";
import type { Reservations } from "./reservations.ts";
import type { SegmentMoves } from "./segment_moves.ts";

/** Tokens for which a sequence reserves room beyond those it has, if it may generate that many. */
export const GROWTH_TOKENS = 1_024;

/** Makes {@linkcode Room}. */
export interface RoomOptions {
  /** Blocks of this instance. */
  readonly pool: BlockPool;
  /** Block tables. */
  readonly tables: BlockTables;
  /** Slots at other members. */
  readonly borrowed: BorrowedSegments;
  /** What was granted. */
  readonly reservations: Reservations;
  /** Moves under way. */
  readonly moves: SegmentMoves;
  /** What is asked for. */
  readonly demands: MemoryDemands;
  /** Sequences that have tables. */
  readonly running: ReadonlySet<Sequence>;
  /** Most tokens of one step. */
  readonly maxStepTokens: number;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  /** Segments that could be borrowed now. */
  readonly reach: () => number;
  /** The same, once newcomers that fill gently go on to lend. */
  readonly soon: () => number;
  /** Segments that could be borrowed if nobody else had anything at those who lend. */
  readonly capacity: () => number;
  /** See {@linkcode GROWTH_TOKENS}. */
  readonly growthTokens: number;
  /** Monotonic clock, ms. */
  readonly now: () => number;
}

/** What a waiting sequence needs. */
export interface StartNeed {
  /** Slots to borrow before it can start, beside those it has. */
  readonly slots: number;
  /** Segments that stay here. */
  readonly localSegments: number;
  /** Tokens it is promised room for. */
  readonly promised: number;
  /** What is there of it already. */
  readonly prefix: FoundPrefix;
  /** Blocks to allocate. */
  readonly fresh: number;
}

/** Works out and hands out room. */
export class Room {
  readonly #options: RoomOptions;
  readonly #segmentBlocks: number;

  /** Makes one. */
  constructor(options: RoomOptions) {
    this.#options = options;
    this.#segmentBlocks = options.tables.blocksPerSegment;
  }

  /** Blocks that are neither lent nor on their way back. */
  get #own(): number {
    const { total, lent, quarantined } = this.#options.pool.counts;
    return total - lent - quarantined;
  }

  /** Segments that could be at other members: those that are, and those within reach. */
  get #elsewhere(): number {
    return this.#options.borrowed.size + this.#options.reach();
  }

  /** Tokens of the longest sequence that could run now, or soon. */
  get reachableTokens(): number {
    const { borrowed, soon } = this.#options;
    return this.#tokensWith(Math.max(this.#elsewhere, borrowed.size + soon()));
  }

  /** Tokens of the longest sequence that could run once all others have ended. */
  get mostTokens(): number {
    return this.#tokensWith(Math.max(this.#elsewhere, this.#options.capacity()));
  }

  #tokensWith(segments: number): number {
    const { pool, tables, segmentTokens } = this.#options;
    const local = pool.total * tables.blockTokens;
    return pool.total < this.#segmentBlocks ? local : local + segments * segmentTokens;
  }

  /** Whether a waiting sequence starts on local blocks alone, with all it knows. */
  isPlain(sequence: Sequence): boolean {
    const { tables, pool, reach } = this.#options;
    if (tables.blocksFor(this.#reserve(sequence)) <= this.#own) return true;
    // Nobody lends: what fits once all that is lent is back waits for that, as all would without other members.
    return tables.blocksFor(sequence.length) <= pool.total && reach() === 0;
  }

  /** Whether a running sequence that needs a block takes it from others here, as all would without other members. */
  #growsHere(sequence: Sequence): boolean {
    const { tables, reach } = this.#options;
    return tables.blocksFor(sequence.finalLength) <= this.#own || reach() === 0;
  }

  /** Whether a sequence could not run if it had everything that others have to lend. */
  isTooLarge(sequence: Sequence): boolean {
    return sequence.length > this.mostTokens;
  }

  /** What a waiting sequence that is not plain needs to start; `spare` blocks are left to others. */
  startNeed(sequence: Sequence, spare: number): StartNeed {
    const { tables, pool, reservations, borrowed, reach } = this.#options;
    const each = this.#segmentBlocks;
    const own = this.#own;
    const held = reservations.get(sequence)?.unused.length ?? 0;
    const shared = borrowed.used > 0 ? tables.findPrefix(sequence).borrowed.size : 0;
    // No more is promised than can be had, so that a sequence whose known tokens fit is not kept waiting for its growth.
    const known = tables.blocksFor(sequence.length);
    // What is within reach may still count what was just granted: once it has slots, they are what there is.
    const more = held > 0 ? 0 : reach();
    const most = Math.max(known, own + (held + shared + more) * each);
    const total = Math.min(tables.blocksFor(this.#reserve(sequence)), most);
    const window = Math.min(this.#windowBlocks, total - shared * each);
    // What it has was measured against the room there was: where it suffices, it waits for local blocks, not for more slots.
    const cap = Math.max(window, Math.floor(own / 2), total - (shared + reach()) * each);
    const target = held > 0 ? own : Math.max(window, Math.min(pool.available - spare, cap));
    const slots = Math.max(0, Math.ceil((total - shared * each - target) / each) - held);
    const local = Math.max(window, total - (shared + held + slots) * each);
    const prefix = tables.findPrefix(sequence, { mostLocal: Math.max(0, local - each) });
    const missing = total - (prefix.borrowed.size + held + slots) * each - prefix.local.length;
    return {
      slots,
      localSegments: Math.ceil(local / each),
      promised: Math.min(this.#reserve(sequence), total * tables.blockTokens),
      prefix,
      fresh: Math.min(total - prefix.blocks.length, Math.max(missing, local - prefix.local.length)),
    };
  }

  /** Starts a waiting sequence whose slots are complete. @returns false when there are not enough local blocks. */
  tryStart(sequence: Sequence, options: { readonly need: StartNeed; readonly spare: number }): boolean {
    const { need: { prefix, fresh, promised }, spare } = options;
    const { tables, reservations, now } = this.#options;
    if (!tables.tryStartFrom(sequence, { prefix, fresh, spare, atMs: now() })) return false;
    const reservation = reservations.add(sequence, []);
    reservation.promised = promised;
    reservations.settle(sequence);
    return true;
  }

  /** Finds room for the next tokens of a running sequence: blocks for lost segments first. */
  find(sequence: Sequence): "ready" | "waits" | "short" {
    if (sequence.lostTokens > 0) {
      const mended = this.#mend(sequence);
      if (mended !== "ready") return mended;
      if (sequence.lostTokens > 0) return "ready";
    }
    if (sequence.capacity > sequence.computed) return "ready";
    const { tables, pool, reservations, running } = this.#options;
    const promised = reservations.get(sequence)?.promised ?? 0;
    if (promised > sequence.capacity && this.#isBacked(sequence)) {
      // Its own moves bring the room; blocks that nobody wants spare it the wait.
      if (pool.available <= running.size) return "waits";
      tables.extend(sequence, 1);
      return "ready";
    }
    if (this.#growsHere(sequence) && sequence.decoding) return "ready";
    const wanted = tables.blocksFor(sequence.length) - sequence.blocks.length;
    tables.extend(sequence, Math.min(wanted, this.#windowBlocks));
    if (sequence.capacity > sequence.computed) return "ready";
    if (!this.#isBacked(sequence)) return "short";
    // Slots that were given without being asked for: it needs them now.
    const reservation = reservations.add(sequence, []);
    reservation.promised = Math.min(this.#reserve(sequence), reservations.backed(sequence));
    return "waits";
  }

  /**
   * Finds room elsewhere for a running sequence that is short of it: in slots of sequences that wait, which lose them all,
   * or by asking for it. @returns false when nothing of it could move there, or nothing is within reach.
   */
  tryElsewhere(sequence: Sequence): boolean {
    const { demands, reach, moves, reservations, borrowed } = this.#options;
    if (moves.movable(sequence) === undefined) return false;
    const lost = sequence.places.lost.length;
    const grow = Math.ceil((this.#reserve(sequence) - reservations.backed(sequence)) / sequence.segmentTokens);
    const wanted = lost > 0 ? lost : Math.max(1, grow);
    // What waits must not keep from going on what runs: each would preempt itself for the other, for ever.
    const idle = [...reservations].flatMap(([other]) => other.status === "waiting" ? reservations.take(other) : []);
    if (idle.length > 0) {
      const reservation = reservations.add(sequence, idle.splice(0, wanted));
      if (lost === 0) reservation.promised = Math.min(this.#reserve(sequence), reservations.backed(sequence));
      borrowed.drop(idle);
      return true;
    }
    if (reach() === 0) return false;
    demands.ask(sequence, {
      segments: lost > 0 ? lost : Math.min(wanted, reach()),
      localSegments: Math.ceil(sequence.localCount / this.#segmentBlocks),
      reason: lost > 0 ? "repair" : "grow",
    });
    return true;
  }

  /** Whether moves of the sequence's own bring room. */
  #isBacked(sequence: Sequence): boolean {
    const { reservations, moves } = this.#options;
    const { unused = [], moving = 0 } = reservations.get(sequence) ?? {};
    return moving > 0 || (unused.length > 0 && moves.movable(sequence) !== undefined);
  }

  /** Gives blocks to the lost segments that the next step can compute again. */
  #mend(sequence: Sequence): "ready" | "waits" | "short" {
    const { tables, reservations, now } = this.#options;
    const most = Math.max(1, Math.floor(this.#windowBlocks / this.#segmentBlocks));
    let begun = 0;
    for (const segment of sequence.places.lost) {
      if (begun >= most) break;
      if (this.#isMendedElsewhere(sequence, segment)) break;
      if (!tables.tryMend(sequence, segment, now())) break;
      if (sequence.places.at(segment)?.kind === "mending") begun++;
    }
    reservations.settle(sequence);
    const first = sequence.places.firstBroken;
    if (first === undefined || sequence.places.at(first)?.kind === "mending") return "ready";
    if (this.#isMendedElsewhere(sequence, first) || this.#isBacked(sequence)) return "waits";
    return "short";
  }

  /** Of the sequences that share a lost segment one computes it again; the others find it in the prefix cache then. */
  #isMendedElsewhere(sequence: Sequence, segment: number): boolean {
    const { tables, running } = this.#options;
    const digest = tables.segmentDigest(sequence, segment);
    if (digest === undefined) return false;
    for (const other of running) {
      if (other === sequence || other.lostTokens === 0 || other.places.at(segment)?.kind !== "mending") continue;
      if (tables.segmentDigest(other, segment) === digest) return true;
    }
    return false;
  }

  /** Tokens a sequence reserves room for. */
  #reserve({ length, finalLength }: Sequence): number {
    return Math.max(length, Math.min(finalLength, length + this.#options.growthTokens));
  }

  /** Local blocks a sequence needs at least, so that computing and moving overlap: two segments, or a step's tokens. */
  get #windowBlocks(): number {
    const { maxStepTokens, segmentTokens } = this.#options;
    const wanted = Math.max(2, Math.ceil(maxStepTokens / segmentTokens));
    return Math.max(1, Math.min(wanted, Math.floor(this.#own / this.#segmentBlocks))) * this.#segmentBlocks;
  }
}
