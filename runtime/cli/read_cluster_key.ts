/**
 * Reads the key that the members of a cluster share.
 *
 * @module
 */

const MIN_BYTES = 32;
const MAX_BYTES = 4096;

/**
 * The bytes of a key file, without line ends behind them.
 *
 * @throws {TypeError} when it is missing, unreadable, or not 32 to 4096 bytes long.
 */
export async function readClusterKey(path: string): Promise<Uint8Array> {
  const wrong = (found: string, cause?: unknown) =>
    new TypeError(`Cannot use --cluster-key-file ${path}: wanted ${MIN_BYTES} to ${MAX_BYTES} bytes, found ${found}`, {
      cause,
    });
  let bytes: Uint8Array;
  try {
    const info = await Deno.stat(path);
    if (!info.isFile) throw wrong(info.isDirectory ? "a directory" : "a special file");
    if (info.size > MAX_BYTES) throw wrong(`${info.size}`);
    bytes = await Deno.readFile(path);
  } catch (cause) {
    if (cause instanceof TypeError || cause instanceof Deno.errors.NotCapable) throw cause;
    throw wrong(cause instanceof Deno.errors.NotFound ? "nothing" : "a file that cannot be read", cause);
  }
  let end = bytes.length;
  while (end > 0 && (bytes[end - 1] === 10 || bytes[end - 1] === 13)) end--;
  if (end < MIN_BYTES) throw wrong(`${end}`);
  return bytes.subarray(0, end);
}
