import { assert, assertEquals } from "@std/assert";
import { randomValues, shuffled } from "../attend_partial/test_data.ts";
import { bf16Value, gpuTest, roundBf16, type TestGpu } from "../cuda/test_gpu.ts";
import { e4m3Bits, e4m3Value } from "../e4m3.ts";
import { type PoolKvType, PoolLayout } from "../kv_copy/pool_layout.ts";
import { ropeAppendReference } from "./append_reference.ts";
import { APPEND_TOLERANCE, type RopeAppendInput } from "./append_spec.ts";
import { RopeKernels } from "./rope_cuda.ts";
import { SEEDS } from "./spec.ts";

function frequencies(pairs: number, base = 1e5): Float64Array {
  return Float64Array.from({ length: pairs }, (_, i) => base ** (-i / pairs));
}

gpuTest("RopeKernels.makeTable() is right to f32 at any position", (gpu) => {
  for (const [pairs, magnitude] of [[32, 1], [20, 1.3862943649291992], [5, 1], [128, 1]]) {
    const kernels = new RopeKernels(gpu.kernels, {
      heads: 1,
      kvHeads: 1,
      headDim: 256,
      pairs,
      pairing: "halves",
      magnitude,
      input: "f32",
    });
    const inverseFrequencies = frequencies(pairs, 5e5);
    const positions = Uint32Array.of(0, 1, 2, 3, 5, 8191, 131072, 1e6, 2097151, 4e9, 2 ** 32 - 1);
    const turns = gpu.poisoned(8 * (positions.length + 1) * pairs);
    kernels.makeTable(gpu.stream, {
      positions: gpu.upload(positions),
      count: gpu.word(positions.length),
      inverseFrequencies: gpu.upload(inverseFrequencies),
      turns,
      tokens: positions.length + 1,
    });
    const actual = gpu.f32(turns, 2 * (positions.length + 1) * pairs);
    positions.forEach((position, t) => {
      inverseFrequencies.forEach((frequency, i) => {
        const expected = [Math.cos, Math.sin].map((f) => f(position * frequency) * magnitude);
        expected.forEach((value, k) => {
          const got = actual[2 * (t * pairs + i) + k];
          // One rounding to f32.
          assert(
            Math.abs(got - value) <= 2 ** -24 * magnitude,
            `turn [t ${t} at ${position}, pair ${i}, ${k}]: wanted ${value}, got ${got}`,
          );
        });
      });
    });
    assert(actual.subarray(2 * positions.length * pairs).every(Number.isNaN), "rows beyond the count are left alone");
  }
});

interface AppendCase {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly pairs: number;
  readonly pairing: "adjacent" | "halves";
  readonly input: "bf16" | "f32";
  readonly magnitude?: number;
  readonly bias?: boolean;
  readonly kvType?: PoolKvType;
}

/** Half a place of the fraction; below 2^-6 half of the step there. */
const FP8_ROUNDING = { relative: 2 ** -4, step: 2 ** -10 } as const;

const LAYERS = 3;
const LAYER = 1;
const BLOCKS = 9;

/** Appends the tokens of `input` to layer 1 of a poisoned pool; returns queries and pool. */
function append(gpu: TestGpu, shape: AppendCase, input: RopeAppendInput): { q: Float32Array; pool: Uint8Array } {
  const { heads, kvHeads, headDim, kvType } = shape;
  const tokens = input.positions.length;
  const layout = new PoolLayout({ layers: LAYERS, kvHeads, headDim, kvType });
  const kernels = new RopeKernels(gpu.kernels, shape);
  const positions = gpu.uploadWithRoom(Uint32Array.from(input.positions), 4);
  const width = (heads + 2 * kvHeads) * headDim;
  const [count, turns] = [gpu.word(tokens), gpu.poisoned(8 * (tokens + 1) * shape.pairs)];
  kernels.makeTable(gpu.stream, {
    positions,
    count,
    inverseFrequencies: gpu.upload(input.inverseFrequencies),
    turns,
    tokens,
  });
  const pool = gpu.poisoned(BLOCKS * layout.blockBytes);
  const q = gpu.poisoned(2 * (tokens + 1) * heads * headDim);
  kernels.append(gpu.stream, {
    qkv: shape.input === "bf16" ? gpu.uploadBf16(input.qkv, 2 * width) : gpu.uploadWithRoom(input.qkv, 4 * width),
    bias: input.bias && gpu.upload(input.bias),
    turns,
    positions,
    sequences: gpu.uploadWithRoom(Int32Array.from(input.sequences), 4),
    tables: gpu.upload(input.tables),
    maxBlocks: input.maxBlocks,
    count,
    q,
    pool: (pool + BigInt(LAYER * layout.layerBytes)) as typeof pool,
    blockBytes: layout.blockBytes,
    blocks: BLOCKS,
    tokens: tokens + 1,
  });
  return { q: gpu.bf16(q, (tokens + 1) * heads * headDim), pool: gpu.bytes(pool, BLOCKS * layout.blockBytes) };
}

