/**
 * What the engine costs beside the device: time per step on a device that computes nothing.
 *
 *     deno bench -A runtime/engine/engine_bench.ts
 */
import { TestPolicy } from "../../scheduler/test_policy.ts";
import type { Device, StepOutput } from "../device/device.ts";
import { Engine } from "./engine.ts";
import { TEST_VOCAB, TestDevice, testLogits, testVocabulary } from "./test_device.ts";

const CONTEXT_TOKENS = 100_000;

/** Every row is the same; token 1 is the likeliest. */
function idleDevice(batch: number): Device {
  const device = new TestDevice({
    blocks: 2 * CONTEXT_TOKENS / 16,
    blockTokens: 16,
    maxStepTokens: 512,
    maxLogitRows: 64,
  });
  const logits = testLogits([1]).fill(9, 1, 2);
  const ids = Int32Array.from({ length: 64 }, (_, i) => i + 1);
  const top = { ids, logits: Float32Array.from(ids, (id) => logits[id]) };
  const output: StepOutput = { rows: batch, logits: () => logits, logSumExp: () => 10, top: () => top };
  device.step = () => output;
  return device;
}

for (const batch of [1, 8, 64]) {
  const device = idleDevice(batch);
  const engine = new Engine({
    device,
    policy: new TestPolicy(),
    vocabulary: testVocabulary(),
    eos: [],
    maxModelLen: CONTEXT_TOKENS,
    maxBatch: batch,
    modelName: "idle",
    modelDigest: "00",
  });
  let next = 0;
  const refill = () => {
    while (engine.stats().running + engine.stats().waiting < batch) {
      const prompt = Array.from({ length: 16 }, (_, i) => (next + i) % TEST_VOCAB);
      engine.add({ id: `${next++}`, prompt, maxTokens: 500, sampling: { temperature: 0 } }, () => {});
    }
  };
  refill();
  Deno.bench(`step, batch ${batch}`, () => {
    if (!engine.busy) refill();
    engine.step();
  });
}
