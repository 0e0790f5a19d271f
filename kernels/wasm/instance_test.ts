import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { missingFeatures } from "./features.ts";
import { openWasm } from "./instance.ts";

Deno.test("missingFeatures() finds nothing missing here", () => {
  assertEquals(missingFeatures(), []);
});

for (const threads of [1, 2, 3]) {
  Deno.test(`openWasm() runs jobs on ${threads} threads`, async () => {
    using wasm = await openWasm({ threads });
    assertEquals(wasm.threads, threads);
    const bytes = 1 << 20;
    const address = wasm.alloc(bytes);
    for (let job = 0; job < 100; job++) wasm.exports.stream_read(wasm.team, address, bytes);
    wasm.free(address, bytes);
  });
}

Deno.test("openWasm() gives each runtime a memory of its own", async () => {
  using a = await openWasm({ threads: 2 });
  using b = await openWasm({ threads: 2 });
  const [x, y] = [a.alloc(64), b.alloc(64)];
  assertEquals(x, y);
  a.u8(x, 64).fill(1);
  b.u8(y, 64).fill(2);
  a.exports.stream_read(a.team, x, 0);
  b.exports.stream_read(b.team, y, 0);
  assertEquals([a.u8(x, 1)[0], b.u8(y, 1)[0]], [1, 2]);
});

Deno.test("openWasm() pins and unpins the calling thread", async () => {
  const { allowedCpus } = await import("../../ffi/affinity.ts");
  const before = allowedCpus();
  {
    using wasm = await openWasm({ threads: 1, pin: true });
    assertEquals(allowedCpus().length, wasm.pinned ? 1 : before.length);
  }
  assertEquals(allowedCpus(), before);
});

Deno.test("openWasm() refuses wrong options", async () => {
  await assertRejects(() => openWasm({ threads: 0 }), RangeError, "threads must be a positive integer, got 0");
  await assertRejects(() => openWasm({ threads: 1, maxMemoryBytes: 100 }), RangeError, "whole 64 KiB pages");
});

Deno.test("WasmRuntime.alloc() gives zeroed, aligned memory and grows", async () => {
  using wasm = await openWasm({ threads: 1 });
  const before = wasm.memoryBytes;
  const stale = wasm.bytes;
  const address = wasm.alloc(before + 1);
  assertEquals(address % 64, 0);
  assert(wasm.memoryBytes > before);
  assert(wasm.bytes.length > stale.length);
  assert(wasm.u8(address, before + 1).every((byte) => byte === 0));
});

Deno.test("WasmRuntime.alloc() refuses more than the memory's maximum and goes on", async () => {
  using wasm = await openWasm({ threads: 1, maxMemoryBytes: 8 << 20 });
  assertThrows(() => wasm.alloc(9 << 20), RangeError, "Cannot allocate 9437184 bytes");
  assertThrows(() => wasm.alloc(2 ** 33), RangeError, "Cannot allocate 8589934592 bytes");
  assert(wasm.alloc(1 << 20) > 0);
});

Deno.test("WasmRuntime.allocUntouched() reaches addresses above 2 GiB", async () => {
  using wasm = await openWasm({ threads: 1 });
  const low = wasm.allocUntouched(2 ** 31 - 2 ** 20);
  const high = wasm.allocUntouched(2 ** 22);
  assert(high > 2 ** 31 - 2 ** 20 + low - 64);
  wasm.u8(high, 2 ** 22).fill(7);
  assertEquals(wasm.bytes[high + 2 ** 22 - 1], 7);
});

Deno.test("WasmRuntime.grow() gives more than 2 GiB of zeroed pages beside allocations", async () => {
  using wasm = await openWasm({ threads: 1 });
  const before = wasm.alloc(100);
  const bytes = 2 ** 31 + 5;
  const pages = wasm.grow(bytes);
  assertEquals(pages % 65536, 0);
  assertEquals(wasm.u8(pages + bytes - 8, 8), new Uint8Array(8));
  const after = wasm.alloc(2 ** 20);
  assert(before < pages && after >= pages + bytes);
  assertThrows(() => wasm.grow(2 ** 31), RangeError, "Cannot allocate 2147483648 bytes");
  assertThrows(() => wasm.alloc(2 ** 31), RangeError, "Cannot allocate 2147483648 bytes");
  wasm.u8(after, 1)[0] = 1;
});

Deno.test("WasmRuntime[Symbol.dispose]() can be called twice and ends use", async () => {
  const wasm = await openWasm({ threads: 2 });
  wasm[Symbol.dispose]();
  wasm[Symbol.dispose]();
  assertThrows(() => wasm.exports, ReferenceError, "disposed");
  assertThrows(() => wasm.bytes, ReferenceError, "disposed");
});
