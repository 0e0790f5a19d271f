/**
 * Checks the direction of imports between the top folders: each may import only what the architecture page allows.
 *
 * Run: `deno run --allow-read=. tests/gate/check_imports.ts`
 *
 * @module
 */
import { dirname, join, normalize, relative } from "node:path";

/** What the files of each folder may import from; a folder may always import itself. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  ffi: [],
  kernels: ["ffi"],
  plugins: [],
  scheduler: ["plugins"],
  runtime: ["scheduler", "plugins", "kernels", "ffi"],
  examples: ["plugins", "runtime", "mod.ts", "scheduler", "kernels"],
  bench: ["runtime", "scheduler", "plugins", "kernels", "ffi", "mod.ts", "cli.ts", "tests"],
  tests: ["runtime", "scheduler", "plugins", "kernels", "ffi", "examples", "mod.ts", "cli.ts", "bench"],
};

/** Types that cross folders against the direction: the policy reads nothing else of the engine. */
const TEST_FILE = /_(?:test|bench)\.ts$|\/conformance[^/]*\.ts$/;

const IMPORT = /(?:^|\n)\s*(?:import|export)\b[^;"'`]*?from\s*["']([^"']+)["']|import\(\s*["']([^"']+)["']\s*\)/g;

/** One import that goes against the direction. */
export interface Violation {
  /** Importing file. */
  readonly file: string;
  /** What it imports. */
  readonly target: string;
}

/** Violations among `files` (repository-relative path to source text), given the import map of `deno.json`. */
export function findViolations(
  files: ReadonlyMap<string, string>,
  importMap: Readonly<Record<string, string>>,
): Violation[] {
  const violations: Violation[] = [];
  for (const [file, source] of files) {
    const folder = file.includes("/") ? file.slice(0, file.indexOf("/")) : file;
    const allowed = ALLOWED[folder];
    if (!allowed) continue;
    for (const match of source.matchAll(IMPORT)) {
      const specifier = match[1] ?? match[2];
      const mapped = importMap[specifier] ?? specifier;
      if (!mapped.startsWith(".")) continue;
      const base = importMap[specifier] === undefined ? dirname(file) : ".";
      const target = normalize(join(base, mapped)).replaceAll("\\", "/");
      const top = target.includes("/") ? target.slice(0, target.indexOf("/")) : target;
      if (top === folder || allowed.includes(top)) continue;
      if (TEST_FILE.test(file) && (top === "tests" || top === "mod.ts" || ALLOWED.tests.includes(top))) continue;
      violations.push({ file, target });
    }
  }
  return violations;
}

/** Source files of the repository at `root`, by relative path. */
export function readSources(root: string): Map<string, string> {
  const files = new Map<string, string>();
  const walk = (folder: string) => {
    for (const entry of Deno.readDirSync(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory) {
        if (!["node_modules", "target", ".git", "lib", "testdata"].includes(entry.name)) walk(path);
      } else if (entry.name.endsWith(".ts")) {
        files.set(relative(root, path).replaceAll("\\", "/"), Deno.readTextFileSync(path));
      }
    }
  };
  walk(root);
  return files;
}

if (import.meta.main) {
  const { imports } = JSON.parse(Deno.readTextFileSync("deno.json")) as { imports: Record<string, string> };
  const files = readSources(".");
  const violations = findViolations(files, imports);
  for (const { file, target } of violations) console.error(`${file} may not import ${target}`);
  console.log(`Import direction: ${files.size} files, ${violations.length} violations`);
  if (violations.length > 0) Deno.exit(1);
}
