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
import { checkBatch, checkWhole } from "./batch_check.ts";
import { CheckedStep, complete } from "./checked_step.ts";
import type {
  AttendRange,
  Device,
  DeviceInfo,
  DeviceOptions,
  DeviceStep,
  KvLayout,
  NodePartial,
  NodeWork,
  StepOutput,
  StepSequence,
} from "./device.ts";
import { sequenceNodes } from "./step_nodes.ts";
import type { WasmKvStore } from "./wasm_kv_store.ts";
import { WasmModel } from "./wasm_model.ts";
import { WasmSteps } from "./wasm_step.ts";

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

/** Segments of one attention task of a decode query when there are threads to spread it over. */
const SPREAD_SEGMENTS = 1;

/** Runs a model on CPU cores through WASM kernels. */
export class WasmDevice implements Device {
  /** See {@linkcode Device.info}. */
  readonly info: DeviceInfo;
  /** See {@linkcode Device.config}. */
  readonly config: ModelConfig;
  /** See {@linkcode Device.layout}. */
  readonly layout: KvLayout;
  readonly #store: WasmKvStore;
  readonly #steps: WasmSteps;
  readonly #threads: number;
  #step: CheckedStep | undefined;

  /** Takes over what {@linkcode WasmDevice.open} made. */
  constructor(parts: { runtime: WasmRuntime; model: WasmModel; config: ModelConfig; info: DeviceInfo }) {
    const { runtime, model, config, info } = parts;
    this.config = config;
    this.info = info;
    this.layout = model.store.layout;
    this.#store = model.store;
    this.#steps = new WasmSteps({ runtime, model, config, blockTokens: info.blockTokens });
    this.#threads = runtime.threads;
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
          blockBytes: loaded.store.blockBytes,
          weightBytes: loaded.weightBytes,
        },
      });
    } catch (error) {
      runtime[Symbol.dispose]();
      throw error;
    }
  }

  /** See {@linkcode Device.blocks}. */
  get blocks(): number {
    return this.info.blocks;
  }

  /** See {@linkcode Device.blockBytes}. */
  get blockBytes(): number {
    return this.info.blockBytes;
  }

  /** See {@linkcode Device.step}. @throws {Error} also when a step was begun and is neither done nor abandoned. */
  step(batch: readonly StepSequence[]): StepOutput {
    checkWhole(batch);
    return complete(this.begin(batch));
  }

  /** See {@linkcode Device.begin}. */
  begin(batch: readonly StepSequence[]): DeviceStep {
    if (this.#step?.running) {
      throw new Error("Cannot begin a step: wanted the last one done or abandoned, got one that is neither");
    }
    const size = checkBatch(batch, this.info, this.config);
    const { kvHeads } = this.config;
    const spread = this.#threads > 1 && batch.length * kvHeads < 4 * this.#threads;
    const nodes = batch.map((sequence) =>
      sequenceNodes(sequence, {
        mostSegments: spread && sequence.tokens.length === 1 ? SPREAD_SEGMENTS : undefined,
      })
    );
    const runner = this.#steps.begin({ batch, size, nodes });
    this.#step = new CheckedStep({ runner, batch, nodes, sizes: this.config });
    return this.#step;
  }

  /** See {@linkcode Device.attendNodes}. */
  attendNodes(layer: number, work: readonly NodeWork[]): readonly (readonly NodePartial[])[] {
    return this.#store.attendNodes(layer, work);
  }

  /** See {@linkcode Device.attend}. */
  attend(layer: number, ranges: readonly AttendRange[]): AttentionPartial {
    return this.#store.attend(layer, ranges);
  }

  /** See {@linkcode Device.readBlock}. */
  readBlock(block: number): Uint8Array {
    return this.#store.readBlock(block);
  }

  /** See {@linkcode Device.writeBlock}. */
  writeBlock(block: number, bytes: Uint8Array): void {
    this.#store.writeBlock(block, bytes);
  }

  /** Stops the compute threads and frees the memory. */
  [Symbol.dispose](): void {
    this.#store[Symbol.dispose]();
  }
}
