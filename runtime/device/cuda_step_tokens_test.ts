import { assertEquals } from "@std/assert";
import { openSynthetic } from "../../tests/conformance/open_synthetic.ts";
import { cudaStepTokens } from "./cuda_step_tokens.ts";

Deno.test("cudaStepTokens() takes larger steps for small models", () => {
  using model = openSynthetic();
  const { config } = model;
  assertEquals(cudaStepTokens(config), { most: 8192, mixed: 8192 });
  const large = { layers: 32, hidden: 4096, heads: 32, kvHeads: 8, headDim: 128, intermediate: 14_336 };
  assertEquals(cudaStepTokens({ ...config, ...large }), { most: 4096, mixed: 2048 });
});
