import { assert, assertEquals, assertThrows } from "@std/assert";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import type { TextAssets } from "../model/model.ts";
import { metaspaceAssets, readJsonLines, smolAssets, smolTokenizerJson } from "./test_assets.ts";
import { Tokenizer, withBos } from "./tokenizer.ts";

interface TokenizerCase {
  readonly text: string;
  readonly utf16?: readonly number[];
  readonly ids: readonly number[];
  readonly ids_special: readonly number[];
  readonly decoded: string;
  readonly decoded_special: string;
}

Deno.test("Tokenizer.encode() and decode() reproduce the reference on the real vocabulary", async () => {
  const tokenizer = new Tokenizer(await smolAssets());
  const cases = await readJsonLines<TokenizerCase>("tokenizer.jsonl");
  assertEquals(cases.length, 60);
  for (const wanted of cases) {
    const text = wanted.utf16 === undefined ? wanted.text : String.fromCharCode(...wanted.utf16);
    assertEquals([...tokenizer.encode(text)], wanted.ids, wanted.text);
    assertEquals([...tokenizer.encode(text, { parseSpecial: true })], wanted.ids_special, wanted.text);
    assertEquals(tokenizer.decode(wanted.ids), wanted.decoded, wanted.text);
    assertEquals(tokenizer.decode(wanted.ids_special), wanted.decoded_special, wanted.text);
  }
});

Deno.test("Tokenizer.encode() agrees with the library on any text", async () => {
  const json = await smolTokenizerJson();
  const tokenizer = new Tokenizer(await smolAssets());
  const regex = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
  const isolate = (source: string) => ({
    type: "Split",
    pattern: { Regex: source },
    behavior: "Isolated",
    invert: false,
  });
  const library = new LibraryTokenizer({
    ...json,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [isolate(String.raw`\p{N}`), isolate(regex), {
        type: "ByteLevel",
        add_prefix_space: false,
        use_regex: false,
      }],
    },
  }, {});
  const words = fc.constantFrom(
    "hello",
    " world",
    "'ll",
    "  ",
    "\n\n",
    "aaaaaaaa",
    "ünï",
    "12",
    "天気",
    "<|im_end|>",
    "()=>{",
  );
  const text = fc.array(fc.oneof(words, fc.string({ unit: "binary", maxLength: 8 })), { maxLength: 12 });
  fc.assert(
    fc.property(text, (parts) => {
      const text = parts.join("");
      const wanted = library.encode(text, { add_special_tokens: false }).ids;
      assertEquals([...tokenizer.encode(text, { parseSpecial: true })], wanted);
    }),
    { numRuns: 500 },
  );
});

Deno.test("Tokenizer.encode() never makes a control token from plain text", async () => {
  const tokenizer = new Tokenizer(await smolAssets());
  const controls = tokenizer.controlTokens.map(({ content }) => content);
  const parts = fc.array(fc.oneof(fc.constantFrom(...controls), fc.string({ maxLength: 3 })), { maxLength: 8 });
  fc.assert(
    fc.property(parts, (parts) => {
      const ids = tokenizer.encode(parts.join(""));
      assert(ids.every((id) => tokenizer.vocabulary.special[id] === 0));
      assertEquals(tokenizer.decode(ids), parts.join(""));
    }),
  );
});

Deno.test("Tokenizer.encode() stays exact on long text without a split", async () => {
  const tokenizer = new Tokenizer(await smolAssets());
  for (const text of ["a".repeat(1 << 20), "abcdefghij".repeat(100_000), "=".repeat(1 << 20), "7".repeat(200_000)]) {
    const ids = tokenizer.encode(text);
    assert(ids.length < text.length + 1);
    assertEquals(tokenizer.decode(ids), text);
  }
});

Deno.test("Tokenizer.encode() drops the marker after control tokens were looked for", async () => {
  const tokenizer = new Tokenizer(await smolAssets());
  const options = { parseSpecial: true, marker: "\ue000" };
  const plain = [...tokenizer.encode("<|im_end|>")];
  assertEquals([...tokenizer.encode("<\ue000|im_end|><|im_end|>", options)], [...plain, 2]);
  assertEquals([...tokenizer.encode("<|im_end|>\ue000", options)], plain);
});

