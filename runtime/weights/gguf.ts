/**
 * Reader of GGUF files, versions 2 and 3, little-endian.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * @module
 */
import type { DType } from "../../kernels/dtype.ts";
import { DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { ByteSource } from "./byte_source.ts";
import { GgufHeader, type GgufNumbers, GgufStrings, type GgufValue } from "./gguf_header.ts";
import { ModelFileError } from "./model_file_error.ts";
import { StoredTensor } from "./stored_tensor.ts";

/** Most metadata entries. */
export const MAX_METADATA_ENTRIES = 65_536;
/** Most tensors. */
export const MAX_TENSORS = 65_536;
/** Longest metadata key, from the format. */
export const MAX_KEY_BYTES = 65_535;
/** Longest tensor name, from the format. */
export const MAX_TENSOR_NAME_BYTES = 64;
/** Most dimensions of a tensor, from the format. */
export const MAX_DIMENSIONS = 4;
/** Largest alignment of the tensor data. */
export const MAX_ALIGNMENT = 65_536;

const MAGIC = "GGUF";
const DEFAULT_ALIGNMENT = 32;
const UINT32 = 4;

/** Names of the tensor types by number; those that {@linkcode DType} lacks are for messages. */
const TENSOR_TYPES: Readonly<Record<number, string>> = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  8: "Q8_0",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  30: "BF16",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
  40: "NVFP4",
  41: "Q1_0",
};

function isDType(name: string | undefined): name is DType {
  return name !== undefined && Object.hasOwn(DTYPE_LAYOUT, name);
}

/** A parsed GGUF file. It does not own its source. */
export class GgufFile {
  /** Name for messages. */
  readonly name: string;
  /** Format version, 2 or 3. */
  readonly version: number;
  /** Tensors by name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** The header as stored: metadata and tensor table. */
  readonly header: Uint8Array;
  /** First byte of the tensor data. */
  readonly dataOffset: number;
  readonly #metadata: ReadonlyMap<string, GgufValue>;

  /** Reads and checks the header. @throws {ModelFileError} when the file breaks a rule of the format. */
  constructor(source: ByteSource) {
    this.name = source.name;
    const header = new GgufHeader(source);
    const { version, tensorCount, entryCount } = readPreamble(header);
    this.version = version;
    const { metadata, alignment } = readMetadata(header, entryCount);
    this.#metadata = metadata;
    const table = readTensorTable(header, tensorCount);
    this.header = header.consumed;
    this.dataOffset = Math.ceil(header.position / alignment) * alignment;
    this.tensors = placeTensors(source, table, { alignment, dataOffset: this.dataOffset });
  }

  /** Keys of the metadata. */
  keys(): IterableIterator<string> {
    return this.#metadata.keys();
  }

  /** Metadata value of `key`. */
  get(key: string): GgufValue | undefined {
    return this.#metadata.get(key);
  }

  /** A number, when the key is there. @throws {ModelFileError} when it is not a number. */
  number(key: string): number | undefined {
    const value = this.#metadata.get(key);
    if (value === undefined || typeof value === "number") return value;
    throw this.#wrongType(key, "a number below 2^53", value);
  }

  /** A string, when the key is there. @throws {ModelFileError} when it is not a string. */
  string(key: string): string | undefined {
    const value = this.#metadata.get(key);
    if (value === undefined || typeof value === "string") return value;
    throw this.#wrongType(key, "a string", value);
  }

  /** A boolean, when the key is there. @throws {ModelFileError} when it is not a boolean. */
  boolean(key: string): boolean | undefined {
    const value = this.#metadata.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.#wrongType(key, "a boolean", value);
  }

  /** An array of strings, when the key is there. @throws {ModelFileError} when it is something else. */
  strings(key: string): GgufStrings | undefined {
    const value = this.#metadata.get(key);
    if (value === undefined || value instanceof GgufStrings) return value;
    throw this.#wrongType(key, "an array of strings", value);
  }

  /** An array of numbers, when the key is there. @throws {ModelFileError} when it is something else. */
  numbers(key: string): GgufNumbers | undefined {
    const value = this.#metadata.get(key);
    if (value === undefined || (ArrayBuffer.isView(value) && !(value instanceof DataView))) return value;
    throw this.#wrongType(key, "an array of numbers", value);
  }

  #wrongType(key: string, wanted: string, value: GgufValue): ModelFileError {
    const actual = typeof value === "object" ? `an array of ${value.length}` : `a ${typeof value}`;
    return new ModelFileError(this.name, { field: key, problem: `must be ${wanted}, got ${actual}` });
  }
}

function readPreamble(header: GgufHeader): { version: number; tensorCount: number; entryCount: number } {
  header.field = "magic";
  const magic = String.fromCharCode(...header.takeBytes(4));
  if (magic !== MAGIC) throw header.error(`must be "${MAGIC}", got ${JSON.stringify(magic)}`);
  header.field = "version";
  const version = header.u32();
  if (version !== 2 && version !== 3) {
    const bigEndian = version !== 0 && (version & 0xffff) === 0;
    throw header.error(
      bigEndian ? "is big-endian, only little-endian files are supported" : `must be 2 or 3, got ${version}`,
    );
  }
  header.field = "tensor count";
  const tensorCount = header.count(MAX_TENSORS);
  header.field = "metadata count";
  const entryCount = header.count(MAX_METADATA_ENTRIES);
  return { version, tensorCount, entryCount };
}

