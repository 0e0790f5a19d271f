import { assertAlmostEquals, assertEquals } from "@std/assert";
import { kvTokenBytes } from "../runtime/device/kv_size.ts";
import type { ModelConfig, ModelWeights, WeightTensor } from "../runtime/model/model.ts";
import { batchCeiling, decodeCeiling, modelWork, prefillCeiling } from "./model_work.ts";

function tensor(rows: number, cols: number): WeightTensor {
  return { name: "t", dtype: "F32", rows, cols, bytes: 4 * rows * cols, readInto: () => {} };
}

const CONFIG: ModelConfig = {
  family: "llama",
  layers: 2,
  hidden: 8,
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  intermediate: 16,
  vocab: 10,
  contextLength: 64,
  normEps: 1e-5,
  rope: { dimensions: 4, inverseFrequencies: new Float64Array(2), magnitude: 1, pairing: "adjacent" },
};

function weights(tied: boolean): ModelWeights {
  const embedding = tensor(10, 8);
  const layer = () => ({
    attentionNorm: tensor(1, 8),
    query: tensor(16, 8),
    key: tensor(8, 8),
    value: tensor(8, 8),
    output: tensor(8, 16),
    mlpNorm: tensor(1, 8),
    gate: tensor(16, 8),
    up: tensor(16, 8),
    down: tensor(8, 16),
  });
  return {
    embedding,
    layers: [layer(), layer()],
    outputNorm: tensor(1, 8),
    head: tied ? embedding : tensor(10, 8),
  };
}

Deno.test("modelWork() counts what a step reads and multiplies", () => {
  const matrices = 16 * 8 + 8 * 8 + 8 * 8 + 8 * 16 + 16 * 8 + 16 * 8 + 8 * 16;
  assertEquals(modelWork({ config: CONFIG, weights: weights(true) }, "f16"), {
    weightBytes: 4 * (2 * (matrices + 16) + 8 + 80),
    layerMacs: 2 * matrices,
    headMacs: 80,
    attentionMacs: 2 * 2 * 4 * 4,
    kvTokenBytes: kvTokenBytes(CONFIG, "f16"),
  });
});

Deno.test("modelWork() leaves an embedding out that is not the head", () => {
  const tied = modelWork({ config: CONFIG, weights: weights(true) }, "f16");
  assertEquals(modelWork({ config: CONFIG, weights: weights(false) }, "f16").weightBytes, tied.weightBytes);
});

const WORK = { weightBytes: 1000, layerMacs: 100, headMacs: 20, attentionMacs: 6, kvTokenBytes: 10 };

Deno.test("decodeCeiling() divides the read rate by weights and KV", () => {
  assertAlmostEquals(decodeCeiling(WORK, 100, { bytesPerSecond: 10_000 }), 5);
});

Deno.test("prefillCeiling() adds the time of weight and attention MACs", () => {
  const seconds = (100 * 4 + 20) / 1000 + 6 * 10 / 500;
  assertAlmostEquals(prefillCeiling(WORK, 4, { dotMacs: 1000, f32Macs: 500 }), 4 / seconds);
});

Deno.test("batchCeiling() divides the dot peak by the MACs of a token", () => {
  assertAlmostEquals(batchCeiling(WORK, { dotMacs: 1200 }), 10);
});
