/**
 * The way of weights from files to a GPU: read into memory the GPU copies from by itself, two pieces at a time, so that
 * reading, copying and converting overlap.
 *
 * @module
 */
import type { CudaContext, CudaEvent, CudaStream, DeviceBuffer, DevicePtr, PinnedBuffer } from "../../ffi/cuda/cuda.ts";
import { DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { StripHalf } from "../../kernels/linear/cuda_layout.ts";
import type { PackedLinear } from "../../kernels/linear/linear_packed_cuda.ts";
import type { WeightKernels } from "../../kernels/weight_bf16/weight_bf16_cuda.ts";
import type { WeightTensor } from "../model/model.ts";
import { addressAt } from "./cuda_address.ts";
import { type CudaMatrix, isPackedType } from "./cuda_matrix.ts";

/** Bytes of one piece as the GPU takes it. */
const PIECE_BYTES = 8 << 20;
/** Pieces on the way. */
const PIECES = 2;

/** Where a matrix goes. */
export interface MatrixTargets {
  /** bf16, row-major. */
  readonly full?: DevicePtr;
  /** Records of a matrix, and which of its rows the first one becomes. */
  readonly packed?: { readonly to: DevicePtr; readonly first: number; readonly half?: StripHalf };
}

/** Memory for one piece on the way. */
interface Piece {
  readonly host: PinnedBuffer;
  readonly device: DeviceBuffer;
  /** Reached when the GPU has taken it. */
  readonly taken: CudaEvent;
}

/** What an upload works with. */
export interface CudaUploadOptions {
  /** The GPU. */
  readonly context: CudaContext;
  /** Where copies and conversions run. */
  readonly stream: CudaStream;
  /** Conversions. */
  readonly kernels: WeightKernels;
  /** What packs; wanted where matrices stay packed. */
  readonly packing?: PackedLinear;
  /** Stored bytes of everything, for progress. */
  readonly totalBytes: number;
  /** Called as weights load. */
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
}

/** Copies tensors to a GPU. */
export class CudaUpload implements Disposable {
  readonly #options: CudaUploadOptions;
  readonly #opened = new DisposableStack();
  readonly #pieces: readonly Piece[];
  #turn = 0;
  #loadedBytes = 0;

  /** Takes memory for the pieces. @throws {CudaError} when there is none. */
  constructor(options: CudaUploadOptions) {
    using opened = new DisposableStack();
    const { context } = options;
    this.#options = options;
    this.#pieces = Array.from({ length: PIECES }, () => ({
      host: opened.use(context.pinned(PIECE_BYTES)),
      device: opened.use(context.alloc(PIECE_BYTES)),
      taken: opened.use(context.event()),
    }));
    this.#opened.use(opened.move());
  }

  /** Copies the tensors of a matrix, one behind the other, into its forms. Its bytes are 0 before. */
  matrices(tensors: readonly WeightTensor[], { full, packed = [], paired, cols }: CudaMatrix<DevicePtr>): void {
    let row = 0;
    for (const [index, tensor] of tensors.entries()) {
      const part = paired ? packed.at(0) : packed.find(({ first, rows }) => row >= first && row < first + rows);
      const half = index === 0 ? "first" : "second";
      this.matrix(tensor, {
        full: full && addressAt(full, 2 * row * cols),
        packed: part && (paired ? { to: part.at, first: 0, half } : { to: part.at, first: row - part.first }),
      });
      row += tensor.rows;
    }
  }

  /** Copies a matrix as it is stored, and rounds it to bf16 or packs it there. */
  matrix(tensor: WeightTensor, { full, packed }: MatrixTargets): void {
    const { stream, kernels, packing } = this.#options;
    const { dtype, rows, cols } = tensor;
    const { elements, bytes } = DTYPE_LAYOUT[dtype];
    const rowBytes = cols / elements * bytes;
    const most = Math.floor(PIECE_BYTES / rowBytes);
    if (most === 0) {
      throw new RangeError(`Cannot load ${tensor.name}: wanted rows of at most ${PIECE_BYTES} bytes, got ${rowBytes}`);
    }
    for (let first = 0; first < rows; first += most) {
      const count = Math.min(most, rows - first);
      this.#send(({ host, device }) => {
        tensor.readInto(new Uint8Array(host.buffer, 0, count * rowBytes), first * rowBytes);
        const target = full && addressAt(full, 2 * first * cols);
        if (dtype === "BF16") {
          if (target !== undefined) stream.copy(target, host.address, count * rowBytes);
          return;
        }
        stream.copy(device.address, host.address, count * rowBytes);
        if (target !== undefined) {
          kernels.convert(stream, { type: dtype, from: device.address, to: target, count: count * cols });
        }
        if (packed === undefined) return;
        if (!isPackedType(dtype) || packing === undefined) {
          throw new TypeError(`Cannot keep ${tensor.name} packed: it is ${dtype}`);
        }
        const { to, half } = packed;
        packing.pack(stream, { dtype, rows: count, cols, from: device.address, to, first: packed.first + first, half });
      }, count * rowBytes);
    }
  }

  /** Copies an F32 vector. */
  vector(tensor: WeightTensor, to: DevicePtr): void {
    this.#send((piece) => {
      tensor.readInto(new Uint8Array(piece.host.buffer, 0, tensor.bytes), 0);
      this.#options.stream.copy(to, piece.host.address, tensor.bytes);
    }, tensor.bytes);
  }

  /** Waits until everything has arrived. */
  finish(): void {
    this.#options.stream.synchronize();
  }

  /** Frees the memory of the pieces. */
  [Symbol.dispose](): void {
    this.#options.stream.synchronize();
    this.#opened.dispose();
  }

  #send(fill: (piece: Piece) => void, bytes: number): void {
    const piece = this.#pieces[this.#turn++ % PIECES];
    if (this.#turn > PIECES) piece.taken.synchronize();
    fill(piece);
    this.#options.stream.record(piece.taken);
    this.#loadedBytes += bytes;
    this.#options.onProgress?.(this.#loadedBytes, this.#options.totalBytes);
  }
}
