import { assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import { e4m3Value } from "../../kernels/e4m3.ts";
import type { KvLayout } from "./device.ts";
import { kvStoreBlocks, kvTokenBytes } from "./kv_size.ts";
import { openHolderStore } from "./open_holder_store.ts";
import { openKvStore } from "./wasm_kv_store.ts";

const LAYOUT: KvLayout = { layers: 30, heads: 9, kvHeads: 3, headDim: 64, blockTokens: 16, kvType: "f16" };

Deno.test("openKvStore() takes no memory for blocks that were never written", async () => {
  const before = Deno.memoryUsage().rss;
  const blocks = kvStoreBlocks(LAYOUT, 3 * 2 ** 30);
  using store = await openKvStore({ layout: LAYOUT, blocks });
  assertEquals(store.blockBytes, 16 * kvTokenBytes(LAYOUT, "f16"));
  assertEquals([store.blocks, store.layout], [blocks, LAYOUT]);
  const bytes = Uint8Array.from({ length: store.blockBytes }, (_, i) => i);
  store.writeBlock(blocks - 1, bytes);
  assertEquals(store.readBlock(blocks - 1), bytes);
  // Other tests of the process may take some at the same time.
  assertLess(Deno.memoryUsage().rss - before, 2 ** 29);
});

Deno.test("openKvStore() refuses a pool larger than its memory, naming both", async () => {
  await assertRejects(
    () => openKvStore({ layout: LAYOUT, blocks: kvStoreBlocks(LAYOUT, 2 ** 32) }),
    RangeError,
    "4096 MiB of blocks",
  );
  const options = { layout: LAYOUT, blocks: kvStoreBlocks(LAYOUT, 2 ** 28), maxMemoryBytes: 2 ** 28 };
  await assertRejects(() => openKvStore(options), RangeError, "exceed its 256 MiB");
});

Deno.test("openKvStore() refuses sizes that no kernel takes", async () => {
  const refused: [Partial<KvLayout>, string][] = [
    [{ heads: 8 }, "multiple of kvHeads"],
    [{ headDim: 257 }, "headDim"],
    [{ headDim: 0 }, "headDim"],
    [{ blockTokens: 24 }, "blockTokens"],
    [{ blockTokens: 4 }, "blockTokens"],
    [{ layers: 1.5 }, "layers"],
  ];
  for (const [change, message] of refused) {
    await assertRejects(() => openKvStore({ layout: { ...LAYOUT, ...change }, blocks: 4 }), RangeError, message);
  }
  await assertRejects(() => openKvStore({ layout: LAYOUT, blocks: 0 }), RangeError, "blocks");
  const fp8 = { ...LAYOUT, kvType: "fp8" } as const;
  await assertRejects(() => openKvStore({ layout: fp8, blocks: 4 }), RangeError, "f32, f16 or bf16, got fp8");
});

Deno.test("openHolderStore() on processors holds the numbers of fp8 as bf16, as they travel", async () => {
  using store = await openHolderStore({ kind: "wasm", layout: { ...LAYOUT, kvType: "fp8" }, kvBytes: 2 ** 22 });
  assertEquals(store.layout.kvType, "bf16");
  assertEquals(store.blockBytes, 16 * kvTokenBytes(LAYOUT, "bf16"));
  const bf16 = Uint16Array.from({ length: store.blockBytes / 2 }, (_, i) => {
    const value = e4m3Value(i % 0x7f) * (i % 3 === 0 ? -1 : 1);
    return new Uint32Array(Float32Array.of(value).buffer)[0] >>> 16;
  });
  const bytes = new Uint8Array(bf16.buffer);
  store.writeBlock(1, bytes);
  assertEquals(store.readBlock(1), bytes);
});

Deno.test("WasmKvStore cannot be used after dispose", async () => {
  const store = await openKvStore({ layout: LAYOUT, blocks: 2 });
  store[Symbol.dispose]();
  store[Symbol.dispose]();
  assertThrows(() => store.readBlock(0), ReferenceError);
});

Deno.test("kvStoreBlocks() gives the blocks that fit, at least one", () => {
  const blockBytes = 16 * kvTokenBytes(LAYOUT, "f16");
  assertEquals(kvStoreBlocks(LAYOUT, blockBytes), 1);
  assertEquals(kvStoreBlocks(LAYOUT, 10 * blockBytes - 1), 9);
  assertThrows(() => kvStoreBlocks(LAYOUT, blockBytes - 1), RangeError, `takes ${blockBytes} bytes`);
  assertThrows(() => kvStoreBlocks(LAYOUT, NaN), RangeError, "got NaN bytes");
});
