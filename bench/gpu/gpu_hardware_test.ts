import { assertEquals } from "@std/assert";
import { parseGpuState } from "./gpu_hardware.ts";

Deno.test("parseGpuState() reads the line of the first GPU", () => {
  const state = parseGpuState("1980 MHz, 1980 MHz, 2619 MHz, 700.00 W\n345 MHz, 1980 MHz, 2619 MHz, 700.00 W\n");
  assertEquals(state, { clock: "1980 MHz", mostClock: "1980 MHz", memoryClock: "2619 MHz", powerLimit: "700.00 W" });
});

Deno.test("parseGpuState() gives nothing for a complaint", () => {
  assertEquals(parseGpuState("No devices were found\n"), undefined);
});
