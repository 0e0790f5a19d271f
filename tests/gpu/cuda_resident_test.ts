/**
 * The CUDA device with the layers of small decode steps as one kernel, against everything a device must do; ignored where there
 * is no GPU. Tolerances are those of the other kernels: the same values are rounded to bf16.
 *
 * @module
 */
import { assert } from "@std/assert";
import { gpuTest, TestGpu } from "../../kernels/cuda/test_gpu.ts";
import { CudaDevice } from "../../runtime/device/cuda_device.ts";
import type { StepSequence } from "../../runtime/device/device.ts";
import type { ModelConfig } from "../../runtime/model/model.ts";
import { ropeConfig } from "../../runtime/model/rope.ts";
import { testDevice } from "../conformance/device_suite.ts";

const TOLERANCE = { within: 0.06, rms: 0.0075 } as const;

testDevice("CudaDevice with resident steps", {
  open: (model, options) => CudaDevice.open(model, { ...options, resident: "always" }),
  tolerance: TOLERANCE,
  sameness: TOLERANCE,
  blockTokens: 64,
  kvTypes: ["bf16"],
  activations: ["f32"],
  ignored: TestGpu.missing(),
});

/** Shape of SmolLM2-135M with fewer layers and words. */
const SMALL: ModelConfig = {
  family: "llama",
  layers: 6,
  hidden: 576,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  intermediate: 1536,
  vocab: 4096,
  contextLength: 8192,
  normEps: 1e-5,
  rope: ropeConfig({ dimensions: 64, theta: 10_000, pairing: "halves" }),
};
const OPTIONS = { tied: true, blocks: 96, maxStepTokens: 4096, maxLogitRows: 8 } as const;

interface Live {
  readonly blocks: readonly number[];
  readonly length: number;
}

/** Sequences of these lengths, each with blocks of its own. */
function lives(lengths: readonly number[]): Live[] {
  let block = 0;
  return lengths.map((length) => {
    const count = Math.ceil((length + 80) / 64);
    block += count;
    return { length, blocks: Array.from({ length: count }, (_, i) => block - 1 - i) };
  });
}

function tokenOf(sequence: number, position: number): number {
  return (sequence * 1009 + position * 31) % SMALL.vocab;
}

function prefill(device: CudaDevice, all: readonly Live[]): void {
  all.forEach(({ length, blocks }, index) => {
    const tokens = Array.from({ length }, (_, position) => tokenOf(index, position));
    if (length > 0) device.step([{ tokens, position: 0, blocks, logits: "none" }]);
  });
}

function decodeBatch(all: readonly Live[], step: number): StepSequence[] {
  return all.map(({ length, blocks }, index) => ({
    tokens: [tokenOf(index, length + step)],
    position: length + step,
    blocks,
    logits: "last",
  }));
}

/** Logits of all sequences in `steps` steps. */
function decode(device: CudaDevice, all: readonly Live[], steps: number): Float32Array[] {
  prefill(device, all);
  return Array.from({ length: steps }, (_, step) => device.step(decodeBatch(all, step)))
    .flatMap((output) => all.map((_, row) => output.logits(row)));
}

function assertNear(actual: readonly Float32Array[], expected: readonly Float32Array[]): void {
  let [squares, count] = [0, 0];
  actual.forEach((row, index) => {
    const largest = expected[index].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    row.forEach((value, id) => {
      const off = Math.abs(value - expected[index][id]) / largest;
      assert(off <= TOLERANCE.within, `row ${index}, token ${id}: ${off} of the largest logit away`);
      squares += off ** 2;
      count++;
    });
  });
  assert(Math.sqrt(squares / count) <= TOLERANCE.rms, `${Math.sqrt(squares / count)} away in the mean`);
}

for (
  const [lengths, steps] of [
    [[0], 70],
    [[250], 12],
    [[3000], 4],
    [[60, 200], 8],
    [[1, 63, 64, 65], 4],
    [[500, 2, 127, 255, 300], 4],
    [[10, 900, 64, 128, 700, 31, 1, 256], 4],
  ] as const
) {
  gpuTest(`CudaDevice.step() has the logits of other kernels in resident steps: sequences of ${lengths}`, () => {
    const all = lives(lengths);
    using plain = CudaDevice.random(SMALL, { ...OPTIONS, resident: "never" });
    using resident = CudaDevice.random(SMALL, { ...OPTIONS, resident: "always" });
    assertNear(decode(resident, all, steps), decode(plain, all, steps));
  });
}
