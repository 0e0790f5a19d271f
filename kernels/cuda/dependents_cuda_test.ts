import { assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { EmbedKernel } from "../embed/embed_cuda.ts";
import { RmsnormKernel } from "../rmsnorm/rmsnorm_cuda.ts";
import { gpuTest } from "./test_gpu.ts";

gpuTest(
  "launches that begin early read what their predecessors wrote and overwrite nothing that is still read",
  (gpu) => {
    const [hidden, vocab, tokens, steps] = [2048, 64, 300, 60];
    const embed = new EmbedKernel(gpu.kernels, { hidden, vocab });
    const norm = new RmsnormKernel(gpu.kernels, { hidden, eps: 1e-5 });
    const table = gpu.uploadBf16(randomValues(vocab * hidden, 1, 3));
    const w = gpu.upload(randomValues(hidden, 2, 2));
    const [count, none] = [gpu.word(tokens), gpu.word(0)];
    const ids = Array.from(
      { length: steps },
      (_, step) => gpu.upload(Int32Array.from({ length: tokens }, (_, t) => (7 * step + t) % vocab)),
    );
    const run = (programmatic: boolean) => {
      const x = gpu.poisoned(4 * tokens * hidden);
      const y = gpu.poisoned(2 * steps * tokens * hidden);
      using graph = gpu.stream.capture(() => {
        for (let step = 0; step < steps; step++) {
          embed.launch(gpu.stream, { ids: ids[step], count, table, x, tokens, programmatic });
          // All its blocks end at once: the next launch still has to wait for the one before.
          embed.launch(gpu.stream, { ids: ids[step], count: none, table, x, tokens: 1, programmatic });
          norm.launch(gpu.stream, {
            x,
            inputRows: tokens,
            w,
            count,
            y: (y + BigInt(2 * step * tokens * hidden)) as typeof y,
            outputRows: tokens,
            programmatic,
          });
        }
      });
      graph.launch(gpu.stream);
      return gpu.bytes(y, 2 * steps * tokens * hidden);
    };
    const expected = run(false);
    assertEquals(
      expected.some((byte) => byte !== 0xff),
      true,
    );
    for (let turn = 0; turn < 3; turn++) assertEquals(run(true), expected);
  },
);