/** Values of a pair's other half matter for the tolerance: the largest of a head bounds them. */
function assertHead(actual: readonly number[], expected: Float32Array, what: string, kvType?: PoolKvType): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const { relative, step } = kvType === "fp8" ? FP8_ROUNDING : { relative: APPEND_TOLERANCE.relative, step: 0 };
  expected.forEach((value, d) => {
    const tolerance = relative * Math.abs(value) + step + APPEND_TOLERANCE.absolute * 4 * largest;
    assert(Math.abs(actual[d] - value) <= tolerance, `${what}, d ${d}: wanted ${value}, got ${actual[d]}`);
  });
}

const CASES: readonly AppendCase[] = [
  { heads: 9, kvHeads: 3, headDim: 64, pairs: 32, pairing: "adjacent", input: "bf16" },
  { heads: 32, kvHeads: 8, headDim: 128, pairs: 64, pairing: "halves", input: "bf16", bias: true },
  { heads: 4, kvHeads: 4, headDim: 80, pairs: 40, pairing: "halves", input: "f32", magnitude: 1.25 },
  { heads: 4, kvHeads: 1, headDim: 96, pairs: 16, pairing: "adjacent", input: "bf16", bias: true },
  { heads: 2, kvHeads: 1, headDim: 256, pairs: 128, pairing: "halves", input: "bf16" },
  { heads: 3, kvHeads: 1, headDim: 20, pairs: 6, pairing: "adjacent", input: "f32", bias: true },
  { heads: 2, kvHeads: 2, headDim: 13, pairs: 5, pairing: "halves", input: "bf16" },
  { heads: 9, kvHeads: 3, headDim: 64, pairs: 32, pairing: "adjacent", input: "bf16", kvType: "fp8" },
  { heads: 32, kvHeads: 8, headDim: 128, pairs: 64, pairing: "halves", input: "bf16", bias: true, kvType: "fp8" },
  { heads: 4, kvHeads: 4, headDim: 80, pairs: 40, pairing: "halves", input: "f32", magnitude: 1.25, kvType: "fp8" },
  { heads: 2, kvHeads: 2, headDim: 13, pairs: 5, pairing: "halves", input: "bf16", kvType: "fp8" },
];

for (const shape of CASES) {
  const { heads, kvHeads, headDim, pairs, pairing, input, magnitude, bias, kvType } = shape;
  gpuTest(`RopeKernels.append() agrees with the reference for ${JSON.stringify(shape)}`, (gpu) => {
    const maxBlocks = 4;
    const width = (heads + 2 * kvHeads) * headDim;
    const tables = new Int32Array(3 * maxBlocks).fill(2 ** 31 - 1);
    const ids = shuffled(BLOCKS, SEEDS.test);
    // Sequence 0 has blocks 0 to 3, sequence 2 the first two; what lies beyond names nothing.
    [0, 1, 2, 3].forEach((entry) => tables[entry] = ids[entry]);
    [0, 1].forEach((entry) => tables[2 * maxBlocks + entry] = ids[4 + entry]);
    const positions = [0, 1, 63, 64, 127, 200, 255, 5, 66, 128, 300, 7];
    const sequences = [0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 0, -1];
    const exact = randomValues(positions.length * width, SEEDS.test, 4);
    const work: RopeAppendInput = {
      qkv: input === "bf16" ? exact.map(roundBf16) : exact,
      bias: bias ? randomValues(width, SEEDS.test + 1, 2) : undefined,
      heads,
      kvHeads,
      headDim,
      positions,
      sequences,
      tables,
      maxBlocks,
      inverseFrequencies: frequencies(pairs),
      pairing,
      magnitude,
    };
    const actual = append(gpu, shape, work);
    const expected = ropeAppendReference(work);
    for (let row = 0; row < positions.length * heads; row++) {
      const of = (values: Float32Array) => values.subarray(row * headDim, (row + 1) * headDim);
      assertHead([...of(actual.q)], of(expected.q), `q [t ${Math.floor(row / heads)}, h ${row % heads}]`);
    }
    assert(
      actual.q.subarray(positions.length * heads * headDim).every(Number.isNaN),
      "queries beyond the count are left alone",
    );
    const layout = new PoolLayout({ layers: LAYERS, kvHeads, headDim, kvType });
    const pool = new DataView(actual.pool.buffer);
    const read = (at: number) => kvType === "fp8" ? e4m3Value(pool.getUint8(at)) : bf16Value(pool.getUint16(at, true));
    const written = new Set<number>();
    for (const { block, slot, kvHead, key, value } of expected.appended) {
      if (block >= BLOCKS) continue;
      for (const part of [key, value]) {
        const stored = Array.from({ length: layout.paddedDim }, (_, dim) => {
          const at = block * layout.blockBytes +
            layout.offset({ layer: LAYER, kvHead, value: part === value, slot, dim });
          for (let byte = 0; byte < layout.elementBytes; byte++) written.add(at + byte);
          return read(at);
        });
        const what = `${part === key ? "k" : "v"} [block ${block}, slot ${slot}, head ${kvHead}]`;
        assertHead(stored, part, what, kvType);
        assert(stored.slice(headDim).every((padding) => padding === 0), "padding is zero");
      }
    }
    for (const [at, byte] of actual.pool.entries()) {
      if (!written.has(at)) assertEquals(byte, 0xff, `byte ${at} of the pool is left alone`);
    }
  });
}

