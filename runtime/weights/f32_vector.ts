/**
 * Norms and biases as F32, whatever the file stores.
 *
 * @module
 */
import type { DType } from "../../kernels/dtype.ts";
import type { WeightTensor } from "../model/model.ts";
import { dequantizeRow } from "./dequantize.ts";

/** All values of a stored tensor. */
export function readValues(tensor: WeightTensor): Float32Array {
  const stored = new Uint8Array(tensor.bytes);
  tensor.readInto(stored, 0);
  return dequantizeRow(tensor.dtype, stored);
}

/** A stored vector seen as F32; values are converted on each read. */
export class F32Vector implements WeightTensor {
  /** See {@linkcode WeightTensor.name}. */
  readonly name: string;
  /** See {@linkcode WeightTensor.dtype}. */
  readonly dtype: DType = "F32";
  /** See {@linkcode WeightTensor.rows}. */
  readonly rows = 1;
  /** See {@linkcode WeightTensor.cols}. */
  readonly cols: number;
  /** See {@linkcode WeightTensor.bytes}. */
  readonly bytes: number;
  readonly #stored: WeightTensor;

  /** `stored` has one row. */
  constructor(stored: WeightTensor) {
    this.name = stored.name;
    this.cols = stored.cols;
    this.bytes = 4 * stored.cols;
    this.#stored = stored;
  }

  /** See {@linkcode WeightTensor.readInto}. */
  readInto(into: Uint8Array, offset: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > this.bytes - into.length) {
      throw new RangeError(
        `Cannot read tensor "${this.name}": wanted bytes ${offset} to ${offset + into.length}, it has ${this.bytes}`,
      );
    }
    const values = new Uint8Array(readValues(this.#stored).buffer);
    into.set(values.subarray(offset, offset + into.length));
  }
}
