import { assertEquals } from "@std/assert";
import { BLAS_SYMBOLS } from "./blas_symbols.ts";
import { DRIVER_SYMBOLS } from "./driver_symbols.ts";
import { HOST_MEMORY_SYMBOLS } from "./host_memory.ts";
import { NVRTC_SYMBOLS } from "./nvrtc_symbols.ts";
import { type Prototype, readPrototypes } from "./test_prototypes.ts";

const TYPES: Readonly<Record<string, string>> = {
  "void": "void",
  "int": "i32",
  "unsigned int": "u32",
  "unsigned char": "u8",
  "unsigned long long": "u64",
  "size_t": "usize",
  "uint64_t": "u64",
  "cuuint32_t": "u32",
  "int64_t": "i64",
  "CUdeviceptr": "u64",
  "CUdevice": "i32",
};

/** Handles: pointers to structures that only the library knows. */
const HANDLES =
  /^(CUcontext|CUstream|CUevent|CUgraph|CUgraphExec|CUmodule|CUfunction|nvrtcProgram|cudaStream_t)$|^cublasLt(Handle|MatmulDesc|MatrixLayout|MatmulPreference)_t$/;

/** Enumerations, which are as wide as an int. */
const ENUMERATIONS =
  /^(CUresult|CUdevice_attribute|CUfunction_attribute|CUstreamCaptureMode|CUtensorMap\w+|nvrtcResult|cublasStatus_t|cublasComputeType_t|cudaDataType(_t)?|cublasLt\w+Attributes_t)$/;

/** What a C type may be in a table. */
function allowed(type: string): readonly string[] {
  const plain = type.replaceAll(/\bconst\b/g, "").replace(/\s+/g, " ").trim();
  if (plain.includes("*")) return ["buffer", "u64"];
  if (HANDLES.test(plain)) return ["u64"];
  if (ENUMERATIONS.test(plain)) return ["i32"];
  return Object.hasOwn(TYPES, plain) ? [TYPES[plain]] : [];
}

/** Prototypes in the comments of a table, by key. */
function prototypes(file: string): Map<string, Prototype> {
  const source = Deno.readTextFileSync(new URL(file, import.meta.url));
  return new Map(readPrototypes(source).map((prototype) => [prototype.key, prototype]));
}

const HOST = Object.keys(HOST_MEMORY_SYMBOLS);
const TABLES: readonly {
  readonly file: string;
  readonly table: Deno.ForeignLibraryInterface;
  readonly skip: string[];
}[] = [
  { file: "host_memory.ts", table: HOST_MEMORY_SYMBOLS, skip: [] },
  { file: "driver_symbols.ts", table: DRIVER_SYMBOLS, skip: HOST },
  { file: "nvrtc_symbols.ts", table: NVRTC_SYMBOLS, skip: HOST },
  { file: "blas_symbols.ts", table: BLAS_SYMBOLS, skip: HOST },
];

for (const { file, table, skip } of TABLES) {
  const entries = Object.entries(table).filter(([key]) => !skip.includes(key));

  Deno.test(`${file} says for every function what C has, and no more`, () => {
    assertEquals([...prototypes(file).keys()].sort(), entries.map(([key]) => key).sort());
  });

  Deno.test(`${file} passes every argument as the prototype has it`, () => {
    const known = prototypes(file);
    const wrong = entries.flatMap(([key, entry]) => {
      const prototype = known.get(key);
      if (prototype === undefined || !("parameters" in entry)) return [`${key} has no prototype`];
      const name = "name" in entry ? entry.name : key;
      const list = [
        { what: "result", type: prototype.result, native: entry.result },
        ...prototype.parameters.map((type, index) => ({ what: `${index}`, type, native: entry.parameters[index] })),
      ];
      return [
        ...(prototype.symbol === name ? [] : [`${key}: ${prototype.symbol} is not ${name}`]),
        ...(prototype.parameters.length === entry.parameters.length ? [] : [`${key}: number of arguments`]),
        ...list.filter(({ type, native }) => !allowed(type).includes(String(native)))
          .map(({ what, type, native }) => `${key} ${what}: ${type.trim()} as ${native}`),
      ];
    });
    assertEquals(wrong, []);
  });

  Deno.test(`${file} needs no pointers, callbacks or structures`, () => {
    const native = entries.flatMap(([, entry]) => "parameters" in entry ? [...entry.parameters, entry.result] : []);
    assertEquals(native.filter((type) => type === "pointer" || type === "function" || typeof type === "object"), []);
  });
}