gpuTest("RopeKernels.append() holds keys and values within the finite bf16 and shows NaN", (gpu) => {
  const shape: AppendCase = { heads: 1, kvHeads: 1, headDim: 64, pairs: 32, pairing: "halves", input: "f32" };
  const qkv = new Float32Array(3 * 64);
  qkv.set([3.4e38, -Infinity, 1, NaN], 64 + 0);
  qkv.set([Infinity, -3.4e38, NaN, 2], 128);
  const { pool } = append(gpu, shape, {
    heads: 1,
    kvHeads: 1,
    headDim: 64,
    pairing: "halves",
    qkv,
    positions: [0],
    sequences: [0],
    tables: Int32Array.of(4),
    maxBlocks: 1,
    inverseFrequencies: frequencies(32),
  });
  const layout = new PoolLayout({ layers: LAYERS, kvHeads: 1, headDim: 64 });
  const view = new DataView(pool.buffer);
  const read = (value: boolean, dim: number) =>
    bf16Value(
      view.getUint16(4 * layout.blockBytes + layout.offset({ layer: LAYER, kvHead: 0, value, slot: 0, dim }), true),
    );
  const largest = 3.3895313892515355e38;
  assertEquals([0, 1, 2, 3].map((dim) => read(true, dim)), [largest, -largest, NaN, 2]);
  // Position 0 turns nothing. Dimensions 1 and 33 are left out: 0 times an infinite partner is NaN.
  assertEquals([0, 2, 3].map((dim) => read(false, dim)), [largest, 1, NaN]);
});

gpuTest("RopeKernels.append() stores in an fp8 pool the nearest numbers that e4m3Bits() gives", (gpu) => {
  const shape: AppendCase = {
    heads: 1,
    kvHeads: 1,
    headDim: 128,
    pairs: 64,
    pairing: "halves",
    input: "f32",
    kvType: "fp8",
  };
  // Numbers, ties between them, what lies beside a tie, both signs, beyond the largest, NaN.
  const numbers = Array.from({ length: 0x7f }, (_, bits) => e4m3Value(bits));
  const ties = numbers.slice(1).map((number, i) => (number + numbers[i]) / 2);
  const values = [...numbers, ...ties, ...ties.map((tie) => tie * (1 + 2 ** -20)), 1e9, Infinity, NaN].flatMap((
    value,
  ) => [
    Math.fround(value),
    -Math.fround(value),
  ]);
  const layout = new PoolLayout({ layers: LAYERS, kvHeads: 1, headDim: 128, kvType: "fp8" });
  for (let first = 0; first < values.length; first += 128) {
    const qkv = new Float32Array(3 * 128);
    qkv.set(values.slice(first, first + 128), 256);
    const { pool } = append(gpu, shape, {
      heads: 1,
      kvHeads: 1,
      headDim: 128,
      pairing: "halves",
      qkv,
      positions: [5],
      sequences: [0],
      tables: Int32Array.of(4),
      maxBlocks: 1,
      inverseFrequencies: frequencies(64),
    });
    const base = 4 * layout.blockBytes;
    for (let dim = 0; dim < 128; dim++) {
      const bits = pool[base + layout.offset({ layer: LAYER, kvHead: 0, value: true, slot: 5, dim })];
      const value = qkv[256 + dim];
      assertEquals(bits, e4m3Bits(value), `${value}`);
    }
  }
});
