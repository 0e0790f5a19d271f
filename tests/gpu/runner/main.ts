/**
 * Runs every test that needs a GPU and counts what passed, failed and was skipped.
 *
 *     deno task test:gpu [--filter TEXT] [--jobs N] [--sanitizer TOOL [--limit S]] [--json FILE] [FILE ...]
 *
 * Where there is no GPU it says why, counts every such test as skipped and none as passed, and ends with 0. Types are the
 * gate's business and are not checked again, so that a GPU host needs no more than what runs.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { readCommit } from "../../../bench/hardware.ts";
import { readGpu } from "../../../bench/gpu/gpu_hardware.ts";
import { TestGpu } from "../../../kernels/cuda/test_gpu.ts";
import { findGpuTests, findKernelTests, runsAlone } from "./find_tests.ts";
import { parseJunit, type TestCase } from "./junit.ts";
import { fileLines, sanitize, type SanitizedFile } from "./sanitize.ts";
import { summarize, summaryLines } from "./summary.ts";

const USAGE = `Usage: deno task test:gpu [options] [FILE ...]

  --filter TEXT       run only tests whose name contains TEXT (or matches /TEXT/)
  --jobs N            files that run at the same time (default 1)
  --sanitizer TOOL    run the kernels' tests under compute-sanitizer, each file in a process of its own: memcheck,
                      racecheck, synccheck or initcheck; a finding counts as a failure
  --limit SECONDS     time after which a file under a sanitizer is given up (default 300)
  --commit TEXT       commit that is tested, where git does not tell
  --json FILE         where the counts and the tests go
  FILE                run only these files
`;

/** How to run the files. */
interface RunOptions {
  readonly files: readonly string[];
  readonly filter?: string;
  readonly jobs: number;
}

/** What came of a run. */
interface RunResult {
  readonly tests: TestCase[];
  readonly code: number;
  /** Where it ran under a sanitizer, what that says of each file. */
  readonly sanitized: readonly SanitizedFile[];
}

async function runTests({ files, filter, jobs }: RunOptions): Promise<RunResult> {
  const junit = await Deno.makeTempFile({ prefix: "gpu-tests-", suffix: ".xml" });
  const parallel = jobs > 1 ? ["--parallel"] : [];
  const filters = filter === undefined ? [] : ["--filter", filter];
  try {
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", `--junit-path=${junit}`, ...parallel, ...filters, ...files],
      cwd: fileURLToPath(new URL("../../..", import.meta.url)),
      env: { DENO_JOBS: String(jobs) },
    }).spawn().status;
    const xml = await Deno.readTextFile(junit);
    return { tests: xml === "" ? [] : parseJunit(xml), code, sanitized: [] };
  } finally {
    await Deno.remove(junit);
  }
}

/** Runs files side by side, then those that want the GPU for themselves. */
async function runInTurn(options: RunOptions): Promise<RunResult> {
  const { files } = options;
  const groups = [
    { ...options, files: files.filter((file) => !runsAlone(file)) },
    { ...options, files: files.filter(runsAlone), jobs: 1 },
  ];
  const all: TestCase[] = [];
  let worst = 0;
  for (const group of groups.filter(({ files }) => files.length > 0)) {
    const { tests, code } = await runTests(group);
    all.push(...tests);
    worst = Math.max(worst, code);
  }
  return { tests: all, code: worst, sanitized: [] };
}

/** What a sanitizer finds counts as a failure, as does what it could not end. */
async function runSanitized(
  { files, filter, jobs, tool, limitSeconds }: RunOptions & { readonly tool: string; readonly limitSeconds: number },
): Promise<RunResult> {
  const onFile = (file: SanitizedFile) => fileLines(file).forEach((line) => console.log(line));
  const sanitized = await sanitize({ files, filter, jobs, tool, limitSeconds, onFile });
  const tests = sanitized.flatMap(({ file, tests, errors, seconds }): TestCase[] =>
    errors === 0 ? [...tests] : [...tests, { file, name: `${tool} finds nothing`, outcome: "failed", seconds }]
  );
  return { tests, code: 0, sanitized };
}

/** Runs the tests that the arguments ask for. Returns the exit code: 1 when one failed, 2 when the arguments are wrong. */
export async function testGpu(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    options: {
      help: { type: "boolean", short: "h" },
      filter: { type: "string" },
      jobs: { type: "string", default: "1" },
      sanitizer: { type: "string" },
      limit: { type: "string", default: "300" },
      commit: { type: "string" },
      json: { type: "string" },
    },
    allowPositionals: true,
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const jobs = Number(values.jobs);
  if (!Number.isSafeInteger(jobs) || jobs < 1) {
    console.error(`Cannot use --jobs ${values.jobs}: wanted a whole number of at least 1`);
    return 2;
  }
  const { filter, sanitizer, limit } = values;
  const limitSeconds = Number(limit);
  if (!(limitSeconds > 0)) {
    console.error(`Cannot use --limit ${limit}: wanted seconds`);
    return 2;
  }
  const all = () => sanitizer === undefined ? findGpuTests() : findKernelTests();
  const files = positionals.length > 0 ? positionals : all();
  const missing = TestGpu.missing();
  const date = new Date().toISOString();
  const options = { files, filter, jobs };
  const { tests, code, sanitized } = sanitizer === undefined || missing !== undefined
    ? await runInTurn(options)
    : await runSanitized({ ...options, tool: sanitizer, limitSeconds });
  const summary = summarize(tests, { missing, exitCode: code });
  if (values.json !== undefined) {
    const gpu = missing === undefined ? readGpu() : { missing };
    const commit = values.commit ?? await readCommit();
    const found = sanitized.map(({ file, errors, findings, seconds }) => ({ file, errors, findings, seconds }));
    const record = { date, commit, gpu, filter, sanitizer, ...summary, sanitized: found, tests };
    await Deno.writeTextFile(values.json, `${JSON.stringify(record, undefined, 2)}\n`);
  }
  for (const line of summaryLines(summary, { missing, tests })) console.log(line);
  return summary.failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await testGpu(Deno.args));
