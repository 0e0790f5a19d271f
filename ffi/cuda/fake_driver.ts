/**
 * Libraries that stand for the CUDA driver, NVRTC and cuBLASLt in tests, built with the machine's C compiler.
 *
 * @module
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DRIVER_SYMBOLS } from "./driver_symbols.ts";
import { cString, HOST_MEMORY_SYMBOLS } from "./host_memory.ts";
import { CudaLibraries } from "./libraries.ts";
import { CUDA_PATH_VARIABLE } from "./search_path.ts";

const CONTROLS = {
  // void fake_reset(void);
  fake_reset: { parameters: [], result: "void" },
  // int fake_take_notes(char *out, int bytes);
  fake_take_notes: { parameters: ["buffer", "i32"], result: "i32" },
  // void fake_fail(const char *name, int code);
  fake_fail: { parameters: ["buffer", "i32"], result: "void" },
  // void fake_version(int value);
  fake_version: { parameters: ["i32"], result: "void" },
  // void fake_devices(int value);
  fake_devices: { parameters: ["i32"], result: "void" },
  // void fake_capability(int value);
  fake_capability: { parameters: ["i32"], result: "void" },
  // void fake_event_state(int value);
  fake_event_state: { parameters: ["i32"], result: "void" },
  // int fake_live(void);
  fake_live: { parameters: [], result: "i32" },
  // void fake_parameters(const int *bytes, int count);
  fake_parameters: { parameters: ["buffer", "i32"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

interface FakeLibrary {
  /** Its source beside this file. */
  readonly file: string;
  /** Its file name. */
  readonly library: string;
  /** Another name for it. */
  readonly link?: string;
  /** Table whose other functions are generated. */
  readonly symbols?: Deno.ForeignLibraryInterface;
}

const LIBRARIES: readonly FakeLibrary[] = [
  { file: "fake_driver.c", library: "libcuda.so.580.1.2", link: "libcuda.so.1", symbols: DRIVER_SYMBOLS },
  { file: "fake_nvrtc.c", library: "libnvrtc.so.13" },
  { file: "fake_blas.c", library: "libcublasLt.so.13" },
];

/** Folder of what is built; ignored by git and open to the tests. */
const FOLDER = fileURLToPath(new URL("./target/", import.meta.url));

/** The fake driver, loaded once more by whoever looks for libraries where {@linkcode libraries} does. */
export class FakeDriver implements Disposable {
  /** A search that finds it. */
  readonly libraries: CudaLibraries;
  readonly #library: Deno.DynamicLibrary<typeof CONTROLS>;

  /** Loads what was built; {@linkcode open} makes these. */
  constructor(folder: string) {
    this.libraries = CudaLibraries.find({ env: (name) => name === CUDA_PATH_VARIABLE ? folder : undefined });
    this.#library = Deno.dlopen(join(folder, "libcuda.so.1"), CONTROLS);
    this.#library.symbols.fake_reset();
  }

  /** Whether it can be built here. */
  static readonly available: boolean = Deno.build.os === "linux" && hasCompiler();

  /** Builds it where that was not done before, and loads it. @throws {Error} when the compiler fails. */
  static open(): FakeDriver {
    const folder = join(FOLDER, "fake");
    for (const library of LIBRARIES) build(folder, library);
    return new FakeDriver(folder);
  }

  /** Calls and what is known of them since the last time, one a line. */
  takeNotes(): string[] {
    const text = new Uint8Array(1 << 16);
    const bytes = this.#library.symbols.fake_take_notes(text, text.length);
    return new TextDecoder().decode(text.subarray(0, bytes)).split("\n").slice(0, -1);
  }

  /** Has a function return `code`; an empty name ends that. */
  fail(name: keyof typeof DRIVER_SYMBOLS | "", code = 0): void {
    this.#library.symbols.fake_fail(cString(name), code);
  }

  /** Sets the driver's version. */
  setVersion(version: number): void {
    this.#library.symbols.fake_version(version);
  }

  /** Sets how many GPUs there are. */
  setDevices(count: number): void {
    this.#library.symbols.fake_devices(count);
  }

  /** Sets the compute capability of the GPUs, before the point. */
  setCapability(major: number): void {
    this.#library.symbols.fake_capability(major);
  }

  /** Sets what events and streams answer: 0 reached, 600 not yet. */
  setEventState(code: number): void {
    this.#library.symbols.fake_event_state(code);
  }

  /** Sets the sizes of the parameters of every kernel. */
  setParameters(...bytes: readonly number[]): void {
    this.#library.symbols.fake_parameters(new Int32Array(bytes), bytes.length);
  }

  /** Handles and memory that were not given back. */
  get live(): number {
    return this.#library.symbols.fake_live();
  }

  /** Unloads it. */
  [Symbol.dispose](): void {
    this.#library.close();
  }
}

function hasCompiler(): boolean {
  try {
    return new Deno.Command("cc", { args: ["--version"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** Builds one library of the fakes where its source is not the one it was last built from. */
function build(folder: string, { file, library, link = library, symbols = {} }: FakeLibrary): void {
  const written = Deno.readTextFileSync(new URL(file, import.meta.url));
  const rest = Object.keys(symbols)
    .filter((name) => !Object.hasOwn(HOST_MEMORY_SYMBOLS, name) && !new RegExp(`^int ${name}\\(`, "m").test(written))
    .map((name) => `int ${name}(void) { return called("${name}"); }\n`);
  const source = written + rest.join("");
  const kept = join(folder, file);
  const named = join(folder, link);
  Deno.mkdirSync(folder, { recursive: true });
  if (readText(kept) === source && readText(named) !== undefined) return;
  // Another test process may be building too: each writes files of its own, and the last one to finish wins.
  const temporary = Deno.makeTempFileSync({ dir: folder, suffix: ".c" });
  try {
    Deno.writeTextFileSync(temporary, source);
    const { success, stderr } = new Deno.Command("cc", {
      args: ["-shared", "-fPIC", "-O1", "-Wall", "-o", `${temporary}.so`, temporary],
      stdout: "null",
      stderr: "piped",
    }).outputSync();
    if (!success) throw new Error(`Cannot build ${library} from ${file}: ${new TextDecoder().decode(stderr)}`);
    Deno.renameSync(`${temporary}.so`, join(folder, library));
    if (link !== library) {
      Deno.symlinkSync(library, `${temporary}.link`);
      Deno.renameSync(`${temporary}.link`, named);
    }
    Deno.renameSync(temporary, kept);
  } catch (error) {
    Deno.removeSync(temporary);
    throw error;
  }
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}
