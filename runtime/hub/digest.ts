/**
 * Digests that model files are checked against.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** What a file's bytes must hash to. */
export interface Digest {
  /** `sha256` over the bytes, or `git-sha1`: SHA-1 over the bytes as a git blob. */
  readonly kind: "sha256" | "git-sha1";
  /** Lower-case hexadecimal digits. */
  readonly hex: string;
}

/** Hashes a file of known size while it is written. */
export class FileHash {
  readonly #sha256 = createHash("sha256");
  readonly #git = createHash("sha1");
  #bytes = 0;

  /** Begins a file of `bytes` bytes. */
  constructor(bytes: number) {
    this.#git.update(`blob ${bytes}\0`);
  }

  /** Bytes hashed. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds the next bytes. */
  update(chunk: Uint8Array): void {
    this.#sha256.update(chunk);
    this.#git.update(chunk);
    this.#bytes += chunk.length;
  }

  /** Ends the file. Gives its SHA-256 and whether it is what `wanted` says. */
  finish(wanted: Digest): { readonly sha256: string; readonly ok: boolean; readonly got: string } {
    const sha256 = this.#sha256.digest("hex");
    const got = wanted.kind === "sha256" ? sha256 : this.#git.digest("hex");
    return { sha256, got, ok: got === wanted.hex.toLowerCase() };
  }
}

/** Hashes what is in `file` from its beginning on, into `hash`; leaves the cursor at the end. */
export async function hashOpenFile(file: Deno.FsFile, hash: FileHash): Promise<void> {
  await file.seek(0, Deno.SeekMode.Start);
  const buffer = new Uint8Array(1 << 20);
  for (let got = await file.read(buffer); got !== null; got = await file.read(buffer)) {
    hash.update(buffer.subarray(0, got));
  }
}
