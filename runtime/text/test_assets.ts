/**
 * Tokenizers for tests: the vocabulary of SmolLM2 and two tiny ones.
 *
 * @module
 */
import type { TextAssets } from "../model/model.ts";
import type { TokenTable } from "./codec.ts";

const DATA = new URL("../../tests/testdata/text/", import.meta.url);

/** The `tokenizer.json` of SmolLM2. */
export interface SmolTokenizerJson {
  /** Control tokens. */
  readonly added_tokens: readonly { readonly id: number; readonly content: string }[];
  /** BPE model. */
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly string[] };
}

/** Lines of a JSONL file in the test data. */
export async function readJsonLines<T>(name: string): Promise<T[]> {
  const text = await Deno.readTextFile(new URL(name, DATA));
  return text.trimEnd().split("\n").map((line): T => JSON.parse(line));
}

/** A JSON file in the test data. */
export async function readJson<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(new URL(name, DATA)));
}

/** Tokenizer file of SmolLM2, as the model's authors write it. */
export async function smolTokenizerJson(): Promise<SmolTokenizerJson> {
  using file = await Deno.open(new URL("smollm2_tokenizer.json.gz", DATA));
  return await new Response(file.readable.pipeThrough(new DecompressionStream("gzip"))).json();
}

/** Assets of SmolLM2 without its template. */
export async function smolAssets(chatTemplate?: string): Promise<TextAssets> {
  const tokenizerJson = await smolTokenizerJson();
  const specialTokens = Object.fromEntries(tokenizerJson.added_tokens.map(({ id, content }) => [content, id]));
  return { tokenizerJson, specialTokens, chatTemplate, bos: 1, addBos: false, eos: [2] };
}

/** A SentencePiece-style BPE vocabulary with byte fallback, made of the letters a, b, c. */
export function metaspaceAssets(extra: Readonly<Record<string, unknown>> = {}): TextAssets {
  const texts = ["<unk>", "<s>", "</s>"];
  for (let byte = 0; byte < 256; byte++) texts.push(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  texts.push("\u2581", "a", "b", "c", "ab", "\u2581a", "\u2581ab", "bc", "<tool>");
  const tokenizerJson = {
    added_tokens: [
      { id: 0, content: "<unk>", special: true },
      { id: 1, content: "<s>", special: true },
      { id: 2, content: "</s>", special: true, rstrip: true },
      { id: texts.length - 1, content: "<tool>", special: false, normalized: false },
    ],
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "Prepend", prepend: "\u2581" }, {
        type: "Replace",
        pattern: { String: " " },
        content: "\u2581",
      }],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [{ type: "Replace", pattern: { String: "\u2581" }, content: " " }, { type: "ByteFallback" }, {
        type: "Fuse",
      }, { type: "Strip", content: " ", start: 1, stop: 0 }],
    },
    model: {
      type: "BPE",
      byte_fallback: true,
      fuse_unk: true,
      unk_token: "<unk>",
      vocab: Object.fromEntries(texts.map((text, id) => [text, id])),
      merges: ["a b", "\u2581 a", "\u2581 ab", "b c"],
    },
    ...extra,
  };
  return { tokenizerJson, specialTokens: { "<unk>": 0, "<s>": 1, "</s>": 2 }, bos: 1, addBos: true, eos: [2] };
}

/** A table of the given token bytes; ids in `special` are control tokens. */
export function tableOf(tokens: readonly Uint8Array[], special: readonly number[] = []): TokenTable {
  const offsets = new Uint32Array(tokens.length + 1);
  tokens.forEach((token, id) => offsets[id + 1] = offsets[id] + token.length);
  const bytes = new Uint8Array(offsets[tokens.length]);
  tokens.forEach((token, id) => bytes.set(token, offsets[id]));
  return {
    size: tokens.length,
    bytes,
    offsets,
    special: Uint8Array.from(tokens, (_, id) => special.includes(id) ? 1 : 0),
  };
}
