/**
 * Plants each bug of `mutants.ts` in a copy of the sources and lets the simulation look for it.
 *
 *     deno task sim:teeth
 *     deno task sim:teeth quarantine      only those whose name has the word
 *
 * @module
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Mutant, MUTANTS } from "./mutants.ts";

/** What is copied: everything that the simulation imports. */
const FOLDERS = ["scheduler", "runtime", "plugins", "kernels", "ffi", "tests/simulation", "tests/std"];
const FILES = ["deno.json", "deno.lock"];

/** What became of a planted bug. */
interface Bite {
  readonly mutant: Mutant;
  /** Seed that found it; undefined when none did. */
  readonly seed: number | undefined;
  /** First line of what was broken. */
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

/** Runs the simulation on a copy with one bug in it. */
async function bite(mutant: Mutant, root: string): Promise<Bite> {
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
        ...["--quiet", "--stop-after", "1", "--seeds", String(mutant.withinSeeds)],
      ],
      cwd: root,
    }).output();
    const text = new TextDecoder().decode(stderr);
    const found = /^seed (\d+) broke a promise.*\n {2}(.*)$/m.exec(text);
    // A bug that breaks the simulation itself is found as well.
    const broken = /^error: .*$/m.exec(text)?.[0];
    const ran = new TextDecoder().decode(stdout).includes(" seeds, ");
    return {
      mutant,
      seed: found !== null ? Number(found[1]) : ran ? undefined : 1,
      message: found?.[2] ?? broken ?? "",
      seconds: (performance.now() - startMs) / 1000,
    };
  } finally {
    Deno.writeTextFileSync(path, source);
  }
}

/** Plants the bugs whose name has `word`. @returns whether each was found in time. */
export async function main(word: string): Promise<boolean> {
  const from = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
  const root = Deno.makeTempDirSync({ prefix: "teeth-" });
  const bites: Bite[] = [];
  try {
    copySources(from, root);
    for (const mutant of MUTANTS.filter(({ name }) => name.includes(word))) {
      const result = await bite(mutant, root);
      bites.push(result);
      const { seed, message, seconds } = result;
      const where = seed === undefined ? `NOT FOUND in ${mutant.withinSeeds}` : `seed ${seed} of ${mutant.withinSeeds}`;
      console.log(`${where.padEnd(20)} ${seconds.toFixed(1).padStart(6)} s  ${mutant.name}`);
      if (message !== "") console.log(`${"".padEnd(30)} ${message.slice(0, 140)}`);
    }
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
  const found = bites.filter(({ seed }) => seed !== undefined).length;
  console.log(`${found} of ${bites.length} planted bugs found`);
  return found === bites.length;
}

if (import.meta.main) Deno.exit(await main(Deno.args[0] ?? "") ? 0 : 1);