function readMetadata(
  header: GgufHeader,
  entryCount: number,
): { metadata: Map<string, GgufValue>; alignment: number } {
  const metadata = new Map<string, GgufValue>();
  let alignment = DEFAULT_ALIGNMENT;
  for (let index = 0; index < entryCount; index++) {
    header.field = `metadata key ${index}`;
    const key = header.string(MAX_KEY_BYTES);
    if (key === "") throw header.error("must not be empty");
    if (metadata.has(key)) throw header.error(`repeats ${JSON.stringify(key)}`);
    header.field = key;
    const type = header.u32();
    const value = header.value(type);
    if (key === "general.alignment") {
      if (type !== UINT32 || typeof value !== "number") {
        throw header.error(`must have value type ${UINT32}, got ${type}`);
      }
      if (value < 1 || value > MAX_ALIGNMENT || (value & (value - 1)) !== 0) {
        throw header.error(`must be a power of two up to ${MAX_ALIGNMENT}, got ${value}`);
      }
      alignment = value;
    }
    metadata.set(key, value);
  }
  return { metadata, alignment };
}

interface TableEntry {
  readonly name: string;
  readonly dtype: DType;
  /** Slowest dimension first. */
  readonly shape: readonly number[];
  readonly bytes: number;
  /** From the start of the tensor data. */
  readonly offset: number;
}

function readTensorTable(header: GgufHeader, tensorCount: number): Map<string, TableEntry> {
  const table = new Map<string, TableEntry>();
  for (let index = 0; index < tensorCount; index++) {
    header.field = `tensor name ${index}`;
    const name = header.string(MAX_TENSOR_NAME_BYTES);
    if (name === "") throw header.error("must not be empty");
    if (table.has(name)) throw header.error(`repeats ${JSON.stringify(name)}`);
    header.field = `tensor ${JSON.stringify(name)}`;
    table.set(name, readTableEntry(header, name));
  }
  return table;
}

function readTableEntry(header: GgufHeader, name: string): TableEntry {
  const rank = header.u32();
  if (rank < 1 || rank > MAX_DIMENSIONS) throw header.error(`must have 1 to ${MAX_DIMENSIONS} dimensions, got ${rank}`);
  const shape: number[] = [];
  let elements = 1;
  for (let axis = 0; axis < rank; axis++) {
    const size = header.count(Number.MAX_SAFE_INTEGER);
    if (size === 0) throw header.error(`has size 0 in dimension ${axis}`);
    elements *= size;
    if (elements > Number.MAX_SAFE_INTEGER) throw header.error("has more than 2^53 elements");
    shape.unshift(size);
  }
  const type = header.u32();
  const dtype = TENSOR_TYPES[type];
  if (!isDType(dtype)) {
    throw header.error(
      `has type ${dtype ?? "unknown"} (${type}), supported are ${Object.keys(DTYPE_LAYOUT).join(", ")}`,
    );
  }
  const layout = DTYPE_LAYOUT[dtype];
  const cols = shape[shape.length - 1];
  if (cols % layout.elements !== 0) {
    throw header.error(`has rows of ${cols} values, ${dtype} needs a multiple of ${layout.elements}`);
  }
  const bytes = (elements / layout.elements) * layout.bytes;
  if (bytes > Number.MAX_SAFE_INTEGER) throw header.error("has more than 2^53 bytes");
  return { name, dtype, shape, bytes, offset: header.count(Number.MAX_SAFE_INTEGER) };
}

function placeTensors(
  source: ByteSource,
  table: ReadonlyMap<string, TableEntry>,
  { alignment, dataOffset }: { readonly alignment: number; readonly dataOffset: number },
): Map<string, StoredTensor> {
  const error = (name: string, problem: string) =>
    new ModelFileError(source.name, { field: `tensor ${JSON.stringify(name)}`, problem });
  const dataBytes = source.size - dataOffset;
  const tensors = new Map<string, StoredTensor>();
  for (const entry of table.values()) {
    if (entry.offset % alignment !== 0) {
      throw error(entry.name, `begins at ${entry.offset}, wanted a multiple of ${alignment}`);
    }
    if (entry.offset > dataBytes - entry.bytes) {
      throw error(
        entry.name,
        `ends at ${dataOffset + entry.offset + entry.bytes}, the file has ${source.size} bytes`,
      );
    }
    tensors.set(entry.name, new StoredTensor({ ...entry, source, offset: dataOffset + entry.offset }));
  }
  const placed = [...table.values()].sort((a, b) => a.offset - b.offset);
  for (let index = 1; index < placed.length; index++) {
    const before = placed[index - 1];
    if (before.offset + before.bytes > placed[index].offset) {
      throw error(placed[index].name, `overlaps tensor ${JSON.stringify(before.name)}`);
    }
  }
  return tensors;
}
