/**
 * Asks the kernel to back memory with huge pages (Linux `madvise`). Elsewhere, or without FFI permission, nothing
 * happens: huge pages are a matter of speed only.
 *
 * @module
 */
import { openLibc } from "./libc.ts";

const SYMBOLS = {
  // int madvise(void *addr, size_t length, int advice);
  madvise: { parameters: ["buffer", "usize", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const MADV_HUGEPAGE = 14;

/**
 * Advises huge pages for the first `bytes` bytes from the start of `memory`, which begins at a page. The range may reach
 * beyond the view into address space that is reserved for it.
 *
 * @returns whether the kernel took the advice.
 */
export function adviseHugePages(memory: Uint8Array<ArrayBufferLike>, bytes: number): boolean {
  using libc = openLibc(SYMBOLS);
  return libc !== undefined && libc.symbols.madvise(memory as BufferSource, BigInt(bytes), MADV_HUGEPAGE) === 0;
}
