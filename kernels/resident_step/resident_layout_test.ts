import { assert, assertEquals } from "@std/assert";
import { type ResidentShape, tryResidentLayout } from "./resident_layout.ts";

const H100 = { multiprocessors: 132, sharedBytesPerBlock: 232_448 };
const SMOL: ResidentShape = {
  hidden: 576,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  intermediate: 1536,
  layers: 30,
  vocab: 49_152,
  pairs: 32,
  pairing: "adjacent",
  tokens: 1,
};

Deno.test("tryResidentLayout() fits the shared memory and leaves no cluster without a place", () => {
  for (const tokens of [1, 2, 4, 8]) {
    const layout = tryResidentLayout({ ...SMOL, tokens }, H100);
    assert(layout !== undefined);
    assert(layout.sharedBytes <= H100.sharedBytesPerBlock);
    assertEquals(layout.parts, 8);
    assert(layout.ctas <= H100.multiprocessors);
  }
});

Deno.test("tryResidentLayout() refuses what the kernel does not take", () => {
  const refused: readonly Partial<ResidentShape>[] = [
    { tokens: 3 },
    { headDim: 128, heads: 4, kvHeads: 4 },
    { intermediate: 1520 },
    { hidden: 4096, intermediate: 14_336, heads: 32, kvHeads: 8 },
    { heads: 9, kvHeads: 1 },
    { heads: 14, kvHeads: 14 },
  ];
  assertEquals(refused.map((change) => tryResidentLayout({ ...SMOL, ...change }, H100)), refused.map(() => undefined));
  assertEquals(tryResidentLayout(SMOL, { ...H100, sharedBytesPerBlock: 49_152 }), undefined);
});
