import { assert, assertEquals, assertThrows } from "@std/assert";
import { CudaContext } from "../../ffi/cuda/cuda.ts";
import { gpuTest, TestGpu } from "../cuda/test_gpu.ts";
import { e4m3Bits, e4m3Value } from "../e4m3.ts";
import { POOL_BLOCK_TOKENS, PoolLayout } from "../kv_copy/pool_layout.ts";
import { AttendDecode } from "./attend_decode_cuda.ts";
import { AttendPrefill, prefillKernel, type PrefillVariant } from "./attend_prefill_cuda.ts";
import { PREFILL_TOLERANCE, type PrefillChunk, type PrefillShape } from "./prefill_plan.ts";
import { attendPartialReference } from "./reference.ts";
import { randomValues, shuffled } from "./test_data.ts";

const LAYERS = 2;
const LAYER = 1;
/** Block id that no pool has; behind the end of every table row. */
const HOSTILE = 0x7fffffff;

/** Query tokens of one sequence and what they may see. */
interface Case {
  readonly tokens: number;
  readonly position: number;
  readonly kvBegin?: number;
  readonly kvEnd?: number;
  readonly partial?: boolean;
}

interface Sequence extends Case {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

interface Result {
  /** Finished rows and partials, [row, heads, headDim]. */
  readonly final: Float32Array;
  readonly o: Float32Array;
  readonly lse: Float32Array;
}

/** Asserts that two results have the same bits; says how many do not, and which is the first. */
function assertSame(got: Result, wanted: Result, label: string): void {
  for (const part of ["final", "o", "lse"] as const) {
    const [a, b] = [got[part], wanted[part]];
    assert(a.length === b.length, `${label}: ${part} has ${a.length} values, wanted ${b.length}`);
    const differs = (value: number, i: number) => !Object.is(value, b[i]);
    const first = a.findIndex(differs);
    if (first < 0) continue;
    const count = a.reduce((sum, value, i) => sum + (differs(value, i) ? 1 : 0), 0);
    assert(false, `${label}: ${count} of ${a.length} in ${part}; [${first}] is ${a[first]}, wanted ${b[first]}`);
  }
}

/** Bits of the bf16 nearest to each value, ties to even. */
function bitsOf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.slice().buffer);
  return Uint16Array.from(words, (bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
}

/** Values of the bits of bf16. */
function valuesOf(bits: Uint16Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.from(bits, (each) => each << 16).buffer);
}

/** Keys or values as the pool keeps them. */
function stored(shape: PrefillShape, values: Float32Array): Uint8Array | Uint16Array {
  return shape.kvType === "fp8" ? Uint8Array.from(values, e4m3Bits) : bitsOf(values);
}

function rounded(shape: PrefillShape, values: Float32Array): Float32Array {
  return shape.kvType === "fp8" ? values.map((value) => e4m3Value(e4m3Bits(value))) : valuesOf(bitsOf(values));
}

function sequence(shape: PrefillShape, { case: c, seed }: { case: Case; seed: number }): Sequence {
  const length = Math.max(c.position + c.tokens, c.kvEnd ?? 0);
  const random = (count: number, part: number, scale: number): Float32Array =>
    randomValues(count, 3 * seed + part, scale);
  return {
    ...c,
    q: valuesOf(bitsOf(random(c.tokens * shape.heads * shape.headDim, 0, 4))),
    k: rounded(shape, random(length * shape.kvHeads * shape.headDim, 1, 1)),
    v: rounded(shape, random(length * shape.kvHeads * shape.headDim, 2, 2)),
  };
}

