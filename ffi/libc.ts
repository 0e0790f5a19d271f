/**
 * Opens the C library of a Linux host.
 *
 * @module
 */

// A permission that names paths does not cover a bare library name, so full paths are tried too.
const CANDIDATES = [
  "libc.so.6",
  `/lib/${Deno.build.arch}-linux-gnu/libc.so.6`,
  "/lib64/libc.so.6",
  "/usr/lib/libc.so.6",
];

/** An open C library; closed on dispose. */
export interface Libc<Symbols extends Deno.ForeignLibraryInterface> extends Disposable {
  /** Its functions. */
  readonly symbols: Deno.DynamicLibrary<Symbols>["symbols"];
}

/** The C library with the given functions; undefined on other systems and without FFI permission for it. */
export function openLibc<Symbols extends Deno.ForeignLibraryInterface>(symbols: Symbols): Libc<Symbols> | undefined {
  if (Deno.build.os !== "linux") return undefined;
  const allowed = Deno.permissions.querySync({ name: "ffi" }).state === "granted"
    ? CANDIDATES
    : CANDIDATES.filter((path) => Deno.permissions.querySync({ name: "ffi", path }).state === "granted");
  for (const path of allowed) {
    try {
      const library = Deno.dlopen(path, symbols);
      return { symbols: library.symbols, [Symbol.dispose]: () => library.close() };
    } catch {
      // Another libc layout: the next path may exist.
    }
  }
  return undefined;
}
