/**
 * Where the time of a load of requests goes, without HTTP: the engine on the calling thread, every step by its kind, and the time
 * between two steps, in which the host chooses tokens and plans.
 *
 *     deno run -A bench/gpu/serving_timeline.ts [--model NAME] [--requests N] [--prompt N] [--answer N]
 *       [--mixed-step-tokens N] [--no-ahead] [--json FILE]
 *
 * @module
 */
import { parseArgs } from "node:util";
import { SchedulerHost } from "../../plugins/host.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { cudaStepTokens } from "../../runtime/device/cuda_step_tokens.ts";
import type { StepOutput, StepSequence } from "../../runtime/device/device.ts";
import { Engine } from "../../runtime/engine/engine.ts";
import type { TokenTable } from "../../runtime/text/codec.ts";
import { BATCH, findShape } from "./random_engine.ts";

/** What a step does. */
type StepKind = "prefill" | "mixed" | "decode";

/** One step. */
interface StepRecord {
  readonly kind: StepKind;
  readonly tokens: number;
  readonly rows: number;
  /** From the call to the result, ms. */
  readonly ms: number;
  /** From the last step's result to the call, ms. */
  readonly betweenMs: number;
  /** The GPU's time for it, and the time before in which the GPU did nothing, ms. */
  readonly gpuMs: number;
  readonly idleMs: number;
}

/** Steps of one kind. */
export interface TimelineRow {
  /** What they do. */
  readonly kind: StepKind;
  /** How many there were. */
  readonly steps: number;
  /** Tokens of all of them. */
  readonly tokens: number;
  /** Rows of logits of all of them. */
  readonly rows: number;
  /** Seconds in them. */
  readonly seconds: number;
  /** Milliseconds of one, median. */
  readonly medianMs: number;
  /** Seconds before them, since the steps in front. */
  readonly betweenSeconds: number;
  /** Seconds that the GPU worked on them, and did nothing before them. */
  readonly gpuSeconds: number;
  readonly idleSeconds: number;
}

/** A load and where its time went. */
export interface Timeline {
  /** From the first request to the last token, seconds. */
  readonly seconds: number;
  /** Steps that had been begun when they were asked for. */
  readonly stepsAhead: number;
  /** By kind. */
  readonly kinds: readonly TimelineRow[];
}

/** What is measured. */
export interface TimelineOptions {
  /** Shape of the model. */
  readonly model: string;
  /** Requests, all at once. */
  readonly requests: number;
  /** Tokens of a prompt. */
  readonly promptTokens: number;
  /** Tokens of an answer. */
  readonly answerTokens: number;
  /** Most tokens of a step in which a sequence decodes. @default {as the engine has it} */
  readonly mixedStepTokens?: number;
  /** Whether steps are begun ahead. */
  readonly ahead: boolean;
}

function kindOf(batch: readonly StepSequence[]): StepKind {
  const singles = batch.filter(({ tokens }) => tokens.length === 1).length;
  return singles === batch.length ? "decode" : singles === 0 ? "prefill" : "mixed";
}

/** A vocabulary of single letters. */
function letters(size: number): TokenTable {
  return {
    size,
    bytes: new Uint8Array(size).fill(0x61),
    offsets: Uint32Array.from({ length: size + 1 }, (_, i) => i),
    special: new Uint8Array(size),
  };
}

function summarize(kind: StepKind, all: readonly StepRecord[]): TimelineRow {
  const records = all.filter((record) => record.kind === kind);
  const sum = (value: (record: StepRecord) => number) => records.reduce((total, record) => total + value(record), 0);
  return {
    kind,
    steps: records.length,
    tokens: sum(({ tokens }) => tokens),
    rows: sum(({ rows }) => rows),
    seconds: sum(({ ms }) => ms) / 1000,
    medianMs: records.map(({ ms }) => ms).sort((a, b) => a - b)[records.length >> 1] ?? 0,
    betweenSeconds: sum(({ betweenMs }) => betweenMs) / 1000,
    gpuSeconds: sum(({ gpuMs }) => gpuMs) / 1000,
    idleSeconds: sum(({ idleMs }) => idleMs) / 1000,
  };
}

