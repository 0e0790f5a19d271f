/**
 * Steps of a CUDA device in its fast mode over sequences that are spread: near what the device gives with all of them in its
 * pool. Other kernels attend to nodes than to whole sequences, so bits differ.
 *
 * @module
 */
import { assert } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import { openCudaKvStore } from "../../runtime/device/cuda_kv_store.ts";
import { SEGMENT_TOKENS, type StepSequence } from "../../runtime/device/device.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { copySegments, runSpread, type Share, type SpreadSequence } from "../conformance/spread_sequence.ts";

const SEGMENT_BLOCKS = SEGMENT_TOKENS / 64;
/** Segments and further tokens of the long sequence. */
const SEGMENTS = 5;
const TAIL = 70;
/** As the conformance suite bounds this mode. */
const WITHIN = 0.06;

function ids(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * i * 7 + seed * 31 + i) % 250);
}

function assertNear(actual: Float32Array, expected: Float32Array, what: string): void {
  const unit = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  for (const [i, value] of expected.entries()) {
    assert(Math.abs(actual[i] - value) <= WITHIN * unit, `${what}, logit ${i}: ${actual[i]} is far from ${value}`);
  }
}

const missing = TestGpu.missing();

for (const [name, counts] of [["single tokens", [1, 1, 1]], ["several tokens", [9, 40, 1, 20]]] as const) {
  Deno.test({
    name: `CudaDevice.begin() gives near the same for a spread sequence beside whole ones: ${name}${
      missing === undefined ? "" : ` (ignored: ${missing})`
    }`,
    ignore: missing !== undefined,
    fn: () => {
      using model = openSynthetic({ heads: 6, kvHeads: 2, contextLength: 4096 });
      using device = CudaDevice.open(model, { blocks: 128, maxLogitRows: 64, maxStepTokens: 512 });
      using store = openCudaKvStore({ layout: device.layout, blocks: 32 });
      const [long, short] = [ids(SEGMENTS * SEGMENT_TOKENS + TAIL, 1), ids(TAIL + 5, 4)];
      const blocks = Array.from({ length: SEGMENT_BLOCKS * (SEGMENTS + 1) }, (_, i) => i);
      for (let position = 0; position < SEGMENTS * SEGMENT_TOKENS; position += SEGMENT_TOKENS) {
        const tokens = long.slice(position, position + SEGMENT_TOKENS);
        device.step([{ tokens, position, blocks, logits: "none" }]);
      }
      // The sequence lives twice: whole, and with segments 1 and 2 in another pool.
      const home = blocks.map((block) => 60 + block);
      for (const block of blocks) device.writeBlock(home[block], device.readBlock(block));
      const share: Share = { from: 1, to: 3, store, blocks: [...Array(2 * SEGMENT_BLOCKS).keys()].map((i) => 3 * i) };
      copySegments({ store: device, blocks }, share);
      const poison = new Uint8Array(device.blockBytes).fill(0xff);
      for (let i = SEGMENT_BLOCKS; i < 3 * SEGMENT_BLOCKS; i++) device.writeBlock(home[i], poison);
      const beside = [126, 127];
      let from = 0;
      for (const count of counts) {
        const position = SEGMENTS * SEGMENT_TOKENS + from;
        const whole: StepSequence = { tokens: long.slice(position, position + count), position, blocks, logits: "all" };
        const neighbour: StepSequence = {
          tokens: short.slice(from, from + count),
          position: from,
          blocks: beside,
          logits: "last",
        };
        const expected = device.step([neighbour, whole]);
        const rows = Array.from({ length: expected.rows }, (_, row) => expected.logits(row).slice());
        const spread: SpreadSequence[] = [
          { ...neighbour, shares: [] },
          { ...whole, blocks: home, absent: [{ from: 1, to: 3 }], shares: [share] },
        ];
        const output = runSpread(device, spread);
        rows.forEach((row, index) => assertNear(output.logits(index), row, `token ${from}, row ${index}`));
        from += count;
      }
    },
  });
}
