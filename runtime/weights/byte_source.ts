/**
 * Random access to the bytes of a model file.
 *
 * @module
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { ModelFileError } from "./model_file_error.ts";

/** Bytes with synchronous random access. Disposing it closes what is behind it; after that, reads throw. */
export interface ByteSource extends Disposable {
  /** Name for messages. */
  readonly name: string;
  /** Size in bytes when the source was opened. */
  readonly size: number;
  /**
   * Fills `into`, which may be a view of shared memory, with the bytes from `offset` on.
   *
   * @throws {RangeError} when the range leaves the source.
   * @throws {ModelFileError} when the file ends earlier than it did when it was opened.
   * @throws {ReferenceError} when the source is disposed.
   */
  readInto(into: Uint8Array, offset: number): void;
}

/** Longest single read: Linux stops one `read` a page below 2 GiB. */
const MAX_READ_BYTES = 2 ** 30;

function checkRange(source: ByteSource, into: Uint8Array, offset: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset > source.size - into.length) {
    throw new RangeError(
      `Cannot read ${source.name}: wanted bytes ${offset} to ${offset + into.length}, it has ${source.size}`,
    );
  }
}

/** A file, read with positional reads; not mapped, so that a file that shrinks is an error and not a signal. */
export class FileSource implements ByteSource {
  /** See {@linkcode ByteSource.name}. */
  readonly name: string;
  /** See {@linkcode ByteSource.size}. */
  readonly size: number;
  #descriptor: number | undefined;

  /** Opens the file. @throws {Error} with the `code` of the system when it cannot be opened. */
  constructor(path: string) {
    const descriptor = openSync(path, "r");
    this.name = basename(path);
    this.size = fstatSync(descriptor).size;
    this.#descriptor = descriptor;
  }

  /** See {@linkcode ByteSource.readInto}. */
  readInto(into: Uint8Array, offset: number): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined) throw new ReferenceError(`Cannot read ${this.name}: it is closed`);
    checkRange(this, into, offset);
    let done = 0;
    while (done < into.length) {
      const count = readSync(descriptor, into, done, Math.min(into.length - done, MAX_READ_BYTES), offset + done);
      if (count === 0) {
        throw new ModelFileError(this.name, {
          field: `byte ${offset + done}`,
          problem: `is past the end, the file had ${this.size} bytes when it was opened`,
        });
      }
      done += count;
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    if (this.#descriptor === undefined) return;
    closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

/** Bytes in memory. */
export class MemorySource implements ByteSource {
  /** See {@linkcode ByteSource.name}. */
  readonly name: string;
  /** See {@linkcode ByteSource.size}. */
  readonly size: number;
  #bytes: Uint8Array | undefined;

  /** Keeps a reference to `bytes`, no copy. */
  constructor(bytes: Uint8Array, name = "memory") {
    this.name = name;
    this.size = bytes.length;
    this.#bytes = bytes;
  }

  /** See {@linkcode ByteSource.readInto}. */
  readInto(into: Uint8Array, offset: number): void {
    if (this.#bytes === undefined) throw new ReferenceError(`Cannot read ${this.name}: it is closed`);
    checkRange(this, into, offset);
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  /** Lets go of the bytes. */
  [Symbol.dispose](): void {
    this.#bytes = undefined;
  }
}
