/**
 * Downloads one file: into a temporary name, resumed where the server allows it, checked while it is written, renamed at
 * the end.
 *
 * @module
 */
import { dirname, join } from "node:path";
import { type Digest, FileHash, hashOpenFile } from "./digest.ts";
import { type HubAccess, hubGet, InterruptedError, rootReason, STALL_MS } from "./hub_http.ts";
import type { TransferReporter } from "./progress.ts";

/** A file to download. */
export interface RemoteFile {
  /** Name in the directory. */
  readonly name: string;
  /** Address on the hub. */
  readonly url: string;
  /** Size. */
  readonly bytes: number;
  /** What its bytes must hash to. */
  readonly digest: Digest;
}

/** How to download. */
export interface DownloadOptions {
  /** Where the file goes; exists. */
  readonly directory: string;
  /** The hub. */
  readonly access: HubAccess;
  /** Told about the transfer. */
  readonly reporter: TransferReporter;
  /** Pauses before each further attempt after the connection broke, ms. @default {[1000, 3000, 10000]} */
  readonly retryDelaysMs?: readonly number[];
}

/**
 * Downloads a file unless it is there already. What an interrupted download left in `<name>.part` is continued.
 *
 * @returns its SHA-256.
 * @throws {Error} when the hub refuses, the connection breaks too often, the disk is full or the digest is wrong.
 */
export async function downloadFile(remote: RemoteFile, options: DownloadOptions): Promise<string> {
  const target = join(options.directory, remote.name);
  const present = await sha256IfGood(target, remote);
  if (present !== undefined) return present;
  const delays = options.retryDelaysMs ?? [1000, 3000, 10_000];
  for (let attempt = 0;; attempt++) {
    try {
      const sha256 = await downloadOnce(`${target}.part`, { remote, options });
      await Deno.rename(`${target}.part`, target);
      await removeIfPresent(`${target}.part.etag`);
      return sha256;
    } catch (error) {
      if (!(error instanceof InterruptedError) || attempt >= delays.length) throw error;
      options.reporter.note(`${error.message}; trying again`);
      await new Promise((resolve) => setTimeout(resolve, delays[attempt]));
    }
  }
}

