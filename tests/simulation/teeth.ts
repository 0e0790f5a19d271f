/**
 * Plants each bug of `mutants.ts` in a copy of the sources and lets the simulation look for it.
 *
 *     deno task sim:teeth
 *     deno task sim:teeth --only quarantine --jobs 2     only those whose name has the word
 *     deno task sim:teeth --seeds 400                    other limits than the bugs have themselves
 *
 * @module
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Mutant, MUTANTS } from "./mutants.ts";

/** What is copied: everything that the simulation imports. */
const FOLDERS = ["scheduler", "runtime", "plugins", "kernels", "ffi", "tests/simulation", "tests/std"];
const FILES = ["deno.json", "deno.lock"];

/** What became of a planted bug. */
interface Bite {
  readonly mutant: Mutant;
  /** Seeds that were to be run. */
  readonly seeds: number;
  /** The first seed that found it; undefined when none did. */
  readonly seed: number | undefined;
  /** What was broken, after the promise's name; how it came to nothing when there is no seed. */
  readonly message: string;
  readonly seconds: number;
}

/** Copies the source files that the simulation needs to `to`. */
function copySources(from: string, to: string): void {
  const walk = (folder: string) => {
    Deno.mkdirSync(join(to, folder), { recursive: true });
    for (const { name, isDirectory } of Deno.readDirSync(join(from, folder))) {
      const path = join(folder, name);
      if (isDirectory) {
        if (name !== "target" && name !== "testdata" && name !== "src") walk(path);
      } else if (name.endsWith(".ts") && !name.endsWith("_test.ts") && !name.endsWith("_bench.ts")) {
        Deno.copyFileSync(join(from, path), join(to, path));
      }
    }
  };
  FOLDERS.forEach(walk);
  for (const file of FILES) Deno.copyFileSync(join(from, file), join(to, file));
}

/** Runs the simulation on the copy in `root` with one bug in it. */
async function bite(mutant: Mutant, { root, seeds }: { readonly root: string; readonly seeds: number }): Promise<Bite> {
  const path = join(root, mutant.file);
  const source = Deno.readTextFileSync(path);
  const parts = source.split(mutant.find);
  if (parts.length !== 2) {
    throw new Error(`Cannot plant "${mutant.name}": wanted its text once in ${mutant.file}, got ${parts.length - 1}`);
  }
  Deno.writeTextFileSync(path, parts.join(mutant.replace));
  const startMs = performance.now();
  try {
    const { stderr, stdout } = await new Deno.Command("deno", {
      args: [
        ...["run", "--quiet", "--no-check", "--allow-read", "tests/simulation/run.ts"],
        // One thread: the first failure is the lowest seed, on every machine.
        ...["--quiet", "--jobs", "1", "--stop-after", "1", "--seeds", String(seeds)],
      ],
      cwd: root,
    }).output();
    const text = new TextDecoder().decode(stderr);
    const found = /^seed (\d+) broke a promise.*\n {2}(.*)$/m.exec(text);
    // A text that does not even run proves nothing.
    const ran = found !== null || new TextDecoder().decode(stdout).includes(" seeds, ");
    return {
      mutant,
      seeds,
      seed: found === null ? undefined : Number(found[1]),
      message: found?.[2] ?? (ran ? "nothing broken" : `did not run: ${text.trim().split("\n")[0]}`),
      seconds: (performance.now() - startMs) / 1000,
    };
  } finally {
    Deno.writeTextFileSync(path, source);
  }
}

function describeBite({ mutant, seeds, seed, message, seconds }: Bite): string {
  const where = seed === undefined ? `NOT FOUND in ${seeds}` : `${seed} of ${seeds}`;
  return `${where.padEnd(17)} ${seconds.toFixed(1).padStart(6)} s  ${mutant.name}\n${"".padEnd(28)}${
    message.slice(0, 140)
  }`;
}

/**
 * Plants the bugs that the command line names, several at a time.
 *
 * @returns whether each was found in time.
 */
export async function main(args: readonly string[]): Promise<boolean> {
  const { values: { only = "", jobs = "2", seeds } } = parseArgs({
    args: [...args],
    options: { only: { type: "string" }, jobs: { type: "string" }, seeds: { type: "string" } },
  });
  for (const [name, text] of Object.entries({ jobs, seeds })) {
    if (text === undefined || /^[1-9]\d*$/.test(text)) continue;
    throw new RangeError(`Cannot plant bugs: wanted a whole number for --${name}, got ${text}`);
  }
  const left = MUTANTS.filter(({ name }) => name.includes(only));
  if (left.length === 0) throw new RangeError(`Cannot plant bugs: wanted part of a name for --only, got ${only}`);
  const from = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
  const bites: Bite[] = [];
  await Promise.all(Array.from({ length: Number(jobs) }, async () => {
    const root = Deno.makeTempDirSync({ prefix: "teeth-" });
    try {
      copySources(from, root);
      for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
        const result = await bite(mutant, { root, seeds: seeds === undefined ? mutant.withinSeeds : Number(seeds) });
        bites.push(result);
        console.log(describeBite(result));
      }
    } finally {
      Deno.removeSync(root, { recursive: true });
    }
  }));
  const missed = bites.filter(({ seed }) => seed === undefined);
  console.log(`${bites.length - missed.length} of ${bites.length} planted bugs found`);
  for (const { mutant: { name } } of missed) console.log(`not found: ${name}`);
  return missed.length === 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args) ? 0 : 1);
