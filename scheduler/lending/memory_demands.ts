/**
 * What sequences ask other members for, and what became of it.
 *
 * @module
 */
import type { Sequence } from "../sequence.ts";
import type { MemoryDemand } from "./cluster_memory.ts";

/** Time after a refusal until a sequence asks again, ms. */
export const DEMAND_BACKOFF_MS = 250;

/** Time for which a sequence must have been larger than everything within reach before it is given up, ms. */
export const CAPACITY_PATIENCE_MS = 5_000;

interface OpenDemand {
  readonly demand: MemoryDemand;
  /** Segments granted so far. */
  granted: number;
  /** Time of the refusal, ms. */
  refusedMs?: number;
}

const URGENCY = { repair: 0, grow: 1, start: 2 } as const;

/** Demands of live sequences, at most one each. */
export class MemoryDemands {
  readonly #now: () => number;
  readonly #open = new Map<Sequence, OpenDemand>();
  /** Time since which a sequence is larger than everything within reach, ms. */
  readonly #hopelessMs = new Map<Sequence, number>();

  /** Starts without demands, on a monotonic clock. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Demands in all, refused ones included. */
  get size(): number {
    return this.#open.size;
  }

  /** Where the demand of a sequence stands. */
  state(sequence: Sequence): "none" | "asked" | "refused" {
    const open = this.#open.get(sequence);
    if (open === undefined) return "none";
    return this.#isRefused(open) ? "refused" : "asked";
  }

  /** Asks for segments, unless a demand is open. One that was refused will be asked with these numbers. */
  ask(sequence: Sequence, wanted: Pick<MemoryDemand, "segments" | "localSegments" | "reason">): void {
    const open = this.#open.get(sequence);
    if (open !== undefined && !this.#isRefused(open)) return;
    const { id, length, finalLength } = sequence;
    const demand = { ...wanted, sequence: id, tokens: length, maxTokens: finalLength };
    this.#open.set(sequence, { demand, granted: 0, refusedMs: open?.refusedMs });
  }

  /**
   * Demands without an answer, most urgent first; a refused one of a sequence that waits is there again after
   * {@linkcode DEMAND_BACKOFF_MS}.
   */
  list(): readonly MemoryDemand[] {
    return [...this.#open.values()]
      .filter((open) => !this.#isRefused(open))
      .map(({ demand, granted }) => ({ ...demand, segments: demand.segments - granted }))
      .sort((a, b) => URGENCY[a.reason] - URGENCY[b.reason] || a.sequence - b.sequence);
  }

  /** Segments were granted. @returns the demand they answer, if there is one. */
  grant(sequence: Sequence, segments: number): MemoryDemand | undefined {
    const open = this.#open.get(sequence);
    if (open === undefined || this.#isRefused(open)) return undefined;
    open.granted += segments;
    if (open.granted >= open.demand.segments) this.#open.delete(sequence);
    return open.demand;
  }

  /** Nobody lends for a demand now. @returns whether there was one. */
  refuse(sequence: Sequence): boolean {
    const open = this.#open.get(sequence);
    if (open === undefined) return false;
    this.#open.set(sequence, { demand: open.demand, granted: 0, refusedMs: this.#now() });
    return true;
  }

  /** Notes whether a sequence is larger than everything within reach. @returns whether it has been so for too long. */
  isHopeless(sequence: Sequence, tooLarge: boolean): boolean {
    if (!tooLarge) {
      this.#hopelessMs.delete(sequence);
      return false;
    }
    const sinceMs = this.#hopelessMs.get(sequence) ?? this.#now();
    this.#hopelessMs.set(sequence, sinceMs);
    return this.#now() - sinceMs >= CAPACITY_PATIENCE_MS;
  }

  /** Forgets the demand of a sequence. */
  drop(sequence: Sequence): void {
    this.#open.delete(sequence);
  }

  /** Forgets a sequence. */
  forget(sequence: Sequence): void {
    this.#open.delete(sequence);
    this.#hopelessMs.delete(sequence);
  }

  /** Checks that every demand is a live sequence's. @throws {Error} naming one that is not. */
  checkIntegrity(): void {
    for (const [{ id, status }, { demand, granted }] of this.#open) {
      if (status === "ended" || (status === "waiting") !== (demand.reason === "start")) {
        throw new Error(`Demand is broken: sequence ${id} is ${status}, it asks for room to ${demand.reason}`);
      }
      if (granted >= demand.segments) {
        throw new Error(`Demand is broken: sequence ${id} was granted ${granted} >= ${demand.segments} segments`);
      }
    }
  }

  /** The refusal of a sequence that runs stands until the scheduler has acted on it. */
  #isRefused({ refusedMs, demand }: OpenDemand): boolean {
    return refusedMs !== undefined && (demand.reason !== "start" || this.#now() - refusedMs < DEMAND_BACKOFF_MS);
  }
}
