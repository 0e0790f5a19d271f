/**
 * Opens a model from a path.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { basename } from "node:path";
import { FileSource } from "../weights/byte_source.ts";
import { GgufFile } from "../weights/gguf.ts";
import { HfDirectory } from "../weights/hf_directory.ts";
import { ModelFileError } from "../weights/model_file_error.ts";
import { type Decoder, FAMILIES, type ModelFamily } from "./family.ts";
import { ggufTextAssets } from "./gguf_text.ts";
import { hfTextAssets } from "./hf_text.ts";
import type { ModelWeights, OpenModel, TextAssets, WeightTensor } from "./model.ts";

/** Pieces of the tensor data that go into the digest, and bytes of each. */
const SAMPLES = 256;
const SAMPLE_BYTES = 4096;

/**
 * Opens a GGUF file or a Hugging Face directory. Tensor data is read later, through {@linkcode WeightTensor.readInto};
 * the caller disposes the model, which closes the files. The tokenizer is read and checked when
 * {@linkcode OpenModel.text} is first asked for, which then throws {@linkcode ModelFileError} as this function does: a
 * process that only computes does not pay for it.
 *
 * @throws {ModelFileError} when the path is missing or is not a model that can be run.
 */
export function openModel(path: string): OpenModel {
  let directory: boolean;
  try {
    directory = statSync(path).isDirectory();
  } catch (cause) {
    throw new ModelFileError(path, { field: "path", problem: "must be a .gguf file or a model directory", cause });
  }
  return directory ? openDirectory(path) : openGguf(path);
}

function openGguf(path: string): OpenModel {
  const source = new FileSource(path);
  try {
    const file = new GgufFile(source);
    const shards = file.number("split.count") ?? 1;
    if (shards > 1) {
      throw new ModelFileError(file.name, {
        field: "split.count",
        problem: `must be 1, got ${shards}: join the parts`,
      });
    }
    const family = familyOf(file.name, { field: "general.architecture", value: file.string("general.architecture") });
    const decoder = family.fromGguf(file);
    return new OpenedModel({
      name: basename(path).replace(/\.gguf$/i, ""),
      digest: digest([file.header], [...file.tensors.values()]),
      decoder,
      readText: () => ggufTextAssets(file, decoder.config.vocab),
      files: source,
    });
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

function openDirectory(path: string): OpenModel {
  const directory = new HfDirectory(path);
  try {
    const { config } = directory;
    const family = familyOf(config.file, { field: "model_type", value: config.string("model_type") });
    const decoder = family.fromHuggingFace(directory);
    const identity = [
      new TextEncoder().encode(JSON.stringify(config.root)),
      ...directory.shards.map((shard) => shard.header),
    ];
    return new OpenedModel({
      name: directory.name,
      digest: digest(identity, directory.shards.flatMap((shard) => [...shard.tensors.values()])),
      decoder,
      readText: () => hfTextAssets(directory, decoder.config.vocab),
      files: directory,
    });
  } catch (error) {
    directory[Symbol.dispose]();
    throw error;
  }
}

function familyOf(
  file: string,
  { field, value }: { readonly field: string; readonly value: string | undefined },
): ModelFamily {
  const family = value === undefined ? undefined : FAMILIES.get(value);
  if (family !== undefined) return family;
  throw new ModelFileError(file, {
    field,
    problem: `must be one of ${[...FAMILIES.keys()].join(", ")}, got ${JSON.stringify(value)}`,
  });
}

/** SHA-256 over the headers and pieces of the tensor data at even distances, all of it where that is little. */
function digest(headers: readonly Uint8Array[], tensors: readonly WeightTensor[]): string {
  const hash = createHash("sha256");
  for (const header of headers) hash.update(header);
  const total = tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const gap = Math.max(0, Math.ceil(total / SAMPLES) - SAMPLE_BYTES);
  const buffer = new Uint8Array(SAMPLE_BYTES);
  // Positions count the bytes of all tensors as one stream; a piece may go on in the next tensor.
  let position = 0;
  let left = SAMPLE_BYTES;
  let start = 0;
  for (const tensor of tensors) {
    const end = start + tensor.bytes;
    while (position < end) {
      const piece = buffer.subarray(0, Math.min(left, end - position));
      tensor.readInto(piece, position - start);
      hash.update(piece);
      position += piece.length;
      left -= piece.length;
      if (left === 0) {
        position += gap;
        left = SAMPLE_BYTES;
      }
    }
    start = end;
  }
  return hash.digest("hex");
}

function distinctTensors({ embedding, layers, outputNorm, head }: ModelWeights): Set<WeightTensor> {
  return new Set([embedding, ...layers.flatMap((layer) => Object.values(layer)), outputNorm, head]);
}

class OpenedModel implements OpenModel {
  readonly name: string;
  readonly digest: string;
  readonly config: Decoder["config"];
  readonly weights: Decoder["weights"];
  readonly weightBytes: number;
  readonly #files: Disposable;
  readonly #readText: () => TextAssets;
  #text: TextAssets | undefined;

  constructor(parts: {
    readonly name: string;
    readonly digest: string;
    readonly decoder: Decoder;
    readonly readText: () => TextAssets;
    readonly files: Disposable;
  }) {
    this.name = parts.name;
    this.digest = parts.digest;
    this.config = parts.decoder.config;
    this.weights = parts.decoder.weights;
    this.#readText = parts.readText;
    this.#files = parts.files;
    this.weightBytes = [...distinctTensors(this.weights)].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get text(): TextAssets {
    return this.#text ??= this.#readText();
  }

  [Symbol.dispose](): void {
    this.#files[Symbol.dispose]();
  }
}
