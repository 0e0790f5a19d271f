/**
 * Runs every test that needs a GPU and counts what passed, failed and was skipped.
 *
 *     deno task test:gpu [--filter TEXT] [--jobs N] [--sanitizer TOOL] [--json FILE] [FILE ...]
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
import { findGpuTests } from "./find_tests.ts";
import { parseJunit, type TestCase } from "./junit.ts";
import { summarize, summaryLines } from "./summary.ts";

const USAGE = `Usage: deno task test:gpu [options] [FILE ...]

  --filter TEXT       run only tests whose name contains TEXT (or matches /TEXT/)
  --jobs N            files that run at the same time (default 1)
  --sanitizer TOOL    run under compute-sanitizer: memcheck, racecheck, synccheck or initcheck
  --commit TEXT       commit that is tested, where git does not tell
  --json FILE         where the counts and the tests go
  FILE                run only these files
`;

/** Exit code that compute-sanitizer is told to use for what it finds. */
const SANITIZER_EXIT = 9;

/** How to run the files. */
interface RunOptions {
  readonly files: readonly string[];
  readonly filter?: string;
  readonly jobs: number;
  readonly sanitizer?: string;
}

async function runTests({ files, filter, jobs, sanitizer }: RunOptions): Promise<{ tests: TestCase[]; code: number }> {
  const junit = await Deno.makeTempFile({ prefix: "gpu-tests-", suffix: ".xml" });
  const parallel = jobs > 1 ? ["--parallel"] : [];
  const filters = filter === undefined ? [] : ["--filter", filter];
  const test = ["test", "-A", "--no-check", `--junit-path=${junit}`, ...parallel, ...filters, ...files];
  const checked = ["--tool", sanitizer ?? "", "--target-processes", "all", "--error-exitcode", String(SANITIZER_EXIT)];
  const [program, ...args] = sanitizer === undefined
    ? [Deno.execPath(), ...test]
    : ["compute-sanitizer", ...checked, Deno.execPath(), ...test];
  try {
    const { code } = await new Deno.Command(program, {
      args,
      cwd: fileURLToPath(new URL("../../..", import.meta.url)),
      env: { DENO_JOBS: String(jobs) },
    }).spawn().status;
    const xml = await Deno.readTextFile(junit);
    return { tests: xml === "" ? [] : parseJunit(xml), code };
  } finally {
    await Deno.remove(junit);
  }
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
  const files = positionals.length > 0 ? positionals : findGpuTests();
  const { filter, sanitizer } = values;
  const missing = TestGpu.missing();
  const date = new Date().toISOString();
  const { tests, code } = await runTests({ files, filter, jobs, sanitizer });
  const summary = summarize(tests, { missing, exitCode: code });
  if (values.json !== undefined) {
    const gpu = missing === undefined ? readGpu() : { missing };
    const record = { date, commit: values.commit ?? await readCommit(), gpu, filter, sanitizer, ...summary, tests };
    await Deno.writeTextFile(values.json, `${JSON.stringify(record, undefined, 2)}\n`);
  }
  for (const line of summaryLines(summary, { missing, tests })) console.log(line);
  return summary.failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await testGpu(Deno.args));
