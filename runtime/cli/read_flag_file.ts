/**
 * Reads files that flags name.
 *
 * @module
 */

const MAX_BYTES = 4 * 2 ** 20;

/**
 * The text of the file that `flag` names.
 *
 * @throws {TypeError} when it is missing, unreadable or too long.
 */
export async function readFlagFile(flag: string, path: string): Promise<string> {
  const wrong = (found: string, cause?: unknown) =>
    new TypeError(`Cannot use ${flag} ${path}: wanted a readable file, found ${found}`, { cause });
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
    if (info.isFile && info.size <= MAX_BYTES) return await Deno.readTextFile(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw wrong(cause instanceof Deno.errors.NotFound ? "nothing" : "one that cannot be read", cause);
  }
  throw wrong(
    info.isDirectory ? "a directory" : info.isFile ? `${info.size} bytes, ${MAX_BYTES} are allowed` : "no file",
  );
}
