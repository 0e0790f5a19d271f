import { assert, assertEquals } from "@std/assert";
import { randomValues } from "../attend_partial/test_data.ts";
import { bf16Bits, gpuTest, type TestGpu } from "../cuda/test_gpu.ts";
import { PoolLayout } from "../kv_copy/pool_layout.ts";
import { type ReferenceLayer, residentStepReference } from "./reference.ts";
import { type ResidentShape, tryResidentLayout } from "./resident_layout.ts";
import { ResidentStepKernel } from "./resident_step_cuda.ts";

/** Norm of the difference over that of the row: roundings of 2^-9 to bf16 that fall differently, through a few layers. */
const TOLERANCE = 0.01;
const EPS = 1e-5;
/** Of a block that does not exist. */
const HOSTILE = 0x7fffffff;

type Sizes = Omit<ResidentShape, "tokens">;

const SHAPES: Readonly<Record<string, Sizes>> = {
  "heads of 16 in pairs, few rows": {
    hidden: 64,
    heads: 4,
    kvHeads: 2,
    headDim: 16,
    intermediate: 96,
    layers: 5,
    vocab: 50,
    pairs: 8,
    pairing: "adjacent",
  },
  "heads of 32 in halves, some dimensions not rotated": {
    hidden: 96,
    heads: 9,
    kvHeads: 3,
    headDim: 32,
    intermediate: 160,
    layers: 3,
    vocab: 50,
    pairs: 12,
    pairing: "halves",
  },
  "eight heads a KV head": {
    hidden: 256,
    heads: 8,
    kvHeads: 1,
    headDim: 64,
    intermediate: 512,
    layers: 2,
    vocab: 50,
    pairs: 32,
    pairing: "halves",
  },
  "SmolLM2-135M, four layers": {
    hidden: 576,
    heads: 9,
    kvHeads: 3,
    headDim: 64,
    intermediate: 1536,
    layers: 4,
    vocab: 50,
    pairs: 32,
    pairing: "adjacent",
  },
  "more columns than warps take at a time": {
    hidden: 640,
    heads: 10,
    kvHeads: 5,
    headDim: 64,
    intermediate: 1280,
    layers: 3,
    vocab: 50,
    pairs: 32,
    pairing: "adjacent",
  },
};

/** The bf16 nearest to each value, which is finite; many at a time. */
function rounded(values: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer);
  return new Float32Array(bits.map((word) => (word + 0x7fff + (word >>> 16 & 1)) & 0xffff0000).buffer);
}

/** Bits of values that are bf16. */
function bf16Words(values: Float32Array): Uint16Array<ArrayBuffer> {
  return Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16);
}

function randomLayer({ hidden, heads, kvHeads, headDim, intermediate }: Sizes, seed: number): ReferenceLayer {
  const width = heads * headDim;
  const matrix = (rows: number, cols: number, which: number) =>
    rounded(randomValues(rows * cols, seed + which, Math.sqrt(3 / cols)));
  return {
    attentionNorm: randomValues(hidden, seed, 2),
    qkv: matrix((heads + 2 * kvHeads) * headDim, hidden, 1),
    output: matrix(hidden, width, 2),
    mlpNorm: randomValues(hidden, seed + 3, 2),
    gateUp: matrix(2 * intermediate, hidden, 4),
    down: matrix(hidden, intermediate, 5),
  };
}

