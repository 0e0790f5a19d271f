/**
 * Compares the CUDA tables, constants and structure layouts with NVIDIA's headers, by having a C compiler read both.
 *
 * Run: `deno task ffi:headers`. Where the machine has no `cuda.h`, the Python package with it is fetched once; a header
 * that comes only with large packages is named and passed over where it is missing.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BLAS, BLAS_LAYOUT } from "../../ffi/cuda/blas_constants.ts";
import { DRIVER, DRIVER_LAYOUT } from "../../ffi/cuda/driver_constants.ts";
import { readPrototypes } from "../../ffi/cuda/test_prototypes.ts";

/** Headers for the driver of CUDA 13.0. */
const PACKAGE = "nvidia-cuda-runtime==13.0.96";

/** What is compared with one header. */
export interface HeaderComparison {
  /** Header, for example `cuda.h`. */
  readonly header: string;
  /** C declarations. */
  readonly declarations: readonly string[];
  /** Integers by C expression. */
  readonly numbers: Readonly<Record<string, number>>;
}

/** A C program that compiles where the header agrees. */
export function comparisonProgram({ header, declarations, numbers }: HeaderComparison): string {
  return [
    "#include <stddef.h>",
    "#include <stdint.h>",
    `#include <${header}>`,
    ...declarations,
    ...Object.entries(numbers).map(([expression, value]) =>
      `_Static_assert((long)(${expression}) == ${value}, "${expression} is not ${value}");`
    ),
    "",
  ].join("\n");
}

/** The compiler's complaints about a comparison; empty where the header agrees. */
export async function compareHeader(comparison: HeaderComparison, folder: string): Promise<string> {
  const child = new Deno.Command("cc", {
    args: ["-fsyntax-only", "-x", "c", "-std=c11", "-I", folder, "-"],
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(comparisonProgram(comparison)));
  await writer.close();
  const { success, stderr } = await child.output();
  return success ? "" : new TextDecoder().decode(stderr).trim();
}

/** What is compared, with declarations from the tables' comments. */
export function readComparisons(root: string): readonly HeaderComparison[] {
  const declarations = (file: string) =>
    readPrototypes(Deno.readTextFileSync(join(root, "ffi/cuda", file))).map(({ declaration }) => declaration);
  return [
    { header: "cuda.h", declarations: declarations("driver_symbols.ts"), numbers: { ...DRIVER, ...DRIVER_LAYOUT } },
    { header: "nvrtc.h", declarations: declarations("nvrtc_symbols.ts"), numbers: {} },
    { header: "cublasLt.h", declarations: declarations("blas_symbols.ts"), numbers: { ...BLAS, ...BLAS_LAYOUT } },
  ];
}

/** Folders that may hold the headers. */
function headerFolders(root: string): readonly string[] {
  const toolkits = ["CUDA_HOME", "CUDA_PATH"].map((name) => Deno.env.get(name)).filter((path) => path !== undefined);
  return [
    ...toolkits.map((path) => join(path, "include")),
    "/usr/local/cuda/include",
    join(root, "ffi/cuda/target/headers/nvidia/cu13/include"),
    join(root, "kernels/cuda/target/nvidia/cu13/include"),
  ];
}

async function main(root: string): Promise<number> {
  const folders = headerFolders(root);
  const find = (header: string) => folders.find((folder) => existsSync(join(folder, header)));
  if (find("cuda.h") === undefined) {
    const target = join(root, "ffi/cuda/target/headers");
    const { success } = await new Deno.Command("python3", {
      args: ["-m", "pip", "install", "--quiet", "--no-deps", "--target", target, PACKAGE],
      stdin: "null",
    }).spawn().status;
    if (!success || find("cuda.h") === undefined) {
      throw new Error(`Cannot fetch ${PACKAGE}: it has no cuda.h, or pip failed`);
    }
  }
  let failed = 0;
  for (const comparison of readComparisons(root)) {
    const { header, declarations, numbers } = comparison;
    const folder = find(header);
    const complaints = folder === undefined ? "" : await compareHeader(comparison, folder);
    if (complaints !== "") {
      console.error(complaints);
      failed++;
    }
    const size = `${declarations.length} functions and ${Object.keys(numbers).length} numbers`;
    const verdict = folder === undefined
      ? "not compared, there is no such file"
      : complaints === ""
      ? "agrees"
      : "differs";
    console.log(`${header}: ${size}, ${verdict}`);
  }
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(fileURLToPath(new URL("../../", import.meta.url))));
