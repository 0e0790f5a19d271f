/**
 * Runs test files under compute-sanitizer, each in a process of its own.
 *
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseJunit, type TestCase } from "./junit.ts";
import { readSanitizerLogs, type SanitizerReport } from "./sanitizer_log.ts";

/** How to run. */
export interface SanitizeOptions {
  /** Test files. */
  readonly files: readonly string[];
  /** memcheck, racecheck, synccheck or initcheck. */
  readonly tool: string;
  /** Files that run at the same time. */
  readonly jobs: number;
  /** Only tests whose name has this text. */
  readonly filter?: string;
  /** Time after which a file is given up, seconds. */
  readonly limitSeconds: number;
  /** Told of each file that is done. */
  readonly onFile: (file: SanitizedFile) => void;
}

/** What came of one file. */
export interface SanitizedFile extends SanitizerReport {
  /** The file. */
  readonly file: string;
  /** Its tests; none when it was given up. */
  readonly tests: readonly TestCase[];
  /** How the run ended, as programs do. */
  readonly code: number;
  /** Time it took. */
  readonly seconds: number;
}

/** Runs the files, `jobs` at a time. */
export async function sanitize(options: SanitizeOptions): Promise<readonly SanitizedFile[]> {
  const waiting = [...options.files];
  const done: SanitizedFile[] = [];
  await Promise.all(Array.from({ length: options.jobs }, async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const result = await sanitizeFile(file, options);
      options.onFile(result);
      done.push(result);
    }
  }));
  return done.sort((a, b) => a.file < b.file ? -1 : 1);
}

/** A line about a file, and one for each of its findings. */
export function fileLines({ file, tests, errors, findings, seconds, code }: SanitizedFile): string[] {
  const count = (outcome: TestCase["outcome"]) => tests.filter((test) => test.outcome === outcome).length;
  const said = errors === undefined ? `did not end (${code})` : `${errors} errors`;
  const counts = `${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped`;
  return [
    `${file}: ${said}; ${counts}; ${seconds.toFixed(0)} s`,
    ...findings.map(({ what, where, count }) => `  ${count} x ${what}${where === "" ? "" : ` at ${where}`}`),
  ];
}

async function sanitizeFile(file: string, options: SanitizeOptions): Promise<SanitizedFile> {
  const { tool, filter, limitSeconds } = options;
  const folder = await Deno.makeTempDir({ prefix: "sanitizer-" });
  const startMs = performance.now();
  try {
    const junit = join(folder, "junit.xml");
    const filters = filter === undefined ? [] : ["--filter", filter];
    const checks = [
      ...["--tool", tool, "--target-processes", "all", "--log-file", join(folder, "%p.log")],
      // Calls of the driver that fail on purpose are tested; a deliberate failure is none of a kernel's.
      ...["--report-api-errors", "no", "--print-limit", "1000"],
    ];
    const test = [Deno.execPath(), "test", "-A", "--no-check", `--junit-path=${junit}`, ...filters, file];
    const { code, stdout, stderr } = await new Deno.Command("timeout", {
      args: ["--kill-after=5", String(limitSeconds), "compute-sanitizer", ...checks, ...test],
      cwd: fileURLToPath(new URL("../../..", import.meta.url)),
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
    const xml = await readText(junit);
    const tests = xml === "" ? [] : parseJunit(xml);
    if (tests.length === 0 || tests.some(({ outcome }) => outcome === "failed")) {
      const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
      console.log(`${text(stdout)}${text(stderr)}`.split("\n").slice(-60).join("\n"));
    }
    const logs = [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".log"));
    const report = readSanitizerLogs(await Promise.all(logs.map(({ name }) => readText(join(folder, name)))));
    return { ...report, file, tests, code, seconds: (performance.now() - startMs) / 1000 };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