/** Puts the tokens that each sequence may see into a pool of NaN, in blocks of random order. */
function fill(gpu: TestGpu, shape: PrefillShape, sequences: readonly Sequence[]) {
  const { kvHeads, headDim, kvType } = shape;
  const layout = new PoolLayout({ layers: LAYERS, kvHeads, headDim, kvType });
  const pages = sequences.map(({ position, tokens, kvEnd = 0 }) =>
    Math.ceil(Math.max(position + tokens, kvEnd) / POOL_BLOCK_TOKENS)
  );
  const blocks = pages.reduce((total, count) => total + count, 1);
  const order = shuffled(blocks, 5);
  const bytes = new Uint8Array(blocks * layout.blockBytes).fill(0xff);
  const elements = layout.elementBytes === 1 ? bytes : new Uint16Array(bytes.buffer);
  const table: number[] = [];
  const starts = sequences.map(({ position, tokens, kvBegin = 0, kvEnd = position + tokens, ...each }, index) => {
    const [k, v] = [each.k, each.v].map((values) => stored(shape, values));
    const start = table.length;
    for (let page = 0; page < pages[index]; page++) {
      const seen = (page + 1) * POOL_BLOCK_TOKENS > kvBegin && page * POOL_BLOCK_TOKENS < kvEnd;
      const block = order.pop() ?? 0;
      table.push(seen ? block : HOSTILE);
      if (!seen) continue;
      for (let slot = 0; slot < POOL_BLOCK_TOKENS; slot++) {
        const token = page * POOL_BLOCK_TOKENS + slot;
        if (token >= kvEnd) break;
        for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
          for (const [value, from] of [[false, k], [true, v]] as const) {
            for (let dim = 0; dim < layout.paddedDim; dim += 8) {
              const offset = layout.offset({ layer: LAYER, kvHead, value, slot, dim });
              const at = (block * layout.blockBytes + offset) / layout.elementBytes;
              const first = (token * kvHeads + kvHead) * headDim + dim;
              if (dim < headDim) elements.set(from.subarray(first, first + 8), at);
              else elements.fill(0, at, at + 8);
            }
          }
        }
      }
    }
    table.push(HOSTILE, HOSTILE);
    return start;
  });
  return { layout, pool: gpu.upload(bytes), table: gpu.upload(Int32Array.from(table)), starts };
}

/** Attends to all sequences in one launch; `launches` times, each must give the same bits. */
function attend(
  gpu: TestGpu,
  shape: PrefillShape,
  options: { variant: PrefillVariant; sequences: readonly Sequence[]; launches?: number },
): Result {
  const { variant, sequences, launches = 1 } = options;
  const { heads, headDim } = shape;
  const { layout, pool, table, starts } = fill(gpu, shape, sequences);
  using kernel = new AttendPrefill(gpu.context, { kernels: gpu.kernels, shape, variant });
  const rows = { final: 0, partial: 0, query: 0 };
  const chunks = sequences.map(({ partial, ...c }, index): PrefillChunk => {
    const kind = partial ? "partial" : "final";
    const chunk = { ...c, queryRow: rows.query, table: starts[index], output: { kind, row: rows[kind] } } as const;
    rows.query += c.tokens;
    rows[kind] += c.tokens;
    return chunk;
  });
  const q = gpu.upload(Uint16Array.from(sequences.flatMap((each) => [...bitsOf(each.q)])));
  const plan = kernel.plan(chunks);
  const planned = gpu.upload(plan);
  const width = heads * headDim;
  let result: Result | undefined;
  for (let i = 0; i < launches; i++) {
    const out = gpu.poisoned(2 * (rows.final + 1) * width);
    const partial = {
      o: gpu.poisoned(4 * (rows.partial + 1) * width),
      lse: gpu.poisoned(4 * (rows.partial + 1) * heads),
    };
    const at = { layer: (pool + BigInt(LAYER * layout.layerBytes)) as typeof pool, blockBytes: layout.blockBytes };
    kernel.launch(gpu.stream, { q, ...at, table, plan: planned, items: kernel.items(plan), out, partial });
    const all = {
      final: valuesOf(new Uint16Array(gpu.bytes(out, 2 * (rows.final + 1) * width).buffer)),
      o: gpu.f32(partial.o, (rows.partial + 1) * width),
      lse: gpu.f32(partial.lse, (rows.partial + 1) * heads),
    };
    const behind = [all.final.subarray(rows.final * width), all.o.subarray(rows.partial * width)];
    assert(behind.every((values) => values.every(Number.isNaN)), "what lies behind the last row is left alone");
    const next = {
      final: all.final.subarray(0, rows.final * width),
      o: all.o.subarray(0, rows.partial * width),
      lse: all.lse.subarray(0, rows.partial * heads),
    };
    if (result !== undefined) assertSame(next, result, `launch ${i}`);
    result = next;
  }
  if (result === undefined) throw new Error("Cannot attend: wanted at least one launch, got none");
  return result;
}

