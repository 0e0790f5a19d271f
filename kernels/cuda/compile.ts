/**
 * From the source of a kernel to machine code; needs no GPU.
 *
 * @module
 */
import type { CudaProperties, Nvrtc, NvrtcOutput } from "../../ffi/cuda/cuda.ts";
import { HEADERS } from "./headers.ts";

/** A kernel to compile. */
export interface CudaKernel {
  /** Its name, for messages and file names. */
  readonly name: string;
  /** Contents of its `.cu` file. */
  readonly source: string;
  /** Macros, given as `-DNAME=VALUE`. @default {{}} */
  readonly defines?: Readonly<Record<string, number | string>>;
}

/** A kernel with everything its machine code depends on, apart from the compiler. */
export interface CudaSource {
  /** As {@linkcode CudaKernel}. */
  readonly name: string;
  /** As {@linkcode CudaKernel}. */
  readonly source: string;
  /** Headers it includes, also indirectly, by name. */
  readonly headers: Readonly<Record<string, string>>;
  /** Compiler options. */
  readonly options: readonly string[];
}

/** How to compile. */
export interface CompileOptions {
  /** Architecture, for example `sm_90a`. */
  readonly arch: string;
  /** Headers to include from. @default {HEADERS} */
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether the log tells what each kernel takes. @default {false} */
  readonly verbose?: boolean;
}

/** The architecture to compile for: with all instructions of the GPU at hand, where there is such a target. */
export function archOf({ major, minor }: { readonly major: number; readonly minor: number }): string {
  return `sm_${major}${minor}${major >= 9 ? "a" : ""}`;
}

/** Oldest compute capability that the kernels are written for: bf16 on tensor cores, asynchronous copies. */
const OLDEST_MAJOR = 8;

/** Refuses a GPU that is older than the kernels. @throws {RangeError} naming both. */
export function checkCapability(
  { name, ordinal, major, minor }: Pick<CudaProperties, "name" | "ordinal" | "major" | "minor">,
): void {
  if (major >= OLDEST_MAJOR) return;
  throw new RangeError(
    `Cannot use GPU ${ordinal} (${name}): wanted compute capability ${OLDEST_MAJOR}.0 or newer, got ${major}.${minor}`,
  );
}

/** Collects headers and options of a kernel. @throws {ReferenceError} when a header is not there. */
export function cudaSource(
  kernel: CudaKernel,
  { arch, headers = HEADERS, verbose = false }: CompileOptions,
): CudaSource {
  const { name, source, defines = {} } = kernel;
  const macros = Object.entries(defines).sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => `-D${key}=${value}`);
  const options = [`-arch=${arch}`, "-std=c++17", ...macros, ...(verbose ? ["--ptxas-options=-v"] : [])];
  return { name, source, headers: included(kernel, headers), options };
}

/** Compiles a kernel to a cubin. @throws {CudaError} with the compiler's log. @throws {ReferenceError} */
export function compileCuda(nvrtc: Nvrtc, kernel: CudaKernel, options: CompileOptions): NvrtcOutput {
  const source = cudaSource(kernel, options);
  return nvrtc.compile({ ...source, name: `${source.name}.cu` });
}

function included({ name, source }: CudaKernel, headers: Readonly<Record<string, string>>): Record<string, string> {
  const found = new Map<string, string>();
  const visit = (text: string, by: string) => {
    for (const [, header] of text.matchAll(/^[ \t]*#[ \t]*include[ \t]+"([^"]+)"/gm)) {
      if (found.has(header)) continue;
      if (!Object.hasOwn(headers, header)) {
        throw new ReferenceError(
          `Cannot compile ${name}: ${by} includes "${header}", wanted one of ${
            Object.keys(headers).join(", ") || "none"
          }`,
        );
      }
      found.set(header, headers[header]);
      visit(headers[header], header);
    }
  };
  visit(source, name);
  return Object.fromEntries([...found].sort(([a], [b]) => a < b ? -1 : 1));
}
