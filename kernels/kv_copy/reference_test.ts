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

Deno.test("checkKvCopy() and PoolLayout refuse sizes that do not fit", () => {
  const shape = { layers: 1, kvHeads: 1, headDim: 64, storedTokens: 16 };
  assertThrows(() => checkKvCopy({ ...shape, storedTokens: 24 }), RangeError, "8, 16, 32 or 64 tokens, got 24");
  assertThrows(() => checkKvCopy({ ...shape, headDim: 257 }), RangeError, "axis D must be at most 256, got 257");
  assertThrows(() => new PoolLayout({ ...shape, kvHeads: 0 }), RangeError, "kvHeads must be a positive integer, got 0");
});
