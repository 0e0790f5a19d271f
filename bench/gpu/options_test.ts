import { assertEquals, assertThrows } from "@std/assert";
import { parseGpuOptions } from "./options.ts";
import { PART_IDS } from "./row.ts";

Deno.test("parseGpuOptions() runs every part by default, and those that are named in their own order", () => {
  const options = parseGpuOptions([]);
  assertEquals(options, { parts: PART_IDS, peers: true, quick: false, seed: 1, commit: undefined, json: undefined });
  assertEquals(parseGpuOptions(["--only", "steps,decode", "--no-peers"])?.parts, ["decode", "steps"]);
  assertEquals(parseGpuOptions(["--help"]), undefined);
});

Deno.test("parseGpuOptions() refuses unknown parts and seeds", () => {
  assertThrows(() => parseGpuOptions(["--only", "decoding"]), TypeError, 'Cannot run part "decoding": wanted one of');
  assertThrows(() => parseGpuOptions(["--seed", "-1"]), TypeError);
});
