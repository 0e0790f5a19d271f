/**
 * What a run of the GPU tests says in the end.
 *
 * @module
 */
import type { Outcome, TestCase } from "./junit.ts";

/** Counts of a run. */
export interface Summary {
  /** Tests that ran on the GPU and passed. */
  readonly passed: number;
  /** Tests that failed, and files that could not be run. */
  readonly failed: number;
  /** Tests that did not run. */
  readonly skipped: number;
  /** Tests that passed without a GPU although one was missing: nothing is said about a GPU by them. */
  readonly withoutGpu: number;
}

/**
 * Counts a run. `missing` says why there is no GPU, if so: then no test counts as passed. `exitCode` is that of the run:
 * one that failed without a failed test, as when a file does not load, counts as one failure.
 */
export function summarize(
  tests: readonly TestCase[],
  { missing, exitCode }: { readonly missing: string | undefined; readonly exitCode: number },
): Summary {
  const count = (outcome: Outcome) => tests.filter((test) => test.outcome === outcome).length;
  const passed = count("passed");
  const failed = count("failed");
  return {
    passed: missing === undefined ? passed : 0,
    failed: failed === 0 && exitCode !== 0 ? 1 : failed,
    skipped: count("skipped"),
    withoutGpu: missing === undefined ? 0 : passed,
  };
}

/** Lines for a terminal; the last is the verdict. */
export function summaryLines(
  summary: Summary,
  { missing, tests }: { readonly missing: string | undefined; readonly tests: readonly TestCase[] },
): string[] {
  const { passed, failed, skipped, withoutGpu } = summary;
  const failures = tests.filter(({ outcome }) => outcome === "failed").map(({ file, name }) =>
    `FAILED ${file}: ${name}`
  );
  const alone = withoutGpu === 0
    ? []
    : [`Not counted, because deno task test has them: ${withoutGpu} of these files that need no GPU`];
  const reason = missing === undefined ? [] : [`No GPU is used: ${missing}`];
  return [...failures, ...reason, ...alone, `GPU tests: ${passed} passed, ${failed} failed, ${skipped} skipped`];
}