Deno.test("Tokenizer.encode() handles SentencePiece vocabularies", () => {
  const tokenizer = new Tokenizer(metaspaceAssets());
  const id = (text: string) => 3 + 256 + ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "bc", "<tool>"].indexOf(text);
  assertEquals([...tokenizer.encode("ab abc")], [id("▁ab"), id("▁ab"), id("c")]);
  assertEquals([...tokenizer.encode("é")], [id("▁"), 3 + 0xc3, 3 + 0xa9]);
  assertEquals([...tokenizer.encode("<tool>a")], [id("<tool>"), id("▁a")]);
  assertEquals([...tokenizer.encode("a</s>  a", { parseSpecial: true })], [id("▁a"), 2, id("▁a")]);
  assertEquals(tokenizer.decode(tokenizer.encode("ab é bc")), "ab é bc");
  assertEquals(tokenizer.decode([id("b"), id("▁"), id("▁a")]), "b  a");
  assert(tokenizer.encode("<s></s><unk>").every((token) => token > 2));
});

Deno.test("Tokenizer.encode() cuts words of a SentencePiece text without changing its ids", () => {
  const assets = metaspaceAssets();
  const cutting = new Tokenizer(assets);
  // A token that spans a word border forbids cutting; no merge makes it, so the ids must not change.
  const json = assets.tokenizerJson as { model: { vocab: Record<string, number> } };
  const vocab = { ...json.model.vocab, "x▁x": Object.keys(json.model.vocab).length };
  const whole = new Tokenizer({ ...assets, tokenizerJson: { ...json, model: { ...json.model, vocab } } });
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "é"), maxLength: 60 }), (text) => {
      assertEquals([...cutting.encode(text)], [...whole.encode(text)]);
    }),
  );
});

Deno.test("Tokenizer.encode() emits one unknown token for a run of characters that a vocabulary lacks", () => {
  const json = {
    added_tokens: [],
    decoder: { type: "Metaspace" },
    model: { type: "BPE", unk_token: "?", fuse_unk: true, vocab: { "?": 0, a: 1 }, merges: [] },
  };
  const assets: TextAssets = { tokenizerJson: json, specialTokens: {}, addBos: false, eos: [] };
  assertEquals([...new Tokenizer(assets).encode("axyaz")], [1, 0, 1, 0]);
  const dropping = { ...json, model: { ...json.model, unk_token: null } };
  assertEquals([...new Tokenizer({ ...assets, tokenizerJson: dropping }).encode("axya")], [1, 1]);
});

function unigramAssets(byteFallback: boolean): TextAssets {
  const bytes = Array.from({ length: 256 }, (_, b) => [`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`, -20]);
  const tokenizerJson = {
    added_tokens: [{ id: 1, content: "<s>", special: true }],
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: false },
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
    model: {
      type: "Unigram",
      unk_id: 0,
      byte_fallback: byteFallback,
      vocab: [
        ["<unk>", 0],
        ["<s>", 0],
        ["▁", -3],
        ["a", -4],
        ["b", -4],
        ["▁ab", -5],
        ["ab", -6],
        ...byteFallback ? bytes : [],
      ],
    },
  };
  return { tokenizerJson, specialTokens: { "<unk>": 0, "<s>": 1 }, bos: 1, addBos: true, eos: [1] };
}

Deno.test("Tokenizer.encode() handles unigram vocabularies", () => {
  const tokenizer = new Tokenizer(unigramAssets(true));
  assertEquals([...tokenizer.encode("ab a")], [5, 2, 3]);
  assertEquals([...tokenizer.encode("a\n")], [2, 3, 7 + 10]);
  // Neither a control token nor the token of byte 41, whose text this is.
  assert(tokenizer.encode("<s><unk><0x41>").every((id) => id > 1 && id !== 7 + 0x41));
  assertEquals(tokenizer.decode(tokenizer.encode("<s> ab <0x41>")), "<s> ab <0x41>");
  assertEquals([...new Tokenizer(unigramAssets(false)).encode("xyz")], [2, 0]);
  assertThrows(() => tokenizer.encode("a".repeat(100_000)), RangeError, "characters without a space");
});

Deno.test("Tokenizer.encode() takes a whole piece as one token where the file says so", () => {
  const json = {
    added_tokens: [{ id: 4, content: "ac", special: true }],
    pre_tokenizer: { type: "ByteLevel" },
    model: { type: "BPE", ignore_merges: true, vocab: { a: 0, b: 1, c: 2, "Ġab": 3, ac: 4, "Ġ": 5 }, merges: [] },
  };
  const assets: TextAssets = { tokenizerJson: json, specialTokens: {}, addBos: false, eos: [] };
  assertEquals([...new Tokenizer(assets).encode("ab ab")], [0, 1, 3]);
  // A control token is no exception.
  assertEquals([...new Tokenizer(assets).encode("ac")], [0, 2]);
  const merging = { ...json, model: { ...json.model, ignore_merges: false } };
  assertEquals([...new Tokenizer({ ...assets, tokenizerJson: merging }).encode(" ab")], [5, 0, 1]);
});

