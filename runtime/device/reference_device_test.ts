import { testDevice } from "../../tests/conformance/device_suite.ts";
import { ReferenceDevice } from "./reference_device.ts";

testDevice("ReferenceDevice", { open: (model, options) => new ReferenceDevice(model, options), tolerance: 1e-6 });
