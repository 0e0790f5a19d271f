/**
 * The way of weights from files to a GPU: read into memory the GPU copies from by itself, two pieces at a time, so that
 * reading, copying and converting overlap.
 *
 * @module
 */
import type { CudaContext, CudaEvent, CudaStream, DeviceBuffer, DevicePtr, PinnedBuffer } from "../../ffi/cuda/cuda.ts";
import { DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { WeightKernels } from "../../kernels/weight_bf16/weight_bf16_cuda.ts";
import type { WeightTensor } from "../model/model.ts";
import { addressAt } from "./cuda_address.ts";

/** Bytes of one piece as the GPU takes it. */
const PIECE_BYTES = 8 << 20;
/** Pieces on the way. */
const PIECES = 2;

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

  /** Copies a matrix as it is stored and rounds it to bf16 there. */
  matrix(tensor: WeightTensor, to: DevicePtr): void {
    const { stream, kernels } = this.#options;
    const { dtype } = tensor;
    const { elements, bytes } = DTYPE_LAYOUT[dtype];
    const blocks = tensor.rows * tensor.cols / elements;
    const most = Math.floor(PIECE_BYTES / bytes);
    for (let first = 0; first < blocks; first += most) {
      const count = Math.min(most, blocks - first);
      this.#send(({ host, device }) => {
        tensor.readInto(new Uint8Array(host.buffer, 0, count * bytes), first * bytes);
        const target = addressAt(to, 2 * first * elements);
        if (dtype === "BF16") {
          stream.copy(target, host.address, count * bytes);
          return;
        }
        stream.copy(device.address, host.address, count * bytes);
        kernels.convert(stream, { type: dtype, from: device.address, to: target, count: count * elements });
      }, count * bytes);
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
