import { assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { gpuTest, roundBf16 } from "../cuda/test_gpu.ts";
import { EmbedKernel } from "./embed_cuda.ts";
import { embedReference } from "./reference.ts";
import { SEEDS } from "./spec.ts";

for (const [hidden, vocab] of [[8, 3], [576, 50], [45, 7], [4096, 9], [1000, 2]]) {
  gpuTest(`EmbedKernel.launch() copies rows of ${hidden} exactly and shows ids outside the table`, (gpu) => {
    const kernel = new EmbedKernel(gpu.kernels, { hidden, vocab });
    const table = randomValues(vocab * hidden, SEEDS.test, 3).map(roundBf16);
    const ids = Int32Array.of(0, vocab - 1, 1, vocab, -1, 2 ** 31 - 1, -(2 ** 31), vocab - 1);
    const [count, tokens] = [ids.length, ids.length + 3];
    const x = gpu.poisoned(4 * tokens * hidden);
    kernel.launch(gpu.stream, {
      ids: gpu.uploadWithRoom(ids, 12),
      count: gpu.word(count),
      table: gpu.uploadBf16(table),
      x,
      tokens,
    });
    const actual = gpu.f32(x, tokens * hidden);
    assertEquals(actual.subarray(0, count * hidden), embedReference({ ids, table, width: hidden }));
    assertEquals(actual.subarray(count * hidden).every(Number.isNaN), true, "rows beyond the count are left alone");
  });
}
