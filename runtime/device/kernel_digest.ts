/**
 * Whether two pools compute equal bits: a known-answer run of attention and merge, hashed.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type KvStore, SEGMENT_TOKENS } from "./device.ts";

/** Exponents of an element of 16 bits, and of the upper half of one of 32: values from 2^-31 to 2^8 whatever the type. */
const LEAST_EXPONENT = 12;
const EXPONENTS = 5;

/** Deterministic bits: the 32-bit generator of Steele, Lea and Flood. */
class Bits {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return (mixed ^ (mixed >>> 16)) >>> 0;
  }
}

/** Bytes of a block whose elements are finite numbers in every type. */
function knownBlock(bytes: number, seed: number): Uint8Array {
  const bits = new Bits(seed);
  const block = new Uint16Array(bytes / 2);
  for (let i = 0; i < block.length; i++) {
    const random = bits.next();
    block[i] = (random & 0x83ff) | ((LEAST_EXPONENT + (random >>> 16) % EXPONENTS) << 10);
  }
  return new Uint8Array(block.buffer);
}

function knownQueries(count: number, seed: number): Float32Array {
  const bits = new Bits(seed);
  return Float32Array.from({ length: count }, () => bits.next() / 2 ** 31 - 1);
}

/**
 * Digest of what a pool computes for fixed queries over fixed blocks, 64 hexadecimal digits. Pools of one layout with equal
 * digests give equal bits for attention and merging; kernels that fuse a multiply with an add, as some CPUs make them,
 * give another digest than kernels that do not. Blocks 0 and 1 are used and put back.
 */
export function kernelDigest(store: KvStore): string {
  const { heads, headDim, blockTokens } = store.layout;
  const used = [0, Math.min(1, store.blocks - 1)];
  const kept = used.map((block) => store.readBlock(block));
  try {
    used.forEach((block, index) => store.writeBlock(block, knownBlock(store.blockBytes, index + 1)));
    const segments = { from: 1, to: 4 };
    const segmentBlocks = SEGMENT_TOKENS / blockTokens;
    const order = new Bits(3);
    // Segments begin with different blocks, so no merge is of equal parts.
    const blocks = Array.from({ length: 3 * segmentBlocks }, (_, i) => {
      return used[i % segmentBlocks === 0 ? (i / segmentBlocks) % 2 : order.next() % 2];
    });
    const hash = createHash("sha256");
    // One query reads the pool directly, several share what they decode.
    for (const [seed, tokens] of [1, 5].entries()) {
      const queries = knownQueries(tokens * heads * headDim, seed);
      for (const { o, lse } of store.attendNodes(0, [{ queries, segments, blocks }])[0]) {
        hash.update(new Uint8Array(o.buffer, o.byteOffset, o.byteLength));
        hash.update(new Uint8Array(lse.buffer, lse.byteOffset, lse.byteLength));
      }
    }
    return hash.digest("hex");
  } finally {
    used.forEach((block, index) => store.writeBlock(block, kept[index]));
  }
}
