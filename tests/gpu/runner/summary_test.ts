import { assertEquals } from "@std/assert";
import type { TestCase } from "./junit.ts";
import { summarize, summaryLines } from "./summary.ts";

const TESTS: readonly TestCase[] = [
  { file: "a", name: "one", outcome: "passed", seconds: 1 },
  { file: "a", name: "two", outcome: "skipped", seconds: 0 },
  { file: "b", name: "three", outcome: "skipped", seconds: 0 },
];

Deno.test("summarize() counts no test as passed where there is no GPU", () => {
  const summary = summarize(TESTS, { missing: "no driver", exitCode: 0 });
  assertEquals(summary, { passed: 0, failed: 0, skipped: 2, withoutGpu: 1 });
  assertEquals(summaryLines(summary, { missing: "no driver", tests: TESTS }), [
    "No GPU is used: no driver",
    "Not counted, because deno task test has them: 1 of these files that need no GPU",
    "GPU tests: 0 passed, 0 failed, 2 skipped",
  ]);
});

Deno.test("summarize() counts what ran on a GPU, and a run that ended badly as a failure", () => {
  const [first] = TESTS;
  const tests: readonly TestCase[] = [...TESTS, { ...first, name: "four", outcome: "failed" }];
  const summary = summarize(tests, { missing: undefined, exitCode: 1 });
  assertEquals(summary, { passed: 1, failed: 1, skipped: 2, withoutGpu: 0 });
  assertEquals(summaryLines(summary, { missing: undefined, tests }), [
    "FAILED a: four",
    "GPU tests: 1 passed, 1 failed, 2 skipped",
  ]);
  assertEquals(summarize(TESTS, { missing: undefined, exitCode: 1 }).failed, 1);
});
