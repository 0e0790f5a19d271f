/**
 * Times the rotary embedding of tokens, the table of cosines and sines included.
 *
 * `deno run -A kernels/rope/launch_bench.ts [--json FILE]`
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { benchMain } from "../kernel_bench.ts";
import { SEEDS } from "./spec.ts";

const TOKENS = 64;
const HEAD_DIM = 64;
const PAIRS = HEAD_DIM / 2;

if (import.meta.main) {
  await benchMain("rope", {
    seed: SEEDS.bench,
    threads: 1,
    items: (wasm, stack) =>
      [1, 12].flatMap((heads) =>
        ([["adjacent", 0], ["halves", 1]] as const).map(([pairing, halves]) => {
          const arena = stack.use(new Arena(wasm));
          const x = arena.copy(randomValues(TOKENS * heads * HEAD_DIM, SEEDS.bench));
          const positions = arena.copy(Uint32Array.from({ length: TOKENS }, (_, t) => 4000 + t));
          const frequencies = arena.copy(Float64Array.from({ length: PAIRS }, (_, i) => 1e5 ** (-i / PAIRS)));
          return {
            name: `${TOKENS} tokens, ${heads} heads of ${HEAD_DIM}, ${pairing} pairs`,
            run: () => wasm.exports.rope_run(x, positions, TOKENS, heads, HEAD_DIM, frequencies, PAIRS, halves, 1),
          };
        })
      ),
  });
}
