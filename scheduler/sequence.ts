/**
 * One sequence of tokens on its way through the scheduler.
 *
 * @module
 */
import type { BlockId } from "./block_pool.ts";
import type { BorrowedSlot } from "./lending/borrowed.ts";
import { PrefixChain } from "./prefix_chain.ts";
import { type RemoteSegments, SegmentPlaces } from "./segment_places.ts";

/** What a sequence is from the start. */
export interface SequenceOptions {
  /** Handle, unique, rising in the order of arrival. */
  readonly id: number;
  /** Prompt ids, at least one; not copied. */
  readonly prompt: Int32Array;
  /** Most tokens to generate; 0 computes the prompt only. */
  readonly maxTokens: number;
  /** Tokens generated before it came here. @default {[]} */
  readonly generated?: readonly number[];
  /** Client's priority, lower first. @default {0} */
  readonly priority?: number;
  /** Time it arrived, ms. */
  readonly arrivedMs: number;
  /** Whether a row of logits is wanted for every prompt token. @default {false} */
  readonly promptRows?: boolean;
  /** The first of several sequences with this prompt: this one waits until the leader's prompt can be shared. */
  readonly leader?: Sequence;
  /** Start of the prefix chain, 32 bytes. */
  readonly salt: Uint8Array;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Tokens of one segment, a multiple of `blockTokens`. @default {256} */
  readonly segmentTokens?: number;
}

/** One thing that happens to a sequence. */
export type SequenceChange =
  /**
   * It runs now; the KV of `cachedTokens` is there already. `blocks` is the whole table: at places of `borrowed` segments,
   * all of them below `cachedTokens`, it has {@linkcode FILLER}.
   */
  | {
    readonly kind: "start";
    readonly blocks: readonly BlockId[];
    readonly borrowed?: ReadonlyMap<number, BorrowedSlot>;
    readonly cachedTokens: number;
    readonly atMs: number;
  }
  /** Its block table grows by one. */
  | { readonly kind: "grow"; readonly block: BlockId }
  /** Its block table loses its last blocks, in which nothing was computed. */
  | { readonly kind: "shrink"; readonly blocks: number }
  /** A computed segment lies at another member from now on. */
  | { readonly kind: "away"; readonly segment: number; readonly slot: BorrowedSlot; readonly atMs: number }
  /** The KV of a segment is gone. */
  | { readonly kind: "lose"; readonly segment: number }
  /** A segment has local blocks again, with the KV of its first `done` tokens. */
  | {
    readonly kind: "home";
    readonly segment: number;
    readonly blocks: readonly BlockId[];
    readonly done: number;
    readonly atMs: number;
  }
  /** KV of `tokens` lost tokens from `position` on is there again. */
  | { readonly kind: "repaired"; readonly position: number; readonly tokens: number; readonly atMs: number }
  /** KV of `tokens` more tokens is there; `next` is the token sampled after the last known one. */
  | { readonly kind: "computed"; readonly tokens: number; readonly next?: number; readonly atMs: number }
  /** It lost its blocks and waits; what it generated stays. */
  | { readonly kind: "preempt"; readonly atMs: number }
  /** It is over. */
  | { readonly kind: "end" };

/** What stands in a block table where a segment has no local blocks: any valid id, it is never read. */
export const FILLER: BlockId = 0 as BlockId;

/** Tokens of one segment where nobody says otherwise. */
const SEGMENT_TOKENS = 256;

/** The part of a sequence that a step can compute next. */
export interface Chunk {
  /** Position of the first token. */
  readonly position: number;
  /** Tokens; 0 when there is no room or no budget. */
  readonly tokens: number;
  /** Rows of logits they need. */
  readonly logits: "none" | "last" | "all";
  /** Whether these tokens were computed before and lost. */
  readonly repair: boolean;
  /** Whether no known token is left without KV afterwards. */
  readonly last: boolean;
}

/** A record that everybody reads and only {@linkcode advance} changes. */
export class Sequence {
  /** Handle, unique, rising in the order of arrival. */
  readonly id: number;
  /** Prompt ids. */
  readonly prompt: Int32Array;
  /** Most tokens to generate. */
  readonly maxTokens: number;
  /** Client's priority, lower first. */
  readonly priority: number;
  /** Time it arrived, ms. */
  readonly arrivedMs: number;
  /** Whether a row of logits is wanted for every prompt token. */
  readonly promptRows: boolean;
  /** Tokens of one block. */
  readonly blockTokens: number;
  /** Tokens of one segment. */
  readonly segmentTokens: number;
  readonly #leader: Sequence | undefined;
  readonly #chain: PrefixChain;
  readonly #generated: number[];
  #status: "waiting" | "running" | "ended" = "waiting";
  #blocks: BlockId[] = [];
  readonly #places: SegmentPlaces;
  #computed = 0;
  #peak = 0;
  #preemptions = 0;
  #cachedTokens: number | undefined;
  #activeMs: number;

