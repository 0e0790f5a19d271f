import { Tokenizer } from "@huggingface/tokenizers";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { buildSyntheticDirectory, writeDirectory } from "../../tests/synthetic/synthetic_directory.ts";
import { MINIMUM_VOCABULARY, syntheticTokenizer } from "../../tests/synthetic/tokenizer.ts";
import { HfDirectory } from "../weights/hf_directory.ts";
import { ModelFileError } from "../weights/model_file_error.ts";
import { hfTextAssets } from "./hf_text.ts";
import type { TextAssets } from "./model.ts";

interface Json {
  [key: string]: unknown;
}

/** Assets of the synthetic directory with files changed: JSON files by a function, others by content. */
function assetsOf(
  edits: Readonly<Record<string, (json: Json) => unknown>> = {},
  { vocab = MINIMUM_VOCABULARY, texts = {} }: { vocab?: number; texts?: Readonly<Record<string, string>> } = {},
): TextAssets {
  const files = buildSyntheticDirectory({
    vocab,
    layers: 1,
    hidden: 4,
    heads: 1,
    kvHeads: 1,
    headDim: 2,
    intermediate: 2,
  });
  for (const [name, edit] of Object.entries(edits)) {
    const json: Json = JSON.parse(new TextDecoder().decode(files.get(name)));
    const edited = edit(json);
    if (edited === undefined) files.delete(name);
    else files.set(name, new TextEncoder().encode(JSON.stringify(edited)));
  }
  for (const [name, text] of Object.entries(texts)) files.set(name, new TextEncoder().encode(text));
  const path = Deno.makeTempDirSync();
  try {
    writeDirectory(path, files);
    using directory = new HfDirectory(path);
    return hfTextAssets(directory, vocab);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function model(changes: Json): Readonly<Record<string, (json: Json) => unknown>> {
  return { "tokenizer.json": (json) => ({ ...json, model: { ...json.model as Json, ...changes } }) };
}

function encode({ tokenizerJson }: TextAssets, text: string): number[] {
  return new Tokenizer(JSON.parse(JSON.stringify(tokenizerJson)), {}).encode(text).ids;
}

Deno.test("hfTextAssets() gives the tokens of the file and keeps control tokens apart", () => {
  const assets = assetsOf();
  const { tokens } = syntheticTokenizer();
  assertEquals(encode(assets, "hello the").map((id) => tokens[id]), ["hello", "\u0120the"]);
  assertEquals(assets.specialTokens, { "<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2 });
  assert(encode(assets, "<|im_start|><|im_end|>").every((id) => id > 2));
  assertEquals([assets.bos, assets.addBos, assets.eos], [1, false, [2, 0]]);
});

Deno.test("hfTextAssets() takes the template from its own file, else from the tokenizer's settings", () => {
  const settings = (chatTemplate: unknown) => ({
    "tokenizer_config.json": (json: Json) => ({ ...json, chat_template: chatTemplate }),
  });
  assertEquals(assetsOf(settings("from settings")).chatTemplate, "from settings");
  const texts = { "chat_template.jinja": "from file" };
  assertEquals(assetsOf(settings("from settings"), { texts }).chatTemplate, "from file");
  const named = [{ name: "tool_use", template: "t" }, { name: "default", template: "d" }];
  assertEquals(assetsOf(settings(named)).chatTemplate, "d");
  assertEquals(assetsOf(settings(null)).chatTemplate, undefined);
});

Deno.test("hfTextAssets() finds BOS and end tokens wherever the files state them", () => {
  const assets = assetsOf({
    "tokenizer_config.json": () => ({ bos_token: { content: "<|endoftext|>" }, add_bos_token: true }),
    "generation_config.json": () => ({ eos_token_id: [5, 6] }),
    "config.json": (json) => ({ ...json, eos_token_id: 7 }),
  });
  assertEquals([assets.bos, assets.addBos, assets.eos], [0, true, [5, 6, 7, 0, 2]]);
});

Deno.test("hfTextAssets() does without the optional files", () => {
  const assets = assetsOf({ "tokenizer_config.json": () => undefined, "generation_config.json": () => undefined });
  assertEquals([assets.bos, assets.addBos, assets.chatTemplate], [1, false, undefined]);
});

Deno.test("hfTextAssets() reads from the post-processor whether prompts begin with BOS, and takes it out", () => {
  const withProcessor = (processor: unknown) => ({
    "tokenizer.json": (json: Json) => ({ ...json, post_processor: processor }),
    "tokenizer_config.json": () => ({ bos_token: "<|im_start|>" }),
  });
  const template = { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<|im_start|>", type_id: 0 } }] };
  const assets = assetsOf(withProcessor({ type: "Sequence", processors: [{ type: "ByteLevel" }, template] }));
  assertEquals(assets.addBos, true);
  assertEquals(encode(assets, "a").length, 1);
  assertEquals(assetsOf(withProcessor({ type: "ByteLevel" })).addBos, false);
});

Deno.test("hfTextAssets() keeps added tokens that are not special", () => {
  const vocab = MINIMUM_VOCABULARY + 1;
  const assets = assetsOf({
    "tokenizer.json": (json) => ({
      ...json,
      added_tokens: [...json.added_tokens as unknown[], { id: vocab - 1, content: "<think>", special: false }],
    }),
  }, { vocab });
  assertEquals(encode(assets, "<think>"), [vocab - 1]);
});

Deno.test("hfTextAssets() makes control pieces of a Unigram vocabulary unmatchable", () => {
  const pieces = [["<|endoftext|>", 0], ["<|im_start|>", 0], ["<|im_end|>", 0], ["<", -1], ["|", -1], ["im_end", -1], [
    ">",
    -1,
  ]];
  const assets = assetsOf(model({ type: "Unigram", unk_id: 0, vocab: pieces, merges: undefined }));
  assertEquals(
    encode({ ...assets, tokenizerJson: { ...assets.tokenizerJson as Json, pre_tokenizer: null } }, "<|im_end|>"),
    [3, 4, 5, 4, 6],
  );
});

Deno.test("hfTextAssets() drops merges that would make a control token", () => {
  const { tokens } = syntheticTokenizer();
  const vocab = MINIMUM_VOCABULARY + 1;
  const assets = assetsOf({
    "tokenizer.json": (json) => ({
      ...json,
      added_tokens: [...json.added_tokens as unknown[], { id: vocab - 1, content: "<|", special: true }],
      model: {
        ...json.model as Json,
        vocab: Object.fromEntries([...tokens, "<|"].map((token, id) => [token, id])),
        merges: ["< |"],
      },
    }),
  }, { vocab });
  assert(!encode(assets, "<|").includes(vocab - 1));
});

const vocabulary = Object.fromEntries(syntheticTokenizer().tokens.map((token, id) => [token, id]));
const added = (token: unknown) => ({ "tokenizer.json": (json: Json) => ({ ...json, added_tokens: [token] }) });
const BROKEN: readonly (readonly [string, Parameters<typeof assetsOf>[0], string])[] = [
  ["no tokenizer", { "tokenizer.json": () => undefined }, "tokenizer.json is missing"],
  ["no model", { "tokenizer.json": (json) => ({ ...json, model: null }) }, "model is missing"],
  ["a vocabulary that is a number", model({ vocab: 1 }), "model.vocab must be an object or an array"],
  ["two tokens of one id", model({ vocab: { ...vocabulary, extra: 7 } }), 'vocab["extra"] repeats id 7'],
  ["an id past the embedding", model({ vocab: { ...vocabulary, extra: MINIMUM_VOCABULARY } }), "must be an id below"],
  ["a negative id", model({ vocab: { ...vocabulary, a: -1 } }), "got -1"],
  ["a fractional id", model({ vocab: { ...vocabulary, a: 1.5 } }), "got 1.5"],
  [
    "a merge of unknown tokens",
    model({ merges: ["zz y"] }),
    'merges[0] must be two tokens that make a third, got "zz y"',
  ],
  ["a merge of three tokens", model({ merges: ["a b c"] }), 'got "a b c"'],
  ["a merge that is a number", model({ merges: [1] }), "got 1"],
  [
    "a million merges",
    model({ merges: Array(2 ** 20 + 1).fill("") }),
    "must have at most 1048576 entries, got 1048577",
  ],
  ["an empty added token", added({ id: 1, content: "" }), "added_tokens[0].content must be a string that is not empty"],
  ["an added token without an id", added({ content: "x" }), "added_tokens[0].id must be a token id"],
  ["an added token past the embedding", added({ id: 1e6, content: "x" }), "got 1000000"],
  [
    "added tokens with the same text",
    { "tokenizer.json": (json) => ({ ...json, added_tokens: [{ id: 0, content: "x" }, { id: 1, content: "x" }] }) },
    "added_tokens[1] repeats",
  ],
  [
    "a huge regular expression",
    {
      "tokenizer.json": (json) => ({ ...json, pre_tokenizer: { type: "Split", pattern: { Regex: "a".repeat(4097) } } }),
    },
    "must be a string of at most 4096 characters",
  ],
  [
    "an end id past the embedding",
    { "config.json": (json) => ({ ...json, eos_token_id: 1e6 }) },
    "eos_token_id must be a token id below",
  ],
  ["a Unigram piece without a score", model({ vocab: [["a"]] }), "model.vocab[0] must be a piece and its score"],
];
for (const [name, edits, message] of BROKEN) {
  Deno.test(`hfTextAssets() refuses ${name}`, () => {
    assertThrows(() => assetsOf(edits), ModelFileError, message);
  });
}