/** Runs a load on an engine of its own; one of a few requests goes first. */
export async function measureTimeline(options: TimelineOptions): Promise<Timeline> {
  const { model, requests, promptTokens, answerTokens, ahead } = options;
  const { config, tied } = findShape(model);
  const usual = cudaStepTokens(config);
  const mixedStepTokens = options.mixedStepTokens ?? usual.mixed;
  const maxStepTokens = Math.max(usual.most, mixedStepTokens);
  const now = () => performance.now();
  using policy = await SchedulerHost.load("builtin:fcfs", { now, random: Math.random, log: console.error });
  using device = CudaDevice.random(config, { tied, maxStepTokens, maxLogitRows: BATCH, ahead, timing: true });
  const records: StepRecord[] = [];
  let last = 0;
  let gpuEndMs: number | undefined;
  const step = device.step.bind(device);
  device.step = (batch, ...rest): StepOutput => {
    const begin = now();
    const output = step(batch, ...rest);
    const end = now();
    const tokens = batch.reduce((sum, sequence) => sum + sequence.tokens.length, 0);
    const { beganMs = 0, endedMs = 0 } = device.times ?? {};
    records.push({
      kind: kindOf(batch),
      tokens,
      rows: output.rows,
      ms: end - begin,
      betweenMs: begin - last,
      gpuMs: endedMs - beganMs,
      idleMs: gpuEndMs === undefined ? 0 : Math.max(0, beganMs - gpuEndMs),
    });
    last = end;
    gpuEndMs = endedMs;
    return output;
  };
  const engine = new Engine({
    device,
    policy,
    vocabulary: letters(config.vocab),
    eos: [],
    maxModelLen: promptTokens + answerTokens,
    maxBatch: BATCH,
    mixedStepTokens,
    modelName: model,
    modelDigest: `random ${model}`,
    now,
  });
  const run = (load: { readonly requests: number; readonly maxTokens: number; readonly seed: number }): number => {
    records.length = 0;
    gpuEndMs = undefined;
    const begin = last = now();
    for (let request = 0; request < load.requests; request++) {
      const prompt = Array.from(
        { length: promptTokens },
        (_, i) => (Math.imul(load.seed + request * promptTokens + i, 2_654_435_761) >>> 8) % config.vocab,
      );
      const { maxTokens } = load;
      engine.add(
        { id: `${load.seed} ${request}`, prompt, maxTokens, sampling: { temperature: 0, ignoreEos: true } },
        () => {},
      );
    }
    while (engine.step());
    return (now() - begin) / 1000;
  };
  run({ requests: 12, maxTokens: 8, seed: 77_000_000 });
  const before = device.stepsAhead;
  const seconds = run({ requests, maxTokens: answerTokens, seed: 1 });
  const kinds = (["prefill", "mixed", "decode"] as const).map((kind) => summarize(kind, records));
  return { seconds, stepsAhead: device.stepsAhead - before, kinds };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      model: { type: "string", multiple: true, default: ["llama3-8b"] },
      requests: { type: "string", default: "256" },
      prompt: { type: "string", default: "1024" },
      answer: { type: "string", default: "256" },
      "mixed-step-tokens": { type: "string" },
      "no-ahead": { type: "boolean", default: false },
      json: { type: "string" },
    },
  });
  const timelines: (Timeline & { readonly model: string })[] = [];
  for (const model of values.model) {
    const timeline = await measureTimeline({
      model,
      requests: Number(values.requests),
      promptTokens: Number(values.prompt),
      answerTokens: Number(values.answer),
      mixedStepTokens: values["mixed-step-tokens"] === undefined ? undefined : Number(values["mixed-step-tokens"]),
      ahead: !values["no-ahead"],
    });
    timelines.push({ model, ...timeline });
    console.log(`${model}: ${timeline.seconds.toFixed(2)} s without HTTP, ${timeline.stepsAhead} steps begun ahead`);
    for (
      const { kind, steps, tokens, rows, seconds, medianMs, betweenSeconds, gpuSeconds, idleSeconds } of timeline.kinds
    ) {
      console.log(
        `  ${kind.padEnd(7)}  ${steps} steps, ${tokens} tokens, ${rows} rows: ${seconds.toFixed(2)} s, median ` +
          `${medianMs.toFixed(2)} ms; ${betweenSeconds.toFixed(2)} s between; GPU busy ${
            gpuSeconds.toFixed(2)
          } s, idle before ` +
          `${idleSeconds.toFixed(2)} s`,
      );
    }
  }
  if (values.json !== undefined) {
    await Deno.writeTextFile(values.json, JSON.stringify({ timelines }, undefined, 2) + "\n");
  }
}
