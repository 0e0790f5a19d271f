import { assert, assertAlmostEquals, assertEquals, assertLessOrEqual, assertThrows } from "@std/assert";
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { ModelWeights, OpenModel, WeightTensor } from "../../runtime/model/model.ts";
import { openModel } from "../../runtime/model/open_model.ts";
import type { RopeScaling } from "../../runtime/model/rope.ts";
import { dequantizeRow } from "../../runtime/weights/dequantize.ts";
import { quantize } from "./quantize.ts";
import { SeededRandom } from "./random.ts";
import { buildSyntheticDirectory, writeDirectory } from "./synthetic_directory.ts";
import { buildSyntheticGguf } from "./synthetic_gguf.ts";
import type { SyntheticSpec } from "./spec.ts";

function withModel(files: Uint8Array | ReadonlyMap<string, Uint8Array>, use: (model: OpenModel) => void): void {
  const directory = Deno.makeTempDirSync();
  try {
    const path = files instanceof Uint8Array ? `${directory}/synthetic.gguf` : directory;
    if (files instanceof Uint8Array) Deno.writeFileSync(path, files);
    else writeDirectory(directory, files);
    using model = openModel(path);
    use(model);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function values(tensor: WeightTensor): Float32Array {
  const bytes = new Uint8Array(tensor.bytes);
  tensor.readInto(bytes, 0);
  return dequantizeRow(tensor.dtype, bytes);
}

function allTensors(weights: ModelWeights): WeightTensor[] {
  return [
    weights.embedding,
    weights.outputNorm,
    weights.head,
    ...weights.layers.flatMap((layer) => Object.values(layer)),
  ];
}

/** Largest step of each type for values within ±1. */
const STEPS: Readonly<Record<DType, number>> = {
  F32: 0,
  F16: 2 ** -11,
  BF16: 2 ** -8,
  Q8_0: 1 / 127,
  Q4_0: 2 / 8,
  Q4_1: 2 / 15,
  Q4_K: 2 / 15 + 2 / 63,
  Q5_K: 2 / 31 + 2 / 63,
  Q6_K: 2 / 32,
};

for (const dtype of Object.keys(DTYPE_LAYOUT) as DType[]) {
  Deno.test(`quantize() to ${dtype} stays within one step of the values`, () => {
    const random = new SeededRandom(3, dtype);
    const wanted = Float32Array.from({ length: 1024 }, () => 2 * random.uniform() - 1);
    wanted.fill(0, 0, 256);
    const stored = quantize(dtype, wanted);
    assertEquals(stored.length, 1024 / DTYPE_LAYOUT[dtype].elements * DTYPE_LAYOUT[dtype].bytes);
    const actual = dequantizeRow(dtype, stored);
    assert(actual.subarray(0, 256).every((value) => value === 0));
    for (let i = 0; i < 1024; i++) assertLessOrEqual(Math.abs(actual[i] - wanted[i]), STEPS[dtype], `value ${i}`);
  });

  Deno.test(`buildSyntheticGguf() makes a model of ${dtype} that opens`, () => {
    const spec = { dtype, hidden: 256, heads: 3, kvHeads: 1, headDim: 256, intermediate: 512, layers: 1 };
    withModel(buildSyntheticGguf(spec), (model) => {
      for (const name of ["query", "key", "value", "output", "gate", "up", "down"] as const) {
        assertEquals(model.weights.layers[0][name].dtype, dtype);
      }
      assertEquals(model.weights.embedding.dtype, dtype);
      assert(allTensors(model.weights).every((tensor) => values(tensor).every(Number.isFinite)));
    });
  });
}

const SHAPES: readonly SyntheticSpec[] = [
  { heads: 1, kvHeads: 1, headDim: 6, hidden: 10, intermediate: 14, layers: 1 },
  { heads: 8, kvHeads: 1, headDim: 8, hidden: 48, tied: false },
  { heads: 8, kvHeads: 4, headDim: 32, hidden: 96, tied: false, biases: true },
  { heads: 9, kvHeads: 3, headDim: 64, hidden: 576, intermediate: 33, layers: 1, vocab: 301 },
  { heads: 5, kvHeads: 5, headDim: 20, ropeDimensions: 12, hidden: 36, biases: true },
];

for (const spec of SHAPES) {
  Deno.test(`buildSyntheticGguf() and buildSyntheticDirectory() hold the same model: ${JSON.stringify(spec)}`, () => {
    withModel(buildSyntheticGguf(spec), (gguf) => {
      withModel(buildSyntheticDirectory(spec, { shards: 3 }), (directory) => {
        const { rope: ggufRope, ...ggufConfig } = gguf.config;
        const { rope: directoryRope, ...directoryConfig } = directory.config;
        assertEquals({ ...ggufConfig, normEps: 0 }, { ...directoryConfig, normEps: 0 });
        assertEquals(ggufRope.inverseFrequencies, directoryRope.inverseFrequencies);
        assertEquals([ggufRope.pairing, directoryRope.pairing], ["adjacent", "halves"]);
        assertEquals(gguf.weights.head === gguf.weights.embedding, spec.tied ?? true);
        assertEquals(directory.weights.head === directory.weights.embedding, spec.tied ?? true);
        assertEquals(gguf.weights.layers[0].keyBias !== undefined, spec.biases ?? false);
        assertEquals(values(gguf.weights.layers[0].gate), values(directory.weights.layers[0].gate));
        assertEquals(gguf.weightBytes, directory.weightBytes);
        assertEquals(gguf.text.specialTokens, directory.text.specialTokens);
        assertEquals(gguf.text.eos.toSorted(), directory.text.eos.toSorted());
        assertEquals(gguf.text.chatTemplate, directory.text.chatTemplate);
        checkRotation(gguf, directory);
      });
    });
  });
}

/** Scores of rotated query and key rows must not depend on how a container orders them. */
function checkRotation(gguf: OpenModel, directory: OpenModel): void {
  const scores = [gguf, directory].map(({ config, weights }) => {
    const { headDim, hidden, rope } = config;
    const query = values(weights.layers[0].query).subarray(0, headDim * hidden);
    const key = values(weights.layers[0].key).subarray(0, headDim * hidden);
    const project = (matrix: Float32Array, position: number): number[] => {
      const head = Array.from({ length: headDim }, (_, row) => {
        let sum = 0;
        for (let col = 0; col < hidden; col++) sum += matrix[row * hidden + col] * Math.sin(col + 1);
        return sum;
      });
      for (let pair = 0; pair < rope.dimensions / 2; pair++) {
        const [a, b] = rope.pairing === "adjacent" ? [2 * pair, 2 * pair + 1] : [pair, pair + rope.dimensions / 2];
        const angle = position * rope.inverseFrequencies[pair];
        [head[a], head[b]] = [
          head[a] * Math.cos(angle) - head[b] * Math.sin(angle),
          head[a] * Math.sin(angle) + head[b] * Math.cos(angle),
        ];
      }
      return head;
    };
    const rotated = project(key, 3);
    return project(query, 17).reduce((sum, value, row) => sum + value * rotated[row], 0);
  });
  assertAlmostEquals(scores[0], scores[1], 1e-9 * Math.max(1, Math.abs(scores[0])));
}

const SCALINGS: readonly RopeScaling[] = [
  { kind: "none" },
  { kind: "linear", factor: 4 },
  { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 128 },
  { kind: "yarn", factor: 4, originalContext: 128 },
  { kind: "yarn", factor: 8, originalContext: 64, betaFast: 16, betaSlow: 2, attentionFactor: 1.5 },
];

for (const rope of SCALINGS) {
  Deno.test(`openModel() reads the same frequencies from both containers: ${JSON.stringify(rope)}`, () => {
    withModel(buildSyntheticGguf({ rope, headDim: 32 }), (gguf) => {
      withModel(buildSyntheticDirectory({ rope, headDim: 32 }), (directory) => {
        const wanted = directory.config.rope;
        const actual = gguf.config.rope;
        assertAlmostEquals(actual.magnitude, wanted.magnitude, 1e-7);
        // GGUF stores divisors and factors as f32.
        actual.inverseFrequencies.forEach((frequency, pair) =>
          assertAlmostEquals(frequency, wanted.inverseFrequencies[pair], 1e-6 * wanted.inverseFrequencies[pair])
        );
      });
    });
  });
}

Deno.test("buildSyntheticGguf() gives the same bytes for the same seed only", () => {
  assertEquals(buildSyntheticGguf({ seed: 5 }), buildSyntheticGguf({ seed: 5 }));
  assertEquals(buildSyntheticGguf({ seed: 5 }).length, buildSyntheticGguf({ seed: 6 }).length);
  withModel(buildSyntheticGguf({ seed: 5 }), (a) => {
    withModel(buildSyntheticGguf({ seed: 6 }), (b) => assert(a.digest !== b.digest));
  });
});

Deno.test("buildSyntheticDirectory() refuses types that safetensors files do not hold", () => {
  assertThrows(() => buildSyntheticDirectory({ dtype: "Q8_0" }), RangeError, "got Q8_0");
});
