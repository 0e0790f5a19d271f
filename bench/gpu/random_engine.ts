/**
 * An engine on a GPU whose model has a measured shape and random weights, in a Worker and behind a tokenizer as the server
 * has it.
 *
 * @module
 */
import { SchedulerHost } from "../../plugins/host.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { cudaStepTokens } from "../../runtime/device/cuda_step_tokens.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import type { AssembledEngine, AssemblyContext } from "../../runtime/engine/assemble_engine.ts";
import type { OpenEngineOptions } from "../../runtime/engine/engine_protocol.ts";
import type { EngineHandle } from "../../runtime/engine/request.ts";
import { connectEngine } from "../../runtime/engine/worker_engine.ts";
import type { TextCodec } from "../../runtime/text/codec.ts";
import { openTextCodec } from "../../runtime/text/worker_codec.ts";
import { buildSyntheticGguf } from "../../tests/synthetic/synthetic_gguf.ts";
import { BENCH_SHAPES, type BenchShape } from "./shapes.ts";

/** Sequences that run together, as the engine chooses them on a GPU. */
export const BATCH = 256;

/** The measured shape of that name. @throws {RangeError} when there is none. */
export function findShape(name: string): BenchShape {
  const shape = BENCH_SHAPES.find((shape) => shape.name === name);
  if (shape === undefined) {
    const names = BENCH_SHAPES.map((shape) => shape.name).join(", ");
    throw new RangeError(`Cannot find shape ${name}: wanted one of ${names}`);
  }
  return shape;
}

/** Assembles the engine of a Worker; `modelPath` is the name of a shape. */
export async function assembleRandom(
  { modelPath, maxModelLen, kvTokens, mixedStepTokens: wantedTokens }: OpenEngineOptions,
  { text, log }: AssemblyContext,
): Promise<AssembledEngine> {
  const { name, config, tied } = findShape(modelPath);
  const usual = cudaStepTokens(config);
  const mixedStepTokens = wantedTokens ?? usual.mixed;
  using opened = new DisposableStack();
  const now = () => performance.now();
  const policy = opened.use(await SchedulerHost.load("builtin:fcfs", { now, random: Math.random, log }));
  const device = opened.use(
    CudaDevice.random(config, {
      tied,
      maxStepTokens: Math.max(usual.most, mixedStepTokens),
      maxLogitRows: BATCH,
      blocks: kvTokens === undefined ? undefined : Math.ceil(kvTokens / 64),
    }),
  );
  const engine = new Engine({
    device,
    policy,
    ...await text,
    maxModelLen: maxModelLen ?? config.contextLength,
    maxBatch: BATCH,
    mixedStepTokens,
    modelName: name,
    modelDigest: `random ${name}`,
    now,
  });
  const kept = opened.move();
  return { engine, device, [Symbol.dispose]: () => kept.dispose() };
}

/** An engine and its tokenizer. */
export interface RandomEngine extends AsyncDisposable {
  /** Engine. */
  readonly engine: EngineHandle;
  /** Tokenizer with as many tokens as the shape has. */
  readonly text: TextCodec;
}

/** Starts the engine of a shape in a Worker. */
export async function openRandomEngine(
  { config, name }: BenchShape,
  options: Pick<OpenEngineOptions, "maxModelLen" | "kvTokens" | "mixedStepTokens"> = {},
): Promise<RandomEngine> {
  await using opened = new AsyncDisposableStack();
  const file = await Deno.makeTempFile({ suffix: ".gguf" });
  opened.defer(() => Deno.remove(file));
  // Only its tokenizer is read.
  const spec = { layers: 1, hidden: 16, heads: 1, kvHeads: 1, headDim: 16, intermediate: 16, vocab: config.vocab };
  await Deno.writeFile(file, buildSyntheticGguf({ ...spec, dtype: "F16" }));
  const text = opened.use(await openTextCodec({ modelPath: file }));
  const worker = new Worker(new URL("./random_engine_worker.ts", import.meta.url), { type: "module", name: "engine" });
  const engine = opened.use(await connectEngine(worker, { options: { modelPath: name, ...options }, text }));
  const kept = opened.move();
  return { engine, text, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}
