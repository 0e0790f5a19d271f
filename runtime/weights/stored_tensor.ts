/**
 * A tensor that lies in a file.
 *
 * @module
 */
import type { DType } from "../../kernels/dtype.ts";
import type { WeightTensor } from "../model/model.ts";
import type { ByteSource } from "./byte_source.ts";

/** Where and what a stored tensor is. */
export interface StoredTensorInit {
  /** Name in the file. */
  readonly name: string;
  /** Stored element type. */
  readonly dtype: DType;
  /** Dimensions, slowest first: `[rows, cols]`, `[cols]` for a vector. */
  readonly shape: readonly number[];
  /** Stored size in bytes, consistent with `dtype` and `shape`. */
  readonly bytes: number;
  /** File that holds it. */
  readonly source: ByteSource;
  /** First byte in `source`. */
  readonly offset: number;
}

/** A {@linkcode WeightTensor} read from a {@linkcode ByteSource}; it does not own the source. */
export class StoredTensor implements WeightTensor {
  /** See {@linkcode WeightTensor.name}. */
  readonly name: string;
  /** See {@linkcode WeightTensor.dtype}. */
  readonly dtype: DType;
  /** See {@linkcode WeightTensor.rows}. */
  readonly rows: number;
  /** See {@linkcode WeightTensor.cols}. */
  readonly cols: number;
  /** See {@linkcode WeightTensor.bytes}. */
  readonly bytes: number;
  /** Dimensions, slowest first. */
  readonly shape: readonly number[];
  /** First byte in the file. */
  readonly offset: number;
  readonly #source: ByteSource;

  /** The ranges are checked by whoever read the tensor table. */
  constructor(init: StoredTensorInit) {
    this.name = init.name;
    this.dtype = init.dtype;
    this.shape = init.shape;
    this.cols = init.shape.at(-1) ?? 1;
    this.rows = init.shape.slice(0, -1).reduce((product, size) => product * size, 1);
    this.bytes = init.bytes;
    this.offset = init.offset;
    this.#source = init.source;
  }

  /** See {@linkcode WeightTensor.readInto}. */
  readInto(into: Uint8Array, offset: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > this.bytes - into.length) {
      throw new RangeError(
        `Cannot read tensor "${this.name}": wanted bytes ${offset} to ${offset + into.length}, it has ${this.bytes}`,
      );
    }
    this.#source.readInto(into, this.offset + offset);
  }
}
