/**
 * Times the summary of one row of logits.
 *
 * `deno run -A kernels/logits/launch_bench.ts [--json FILE]`
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { benchMain } from "../kernel_bench.ts";
import { CANDIDATES, SEEDS } from "./spec.ts";

if (import.meta.main) {
  await benchMain("logits", {
    seed: SEEDS.bench,
    threads: 1,
    items: (wasm, stack) =>
      [32000, 49152, 151936].map((vocab) => {
        const arena = stack.use(new Arena(wasm));
        const [row, out] = [arena.copy(randomValues(vocab, SEEDS.bench, 10)), arena.poisoned(2 + 2 * CANDIDATES)];
        return { name: `${vocab} logits`, run: () => wasm.exports.logits_run(row, vocab, out), bytes: 4 * vocab };
      }),
  });
}
