/**
 * Kernels compiled for this GPU when they are first needed, and kept on disk.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { isAbsolute, join } from "node:path";
import { type CudaContext, type CudaModule, Nvrtc } from "../../ffi/cuda/cuda.ts";
import { readEntry, writeEntry } from "./cache_entry.ts";
import { archOf, checkCapability, type CudaKernel, type CudaSource, cudaSource } from "./compile.ts";

/** How to open a {@linkcode KernelCache}. */
export interface KernelCacheOptions {
  /** Where compiled kernels are kept. Default: {@linkcode kernelDirectory}. */
  readonly directory?: string;
  /** Told before each kernel that has to be compiled, and once at the end of a batch with `done` equal to `total`. */
  readonly onProgress?: (done: number, total: number, name: string) => void;
}

/** What a cache has done so far. */
export interface KernelCacheCounts {
  /** Kernels read from disk. */
  readonly loaded: number;
  /** Kernels compiled. */
  readonly compiled: number;
  /** Compiled because the file on disk was damaged. */
  readonly damaged: number;
  /** Compiled but not kept, because the directory cannot be written. */
  readonly unkept: number;
}

/**
 * Directory of compiled kernels: `$INFINITE_LLM_CACHE/kernels`, else `kernels` in the platform's cache directory.
 *
 * @throws {TypeError} when the variables that name the home directory are not set.
 */
export function kernelDirectory(env: (name: string) => string | undefined): string {
  const own = env("INFINITE_LLM_CACHE");
  if (own) return join(own, "kernels");
  const xdg = env("XDG_CACHE_HOME");
  const home = env("HOME");
  const base = xdg && isAbsolute(xdg) ? xdg : home && join(home, ".cache");
  if (!base) throw new TypeError("Cannot find the cache of compiled kernels: wanted HOME to be set, got nothing");
  return join(base, "infinite-llm", "kernels");
}

/**
 * Compiled kernels of one GPU. A kernel is known by the SHA-256 of its source, headers, options, the compiler's and the
 * driver's version and the GPU, so nothing in the directory ever becomes wrong. Several processes may share a directory.
 */
export class KernelCache {
  /** Where compiled kernels are kept. */
  readonly directory: string;
  readonly #context: CudaContext;
  readonly #onProgress: NonNullable<KernelCacheOptions["onProgress"]>;
  #nvrtc: Nvrtc | undefined;
  readonly #counts = { loaded: 0, compiled: 0, damaged: 0, unkept: 0 };

  /** Takes its settings; {@linkcode open} makes these. */
  constructor(context: CudaContext, directory: string, onProgress: NonNullable<KernelCacheOptions["onProgress"]>) {
    this.#context = context;
    this.directory = directory;
    this.#onProgress = onProgress;
  }

  /**
   * Opens the cache of a GPU; touches nothing yet.
   *
   * @throws {RangeError} when the GPU is older than the kernels. @throws {TypeError} as {@linkcode kernelDirectory}.
   */
  static open(context: CudaContext, options: KernelCacheOptions = {}): KernelCache {
    checkCapability(context.properties);
    const { directory = kernelDirectory(permittedVariable), onProgress = () => {} } = options;
    return new KernelCache(context, directory, onProgress);
  }

  /** What it has done so far. */
  get counts(): KernelCacheCounts {
    return { ...this.#counts };
  }

  /** As {@linkcode modules}, for one kernel. @throws as it does. */
  module(kernel: CudaKernel): CudaModule {
    return this.modules([kernel])[0];
  }

  /**
   * Loads kernels, compiling those that are not on disk. The caller owns the modules; their context frees them at last.
   *
   * @throws {Deno.errors.NotFound} when there is no compiler for the driver.
   * @throws {CudaError} when a kernel does not compile (the message has the log) or does not load.
   */
  modules(kernels: readonly CudaKernel[]): readonly CudaModule[] {
    const nvrtc = this.#compiler();
    const arch = archOf(this.#context.properties);
    const wanted = kernels.map((kernel) => cudaSource(kernel, { arch }));
    let compiled = 0;
    const cubins = wanted.map((source, index) => {
      const path = join(this.directory, `${source.name}-${this.#digest(source, nvrtc)}.cubin`);
      const entry = readEntry(path);
      if (entry.kind === "hit") {
        this.#counts.loaded++;
        return entry.cubin;
      }
      this.#onProgress(index, wanted.length, source.name);
      const { cubin } = nvrtc.compile({ ...source, name: `${source.name}.cu` });
      compiled++;
      this.#counts.compiled++;
      if (entry.kind === "damaged") this.#counts.damaged++;
      this.#keep(path, cubin);
      return cubin;
    });
    if (compiled > 0) this.#onProgress(wanted.length, wanted.length, wanted[wanted.length - 1].name);
    return cubins.map((cubin) => this.#context.load(cubin));
  }

  /** Opened once, because that takes as long as compiling a kernel; closed with the context. */
  #compiler(): Nvrtc {
    const { scope, properties, libraries } = this.#context;
    if (this.#nvrtc === undefined) {
      const maxMajor = Number.parseInt(properties.driverVersion);
      this.#nvrtc = Nvrtc.open(libraries.get("nvrtc", { maxMajor }));
      scope.adopt(this.#nvrtc);
    }
    return this.#nvrtc;
  }

  #digest(source: CudaSource, nvrtc: Nvrtc): string {
    const { name, major, minor, driverVersion } = this.#context.properties;
    const device = `${name} ${major}.${minor}`;
    const compiler = `${nvrtc.version.major}.${nvrtc.version.minor}`;
    const all = [source.source, source.headers, source.options, compiler, driverVersion, device];
    return createHash("sha256").update(JSON.stringify(all)).digest("hex");
  }

  #keep(path: string, cubin: Uint8Array): void {
    try {
      writeEntry(path, cubin);
    } catch {
      // The kernel is there for this run; only the next one has to compile it again.
      this.#counts.unkept++;
    }
  }
}

function permittedVariable(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}
