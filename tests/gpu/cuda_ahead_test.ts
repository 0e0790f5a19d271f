/**
 * Steps that a CUDA device begins before they are asked for give what steps give that it does not.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import type { StepSequence } from "../../runtime/device/device.ts";
import { openSynthetic } from "../conformance/open_synthetic.ts";
import { SeededRandom } from "../synthetic/random.ts";

/** A sequence that is being decoded. */
interface Live {
  readonly blocks: readonly number[];
  readonly prompt: readonly number[];
  /** Step it comes at, and tokens it is decoded for. */
  readonly from: number;
  readonly count: number;
  readonly temperature: number;
}

const VOCAB_IDS = 250;

/** Ten sequences that come and go, some of which cross into another block; every third one is drawn. */
function sequences(): Live[] {
  const random = new SeededRandom(6, "sequences");
  return Array.from({ length: 10 }, (_, index) => ({
    blocks: [0, 1, 2].map((i) => 3 * index + i),
    prompt: Array.from({ length: 3 + random.integer(70) }, () => random.integer(VOCAB_IDS)),
    from: index < 5 ? 0 : random.integer(40),
    count: 10 + random.integer(60),
    temperature: index % 3 === 2 ? 0.7 : 0,
  }));
}

function nextOf({ temperature }: Live, accepted: number): StepSequence["next"] {
  if (temperature === 0) return { mode: { kind: "greedy" }, accepted };
  const open = { topK: Infinity, topP: 1, depth: Infinity, seed: 5 };
  return { mode: { kind: "draw", inverseTemperature: 1 / temperature, ...open }, accepted };
}

/** Tokens of every sequence: the likeliest ones; where the device is told that they are drawn, its guess may be wrong. */
function decode(device: CudaDevice, lives: readonly Live[]): { readonly tokens: number[][]; readonly lse: number[] } {
  const tokens = lives.map((): number[] => []);
  const lse: number[] = [];
  for (let step = 0; step < 110; step++) {
    const running = lives.map((live, index) => ({ live, index }))
      .filter(({ live, index }) => step >= live.from && tokens[index].length < live.count);
    const batch = running.map(({ live, index }): StepSequence => {
      const output = tokens[index];
      const { prompt, blocks } = live;
      return output.length === 0 ? { tokens: prompt, position: 0, blocks, logits: "last" } : {
        tokens: output.slice(-1),
        position: prompt.length + output.length - 1,
        blocks,
        logits: "last",
        next: nextOf(live, output.length),
      };
    });
    if (batch.length === 0) continue;
    const output = device.step(batch);
    running.forEach(({ index }, row) => {
      tokens[index].push(output.top(row).ids[0]);
      lse.push(output.logSumExp(row));
      assertEquals(output.logits(row)[output.top(row).ids[0]], output.top(row).logits[0]);
    });
    // Blocks that a step begun ahead may still write to are read and written in between.
    if (step % 17 === 0) device.writeBlock(60, device.readBlock(lives[0].blocks[1]));
  }
  return { tokens, lse };
}

const missing = TestGpu.missing();

Deno.test({
  name: `CudaDevice.step() gives the same whether steps are begun ahead or not${
    missing === undefined ? "" : ` (ignored: ${missing})`
  }`,
  ignore: missing !== undefined,
  fn: () => {
    using model = openSynthetic({ heads: 6, kvHeads: 2 });
    const lives = sequences();
    const results = [true, false].map((ahead) => {
      using device = CudaDevice.open(model, { ahead, deterministic: true, blocks: 64, maxLogitRows: 64 });
      return decode(device, lives);
    });
    assertEquals(results[0].tokens.map(({ length }) => length), lives.map(({ count }) => count));
    assertEquals(results[0], results[1]);
  },
});

Deno.test({
  name: `CudaDevice.step() takes a decode step whose block table is long and new${
    missing === undefined ? "" : ` (ignored: ${missing})`
  }`,
  ignore: missing !== undefined,
  fn: () => {
    using model = openSynthetic({ heads: 6, kvHeads: 2, contextLength: 8192 });
    const blocks = Array.from({ length: 92 }, (_, i) => (i * 37) % 96);
    const logits = [true, false].map((graphs) => {
      using device = CudaDevice.open(model, { graphs, deterministic: true, blocks: 96, maxLogitRows: 64 });
      const random = new SeededRandom(8, "keys and values");
      const filled = Uint16Array.from({ length: device.blockBytes / 2 }, () => 0x3c00 + random.integer(1024));
      for (const block of blocks) device.writeBlock(block, new Uint8Array(filled.buffer));
      const rows = [0, 1, 2].map((step) => {
        const position = 64 * 91 - 2 + step;
        return device.step([{ tokens: [step + 1], position, blocks, logits: "last" }]).logits(0).slice();
      });
      return rows;
    });
    assertEquals(logits[0], logits[1]);
  },
});
