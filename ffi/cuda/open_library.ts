/**
 * Opens a library with a table of its functions.
 *
 * @module
 */
import type { FoundLibrary } from "./libraries.ts";

/**
 * Opens a library; the caller closes it.
 *
 * @throws {Deno.errors.NotCapable} when the permission for it is missing; names the flag.
 * @throws {Error} when it cannot be loaded or lacks a function.
 */
export function openLibrary<Symbols extends Deno.ForeignLibraryInterface>(
  library: Pick<FoundLibrary, "path">,
  symbols: Symbols,
): Deno.DynamicLibrary<Symbols> {
  const { path } = library;
  try {
    return Deno.dlopen(path, symbols);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) {
      throw new Deno.errors.NotCapable(`Cannot open ${path}: wanted the permission --allow-ffi=${path}`, { cause });
    }
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot open ${path}: ${reason}`, { cause });
  }
}
