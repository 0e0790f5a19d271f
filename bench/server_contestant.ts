/**
 * Our server as users start it: `cli.ts serve` in a process of its own.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { firstTokenMs, postStream } from "./completion_client.ts";
import { BARE_SERVER, type Contestant, OURS, warmBySampling } from "./contestant.ts";
import { requestsPerSecond } from "./http_load.ts";
import type { ModelWork } from "./model_work.ts";
import { FreshPrompts, type Prompts } from "./prompts.ts";
import { DECODED_TOKENS, MEMORY_KV_TOKENS, type RowId } from "./rows.ts";
import { type ServerCommand, ServerProcess } from "./server_process.ts";

/** Load of the `health` row. */
const HEALTH_LOAD = { path: "/health", connections: 8, ms: 1000 } as const;

/** How to start the server. */
export interface ServerContestantOptions {
  /** Model file. */
  readonly modelPath: string;
  /** Its work. */
  readonly work: ModelWork;
  /** Compute threads. */
  readonly threads: number;
  /** Whether they are pinned to processors. */
  readonly pin: boolean;
  /** Prompts of the rows. */
  readonly prompts: Prompts;
  /** Seed of the fresh prompts. */
  readonly seed: number;
  /** Time each row is run before its first sample, ms. */
  readonly warmMs: number;
}

const CLI = fileURLToPath(new URL("../cli.ts", import.meta.url));

/** Whether there is a command line to start. */
export function hasCommandLine(): boolean {
  return existsSync(CLI);
}

/** Measures our server. Nothing is started before a row needs it. */
export class ServerContestant implements Contestant {
  /** See {@linkcode Contestant.name}. */
  readonly name: string = OURS;
  /** See {@linkcode Contestant.version}. */
  readonly version: string;
  /** See {@linkcode Contestant.rows}. */
  readonly rows: readonly RowId[] = ["first-token", "warm-start", "memory", "health"];
  readonly #options: ServerContestantOptions;
  readonly #fresh: FreshPrompts;
  #server: Promise<ServerProcess> | undefined;

  /** Measures the server of this repository. */
  constructor(options: ServerContestantOptions) {
    this.#options = options;
    this.#fresh = new FreshPrompts(options.prompts.long.ids, options.seed);
    this.version = `cli.ts serve, ${options.threads} threads`;
  }

  /** See {@linkcode Contestant.warm}. */
  async warm(row: RowId): Promise<void> {
    if (row === "memory") return;
    await warmBySampling(this, row, { warmMs: row === "warm-start" ? 0 : this.#options.warmMs });
  }

  /** See {@linkcode Contestant.sample}. */
  async sample(row: RowId): Promise<number> {
    switch (row) {
      case "first-token":
        return await firstTokenMs((await this.#running()).url, this.#fresh.next());
      case "health":
        return await requestsPerSecond((await this.#running()).url, HEALTH_LOAD);
      case "warm-start": {
        await using server = await ServerProcess.start(this.#command());
        return server.startMs;
      }
      case "memory":
        return await this.#memory();
      default:
        throw new RangeError(`Cannot sample row ${row}: the server has no figure for it`);
    }
  }

  /** Ends the server. */
  async [Symbol.asyncDispose](): Promise<void> {
    const server = await this.#server?.catch(() => undefined);
    await server?.[Symbol.asyncDispose]();
  }

  #running(): Promise<ServerProcess> {
    return this.#server ??= ServerProcess.start(this.#command());
  }

  /** A fresh server whose small pool one long request fills. */
  async #memory(): Promise<number> {
    const { work, prompts } = this.#options;
    await using server = await ServerProcess.start(this.#command("--kv-tokens", String(MEMORY_KV_TOKENS)));
    await postStream(`${server.url}/v1/completions`, {
      prompt: prompts.long.ids,
      max_tokens: DECODED_TOKENS,
      temperature: 0,
      ignore_eos: true,
      stream: true,
    });
    return (server.peakBytes() - work.weightBytes - MEMORY_KV_TOKENS * work.kvTokenBytes) / 1e6;
  }

  #command(...more: string[]): ServerCommand {
    const { modelPath, threads, pin } = this.#options;
    const flags = ["--model", modelPath, "--threads", String(threads), ...(pin ? ["--pin"] : [])];
    const args = ["run", "-A", CLI, "serve", ...flags];
    return {
      program: Deno.execPath(),
      args: (port) => [...args, "--host", "127.0.0.1", "--port", String(port), ...more],
      readyPath: "/health/ready",
    };
  }
}

/** The bare handler that `/health` is compared with. */
export class BareServerContestant implements Contestant {
  /** See {@linkcode Contestant.name}. */
  readonly name: string = BARE_SERVER;
  /** See {@linkcode Contestant.version}. */
  readonly version: string = `Deno ${Deno.version.deno}`;
  /** See {@linkcode Contestant.rows}. */
  readonly rows: readonly RowId[] = ["health"];
  readonly #warmMs: number;
  #server: Promise<ServerProcess> | undefined;

  /** Starts nothing yet. */
  constructor({ warmMs }: { readonly warmMs: number }) {
    this.#warmMs = warmMs;
  }

  /** See {@linkcode Contestant.warm}. */
  async warm(row: RowId): Promise<void> {
    await warmBySampling(this, row, { warmMs: this.#warmMs });
  }

  /** See {@linkcode Contestant.sample}. */
  async sample(_row: RowId): Promise<number> {
    this.#server ??= ServerProcess.start({
      program: Deno.execPath(),
      args: (
        port,
      ) => ["run", "--allow-net=127.0.0.1", fileURLToPath(new URL("./bare_server.ts", import.meta.url)), String(port)],
      readyPath: HEALTH_LOAD.path,
    });
    return await requestsPerSecond((await this.#server).url, HEALTH_LOAD);
  }

  /** Ends the server. */
  async [Symbol.asyncDispose](): Promise<void> {
    const server = await this.#server?.catch(() => undefined);
    await server?.[Symbol.asyncDispose]();
  }
}
