/**
 * Makes one instance of the kernel module, on whichever thread calls.
 *
 * @module
 */
import { type KernelExports, UNSIGNED_RESULTS } from "./lib/exports.ts";

/** What an instance stands on. */
export interface InstanceParts {
  /** The memory all instances share. */
  readonly memory: WebAssembly.Memory;
  /** Bytes of this thread's stack inside the memory; whole 64 KiB pages. */
  readonly stackBytes: number;
}

type RawExports = WebAssembly.Exports & KernelExports & { __wbindgen_start(stackBytes: number): void };

function importsOf(module: WebAssembly.Module, memory: WebAssembly.Memory): WebAssembly.Imports {
  const imports: WebAssembly.Imports = {};
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    // Kernels take and return numbers only: the one function wasm-bindgen imports prepares a table nobody uses.
    imports[from][name] = kind === "memory" ? memory : () => {};
  }
  return imports;
}

function withUnsignedResults(raw: KernelExports): KernelExports {
  const face = { ...raw };
  for (const name of UNSIGNED_RESULTS) {
    const call = raw[name] as (...values: number[]) => number;
    Object.assign(face, { [name]: (...values: number[]): number => call(...values) >>> 0 });
  }
  return face;
}

/** Instantiates `module` over the shared memory and gives this thread its stack and thread-local storage. */
export function instantiate(module: WebAssembly.Module, parts: InstanceParts): KernelExports {
  const instance = new WebAssembly.Instance(module, importsOf(module, parts.memory));
  const raw = instance.exports as RawExports;
  raw.__wbindgen_start(parts.stackBytes);
  return withUnsignedResults(raw);
}
