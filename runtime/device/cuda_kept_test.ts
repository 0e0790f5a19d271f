import { assertEquals, assertThrows } from "@std/assert";
import { openSynthetic } from "../../tests/conformance/open_synthetic.ts";
import { keptForm, type KeptFormOptions } from "./cuda_kept.ts";
import { fullLayerBytes, uniformTypes } from "./cuda_weights.ts";

const HOPPER = { name: "H100", major: 9, minor: 0 } as const;

function options(changes: Partial<KeptFormOptions> = {}): KeptFormOptions {
  using model = openSynthetic({});
  const { config } = model;
  const memoryBytes = 4 * fullLayerBytes(config);
  return { config, stored: uniformTypes("Q4_0"), properties: HOPPER, memoryBytes, deterministic: false, ...changes };
}

Deno.test("keptForm() keeps copies too where they take at most a quarter of the memory", () => {
  assertEquals(keptForm(options()), "both");
  assertEquals(keptForm(options({ memoryBytes: options().memoryBytes - 8 })), "packed");
  assertEquals(keptForm(options({ wanted: "bf16" })), "bf16");
  assertEquals(keptForm(options({ wanted: "packed" })), "packed");
});

Deno.test("keptForm() expands at load what has no kernels, or must be multiplied one way", () => {
  assertEquals(keptForm(options({ stored: undefined })), "bf16");
  assertEquals(keptForm(options({ stored: uniformTypes("F16"), wanted: "packed" })), "bf16");
  assertEquals(keptForm(options({ deterministic: true })), "bf16");
  assertEquals(keptForm(options({ deterministic: true, wanted: "packed" })), "packed");
  const properties = { name: "A100", major: 8, minor: 0 };
  assertEquals(keptForm(options({ properties })), "bf16");
  assertThrows(() => keptForm(options({ properties, wanted: "packed" })), RangeError, "got 8.0 (A100)");
});
