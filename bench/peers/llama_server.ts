/**
 * llama-server, llama.cpp's HTTP server. Prefill and decode rows take its own timings, which leave HTTP out.
 *
 * @module
 */
import { firstTokenMs, postStream } from "../completion_client.ts";
import type { Contestant } from "../contestant.ts";
import { FreshPrompts } from "../prompts.ts";
import { DECODED_TOKENS, MEMORY_KV_TOKENS, type RowId } from "../rows.ts";
import { type ServerCommand, ServerProcess } from "../server_process.ts";
import { type Arrival, jointRate } from "../statistics.ts";
import type { PeerOptions } from "./peer_options.ts";

/** What we read of an event of `/completion`. */
interface CompletionEvent {
  readonly tokens_predicted: number;
  readonly timings?: { readonly prompt_per_second: number; readonly predicted_per_second: number };
}

/** Sequences, and tokens of context over all of them: a KV pool as large as ours by default. */
const SEQUENCES = 8;
const CONTEXT_TOKENS = 20_480;
/** Tokens of context for one sequence when memory is measured; whole units of 256. */
const MEMORY_CONTEXT_TOKENS = Math.ceil(MEMORY_KV_TOKENS / 256) * 256;

/** Starts the program at `path`. @throws {Error} when it cannot be run. */
export async function openLlamaServer(path: string, options: PeerOptions): Promise<Contestant> {
  const command = (contextTokens: number, sequences: number): ServerCommand => ({
    program: path,
    args: (port) => [
      ...["-m", options.modelPath, "-t", String(options.threads), "--host", "127.0.0.1", "--port", String(port)],
      ...["-c", String(contextTokens), "-np", String(sequences)],
    ],
    readyPath: "/health",
  });
  return new LlamaServer(await ServerProcess.start(command(CONTEXT_TOKENS, SEQUENCES)), { ...options, command });
}

class LlamaServer implements Contestant {
  readonly name = "llama-server";
  readonly version: string;
  readonly rows: readonly RowId[] = [
    "decode-128",
    "decode-2000",
    "prefill-512",
    "prefill-2000",
    "batch-8",
    "first-token",
    "warm-start",
    "memory",
  ];
  readonly #server: ServerProcess;
  readonly #options: PeerOptions;
  readonly #command: (contextTokens: number, sequences: number) => ServerCommand;
  readonly #fresh: FreshPrompts;

  constructor(
    server: ServerProcess,
    options: PeerOptions & { readonly command: (contextTokens: number, sequences: number) => ServerCommand },
  ) {
    this.#server = server;
    this.#options = options;
    this.#command = options.command;
    this.#fresh = new FreshPrompts(options.prompts.long.ids, options.seed);
    this.version = `${options.threads} threads, f16 KV, ${SEQUENCES} sequences, ${CONTEXT_TOKENS} tokens of context`;
  }

  async warm(row: RowId): Promise<void> {
    if (row !== "memory") await this.sample(row);
  }

  async sample(row: RowId): Promise<number> {
    const { short, medium, long, batch } = this.#options.prompts;
    const { url } = this.#server;
    switch (row) {
      // The prompt of a decode row may come from the cache: only what follows it is measured.
      case "decode-128":
        return (await this.#timings(short.ids, { count: DECODED_TOKENS, cached: true })).predicted_per_second;
      case "decode-2000":
        return (await this.#timings(long.ids, { count: DECODED_TOKENS, cached: true })).predicted_per_second;
      case "prefill-512":
        return (await this.#timings(medium.ids, { count: 1, cached: false })).prompt_per_second;
      case "prefill-2000":
        return (await this.#timings(long.ids, { count: 1, cached: false })).prompt_per_second;
      case "batch-8":
        return jointRate(await Promise.all(batch.map((ids) => this.#arrivals(ids))));
      case "first-token":
        return await firstTokenMs(url, this.#fresh.next());
      case "warm-start": {
        await using server = await ServerProcess.start(this.#command(CONTEXT_TOKENS, SEQUENCES));
        return server.startMs;
      }
      case "memory":
        return await this.#memory();
      default:
        throw new RangeError(`Cannot sample row ${row}: llama-server has no figure for it`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }

  async #timings(ids: readonly number[], options: { count: number; cached: boolean }) {
    const { timings } = (await this.#complete(this.#server.url, ids, options)).at(-1)?.event ?? {};
    if (timings === undefined) throw new Error("Cannot measure llama-server: its answer has no timings");
    return timings;
  }

  async #arrivals(ids: readonly number[]): Promise<Arrival[]> {
    const events = await this.#complete(this.#server.url, ids, { count: DECODED_TOKENS + 1, cached: false });
    return events.map(({ ms, event }) => ({ ms, tokens: event.tokens_predicted }));
  }

  async #complete(url: string, ids: readonly number[], { count, cached }: { count: number; cached: boolean }) {
    const { events } = await postStream(`${url}/completion`, {
      prompt: ids,
      n_predict: count,
      temperature: 0,
      ignore_eos: true,
      cache_prompt: cached,
      stream: true,
    });
    return events.map(({ ms, data }) => {
      const event: CompletionEvent = JSON.parse(data);
      return { ms, event };
    });
  }

  async #memory(): Promise<number> {
    const { work, prompts } = this.#options;
    await using server = await ServerProcess.start(this.#command(MEMORY_CONTEXT_TOKENS, 1));
    await this.#complete(server.url, prompts.long.ids, { count: DECODED_TOKENS, cached: false });
    return (server.peakBytes() - work.weightBytes - MEMORY_CONTEXT_TOKENS * work.kvTokenBytes) / 1e6;
  }
}
