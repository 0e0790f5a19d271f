import { assertEquals, assertThrows } from "@std/assert";
import { WasmKvPool } from "../attend_partial/kv_pool.ts";
import { randomValues } from "../attend_partial/test_data.ts";
import { bf16Bits } from "../cuda/test_gpu.ts";
import { openWasm } from "../wasm/instance.ts";
import { PoolLayout } from "./pool_layout.ts";
import { exportReference, importReference } from "./reference.ts";
import { checkKvCopy, SEEDS, storedBlockBytes } from "./spec.ts";

for (const [headDim, storedTokens] of [[64, 16], [128, 64], [20, 8], [13, 32], [80, 16]]) {
  Deno.test(`exportReference() gives the bytes of a WASM pool for D ${headDim} and blocks of ${storedTokens}`, async () => {
    const [layers, kvHeads] = [2, 3];
    const shape = { layers, kvHeads, headDim, storedTokens };
    const layout = new PoolLayout(shape);
    using wasm = await openWasm({ threads: 1 });
    const blocks = 64 / storedTokens;
    using pool = new WasmKvPool(wasm, { blocks, blockTokens: storedTokens, layers, kvHeads, headDim, kvType: "bf16" });
    const block = new Uint8Array(layout.blockBytes);
    const view = new DataView(block.buffer);
    const table = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
    for (let layer = 0; layer < layers; layer++) {
      const [k, v] = [0, 1].map((part) => randomValues(64 * kvHeads * headDim, SEEDS.test + 2 * layer + part, 3));
      pool.append({ layer, table, position: 0, k, v });
      for (let i = 0; i < k.length; i++) {
        const place = { layer, kvHead: Math.floor(i / headDim) % kvHeads, dim: i % headDim };
        const slot = Math.floor(i / headDim / kvHeads);
        view.setUint16(layout.offset({ ...place, slot, value: false }), bf16Bits(k[i]), true);
        view.setUint16(layout.offset({ ...place, slot, value: true }), bf16Bits(v[i]), true);
      }
    }
    const stored = exportReference(block, shape);
    assertEquals(stored.length, blocks * pool.blockBytes);
    table.forEach((id, i) => {
      const bytes = storedBlockBytes(shape);
      assertEquals(stored.subarray(i * bytes, (i + 1) * bytes), pool.readBlock(id).subarray(), `block ${i}`);
    });
    assertEquals(importReference(stored, shape), block);
  });
}

Deno.test("importReference() puts each stored block into its own slots", () => {
  const shape = { layers: 1, kvHeads: 1, headDim: 8, storedTokens: 16 };
  const block = Uint8Array.from({ length: new PoolLayout(shape).blockBytes }, (_, i) => i * 7 % 251);
  const stored = exportReference(block, shape);
  const bytes = storedBlockBytes(shape);
  const swapped = Uint8Array.of(
    ...stored.subarray(bytes, 2 * bytes),
    ...stored.subarray(0, bytes),
    ...stored.subarray(2 * bytes),
  );
  const back = importReference(swapped, shape);
  const layout = new PoolLayout(shape);
  const place = { layer: 0, kvHead: 0, value: true, dim: 3 };
  assertEquals(back[layout.offset({ ...place, slot: 5 })], block[layout.offset({ ...place, slot: 21 })]);
  assertEquals(back[layout.offset({ ...place, slot: 40 })], block[layout.offset({ ...place, slot: 40 })]);
});

Deno.test("exportReference() of an fp8 block gives bf16 that importReference() makes the same block of", () => {
  const shape = { layers: 1, kvHeads: 1, headDim: 64, storedTokens: 16, kvType: "fp8" } as const;
  const { blockBytes } = new PoolLayout(shape);
  assertEquals(blockBytes, new PoolLayout({ ...shape, kvType: "bf16" }).blockBytes / 2);
  // Every number, and of the two NaN the one that comes back.
  const block = Uint8Array.from({ length: blockBytes }, (_, i) => i % 256 === 0xff ? 0x7f : i % 256);
  const stored = exportReference(block, shape);
  assertEquals(stored.length, 2 * blockBytes);
  assertEquals(importReference(stored, shape), block);
});

Deno.test("PoolLayout.offset() gives every value of a part a place of its own, and eight rows of a chunk all banks", () => {
  for (const kvType of ["bf16", "fp8"] as const) {
    const layout = new PoolLayout({ layers: 1, kvHeads: 1, headDim: 128, kvType });
    const at = (slot: number, dim: number) => layout.offset({ layer: 0, kvHead: 0, value: false, slot, dim });
    const { elementBytes, partBytes } = layout;
    const places = Array.from({ length: 64 * 128 }, (_, i) => at(i % 64, Math.floor(i / 64)));
    assertEquals(places.toSorted((a, b) => a - b), places.map((_, i) => i * elementBytes));
    assertEquals(places.length * elementBytes, partBytes);
    for (let slot = 0; slot < 64; slot += 8) {
      for (let dim = 0; dim < 128; dim += 16 / elementBytes) {
        const banks = Array.from({ length: 8 }, (_, row) => at(slot + row, dim) % 128 / 16);
        assertEquals(banks.toSorted(), [0, 1, 2, 3, 4, 5, 6, 7]);
      }
    }
  }
});

Deno.test("checkKvCopy() and PoolLayout refuse sizes that do not fit", () => {
  const shape = { layers: 1, kvHeads: 1, headDim: 64, storedTokens: 16 };
  assertThrows(() => checkKvCopy({ ...shape, storedTokens: 24 }), RangeError, "8, 16, 32 or 64 tokens, got 24");
  assertThrows(() => checkKvCopy({ ...shape, headDim: 257 }), RangeError, "axis D must be at most 256, got 257");
  assertThrows(() => new PoolLayout({ ...shape, kvHeads: 0 }), RangeError, "kvHeads must be a positive integer, got 0");
});
