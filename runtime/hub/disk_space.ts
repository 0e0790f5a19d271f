/**
 * Looks before a transfer whether it will fit.
 *
 * @module
 */
import { statfs } from "node:fs/promises";
import { formatBytes } from "./format_bytes.ts";

/**
 * Makes sure that `bytes` more bytes fit into `directory`, as far as the system tells.
 *
 * @throws {Error} when they do not.
 */
export async function checkSpace(
  directory: string,
  { name, bytes }: { readonly name: string; readonly bytes: number },
): Promise<void> {
  // Where the system does not tell, writing will.
  const found = await statfs(directory).catch(() => undefined);
  if (found === undefined || found.bavail * found.bsize >= bytes) return;
  throw new Error(
    `Cannot store ${name} in ${directory}: wanted ${formatBytes(bytes)} of space, found ` +
      formatBytes(found.bavail * found.bsize),
  );
}
