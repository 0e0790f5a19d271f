/**
 * Reads the XML that `deno test --junit-path` writes.
 *
 * @module
 */

/** How one test ended. */
export type Outcome = "passed" | "failed" | "skipped";

/** One test of a run. */
export interface TestCase {
  /** File, as the run named it. */
  readonly file: string;
  /** Name. */
  readonly name: string;
  /** How it ended. */
  readonly outcome: Outcome;
  /** Time it took, seconds. */
  readonly seconds: number;
}

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function decodeEntities(text: string): string {
  return text.replace(
    /&(?:#(x?)([0-9a-f]+)|(\w+));/gi,
    (whole, hex, code, name) =>
      name === undefined ? String.fromCodePoint(parseInt(code, hex === "" ? 10 : 16)) : ENTITIES[name] ?? whole,
  );
}

/**
 * The tests of a run, steps left out.
 *
 * @throws {SyntaxError} when the text is not such XML.
 */
export function parseJunit(xml: string): TestCase[] {
  if (!/<\/testsuites>\s*$/.test(xml)) {
    throw new SyntaxError("Cannot read test results: wanted testsuites, got other text");
  }
  const tests: TestCase[] = [];
  const pattern = /<testcase name="([^"]*)" classname="([^"]*)" time="([^"]*)"[^>]*>([\s\S]*?)<\/testcase>/g;
  for (const [, rawName, rawFile, time, body] of xml.matchAll(pattern)) {
    const [name, file] = [decodeEntities(rawName), decodeEntities(rawFile)];
    const isStep = tests.some((test) => test.file === file && name.startsWith(`${test.name} > `));
    if (isStep) continue;
    const outcome = body.includes("<skipped") ? "skipped" : /<(failure|error)\b/.test(body) ? "failed" : "passed";
    tests.push({ file, name, outcome, seconds: Number(time) });
  }
  return tests;
}
