import { assertThrows } from "@std/assert";
import { checkPattern, MAX_PATTERN_LENGTH } from "./pattern_check.ts";

Deno.test("checkPattern() accepts the patterns of published tokenizers", () => {
  const published = [
    // GPT-2
    String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
    // Llama 3
    String
      .raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    // o200k
    String
      .raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    // DeepSeek
    String
      .raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_\x60{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    // BLOOM
    String.raw` ?[^(\s|[.,!?…。，、।۔،])]+`,
    // digits in threes from the right
    String.raw`(?=(\d{3})+(?!\d))`,
  ];
  for (const source of published) checkPattern(source);
});

Deno.test("checkPattern() refuses repeated groups that can match in several ways", () => {
  for (
    const source of ["(a+)+$", "(a|a)*b", "((a|b)c)+", "(?:a?){64}", "(a{1,30}){1,30}", "x(?:[ab]*,)+", "(?:(a)*)*"]
  ) {
    assertThrows(() => checkPattern(source), RangeError, "a repeated group");
  }
});

Deno.test("checkPattern() refuses back references and huge patterns", () => {
  assertThrows(() => checkPattern(String.raw`(a)\1`), RangeError, "a back reference");
  assertThrows(() => checkPattern("a".repeat(MAX_PATTERN_LENGTH + 1)), RangeError, "wanted at most");
});

Deno.test("checkPattern() takes the contents of a class for what they are", () => {
  checkPattern(String.raw`[(a+)+|\]*]+[^]x)+]+`);
});
