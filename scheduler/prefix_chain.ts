/**
 * Names for the content of full KV blocks: a SHA-256 chain over everything the content depends on.
 *
 * Byte layout, all integers little-endian:
 *
 *     salt     = SHA-256( "infinite-llm kv 1" 0x00 | for each field: u32 byte length, UTF-8 bytes )
 *                fields in order: model digest, KV element type, layout, tenant salt
 *     digest_0 = SHA-256( salt       [32 bytes] | token ids of block 0 [u32 each] )
 *     digest_k = SHA-256( digest_k-1 [32 bytes] | token ids of block k [u32 each] )
 *
 * A digest covers all 256 bits, so equal digests are taken as equal content.
 *
 * @module
 */
import { createHash } from "node:crypto";

const DIGEST_BYTES = 32;

/** What the content of a block depends on besides the tokens. */
export interface PrefixScope {
  /** Digest of the model. */
  readonly modelDigest: string;
  /** Element type of the KV pool. */
  readonly kvType: string;
  /** Everything else that changes the stored bytes: device kind, activation type, block size. */
  readonly layout: string;
  /** Only sequences of the same salt share content. */
  readonly tenantSalt: string;
}

/** The chain's start: 32 bytes that stand for a {@linkcode PrefixScope}. */
export function prefixSalt(scope: PrefixScope): Uint8Array {
  const hash = createHash("sha256").update("infinite-llm kv 1\0");
  const encoder = new TextEncoder();
  for (const field of [scope.modelDigest, scope.kvType, scope.layout, scope.tenantSalt]) {
    const bytes = encoder.encode(field);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length, true);
    hash.update(length).update(bytes);
  }
  return hash.digest();
}

/** Digests of the full blocks of one sequence, computed when first asked for and kept. */
export class PrefixChain {
  readonly #digests: string[] = [];
  readonly #input: Uint8Array;
  readonly #view: DataView;
  readonly #blockTokens: number;

  /** Starts a chain at `salt` (32 bytes) for blocks of `blockTokens` tokens. */
  constructor(salt: Uint8Array, blockTokens: number) {
    this.#blockTokens = blockTokens;
    this.#input = new Uint8Array(DIGEST_BYTES + 4 * blockTokens);
    this.#input.set(salt);
    this.#view = new DataView(this.#input.buffer);
  }

  /**
   * Digest of block `block`, 64 hexadecimal digits.
   *
   * @param tokenAt The token at a position below `(block + 1) * blockTokens`; must never change its answer.
   */
  digest(block: number, tokenAt: (position: number) => number): string {
    while (this.#digests.length <= block) {
      const start = this.#digests.length * this.#blockTokens;
      for (let i = 0; i < this.#blockTokens; i++) {
        this.#view.setUint32(DIGEST_BYTES + 4 * i, tokenAt(start + i), true);
      }
      const digest = createHash("sha256").update(this.#input).digest();
      this.#input.set(digest);
      this.#digests.push(digest.toString("hex"));
    }
    return this.#digests[block];
  }
}
