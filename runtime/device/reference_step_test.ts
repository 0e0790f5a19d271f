import { testSpread } from "../../tests/conformance/spread_suite.ts";
import { ReferenceDevice } from "./reference_device.ts";
import { ReferenceKvStore } from "./reference_kv_store.ts";

testSpread("ReferenceDevice", {
  open: (model, options) => new ReferenceDevice(model, options),
  openStore: (options) => new ReferenceKvStore(options),
  segments: 2,
  spec: { hidden: 32, intermediate: 32 },
});
