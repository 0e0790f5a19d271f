import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { HostKvType } from "../dtype.ts";
import type { AttentionPartial } from "../merge_partials/spec.ts";
import { openWasm } from "../wasm/instance.ts";
import { goldenInput, readGolden, storedNumber, tokenMajor } from "./golden.ts";
import { attendPartial } from "./launch.ts";
import { attendPartialReference } from "./reference.ts";
import { type AttendPartialInput, SEEDS, TOLERANCE } from "./spec.ts";
import { randomValues } from "./test_data.ts";

const KV_TYPES: readonly HostKvType[] = ["f32", "f16", "bf16"];

/** Infinities and NaN first, then values; the message names the first wrong coordinate. */
function assertClose(actual: AttentionPartial, expected: AttentionPartial, input: AttendPartialInput): void {
  const { heads, headDim } = input;
  const reach = 4 + expected.lse.reduce((most, lse) => Number.isFinite(lse) ? Math.max(most, Math.abs(lse)) : most, 0);
  const largest = input.v.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  for (const [name, width, tolerance] of [["lse", 1, TOLERANCE.lse], ["o", headDim, TOLERANCE.o * largest]] as const) {
    assertEquals(actual[name].length, expected[name].length);
    const at = (i: number): string =>
      `${name}[t ${Math.floor(i / width / heads)}, h ${Math.floor(i / width) % heads}, ${i % width}]: ` +
      `wanted ${expected[name][i]}, got ${actual[name][i]}`;
    actual[name].forEach((value, i) => {
      assert(Number.isFinite(value) || Object.is(value, expected[name][i]), at(i));
    });
    actual[name].forEach((value, i) => {
      if (Number.isFinite(value)) assert(Math.abs(value - expected[name][i]) <= tolerance * reach, at(i));
    });
  }
}

function randomInput(
  shape: { heads: number; kvHeads: number; headDim: number; queries: number; length: number; seed?: number },
): AttendPartialInput {
  const { heads, kvHeads, headDim, queries, length, seed = SEEDS.test } = shape;
  return {
    heads,
    kvHeads,
    headDim,
    q: randomValues(queries * heads * headDim, seed, 6),
    k: randomValues(length * kvHeads * headDim, seed + 1),
    v: randomValues(length * kvHeads * headDim, seed + 2, 3),
  };
}

for (const kvType of KV_TYPES) {
  Deno.test(`attendPartial() agrees with the reference over ${kvType} for many shapes`, async () => {
    using wasm = await openWasm({ threads: 1 });
    for (
      const [kvHeads, group, headDim] of [[3, 3, 64], [1, 1, 8], [2, 4, 80], [1, 5, 96], [1, 8, 128], [1, 2, 13], [
        1,
        1,
        256,
      ]]
    ) {
      for (const [queries, length] of [[1, 1], [1, 300], [3, 7], [9, 515]]) {
        const input = randomInput({ heads: kvHeads * group, kvHeads, headDim, queries, length });
        const causal = { ...input, firstPosition: length - queries < 0 ? 0 : length - queries };
        for (const each of [input, causal]) {
          assertClose(attendPartial(each, { wasm, kvType }), attendPartialReference(each, kvType), each);
        }
      }
    }
  });
}

Deno.test("attendPartial() agrees with the reference for random ranges and positions", async () => {
  using wasm = await openWasm({ threads: 1 });
  fc.assert(
    fc.property(
      fc.record({
        kvHeads: fc.integer({ min: 1, max: 3 }),
        group: fc.integer({ min: 1, max: 9 }),
        headDim: fc.integer({ min: 1, max: 40 }),
        queries: fc.integer({ min: 1, max: 6 }),
        length: fc.integer({ min: 0, max: 560 }),
        start: fc.integer({ min: 0, max: 80 }),
        behind: fc.integer({ min: -20, max: 600 }),
        kvType: fc.constantFrom(...KV_TYPES),
        seed: fc.integer({ min: 1, max: 1000 }),
      }),
      ({ group, behind, kvType, ...shape }) => {
        const start = 8 * shape.start;
        const input = { ...randomInput({ ...shape, heads: shape.kvHeads * group }), start };
        const causal = { ...input, firstPosition: Math.max(0, start + behind) };
        for (const each of [input, causal]) {
          assertClose(attendPartial(each, { wasm, kvType }), attendPartialReference(each, kvType), each);
        }
      },
    ),
    { numRuns: 60, seed: SEEDS.test },
  );
});

Deno.test("attendPartial() reproduces the golden shapes and their ranges", async () => {
  using wasm = await openWasm({ threads: 1 });
  const { cases } = await readGolden();
  for (const c of cases) {
    const { batch, q_heads: heads, kv_heads: kvHeads, head_dim: headDim, kv_len: tokens } = c;
    const q = goldenInput(batch * heads * headDim, 3 * c.seed).map((value) => Math.fround(value * c.q_mul));
    const k = goldenInput(batch * kvHeads * tokens * headDim, 3 * c.seed + 1);
    const v = goldenInput(batch * kvHeads * tokens * headDim, 3 * c.seed + 2);
    const keep = Array.from({ length: tokens }, (_, i) => i);
    const sequences = Array.from({ length: batch }, (_, b) => {
      const at = { batch: b, heads: kvHeads, tokens, width: headDim, keep };
      return { k: tokenMajor(k, at), v: tokenMajor(v, at) };
    });
    const [rows, width] = [heads * headDim, kvHeads * headDim];
    for (const { range: [from, to], o_probe, lse } of c.ranges) {
      const results = sequences.map((sequence, b) =>
        attendPartial({
          heads,
          kvHeads,
          headDim,
          q: q.subarray(b * rows, (b + 1) * rows),
          k: sequence.k.subarray(from * width, to * width),
          v: sequence.v.subarray(from * width, to * width),
        }, { wasm })
      );
      const where = `seed ${c.seed}, tokens ${from} to ${to}`;
      c.probe_index.forEach((index, i) => {
        // 4e-6 is above the 2.4e-6 that a plain f32 version is off by; stored values have 6 digits.
        const value = results[Math.floor(index / rows)].o[index % rows];
        assertAlmostEquals(value, o_probe[i], 4e-6, `o at ${index}, ${where}`);
      });
      lse.forEach((stored, i) => {
        const [actual, expected] = [results[Math.floor(i / heads)].lse[i % heads], storedNumber(stored)];
        if (expected === -Infinity) assertEquals(actual, expected, where);
        else assertAlmostEquals(actual, expected, 3e-6 + 1e-5 * Math.abs(expected), `lse ${i}, ${where}`);
      });
    }
  }
});

