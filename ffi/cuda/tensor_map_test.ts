import { assert, assertEquals, assertThrows } from "@std/assert";
import type { DevicePtr } from "./buffer.ts";
import { CudaError } from "./error.ts";
import { contextTest } from "./test_fake.ts";

const OPTIONS = { address: 0xab00n as DevicePtr, rows: 77, columns: 1000, rowBytes: 2016, boxRows: 56 };

contextTest(
  "CudaContext.tensorMap() describes a matrix and its boxes, in memory as aligned as the driver wants",
  ({ fake, context }) => {
    fake.takeNotes();
    const map = context.tensorMap(OPTIONS);
    assertEquals(map, new Uint8Array(128).fill(0x5a));
    assert(
      fake.takeNotes().includes(
        "map type 9 rank 2 at ab00 of 77 x 1000 every 2016 in 56 x 64 by 1, 1: 0 3 3 0 aligned 1",
      ),
    );
  },
);

contextTest("CudaContext.tensorMap() says what the driver did not take", ({ fake, context }) => {
  fake.fail("cuTensorMapEncodeTiled", 1);
  assertThrows(
    () => context.tensorMap(OPTIONS),
    CudaError,
    "Cannot map 77 x 1000 values in boxes of 56 rows",
  );
});
