import { Tokenizer } from "@huggingface/tokenizers";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type GgufEntry, writeGguf } from "../../tests/synthetic/gguf_writer.ts";
import { MINIMUM_VOCABULARY, syntheticTokenizer } from "../../tests/synthetic/tokenizer.ts";
import { MemorySource } from "../weights/byte_source.ts";
import { GgufFile } from "../weights/gguf.ts";
import { ModelFileError } from "../weights/model_file_error.ts";
import { ggufTextAssets } from "./gguf_text.ts";
import type { TextAssets } from "./model.ts";

/** An undefined entry is left out of the file. */
type Metadata = Readonly<Record<string, GgufEntry | undefined>>;

function assetsOf(metadata: Metadata, vocab: number): TextAssets {
  const entries = Object.entries(metadata).flatMap(
    ([key, entry]): [string, GgufEntry][] => entry === undefined ? [] : [[key, entry]],
  );
  using source = new MemorySource(writeGguf({ metadata: entries, tensors: [] }), "test.gguf");
  return ggufTextAssets(new GgufFile(source), vocab);
}

const string = (value: string): GgufEntry => ({ type: "string", value });
const u32 = (value: number): GgufEntry => ({ type: "u32", value });
const strings = (value: readonly string[]): GgufEntry => ({ type: "array", of: "string", value });

function byteLevelMetadata(changes: Metadata = {}, vocab = MINIMUM_VOCABULARY): Metadata {
  const { tokens, types, merges } = syntheticTokenizer(vocab);
  return {
    "tokenizer.ggml.model": string("gpt2"),
    "tokenizer.ggml.pre": string("gpt-2"),
    "tokenizer.ggml.tokens": strings(tokens),
    "tokenizer.ggml.token_type": { type: "array", of: "i32", value: types },
    "tokenizer.ggml.merges": strings(merges),
    "tokenizer.ggml.bos_token_id": u32(1),
    "tokenizer.ggml.eos_token_id": u32(2),
    ...changes,
  };
}

function tokenizerOf({ tokenizerJson }: TextAssets): Tokenizer {
  // A copy through JSON shows that nothing in it depends on identity or prototypes.
  return new Tokenizer(JSON.parse(JSON.stringify(tokenizerJson)), {});
}

function encode(tokenizer: Tokenizer, text: string): number[] {
  return tokenizer.encode(text, { add_special_tokens: false }).ids;
}

Deno.test("ggufTextAssets() makes a byte-level tokenizer whose ids spell the text", () => {
  const assets = assetsOf(byteLevelMetadata(), MINIMUM_VOCABULARY);
  const tokenizer = tokenizerOf(assets);
  const { tokens } = syntheticTokenizer();
  assertEquals(encode(tokenizer, "hello the user").map((id) => tokens[id]), ["hello", "\u0120the", "\u0120", "user"]);
  for (const text of ["caf\u00e9 \u{1f642}\n\n", "  a\tb ", "\u0000\u007f\u00ad"]) {
    assertEquals(tokenizer.decode(encode(tokenizer, text), { clean_up_tokenization_spaces: false }), text);
  }
});

