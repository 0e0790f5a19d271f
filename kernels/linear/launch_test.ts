import { assert, assertEquals, assertThrows } from "@std/assert";
import { type ActivationType, type DType, DTYPE_LAYOUT, tensorBytes } from "../dtype.ts";
import { openWasm, type WasmRuntime } from "../wasm/instance.ts";
import { linear, type LinearOptions, type MatrixShape, WasmMatrix } from "./launch.ts";
import { decodeRow, integerInput, linearReference, type ReferenceResult } from "./reference.ts";
import { type IntegerInput, SEEDS, TOLERANCE } from "./spec.ts";
import { randomInputs, randomWeights } from "./test_data.ts";

const DTYPES = Object.keys(DTYPE_LAYOUT) as DType[];
const ACTIVATIONS: readonly ActivationType[] = ["i8", "f32"];

/** The representations of integer inputs that make a difference. */
function inputsOf(dtype: DType, activations: ActivationType): readonly IntegerInput[] {
  return integerInput(dtype, activations, "hot") === "hot" ? ["i8", "hot", "i16"] : ["hot"];
}

function stored(shape: MatrixShape): Uint8Array {
  return randomWeights(shape.dtype, tensorBytes(shape.dtype, shape.rows, shape.cols), SEEDS.test);
}

function loaded(wasm: WasmRuntime, shape: MatrixShape): WasmMatrix {
  const matrix = new WasmMatrix(wasm, shape);
  matrix.load(0, stored(shape));
  return matrix;
}

function assertClose(actual: Float32Array, reference: ReferenceResult, rows: number): void {
  assertEquals(actual.length, reference.out.length);
  actual.forEach((value, i) => {
    const error = Math.abs(value - reference.out[i]);
    assert(
      error <= TOLERANCE * reference.reach[i],
      `out[t ${Math.floor(i / rows)}, r ${i % rows}]: wanted ${reference.out[i]}, got ${value}, ` +
        `error ${error / reference.reach[i]} of the reach`,
    );
  });
}

function assertSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  const [a, b] = [new Uint32Array(actual.buffer), new Uint32Array(expected.buffer)];
  const at = a.findIndex((bits, i) => bits !== b[i]);
  assert(a.length === b.length && at === -1, `${what}: value ${at} is ${actual[at]}, wanted ${expected[at]}`);
}

const SHAPES: readonly Omit<MatrixShape, "dtype">[] = [
  { rows: 1, cols: 256 },
  { rows: 8, cols: 256 },
  { rows: 13, cols: 512 },
  { rows: 40, cols: 1792 },
];

for (const dtype of DTYPES) {
  Deno.test(`WasmMatrix.row() dequantises ${dtype} exactly`, async () => {
    using wasm = await openWasm({ threads: 1 });
    for (const shape of SHAPES) {
      const weights = stored({ ...shape, dtype });
      using matrix = loaded(wasm, { ...shape, dtype });
      const rowBytes = weights.length / shape.rows;
      for (let row = 0; row < shape.rows; row++) {
        const expected = decodeRow(dtype, weights.subarray(row * rowBytes, (row + 1) * rowBytes), shape.cols).value;
        assertSameBits(matrix.row(row), expected, `${dtype} row ${row}`);
      }
    }
  });

  for (const activations of ACTIVATIONS) {
    for (const input of inputsOf(dtype, activations)) {
      Deno.test(`linear() agrees with the reference: ${dtype}, ${activations}, ${input} inputs`, async () => {
        using wasm = await openWasm({ threads: 2 });
        for (const shape of SHAPES) {
          for (const tokens of [1, 2, 3, 5]) {
            using matrix = loaded(wasm, { ...shape, dtype, input });
            const x = randomInputs(tokens * shape.cols, SEEDS.test);
            const reference = linearReference({
              ...shape,
              dtype,
              input,
              activations,
              weights: stored({ ...shape, dtype }),
              x,
            });
            assertClose(linear(wasm, matrix, { x, activations, chunkRows: 8 }), reference, shape.rows);
          }
        }
      });
    }
  }
}

