/**
 * Launches the linear kernel on the WASM runtime.
 *
 * @module
 */
import { type ActivationType, type DType, DTYPE_LAYOUT, tensorBytes } from "../dtype.ts";
import type { WasmRuntime } from "../wasm/instance.ts";
import { ACTIVATION_CODE, DTYPE_CODE, INPUT_CODE, type IntegerInput, ROW_TILE } from "./spec.ts";

/** Bytes of stored weights that are handed to the repacking at a time. */
const SLAB_BYTES = 1 << 20;

/** Shape and type of a matrix. */
export interface MatrixShape {
  /** Type of the stored weights. */
  readonly dtype: DType;
  /** R, output features. */
  readonly rows: number;
  /** K, input features. */
  readonly cols: number;
  /** Representation of integer inputs. @default {"hot"} */
  readonly input?: IntegerInput;
}

/** A weight matrix [R, K] in the runtime's memory, repacked for the vector unit. */
export class WasmMatrix implements Disposable {
  /** Shape and type. */
  readonly shape: MatrixShape;
  readonly #wasm: WasmRuntime;
  #address: number;

  /**
   * Allocates the matrix; every row must be loaded before a product.
   *
   * @throws {RangeError} when the shape does not fit the type or memory is exhausted.
   */
  constructor(wasm: WasmRuntime, shape: MatrixShape) {
    const { dtype, rows, cols, input = "hot" } = shape;
    for (const [axis, size] of [["R (rows)", rows], ["K (cols)", cols]] as const) {
      if (!Number.isSafeInteger(size) || size < 1) {
        throw new RangeError(`Cannot make a ${dtype} matrix: axis ${axis} must be a positive integer, got ${size}`);
      }
    }
    tensorBytes(dtype, rows, cols);
    const bytes = wasm.exports.matrix_bytes(DTYPE_CODE[dtype], rows, cols);
    this.#address = bytes < 2 ** 32 ? wasm.exports.matrix_new(DTYPE_CODE[dtype], rows, cols) : 0;
    if (this.#address === 0) {
      throw new RangeError(
        `Cannot make a ${dtype} matrix of ${rows} x ${cols}: wanted ${bytes} bytes of WebAssembly memory, ` +
          `which holds ${wasm.memoryBytes} bytes already`,
      );
    }
    wasm.exports.matrix_set_input(this.#address, INPUT_CODE[input]);
    this.#wasm = wasm;
    this.shape = shape;
  }

  /** Address of the matrix. @throws {ReferenceError} after dispose. */
  get address(): number {
    if (this.#address === 0) throw new ReferenceError("Cannot use the matrix: it was disposed");
    return this.#address;
  }

  /** Bytes the matrix takes. */
  get bytes(): number {
    const { dtype, rows, cols } = this.shape;
    return this.#wasm.exports.matrix_bytes(DTYPE_CODE[dtype], rows, cols);
  }

  /**
   * Repacks whole stored rows, from row `row` on.
   *
   * @throws {RangeError} when `stored` is not whole rows or they do not fit the matrix.
   */
  load(row: number, stored: Uint8Array): void {
    const { dtype, rows, cols } = this.shape;
    const rowBytes = cols / DTYPE_LAYOUT[dtype].elements * DTYPE_LAYOUT[dtype].bytes;
    const count = stored.length / rowBytes;
    if (!Number.isInteger(count) || !Number.isInteger(row) || row < 0 || row + count > rows) {
      throw new RangeError(
        `Cannot load a ${dtype} matrix: wanted whole rows of ${rowBytes} bytes within ${rows} rows, ` +
          `got ${stored.length} bytes at row ${row}`,
      );
    }
    const slab = Math.min(count, Math.max(1, Math.floor(SLAB_BYTES / rowBytes)));
    if (slab === 0) return;
    const staging = this.#wasm.allocUntouched(slab * rowBytes);
    try {
      for (let done = 0; done < count; done += slab) {
        const part = Math.min(slab, count - done);
        this.#wasm.bytes.set(stored.subarray(done * rowBytes, (done + part) * rowBytes), staging);
        this.#wasm.exports.matrix_load(this.address, row + done, part, staging);
      }
    } finally {
      this.#wasm.free(staging, slab * rowBytes);
    }
  }

  /** Row `row`, dequantised. @throws {RangeError} when there is no such row. */
  row(row: number): Float32Array {
    const { rows, cols } = this.shape;
    if (!Number.isInteger(row) || row < 0 || row >= rows) {
      throw new RangeError(`Cannot read a matrix row: wanted 0 to ${rows - 1}, got ${row}`);
    }
    const out = this.#wasm.alloc(cols * 4);
    try {
      this.#wasm.exports.matrix_row(this.address, row, out);
      return this.#wasm.f32(out, cols).slice();
    } finally {
      this.#wasm.free(out, cols * 4);
    }
  }

  /** Frees the matrix. */
  [Symbol.dispose](): void {
    if (this.#address !== 0) this.#wasm.exports.matrix_free(this.#address);
    this.#address = 0;
  }
}

/** Arguments of {@linkcode linear}. */
export interface LinearOptions {
  /** Inputs [T, K]. */
  readonly x: Float32Array;
  /** Input type of the product. @default {"i8"} */
  readonly activations?: ActivationType;
  /** Values [T, R] that the products are added to; without them they start at 0. */
  readonly addTo?: Float32Array;
  /** Rows that a thread claims at a time, a multiple of {@linkcode ROW_TILE}. By default {@linkcode chunkRows} chooses. */
  readonly chunkRows?: number;
}

/**
 * Rows a thread should claim at a time. One or two tokens are bound by memory, and each jump to another place costs over a
 * microsecond until the hardware has seen the stream: one run a thread (half the rate with runs of 64 rows). More tokens are
 * bound by arithmetic: short runs keep the threads equally busy.
 */
export function chunkRows(threads: number, shape: { readonly tokens: number; readonly rows: number }): number {
  const { tokens, rows } = shape;
  return tokens > 2 ? 64 : Math.ceil(rows / threads / (2 * ROW_TILE)) * 2 * ROW_TILE;
}

/**
 * out [T, R] = x [T, K] times the matrix transposed (plus `addTo`), computed by all threads.
 *
 * @throws {RangeError} when an axis does not match; names the tensor and the axis.
 */
export function linear(wasm: WasmRuntime, matrix: WasmMatrix, options: LinearOptions): Float32Array {
  const { rows, cols } = matrix.shape;
  const { x, activations = "i8", addTo } = options;
  const tokens = x.length / cols;
  const chunk = options.chunkRows ?? chunkRows(wasm.threads, { tokens, rows });
  if (!Number.isInteger(tokens) || tokens < 1) {
    throw new RangeError(`Cannot run linear: x must be [T, K] with K = ${cols}, got ${x.length} values`);
  }
  if (addTo !== undefined && addTo.length !== tokens * rows) {
    throw new RangeError(
      `Cannot run linear: addTo must be [T, R] = [${tokens}, ${rows}], got ${addTo.length} values`,
    );
  }
  if (!Number.isInteger(chunk) || chunk < 1 || chunk % ROW_TILE !== 0) {
    throw new RangeError(`Cannot run linear: chunkRows must be a multiple of ${ROW_TILE}, got ${chunk}`);
  }
  using memory = new DisposableStack();
  const take = (bytes: number): number => memory.adopt(wasm.alloc(bytes), (address) => wasm.free(address, bytes));
  const input = take(x.length * 4);
  const out = take(tokens * rows * 4);
  const inputs = memory.adopt(wasm.exports.inputs_new(tokens, cols), (address) => {
    if (address !== 0) wasm.exports.inputs_free(address);
  });
  if (inputs === 0) throw new RangeError(`Cannot run linear: no memory for ${tokens} x ${cols} inputs`);
  wasm.f32(input, x.length).set(x);
  // What the kernel must not read is poison.
  const result = wasm.f32(out, tokens * rows);
  if (addTo === undefined) result.fill(NaN);
  else result.set(addTo);
  wasm.exports.linear_run(
    wasm.team,
    matrix.address,
    inputs,
    input,
    tokens,
    out,
    ACTIVATION_CODE[activations],
    chunk,
    addTo === undefined ? 0 : 1,
  );
  return wasm.f32(out, tokens * rows).slice();
}