/** Steps of tokens at `positions`, in a kernel with room for `tokens`, against the reference. */
function check(
  gpu: TestGpu,
  sizes: Sizes,
  { positions, tokens }: { positions: readonly number[]; tokens: number },
): void {
  const shape = { ...sizes, tokens };
  const { hidden, kvHeads, headDim, layers, pairs, vocab } = shape;
  const layout = tryResidentLayout(shape, gpu.context.properties);
  assert(layout !== undefined, "the kernel takes the model");
  const weights = Array.from({ length: layers }, (_, layer) => randomLayer(sizes, 100 * layer));
  const embedding = rounded(randomValues(vocab * hidden, 7, 2));
  const inverseFrequencies = Float64Array.from({ length: pairs }, (_, i) => 10000 ** (-i / pairs));
  using kernel = new ResidentStepKernel({
    context: gpu.context,
    kernels: gpu.kernels,
    layout,
    layers: weights.map((layer) => ({
      attentionNorm: gpu.upload(layer.attentionNorm),
      qkv: gpu.upload(bf16Words(layer.qkv)),
      output: gpu.upload(bf16Words(layer.output)),
      mlpNorm: gpu.upload(layer.mlpNorm),
      gateUp: gpu.upload(bf16Words(layer.gateUp)),
      down: gpu.upload(bf16Words(layer.down)),
    })),
    embedding: gpu.upload(bf16Words(embedding)),
    normEps: EPS,
    inverseFrequencies,
    magnitude: 1,
  });

  // Layer by layer, pages in any order; what nobody stored is NaN, padding zero, entries behind the last page hostile.
  const pages = positions.map((position) => Math.floor(position / 64) + 1);
  const blocks = pages.reduce((sum, count) => sum + count, 1);
  const tableWidth = Math.max(...pages) + 2;
  const table = new Int32Array(tokens * tableWidth).fill(HOSTILE);
  let next = 0;
  positions.forEach((_, row) => {
    for (let page = 0; page < pages[row]; page++) table[row * tableWidth + page] = blocks - 1 - next++;
  });
  const pool = new PoolLayout({ layers: 1, kvHeads, headDim });
  const layerWords = blocks * pool.layerBytes / 2;
  const words = new Uint16Array(layers * layerWords).fill(0xffff);
  const word = (layer: number, row: number, token: number, kvHead: number, side: number, dim: number) =>
    layer * layerWords + (table[row * tableWidth + Math.floor(token / 64)] * pool.layerBytes +
        pool.offset({ layer: 0, kvHead, value: side === 1, slot: token % 64, dim })) / 2;
  const stored = positions.map((position, row) =>
    rounded(randomValues(layers * kvHeads * 2 * position * headDim, 1000 + row, 2))
  );
  const storedAt = (row: number, layer: number, kvHead: number, side: number, token: number, dim: number) =>
    (((layer * kvHeads + kvHead) * 2 + side) * positions[row] + token) * headDim + dim;
  for (let layer = 0; layer < layers; layer++) {
    for (let block = 0; block < blocks; block++) {
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        for (let slot = 0; slot < 64; slot++) {
          for (let dim = headDim; dim < 64; dim++) {
            for (const value of [false, true]) {
              words[
                layer * layerWords + (block * pool.layerBytes + pool.offset({ layer: 0, kvHead, value, slot, dim })) / 2
              ] = 0;
            }
          }
        }
      }
    }
    positions.forEach((position, row) => {
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        for (const side of [0, 1]) {
          for (let token = 0; token < position; token++) {
            for (let dim = 0; dim < headDim; dim++) {
              words[word(layer, row, token, kvHead, side, dim)] = bf16Bits(
                stored[row][storedAt(row, layer, kvHead, side, token, dim)],
              );
            }
          }
        }
      }
    });
  }

  const ids = Int32Array.from({ length: tokens }, (_, row) => row < positions.length ? (7 * row + 3) % vocab : 0);
  const residual = gpu.poisoned(4 * tokens * hidden);
  const poolAddress = gpu.upload(words);
  const work = {
    ids: gpu.upload(ids),
    positions: gpu.upload(Uint32Array.from({ length: tokens }, (_, row) => positions[row] ?? 0)),
    sequences: gpu.upload(Int32Array.from({ length: tokens }, (_, row) => row < positions.length ? row : -1)),
    count: gpu.word(positions.length),
    tables: gpu.upload(table),
    tableWidth,
    pool: poolAddress,
    layerBytes: blocks * pool.layerBytes,
    blockBytes: pool.layerBytes,
    blocks,
    residual,
  };
  kernel.launch(gpu.stream, work);
  const actual = gpu.f32(residual, tokens * hidden);
  const after = new Uint16Array(gpu.bytes(poolAddress, words.byteLength).buffer);
  const expected = positions.map((position, row) =>
    residentStepReference({
      embedding: embedding.subarray(ids[row] * hidden, (ids[row] + 1) * hidden),
      position,
      stored: (layer, kvHead, side, token, dim) => stored[row][storedAt(row, layer, kvHead, side, token, dim)],
    }, { shape, layers: weights, normEps: EPS, inverseFrequencies })
  );
  expected.forEach((result, row) => {
    const difference = result.residual.map((value, i) => actual[row * hidden + i] - value);
    const error = Math.hypot(...difference) / Math.hypot(...result.residual);
    assert(error <= TOLERANCE, `residual of row ${row} at ${positions[row]}: ${error} of its norm away`);
    let [off, norm] = [0, 0];
    result.keyValues.forEach((value, i) => {
      const dim = i % headDim;
      const side = Math.floor(i / headDim) % 2;
      const kvHead = Math.floor(i / headDim / 2) % kvHeads;
      const layer = Math.floor(i / headDim / 2 / kvHeads);
      const at = word(layer, row, positions[row], kvHead, side, dim);
      off += (bf16(after[at]) - value) ** 2;
      norm += value ** 2;
      words[at] = after[at];
    });
    assert(Math.sqrt(off / norm) <= TOLERANCE, `keys and values of row ${row}: ${Math.sqrt(off / norm)} away`);
    for (let layer = 0; layer < layers; layer++) {
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        for (let dim = headDim; dim < 64; dim++) {
          for (const side of [0, 1]) {
            assertEquals(after[word(layer, row, positions[row], kvHead, side, dim)], 0, "padding stays zero");
          }
        }
      }
    }
  });
  assert(after.every((value, i) => value === words[i]), "nothing else in the pool changes");
  assert(actual.subarray(positions.length * hidden).every(Number.isNaN), "rows beyond the count are left alone");

  for (let again = 0; again < 3; again++) {
    gpu.stream.fill(residual, 0xff, 4 * tokens * hidden);
    kernel.launch(gpu.stream, work);
    assertEquals(gpu.f32(residual, tokens * hidden), actual, "the same step has the same bits");
  }
}

