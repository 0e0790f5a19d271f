/**
 * What a repository of a model hub holds.
 *
 * @module
 */
import type { Digest } from "./digest.ts";
import { type HubAccess, hubGetJson } from "./hub_http.ts";
import { isSafeFileName } from "./model_spec.ts";

/** A file of a repository. */
export interface HubFile {
  /** Path inside the repository. */
  readonly path: string;
  /** Size. */
  readonly bytes: number;
  /** The hub's own digest: SHA-256 of large files, git's of small ones. */
  readonly digest: Digest;
}

/** The files of a repository at one commit. */
export interface HubListing {
  /** Commit. */
  readonly revision: string;
  /** Files in safe places. */
  readonly files: readonly HubFile[];
}

const MAX_PAGES = 20;

/**
 * Lists the main branch of `org/name`.
 *
 * @throws {Error} when the hub refuses or answers something else than a listing.
 */
export async function listRepository(access: HubAccess, repo: string): Promise<HubListing> {
  const what = `hf:${repo}`;
  const api = `${access.endpoint}/api/models/${repo}`;
  const { value: info } = await hubGetJson(access, `${api}/revision/main`, { what });
  const revision = isObject(info) ? info.sha : undefined;
  if (typeof revision !== "string" || !/^[0-9a-f]{40}$/.test(revision)) {
    throw new TypeError(`Cannot fetch ${what}: wanted a commit from the hub, got ${JSON.stringify(revision)}`);
  }
  const files: HubFile[] = [];
  const tree = `${api}/tree/${revision}`;
  let search: string | undefined = "?recursive=true";
  for (let page = 0; search !== undefined; page++) {
    if (page === MAX_PAGES) {
      throw new RangeError(`Cannot fetch ${what}: it has more files than ${MAX_PAGES} pages list`);
    }
    const { value, next }: { value: unknown; next?: string } = await hubGetJson(access, `${tree}${search}`, { what });
    if (!Array.isArray(value)) throw new TypeError(`Cannot fetch ${what}: wanted a list of files, got something else`);
    files.push(...value.map(readFile).filter((file) => file !== undefined));
    // A mirror may pass on addresses of the hub it mirrors: only the cursor is taken from them.
    search = next === undefined ? undefined : new URL(next, tree).search;
  }
  return { revision, files };
}

/** Address of a file at a commit. */
export function fileUrl(
  access: HubAccess,
  { repo, revision, path }: { readonly repo: string; readonly revision: string; readonly path: string },
): string {
  return `${access.endpoint}/${repo}/resolve/${revision}/${path.split("/").map(encodeURIComponent).join("/")}`;
}

/** A file of the listing; undefined for folders and for files that could not be stored safely or checked. */
function readFile(entry: unknown): HubFile | undefined {
  if (!isObject(entry) || entry.type !== "file") return undefined;
  const { path, lfs } = entry;
  const large = isObject(lfs);
  const hex = large ? lfs.oid : entry.oid;
  const bytes = large ? lfs.size : entry.size;
  if (typeof path !== "string" || !isSafeFileName(path)) return undefined;
  if (typeof hex !== "string" || !(large ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(hex)) return undefined;
  if (typeof bytes !== "number" || !Number.isSafeInteger(bytes) || bytes < 0) return undefined;
  return { path, bytes, digest: { kind: large ? "sha256" : "git-sha1", hex } };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