  /** Makes a waiting sequence. */
  constructor(options: SequenceOptions) {
    this.id = options.id;
    this.prompt = options.prompt;
    this.maxTokens = options.maxTokens;
    this.priority = options.priority ?? 0;
    this.arrivedMs = options.arrivedMs;
    this.promptRows = options.promptRows ?? false;
    this.blockTokens = options.blockTokens;
    this.segmentTokens = options.segmentTokens ?? SEGMENT_TOKENS;
    this.#places = new SegmentPlaces(this.segmentTokens);
    this.#generated = [...options.generated ?? []];
    this.#leader = options.leader;
    this.#chain = new PrefixChain(options.salt, options.blockTokens);
    this.#activeMs = options.arrivedMs;
  }

  /** Where it stands: only a running sequence owns blocks. */
  get status(): "waiting" | "running" | "ended" {
    return this.#status;
  }

  /** Block table, with {@linkcode FILLER} where a segment is borrowed or lost. Not changed while a step computes it. */
  get blocks(): readonly BlockId[] {
    return this.#blocks;
  }

  /** Blocks of this instance that are in the table, in order. */
  get localBlocks(): readonly BlockId[] {
    if (this.#places.size === 0) return this.#blocks;
    const each = this.blocksPerSegment;
    return this.#blocks.filter((_, i) => this.#places.hasBlocks(Math.floor(i / each)));
  }

  /** Blocks of this instance in the table. */
  get localCount(): number {
    return this.#blocks.length - this.#places.withoutBlocks * this.blocksPerSegment;
  }

  /** Blocks of one segment. */
  get blocksPerSegment(): number {
    return this.segmentTokens / this.blockTokens;
  }

  /** Where the segments lie that are not whole in local blocks. */
  get places(): Omit<SegmentPlaces, "borrow" | "lose" | "mend" | "clear" | "settle"> {
    return this.#places;
  }

  /** Segments that lie at other members, all of them below `position`, as a step needs them. */
  remoteBelow(position: number): RemoteSegments {
    return this.#places.remoteBelow(Math.floor(position / this.segmentTokens));
  }

  /** Blocks of segment `segment`, all of it in the table. */
  segmentBlocks(segment: number): readonly BlockId[] {
    return this.#blocks.slice(segment * this.blocksPerSegment, (segment + 1) * this.blocksPerSegment);
  }

  /** Whether all of a segment's KV lies in local blocks. */
  isLocal(segment: number): boolean {
    return (segment + 1) * this.segmentTokens <= this.#computed && this.#places.at(segment) === undefined;
  }

  /** Tokens that the block table has room for. */
  get capacity(): number {
    return this.#blocks.length * this.blockTokens;
  }

  /** Blocks at the end of the table in which nothing was computed. */
  get spareBlocks(): number {
    return this.#blocks.length - Math.ceil(this.#computed / this.blockTokens);
  }

  /** Most tokens of which the KV is ever needed: that of the last generated token is not. */
  get finalLength(): number {
    return this.prompt.length + Math.max(0, this.maxTokens - 1);
  }

  /** Tokens known: prompt and generated ones. */
  get length(): number {
    return this.prompt.length + this.#generated.length;
  }

  /** Tokens generated. */
  get generated(): number {
    return this.#generated.length;
  }

  /** Tokens that were computed, from the first on; the KV of {@linkcode lostTokens} of them is lost. */
  get computed(): number {
    return this.#computed;
  }

  /** The largest {@linkcode computed} there ever was; tokens below it are being computed again after a preemption. */
  get peak(): number {
    return this.#peak;
  }

  /** Tokens whose KV must be computed again before it can go on. */
  get lostTokens(): number {
    return this.#places.lostTokens;
  }

  /** Known tokens without KV. */
  get pending(): number {
    return this.length - this.#computed + this.#places.lostTokens;
  }

  /** Whether only the last generated token is pending. */
  get decoding(): boolean {
    return this.#generated.length > 0 && this.pending === 1;
  }

  /** Whether it need not wait for its leader: what can be shared is in the prefix cache or will never be. */
  get ready(): boolean {
    const leader = this.#leader;
    return leader === undefined || leader.status === "ended" || leader.peak >= leader.prompt.length;
  }

  /** Times it was preempted. */
  get preemptions(): number {
    return this.#preemptions;
  }

  /** Prompt tokens found in the prefix cache when it first started; undefined before. */
  get cachedTokens(): number | undefined {
    return this.#cachedTokens;
  }

  /** Time it arrived or was last part of a step, ms. */
  get activeMs(): number {
    return this.#activeMs;
  }

  /**
   * Tokens that may be taken from the prefix cache: the last known one is always computed, and so is every prompt token
   * whose row of logits is still wanted.
   */
  get sharable(): number {
    return this.#rowsWanted ? this.#peak : this.length - 1;
  }

  /** Whether rows of logits of prompt tokens have yet to be delivered; the last token's row comes anyway. */
  get #rowsWanted(): boolean {
    return this.promptRows && this.#peak < this.prompt.length - 1;
  }

