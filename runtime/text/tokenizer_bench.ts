/**
 * How long text takes to encode, beside the tokenizer library on the same text, and ids to decode one by one.
 *
 * @module
 */
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { Detokenizer } from "./detokenizer.ts";
import { smolAssets, smolTokenizerJson } from "./test_assets.ts";
import { Tokenizer } from "./tokenizer.ts";

const assets = await smolAssets();
const tokenizer = new Tokenizer(assets);
const library = new LibraryTokenizer(await smolTokenizerJson(), {});

const texts: Record<string, string> = {
  "64 KiB of prose": "It was a bright cold day in April, and the clocks were striking thirteen. ".repeat(900).slice(
    0,
    65536,
  ),
  "64 KiB of one letter": "a".repeat(1 << 16),
  "1 MiB of one letter": "a".repeat(1 << 20),
};

for (const [group, text] of Object.entries(texts)) {
  Deno.bench("Tokenizer.encode()", { group, baseline: true }, () => void tokenizer.encode(text));
  Deno.bench("library", { group, n: 3, warmup: 1 }, () => void library.encode(text, { add_special_tokens: false }));
}

const ids = tokenizer.encode(texts["64 KiB of prose"]);
Deno.bench(`Detokenizer.push() of ${ids.length} ids`, { group: "detokenize" }, () => {
  const detokenizer = new Detokenizer(tokenizer.vocabulary);
  for (const id of ids) detokenizer.push(id);
});
Deno.bench("new Tokenizer()", { group: "start" }, () => void new Tokenizer(assets));