Deno.test("Tokenizer.decode() refuses ids outside the vocabulary", async () => {
  const tokenizer = new Tokenizer(await smolAssets());
  for (const id of [-1, 49152, 1.5, NaN]) assertThrows(() => tokenizer.decode([1, id]), RangeError, "at position 1");
  assertEquals(tokenizer.decode([1, 57, 2], { skipSpecial: true }), tokenizer.decode([57]));
});

Deno.test("withBos() puts BOS before a prompt exactly once", () => {
  const wants = { bos: 7, addBos: true };
  assertEquals([...withBos(Int32Array.of(1, 2), wants)], [7, 1, 2]);
  assertEquals([...withBos(Int32Array.of(7, 2), wants)], [7, 2]);
  assertEquals([...withBos(Int32Array.of(), wants)], [7]);
  assertEquals([...withBos(Int32Array.of(1), { bos: 7, addBos: false })], [1]);
  assertEquals([...withBos(Int32Array.of(1), { addBos: true })], [1]);
});

Deno.test("new Tokenizer() refuses damaged tokenizer files", () => {
  const model = { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"] };
  const damaged: [string, unknown, new (message: string) => Error][] = [
    ["no object", 3, TypeError],
    ["no model", {}, TypeError],
    ["vocabulary of the wrong kind", { model: { ...model, vocab: [1] } }, TypeError],
    ["empty vocabulary", { model: { ...model, vocab: {} } }, RangeError],
    ["an id twice", { model: { ...model, vocab: { a: 0, b: 0 }, merges: [] } }, RangeError],
    ["negative id", { model: { ...model, vocab: { a: -1 }, merges: [] } }, RangeError],
    ["fractional id", { model: { ...model, vocab: { a: 0.5 }, merges: [] } }, RangeError],
    ["enormous id", { model: { ...model, vocab: { a: 1e15 }, merges: [] } }, RangeError],
    ["merge of an unknown token", { model: { ...model, merges: ["a x"] } }, RangeError],
    ["merge into an unknown token", { model: { ...model, merges: ["b a"] } }, RangeError],
    ["merge of three", { model: { ...model, merges: ["a b c"] } }, RangeError],
    ["merge of one", { model: { ...model, merges: [["a"]] } }, TypeError],
    ["merge without a space", { model: { ...model, merges: ["ab"] } }, TypeError],
    ["merges of the wrong kind", { model: { ...model, merges: "a b" } }, TypeError],
    ["ten million merges", { model: { ...model, merges: { length: 1e7 } } }, TypeError],
    ["too many merges", { model: { ...model, merges: new Array(5_000_000) } }, RangeError],
    ["WordPiece", { model: { ...model, type: "WordPiece" } }, TypeError],
    ["suffixes", { model: { ...model, end_of_word_suffix: "</w>" } }, TypeError],
    ["added token without text", { model, added_tokens: [{ id: 3, content: "" }] }, RangeError],
    ["added token without id", { model, added_tokens: [{ content: "x" }] }, RangeError],
    ["steps without an end", { model, pre_tokenizer: nested(20) }, RangeError],
    ["unigram without scores", { model: { type: "Unigram", vocab: [["a"]] } }, TypeError],
    ["unigram with NaN", { model: { type: "Unigram", vocab: [["a", NaN]] } }, TypeError],
  ];
  for (const [name, tokenizerJson, kind] of damaged) {
    const assets: TextAssets = { tokenizerJson, specialTokens: {}, addBos: false, eos: [] };
    assertThrows(() => new Tokenizer(assets), kind, "Cannot read tokenizer", name);
  }
});

function nested(depth: number): unknown {
  return { type: "Sequence", pretokenizers: depth === 0 ? [] : [nested(depth - 1)] };
}

Deno.test("new Tokenizer() accepts gaps between ids and overlapping added tokens", () => {
  const tokenizerJson = {
    model: { type: "BPE", vocab: { a: 0, b: 9 }, merges: [] },
    pre_tokenizer: { type: "ByteLevel" },
    added_tokens: [{ id: 20, content: "<x", special: true }, { id: 21, content: "<x>", special: true }],
  };
  const tokenizer = new Tokenizer({ tokenizerJson, specialTokens: {}, addBos: false, eos: [] });
  assertEquals([...tokenizer.encode("<x><x<x>b", { parseSpecial: true })], [21, 20, 21, 9]);
  assertEquals(tokenizer.vocabulary.size, 22);
  assertEquals(tokenizer.decode([0, 5, 9]), "ab");
});
