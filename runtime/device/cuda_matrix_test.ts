import { assertEquals } from "@std/assert";
import { canStayPacked, type CudaMatrix, formOf, leastBytes, mapMatrix, placeMatrix } from "./cuda_matrix.ts";

/** Places one behind the other. */
function taker(): { readonly take: (bytes: number) => number; readonly taken: number[] } {
  const taken: number[] = [];
  return {
    taken,
    take: (bytes) => taken.push(bytes) - 1,
  };
}

Deno.test("placeMatrix() joins neighbours of a type, and starts a part where the type changes", () => {
  const { take, taken } = taker();
  const tensors = [
    { dtype: "Q4_0", rows: 64 },
    { dtype: "Q4_0", rows: 32 },
    { dtype: "Q8_0", rows: 32 },
  ] as const;
  const placed = placeMatrix({ tensors, cols: 64 }, "packed", take);
  assertEquals(placed, {
    rows: 128,
    cols: 64,
    paired: false,
    packed: [{ dtype: "Q4_0", first: 0, rows: 96, at: 0 }, { dtype: "Q8_0", first: 96, rows: 32, at: 1 }],
  });
  assertEquals(taken, [6 * 576, 2 * 1088]);
  assertEquals(leastBytes(placed), 6 * 576 + 2 * 1088);
  assertEquals(formOf(placed), "Q4_0 x 96 Q8_0 x 32");
});

Deno.test("placeMatrix() starts a part behind rows that fill no strip", () => {
  const { take } = taker();
  const tensors = [{ dtype: "Q4_0", rows: 24 }, { dtype: "Q4_0", rows: 24 }] as const;
  const placed = placeMatrix({ tensors, cols: 64 }, "both", take);
  assertEquals(placed.packed?.map(({ first, rows }) => [first, rows]), [[0, 24], [24, 24]]);
  assertEquals(placed.full, 0);
});

Deno.test("placeMatrix() keeps in bf16 what cannot stay packed, and everything where that is asked for", () => {
  const mixed = { tensors: [{ dtype: "Q4_0", rows: 32 }, { dtype: "Q6_K", rows: 32 }], cols: 256 } as const;
  assertEquals(canStayPacked(mixed), false);
  assertEquals(formOf(placeMatrix(mixed, "packed", taker().take)), "BF16");
  const alone = { tensors: [{ dtype: "Q8_0", rows: 32 }], cols: 256 } as const;
  const placed = placeMatrix(alone, "bf16", taker().take);
  assertEquals([formOf(placed), leastBytes(placed)], ["BF16", 32 * 256 * 2]);
});

Deno.test("placeMatrix() packs gate and up together when they are of one type", () => {
  const pair = (second: "Q4_1" | "Q4_0") => ({
    tensors: [{ dtype: "Q4_1", rows: 40 }, { dtype: second, rows: 40 }] as const,
    cols: 64,
    paired: true,
  });
  const { take, taken } = taker();
  const placed = placeMatrix(pair("Q4_1"), "packed", take);
  assertEquals(placed, {
    rows: 40,
    cols: 64,
    paired: true,
    packed: [{ dtype: "Q4_1", first: 0, rows: 40, at: 0 }],
  });
  assertEquals(taken, [5 * 640]);
  assertEquals(canStayPacked(pair("Q4_0")), false);
});

Deno.test("mapMatrix() moves every place", () => {
  const matrix: CudaMatrix<number> = {
    rows: 16,
    cols: 64,
    paired: false,
    full: 1,
    packed: [{ dtype: "Q4_0", first: 0, rows: 16, at: 2 }],
  };
  const moved = mapMatrix(matrix, (place) => `at ${place}`);
  assertEquals([moved.full, moved.packed?.[0].at], ["at 1", "at 2"]);
});
