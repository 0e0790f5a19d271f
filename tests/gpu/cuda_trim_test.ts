/**
 * A step gives the same logits, keys and values whether its last layer computes all tokens or those whose logits are wanted.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice, type CudaDeviceOptions } from "../../runtime/device/cuda_device.ts";
import type { StepSequence } from "../../runtime/device/device.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { SeededRandom } from "../synthetic/random.ts";

const VOCAB_IDS = 250;
const BLOCKS = 24;

/** Steps with parts of prompts, whole ones and single tokens, and rows of logits of each kind. */
function steps(): StepSequence[][] {
  const random = new SeededRandom(21, "prompts");
  const tokens = (count: number) => Array.from({ length: count }, () => random.integer(VOCAB_IDS));
  const blocks = (first: number) => [0, 1, 2, 3].map((i) => first + i);
  return [
    [{ tokens: tokens(130), position: 0, blocks: blocks(0), logits: "none" }],
    [
      { tokens: tokens(60), position: 130, blocks: blocks(0), logits: "last" },
      { tokens: tokens(100), position: 0, blocks: blocks(4), logits: "none" },
      { tokens: tokens(37), position: 0, blocks: blocks(8), logits: "last" },
    ],
    [
      { tokens: tokens(1), position: 190, blocks: blocks(0), logits: "last" },
      { tokens: tokens(1), position: 37, blocks: blocks(8), logits: "last" },
      { tokens: tokens(90), position: 100, blocks: blocks(4), logits: "last" },
      { tokens: tokens(5), position: 0, blocks: blocks(12), logits: "all" },
      { tokens: tokens(64), position: 0, blocks: blocks(16), logits: "none" },
    ],
    [{ tokens: tokens(20), position: 5, blocks: blocks(12), logits: "all" }],
    [{ tokens: tokens(1), position: 190, blocks: blocks(4), logits: "last" }],
  ];
}

function run(options: CudaDeviceOptions): { readonly logits: Float32Array[]; readonly blocks: Uint8Array[] } {
  using model = openSynthetic({ heads: 6, kvHeads: 2 });
  using device = CudaDevice.open(model, { ...options, blocks: BLOCKS, maxLogitRows: 64 });
  const logits = steps().flatMap((batch) => {
    const output = device.step(batch);
    return Array.from({ length: output.rows }, (_, row) => {
      const values = output.logits(row).slice();
      assertEquals(output.top(row).logits[0], values[output.top(row).ids[0]]);
      return values;
    });
  });
  return { logits, blocks: Array.from({ length: BLOCKS }, (_, block) => device.readBlock(block)) };
}

const missing = TestGpu.missing();
const ignored = missing === undefined ? "" : ` (ignored: ${missing})`;

Deno.test({
  name: `CudaDevice.step() gives the same bits whether its last layer is trimmed or not, deterministic${ignored}`,
  ignore: missing !== undefined,
  fn: () => {
    const [trimmed, whole] = [true, false].map((trim) => run({ trim, deterministic: true }));
    assertEquals(trimmed.logits.length, 31);
    assertEquals(trimmed.logits, whole.logits);
    assertEquals(trimmed.blocks, whole.blocks);
  },
});

Deno.test({
  name: `CudaDevice.step() gives near the same logits whether its last layer is trimmed or not${ignored}`,
  ignore: missing !== undefined,
  fn: () => {
    const [trimmed, whole] = [true, false].map((trim) => run({ trim }));
    for (const [row, logits] of whole.logits.entries()) {
      const largest = logits.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
      // As steps of other sizes differ from each other.
      logits.forEach((logit, id) => {
        const actual = trimmed.logits[row][id];
        assert(Math.abs(actual - logit) <= 0.06 * largest, `row ${row}, id ${id}: wanted ${logit}, got ${actual}`);
      });
    }
    assertEquals(trimmed.blocks, whole.blocks);
  },
});