/** What decode attention gives each query token, in the rows of {@linkcode attend}'s results. */
function decoded(gpu: TestGpu, shape: PrefillShape, sequences: readonly Sequence[]): Result {
  const { layout, pool, table, starts } = fill(gpu, shape, sequences);
  const width = shape.heads * shape.headDim;
  const lengths: number[] = [];
  const tables: number[] = [];
  const kinds: ("final" | "partial")[] = [];
  for (const [index, { tokens, position, kvBegin = 0, kvEnd = position + tokens, partial }] of sequences.entries()) {
    for (let t = 0; t < tokens; t++) {
      lengths.push(Math.max(0, Math.min(kvEnd, position + t + 1) - kvBegin));
      tables.push(starts[index] + kvBegin / POOL_BLOCK_TOKENS);
      kinds.push(partial ? "partial" : "final");
    }
  }
  const count = lengths.length;
  using plan = new AttendDecode(gpu.context, gpu.kernels, shape).plan(count);
  plan.sequences(gpu.stream, {
    count,
    lengths: gpu.upload(Int32Array.from(lengths)),
    rows: gpu.upload(Int32Array.from(tables)),
    tables: table,
    tableWidth: 1,
  });
  const [out, o, lse] = [2 * width, 4 * width, 4 * shape.heads].map((bytes) => gpu.poisoned(bytes * count));
  plan.attend(gpu.stream, {
    q: gpu.upload(Uint16Array.from(sequences.flatMap((each) => [...bitsOf(each.q)]))),
    layer: (pool + BigInt(LAYER * layout.layerBytes)) as typeof pool,
    blockBytes: layout.blockBytes,
    out,
    o,
    lse,
  });
  const rows = (kind: "final" | "partial", values: Float32Array): Float32Array => {
    const each = values.length / count;
    return Float32Array.from(
      kinds.flatMap((own, row) => own === kind ? [...values.subarray(row * each, (row + 1) * each)] : []),
    );
  };
  return {
    final: rows("final", valuesOf(new Uint16Array(gpu.bytes(out, 2 * width * count).buffer))),
    o: rows("partial", gpu.f32(o, width * count)),
    lse: rows("partial", gpu.f32(lse, shape.heads * count)),
  };
}

/** Tokens of a chunk that are compared with the reference, which is slow: a few, among them those at its borders. */
function compared({ tokens, position }: Case): number[] {
  if (position + tokens > 2000) return [...new Set([0, tokens >> 1, tokens - 1])];
  const some = [0, 1, 31, 32, 63, 64, 127, 128, 191, 256, tokens >> 1, tokens - 2, tokens - 1];
  return [...new Set(some)].filter((t) => t >= 0 && t < tokens);
}

function assertGood(
  shape: PrefillShape,
  options: { sequences: readonly Sequence[]; result: Result; label: string },
): void {
  const { sequences, result, label } = options;
  const { heads, kvHeads, headDim } = shape;
  const rows = { final: 0, partial: 0 };
  for (const each of sequences) {
    const { tokens, position, kvBegin = 0, kvEnd = position + tokens, partial, q, k, v } = each;
    const kind = partial ? "partial" : "final";
    const first = rows[kind];
    rows[kind] += tokens;
    const largest = v.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (const t of compared(each)) {
      const end = Math.max(kvBegin, Math.min(kvEnd, position + t + 1));
      const width = kvHeads * headDim;
      const expected = attendPartialReference({
        heads,
        kvHeads,
        headDim,
        q: q.subarray(t * heads * headDim, (t + 1) * heads * headDim),
        k: k.subarray(kvBegin * width, end * width),
        v: v.subarray(kvBegin * width, end * width),
      });
      const row = first + t;
      const where = (i: number): string =>
        `${label}: ${kind} [t ${t} at ${position + t}, h ${Math.floor(i / headDim)}, ${i % headDim}]`;
      expected.o.forEach((wanted, i) => {
        const got = (partial ? result.o : result.final)[row * heads * headDim + i];
        assert(
          Math.abs(got - wanted) <= PREFILL_TOLERANCE[kind] * largest,
          `${where(i)}: wanted ${wanted}, got ${got}`,
        );
      });
      if (!partial) continue;
      expected.lse.forEach((wanted, h) => {
        const got = result.lse[row * heads + h];
        const close = Math.abs(got - wanted) <= PREFILL_TOLERANCE.lse * (4 + Math.abs(wanted));
        assert(
          Number.isFinite(wanted) ? close : got === wanted,
          `${where(h * headDim)} lse: wanted ${wanted}, got ${got}`,
        );
      });
    }
  }
}

