import { testSpread } from "../../tests/conformance/spread_suite.ts";
import { WasmDevice } from "./wasm_device.ts";
import { openKvStore } from "./wasm_kv_store.ts";

for (const threads of [1, 2]) {
  testSpread(`WasmDevice with ${threads === 1 ? "1 thread" : `${threads} threads`}`, {
    open: (model, options) => WasmDevice.open(model, { ...options, threads }),
    // Holders need not have as many threads.
    openStore: (options) => openKvStore({ ...options, threads: 3 - threads }),
    segments: 5,
  });
}