function bf16(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
}

for (const [name, sizes] of Object.entries(SHAPES)) {
  gpuTest(`ResidentStepKernel.launch() agrees with the reference: ${name}`, (gpu) => {
    check(gpu, sizes, { positions: [0], tokens: 1 });
    check(gpu, sizes, { positions: [130], tokens: 1 });
    check(gpu, sizes, { positions: [63, 1, 64], tokens: 4 });
  });
}

gpuTest("ResidentStepKernel.launch() agrees with the reference at lengths around pages and splits", (gpu) => {
  const sizes = SHAPES["heads of 16 in pairs, few rows"];
  for (const position of [62, 63, 64, 127, 254, 255, 256, 257, 511, 512, 1023, 2047, 2048, 4100]) {
    check(gpu, sizes, { positions: [position], tokens: 1 });
  }
  check(gpu, sizes, { positions: [1, 255, 256, 600, 63, 64, 1025, 0], tokens: 8 });
  check(gpu, sizes, { positions: [900, 10], tokens: 2 });
});

gpuTest("ResidentStepKernel.launch() shows an id that does not exist as NaN and ends", (gpu) => {
  const sizes = SHAPES["heads of 16 in pairs, few rows"];
  const shape = { ...sizes, tokens: 2 };
  const layout = tryResidentLayout(shape, gpu.context.properties);
  assert(layout !== undefined);
  const { hidden, pairs, layers, vocab } = sizes;
  using kernel = new ResidentStepKernel({
    context: gpu.context,
    kernels: gpu.kernels,
    layout,
    layers: Array.from({ length: layers }, (_, index) => {
      const layer = randomLayer(sizes, 100 * index);
      return {
        attentionNorm: gpu.upload(layer.attentionNorm),
        qkv: gpu.upload(bf16Words(layer.qkv)),
        output: gpu.upload(bf16Words(layer.output)),
        mlpNorm: gpu.upload(layer.mlpNorm),
        gateUp: gpu.upload(bf16Words(layer.gateUp)),
        down: gpu.upload(bf16Words(layer.down)),
      };
    }),
    embedding: gpu.upload(bf16Words(rounded(randomValues(vocab * hidden, 7)))),
    normEps: EPS,
    inverseFrequencies: new Float64Array(pairs).fill(1),
    magnitude: 1,
  });
  const pool = new PoolLayout({ layers: 1, kvHeads: sizes.kvHeads, headDim: sizes.headDim });
  const residual = gpu.poisoned(4 * 2 * hidden);
  kernel.launch(gpu.stream, {
    ids: gpu.upload(Int32Array.of(vocab, 1)),
    positions: gpu.upload(Uint32Array.of(0, 0)),
    sequences: gpu.upload(Int32Array.of(0, 1)),
    count: gpu.word(2),
    tables: gpu.upload(Int32Array.of(0, 1)),
    tableWidth: 1,
    pool: gpu.zeroed(layers * 2 * pool.layerBytes),
    layerBytes: 2 * pool.layerBytes,
    blockBytes: pool.layerBytes,
    blocks: 2,
    residual,
  });
  const rows = gpu.f32(residual, 2 * hidden);
  assert(rows.subarray(0, hidden).every(Number.isNaN), "a row without an embedding is NaN");
  assert(rows.subarray(hidden).every(Number.isFinite), "its neighbour is not");
});
