/**
 * Opens everything an engine stands on.
 *
 * @module
 */
import type { ThreadStarter } from "../../kernels/wasm/threads.ts";
import { SchedulerHost } from "../../plugins/host.ts";
import { cudaStepTokens } from "../device/cuda_step_tokens.ts";
import type { Device } from "../device/device.ts";
import { kernelProgress } from "../device/kernel_progress.ts";
import { openDevice } from "../device/open_device.ts";
import { openModel } from "../model/open_model.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { EngineServerLink, ServedEngine } from "./engine_server.ts";
import type { EngineText, OpenEngineOptions } from "./engine_protocol.ts";

/**
 * Most running sequences, and tokens of a step that decodes, when nothing is asked for: enough to amortise reading the
 * weights.
 */
const HOST_DEFAULTS = { maxBatch: 32, mixedStepTokens: 128 } as const;
/** Most running sequences on a GPU. */
const GPU_MAX_BATCH = 256;

/** What {@linkcode assembleEngine} needs besides the options. */
export interface AssemblyContext {
  /** What the engine needs of the tokenizer; awaited after the weights are loaded. */
  readonly text: EngineText | Promise<EngineText>;
  /** Takes a line of the log. */
  readonly log: (message: string) => void;
  /** Starts compute threads. @default {Workers of the calling thread} */
  readonly startThread?: ThreadStarter;
}

/** An engine and what it stands on. */
export interface AssembledEngine extends Disposable {
  /** The engine. */
  readonly engine: Engine;
  /** Its device, released on dispose. */
  readonly device: Device;
  /** Serves the engine where it is more than that: a member of a cluster. */
  readonly serve?: (link: EngineServerLink) => ServedEngine;
}

/**
 * Opens model, device and policy and puts an engine on them. The caller disposes of it.
 *
 * @throws {ModelFileError} when the model cannot be read.
 * @throws {PluginError} when the policy cannot be loaded.
 * @throws {RangeError} when sizes contradict each other or do not fit.
 */
export async function assembleEngine(options: OpenEngineOptions, context: AssemblyContext): Promise<AssembledEngine> {
  const now = () => performance.now();
  using opened = new DisposableStack();
  const policy = opened.use(
    await SchedulerHost.load(options.scheduler ?? "builtin:fcfs", {
      config: options.schedulerOptions,
      now,
      random: Math.random,
      log: context.log,
    }),
  );
  using model = openModel(options.modelPath);
  const { kvBytes, kvTokens } = options;
  const device = opened.use(
    await openDevice(model, {
      ...options.device,
      kvBytes,
      kvTokens,
      startThread: context.startThread,
      onKernel: kernelProgress({ log: context.log, now }),
      onPassedOver: context.log,
    }),
  );
  const { kind, blocks, blockTokens, maxStepTokens, maxLogitRows } = device.info;
  const usual = kind === "cuda"
    ? { maxBatch: GPU_MAX_BATCH, mixedStepTokens: cudaStepTokens(model.config).mixed }
    : HOST_DEFAULTS;
  const maxBatch = options.maxBatch ?? Math.min(usual.maxBatch, maxStepTokens, maxLogitRows);
  const { contextLength } = model.config;
  // A member can serve what its own memory cannot hold.
  const ownLength = options.cluster === undefined ? Math.min(contextLength, blocks * blockTokens) : contextLength;
  const engineOptions: EngineOptions = {
    device,
    policy,
    ...await context.text,
    maxModelLen: options.maxModelLen ?? ownLength,
    maxBatch,
    mixedStepTokens: options.mixedStepTokens ?? Math.max(usual.mixedStepTokens, maxBatch),
    modelName: options.modelName ?? model.name,
    modelDigest: model.digest,
    now,
    maxQueue: options.maxQueue,
    prefixCache: options.prefixCache,
  };
  if (options.cluster === undefined) {
    const kept = opened.move();
    return { engine: new Engine(engineOptions), device, [Symbol.dispose]: () => kept.dispose() };
  }
  const { openClusterEngine } = await import("../cluster/open_cluster_engine.ts");
  const { engine, serve, member } = await openClusterEngine({
    cluster: options.cluster,
    engineOptions,
    log: context.log,
  });
  opened.use(member);
  const kept = opened.move();
  return { engine, device, serve, [Symbol.dispose]: () => kept.dispose() };
}
