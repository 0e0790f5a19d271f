/**
 * Times the merge of the segments of one decode query: 9 heads of 64, as many segments as the context has.
 *
 * `deno run -A kernels/merge_partials/launch_bench.ts [--json FILE]`
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { benchMain } from "../kernel_bench.ts";
import { SEEDS, SEGMENT_TOKENS } from "./spec.ts";

const ROWS = 9;
const WIDTH = 64;

if (import.meta.main) {
  await benchMain("merge_partials", {
    seed: SEEDS.bench,
    threads: 1,
    items: (wasm, stack) =>
      [2000, 8192, 131072].map((context) => {
        const parts = Math.ceil(context / SEGMENT_TOKENS);
        const arena = stack.use(new Arena(wasm));
        const o = arena.copy(randomValues(parts * ROWS * WIDTH, SEEDS.bench));
        const lse = arena.copy(randomValues(parts * ROWS, SEEDS.bench + 1, 4));
        return {
          name: `${parts} segments of ${context} tokens, ${ROWS} heads of ${WIDTH}`,
          run: () => wasm.exports.merge_run(o, ROWS * WIDTH, lse, ROWS, ROWS, WIDTH, parts, 0),
          bytes: 4 * parts * ROWS * (WIDTH + 1),
        };
      }),
  });
}
