/**
 * Addresses of host memory without pointer objects, which a permission that names paths forbids.
 *
 * A library that depends on the C library answers for its functions too, so `memcpy` is had from any of them: copying
 * nothing returns the address of the target, and copying from a number reads memory that a library owns.
 *
 * @module
 */

/** The part of the C library that every table of this folder includes. */
export const HOST_MEMORY_SYMBOLS = {
  // void *memcpy(void *dest, const void *src, size_t n);
  addressOf: { name: "memcpy", parameters: ["buffer", "buffer", "usize"], result: "u64" },
  // void *memcpy(void *dest, const void *src, size_t n);
  readMemory: { name: "memcpy", parameters: ["buffer", "u64", "usize"], result: "u64" },
  // size_t strlen(const char *s);
  strlen: { parameters: ["u64"], result: "usize" },
  // int madvise(void *addr, size_t length, int advice);
  madvise: { parameters: ["buffer", "usize", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Those functions, loaded. */
export type HostMemorySymbols = Deno.DynamicLibrary<typeof HOST_MEMORY_SYMBOLS>["symbols"];

/** Advice to back memory with huge pages. */
const MADV_HUGEPAGE = 14;

/** Host memory as C sees it. */
export class HostMemory {
  readonly #symbols: HostMemorySymbols;

  /** Takes the functions of a loaded library. */
  constructor(symbols: HostMemorySymbols) {
    this.#symbols = symbols;
  }

  /** Address of the first byte of `buffer`; it stays there as long as the buffer is reachable. */
  address(buffer: ArrayBuffer): bigint {
    // A buffer, not a view: the storage of a small view may lie on the heap of JavaScript, where it moves.
    return this.#symbols.addressOf(buffer, buffer, 0n);
  }

  /** Text that a library keeps at `address`, up to its closing zero. Empty for address 0. */
  text(address: bigint): string {
    if (address === 0n) return "";
    const bytes = new Uint8Array(Number(this.#symbols.strlen(address)));
    this.#symbols.readMemory(bytes, address, BigInt(bytes.length));
    return new TextDecoder().decode(bytes);
  }

  /** Has a buffer that begins at a page be backed by huge pages where the system can; a matter of speed only. */
  adviseHugePages(buffer: ArrayBuffer): void {
    this.#symbols.madvise(buffer, BigInt(buffer.byteLength), MADV_HUGEPAGE);
  }
}

/** Texts as C wants them, and the array of their addresses. */
export class CStrings {
  /** Addresses, one 64-bit number each; never empty, so that it has an address itself. */
  readonly array: BigUint64Array<ArrayBuffer>;
  /** Keeps the texts reachable as long as their addresses are. */
  readonly #texts: readonly Uint8Array<ArrayBuffer>[];

  /** Lays out `texts`. */
  constructor(host: HostMemory, texts: readonly string[]) {
    this.#texts = texts.map(cString);
    this.array = new BigUint64Array(new ArrayBuffer(8 * Math.max(1, texts.length)));
    this.#texts.forEach(({ buffer }, index) => this.array[index] = host.address(buffer));
  }

  /** How many. */
  get length(): number {
    return this.#texts.length;
  }

  /** Called after the last use: until then the texts stay reachable. */
  keep(): number {
    return this.#texts.reduce((sum, { length }) => sum + length, 0);
  }
}

/** UTF-8 with a closing zero. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(text);
  const terminated = new Uint8Array(new ArrayBuffer(bytes.length + 1));
  terminated.set(bytes);
  return terminated;
}