for (const back of ["reference", "WASM"] as const) {
  Deno.test(`attendPartial() reproduces the golden edge cases on the ${back}`, async () => {
    using runtime = await openWasm({ threads: 1 });
    const wasm = back === "WASM" ? runtime : undefined;
    const { edge } = await readGolden();
    for (const c of edge) {
      const { batch, q_heads: heads, kv_heads: kvHeads, head_dim: headDim, kv_len: tokens, mask } = c;
      for (let b = 0; b < batch; b++) {
        // The masks of the file hide tokens from every query of a row: what is hidden is left out.
        const keep = Array.from({ length: tokens }, (_, i) => i)
          .filter((i) => mask === undefined || mask[b * tokens + i] !== "-inf");
        const at = { batch: b, heads: kvHeads, tokens, width: headDim, keep };
        const rows = heads * headDim;
        const { o, lse } = attendPartial({
          heads,
          kvHeads,
          headDim,
          q: Float32Array.from(c.q.slice(b * rows, (b + 1) * rows)),
          k: tokenMajor(c.k, at),
          v: tokenMajor(c.v, at),
        }, { wasm });
        o.forEach((value, i) => assertAlmostEquals(value, c.o[b * rows + i], 4 * c.tol + 4e-6, `${c.name}: o ${i}`));
        lse.forEach((value, i) => {
          const expected = storedNumber(c.lse[b * heads + i]);
          if (expected === -Infinity) assertEquals(value, expected, c.name);
          else assertAlmostEquals(value, expected, 6e-6 + 1e-7 * Math.abs(expected), `${c.name}: lse ${i}`);
        });
      }
    }
  });
}

Deno.test("attendPartial() gives o = 0 and lse = -Infinity where nothing is visible", async () => {
  using runtime = await openWasm({ threads: 1 });
  const input = { ...randomInput({ heads: 4, kvHeads: 2, headDim: 8, queries: 3, length: 16 }), start: 16 };
  for (const wasm of [undefined, runtime]) {
    const empty = attendPartial({ ...input, k: new Float32Array(0), v: new Float32Array(0) }, { wasm });
    const future = attendPartial({ ...input, firstPosition: 13 }, { wasm });
    for (const { o, lse } of [empty, future]) {
      assertEquals(o, new Float32Array(3 * 4 * 8));
      assertEquals(lse, new Float32Array(12).fill(-Infinity));
    }
  }
});

Deno.test("attendPartial() shows a NaN of a query in its rows alone", async () => {
  using runtime = await openWasm({ threads: 1 });
  const input = randomInput({ heads: 4, kvHeads: 2, headDim: 8, queries: 5, length: 300 });
  input.q[(2 * 4 + 1) * 8 + 3] = NaN;
  for (const wasm of [undefined, runtime]) {
    for (const q of [input.q, input.q.slice(2 * 32, 3 * 32)]) {
      const { o, lse } = attendPartial({ ...input, q }, { wasm });
      const row = q.length === 32 ? 1 : 9;
      lse.forEach((value, i) => assertEquals(Number.isNaN(value), i === row, `lse ${i}`));
      o.forEach((value, i) => assertEquals(Number.isNaN(value), Math.floor(i / 8) === row, `o ${i}`));
    }
  }
});

Deno.test("attendPartial() refuses arrays and numbers that do not fit, naming them", async (t) => {
  const input = randomInput({ heads: 4, kvHeads: 2, headDim: 8, queries: 1, length: 3 });
  const wrong: [string, Partial<AttendPartialInput>, string][] = [
    ["q", { q: new Float32Array(31) }, "q [T, H, D] with H = 4, D = 8 holds a multiple of 32, got 31 values"],
    ["k", { k: new Float32Array(17) }, "k [L, G, D] with G = 2, D = 8 holds a multiple of 16, got 17 values"],
    ["v", { v: new Float32Array(32) }, "axis L of v [L, G, D] must be 3, got 2"],
    ["heads", { heads: 3, q: new Float32Array(24) }, "axis H (heads) must be a multiple of G = 2 (kvHeads), got 3"],
    ["headDim", { headDim: 0 }, "axis D must be a positive integer, got 0"],
    [
      "wide heads",
      { headDim: 264, q: new Float32Array(0), k: new Float32Array(0), v: new Float32Array(0) },
      "at most 256",
    ],
    ["start", { start: 12 }, "start must be a multiple of 8"],
    ["firstPosition", { firstPosition: -1 }, "firstPosition must be an integer"],
  ];
  for (const [name, change, message] of wrong) {
    await t.step(name, () => {
      assertThrows(() => attendPartial({ ...input, ...change }), RangeError, message);
    });
  }
});