/** SHA-256 of a file that is what `wanted` says; undefined when there is none or another one. */
export async function sha256IfGood(
  path: string,
  { bytes, digest }: Pick<RemoteFile, "bytes" | "digest">,
): Promise<string | undefined> {
  try {
    using file = await Deno.open(path, { read: true });
    if ((await file.stat()).size !== bytes) return undefined;
    const hash = new FileHash(bytes);
    await hashOpenFile(file, hash);
    const { ok, sha256 } = hash.finish(digest);
    return ok ? sha256 : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function downloadOnce(
  part: string,
  { remote, options }: { readonly remote: RemoteFile; readonly options: DownloadOptions },
): Promise<string> {
  using file = await Deno.open(part, { read: true, write: true, create: true });
  const { hash, restarted } = await receive(file, { part, remote, options });
  const { ok, got, sha256 } = hash.finish(remote.digest);
  if (ok) {
    await file.syncData();
    return sha256;
  }
  await removeIfPresent(part);
  await removeIfPresent(`${part}.etag`);
  const message = `Cannot fetch ${remote.name}: wanted ${remote.digest.kind} ${remote.digest.hex}, got ${got}`;
  // What an earlier run left may be of another version: worth one more attempt from the beginning.
  throw restarted ? new Error(message) : new InterruptedError(message);
}

/** Receives the bytes that `file` lacks. Gives the hash of all of them, and whether all came in this attempt. */
async function receive(
  file: Deno.FsFile,
  { part, remote, options }: { readonly part: string; readonly remote: RemoteFile; readonly options: DownloadOptions },
): Promise<{ readonly hash: FileHash; readonly restarted: boolean }> {
  let hash = new FileHash(remote.bytes);
  const { size } = await file.stat();
  if (size > remote.bytes) await file.truncate(0);
  else if (size > 0) await hashOpenFile(file, hash);
  if (hash.bytes === remote.bytes && remote.bytes > 0) return { hash, restarted: false };

  using stall = new StallTimer();
  const etag = hash.bytes > 0 ? await readIfPresent(`${part}.etag`) : undefined;
  const response = await hubGet(options.access, remote.url, {
    what: remote.name,
    signal: stall.signal,
    headers: {
      // A compressed answer has no byte ranges of the file.
      "accept-encoding": "identity",
      ...hash.bytes > 0 && { range: `bytes=${hash.bytes}-` },
      ...etag !== undefined && { "if-range": etag },
    },
  });
  const resumed = response.status === 206 &&
    response.headers.get("content-range")?.startsWith(`bytes ${hash.bytes}-`) === true;
  if (!resumed) {
    if (hash.bytes > 0) {
      await file.truncate(0);
      await file.seek(0, Deno.SeekMode.Start);
    }
    hash = new FileHash(remote.bytes);
    if (response.status !== 200) {
      await response.body?.cancel();
      await removeIfPresent(`${part}.etag`);
      throw new InterruptedError(`Cannot fetch ${remote.name}: the server answers ${response.status} to a byte range`);
    }
    await keepEtag(part, response.headers.get("etag"));
  }
  await copyBody(response, { file, hash, stall, remote, reporter: options.reporter, directory: dirname(part) });
  return { hash, restarted: !resumed };
}

async function copyBody(
  response: Response,
  { file, hash, stall, remote, reporter, directory }: {
    readonly file: Deno.FsFile;
    readonly hash: FileHash;
    readonly stall: StallTimer;
    readonly remote: RemoteFile;
    readonly reporter: TransferReporter;
    readonly directory: string;
  },
): Promise<void> {
  reporter.begin(remote.name, { totalBytes: remote.bytes, doneBytes: hash.bytes });
  try {
    for await (const chunk of broken(response.body, remote.name)) {
      stall.restart();
      if (hash.bytes + chunk.length > remote.bytes) {
        throw new Error(`Cannot fetch ${remote.name}: wanted ${remote.bytes} bytes, got more`);
      }
      await writeAll(file, chunk, { name: remote.name, directory });
      hash.update(chunk);
      reporter.advance(hash.bytes);
    }
  } finally {
    reporter.finish();
  }
  if (hash.bytes < remote.bytes) {
    throw new InterruptedError(
      `Cannot fetch ${remote.name}: wanted ${remote.bytes} bytes, the connection ended after ${hash.bytes}`,
    );
  }
}

/** The chunks of a body; what goes wrong with the connection is an {@linkcode InterruptedError}. */
async function* broken(body: Response["body"], name: string): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  try {
    while (true) {
      const { value, done } = await reader.read().catch((cause) => {
        throw new InterruptedError(`Cannot fetch ${name}: the connection broke (${rootReason(cause)})`, { cause });
      });
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function writeAll(
  file: Deno.FsFile,
  chunk: Uint8Array,
  { name, directory }: { readonly name: string; readonly directory: string },
): Promise<void> {
  try {
    for (let rest = chunk; rest.length > 0;) rest = rest.subarray(await file.write(rest));
  } catch (cause) {
    const full = cause instanceof Error && "code" in cause && cause.code === "ENOSPC";
    throw new Error(
      full
        ? `Cannot store ${name}: no space left in ${directory}`
        : `Cannot store ${name} in ${directory}: ${rootReason(cause)}`,
      { cause },
    );
  }
}

async function keepEtag(part: string, etag: string | null): Promise<void> {
  // Weak tags do not promise equal bytes.
  if (etag === null || etag.startsWith("W/")) await removeIfPresent(`${part}.etag`);
  else await Deno.writeTextFile(`${part}.etag`, etag);
}

async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function removeIfPresent(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Aborts when nothing restarted it for {@linkcode STALL_MS}. */
class StallTimer implements Disposable {
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.restart();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#controller.abort(new Error(`no data for ${STALL_MS / 1000} seconds`)),
      STALL_MS,
    );
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
