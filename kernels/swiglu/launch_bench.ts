/**
 * Times the gated activation over values in the caches.
 *
 * `deno run -A kernels/swiglu/launch_bench.ts [--json FILE]`
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { benchMain } from "../kernel_bench.ts";
import { SEEDS } from "./spec.ts";

if (import.meta.main) {
  await benchMain("swiglu", {
    seed: SEEDS.bench,
    threads: 1,
    items: (wasm, stack) =>
      [1536, 16 * 1536].map((count) => {
        const arena = stack.use(new Arena(wasm));
        const gate = arena.copy(randomValues(count, SEEDS.bench, 8));
        const [up, y] = [arena.copy(randomValues(count, SEEDS.bench + 1)), arena.poisoned(count)];
        return { name: `${count} values`, run: () => wasm.exports.swiglu_run(gate, up, y, count), bytes: 12 * count };
      }),
  });
}
