import { assertEquals } from "@std/assert";
import { BENCH_SHAPES } from "../../bench/gpu/shapes.ts";
import { cudaStepTokens } from "./cuda_step_tokens.ts";

Deno.test("cudaStepTokens() takes larger steps for small models", () => {
  const of = (name: string) =>
    BENCH_SHAPES.filter((shape) => shape.name === name).map(({ config }) => cudaStepTokens(config));
  assertEquals(of("smollm2-135m"), [{ most: 8192, mixed: 8192 }]);
  assertEquals(of("llama3-8b"), [{ most: 4096, mixed: 2048 }]);
});
