/**
 * Compiles CUDA C++; needs no GPU and no driver.
 *
 * @module
 */
import { CudaError, type FailedCall } from "./error.ts";
import { cString, CStrings, HostMemory } from "./host_memory.ts";
import type { FoundLibrary } from "./libraries.ts";
import { NVRTC_SYMBOLS } from "./nvrtc_symbols.ts";
import { openLibrary } from "./open_library.ts";

/** A source to compile. */
export interface NvrtcProgram {
  /** Its name in messages. */
  readonly name: string;
  /** CUDA C++. */
  readonly source: string;
  /** Compiler options, for example `-arch=sm_90a`. */
  readonly options: readonly string[];
  /** Files it may include, by name. @default {{}} */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What the compiler made. */
export interface NvrtcOutput {
  /** Machine code for the architecture in the options. */
  readonly cubin: Uint8Array<ArrayBuffer>;
  /** Warnings and, with `--ptxas-options=-v`, what each kernel takes. */
  readonly log: string;
}

/** The loaded compiler. Closed on dispose. */
export class Nvrtc implements Disposable {
  /** Its version. */
  readonly version: { readonly major: number; readonly minor: number };
  readonly #library: Deno.DynamicLibrary<typeof NVRTC_SYMBOLS>;
  readonly #companions: readonly Deno.DynamicLibrary<Record<never, never>>[];
  readonly #host: HostMemory;
  #open = true;

  /** Takes the loaded compiler and what was loaded for it; {@linkcode open} makes these. */
  constructor(
    library: Deno.DynamicLibrary<typeof NVRTC_SYMBOLS>,
    companions: readonly Deno.DynamicLibrary<Record<never, never>>[],
  ) {
    this.#library = library;
    this.#companions = companions;
    this.#host = new HostMemory(library.symbols);
    const major = new Int32Array(1);
    const minor = new Int32Array(1);
    this.#check(library.symbols.nvrtcVersion(major, minor), {
      call: "nvrtcVersion",
      context: "ask the compiler for its version",
    });
    this.version = { major: major[0], minor: minor[0] };
  }

  /** Loads it with the libraries it needs. @throws {Error} when one cannot be loaded. */
  static open(library: FoundLibrary): Nvrtc {
    const opened: Deno.DynamicLibrary<Record<never, never>>[] = [];
    try {
      for (const path of library.companions) opened.push(openLibrary({ path }, {}));
      const nvrtc = openLibrary(library, NVRTC_SYMBOLS);
      opened.push(nvrtc);
      return new Nvrtc(nvrtc, opened.slice(0, -1));
    } catch (error) {
      for (const library of opened) library.close();
      throw error;
    }
  }

  /** Architectures it compiles for, as numbers: 80, 90, 100. */
  architectures(): readonly number[] {
    const symbols = this.#symbols();
    const count = new Int32Array(1);
    const context = "ask the compiler for its architectures";
    this.#check(symbols.nvrtcGetNumSupportedArchs(count), { call: "nvrtcGetNumSupportedArchs", context });
    const list = new Int32Array(count[0]);
    this.#check(symbols.nvrtcGetSupportedArchs(list), { call: "nvrtcGetSupportedArchs", context });
    return [...list];
  }

  /** Compiles to machine code. @throws {CudaError} when that fails; its message holds the compiler's log. */
  compile({ name, source, options, headers = {} }: NvrtcProgram): NvrtcOutput {
    const symbols = this.#symbols();
    const context = `compile ${name}`;
    const texts = new CStrings(this.#host, Object.values(headers));
    const names = new CStrings(this.#host, Object.keys(headers));
    const flags = new CStrings(this.#host, options);
    const program = new BigUint64Array(1);
    const created = symbols.nvrtcCreateProgram(
      program,
      cString(source),
      cString(name),
      texts.length,
      texts.array,
      names.array,
    );
    this.#check(created, { call: "nvrtcCreateProgram", context });
    try {
      const handle = program[0];
      const code = symbols.nvrtcCompileProgram(handle, flags.length, flags.array);
      const log = this.#log(handle);
      this.#check(code, { call: "nvrtcCompileProgram", context, detail: log });
      const size = new BigUint64Array(1);
      this.#check(symbols.nvrtcGetCUBINSize(handle, size), { call: "nvrtcGetCUBINSize", context });
      const cubin = new Uint8Array(Number(size[0]));
      this.#check(symbols.nvrtcGetCUBIN(handle, cubin), { call: "nvrtcGetCUBIN", context });
      return { cubin, log };
    } finally {
      symbols.nvrtcDestroyProgram(program);
      texts.keep();
      names.keep();
      flags.keep();
    }
  }

  /** Unloads it. Idempotent. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#library.close();
    for (const library of this.#companions) library.close();
  }

  #symbols(): Deno.DynamicLibrary<typeof NVRTC_SYMBOLS>["symbols"] {
    if (!this.#open) throw new ReferenceError("Cannot use the CUDA compiler: it is closed");
    return this.#library.symbols;
  }

  #log(handle: bigint): string {
    const { symbols } = this.#library;
    const size = new BigUint64Array(1);
    if (symbols.nvrtcGetProgramLogSize(handle, size) !== 0) return "";
    const log = new Uint8Array(Number(size[0]));
    if (symbols.nvrtcGetProgramLog(handle, log) !== 0) return "";
    return new TextDecoder().decode(log).replace(/\0+$/, "").trim();
  }

  #check(code: number, failed: FailedCall): void {
    if (code === 0) return;
    const codeName = this.#host.text(this.#library.symbols.nvrtcGetErrorString(code));
    throw new CudaError({ ...failed, code, codeName });
  }
}
