import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { BytePairMerger, NO_SYMBOL } from "./bpe.ts";

/** Applies the lowest-ranked rule, leftmost first, until none applies. */
function naive(merges: readonly (readonly [string, string])[], symbols: readonly string[]): string[] {
  const word = [...symbols];
  for (;;) {
    let best = { rank: Infinity, at: 0 };
    for (let at = 0; at + 1 < word.length; at++) {
      const rank = merges.findIndex(([left, right]) => left === word[at] && right === word[at + 1]);
      if (rank >= 0 && rank < best.rank) best = { rank, at };
    }
    if (best.rank === Infinity) return word.filter((symbol) => symbol !== "?");
    word.splice(best.at, 2, word[best.at] + word[best.at + 1]);
  }
}

/** Rules over the letters a, b, c, each made of texts that earlier rules make. */
const rules = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 12 }).map((picks) => {
  const texts = ["a", "b", "c"];
  const merges: [string, string][] = [];
  for (const [left, right] of picks) {
    const merge: [string, string] = [texts[left % texts.length], texts[right % texts.length]];
    if (merges.some(([a, b]) => a === merge[0] && b === merge[1])) continue;
    merges.push(merge);
    texts.push(merge.join(""));
  }
  return { merges, texts: [...new Set(texts)] };
});

Deno.test("BytePairMerger.merge() agrees with the textbook loop", () => {
  const word = fc.array(fc.constantFrom("a", "b", "c", "?"), { maxLength: 40 });
  fc.assert(
    fc.property(rules, fc.array(word, { minLength: 1, maxLength: 3 }), ({ merges, texts }, words) => {
      const vocab = new Map(texts.map((text, id) => [text, id]));
      const ids = merges.flatMap(([left, right]) => [left, right, left + right].map((text) => vocab.get(text) ?? NaN));
      const merger = new BytePairMerger(Int32Array.from(ids), new Set());
      for (const word of words) {
        const symbols = Int32Array.from(word, (symbol) => vocab.get(symbol) ?? NO_SYMBOL);
        const count = merger.merge(symbols, symbols.length);
        assertEquals(Array.from(symbols.subarray(0, count), (id) => texts[id]), naive(merges, word));
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("BytePairMerger.merge() leaves out rules that touch an excluded id", () => {
  const rules = Int32Array.of(0, 1, 2, 2, 1, 3);
  const merge = (excluded: readonly number[]) => {
    const symbols = Int32Array.of(0, 1, 1);
    return [...symbols.subarray(0, new BytePairMerger(rules, new Set(excluded)).merge(symbols, 3))];
  };
  assertEquals(merge([]), [3]);
  assertEquals(merge([3]), [2, 1]);
  assertEquals(merge([2]), [0, 1, 1]);
  assertEquals(merge([0]), [0, 1, 1]);
});
