import { assert, assertEquals, assertThrows } from "@std/assert";
import { CudaError } from "./error.ts";
import { contextTest } from "./test_fake.ts";

contextTest("DeviceBuffer.at() gives addresses inside the buffer and its end, and no others", ({ context }) => {
  using buffer = context.alloc(1000);
  assertEquals(buffer.bytes, 1000);
  assertEquals(buffer.at(0), buffer.address);
  assertEquals(buffer.at(1000) - buffer.address, 1000n);
  for (const offset of [-1, 1001, 0.5, NaN]) {
    assertThrows(() => buffer.at(offset), RangeError, `wanted an offset from 0 to 1000, got ${offset}`);
  }
});

contextTest("CudaContext.alloc() and pinned() refuse sizes that are none", ({ context }) => {
  for (const bytes of [0, -1, 1.5, NaN, Infinity]) {
    assertThrows(() => context.alloc(bytes), RangeError, `got ${bytes}`);
    assertThrows(() => context.pinned(bytes), RangeError, `got ${bytes}`);
  }
  assertThrows(() => context.pinned(2 ** 32 + 1), RangeError, "wanted 1 to 4294967296 bytes");
});

contextTest("CudaContext.alloc() says how much was wanted when memory is out", ({ fake, context }) => {
  fake.fail("cuMemAlloc_v2", 2);
  assertThrows(
    () => context.alloc(4096),
    CudaError,
    "Cannot allocate 4096 bytes of device memory: cuMemAlloc_v2 returned CUDA_ERROR_OUT_OF_MEMORY (2)",
  );
});

contextTest("PinnedBuffer registers whole pages that the device sees where JavaScript writes", ({ fake, context }) => {
  fake.takeNotes();
  using pinned = context.pinned(70000);
  assert(fake.takeNotes().includes("register 131072 bytes, 0 past a page, flags 3"));
  assertEquals([pinned.bytes, pinned.buffer.byteLength], [70000, 131072]);
  using stream = context.stream();
  using memory = context.alloc(8);
  new Uint8Array(pinned.buffer).set([1, 2, 3, 4, 5, 6, 7, 8], 16);
  stream.copy(memory.address, pinned.at(16), 8);
  stream.copy(pinned.at(4096), memory.address, 8);
  assertEquals([...new Uint8Array(pinned.buffer, 4096, 8)], [1, 2, 3, 4, 5, 6, 7, 8]);
  assertThrows(() => structuredClone(pinned.buffer, { transfer: [pinned.buffer] }));
});

contextTest("CudaContext.pinned() gives the memory back when the device cannot see it", ({ fake, context }) => {
  const before = fake.live;
  fake.fail("cuMemHostGetDevicePointer_v2", 1);
  assertThrows(() => context.pinned(10), CudaError, "Cannot pin 10 bytes of host memory");
  assertEquals(fake.live, before);
  fake.fail("");
});
