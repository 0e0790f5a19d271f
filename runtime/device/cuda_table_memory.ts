/**
 * Block tables on the GPU, and what the host knows of them.
 *
 * @module
 */
import type { CudaContext, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import { TableMirror, type TablePatches, type TableSize, tableSizeFor } from "./cuda_tables.ts";
import type { StepSequence } from "./device.ts";

/** Tables at first. */
const FIRST_TABLES = 64;

/** The tables of a device's steps. */
export class CudaTables implements Disposable {
  readonly #context: CudaContext;
  #mirror: TableMirror;
  #buffer: DeviceBuffer;

  /** Tables of `width` entries each. @throws {CudaError} when there is no memory. */
  constructor(context: CudaContext, width: number) {
    const size = { rows: FIRST_TABLES, width };
    this.#context = context;
    this.#mirror = new TableMirror(size);
    this.#buffer = context.alloc(4 * size.rows * size.width);
  }

  /** i32 [tables, width]. */
  get address(): DevicePtr {
    return this.#buffer.address;
  }

  /** Entries of a table. */
  get width(): number {
    return this.#mirror.size.width;
  }

  /** The size they must have for a batch, when it is another than they have. */
  sizeFor(batch: readonly StepSequence[]): TableSize | undefined {
    const now = this.#mirror.size;
    const size = tableSizeFor(batch, now);
    return size.rows === now.rows && size.width === now.width ? undefined : size;
  }

  /** Makes them that large; they hold nothing then and lie elsewhere. Nothing may use them. @throws {CudaError} */
  grow(size: TableSize): void {
    const buffer = this.#context.alloc(4 * size.rows * size.width);
    this.#buffer[Symbol.dispose]();
    this.#buffer = buffer;
    this.#mirror = new TableMirror(size);
  }

  /** See {@linkcode TableMirror.update}. */
  update(batch: readonly StepSequence[]): TablePatches {
    return this.#mirror.update(batch);
  }

  /** Frees them. */
  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}
