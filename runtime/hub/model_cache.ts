/**
 * Models on this machine's disk: a directory each, with a description beside the files.
 *
 * @module
 */
import { join } from "node:path";
import type { Digest } from "./digest.ts";
import { sha256IfGood } from "./download_file.ts";
import { lockFile } from "./file_lock.ts";
import { formatModelSpec, isSafeFileName, type ModelSpec } from "./model_spec.ts";

/** A file of a cached model. */
export interface CachedFile {
  /** Name in the model's directory. */
  readonly name: string;
  /** Size. */
  readonly bytes: number;
  /** SHA-256, 64 hexadecimal digits. */
  readonly sha256: string;
}

/** The description of a cached model, `entry.json`. */
export interface CacheEntry {
  /** How users name the model. */
  readonly model: string;
  /** Where it came from. */
  readonly source: string;
  /** Its files. */
  readonly files: readonly CachedFile[];
  /** When it was complete, ISO 8601. */
  readonly fetchedAt: string;
}

/** A model that a cache can hold. */
export type CachedSpec = Exclude<ModelSpec, { readonly kind: "path" }>;

const ENTRY = "entry.json";
/** Written when the files are complete; an older layout is fetched anew. */
const LAYOUT = 1;

/** The models in one cache directory. */
export class ModelCache {
  readonly #models: string;

  /** Makes one; nothing is read or written yet. */
  constructor(directory: string) {
    this.#models = join(directory, "models");
  }

  /** Where the files of `spec` lie or will lie. */
  directoryOf(spec: CachedSpec): string {
    return join(this.#models, keyOf(spec));
  }

  /** Path to open: the model's only file, or its directory. */
  pathOf(spec: CachedSpec, entry: CacheEntry): string {
    const [file] = entry.files;
    return entry.files.length === 1 ? join(this.directoryOf(spec), file.name) : this.directoryOf(spec);
  }

  /** The description of a complete model whose files have their sizes; undefined when there is none. */
  async find(spec: CachedSpec): Promise<CacheEntry | undefined> {
    const directory = this.directoryOf(spec);
    const entry = await readEntry(directory);
    // Two names may share a directory when one has "--" in it; the later one replaces the other.
    if (entry?.model !== formatModelSpec(spec)) return undefined;
    const sizes = await Promise.all(entry.files.map(({ name }) => sizeOf(join(directory, name))));
    return entry.files.every(({ bytes }, index) => bytes === sizes[index]) ? entry : undefined;
  }

  /** Names of the files of `entry` that are not what they were. Reads all of them. */
  async damaged(spec: CachedSpec, entry: CacheEntry): Promise<string[]> {
    const damaged: string[] = [];
    for (const { name, bytes, sha256 } of entry.files) {
      const digest: Digest = { kind: "sha256", hex: sha256 };
      const good = await sha256IfGood(join(this.directoryOf(spec), name), { bytes, digest });
      if (good === undefined) damaged.push(name);
    }
    return damaged;
  }

  /** Complete models by name. */
  async list(): Promise<CacheEntry[]> {
    const entries: CacheEntry[] = [];
    try {
      for await (const { name, isDirectory } of Deno.readDir(this.#models)) {
        const entry = isDirectory ? await readEntry(join(this.#models, name)) : undefined;
        if (entry !== undefined) entries.push(entry);
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return entries.sort((a, b) => a.model < b.model ? -1 : 1);
  }

  /** Marks a model as complete. */
  async commit(spec: CachedSpec, entry: Omit<CacheEntry, "model">): Promise<CacheEntry> {
    const whole: CacheEntry = { model: formatModelSpec(spec), ...entry };
    const path = join(this.directoryOf(spec), ENTRY);
    await Deno.writeTextFile(`${path}.part`, `${JSON.stringify({ layout: LAYOUT, ...whole }, null, 2)}\n`);
    await Deno.rename(`${path}.part`, path);
    return whole;
  }

  /** Removes what there is of a model, also when it is incomplete. Gives whether there was anything. */
  async remove(spec: CachedSpec): Promise<boolean> {
    try {
      await Deno.remove(this.directoryOf(spec), { recursive: true });
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }

  /** Takes the lock under which the files of `spec` are written or removed. */
  async lock(spec: CachedSpec, options: { readonly onWait: () => void }): Promise<Disposable> {
    await Deno.mkdir(this.#models, { recursive: true });
    return await lockFile(`${this.directoryOf(spec)}.lock`, options);
  }
}

function keyOf(spec: CachedSpec): string {
  if (spec.kind === "known") return spec.name;
  return ["hf", ...spec.repo.split("/"), ...spec.file?.split("/") ?? []].join("--");
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await Deno.stat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The description in a directory; undefined when there is none or it is damaged, which fetching anew repairs. */
async function readEntry(directory: string): Promise<CacheEntry | undefined> {
  try {
    const value: unknown = JSON.parse(await Deno.readTextFile(join(directory, ENTRY)));
    if (!isEntry(value)) return undefined;
    const { model, source, files, fetchedAt } = value;
    return { model, source, files, fetchedAt };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function isEntry(value: unknown): value is CacheEntry {
  if (typeof value !== "object" || value === null) return false;
  const { layout, model, source, fetchedAt, files } = value as Readonly<Record<string, unknown>>;
  return layout === LAYOUT && [model, source, fetchedAt].every((text) => typeof text === "string") &&
    Array.isArray(files) && files.length > 0 && files.every(isCachedFile);
}

function isCachedFile(value: unknown): value is CachedFile {
  if (typeof value !== "object" || value === null) return false;
  const { name, bytes, sha256 } = value as Readonly<Record<string, unknown>>;
  return typeof name === "string" && isSafeFileName(name) && !name.includes("/") && typeof bytes === "number" &&
    typeof sha256 === "string";
}
