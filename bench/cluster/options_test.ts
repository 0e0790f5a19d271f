import { assertEquals, assertThrows } from "@std/assert";
import { parseClusterOptions } from "./options.ts";
import { CLUSTER_ROW_IDS, CLUSTER_ROWS } from "./rows.ts";

Deno.test("parseClusterOptions() runs every row at full size by default", () => {
  const options = parseClusterOptions([], { model: "m.gguf" });
  assertEquals(options?.rows, CLUSTER_ROW_IDS);
  assertEquals([options?.model, options?.context, options?.batch, options?.quick], ["m.gguf", 4096, 8, false]);
});

Deno.test("parseClusterOptions() runs the rows that are named, in the order of the suite", () => {
  assertEquals(parseClusterOptions(["--rows", "paused,round-trip,paused"])?.rows, ["round-trip", "paused"]);
});

Deno.test("parseClusterOptions() makes everything small with --quick but what is stated", () => {
  const options = parseClusterOptions(["--quick", "--context", "1024"]);
  assertEquals([options?.repeats, options?.context, options?.batch, options?.warmMs], [1, 1024, 2, 0]);
});

Deno.test("parseClusterOptions() answers nothing when help is asked for", () => {
  assertEquals(parseClusterOptions(["--help"]), undefined);
});

const WRONG: readonly (readonly [args: string[], message: string])[] = [
  [["--row", "paused"], "--row"],
  [["--rows", "pause"], 'row "pause"'],
  [["--context", "1000"], "multiple of 1024"],
  [["--repeats", "0"], "--repeats 0"],
  [["--warm-ms", "soon"], "--warm-ms soon"],
];
for (const [args, message] of WRONG) {
  Deno.test(`parseClusterOptions() refuses ${args.join(" ")}`, () => {
    assertThrows(() => parseClusterOptions(args), TypeError, message);
  });
}

Deno.test("CLUSTER_ROWS has one row for each name, and no aim below what must be reached", () => {
  assertEquals(CLUSTER_ROWS.map(({ id }) => id), [...CLUSTER_ROW_IDS]);
  for (const { better, atLeast, aim = atLeast } of CLUSTER_ROWS) {
    assertEquals(better === "higher" ? aim >= atLeast : aim <= atLeast, true);
  }
});
