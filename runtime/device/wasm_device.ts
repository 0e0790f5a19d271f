/**
 * The WASM device: kernels on CPU cores, all threads over one shared memory that holds weights, KV pool and activations.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { ActivationType, KvType } from "../../kernels/dtype.ts";
import { openWasm, type WasmRuntime } from "../../kernels/wasm/instance.ts";
import type { ThreadStarter } from "../../kernels/wasm/threads.ts";
import type { ModelConfig, OpenModel } from "../model/model.ts";
import { checkBatch, checkRanges, logitRows } from "./batch_check.ts";
import {
  type AttendRange,
  type Device,
  type DeviceInfo,
  type DeviceOptions,
  type StepOutput,
  type StepSequence,
  TOP_CANDIDATES,
} from "./device.ts";
import { WasmModel } from "./wasm_model.ts";

/** How to open a WASM device. */
export interface WasmDeviceOptions extends DeviceOptions {
  /** Compute threads, the calling one included. @default {1} */
  readonly threads?: number;
  /** Pins each compute thread to a CPU where that is possible. @default {false} */
  readonly pin?: boolean;
  /** Starts the compute threads. @default {Workers of the calling thread} */
  readonly startThread?: ThreadStarter;
  /** Called while weights load. */
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
}

/** Words of a step header and of one sequence in it (`Step` and `Sequence` in `forward.rs`). */
const STEP_WORDS = 6;
const SEQUENCE_WORDS = 4;

/** A growing buffer in the device's memory that the host fills before each step. */
class HostBuffer {
  readonly #runtime: WasmRuntime;
  #address = 0;
  #words = 0;

  constructor(runtime: WasmRuntime) {
    this.#runtime = runtime;
  }

