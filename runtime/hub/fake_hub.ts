/**
 * A model hub on the loopback interface, for tests.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** A file of the fake hub. */
export interface FakeFile {
  /** Contents. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Listed as a large file, by its SHA-256. @default {true} */
  readonly large?: boolean;
  /** Digest in the listing, where it is to be wrong. */
  readonly listedDigest?: string;
}

/** How the fake hub behaves. */
export interface FakeHubOptions {
  /** Files of `org/model` by path. */
  readonly files: Readonly<Record<string, FakeFile>>;
  /** Token that is wanted. */
  readonly token?: string;
  /** The connection of the n-th download breaks after so many bytes. */
  readonly cuts?: number[];
  /** Whether downloads are redirected to another origin. */
  readonly redirects?: boolean;
  /** Whether byte ranges are honoured. @default {true} */
  readonly ranges?: boolean;
  /** Files in one page of a listing. @default {1000} */
  readonly pageFiles?: number;
  /** Answers downloads instead. */
  readonly download?: (request: Request) => Response | Promise<Response> | undefined;
}

/** A request as the hub saw it. */
export interface SeenRequest {
  /** Path with query. */
  readonly path: string;
  /** `Range`. */
  readonly range: string | null;
  /** `If-Range`. */
  readonly ifRange: string | null;
  /** `Authorization`. */
  readonly authorization: string | null;
}

/** Commit of the fake repository. */
export const REVISION: string = "0123456789abcdef0123456789abcdef01234567";

/** SHA-256 of bytes. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Bytes that repeat only after 251 of them. */
export function sampleBytes(length: number, seed = 0): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + seed) % 251);
}

/** Serves `org/model`. */
export class FakeHub implements AsyncDisposable {
  /** Requests in the order they came. */
  readonly seen: SeenRequest[] = [];
  readonly #options: FakeHubOptions;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #store: Deno.HttpServer<Deno.NetAddr>;
  readonly #cuts: number[];

  /** Starts one. */
  constructor(options: FakeHubOptions) {
    this.#options = options;
    this.#cuts = [...options.cuts ?? []];
    const serve = { hostname: "127.0.0.1", port: 0, onListen() {} };
    this.#server = Deno.serve(serve, (request) => this.#answer(request));
    this.#store = Deno.serve(serve, (request) => this.#download(request));
  }

  /** Base URL. */
  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  /** Downloads among the requests. */
  get downloads(): SeenRequest[] {
    return this.seen.filter(({ path }) => path.includes("/resolve/"));
  }

  /** Stops serving. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#server.shutdown(), this.#store.shutdown()]);
  }

  #answer(request: Request): Response | Promise<Response> {
    const { pathname } = new URL(request.url);
    const { token, redirects } = this.#options;
    if (token !== undefined && request.headers.get("authorization") !== `Bearer ${token}`) {
      this.#note(request);
      return new Response("", { status: 401 });
    }
    if (pathname.startsWith("/api/models/org/model/")) {
      this.#note(request);
      return this.#describe(request);
    }
    if (!redirects) return this.#download(request);
    this.#note(request);
    const location = `http://127.0.0.1:${this.#store.addr.port}${pathname}`;
    return new Response(null, { status: 302, headers: { location } });
  }

  #describe(request: Request): Response {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname.endsWith("/revision/main")) return Response.json({ sha: REVISION });
    const all = Object.entries(this.#options.files);
    const { pageFiles = 1000 } = this.#options;
    const start = Number(searchParams.get("cursor") ?? 0);
    const more = start + pageFiles < all.length;
    const next = `<https://elsewhere.invalid/tree?recursive=true&cursor=${start + pageFiles}>; rel="next"`;
    return Response.json(all.slice(start, start + pageFiles).map(([path, file]) => describe(path, file)), {
      headers: more ? { link: next } : {},
    });
  }

  #download(request: Request): Response | Promise<Response> {
    this.#note(request);
    const special = this.#options.download?.(request);
    if (special !== undefined) return special;
    const path = decodeURIComponent(new URL(request.url).pathname).split(`/resolve/${REVISION}/`)[1];
    const file = this.#options.files[path];
    if (file === undefined) return new Response("", { status: 404 });
    const etag = `"${sha256(file.bytes)}"`;
    const { range, ifRange } = headersOf(request);
    const start = this.#options.ranges !== false && range !== null && (ifRange === null || ifRange === etag)
      ? Number(/^bytes=(\d+)-$/.exec(range)?.[1])
      : 0;
    const headers = {
      etag,
      // A body that ends before this length breaks the connection.
      "content-length": String(file.bytes.length - start),
      ...start > 0 && { "content-range": `bytes ${start}-${file.bytes.length - 1}/${file.bytes.length}` },
    };
    return new Response(this.#body(file.bytes.subarray(start)), { status: start > 0 ? 206 : 200, headers });
  }

  #body(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array<ArrayBuffer>> {
    const cut = this.#cuts.shift();
    return new ReadableStream({
      async start(controller) {
        controller.enqueue(bytes.slice(0, cut));
        // What was sent must arrive before the connection breaks.
        if (cut !== undefined) await new Promise((resolve) => setTimeout(resolve, 30));
        controller.close();
      },
    });
  }

  #note(request: Request): void {
    const { pathname, search } = new URL(request.url);
    this.seen.push({ path: pathname + search, ...headersOf(request) });
  }
}

function headersOf({ headers }: Request): Omit<SeenRequest, "path"> {
  return {
    range: headers.get("range"),
    ifRange: headers.get("if-range"),
    authorization: headers.get("authorization"),
  };
}

function describe(path: string, { bytes, large = true, listedDigest }: FakeFile): unknown {
  const git = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  return {
    type: "file",
    path,
    size: bytes.length,
    oid: large ? git : listedDigest ?? git,
    ...large && { lfs: { oid: listedDigest ?? sha256(bytes), size: bytes.length, pointerSize: 134 } },
  };
}
