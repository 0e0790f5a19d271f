/**
 * Starts the engine and the text codec of a model as flags describe them.
 *
 * @module
 */
import type { ClusterOptions } from "../cluster/options.ts";
import type { OpenEngineOptions } from "../engine/engine_protocol.ts";
import type { EngineHandle } from "../engine/request.ts";
import { openEngine } from "../engine/worker_engine.ts";
import type { FoundModel } from "../hub/model_hub.ts";
import type { TextCodec } from "../text/codec.ts";
import { openTextCodec } from "../text/worker_codec.ts";
import type { Settings } from "./flags.ts";

/** Most compute threads when none are asked for: beyond, waiting for each other costs more than it gains. */
const MAX_DEFAULT_THREADS = 16;

/** What to start. */
export interface StartModelOptions {
  /** The model. */
  readonly model: FoundModel;
  /** Jinja source to use instead of the model's. */
  readonly chatTemplate?: string;
  /** Place in a cluster. */
  readonly cluster?: ClusterOptions;
  /** Takes a line of the log of the engine: of its device, its scheduler policy, the cluster. */
  readonly log: (message: string) => void;
}

/** A model that is loading; the caller disposes of both. */
export interface StartingModel {
  /** Engine. */
  readonly engine: Promise<EngineHandle>;
  /** Tokenizer and template. */
  readonly text: Promise<TextCodec>;
}

/** What `--device` names: the kind, and the number of a GPU. */
export function namedDevice(
  { device }: Pick<Settings, "device">,
): { readonly kind: "auto" | "wasm" | "cuda"; readonly ordinal?: number } {
  if (device === "auto" || device === "wasm" || device === "cuda") return { kind: device };
  return { kind: "cuda", ordinal: Number(device.slice("cuda:".length)) };
}

/** Starts loading a model; engine and text codec load at the same time. */
export function startModel(settings: Settings, options: StartModelOptions): StartingModel {
  const { path: modelPath } = options.model;
  const text = openTextCodec({ modelPath, chatTemplate: options.chatTemplate });
  const engine = openEngine(engineOptions(settings, options), { text, log: options.log });
  // Whoever waits for them may come later than a failure.
  engine.catch(() => {});
  text.catch(() => {});
  return { engine, text };
}

function engineOptions(
  settings: Settings,
  { model, cluster }: StartModelOptions,
): OpenEngineOptions {
  const { activations, pin, kvType } = settings;
  return {
    modelPath: model.path,
    modelName: settings.servedModelName[0] ?? model.name,
    device: {
      ...namedDevice(settings),
      activations,
      pin,
      kvType,
      memoryUtilization: settings.gpuMemoryUtilization,
      deterministic: settings.deterministic,
      weights: settings.weights,
      threads: settings.threads ?? Math.min(navigator.hardwareConcurrency, MAX_DEFAULT_THREADS),
    },
    kvBytes: settings.kvMemory,
    kvTokens: settings.kvTokens,
    maxModelLen: settings.maxModelLen,
    maxBatch: settings.maxBatch,
    cluster,
    scheduler: settings.scheduler,
    schedulerOptions: Object.keys(settings.schedulerOpt).length === 0 ? undefined : settings.schedulerOpt,
  };
}
