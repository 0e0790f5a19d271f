import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkNodes, planItems, type PlanOptions, planPrefill, type PrefillChunk } from "./prefill_plan.ts";

const OPTIONS: PlanOptions = {
  shape: { heads: 32, kvHeads: 8, headDim: 128 },
  tileRows: 128,
  l2Bytes: 50 * 2 ** 20,
  workers: 132,
};

function chunk(fields: Partial<PrefillChunk>): PrefillChunk {
  return { queryRow: 0, tokens: 1, position: 0, table: 0, output: { kind: "final", row: 0 }, ...fields };
}

/** Tiles; the chunk's number is found by its query row. */
function tilesOf(plan: Int32Array): { chunk: number; row: number; part: readonly number[] }[] {
  return Array.from({ length: plan[0] }, (_, i) => {
    const [chunk, , , , , , , , row, ...part] = plan.subarray(4 + 16 * i, 20 + 16 * i);
    return { chunk, row, part };
  });
}

Deno.test("planPrefill() writes header and tiles as the kernels read them", () => {
  const plan = planPrefill([
    chunk({ queryRow: 3, tokens: 40, position: 100, table: 17, output: { kind: "final", row: 3 } }),
    chunk({ tokens: 2, position: 900, kvBegin: 256, kvEnd: 512, table: 5, output: { kind: "partial", row: 9 } }),
  ], OPTIONS);
  const [first, second] = [[3, 40, 100, 0, 140, 17, 3, 0], [0, 2, 900, 256, 512, 5, 9, 1]];
  assertEquals([...plan], [
    ...[3, 8, 0, 0],
    ...[...second, 0, 0, 2, 1, 0, 0, 0, 0],
    ...[...first, 128, 0, 2, 1, 0, 0, 0, 0],
    ...[...first, 0, 0, 2, 1, 0, 0, 0, 0],
  ]);
  assertEquals(planItems(plan, OPTIONS.shape), 24);
});

Deno.test("planPrefill() covers every row once and takes the tiles with the most to see first", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ tokens: fc.integer({ min: 1, max: 700 }), position: fc.nat(5000) }), { maxLength: 6 }),
      fc.constantFrom(1, 2, 4, 8),
      fc.constantFrom(64, 128, 192),
      (sizes, kvHeads, tileRows) => {
        const shape = { heads: 8, kvHeads, headDim: 64 };
        const group = 8 / kvHeads;
        const chunks = sizes.map((size, queryRow) => chunk({ ...size, queryRow }));
        const tiles = tilesOf(planPrefill(chunks, { ...OPTIONS, shape, tileRows }));
        const wanted = sizes.flatMap(({ tokens }, index) =>
          Array.from({ length: Math.ceil(tokens * group / tileRows) }, (_, i) => `${index} ${i * tileRows}`)
        );
        assertEquals(tiles.map(({ chunk, row }) => `${chunk} ${row}`).sort(), wanted.sort());
        const seen = tiles.map(({ chunk, row }) => {
          const { tokens, position } = sizes[chunk];
          return position + Math.floor((Math.min(row + tileRows, tokens * group) - 1) / group) + 1;
        });
        assertEquals(seen, seen.toSorted((a, b) => b - a));
      },
    ),
    { seed: 5 },
  );
});

Deno.test("planPrefill() makes sections of heads whose keys and values fit in half the cache, and never none", () => {
  const sections = [1024, 16384, 32768, 65536, 2 ** 20].map((tokens) => planPrefill([chunk({ tokens })], OPTIONS)[1]);
  assertEquals(sections, [8, 2, 1, 1, 1]);
  for (const kvHeads of [3, 9]) {
    const shape = { heads: 9, kvHeads, headDim: 64 };
    for (const tokens of [1, 20000, 60000]) {
      const section = planPrefill([chunk({ tokens })], { ...OPTIONS, shape })[1];
      assert(section >= 1 && kvHeads % section === 0, `${section} of ${kvHeads}`);
    }
  }
});