  /** A view of at least `words` 32-bit words and its address. */
  reserve(words: number): { address: number; view: Uint32Array } {
    if (words > this.#words) {
      if (this.#words > 0) this.#runtime.free(this.#address, this.#words * 4);
      this.#words = Math.max(1024, words * 2);
      this.#address = this.#runtime.alloc(this.#words * 4);
    }
    return { address: this.#address, view: this.#runtime.u32(this.#address, this.#words) };
  }
}

/** Runs a model on CPU cores through WASM kernels. */
export class WasmDevice implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  readonly #runtime: WasmRuntime;
  readonly #model: WasmModel;
  readonly #buffer: HostBuffer;

  /** Takes over what {@linkcode WasmDevice.open} made. */
  constructor(parts: { runtime: WasmRuntime; model: WasmModel; config: ModelConfig; info: DeviceInfo }) {
    this.#runtime = parts.runtime;
    this.#model = parts.model;
    this.#buffer = new HostBuffer(parts.runtime);
    this.config = parts.config;
    this.info = parts.info;
  }

  /**
   * Loads the model's weights and makes the KV pool.
   *
   * @throws {RangeError} when weights and KV do not fit into 4 GiB, naming both sizes.
   */
  static async open(model: OpenModel, options: WasmDeviceOptions): Promise<WasmDevice> {
    const settings = {
      blockTokens: options.blockTokens ?? 16,
      blocks: options.blocks,
      kvType: options.kvType ?? "f16" satisfies KvType,
      activations: options.activations ?? "i8" satisfies ActivationType,
      maxStepTokens: options.maxStepTokens ?? 512,
      maxLogitRows: options.maxLogitRows ?? 64,
    };
    const runtime = await openWasm({
      threads: options.threads ?? 1,
      pin: options.pin,
      startThread: options.startThread,
    });
    try {
      const loaded = new WasmModel(runtime, model, { ...settings, onProgress: options.onProgress });
      const threads = runtime.threads === 1 ? "1 thread" : `${runtime.threads} threads`;
      return new WasmDevice({
        runtime,
        model: loaded,
        config: model.config,
        info: {
          kind: "wasm",
          description: `wasm, ${threads}${runtime.pinned ? ", pinned" : ""}, relaxed SIMD`,
          ...settings,
          blockBytes: loaded.blockBytes,
          weightBytes: loaded.weightBytes,
        },
      });
    } catch (error) {
      runtime[Symbol.dispose]();
      throw error;
    }
  }

  /** See {@linkcode Device.step}. */
  step(batch: readonly StepSequence[]): StepOutput {
    const { tokens, rows } = checkBatch(batch, this.info, this.config);
    const blocks = batch.reduce((sum, s) => sum + this.#blockCount(s), 0);
    const words = STEP_WORDS + SEQUENCE_WORDS * batch.length + tokens + rows + blocks;
    const { address, view } = this.#buffer.reserve(words);
    const sequencesAt = STEP_WORDS;
    const tokensAt = sequencesAt + SEQUENCE_WORDS * batch.length;
    const rowsAt = tokensAt + tokens;
    view.set(
      [tokens, batch.length, rows, address + 4 * tokensAt, address + 4 * sequencesAt, address + 4 * rowsAt],
    );
    let token = 0;
    let row = 0;
    let blockAt = rowsAt + rows;
    for (const [index, sequence] of batch.entries()) {
      const count = sequence.tokens.length;
      view.set([token, count, sequence.position, address + 4 * blockAt], sequencesAt + SEQUENCE_WORDS * index);
      for (let i = 0; i < count; i++) view[tokensAt + token + i] = sequence.tokens[i];
      const wanted = logitRows(sequence);
      for (let i = 0; i < wanted; i++) view[rowsAt + row++] = token + count - wanted + i;
      const blockCount = this.#blockCount(sequence);
      for (let i = 0; i < blockCount; i++) view[blockAt++] = sequence.blocks[i];
      token += count;
    }
    const { exports } = this.#runtime;
    if (tokens > 0) exports.workspace_run(this.#model.workspace, address, 0, this.#model.stages);
    return this.#output(rows);
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    checkRanges(layer, ranges, { info: this.info, config: this.config });
    const { heads, headDim } = this.config;
    const width = heads * headDim;
    const o = new Float32Array(ranges.length * width);
    const lse = new Float32Array(ranges.length * heads).fill(-Infinity);
    for (const [index, range] of ranges.entries()) {
      if (range.length === 0) continue;
      const blockCount = Math.ceil(range.length / this.info.blockTokens);
      const { address } = this.#buffer.reserve(2 * width + heads + blockCount);
      const oAt = address + 4 * width;
      const lseAt = oAt + 4 * width;
      const blocksAt = lseAt + 4 * heads;
      this.#runtime.f32(address, width).set(range.query);
      const blocks = this.#runtime.u32(blocksAt, blockCount);
      for (let i = 0; i < blockCount; i++) blocks[i] = range.blocks[i];
      this.#runtime.exports.workspace_attend(
        this.#model.workspace,
        layer,
        range.start,
        range.length,
        blocksAt,
        address,
        oAt,
        lseAt,
      );
      o.set(this.#runtime.f32(oAt, width), index * width);
      lse.set(this.#runtime.f32(lseAt, heads), index * heads);
    }
    return { o, lse };
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    this.#checkBlock(block);
    const { blockBytes } = this.info;
    const { address } = this.#buffer.reserve(blockBytes / 4);
    this.#runtime.exports.kv_read_block(this.#model.pool, block, address);
    return this.#runtime.u8(address, blockBytes).slice();
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    if (bytes.length !== this.info.blockBytes) {
      throw new RangeError(
        `Cannot write block ${block}: wanted ${this.info.blockBytes} bytes, got ${bytes.length}`,
      );
    }
    this.#checkBlock(block);
    const { address } = this.#buffer.reserve(bytes.length / 4);
    this.#runtime.u8(address, bytes.length).set(bytes);
    this.#runtime.exports.kv_write_block(this.#model.pool, block, address);
  }

  /** Stops the compute threads and frees the memory. */
  [Symbol.dispose](): void {
    this.#runtime[Symbol.dispose]();
  }

  #blockCount(sequence: StepSequence): number {
    return Math.ceil((sequence.position + sequence.tokens.length) / this.info.blockTokens);
  }

  #checkBlock(block: number): void {
    if (!Number.isInteger(block) || block < 0 || block >= this.info.blocks) {
      throw new RangeError(`Cannot access a block: wanted an id in 0..${this.info.blocks - 1}, got ${block}`);
    }
  }

  #output(rows: number): StepOutput {
    const { vocab } = this.config;
    const runtime = this.#runtime;
    const model = this.#model;
    const candidates = Math.min(TOP_CANDIDATES, vocab);
    const check = (row: number) => {
      if (!Number.isInteger(row) || row < 0 || row >= rows) {
        throw new RangeError(`Cannot read logits: row must be in 0..${rows - 1}, got ${row}`);
      }
    };
    return {
      rows,
      logits(row) {
        check(row);
        return runtime.f32(model.logits + 4 * vocab * row, vocab);
      },
      logSumExp(row) {
        check(row);
        return runtime.f32(model.summaries + model.summaryBytes * row, 1)[0];
      },
      top(row) {
        check(row);
        const at = model.summaries + model.summaryBytes * row + 8;
        return {
          ids: runtime.i32(at, candidates),
          logits: runtime.f32(at + 4 * TOP_CANDIDATES, candidates),
        };
      },
    };
  }
}
