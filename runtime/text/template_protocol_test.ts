import { assertEquals } from "@std/assert";
import { templateLimits } from "./template_protocol.ts";

Deno.test("templateLimits() are 100 ms and 1 MiB for usual requests and grow with long ones", () => {
  assertEquals(templateLimits(1000), { cpuMs: 100, wallMs: 2000, output: (1 << 20) + 1000 });
  assertEquals(templateLimits(1 << 20), { cpuMs: 400, wallMs: 8000, output: 2 << 20 });
});