Deno.test("planPrefill() makes a section so large that its longest tile does not outlast it", () => {
  const mixed = Array.from({ length: 8 }, (_, i) => chunk({ tokens: 512, position: 4096 * i }));
  assertEquals(planPrefill(mixed, OPTIONS)[1], 8);
  assertEquals(planPrefill(mixed, { ...OPTIONS, workers: 20 })[1], 1);
  const shape = { heads: 32, kvHeads: 32, headDim: 128 };
  assertEquals(planPrefill([chunk({ tokens: 4096 })], { ...OPTIONS, shape })[1], 16);
});

Deno.test("planPrefill() cuts few tiles with much to see into parts that cover their blocks once", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ tokens: fc.integer({ min: 1, max: 700 }), position: fc.nat(50000) }), { maxLength: 6 }),
      fc.constantFrom(1, 2, 4, 8),
      fc.integer({ min: 0, max: 60 }),
      (sizes, kvHeads, slots) => {
        const shape = { heads: 8, kvHeads, headDim: 64 };
        const options = { ...OPTIONS, shape, slots };
        const chunks = sizes.map((size, queryRow) => chunk({ ...size, queryRow }));
        const seen = new Map<string, (readonly number[])[]>();
        for (const { chunk, row, part } of tilesOf(planPrefill(chunks, options))) {
          seen.set(`${chunk} ${row}`, [...seen.get(`${chunk} ${row}`) ?? [], part]);
        }
        let used = 0;
        for (const [name, parts] of seen) {
          const [index, row] = name.split(" ").map(Number);
          const { tokens, position } = sizes[index];
          const last = Math.min(row + OPTIONS.tileRows, tokens * 8 / kvHeads) - 1;
          parts.sort(([a], [b]) => a - b);
          assertEquals(parts[0][0], 0);
          assertEquals(parts.at(-1)?.[1], Math.ceil((position + Math.floor(last * kvHeads / 8) + 1) / 128));
          parts.forEach(([begin, end, count, slot, first], i) => {
            assert(begin < end);
            assertEquals(begin, i === 0 ? 0 : parts[i - 1][1]);
            assertEquals([count, slot - first], [parts.length, count === 1 ? 0 : i]);
            if (count > 1) used++;
          });
        }
        assert(used <= slots, `${used} of ${slots} slots`);
      },
    ),
    { seed: 6 },
  );
  const parts = (tokens: number, position: number): number =>
    planPrefill([chunk({ tokens, position })], { ...OPTIONS, tileRows: 256, workers: 66, slots: 40 })[0];
  assertEquals([parts(64, 32_704), parts(256, 32_512), parts(512, 32_256), parts(4096, 0), parts(64, 0)], [
    8,
    8,
    8,
    64,
    1,
  ]);
});

Deno.test("planPrefill() refuses chunks that the kernels cannot take", () => {
  for (
    const bad of [{ tokens: 0 }, { kvBegin: 64, kvEnd: 100 }, { kvBegin: 512, kvEnd: 256 }, { position: -1 }, {
      table: 0.5,
    }]
  ) {
    assertThrows(() => planPrefill([chunk(bad)], OPTIONS), RangeError, "Cannot plan prefill");
  }
});

Deno.test("checkNodes() takes parts of nodes that begin with the node, and refuses others", () => {
  for (const [kvBegin, kvEnd] of [[0, 5000], [256, 512], [256, 257], [512, 1024], [768, 930], [512, 512]]) {
    checkNodes([chunk({ position: 9000, kvBegin, kvEnd })]);
  }
  for (const [kvBegin, kvEnd] of [[256, 768], [256, 513], [512, 1025], [768, 1025]]) {
    assertThrows(() => checkNodes([chunk({ position: 9000, kvBegin, kvEnd })]), RangeError, "Cannot plan prefill");
  }
});
