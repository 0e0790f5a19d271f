/**
 * A model directory as Hugging Face lays it out: `config.json`, tokenizer files, one or several safetensors files.
 *
 * @module
 */
import { basename, join, resolve } from "node:path";
import { FileSource } from "./byte_source.ts";
import { isJsonObject, JsonDocument, parseJson } from "./json_document.ts";
import { ModelFileError } from "./model_file_error.ts";
import { SafetensorsFile } from "./safetensors.ts";
import type { StoredTensor } from "./stored_tensor.ts";

/** Largest JSON or template file that is read. */
export const MAX_JSON_FILE_BYTES: number = 64 * 2 ** 20;
/** Most safetensors files of one model. */
export const MAX_SHARDS = 1024;

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** An opened model directory. Disposing it closes the weight files. */
export class HfDirectory implements Disposable {
  /** Name for messages: the last part of the path. */
  readonly name: string;
  /** `config.json`. */
  readonly config: JsonDocument;
  /** Weight files in the order of their names. */
  readonly shards: readonly SafetensorsFile[];
  /** Tensors of all weight files by name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly #path: string;
  readonly #sources: FileSource[] = [];

  /**
   * Opens the directory and reads `config.json` and the headers of the weights.
   *
   * @throws {ModelFileError} when a file is missing or breaks a rule.
   */
  constructor(path: string) {
    this.#path = path;
    this.name = basename(resolve(path));
    const config = this.json("config.json");
    if (config === undefined) throw this.#error("config.json", "is missing");
    this.config = config;
    try {
      const index = this.json(INDEX);
      const assigned = index === undefined ? undefined : this.#readIndex(index);
      const files = assigned === undefined ? [this.#singleFile()] : [...new Set(assigned.values())].sort();
      this.shards = files.map((file) => this.#openShard(file));
      this.tensors = this.#joinShards(assigned);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Closes the weight files. */
  [Symbol.dispose](): void {
    for (const source of this.#sources) source[Symbol.dispose]();
  }

  /** A JSON file of the directory, undefined when it does not exist. @throws {ModelFileError} when it is not an object. */
  json(file: string): JsonDocument | undefined {
    const bytes = this.#read(file);
    if (bytes === undefined) return undefined;
    return new JsonDocument(`${this.name}/${file}`, parseJson(bytes, { file: this.name, field: file }));
  }

  /** A text file of the directory, undefined when it does not exist. @throws {ModelFileError} when it is not UTF-8. */
  text(file: string): string | undefined {
    const bytes = this.#read(file);
    if (bytes === undefined) return undefined;
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (cause) {
      throw new ModelFileError(this.name, { field: file, problem: "must be UTF-8", cause });
    }
  }

  #error(field: string, problem: string): ModelFileError {
    return new ModelFileError(this.name, { field, problem });
  }

  #read(file: string): Uint8Array | undefined {
    let source: FileSource;
    try {
      source = new FileSource(join(this.#path, file));
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
      throw error;
    }
    using opened = source;
    if (opened.size > MAX_JSON_FILE_BYTES) {
      throw this.#error(file, `must have at most ${MAX_JSON_FILE_BYTES} bytes, it has ${opened.size}`);
    }
    const bytes = new Uint8Array(opened.size);
    opened.readInto(bytes, 0);
    return bytes;
  }

  #singleFile(): string {
    const files = [...Deno.readDirSync(this.#path)].map(({ name }) => name).filter((name) =>
      name.endsWith(".safetensors")
    );
    if (files.includes(SINGLE)) return SINGLE;
    if (files.length === 1) return files[0];
    throw this.#error(
      "weights",
      files.length === 0
        ? "are missing: no .safetensors file"
        : `are ${files.length} .safetensors files without ${INDEX}`,
    );
  }

  /** File of each tensor. Names are checked: an index must not reach outside of its directory. */
  #readIndex(index: JsonDocument): Map<string, string> {
    const map = index.get("weight_map");
    if (!isJsonObject(map)) throw this.#error(`${INDEX} weight_map`, "must be an object");
    const assigned = new Map<string, string>();
    const files = new Set<string>();
    for (const [tensor, file] of Object.entries(map)) {
      if (typeof file !== "string" || !/^[^/\\\0]+\.safetensors$/.test(file)) {
        throw this.#error(
          `${INDEX} weight_map.${tensor}`,
          `must name a .safetensors file of the same directory, got ${JSON.stringify(file)?.slice(0, 80)}`,
        );
      }
      assigned.set(tensor, file);
      files.add(file);
    }
    if (files.size > MAX_SHARDS) throw this.#error(INDEX, `must name at most ${MAX_SHARDS} files, got ${files.size}`);
    return assigned;
  }

  #openShard(file: string): SafetensorsFile {
    let source: FileSource;
    try {
      source = new FileSource(join(this.#path, file));
    } catch (cause) {
      throw new ModelFileError(this.name, { field: file, problem: "cannot be opened", cause });
    }
    this.#sources.push(source);
    return new SafetensorsFile(source);
  }

  #joinShards(assigned: ReadonlyMap<string, string> | undefined): Map<string, StoredTensor> {
    const tensors = new Map<string, StoredTensor>();
    const fileOf = new Map<string, string>();
    for (const shard of this.shards) {
      for (const [name, tensor] of shard.tensors) {
        const other = fileOf.get(name);
        if (other !== undefined) {
          throw this.#error(`tensor ${JSON.stringify(name)}`, `is in ${other} and in ${shard.name}`);
        }
        if (assigned !== undefined && assigned.get(name) !== shard.name) {
          throw this.#error(
            `tensor ${JSON.stringify(name)}`,
            `is in ${shard.name}, ${INDEX} says ${assigned.get(name) ?? "nothing of it"}`,
          );
        }
        fileOf.set(name, shard.name);
        tensors.set(name, tensor);
      }
    }
    for (const [name, file] of assigned ?? []) {
      if (!fileOf.has(name)) throw this.#error(`tensor ${JSON.stringify(name)}`, `is not in ${file}, as ${INDEX} says`);
    }
    return tensors;
  }
}
