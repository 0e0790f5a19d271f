/**
 * Our engine as library users and the server hold it: an engine Worker behind an `EngineHandle`, greedy.
 *
 * @module
 */
import type { EngineHandle } from "../runtime/engine/request.ts";
import { openEngine } from "../runtime/engine/worker_engine.ts";
import type { OpenModel } from "../runtime/model/model.ts";
import { readTokenizerJson } from "../runtime/text/tokenizer_json.ts";
import { buildTokenTable } from "../runtime/text/token_table.ts";
import { type Contestant, OURS, warmBySampling } from "./contestant.ts";
import type { Prompts } from "./prompts.ts";
import { DECODED_TOKENS, type RowId } from "./rows.ts";
import { type Arrival, jointRate } from "./statistics.ts";

/** How to open the engine. */
export interface EngineContestantOptions {
  /** The model and where it lies. */
  readonly model: OpenModel;
  /** See {@linkcode model}. */
  readonly modelPath: string;
  /** Compute threads. */
  readonly threads: number;
  /** Whether they are pinned to processors. */
  readonly pin: boolean;
  /** Prompts of the rows. */
  readonly prompts: Prompts;
  /** Time each row is run before its first sample, ms. */
  readonly warmMs: number;
}

/** Opens our engine with 8-bit activations and an f16 KV pool, as `serve` does. */
export async function openEngineContestant(options: EngineContestantOptions): Promise<Contestant> {
  const { model, modelPath, threads, pin } = options;
  const engine = await openEngine(
    { modelPath, device: { kind: "wasm", threads, pin, activations: "i8", kvType: "f16" } },
    { text: { vocabulary: buildTokenTable(readTokenizerJson(model.text)), eos: model.text.eos } },
  );
  return new EngineContestant(engine, options);
}

class EngineContestant implements Contestant {
  readonly name = OURS;
  readonly version: string;
  readonly rows: readonly RowId[] = ["decode-128", "decode-2000", "prefill-512", "prefill-2000", "batch-8"];
  readonly #engine: EngineHandle;
  readonly #prompts: Prompts;
  readonly #warmMs: number;
  #requests = 0;

  constructor(engine: EngineHandle, { prompts, warmMs }: EngineContestantOptions) {
    this.#engine = engine;
    this.#prompts = prompts;
    this.#warmMs = warmMs;
    const { device, scheduler } = engine.info;
    this.version = `${device}, i8 activations, f16 KV, ${scheduler}`;
  }

  async warm(row: RowId): Promise<void> {
    await warmBySampling(this, row, { warmMs: this.#warmMs });
  }

  async sample(row: RowId): Promise<number> {
    const { short, medium, long, batch } = this.#prompts;
    switch (row) {
      case "decode-128":
        return jointRate([await this.#arrivals(short.ids, DECODED_TOKENS + 1)]);
      case "decode-2000":
        return jointRate([await this.#arrivals(long.ids, DECODED_TOKENS + 1)]);
      case "prefill-512":
        return await this.#prefill(medium.ids);
      case "prefill-2000":
        return await this.#prefill(long.ids);
      case "batch-8":
        return jointRate(await Promise.all(batch.map((ids) => this.#arrivals(ids, DECODED_TOKENS + 1))));
      default:
        throw new RangeError(`Cannot sample row ${row}: the engine has no figure for it`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engine[Symbol.asyncDispose]();
  }

  /** Tokens a second from the request to the arrival of its first token. */
  async #prefill(ids: readonly number[]): Promise<number> {
    const start = performance.now();
    const [first] = await this.#arrivals(ids, 1);
    return ids.length / (first.ms - start) * 1e3;
  }

  /** Generates `count` tokens and says when they arrived on this thread. */
  async #arrivals(prompt: readonly number[], count: number): Promise<Arrival[]> {
    const id = `bench-${this.#requests++}`;
    const arrivals: Arrival[] = [];
    let tokens = 0;
    // A salt of its own keeps every request out of the prefix cache of the others.
    const request = {
      id,
      prompt,
      maxTokens: count,
      cacheSalt: id,
      sampling: { temperature: 0, ignoreEos: true },
    };
    for await (const event of this.#engine.generate(request)) {
      if (event.kind === "token") {
        tokens += event.ids.length;
        arrivals.push({ ms: performance.now(), tokens });
      } else if (event.kind === "end") {
        if (event.error !== undefined) throw new Error(`Cannot measure the engine: ${event.error.message}`);
        if (event.usage.cachedTokens > 0 || tokens !== count) {
          throw new Error(
            `Cannot measure the engine: wanted ${count} tokens and none cached, got ${tokens} and ${event.usage.cachedTokens} cached`,
          );
        }
      }
    }
    return arrivals;
  }
}
