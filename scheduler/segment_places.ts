/**
 * Where those segments of one sequence lie that are not whole in local blocks.
 *
 * @module
 */
import type { BorrowedSlot } from "./lending/borrowed.ts";

/** What a segment is when it is not whole in local blocks. */
export type SegmentPlace =
  /** Its KV lies at another member. */
  | { readonly kind: "borrowed"; readonly slot: BorrowedSlot }
  /** Its KV is gone and it has no blocks. */
  | { readonly kind: "lost" }
  /** It has blocks, in which the KV of its first `done` tokens is there again. */
  | { readonly kind: "mending"; readonly done: number };

/** Borrowed segments as a step needs them. */
export interface RemoteSegments {
  /** Runs of borrowed segments [from, to), ascending. */
  readonly absent: readonly { readonly from: number; readonly to: number }[];
  /** Each of them with its slot, ascending. */
  readonly slots: readonly { readonly segment: number; readonly slot: BorrowedSlot }[];
}

const NOTHING: RemoteSegments = { absent: [], slots: [] };

/** The places of one sequence; its {@linkcode Sequence} changes them. */
export class SegmentPlaces {
  readonly #segmentTokens: number;
  readonly #away = new Map<number, SegmentPlace>();
  /** Times of those changes that leave a segment elsewhere than at the start, ms. */
  readonly #sinceMs = new Map<number, number>();
  #startMs = 0;
  #lostTokens = 0;
  #borrowed = 0;
  #withoutBlocks = 0;
  #remote: RemoteSegments | undefined = NOTHING;

  /** Everything is local. */
  constructor(segmentTokens: number) {
    this.#segmentTokens = segmentTokens;
  }

  /** Segments that are not whole in local blocks. */
  get size(): number {
    return this.#away.size;
  }

  /** Segments at other members. */
  get borrowed(): number {
    return this.#borrowed;
  }

  /** Segments without local blocks. */
  get withoutBlocks(): number {
    return this.#withoutBlocks;
  }

  /** Tokens whose KV is gone. */
  get lostTokens(): number {
    return this.#lostTokens;
  }

  /** Segments of which KV is gone. */
  get brokenCount(): number {
    return this.#away.size - this.#borrowed;
  }

  /** Lost segments without blocks, ascending. */
  get lost(): readonly number[] {
    if (this.#lostTokens === 0) return [];
    return [...this.#away].filter(([, { kind }]) => kind === "lost").map(([segment]) => segment).sort((a, b) => a - b);
  }

  /** The first segment of which KV is gone; undefined when there is none. */
  get firstBroken(): number | undefined {
    if (this.#lostTokens === 0) return undefined;
    let first: number | undefined;
    for (const [segment, { kind }] of this.#away) {
      if (kind !== "borrowed" && segment < (first ?? Infinity)) first = segment;
    }
    return first;
  }

  /** Place of `segment`; undefined when it is local, computed or not. */
  at(segment: number): SegmentPlace | undefined {
    return this.#away.get(segment);
  }

  /** Whether `segment` has local blocks. */
  hasBlocks(segment: number): boolean {
    const kind = this.#away.get(segment)?.kind;
    return kind === undefined || kind === "mending";
  }

  /** Time since which `segment` is where it is, ms. */
  sinceMs(segment: number): number {
    return this.#sinceMs.get(segment) ?? this.#startMs;
  }

  /** Tokens to compute again next: lost ones whose blocks are there, in order. Nothing when no KV is gone. */
  nextRepair(): { readonly position: number; readonly tokens: number } | undefined {
    const first = this.firstBroken;
    if (first === undefined) return undefined;
    const place = this.#away.get(first);
    if (place?.kind !== "mending") return { position: first * this.#segmentTokens, tokens: 0 };
    let end = first + 1;
    for (let next = this.#away.get(end); next?.kind === "mending"; next = this.#away.get(end)) {
      // The rest of a segment begun earlier is another chunk: its tokens do not follow on these.
      if (next.done > 0) break;
      end++;
    }
    const position = first * this.#segmentTokens + place.done;
    return { position, tokens: end * this.#segmentTokens - position };
  }

  /** Borrowed segments below segment `end`. */
  remoteBelow(end: number): RemoteSegments {
    if (this.#borrowed === 0) return NOTHING;
    const all = this.#remote ??= remoteOf(this.#away);
    const last = all.slots.at(-1);
    if (last === undefined || last.segment < end) return all;
    return remoteOf(
      new Map(
        all.slots.filter(({ segment }) => segment < end).map(({ segment, slot }) => [segment, {
          kind: "borrowed",
          slot,
        }]),
      ),
    );
  }

  /** All segments are local. */
  clear(atMs: number): void {
    this.#away.clear();
    this.#sinceMs.clear();
    this.#startMs = atMs;
    this.#lostTokens = 0;
    this.#borrowed = 0;
    this.#withoutBlocks = 0;
    this.#remote = NOTHING;
  }

  /** A segment lies at another member. */
  borrow(segment: number, slot: BorrowedSlot, atMs: number): void {
    this.#set(segment, { kind: "borrowed", slot }, atMs);
  }

  /** A segment is lost. */
  lose(segment: number): void {
    this.#set(segment, { kind: "lost" });
  }

  /** A segment has local blocks with the KV of its first `done` tokens. */
  mend(segment: number, done: number, atMs: number): void {
    this.#set(segment, done < this.#segmentTokens ? { kind: "mending", done } : undefined, atMs);
  }

  /** The KV of `tokens` tokens from `position` on is there again. */
  settle(position: number, tokens: number, atMs: number): void {
    for (let at = position; at < position + tokens;) {
      const segment = Math.floor(at / this.#segmentTokens);
      const end = Math.min(position + tokens, (segment + 1) * this.#segmentTokens);
      this.mend(segment, end - segment * this.#segmentTokens, atMs);
      at = end;
    }
  }

  #set(segment: number, place: SegmentPlace | undefined, atMs?: number): void {
    this.#count(this.#away.get(segment), -1);
    this.#count(place, 1);
    if (place === undefined) this.#away.delete(segment);
    else this.#away.set(segment, place);
    if (atMs !== undefined) this.#sinceMs.set(segment, atMs);
    this.#remote = undefined;
  }

  #count(place: SegmentPlace | undefined, sign: 1 | -1): void {
    if (place === undefined) return;
    if (place.kind !== "mending") this.#withoutBlocks += sign;
    if (place.kind === "borrowed") this.#borrowed += sign;
    if (place.kind === "lost") this.#lostTokens += sign * this.#segmentTokens;
    if (place.kind === "mending") this.#lostTokens += sign * (this.#segmentTokens - place.done);
  }
}

function remoteOf(places: ReadonlyMap<number, SegmentPlace>): RemoteSegments {
  const slots: { segment: number; slot: BorrowedSlot }[] = [];
  for (const [segment, place] of places) if (place.kind === "borrowed") slots.push({ segment, slot: place.slot });
  slots.sort((a, b) => a.segment - b.segment);
  const absent: { from: number; to: number }[] = [];
  for (const { segment } of slots) {
    const last = absent.at(-1);
    if (last?.to === segment) last.to++;
    else absent.push({ from: segment, to: segment + 1 });
  }
  return { absent, slots };
}
