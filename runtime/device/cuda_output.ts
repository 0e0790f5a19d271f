/**
 * What a CUDA step leaves: summaries of the logits in host memory, the logits themselves on the device until asked for.
 *
 * @module
 */
import type { CudaContext, CudaStream, DevicePtr, PinnedBuffer } from "../../ffi/cuda/cuda.ts";
import { addressAt } from "./cuda_address.ts";
import type { SummaryPlaces } from "./cuda_forward.ts";
import { type StepOutput, TOP_CANDIDATES } from "./device.ts";

/** Host memory that the GPU writes summaries to. */
export class CudaSummaries implements Disposable {
  /** Where the GPU writes. */
  readonly places: SummaryPlaces;
  readonly #buffer: PinnedBuffer;
  readonly #ids: Int32Array<ArrayBuffer>;
  readonly #top: Float32Array<ArrayBuffer>;
  readonly #lse: Float32Array<ArrayBuffer>;

  /** Room for `rows` rows. */
  constructor(context: CudaContext, rows: number) {
    this.#buffer = context.pinned(4 * rows * (1 + 2 * TOP_CANDIDATES));
    this.places = {
      ids: this.#buffer.at(0),
      top: this.#buffer.at(4 * rows * TOP_CANDIDATES),
      lse: this.#buffer.at(8 * rows * TOP_CANDIDATES),
    };
    const { buffer } = this.#buffer;
    this.#ids = new Int32Array(buffer, 0, rows * TOP_CANDIDATES);
    this.#top = new Float32Array(buffer, 4 * rows * TOP_CANDIDATES, rows * TOP_CANDIDATES);
    this.#lse = new Float32Array(buffer, 8 * rows * TOP_CANDIDATES, rows);
  }

  /** ln sum exp of a row. */
  logSumExp(row: number): number {
    return this.#lse[row];
  }

  /** The `count` largest logits of a row. Views. */
  top(row: number, count: number): { readonly ids: Int32Array; readonly logits: Float32Array } {
    const at = row * TOP_CANDIDATES;
    return { ids: this.#ids.subarray(at, at + count), logits: this.#top.subarray(at, at + count) };
  }

  /** Gives the memory back. */
  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}

/** Where a finished step's results are. */
export interface CudaOutputParts {
  /** Rows of logits. */
  readonly rows: number;
  /** Values of a row. */
  readonly vocab: number;
  /** Logits on the device, f32 [rows, vocab]. */
  readonly logits: DevicePtr;
  /** Row on the device of each row. @default {the same} */
  readonly rowOf?: readonly number[];
  /** Summaries. */
  readonly summaries: CudaSummaries;
  /** Where logits are copied. */
  readonly stream: CudaStream;
}

/** Results of a finished step. A row of logits crosses the bus when it is first asked for. */
export class CudaOutput implements StepOutput {
  /** See {@linkcode StepOutput.rows}. */
  readonly rows: number;
  readonly #parts: CudaOutputParts;
  readonly #logits = new Map<number, Float32Array>();

  /** Results that are there. */
  constructor(parts: CudaOutputParts) {
    this.rows = parts.rows;
    this.#parts = parts;
  }

  /** See {@linkcode StepOutput.logits}. @throws {RangeError} when there is no such row. */
  logits(row: number): Float32Array {
    const at = this.#place(row);
    const known = this.#logits.get(row);
    if (known !== undefined) return known;
    const { vocab, logits, stream } = this.#parts;
    const values = new Float32Array(vocab);
    stream.copyFromDevice(new Uint8Array(values.buffer), addressAt(logits, 4 * vocab * at));
    this.#logits.set(row, values);
    return values;
  }

  /** See {@linkcode StepOutput.logSumExp}. @throws {RangeError} when there is no such row. */
  logSumExp(row: number): number {
    return this.#parts.summaries.logSumExp(this.#place(row));
  }

  /** See {@linkcode StepOutput.top}. @throws {RangeError} when there is no such row. */
  top(row: number): { readonly ids: Int32Array; readonly logits: Float32Array } {
    return this.#parts.summaries.top(this.#place(row), Math.min(TOP_CANDIDATES, this.#parts.vocab));
  }

  /** Where a row lies on the device. */
  #place(row: number): number {
    if (!Number.isInteger(row) || row < 0 || row >= this.rows) {
      throw new RangeError(`Cannot read logits: row must be in 0..${this.rows - 1}, got ${row}`);
    }
    return this.#parts.rowOf?.[row] ?? row;
  }
}
