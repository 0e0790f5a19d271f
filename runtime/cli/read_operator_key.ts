/**
 * Finds the key with which a command asks a server.
 *
 * @module
 */
import { readFlagFile } from "./read_flag_file.ts";

/**
 * The first key of a key file that is written as it is; undefined when the file holds only digests.
 *
 * @throws {TypeError} when the file cannot be read.
 */
export async function readOperatorKey(path: string): Promise<string | undefined> {
  const lines = (await readFlagFile("--api-key-file", path)).split(/\r?\n/).map((line) => line.trim());
  return lines.find((line) => /^[\x21-\x7e]+$/.test(line) && !line.startsWith("#") && !line.startsWith("sha256:"));
}
