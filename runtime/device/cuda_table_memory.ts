/**
 * Block tables on the GPU, and what the host knows of them.
 *
 * @module
 */
import type { CudaContext, CudaStream, DeviceBuffer, DevicePtr } from "../../ffi/cuda/cuda.ts";
import type { StepPlanKernels } from "../../kernels/step_plan/step_plan_cuda.ts";
import { CudaStaging } from "./cuda_staging.ts";
import { TableMirror, type TablePatches, type TableSize, tableSizeFor } from "./cuda_tables.ts";
import type { StepSequence } from "./device.ts";

/** Tables at first. */
const FIRST_TABLES = 64;
/** Words before the pairs of table entries that are sent ahead of a step. */
const HEADER_WORDS = 4;

/** What tables stand on; it stays the caller's. */
export interface CudaTablesParts {
  /** The GPU. */
  readonly context: CudaContext;
  /** Entries of a table at first. */
  readonly width: number;
  /** Where steps run. */
  readonly stream: CudaStream;
  /** Writes entries. */
  readonly kernels: StepPlanKernels;
}

/** The tables of a device's steps. */
export class CudaTables implements Disposable {
  readonly #parts: CudaTablesParts;
  /** What did not fit into the plan of a step, and of one begun ahead. */
  readonly #late: readonly [CudaStaging, CudaStaging];
  #mirror: TableMirror;
  #buffer: DeviceBuffer;

  /** Makes some. @throws {CudaError} when there is no memory. */
  constructor(parts: CudaTablesParts) {
    const { context, width } = parts;
    const size = { rows: FIRST_TABLES, width };
    this.#parts = parts;
    this.#late = [new CudaStaging(context), new CudaStaging(context)];
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
    const buffer = this.#parts.context.alloc(4 * size.rows * size.width);
    this.#buffer[Symbol.dispose]();
    this.#buffer = buffer;
    this.#mirror = new TableMirror(size);
  }

  /** See {@linkcode TableMirror.update}. */
  update(batch: readonly StepSequence[]): TablePatches {
    return this.#mirror.update(batch);
  }

  /**
   * What a step's plan has to bring, at most `most` entries; when more differ, all are sent at once and none are left.
   *
   * @param ahead Whether the step is begun while another one may still read what it sent this way.
   */
  updateWithin(
    batch: readonly StepSequence[],
    { most, ahead }: { readonly most: number; readonly ahead: boolean },
  ): TablePatches {
    const patches = this.#mirror.update(batch);
    if (patches.length <= 2 * most) return patches;
    const { stream, kernels } = this.#parts;
    const staging = this.#late[ahead ? 1 : 0];
    const words = HEADER_WORDS + patches.length;
    // What was sent here before went out in front of a step that was waited for.
    staging.reserve(4 * words);
    const memory = new Int32Array(staging.memory, 0, words);
    memory[0] = patches.length / 2;
    memory.set(patches, HEADER_WORDS);
    stream.copy(staging.device(), staging.host(), 4 * words);
    kernels.patchTables(stream, {
      count: staging.device(),
      pairs: staging.device(4 * HEADER_WORDS),
      tables: this.address,
      most: patches.length / 2,
    });
    return patches.subarray(0, 0);
  }

  /** Frees them. */
  [Symbol.dispose](): void {
    for (const staging of this.#late) staging[Symbol.dispose]();
    this.#buffer[Symbol.dispose]();
  }
}
