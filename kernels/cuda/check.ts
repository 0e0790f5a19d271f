/**
 * Compiles every CUDA kernel for every architecture it is meant for, without a GPU, and prints what each takes.
 *
 * Run: `deno task kernels:cuda [name ...]`. Where the machine has no NVRTC, its Python package is fetched once.
 *
 * @module
 */
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { CUDA_PATH_VARIABLE, CudaError, CudaLibraries, type FoundLibrary, Nvrtc } from "../../ffi/cuda/cuda.ts";
import { readCheckNotes } from "./check_notes.ts";
import { compileCuda } from "./compile.ts";

/** The compiler package; the version for driver 580. */
const PACKAGE = "nvidia-cuda-nvrtc==13.0.88";

/** One compile. */
export interface CheckResult {
  /** File and macros, for people. */
  readonly kernel: string;
  /** For which architecture. */
  readonly arch: string;
  /** Milliseconds it took. */
  readonly ms: number;
  /** Most registers and spilled bytes of its kernels. */
  readonly usage: CompiledUsage;
  /** The compiler's complaint; undefined when it compiled. */
  readonly error?: string;
}

/** What the kernels of one file take at most. */
export interface CompiledUsage {
  /** Registers of a thread. */
  readonly registers: number;
  /** Bytes of registers that were moved to memory, stores and loads together. */
  readonly spillBytes: number;
}

/** Reads the assembler's report. */
export function readUsage(log: string): CompiledUsage {
  const most = (pattern: RegExp) => Math.max(0, ...[...log.matchAll(pattern)].map(([, number]) => Number(number)));
  const spills = [...log.matchAll(/(\d+) bytes spill (?:stores|loads)/g)];
  return {
    registers: most(/Used (\d+) registers/g),
    spillBytes: spills.reduce((sum, [, bytes]) => sum + Number(bytes), 0),
  };
}

/** Every `.cu` file below `folder`, by path, in order. */
export function findKernels(folder: string): readonly string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    if (isDirectory) return name === "target" ? [] : findKernels(path);
    return name.endsWith(".cu") ? [path] : [];
  }).sort();
}

/** Compiles one file in every way its notes ask for. @throws {SyntaxError} when the notes are malformed. */
export function* checkKernel(nvrtc: Nvrtc, path: string): Generator<CheckResult> {
  const source = Deno.readTextFileSync(path);
  const name = basename(path, ".cu");
  const { architectures, variants } = readCheckNotes(path, source);
  for (const defines of variants) {
    const kernel = [name, ...Object.entries(defines).map(([key, value]) => `${key}=${value}`)].join(" ");
    for (const arch of architectures) {
      const start = performance.now();
      try {
        const { log } = compileCuda(nvrtc, { name, source, defines }, { arch, verbose: true });
        yield { kernel, arch, ms: performance.now() - start, usage: readUsage(log) };
      } catch (error) {
        if (!(error instanceof CudaError || error instanceof ReferenceError)) throw error;
        const usage = { registers: 0, spillBytes: 0 };
        yield { kernel, arch, ms: performance.now() - start, usage, error: error.message };
      }
    }
  }
}

/** NVRTC of this machine, or its package, fetched into `folder`. @throws {Error} when that fails. */
export function findCompiler(folder: string): FoundLibrary {
  const found = CudaLibraries.find().tryGet("nvrtc");
  if (found !== undefined) return found;
  const env = (name: string) => name === CUDA_PATH_VARIABLE ? folder : undefined;
  const fetched = CudaLibraries.find({ env }).tryGet("nvrtc");
  if (fetched !== undefined) return fetched;
  const { code, stderr } = new Deno.Command("python3", {
    args: ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PACKAGE],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).outputSync();
  if (code !== 0) {
    const reason = new TextDecoder().decode(stderr).trim().split("\n").at(-1);
    throw new Error(`Cannot fetch ${PACKAGE}: pip ended with code ${code}: ${reason}`);
  }
  return CudaLibraries.find({ env }).get("nvrtc");
}

if (import.meta.main) {
  const root = fileURLToPath(new URL("../../", import.meta.url));
  using nvrtc = Nvrtc.open(findCompiler(join(root, "kernels/cuda/target")));
  const chosen = findKernels(join(root, "kernels")).filter((path) =>
    Deno.args.length === 0 || Deno.args.includes(basename(path, ".cu"))
  );
  let compiled = 0;
  let failed = 0;
  for (const path of chosen) {
    for (const { kernel, arch, ms, usage, error } of checkKernel(nvrtc, path)) {
      if (error === undefined) compiled++;
      else failed++;
      const taken = `${usage.registers} registers${usage.spillBytes > 0 ? `, ${usage.spillBytes} bytes spilled` : ""}`;
      console.log(`${kernel}  ${arch}  ${error ?? taken}  ${ms.toFixed(0)} ms`);
    }
  }
  console.log(`CUDA kernels: ${chosen.length} files, ${compiled} compiles passed, ${failed} failed`);
  if (failed > 0) Deno.exit(1);
}
