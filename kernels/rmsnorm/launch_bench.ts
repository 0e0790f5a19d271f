/**
 * Times RMSNorm of rows in the L1 cache.
 *
 * `deno run -A kernels/rmsnorm/launch_bench.ts [--json FILE]`
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { benchMain } from "../kernel_bench.ts";
import { SEEDS } from "./spec.ts";

const ROWS = 100;

if (import.meta.main) {
  await benchMain("rmsnorm", {
    seed: SEEDS.bench,
    threads: 1,
    items: (wasm, stack) =>
      [576, 4096].map((width) => {
        const arena = stack.use(new Arena(wasm));
        const x = arena.copy(randomValues(ROWS * width, SEEDS.bench));
        const [w, y] = [arena.copy(randomValues(width, SEEDS.bench + 1)), arena.poisoned(ROWS * width)];
        return {
          name: `${ROWS} rows of ${width}`,
          run: () => wasm.exports.rmsnorm_run(x, w, y, ROWS, width, 1e-5),
          flops: 4 * ROWS * width,
        };
      }),
  });
}
