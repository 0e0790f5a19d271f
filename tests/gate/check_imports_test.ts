import { assertEquals } from "@std/assert";
import { findViolations } from "./check_imports.ts";

Deno.test("findViolations() accepts imports along the direction", () => {
  const files = new Map([
    ["runtime/engine/engine.ts", 'import { a } from "../../scheduler/pool.ts";\nexport { b } from "./b.ts";'],
    ["kernels/x.ts", 'import type { F } from "../ffi/f.ts";'],
    ["scheduler/a_test.ts", 'import { assert } from "@std/assert";'],
  ]);
  assertEquals(findViolations(files, { "@std/assert": "./tests/std/assert.ts" }), []);
});

Deno.test("findViolations() finds static, re-exported, dynamic and mapped imports against it", () => {
  const files = new Map([
    ["kernels/a.ts", 'import { x } from "../runtime/x.ts";'],
    ["scheduler/b.ts", 'export * from "../kernels/y.ts";'],
    ["ffi/c.ts", 'const m = await import("../runtime/z.ts");'],
    ["plugins/d.ts", 'import { Engine } from "@infinite-llm/runtime";'],
  ]);
  assertEquals(findViolations(files, { "@infinite-llm/runtime": "./mod.ts" }), [
    { file: "kernels/a.ts", target: "runtime/x.ts" },
    { file: "scheduler/b.ts", target: "kernels/y.ts" },
    { file: "ffi/c.ts", target: "runtime/z.ts" },
    { file: "plugins/d.ts", target: "mod.ts" },
  ]);
});
