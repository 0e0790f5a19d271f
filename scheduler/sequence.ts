/**
 * One sequence of tokens on its way through the scheduler.
 *
 * @module
 */
import type { BlockId } from "./block_pool.ts";
import { PrefixChain } from "./prefix_chain.ts";

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
}

/** One thing that happens to a sequence. */
export type SequenceChange =
  /** It runs now; `blocks` cover all known tokens and the KV of `cachedTokens` is there already. */
  | {
    readonly kind: "start";
    readonly blocks: readonly BlockId[];
    readonly cachedTokens: number;
    readonly atMs: number;
  }
  /** Its block table grows by one. */
  | { readonly kind: "grow"; readonly block: BlockId }
  /** KV of `tokens` more tokens is there; `next` is the token sampled after the last known one. */
  | { readonly kind: "computed"; readonly tokens: number; readonly next?: number; readonly atMs: number }
  /** It lost its blocks and waits; what it generated stays. */
  | { readonly kind: "preempt"; readonly atMs: number }
  /** It is over. */
  | { readonly kind: "end" };

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
  readonly #leader: Sequence | undefined;
  readonly #chain: PrefixChain;
  readonly #generated: number[];
  #status: "waiting" | "running" | "ended" = "waiting";
  #blocks: BlockId[] = [];
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
    this.#generated = [...options.generated ?? []];
    this.#leader = options.leader;
    this.#chain = new PrefixChain(options.salt, options.blockTokens);
    this.#activeMs = options.arrivedMs;
  }

  /** Where it stands: only a running sequence owns blocks. */
  get status(): "waiting" | "running" | "ended" {
    return this.#status;
  }

  /** Block table. */
  get blocks(): readonly BlockId[] {
    return this.#blocks;
  }

  /** Tokens known: prompt and generated ones. */
  get length(): number {
    return this.prompt.length + this.#generated.length;
  }

  /** Tokens generated. */
  get generated(): number {
    return this.#generated.length;
  }

  /** Tokens whose KV lies in {@linkcode blocks}. */
  get computed(): number {
    return this.#computed;
  }

  /** The largest {@linkcode computed} there ever was; tokens below it are being computed again after a preemption. */
  get peak(): number {
    return this.#peak;
  }

  /** Known tokens without KV. */
  get pending(): number {
    return this.length - this.#computed;
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
   * Most tokens that the next step may compute, and the rows of logits they need: `all` where rows of prompt tokens are
   * wanted, else `none`, or `last` when no token stays pending.
   */
  nextChunk(limits: { readonly tokens: number; readonly rows: number }): {
    readonly tokens: number;
    readonly logits: "none" | "last" | "all";
  } {
    const tokens = Math.min(limits.tokens, this.pending);
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

  /** `count` pending tokens from {@linkcode computed} on. */
  pendingTokens(count: number): Int32Array {
    const from = this.#computed;
    if (from + count <= this.prompt.length) return this.prompt.subarray(from, from + count);
    return Int32Array.from({ length: count }, (_, i) => this.tokenAt(from + i));
  }

  /** Digest of full block `block`, see {@linkcode PrefixChain}. Its tokens must be known. */
  blockDigest(block: number): string {
    return this.#chain.digest(block, (position) => this.tokenAt(position));
  }

  /** Applies a change. The caller keeps the books of the pool. */
  advance(change: SequenceChange): void {
    switch (change.kind) {
      case "start":
        this.#status = "running";
        this.#blocks = [...change.blocks];
        this.#computed = change.cachedTokens;
        this.#cachedTokens ??= Math.min(change.cachedTokens, this.prompt.length);
        this.#activeMs = change.atMs;
        break;
      case "grow":
        this.#blocks.push(change.block);
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
        this.#computed = 0;
        this.#preemptions++;
        this.#activeMs = change.atMs;
        break;
      case "end":
        this.#status = "ended";
        this.#blocks = [];
        break;
      default:
        change satisfies never;
    }
  }
}
