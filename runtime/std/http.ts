/**
 * The part of `@std/http` that this project uses, with the same names and signatures. On a machine that reaches JSR the
 * import map points `@std/http` at the original instead.
 *
 * @module
 */

/** One message of a server-sent event stream. */
export interface ServerSentEventMessage {
  /** Ignored by the client. */
  comment?: string;
  /** Type of the event. */
  event?: string;
  /** Payload; every line becomes one `data` field. */
  data?: string;
  /** Id that the client sends back when it connects again. */
  id?: string | number;
  /** Milliseconds before the client connects again. */
  retry?: number;
}

const LINE_BREAK = /\r\n|\r|\n/;

function singleLine(value: string, name: string): string {
  if (LINE_BREAK.test(value)) {
    throw new SyntaxError(`Cannot serialize message: \`message.${name}\` cannot contain a newline`);
  }
  return value;
}

function serialize(message: ServerSentEventMessage): string {
  const lines: string[] = [];
  for (const line of message.comment?.split(LINE_BREAK) ?? []) lines.push(`:${line}`);
  if (message.event !== undefined) lines.push(`event:${singleLine(message.event, "event")}`);
  for (const line of message.data?.split(LINE_BREAK) ?? []) lines.push(`data:${line}`);
  if (message.id !== undefined) lines.push(`id:${singleLine(String(message.id), "id")}`);
  if (message.retry !== undefined) lines.push(`retry:${message.retry}`);
  return `${lines.join("\n")}\n\n`;
}

/** Turns messages into the bytes of a `text/event-stream` body, one chunk a message. */
export class ServerSentEventStream extends TransformStream<ServerSentEventMessage, Uint8Array> {
  /** Makes one. */
  constructor() {
    const encoder = new TextEncoder();
    super({ transform: (message, controller) => controller.enqueue(encoder.encode(serialize(message))) });
  }
}

/** Options of {@linkcode eTag}. */
export interface ETagOptions {
  /** Digest. @default {"SHA-256"} */
  algorithm?: AlgorithmIdentifier;
  /** Whether the tag is marked weak. @default {false} */
  weak?: boolean;
}

/** Entity tag of a text or of bytes. */
export async function eTag(entity: string | Uint8Array, options: ETagOptions = {}): Promise<string> {
  const bytes = typeof entity === "string" ? new TextEncoder().encode(entity) : new Uint8Array(entity);
  const digest = new Uint8Array(await crypto.subtle.digest(options.algorithm ?? "SHA-256", bytes));
  const tag = `"${bytes.length.toString(16)}-${digest.toBase64().slice(0, 27)}"`;
  return options.weak ? `W/${tag}` : tag;
}

function withoutWeakMark(tag: string): string {
  return tag.startsWith("W/") ? tag.slice(2) : tag;
}

/** Whether the body has to be sent: false when `value`, an `If-None-Match` header, names `etag` (weak comparison). */
export function ifNoneMatch(value: string | null, etag: string | undefined): boolean {
  if (!value || !etag) return true;
  if (value.trim() === "*") return false;
  return !value.trim().split(/\s*,\s*/).map(withoutWeakMark).includes(withoutWeakMark(etag));
}

interface MediaRange {
  readonly type: string;
  readonly subtype: string;
  readonly quality: number;
  readonly order: number;
}

function mediaRanges(accept: string): MediaRange[] {
  const ranges: MediaRange[] = [];
  for (const [order, part] of accept.split(",").entries()) {
    const [essence, ...parameters] = part.split(";").map((text) => text.trim().toLowerCase());
    const [type, subtype] = essence.split("/");
    if (!type || !subtype) continue;
    const weight = parameters.find((text) => text.startsWith("q="));
    const quality = weight === undefined ? 1 : Number(weight.slice(2));
    if (quality >= 0) ranges.push({ type, subtype, quality, order });
  }
  return ranges;
}

function specificity(range: MediaRange): number {
  if (range.type === "*") return 0;
  return range.subtype === "*" ? 1 : 2;
}

function bestRange(ranges: readonly MediaRange[], mediaType: string): MediaRange | undefined {
  const [type, subtype] = mediaType.split(";")[0].trim().toLowerCase().split("/");
  let best: MediaRange | undefined;
  for (const range of ranges) {
    const matches = (range.type === "*" || range.type === type) && (range.subtype === "*" || range.subtype === subtype);
    if (matches && (best === undefined || specificity(range) > specificity(best))) best = range;
  }
  return best;
}

/** Media types that the request's `Accept` header allows, most wanted first. */
export function accepts(request: Pick<Request, "headers">): string[];
/** The one of `types` that the request wants most; undefined when it allows none of them. */
export function accepts(request: Pick<Request, "headers">, ...types: string[]): string | undefined;
/** See the two forms above. */
export function accepts(request: Pick<Request, "headers">, ...types: string[]): string | string[] | undefined {
  const header = request.headers.get("accept");
  if (types.length === 0) {
    if (!header) return ["*/*"];
    return mediaRanges(header).filter((range) => range.quality > 0)
      .sort((a, b) => b.quality - a.quality || specificity(b) - specificity(a) || a.order - b.order)
      .map((range) => `${range.type}/${range.subtype}`);
  }
  if (!header) return types[0];
  const ranges = mediaRanges(header);
  const rated = types.map((type, place) => ({ type, place, range: bestRange(ranges, type) }));
  const allowed = rated.flatMap(({ type, place, range }) =>
    range !== undefined && range.quality > 0 ? [{ type, place, range }] : []
  );
  allowed.sort((a, b) =>
    b.range.quality - a.range.quality || specificity(b.range) - specificity(a.range) ||
    a.range.order - b.range.order || a.place - b.place
  );
  return allowed[0]?.type;
}