/** Whether GPU 0 can run the Hopper kernel. */
const HOPPER = TestGpu.missing() === undefined && CudaContext.list()[0].major === 9;

/** Few tiles with much to see. */
const LONG: readonly Case[] = [
  { tokens: 3, position: 3500 },
  { tokens: 20, position: 3000, kvBegin: 512, kvEnd: 2521, partial: true },
];

const LENGTHS = [1, 63, 64, 65, 255, 256, 257, 1000];
const MIXED: readonly Case[] = [
  { tokens: 40, position: 100 },
  { tokens: 1, position: 0 },
  { tokens: 200, position: 513 },
  { tokens: 17, position: 1999 },
  { tokens: 1, position: 4096 },
];
const RANGES: readonly Case[] = [
  { tokens: 50, position: 900, kvBegin: 256, kvEnd: 768, partial: true },
  { tokens: 33, position: 900, kvBegin: 256, kvEnd: 700, partial: true },
  { tokens: 70, position: 1000, kvBegin: 512, partial: true },
  { tokens: 20, position: 300 },
  { tokens: 30, position: 100, kvBegin: 256, kvEnd: 300, partial: true },
  { tokens: 5, position: 600, kvBegin: 512, kvEnd: 512, partial: true },
];
/** Ranges that are parts of nodes of the merge tree. */
const NODES: readonly Case[] = [
  { tokens: 50, position: 900, kvBegin: 512, kvEnd: 768, partial: true },
  { tokens: 33, position: 900, kvBegin: 768, kvEnd: 930, partial: true },
  { tokens: 70, position: 1000, kvBegin: 512, kvEnd: 1024, partial: true },
  { tokens: 20, position: 300 },
  { tokens: 30, position: 100, kvBegin: 256, kvEnd: 300, partial: true },
  { tokens: 5, position: 600, kvBegin: 512, kvEnd: 512, partial: true },
];
const SHAPES: readonly (PrefillShape & { readonly variants: readonly PrefillVariant[] })[] = [
  { heads: 4, kvHeads: 2, headDim: 128, variants: ["hopper", "tree", "plain"] },
  { heads: 9, kvHeads: 3, headDim: 64, variants: ["hopper", "tree", "plain"] },
  { heads: 5, kvHeads: 1, headDim: 80, variants: ["hopper", "tree", "plain"] },
  { heads: 16, kvHeads: 1, headDim: 96, variants: ["hopper", "tree", "plain"] },
  { heads: 4, kvHeads: 2, headDim: 128, kvType: "fp8", variants: ["hopper"] },
  { heads: 9, kvHeads: 3, headDim: 64, kvType: "fp8", variants: ["hopper"] },
  { heads: 5, kvHeads: 1, headDim: 80, kvType: "fp8", variants: ["hopper"] },
  { heads: 2, kvHeads: 2, headDim: 128, variants: ["hopper", "tree", "plain"] },
  { heads: 2, kvHeads: 2, headDim: 128, kvType: "fp8", variants: ["hopper"] },
  { heads: 8, kvHeads: 1, headDim: 256, variants: ["hopper", "plain"] },
  { heads: 2, kvHeads: 2, headDim: 192, variants: ["hopper"] },
];

gpuTest("AttendPrefill.launch() agrees with the reference for 4,097 tokens", (gpu) => {
  const shape = { heads: 2, kvHeads: 1, headDim: 64 };
  const sequences = [sequence(shape, { case: { tokens: 4097, position: 0 }, seed: 60 })];
  for (const variant of HOPPER ? ["hopper", "tree", "plain"] as const : ["plain"] as const) {
    assertGood(shape, { sequences, result: attend(gpu, shape, { variant, sequences }), label: variant });
  }
});

