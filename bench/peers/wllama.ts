/**
 * wllama: llama.cpp compiled to WebAssembly, run by headless Chromium.
 *
 * @module
 */
import type { Contestant } from "../contestant.ts";
import type { Prompts } from "../prompts.ts";
import { DECODED_TOKENS, type RowId } from "../rows.ts";
import { jointRate } from "../statistics.ts";
import { findProgram, installPeer, PEER_PACKAGES } from "./install.ts";
import { LineChild } from "./line_child.ts";
import type { PeerOptions } from "./peer_options.ts";

/** Characters of the prompt that lets the optimising tier in, about 60 tokens. */
const WARM_CHARACTERS = 200;

/** Installs and starts the peer. @throws {Error} when Node.js or Chromium is missing or a package cannot be installed. */
export async function openWllama(options: PeerOptions): Promise<Contestant> {
  const node = findProgram("node");
  const chromium = findProgram("chromium", "chromium-browser", "google-chrome");
  if (node === undefined || chromium === undefined) {
    throw new Error(`Cannot start wllama: there is no ${node === undefined ? "node" : "chromium"} on the PATH`);
  }
  const script = await installPeer("wllama.mjs", ["@wllama/wllama", "playwright-core"]);
  const child = await LineChild.start(node, [script, options.modelPath, String(options.threads), chromium]);
  return new WllamaPeer(child, options.prompts);
}

class WllamaPeer implements Contestant {
  readonly name = "wllama";
  readonly version: string;
  readonly rows: readonly RowId[] = ["decode-128", "decode-2000", "prefill-512", "prefill-2000", "batch-8"];
  /** One prefill of 2,000 tokens takes a minute. */
  readonly maxSamples = 2;
  readonly #child: LineChild;
  readonly #prompts: Prompts;

  constructor(child: LineChild, prompts: Prompts) {
    this.#child = child;
    this.#prompts = prompts;
    this.version = `${PEER_PACKAGES["@wllama/wllama"]}, ${child.version}`;
  }

  async warm(_row: RowId): Promise<void> {
    const text = this.#prompts.short.text.slice(0, WARM_CHARACTERS);
    await this.#child.ask({ kind: "prefill", text });
    await this.#child.ask({ kind: "decode", text, count: DECODED_TOKENS });
  }

  async sample(row: RowId): Promise<number> {
    const { short, medium, long, batch } = this.#prompts;
    const child = this.#child;
    switch (row) {
      case "decode-128":
        return await child.askValue({ kind: "decode", text: short.text, count: DECODED_TOKENS });
      case "decode-2000":
        return await child.askValue({ kind: "decode", text: long.text, count: DECODED_TOKENS });
      case "prefill-512":
        return await child.askValue({ kind: "prefill", text: medium.text });
      case "prefill-2000":
        return await child.askValue({ kind: "prefill", text: long.text });
      case "batch-8": {
        const texts = batch.map((_, i) => `${i + 1}. ${short.text}`);
        const { streams = [] } = await child.ask({ kind: "batch", texts, count: DECODED_TOKENS });
        return jointRate(streams);
      }
      default:
        throw new RangeError(`Cannot sample row ${row}: wllama has no figure for it`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }
}