  /**
   * What the next step may compute: lost tokens first, in order, then pending ones, as far as the table has blocks. Rows of
   * logits: `all` where rows of prompt tokens are wanted, else `none`, or `last` when no token stays pending.
   */
  nextChunk(limits: { readonly tokens: number; readonly rows: number }): Chunk {
    const repair = this.#places.nextRepair();
    if (repair !== undefined) {
      const tokens = Math.min(limits.tokens, repair.tokens);
      return { position: repair.position, tokens, logits: "none", repair: true, last: false };
    }
    const chunk = this.#nextPending(limits);
    return { ...chunk, position: this.#computed, repair: false, last: chunk.tokens === this.pending };
  }

  #nextPending(limits: { readonly tokens: number; readonly rows: number }): Pick<Chunk, "tokens" | "logits"> {
    const tokens = Math.min(limits.tokens, this.pending, this.capacity - this.#computed);
    if (this.#rowsWanted) {
      // Rows below the peak were delivered before a preemption.
      if (this.#computed < this.#peak) return { tokens: Math.min(tokens, this.#peak - this.#computed), logits: "none" };
      return { tokens: Math.min(tokens, limits.rows), logits: "all" };
    }
    if (tokens < this.pending) return { tokens, logits: "none" };
    return limits.rows > 0 ? { tokens, logits: "last" } : { tokens: tokens - 1, logits: "none" };
  }

  /** The known token at `position`. */
  tokenAt(position: number): number {
    const afterPrompt = position - this.prompt.length;
    return afterPrompt < 0 ? this.prompt[position] : this.#generated[afterPrompt];
  }

  /** `count` known tokens from `position` on. */
  tokensFrom(position: number, count: number): Int32Array {
    if (position + count <= this.prompt.length) return this.prompt.subarray(position, position + count);
    const tokens = new Int32Array(count);
    for (let i = 0; i < count; i++) tokens[i] = this.tokenAt(position + i);
    return tokens;
  }

  /** `count` pending tokens from {@linkcode computed} on. */
  pendingTokens(count: number): Int32Array {
    return this.tokensFrom(this.#computed, count);
  }

  /** Digest of full block `block`, see {@linkcode PrefixChain}. Its tokens must be known. */
  blockDigest(block: number): string {
    return this.#chain.digest(block, (position) => this.tokenAt(position));
  }

  /** Digest that names the content of segment `segment`: that of its last block. */
  segmentDigest(segment: number): string {
    return this.blockDigest((segment + 1) * this.blocksPerSegment - 1);
  }

  /** Applies a change. The caller keeps the books of the pool. */
  advance(change: SequenceChange): void {
    switch (change.kind) {
      case "start":
        this.#status = "running";
        this.#blocks = [...change.blocks];
        this.#places.clear(change.atMs);
        for (const [segment, slot] of change.borrowed ?? []) this.#places.borrow(segment, slot, change.atMs);
        this.#computed = change.cachedTokens;
        this.#cachedTokens ??= Math.min(change.cachedTokens, this.prompt.length);
        this.#activeMs = change.atMs;
        break;
      case "grow":
        this.#blocks.push(change.block);
        break;
      case "shrink":
        this.#blocks.length -= change.blocks;
        break;
      case "away":
        this.#setBlocks(change.segment, undefined);
        this.#places.borrow(change.segment, change.slot, change.atMs);
        break;
      case "lose":
        this.#places.lose(change.segment);
        break;
      case "home":
        this.#setBlocks(change.segment, change.blocks);
        this.#places.mend(change.segment, change.done, change.atMs);
        break;
      case "repaired":
        this.#places.settle(change.position, change.tokens, change.atMs);
        this.#activeMs = change.atMs;
        break;
      case "computed":
        this.#computed += change.tokens;
        this.#peak = Math.max(this.#peak, this.#computed);
        if (change.next !== undefined) this.#generated.push(change.next);
        this.#activeMs = change.atMs;
        break;
      case "preempt":
        this.#status = "waiting";
        this.#blocks = [];
        this.#places.clear(change.atMs);
        this.#computed = 0;
        this.#preemptions++;
        this.#activeMs = change.atMs;
        break;
      case "end":
        this.#status = "ended";
        this.#blocks = [];
        this.#places.clear(this.#activeMs);
        break;
      default:
        change satisfies never;
    }
  }

  #setBlocks(segment: number, blocks: readonly BlockId[] | undefined): void {
    const first = segment * this.blocksPerSegment;
    // A step under way keeps the table it was given.
    const table = this.#blocks.slice();
    for (let i = 0; i < this.blocksPerSegment; i++) table[first + i] = blocks?.[i] ?? FILLER;
    this.#blocks = table;
  }
}
