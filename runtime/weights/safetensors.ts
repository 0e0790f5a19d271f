/**
 * Reader of safetensors files: an 8-byte little-endian header length, a JSON header, the tensor data without holes.
 * Format: https://github.com/huggingface/safetensors#format
 *
 * @module
 */
import { type DType, DTYPE_LAYOUT } from "../../kernels/dtype.ts";
import type { ByteSource } from "./byte_source.ts";
import { isJsonObject, type JsonObject, parseJson } from "./json_document.ts";
import { ModelFileError } from "./model_file_error.ts";
import { StoredTensor } from "./stored_tensor.ts";

/** Longest JSON header. */
export const MAX_SAFETENSORS_HEADER_BYTES: number = 16 * 2 ** 20;
/** Most dimensions of a tensor. */
export const MAX_SAFETENSORS_DIMENSIONS = 8;

const LENGTH_BYTES = 8;
const OPEN_BRACE = 0x7b;
/** The types that weights come in; the format names them as {@linkcode DType} does. */
const SUPPORTED: readonly DType[] = ["F32", "F16", "BF16"];

/** A parsed safetensors file. It does not own its source. */
export class SafetensorsFile {
  /** Name for messages. */
  readonly name: string;
  /** Tensors by name, in the order of their data. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** `__metadata__` of the header. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The header as stored, its length included. */
  readonly header: Uint8Array;

  /** Reads and checks the header. @throws {ModelFileError} when the file breaks a rule of the format. */
  constructor(source: ByteSource) {
    this.name = source.name;
    this.header = readHeader(source);
    const document = parseJson(this.header.subarray(LENGTH_BYTES), { file: source.name, field: "header" });
    const { __metadata__: metadata, ...entries } = document;
    this.metadata = checkMetadata(source.name, metadata);
    this.tensors = placeTensors(source, { entries, dataOffset: this.header.length });
  }
}

function readHeader(source: ByteSource): Uint8Array {
  const error = (problem: string) => new ModelFileError(source.name, { field: "header length", problem });
  if (source.size < LENGTH_BYTES) throw error(`needs ${LENGTH_BYTES} bytes, the file has ${source.size}`);
  const prefix = new Uint8Array(LENGTH_BYTES);
  source.readInto(prefix, 0);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > MAX_SAFETENSORS_HEADER_BYTES) {
    throw error(`must be at most ${MAX_SAFETENSORS_HEADER_BYTES}, got ${length}`);
  }
  if (LENGTH_BYTES + Number(length) > source.size) {
    throw error(`must fit into the file of ${source.size} bytes, got ${length}`);
  }
  const header = new Uint8Array(LENGTH_BYTES + Number(length));
  source.readInto(header, 0);
  if (header[LENGTH_BYTES] !== OPEN_BRACE) {
    throw new ModelFileError(source.name, { field: "header", problem: 'must begin with "{"' });
  }
  return header;
}

function checkMetadata(file: string, metadata: unknown): Readonly<Record<string, string>> {
  if (metadata === undefined) return {};
  const error = () => new ModelFileError(file, { field: "__metadata__", problem: "must be an object of strings" });
  if (!isJsonObject(metadata)) throw error();
  const strings: [string, string][] = Object.entries(metadata).map(([key, value]) => {
    if (typeof value !== "string") throw error();
    return [key, value];
  });
  return Object.fromEntries(strings);
}

interface HeaderEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly begin: number;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function readEntry(name: string, value: unknown, fail: (problem: string) => ModelFileError): HeaderEntry {
  if (!isJsonObject(value)) throw fail("must be an object");
  for (const key of Object.keys(value)) {
    if (key !== "dtype" && key !== "shape" && key !== "data_offsets") throw fail(`has an unknown field "${key}"`);
  }
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  const dtype = SUPPORTED.find((supported) => supported === dtypeName);
  if (dtype === undefined) {
    throw fail(`has type ${JSON.stringify(dtypeName)}, supported are ${SUPPORTED.join(", ")}`);
  }
  if (!Array.isArray(shape) || shape.length > MAX_SAFETENSORS_DIMENSIONS || !shape.every(isCount)) {
    throw fail(`must have a shape of at most ${MAX_SAFETENSORS_DIMENSIONS} non-negative integers`);
  }
  // A product past 2^53 stays past it (or becomes 0 by a factor 0, which is then right), so one check at the end will do.
  const bytes = shape.reduce((product, size) => product * size, DTYPE_LAYOUT[dtype].bytes);
  if (!Number.isSafeInteger(bytes)) throw fail("has more than 2^53 bytes");
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw fail("must have data_offsets of two non-negative integers");
  }
  const [begin, end] = offsets;
  if (end - begin !== bytes) throw fail(`has ${end - begin} bytes of data, its type and shape need ${bytes}`);
  return { name, dtype, shape, bytes, begin };
}

function placeTensors(
  source: ByteSource,
  { entries, dataOffset }: { readonly entries: JsonObject; readonly dataOffset: number },
): Map<string, StoredTensor> {
  const error = (name: string, problem: string) =>
    new ModelFileError(source.name, { field: `tensor ${JSON.stringify(name)}`, problem });
  const placed = Object.entries(entries)
    .map(([name, value]) => readEntry(name, value, (problem) => error(name, problem)))
    .sort((a, b) => a.begin - b.begin || a.bytes - b.bytes);
  const tensors = new Map<string, StoredTensor>();
  let end = 0;
  for (const entry of placed) {
    if (entry.begin !== end) {
      throw error(entry.name, `begins at ${entry.begin}, the data before it ends at ${end}`);
    }
    end += entry.bytes;
    if (dataOffset + end > source.size) {
      throw error(entry.name, `ends at ${dataOffset + end}, the file has ${source.size} bytes`);
    }
    tensors.set(entry.name, new StoredTensor({ ...entry, source, offset: dataOffset + entry.begin }));
  }
  if (dataOffset + end !== source.size) {
    throw new ModelFileError(source.name, {
      field: "data",
      problem: `ends at ${dataOffset + end}, the file has ${source.size} bytes`,
    });
  }
  return tensors;
}
