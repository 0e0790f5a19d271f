import { assert, assertEquals, assertThrows } from "@std/assert";
import type { DevicePtr } from "./buffer.ts";
import { CudaContext } from "./context.ts";
import { CudaError } from "./error.ts";
import { FakeDriver } from "./fake_driver.ts";

const OPTIONS = { address: 0xab00n as DevicePtr, rows: 77, columns: 1000, rowBytes: 2016, boxRows: 56 };

Deno.test({
  name: "CudaContext.tensorMap() describes a matrix and its boxes, in memory as aligned as the driver wants",
  ignore: !FakeDriver.available,
  fn() {
    using fake = FakeDriver.open();
    using context = CudaContext.open({ libraries: fake.libraries });
    fake.takeNotes();
    const map = context.tensorMap(OPTIONS);
    assertEquals(map, new Uint8Array(128).fill(0x5a));
    assert(
      fake.takeNotes().includes(
        "map type 9 rank 2 at ab00 of 77 x 1000 every 2016 in 56 x 64 by 1, 1: 0 3 3 0 aligned 1",
      ),
    );
  },
});

Deno.test({
  name: "CudaContext.tensorMap() says what the driver did not take",
  ignore: !FakeDriver.available,
  fn() {
    using fake = FakeDriver.open();
    using context = CudaContext.open({ libraries: fake.libraries });
    fake.fail("cuTensorMapEncodeTiled", 1);
    assertThrows(
      () => context.tensorMap(OPTIONS),
      CudaError,
      "Cannot map 77 x 1000 values in boxes of 56 rows",
    );
  },
});
