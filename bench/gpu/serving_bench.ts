/**
 * A server on a GPU under a load of completions over HTTP, all at once: seconds, tokens a second, time to the first token, and
 * blocks that are still owned afterwards, of which there must be none.
 *
 *     deno run -A bench/gpu/serving_bench.ts [--model NAME] [--requests N] [--prompt N] [--answer N] [--whole]
 *       [--mixed-step-tokens N] [--json FILE]
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createLogger } from "../../runtime/server/logger.ts";
import { startServer } from "../../runtime/server/server.ts";
import { findShape, openRandomEngine } from "./random_engine.ts";
import type { Load, LoadResult } from "./serving_load.ts";

/** One measurement. */
export interface ServingRow {
  /** Shape of the model. */
  readonly model: string;
  /** Requests, all at once. */
  readonly requests: number;
  /** Tokens of a prompt. */
  readonly promptTokens: number;
  /** Tokens of an answer. */
  readonly answerTokens: number;
  /** Whether answers were streamed. */
  readonly stream: boolean;
  /** From the first request to the end of the last answer, seconds. */
  readonly seconds: number;
  /** Tokens of all answers in a second. */
  readonly tokensPerSecond: number;
  /** Time to the first bytes of an answer, ms: median and largest. */
  readonly firstMs: { readonly median: number; readonly max: number };
  /** KV blocks owned after the last answer. */
  readonly ownedBlocks: number;
  /** Time to open the engine, seconds. */
  readonly openSeconds: number;
}

/** What is measured. */
export interface ServingOptions extends Pick<Load, "requests" | "promptTokens" | "answerTokens" | "stream" | "seed"> {
  /** Most tokens of a step in which a sequence decodes. @default {as the engine has it on a GPU} */
  readonly mixedStepTokens?: number;
}

/** Processes that send a load, so that none of them is what limits it: a streamed token costs a client 50 us. */
const CLIENTS = 8;

/** A process that has its part of a load ready. */
class Client {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;

  constructor(load: Load) {
    const program = fileURLToPath(new URL("./serving_load.ts", import.meta.url));
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-check", "--allow-net", program, JSON.stringify(load)],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Waits until its prompts are made. */
  async ready(): Promise<void> {
    if ((await this.#lines.read()).value?.trim() !== "ready") throw new Error("Cannot measure: a client did not begin");
  }

  /** Has it send its part, and waits for its result. */
  async send(): Promise<LoadResult> {
    const writer = this.#child.stdin.getWriter();
    await writer.write(new Uint8Array(1));
    await writer.close();
    let text = "";
    for (let part = await this.#lines.read(); !part.done; part = await this.#lines.read()) text += part.value;
    if (!(await this.#child.status).success) throw new Error("Cannot measure the server: its client failed");
    return JSON.parse(text) as LoadResult;
  }
}

/** Sends a load from several processes at once. */
async function sendFromChildren(load: Load, processes: number): Promise<LoadResult> {
  const share = (index: number) => Math.floor(load.requests * index / processes);
  const clients = Array.from(
    { length: processes },
    (_, i) => new Client({ ...load, requests: share(i + 1) - share(i), seed: load.seed * processes + i }),
  );
  for (const client of clients) await client.ready();
  const results = await Promise.all(clients.map((client) => client.send()));
  return {
    beganMs: Math.min(...results.map(({ beganMs }) => beganMs)),
    endedMs: Math.max(...results.map(({ endedMs }) => endedMs)),
    firstMs: results.flatMap(({ firstMs }) => firstMs).sort((a, b) => a - b),
    tokens: results.reduce((sum, { tokens }) => sum + tokens, 0),
  };
}

async function ownedBlocks(url: string): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return Number(/kv_blocks\{[^}]*state="owned"\} (\d+)/.exec(metrics)?.[1] ?? NaN);
}

/** Measures one shape; a load of a few requests goes first. */
export async function measureServing(
  model: string,
  options: ServingOptions,
): Promise<ServingRow> {
  const shape = findShape(model);
  const begin = performance.now();
  const { mixedStepTokens, ...asked } = options;
  const maxModelLen = asked.promptTokens + asked.answerTokens;
  await using opened = await openRandomEngine(shape, { maxModelLen, mixedStepTokens });
  const openSeconds = (performance.now() - begin) / 1000;
  const logger = createLogger({ level: "error" });
  await using server = await startServer({ ...opened, port: 0, logger });
  const load = { ...asked, url: server.url, vocab: shape.config.vocab };
  await sendFromChildren({ ...load, requests: 4, answerTokens: 8, seed: asked.seed + 1 }, 1);
  const { beganMs, endedMs, firstMs, tokens } = await sendFromChildren(load, Math.min(CLIENTS, asked.requests));
  const ms = endedMs - beganMs;
  const { requests, promptTokens, answerTokens, stream } = asked;
  return {
    model,
    requests,
    promptTokens,
    answerTokens,
    stream,
    seconds: ms / 1000,
    tokensPerSecond: 1000 * tokens / ms,
    firstMs: { median: firstMs[firstMs.length >> 1], max: firstMs[firstMs.length - 1] },
    ownedBlocks: await ownedBlocks(server.url),
    openSeconds,
  };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      model: { type: "string", multiple: true, default: ["llama3-8b"] },
      requests: { type: "string", default: "256" },
      prompt: { type: "string", default: "1024" },
      answer: { type: "string", default: "256" },
      whole: { type: "boolean", default: false },
      "mixed-step-tokens": { type: "string" },
      seed: { type: "string", default: "1" },
      json: { type: "string" },
    },
  });
  const rows: ServingRow[] = [];
  for (const model of values.model) {
    const row = await measureServing(model, {
      requests: Number(values.requests),
      promptTokens: Number(values.prompt),
      answerTokens: Number(values.answer),
      stream: !values.whole,
      seed: Number(values.seed),
      mixedStepTokens: values["mixed-step-tokens"] === undefined ? undefined : Number(values["mixed-step-tokens"]),
    });
    rows.push(row);
    const { requests, promptTokens, answerTokens, seconds, tokensPerSecond, firstMs, ownedBlocks, openSeconds } = row;
    console.log(
      `${model}: ${requests} requests of ${promptTokens} in, ${answerTokens} out, ${
        row.stream ? "streamed" : "whole"
      }: ` +
        `${seconds.toFixed(2)} s, ${tokensPerSecond.toFixed(0)} tokens/s, first token after ` +
        `${firstMs.median.toFixed(0)} ms (median), ${firstMs.max.toFixed(0)} ms (last); ${ownedBlocks} blocks owned ` +
        `afterwards; engine open in ${openSeconds.toFixed(1)} s`,
    );
  }
  if (values.json !== undefined) await Deno.writeTextFile(values.json, JSON.stringify({ rows }, undefined, 2) + "\n");
}
