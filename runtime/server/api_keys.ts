/**
 * API keys. Only their digests are held; a key itself is never stored, compared or logged.
 *
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";

/** SHA-256 of a key, 32 bytes. */
export type KeyDigest = Uint8Array;

/** Digest of a key as clients send it. */
export function digestKey(key: string): KeyDigest {
  return new Uint8Array(createHash("sha256").update(key, "utf8").digest());
}

/**
 * The one of `keys` that `key` has, compared in time that does not depend on the bytes; undefined when none has it.
 *
 * @throws {RangeError} when a digest is not 32 bytes long.
 */
export function findKey(keys: readonly KeyDigest[], key: string): KeyDigest | undefined {
  const digest = digestKey(key);
  let found: KeyDigest | undefined;
  for (const candidate of keys) {
    if (timingSafeEqual(candidate, digest)) found = candidate;
  }
  return found;
}

/**
 * Name of a key's owner for scheduling and cache scopes: a digest of the digest, so it tells nothing about the key.
 */
export function tenantOf(key: KeyDigest): string {
  return createHash("sha256").update("tenant\0").update(key).digest("hex").slice(0, 32);
}

/**
 * Reads a key file: one key a line, either as it is or as `sha256:` and 64 hexadecimal digits; empty lines and lines
 * that begin with `#` are skipped.
 *
 * @throws {SyntaxError} when a line is neither, with its number but not its text, or when there is no key.
 */
export async function loadApiKeys(path: string): Promise<KeyDigest[]> {
  return parseApiKeys(await Deno.readTextFile(path), path);
}

/**
 * Keys of a key file's text; `name` is used in messages.
 *
 * @throws {SyntaxError} as {@linkcode loadApiKeys} does.
 */
export function parseApiKeys(text: string, name: string): KeyDigest[] {
  const keys: KeyDigest[] = [];
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("sha256:")) {
      const hex = line.slice("sha256:".length);
      if (!/^[0-9a-fA-F]{64}$/.test(hex)) {
        throw new SyntaxError(`Cannot read API keys from ${name}: line ${index + 1} wants 64 hexadecimal digits`);
      }
      keys.push(Uint8Array.fromHex(hex));
    } else if (/^[\x21-\x7e]+$/.test(line)) {
      keys.push(digestKey(line));
    } else {
      throw new SyntaxError(
        `Cannot read API keys from ${name}: line ${index + 1} wants one key of visible ASCII characters`,
      );
    }
  }
  if (keys.length === 0) {
    throw new SyntaxError(`Cannot read API keys from ${name}: wanted at least one key, found none`);
  }
  return keys;
}