Deno.test("linear() takes columns that are no whole block of 32", async () => {
  using wasm = await openWasm({ threads: 2 });
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    for (const cols of [1, 5, 33, 100]) {
      const shape = { dtype, rows: 9, cols };
      using matrix = loaded(wasm, shape);
      const x = randomInputs(3 * cols, SEEDS.test);
      const reference = linearReference({ ...shape, activations: "i8", weights: stored(shape), x });
      assertClose(linear(wasm, matrix, { x }), reference, shape.rows);
    }
  }
});

/** Every way to cut one product, by its result: all must have the same bits. */
function* cuts(wasm: WasmRuntime, matrix: WasmMatrix, options: LinearOptions): Generator<[string, Float32Array]> {
  const { cols, rows } = matrix.shape;
  const tokens = options.x.length / cols;
  for (const size of [1, 2, 3, 4, 5, 8, 17, tokens]) {
    for (const chunkRows of [8, 24, 64]) {
      const out = new Float32Array(tokens * rows);
      for (let t = 0; t < tokens; t += size) {
        const x = options.x.subarray(t * cols, Math.min(tokens, t + size) * cols);
        out.set(linear(wasm, matrix, { ...options, x, chunkRows }), t * rows);
      }
      yield [`${size} tokens at a time, chunks of ${chunkRows} rows, ${wasm.threads} threads`, out];
    }
  }
}

Deno.test("linear() gives the same bits for every batch, chunk and thread count", async () => {
  using one = await openWasm({ threads: 1 });
  using two = await openWasm({ threads: 2 });
  for (const dtype of DTYPES) {
    for (const activations of ACTIVATIONS) {
      for (const input of inputsOf(dtype, activations)) {
        const shape = { dtype, rows: 61, cols: 2048, input };
        const x = randomInputs(70 * shape.cols, SEEDS.test);
        using here = loaded(one, shape);
        using there = loaded(two, shape);
        const expected = linear(one, here, { x, activations });
        for (const [cut, actual] of cuts(two, there, { x, activations })) {
          assertSameBits(actual, expected, `${dtype} ${activations}, ${cut}`);
        }
      }
    }
  }
});

Deno.test("linear() gives the same bits with sums of 16 and of 32 bits", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const dtype of ["Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K"] as const) {
    const shape = { dtype, rows: 16, cols: 512 };
    using matrix = new WasmMatrix(wasm, shape);
    matrix.load(0, randomWeights(dtype, tensorBytes(dtype, 16, 512), SEEDS.test));
    for (const tokens of [1, 5]) {
      const x = new Float32Array(tokens * shape.cols).map((_, i) => i % 3 === 0 ? -1 : 1);
      wasm.exports.product_short_sums(1);
      const short = linear(wasm, matrix, { x });
      wasm.exports.product_short_sums(0);
      assertSameBits(linear(wasm, matrix, { x }), short, `${dtype}, ${tokens} tokens`);
    }
  }
});

Deno.test("linear() does not overflow with the largest weights and inputs", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const dtype of ["Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "Q8_0"] as const) {
    const shape = { dtype, rows: 8, cols: 256 };
    const weights = randomWeights(dtype, tensorBytes(dtype, 8, 256), SEEDS.test, "largest");
    using matrix = new WasmMatrix(wasm, shape);
    matrix.load(0, weights);
    for (const sign of [1, -1]) {
      const x = new Float32Array(shape.cols).fill(sign);
      const reference = linearReference({ ...shape, activations: "i8", weights, x });
      for (const short of [0, 1, 2]) {
        wasm.exports.product_short_sums(short);
        assertClose(linear(wasm, matrix, { x }), reference, shape.rows);
      }
    }
  }
});

Deno.test("linear() adds to what is there", async () => {
  using wasm = await openWasm({ threads: 2 });
  for (const tokens of [1, 6]) {
    const shape = { dtype: "Q4_1", rows: 21, cols: 288 } as const;
    using matrix = loaded(wasm, shape);
    const x = randomInputs(tokens * shape.cols, SEEDS.test);
    const addTo = randomInputs(tokens * shape.rows, SEEDS.test + 1);
    const alone = linear(wasm, matrix, { x });
    assertSameBits(linear(wasm, matrix, { x, addTo }), alone.map((value, i) => addTo[i] + value), "sum");
  }
});