for (const { variants, ...shape } of SHAPES) {
  for (const variant of variants) {
    const label = `${variant} ${shape.heads}/${shape.kvHeads} x ${shape.headDim}${
      shape.kvType ? ` ${shape.kvType}` : ""
    }`;
    if (variant !== "plain" && !HOPPER) {
      Deno.test({
        name: `AttendPrefill.launch() (${label}) (ignored: no GPU of compute capability 9.0)`,
        ignore: true,
        fn() {},
      });
      continue;
    }

    gpuTest(`AttendPrefill.launch() agrees with the reference for whole prompts of many lengths (${label})`, (gpu) => {
      const sequences = LENGTHS.map((tokens, seed) => sequence(shape, { case: { tokens, position: 0 }, seed }));
      for (const each of sequences) {
        const result = attend(gpu, shape, { variant, sequences: [each] });
        assertGood(shape, { sequences: [each], result, label });
      }
    });

    gpuTest(
      `AttendPrefill.launch() serves chunks of several sequences at once, always with the same bits (${label})`,
      (gpu) => {
        for (const cases of variant === "tree" ? [MIXED, NODES] : [MIXED, RANGES, LONG]) {
          const sequences = cases.map((each, seed) => sequence(shape, { case: each, seed: seed + 20 }));
          const result = attend(gpu, shape, { variant, sequences, launches: 3 });
          assertGood(shape, { sequences, result, label });
        }
      },
    );

    gpuTest(`AttendPrefill.launch() gives a token the same bits whatever chunk it came in (${label})`, (gpu) => {
      const whole = sequence(shape, { case: { tokens: 333, position: 0 }, seed: 40 });
      const width = shape.heads * shape.headDim;
      const cuts = [0, 1, 7, 100, 190, 333];
      const parts = cuts.slice(1).map((end, i) => ({
        ...whole,
        tokens: end - cuts[i],
        position: cuts[i],
        q: whole.q.subarray(cuts[i] * width, end * width),
      }));
      const wanted = attend(gpu, shape, { variant, sequences: [whole] });
      assertSame(attend(gpu, shape, { variant, sequences: parts }), wanted, label);
    });
  }

  if (!variants.includes("tree") || !HOPPER) continue;
  gpuTest(
    `AttendPrefill.launch() gives a token the bits that decode attention gives it (tree ${shape.heads}/${shape.kvHeads} x ${shape.headDim})`,
    (gpu) => {
      const long: Case[] = [{ tokens: 130, position: 3000 }, { tokens: 300, position: 0 }, {
        tokens: 3,
        position: 5500,
      }];
      for (const cases of [MIXED, NODES, long]) {
        const sequences = cases.map((each, seed) => sequence(shape, { case: each, seed: seed + 70 }));
        assertSame(attend(gpu, shape, { variant: "tree", sequences }), decoded(gpu, shape, sequences), "tree");
      }
    },
  );
}

Deno.test("prefillKernel() refuses shapes that a variant cannot do", () => {
  const shape = { heads: 8, kvHeads: 2, headDim: 128 };
  assertEquals(prefillKernel("hopper", shape).tileRows, 256);
  assertEquals(prefillKernel("hopper", { ...shape, kvHeads: 8 }).tileRows, 128);
  assertEquals(prefillKernel("plain", { ...shape, headDim: 256 }).sharedBytes, 98304);
  assertThrows(() => prefillKernel("tree", { ...shape, headDim: 256 }), RangeError, "Cannot compile prefill attention");
  for (const headDim of [64, 80, 96, 128, 192, 256]) {
    for (const variant of ["hopper", "tree"] as const) {
      if (variant === "tree" && headDim > 128) continue;
      assert(prefillKernel(variant, { ...shape, headDim }).sharedBytes <= 232_448, `${variant} ${headDim}`);
    }
    if (headDim <= 128) assert(prefillKernel("hopper", { ...shape, headDim, kvType: "fp8" }).sharedBytes <= 232_448);
  }
  for (const bad of [{ headDim: 264 }, { headDim: 100 }, { kvHeads: 3 }]) {
    assertThrows(() => prefillKernel("hopper", { ...shape, ...bad }), RangeError, "Cannot compile prefill attention");
  }
  assertThrows(
    () => prefillKernel("plain", { ...shape, headDim: 264 }),
    RangeError,
    "Cannot compile prefill attention",
  );
});
