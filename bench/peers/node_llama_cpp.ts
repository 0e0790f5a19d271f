/**
 * node-llama-cpp: native llama.cpp behind a JavaScript API, run by Node.js.
 *
 * @module
 */
import type { Contestant } from "../contestant.ts";
import type { ModelWork } from "../model_work.ts";
import type { Prompts } from "../prompts.ts";
import { DECODED_TOKENS, type RowId } from "../rows.ts";
import { peakBytes } from "../server_process.ts";
import { findProgram, installPeer, PEER_PACKAGES } from "./install.ts";
import { LineChild } from "./line_child.ts";
import type { PeerOptions } from "./peer_options.ts";

/** Tokens of the context the child makes for one sequence. */
const CONTEXT_TOKENS = 2304;

/** Installs and starts the peer. @throws {Error} when Node.js is missing or the package cannot be installed. */
export async function openNodeLlamaCpp(options: PeerOptions): Promise<Contestant> {
  const node = findProgram("node");
  if (node === undefined) throw new Error("Cannot start node-llama-cpp: there is no node on the PATH");
  const script = await installPeer("node_llama_cpp.mjs", ["node-llama-cpp"]);
  const start = () => LineChild.start(node, [script, options.modelPath, String(options.threads)]);
  return new NodeLlamaCpp(await start(), { ...options, start });
}

class NodeLlamaCpp implements Contestant {
  readonly name = "node-llama-cpp";
  readonly version: string;
  readonly rows: readonly RowId[] = ["decode-128", "decode-2000", "prefill-512", "prefill-2000", "batch-8", "memory"];
  readonly #child: LineChild;
  readonly #prompts: Prompts;
  readonly #work: ModelWork;
  readonly #start: () => Promise<LineChild>;

  constructor(child: LineChild, options: PeerOptions & { readonly start: () => Promise<LineChild> }) {
    this.#child = child;
    this.#prompts = options.prompts;
    this.#work = options.work;
    this.#start = options.start;
    this.version = `${PEER_PACKAGES["node-llama-cpp"]}, ${child.version}`;
  }

  async warm(row: RowId): Promise<void> {
    if (row !== "memory") await this.sample(row);
  }

  async sample(row: RowId): Promise<number> {
    const { short, medium, long, batch } = this.#prompts;
    const child = this.#child;
    switch (row) {
      case "decode-128":
        return await child.askValue({ kind: "decode", ids: short.ids, count: DECODED_TOKENS });
      case "decode-2000":
        return await child.askValue({ kind: "decode", ids: long.ids, count: DECODED_TOKENS });
      case "prefill-512":
        return await child.askValue({ kind: "prefill", ids: medium.ids });
      case "prefill-2000":
        return await child.askValue({ kind: "prefill", ids: long.ids });
      case "batch-8":
        return await child.askValue({ kind: "batch", prompts: batch, count: DECODED_TOKENS });
      case "memory":
        return await this.#memory();
      default:
        throw new RangeError(`Cannot sample row ${row}: node-llama-cpp has no figure for it`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }

  async #memory(): Promise<number> {
    await using child = await this.#start();
    await child.ask({ kind: "decode", ids: this.#prompts.long.ids, count: DECODED_TOKENS });
    const known = this.#work.weightBytes + CONTEXT_TOKENS * this.#work.kvTokenBytes;
    return (peakBytes(child.pid) - known) / 1e6;
  }
}
