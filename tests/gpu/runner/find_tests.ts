/**
 * Which test files need a GPU, by their names.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/** Folders that hold tests beside their subjects. */
const FOLDERS = ["ffi", "kernels", "runtime"] as const;
/** Folder whose own files all need a GPU. */
const GPU_FOLDER = "tests/gpu";

/** The repository. */
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/**
 * Whether a file named `name` beside its subject tests on a GPU: `x_cuda_test.ts`, `x_cuda_part_test.ts`, `gpu_test.ts`,
 * `x_gpu_test.ts`.
 */
export function needsGpu(name: string): boolean {
  return /(_cuda(_[a-z0-9]+)?|(^|_)gpu)_test\.ts$/.test(name);
}

/** Whether a test goes to lengths that would take a sanitizer hours: `x_cuda_long_test.ts`. */
function isLong(name: string): boolean {
  return name.endsWith("_long_test.ts");
}

function* walk(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(ROOT + folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory && name !== "target" && name !== "node_modules") yield* walk(path);
    else if (needsGpu(name)) yield path;
  }
}

/** Whether a test file runs when no other does, because it takes all of the GPU: `x_alone_test.ts`. */
export function runsAlone(path: string): boolean {
  return path.endsWith("_alone_test.ts");
}

/** Paths of the test files of kernels, relative to the repository, sorted: what a sanitizer is to see. */
export function findKernelTests(): string[] {
  return [...walk("kernels")].filter((path) => !isLong(path)).sort();
}

/** Paths of every test file that needs a GPU, relative to the repository, sorted. */
export function findGpuTests(): string[] {
  const own = Deno.readDirSync(ROOT + GPU_FOLDER).filter(({ name }) => name.endsWith("_test.ts"))
    .map(({ name }) => `${GPU_FOLDER}/${name}`);
  return [...FOLDERS.flatMap((folder) => [...walk(folder)]), ...own].sort();
}