Deno.test("linear() does not let one row of inputs touch another", async () => {
  using wasm = await openWasm({ threads: 2 });
  for (const activations of ACTIVATIONS) {
    const shape = { dtype: "Q4_1", rows: 16, cols: 64 } as const;
    using matrix = loaded(wasm, shape);
    const x = randomInputs(5 * shape.cols, SEEDS.test);
    const clean = linear(wasm, matrix, { x, activations });
    x.fill(NaN, 2 * shape.cols, 3 * shape.cols);
    const out = linear(wasm, matrix, { x, activations });
    out.forEach((value, i) => {
      const poisoned = Math.floor(i / shape.rows) === 2;
      assert(poisoned ? Number.isNaN(value) : value === clean[i], `value ${i} is ${value}`);
    });
  }
});

Deno.test("linear() of zero inputs is zero", async () => {
  using wasm = await openWasm({ threads: 1 });
  for (const dtype of DTYPES) {
    using matrix = loaded(wasm, { dtype, rows: 8, cols: 256 });
    assert(linear(wasm, matrix, { x: new Float32Array(256) }).every((value) => value === 0), dtype);
  }
});

Deno.test("WasmMatrix.load() takes rows in any cut", async () => {
  using wasm = await openWasm({ threads: 1 });
  const shape = { dtype: "Q4_1", rows: 21, cols: 96 } as const;
  const weights = stored(shape);
  const rowBytes = weights.length / shape.rows;
  using whole = loaded(wasm, shape);
  using pieces = new WasmMatrix(wasm, shape);
  for (const [from, to] of [[13, 21], [0, 3], [3, 13]]) {
    pieces.load(from, weights.subarray(from * rowBytes, to * rowBytes));
  }
  for (let row = 0; row < shape.rows; row++) assertSameBits(pieces.row(row), whole.row(row), `row ${row}`);
});

Deno.test("WasmMatrix refuses what does not fit, naming it", async () => {
  using wasm = await openWasm({ threads: 1, maxMemoryBytes: 16 << 20 });
  const make = (shape: MatrixShape) => () => new WasmMatrix(wasm, shape);
  assertThrows(
    make({ dtype: "Q4_1", rows: 0, cols: 32 }),
    RangeError,
    "axis R (rows) must be a positive integer, got 0",
  );
  assertThrows(make({ dtype: "Q4_1", rows: 8, cols: 33 }), RangeError, "multiple of 32, got 33");
  assertThrows(make({ dtype: "F32", rows: 8192, cols: 8192 }), RangeError, "wanted 268435456 bytes");
  assertThrows(make({ dtype: "F32", rows: 2 ** 30, cols: 2 ** 20 }), RangeError, "Cannot make a F32 matrix");
  using matrix = new WasmMatrix(wasm, { dtype: "Q4_1", rows: 8, cols: 32 });
  assertThrows(
    () => matrix.load(0, new Uint8Array(21)),
    RangeError,
    "whole rows of 20 bytes within 8 rows, got 21 bytes",
  );
  assertThrows(() => matrix.load(7, new Uint8Array(40)), RangeError, "got 40 bytes at row 7");
  assertThrows(() => matrix.row(8), RangeError, "wanted 0 to 7, got 8");
  assertThrows(() => linear(wasm, matrix, { x: new Float32Array(31) }), RangeError, "x must be [T, K] with K = 32");
  const addTo = new Float32Array(7);
  assertThrows(
    () => linear(wasm, matrix, { x: new Float32Array(32), addTo }),
    RangeError,
    "addTo must be [T, R] = [1, 8]",
  );
  matrix[Symbol.dispose]();
  assertThrows(() => matrix.address, ReferenceError, "disposed");
});

Deno.test("linear() and WasmMatrix give all memory back", async () => {
  using wasm = await openWasm({ threads: 1 });
  const once = () => {
    using matrix = loaded(wasm, { dtype: "Q8_0", rows: 512, cols: 512 });
    linear(wasm, matrix, { x: new Float32Array(512 * 4) });
  };
  once();
  const before = wasm.memoryBytes;
  for (let i = 0; i < 50; i++) once();
  assertEquals(wasm.memoryBytes, before);
});
