/**
 * Files of the kernel cache: a cubin behind a header that tells whether it is whole.
 *
 * Layout: magic `ILKC`, version (u32, little-endian), SHA-256 of the payload (32 bytes), payload.
 *
 * @module
 */
import { createHash, randomUUID } from "node:crypto";
import { basename, dirname, join } from "node:path";

const MAGIC = new TextEncoder().encode("ILKC");
const VERSION = 1;
const DIGEST_AT = 8;
const PAYLOAD_AT = DIGEST_AT + 32;

/** What a look into the cache found. */
export type CacheLookup =
  | { readonly kind: "hit"; readonly cubin: Uint8Array<ArrayBuffer> }
  | { readonly kind: "missing" }
  | { readonly kind: "damaged" };

/** The file's bytes for a cubin. */
export function encodeEntry(cubin: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(PAYLOAD_AT + cubin.length);
  bytes.set(MAGIC);
  new DataView(bytes.buffer).setUint32(MAGIC.length, VERSION, true);
  bytes.set(createHash("sha256").update(cubin).digest(), DIGEST_AT);
  bytes.set(cubin, PAYLOAD_AT);
  return bytes;
}

/** The cubin in a file's bytes; undefined when they are not exactly what was written. */
export function decodeEntry(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
  if (bytes.length <= PAYLOAD_AT) return undefined;
  const cubin = bytes.subarray(PAYLOAD_AT);
  const wanted = encodeEntry(cubin);
  return bytes.subarray(0, PAYLOAD_AT).every((byte, index) => byte === wanted[index]) ? cubin : undefined;
}

/** Reads an entry. A file that cannot be read counts as missing. */
export function readEntry(path: string): CacheLookup {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = Deno.readFileSync(path);
  } catch {
    return { kind: "missing" };
  }
  const cubin = decodeEntry(bytes);
  return cubin === undefined ? { kind: "damaged" } : { kind: "hit", cubin };
}

/**
 * Writes an entry so that another process sees all of it or nothing.
 *
 * @throws {Error} of the file system.
 */
export function writeEntry(path: string, cubin: Uint8Array): void {
  Deno.mkdirSync(dirname(path), { recursive: true });
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}`);
  try {
    Deno.writeFileSync(temporary, encodeEntry(cubin), { createNew: true });
    Deno.renameSync(temporary, path);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // It was never made, or the directory is closed to us: the first error says more.
    }
    throw error;
  }
}