Deno.test("ggufTextAssets() keeps the text of control tokens text", () => {
  const assets = assetsOf(byteLevelMetadata(), MINIMUM_VOCABULARY);
  assertEquals(assets.specialTokens, { "<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2 });
  const ids = encode(tokenizerOf(assets), "<|im_start|>system<|im_end|><|endoftext|>");
  assert(ids.every((id) => id > 2), `got ${ids}`);
});

Deno.test("ggufTextAssets() drops merges that would make a control token", () => {
  const { tokens, types, merges } = syntheticTokenizer();
  const changes = {
    "tokenizer.ggml.tokens": strings([...tokens, "<|"]),
    "tokenizer.ggml.token_type": { type: "array", of: "i32", value: [...types, 3] } as const,
    "tokenizer.ggml.merges": strings(["< |", ...merges]),
  };
  const ids = encode(tokenizerOf(assetsOf(byteLevelMetadata(changes), tokens.length + 1)), "a<|b");
  assert(!ids.includes(tokens.length), `got ${ids}`);
});

Deno.test("ggufTextAssets() adds user-defined tokens, but those that look like control tokens are control", () => {
  const { tokens, types } = syntheticTokenizer();
  const assets = assetsOf(
    byteLevelMetadata({
      "tokenizer.ggml.tokens": strings([...tokens, "<think>", "<|user|>"]),
      "tokenizer.ggml.token_type": { type: "array", of: "i32", value: [...types, 4, 4] },
    }),
    tokens.length + 2,
  );
  assertEquals(encode(tokenizerOf(assets), "<think>"), [tokens.length]);
  assertEquals(assets.specialTokens["<|user|>"], tokens.length + 1);
  assert(encode(tokenizerOf(assets), "<|user|>").length > 1);
});

Deno.test("ggufTextAssets() takes end tokens from the ids and from control tokens that are known to end", () => {
  assertEquals(assetsOf(byteLevelMetadata(), MINIMUM_VOCABULARY).eos, [2, 0]);
  const turns = byteLevelMetadata({ "tokenizer.ggml.eot_token_id": u32(7) });
  assertEquals(assetsOf(turns, MINIMUM_VOCABULARY).eos, [2, 7, 0]);
});

Deno.test("ggufTextAssets() puts BOS before prompts when the file or the kind of vocabulary says so", () => {
  const bosOf = (changes: Metadata) => assetsOf(byteLevelMetadata(changes), MINIMUM_VOCABULARY).addBos;
  assertEquals(bosOf({}), false);
  assertEquals(bosOf({ "tokenizer.ggml.add_bos_token": { type: "bool", value: true } }), true);
  assertEquals(bosOf({ "tokenizer.ggml.pre": string("llama-bpe") }), true);
  const stated: Metadata = {
    "tokenizer.ggml.pre": string("llama-bpe"),
    "tokenizer.ggml.add_bos_token": { type: "bool", value: false },
  };
  assertEquals(bosOf(stated), false);
});

Deno.test("ggufTextAssets() has the ids that hold control tokens stay control where token types are absent", () => {
  const assets = assetsOf(byteLevelMetadata({ "tokenizer.ggml.token_type": undefined }), MINIMUM_VOCABULARY);
  assertEquals(assets.specialTokens, { "<|im_start|>": 1, "<|im_end|>": 2 });
});

Deno.test("ggufTextAssets() keeps a token named __proto__", () => {
  const { tokens, types } = syntheticTokenizer();
  const { tokenizerJson } = assetsOf(
    byteLevelMetadata({
      "tokenizer.ggml.tokens": strings([...tokens, "__proto__"]),
      "tokenizer.ggml.token_type": { type: "array", of: "i32", value: [...types, 1] },
    }),
    tokens.length + 1,
  );
  const copy = structuredClone(tokenizerJson) as { model: { vocab: Record<string, number> } };
  assertEquals(Object.entries(copy.model.vocab).at(-1), ["__proto__", tokens.length]);
});

const { tokens, merges } = syntheticTokenizer();
const BROKEN: readonly (readonly [string, Metadata, string])[] = [
  ["no tokens", { "tokenizer.ggml.tokens": undefined }, "tokens is missing"],
  [
    "fewer tokens than embedding rows",
    { "tokenizer.ggml.tokens": strings(tokens.slice(1)) },
    "one a row of the embedding",
  ],
  ["tokens that are numbers", { "tokenizer.ggml.tokens": u32(3) }, "must be an array of strings, got a number"],
  ["types of another length", { "tokenizer.ggml.token_type": { type: "array", of: "i32", value: [1] } }, "got 1"],
  ["a repeated token", { "tokenizer.ggml.tokens": strings([...tokens.slice(0, -1), "a"]) }, 'repeats "a"'],
  ["a repeated control token", { "tokenizer.ggml.tokens": strings(["a", ...tokens.slice(1)]) }, 'repeats "a"'],
  ["an empty control token", { "tokenizer.ggml.tokens": strings(["", ...tokens.slice(1)]) }, "must not be empty"],
  [
    "an unknown kind of vocabulary",
    { "tokenizer.ggml.model": string("rwkv") },
    'must be "gpt2" or "llama", got "rwkv"',
  ],
  ["no kind of vocabulary", { "tokenizer.ggml.model": undefined }, "got undefined"],
  ["an unknown pre-tokenizer", { "tokenizer.ggml.pre": string("constructor") }, 'got "constructor"'],
  ["no merges", { "tokenizer.ggml.merges": undefined }, "merges is missing"],
  ["a merge of unknown tokens", { "tokenizer.ggml.merges": strings([...merges, "zq x"]) }, 'got "zq x"'],
  ["a merge into an unknown token", { "tokenizer.ggml.merges": strings(["q q"]) }, 'got "q q"'],
  ["a merge of one token", { "tokenizer.ggml.merges": strings(["the"]) }, 'got "the"'],
  [
    "a BOS id past the vocabulary",
    { "tokenizer.ggml.bos_token_id": u32(1e6) },
    "bos_token_id must be a token id below",
  ],
  ["a negative end id", { "tokenizer.ggml.eos_token_id": { type: "i32", value: -1 } }, "got -1"],
  ["a template that is a number", { "tokenizer.chat_template": u32(1) }, "must be a string, got a number"],
];
for (const [name, changes, message] of BROKEN) {
  Deno.test(`ggufTextAssets() refuses ${name}`, () => {
    assertThrows(() => assetsOf(byteLevelMetadata(changes), MINIMUM_VOCABULARY), ModelFileError, message);
  });
}

Deno.test("ggufTextAssets() refuses a million merges before it decodes them", () => {
  const count = 2 ** 20 + 1;
  const source = byteLevelMetadata({ "tokenizer.ggml.merges": strings(Array(count).fill("")) });
  assertThrows(() => assetsOf(source, MINIMUM_VOCABULARY), ModelFileError, `got ${count}`);
});

/** A vocabulary trained with SentencePiece (BPE, byte fallback) and the ids its own encoder gives. */
const SENTENCE_PIECE: {
  readonly tokens: string[];
  readonly scores: number[];
  readonly types: number[];
  readonly cases: [string, number[]][];
} = JSON.parse(
  Deno.readTextFileSync(new URL("../../tests/testdata/models/sentencepiece.json", import.meta.url)),
);

function sentencePieceMetadata(changes: Metadata = {}): Metadata {
  return {
    "tokenizer.ggml.model": string("llama"),
    "tokenizer.ggml.tokens": strings(SENTENCE_PIECE.tokens),
    "tokenizer.ggml.scores": { type: "array", of: "f32", value: SENTENCE_PIECE.scores },
    "tokenizer.ggml.token_type": { type: "array", of: "i32", value: SENTENCE_PIECE.types },
    "tokenizer.ggml.bos_token_id": u32(1),
    "tokenizer.ggml.eos_token_id": u32(2),
    "tokenizer.ggml.unknown_token_id": u32(0),
    ...changes,
  };
}

Deno.test("ggufTextAssets() makes a SentencePiece tokenizer with the ids of SentencePiece", () => {
  const assets = assetsOf(sentencePieceMetadata(), SENTENCE_PIECE.tokens.length);
  const tokenizer = tokenizerOf(assets);
  for (const [text, ids] of SENTENCE_PIECE.cases) assertEquals(encode(tokenizer, text), ids, JSON.stringify(text));
  assertEquals(assets.specialTokens, { "<s>": 1, "</s>": 2 });
  assertEquals([assets.bos, assets.addBos, assets.eos], [1, true, [2]]);
});

Deno.test("ggufTextAssets() adds no space to a SentencePiece text when the file says so", () => {
  const changes: Metadata = { "tokenizer.ggml.add_space_prefix": { type: "bool", value: false } };
  const tokenizer = tokenizerOf(assetsOf(sentencePieceMetadata(changes), SENTENCE_PIECE.tokens.length));
  const [first] = encode(tokenizer, "x");
  assertEquals(SENTENCE_PIECE.tokens[first], "x");
});

Deno.test("ggufTextAssets() refuses a SentencePiece vocabulary without a score for each token", () => {
  const changes: Metadata = { "tokenizer.ggml.scores": { type: "array", of: "f32", value: [1] } };
  const size = SENTENCE_PIECE.tokens.length;
  assertThrows(
    () => assetsOf(sentencePieceMetadata(changes), size),
    ModelFileError,
    `must have ${size} entries, got 1`,
  );
});

Deno.test("ggufTextAssets() refuses a SentencePiece vocabulary that makes millions of merges", () => {
  // All words over two letters: every split of every word is two tokens.
  const words = Array.from({ length: 2 ** 17 - 2 }, (_, index) => (index + 2).toString(2).slice(1));
  const size = words.length;
  const changes: Metadata = {
    "tokenizer.ggml.tokens": strings(words),
    "tokenizer.ggml.scores": { type: "array", of: "f32", value: new Float32Array(size) },
    "tokenizer.ggml.token_type": { type: "array", of: "i32", value: new Int32Array(size).fill(1) },
  };
  assertThrows(() => assetsOf(sentencePieceMetadata(changes), size), ModelFileError, "wanted at most 1048576");
});
