import { SequencePreTokenizer } from "@huggingface/tokenizers";
import { assertEquals } from "@std/assert";
import { PRE_TOKENIZERS } from "./pre_tokenizers.ts";

/**
 * Pieces of each text by the `tokenizers` Python package 0.23.3 with the same patterns, by name; a name whose patterns
 * another has too holds that name instead.
 */
const GOLDEN: { readonly texts: string[]; readonly pieces: Record<string, string | string[][]> } = JSON.parse(
  Deno.readTextFileSync(new URL("../../tests/testdata/models/pre_tokenizers.json", import.meta.url)),
);

for (const [name, { patterns }] of Object.entries(PRE_TOKENIZERS)) {
  Deno.test(`PRE_TOKENIZERS "${name}" splits as the reference does`, () => {
    const entry = GOLDEN.pieces[name];
    const expected = typeof entry === "string" ? GOLDEN.pieces[entry] : entry;
    const splitter = new SequencePreTokenizer({
      type: "Sequence",
      pretokenizers: patterns.map((pattern) => ({
        type: "Split",
        pattern: { Regex: pattern },
        behavior: "Isolated",
        invert: false,
      })),
    });
    assertEquals(GOLDEN.texts.map((text) => splitter.pre_tokenize(text)), expected);
  });
}

Deno.test("PRE_TOKENIZERS keeps digits together as each vocabulary was trained", () => {
  const piecesOf = (name: string, text: string) => {
    const found = GOLDEN.pieces[name];
    return (typeof found === "string" ? GOLDEN.pieces[found] : found)[GOLDEN.texts.indexOf(text)];
  };
  const text = "\u0661\u0662\u0663\u0664 \u00bd \u00b2 12345678 1a2b3 v2.0.1";
  assertEquals(piecesOf("smollm", text).includes("12345678"), false);
  assertEquals(piecesOf("gpt-2", text).includes(" 12345678"), true);
  assertEquals(piecesOf("llama-bpe", text).includes("123"), true);
});
