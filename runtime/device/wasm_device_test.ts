import { assertEquals, assertRejects } from "@std/assert";
import { testDevice } from "../../tests/conformance/device_suite.ts";
import { openSynthetic } from "../../tests/conformance/open_synthetic.ts";
import { WasmDevice } from "./wasm_device.ts";

// f32 sums of a few hundred terms, of both signs, against f64.
const TOLERANCE = 2e-5;

testDevice("WasmDevice with 1 thread", {
  open: (model, options) => WasmDevice.open(model, { ...options, threads: 1 }),
  tolerance: TOLERANCE,
});

testDevice("WasmDevice with 2 threads", {
  open: (model, options) => WasmDevice.open(model, { ...options, threads: 2 }),
  tolerance: TOLERANCE,
});

Deno.test("WasmDevice.step() gives the same bits with 1, 2 and 3 threads", async () => {
  const ids = Array.from({ length: 300 }, (_, i) => (i * 37) % 250);
  const blocks = Array.from({ length: 20 }, (_, i) => i);
  const results: Uint8Array[] = [];
  for (const threads of [1, 2, 3]) {
    using model = openSynthetic({ dtype: "Q4_1", embeddingDtype: "Q8_0", heads: 6, kvHeads: 2, intermediate: 160 });
    using device = await WasmDevice.open(model, { blocks: 32, threads, maxStepTokens: 256 });
    device.step([{ tokens: ids.slice(0, 256), position: 0, blocks, logits: "none" }]);
    device.step([{ tokens: ids.slice(256, 299), position: 256, blocks, logits: "none" }]);
    const output = device.step([{ tokens: ids.slice(299), position: 299, blocks, logits: "last" }]);
    const logits = output.logits(0).slice();
    results.push(new Uint8Array(logits.buffer));
  }
  assertEquals(results[1], results[0]);
  assertEquals(results[2], results[0]);
});

Deno.test("WasmDevice.open() refuses what does not fit into 4 GiB, naming the sizes", async () => {
  using model = openSynthetic({});
  await assertRejects(
    () => WasmDevice.open(model, { blocks: 2 ** 24 }),
    RangeError,
    "KV pool 65536 MiB",
  );
});
