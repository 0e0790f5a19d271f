import { testDevice } from "../../tests/conformance/device_suite.ts";
import { testSpread } from "../../tests/conformance/spread_suite.ts";
import { ReferenceDevice } from "./reference_device.ts";
import { ReferenceKvStore } from "./reference_kv_store.ts";

testDevice("ReferenceDevice", { open: (model, options) => new ReferenceDevice(model, options), tolerance: 1e-6 });

testSpread("ReferenceDevice", {
  open: (model, options) => new ReferenceDevice(model, options),
  openStore: (options) => new ReferenceKvStore(options),
  segments: 2,
});
