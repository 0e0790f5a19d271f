/**
 * Finds the CUDA libraries by absolute path: a permission that names paths does not cover a bare library name.
 *
 * Run: `deno run --allow-read --allow-env ffi/cuda/libraries.ts` prints the paths for `--allow-ffi`, each behind a comma.
 *
 * @module
 */
import { join } from "node:path";
import {
  CUDA_PATH_VARIABLE,
  entries,
  librarySearchPath,
  SEARCH_VARIABLES,
  type SearchPathOptions,
} from "./search_path.ts";

/** A library by its use: the driver, the compiler of kernels, matrix products. */
export type LibraryName = "driver" | "nvrtc" | "blasLt";

/** A library that was found. */
export interface FoundLibrary {
  /** Which it is. */
  readonly name: LibraryName;
  /** Absolute path. */
  readonly path: string;
  /** Major version in its file name: that of CUDA; 1 for the driver. */
  readonly major: number;
  /** Absolute paths of libraries to load before it. */
  readonly companions: readonly string[];
}

interface LibrarySpec {
  /** Its file name; the group is the major version. */
  readonly file: RegExp;
  /** File name in messages. */
  readonly shown: string;
  /** What it is, in messages. */
  readonly title: string;
  /** What to install when it is missing. */
  readonly remedy: string;
}

const SPECS: Readonly<Record<LibraryName, LibrarySpec>> = {
  driver: {
    file: /^libcuda\.so\.(1)$/,
    shown: "libcuda.so.1",
    title: "the NVIDIA driver",
    remedy: "install the NVIDIA driver (580 or newer for CUDA 13)",
  },
  nvrtc: {
    file: /^libnvrtc\.so\.(\d+)$/,
    shown: "libnvrtc.so.13",
    title: "the CUDA runtime compiler",
    remedy: "install the CUDA toolkit or the Python package nvidia-cuda-nvrtc",
  },
  blasLt: {
    file: /^libcublasLt\.so\.(\d+)$/,
    shown: "libcublasLt.so.13",
    title: "CUDA's matrix products",
    remedy: "install the CUDA toolkit or the Python package nvidia-cublas",
  },
};

const NAMES: readonly LibraryName[] = ["driver", "nvrtc", "blasLt"];

/** Where the CUDA libraries of this machine are. */
export class CudaLibraries {
  /** Directories that were looked in, in order. */
  readonly searched: readonly string[];
  /** Everything that was found, in the order of the search. */
  readonly all: readonly FoundLibrary[];

  /** Takes what was found; {@linkcode find} makes these. */
  constructor(searched: readonly string[], all: readonly FoundLibrary[]) {
    this.searched = searched;
    this.all = all;
  }

  /** Looks for the libraries, see {@linkcode librarySearchPath}. Reads directories and opens nothing. */
  static find(options: Partial<SearchPathOptions> = {}): CudaLibraries {
    const searched = librarySearchPath({ env: permittedVariable, ...options });
    const all = searched.flatMap((folder) => {
      const names = entries(folder);
      return NAMES.flatMap((name) =>
        names.flatMap((file): FoundLibrary[] => {
          const version = SPECS[name].file.exec(file)?.[1];
          if (version === undefined) return [];
          const companions = name === "nvrtc" ? builtins(folder, { names, version }) : [];
          return [{ name, path: join(folder, file), major: Number(version), companions }];
        })
      );
    });
    return new CudaLibraries(searched, all);
  }

  /**
   * The first library of that name, of the newest version up to `maxMajor`; undefined when there is none.
   *
   * @param options.maxMajor Newest CUDA version that will do. @default {Infinity}
   */
  tryGet(name: LibraryName, { maxMajor = Infinity }: { readonly maxMajor?: number } = {}): FoundLibrary | undefined {
    const fit = this.all.filter((library) => library.name === name && library.major <= maxMajor);
    const newest = Math.max(...fit.map(({ major }) => major));
    return fit.find(({ major }) => major === newest);
  }

  /** As {@linkcode tryGet}. @throws {Deno.errors.NotFound} when there is none: where it looked and what to install. */
  get(name: LibraryName, options: { readonly maxMajor?: number } = {}): FoundLibrary {
    const library = this.tryGet(name, options);
    if (library === undefined) throw new Deno.errors.NotFound(this.#absence(name, options));
    return library;
  }

  /** Why {@linkcode get} would throw; undefined where it would not. */
  whyMissing(name: LibraryName, options: { readonly maxMajor?: number } = {}): string | undefined {
    return this.tryGet(name, options) === undefined ? this.#absence(name, options) : undefined;
  }

  #absence(name: LibraryName, options: { readonly maxMajor?: number }): string {
    const { shown, title, remedy } = SPECS[name];
    const others = this.all.filter((other) => other.name === name);
    const unfit = others.length === 0
      ? "found none"
      : `found only ${
        others.map(({ path }) => path).join(", ")
      }, which the driver (CUDA ${options.maxMajor}) is too old for`;
    return `Cannot find ${title}: wanted ${shown}, ${unfit} in ${
      this.searched.join(", ")
    }; ${remedy}, or name its directory in ${CUDA_PATH_VARIABLE}`;
  }

  /** Paths of what {@linkcode get} may give, whatever the driver, with companions: for `--allow-ffi`. */
  get paths(): readonly string[] {
    const first = new Map(this.all.toReversed().map((library) => [`${library.name} ${library.major}`, library]));
    return [...first.values()].flatMap(({ path, companions }) => [...companions, path]);
  }
}

/** NVRTC opens this part of itself by bare name, which fails outside the loader's own directories. */
function builtins(
  folder: string,
  { names, version }: { readonly names: readonly string[]; readonly version: string },
): readonly string[] {
  const wanted = new RegExp(`^libnvrtc-builtins\\.so\\.${version}\\.\\d+$`);
  return names.filter((file) => wanted.test(file)).map((file) => join(folder, file));
}

function permittedVariable(name: string): string | undefined {
  const permitted = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  return permitted && SEARCH_VARIABLES.includes(name) ? Deno.env.get(name) : undefined;
}

// Tasks grant the right to load these files alone.
if (import.meta.main) console.log(CudaLibraries.find().paths.map((path) => `,${path}`).join(""));
