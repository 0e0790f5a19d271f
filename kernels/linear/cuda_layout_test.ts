import { assertEquals, assertThrows } from "@std/assert";
import { cudaMatrixBytes, cudaPairBytes, RECORD_BYTES, tilePacked, tilePair } from "./cuda_layout.ts";

Deno.test("cudaMatrixBytes() pads packed weights to whole records", () => {
  assertEquals(cudaMatrixBytes({ dtype: "BF16", rows: 65, cols: 8 }), 65 * 8 * 2);
  assertEquals(cudaMatrixBytes({ dtype: "Q4_0", rows: 16, cols: 64 }), RECORD_BYTES.Q4_0);
  assertEquals(cudaMatrixBytes({ dtype: "Q8_0", rows: 17, cols: 96 }), 4 * RECORD_BYTES.Q8_0);
});

Deno.test("cudaPairBytes() pads each of two matrices to half strips", () => {
  assertEquals(cudaPairBytes({ dtype: "BF16", rows: 9, cols: 8 }), 2 * 9 * 8 * 2);
  assertEquals(cudaPairBytes({ dtype: "Q4_1", rows: 9, cols: 64 }), 2 * RECORD_BYTES.Q4_1);
});

Deno.test("cudaMatrixBytes() refuses sizes that are no whole blocks", () => {
  assertThrows(() => cudaMatrixBytes({ dtype: "Q4_0", rows: 1, cols: 48 }), RangeError, "axis K (cols)");
  assertThrows(() => cudaMatrixBytes({ dtype: "BF16", rows: 0, cols: 48 }), RangeError, "axis R (rows)");
});

Deno.test("tilePacked() refuses another length", () => {
  assertThrows(() => tilePacked(new Uint8Array(5), { dtype: "Q4_0", rows: 1, cols: 32 }), RangeError, "18 bytes");
});

/** One stored block of each type: scale 0x1234, minimum 0x5678, integer i = i % 16 (or i - 16 as a byte). */
function block(dtype: "Q8_0" | "Q4_0" | "Q4_1"): Uint8Array {
  if (dtype === "Q8_0") return Uint8Array.from([0x34, 0x12, ...Array.from({ length: 32 }, (_, i) => i - 16 & 255)]);
  const nibbles = Array.from({ length: 16 }, (_, i) => i | (15 - i) << 4);
  return Uint8Array.from([0x34, 0x12, ...(dtype === "Q4_1" ? [0x78, 0x56] : []), ...nibbles]);
}

Deno.test("tilePacked() gives a lane four pairs of columns of a row", () => {
  // Row 9, second block of the record's first 64 columns: lane (1, j), lower rows.
  for (const dtype of ["Q4_0", "Q4_1"] as const) {
    const stored = new Uint8Array(10 * 2 * block(dtype).length);
    stored.set(block(dtype), (9 * 2 + 1) * block(dtype).length);
    const view = new DataView(tilePacked(stored, { dtype, rows: 10, cols: 64 }).buffer);
    for (let j = 0; j < 4; j++) {
      const word = view.getUint32(16 * (4 + j) + 8 + 4, true);
      for (let i = 0; i < 8; i++) {
        const column = 8 * (i >> 1) + 2 * j + (i & 1);
        const stored = (column < 16 ? column : 31 - column) ^ (dtype === "Q4_0" ? 8 : 0);
        assertEquals(word >>> 4 * (i >> 1) + 16 * (i & 1) & 15, stored, `column ${column}`);
      }
    }
    assertEquals(view.getUint16(512 + 8 + 4 + 2, true), 0x1234);
    if (dtype === "Q4_1") assertEquals(view.getUint16(576 + 8 + 4 + 2, true), 0x5678);
  }
});

Deno.test("tilePacked() gives a lane the bytes of Q8_0 in the order of pairs", () => {
  const stored = new Uint8Array(18 * 34);
  stored.set(block("Q8_0"), 17 * 34);
  const tiled = tilePacked(stored, { dtype: "Q8_0", rows: 18, cols: 32 });
  // Row 17 is row 1 of the second record, upper rows.
  const record = tiled.subarray(1088, 2 * 1088);
  const bytes = record.subarray(16 * (4 + 2), 16 * (4 + 2) + 8);
  // Columns 4, 5 and 12, 13, then 20, 21 and 28, 29; integer i is i - 16.
  assertEquals([...new Int8Array(bytes.slice().buffer)], [-12, -4, -11, -3, 4, 12, 5, 13]);
  assertEquals(record[1024 + 8] | record[1024 + 9] << 8, 0x1234);
  assertEquals(tiled.filter((byte) => byte !== 0).length, 31 + 2);
});

Deno.test("tilePair() gives each matrix half of every strip", () => {
  const shape = { dtype: "Q8_0", rows: 9, cols: 32 } as const;
  const [first, second] = [new Uint8Array(9 * 34), new Uint8Array(9 * 34)];
  first.set(block("Q8_0"), 8 * 34);
  second.set(block("Q8_0"), 7 * 34);
  const tiled = tilePair({ first, second }, shape);
  const alone = (row: number, rows: number) => {
    const stored = new Uint8Array(rows * 34);
    stored.set(block("Q8_0"), row * 34);
    return tilePacked(stored, { ...shape, rows });
  };
  assertEquals(tiled, Uint8Array.from([...alone(15, 16), ...alone(0, 16)]));
});
