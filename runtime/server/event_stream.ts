/**
 * Server-sent events: chunks in order, comments while nothing happens, errors as events, `[DONE]` last.
 *
 * @module
 */
import type { FinishReason, RequestEvent, Usage } from "../engine/request.ts";
import { ApiError, toApiError } from "./api_error.ts";
import type { EventFeed } from "./event_feed.ts";
import { checkEnd, usageBody } from "./generation.ts";
import type { UsageBody } from "./response_types.ts";

/** Turns engine events into chunks of one API. */
export interface ChunkWriter {
  /** Chunks before any event. */
  open(): Iterable<object>;
  /** Chunks for an event of request `source`. */
  write(source: number, event: Exclude<RequestEvent, { kind: "end" }>): Iterable<object>;
  /** The last chunk, with the usage. */
  usage(usage: UsageBody): object;
}

/** Options of {@linkcode eventStream}. */
export interface EventStreamOptions {
  /** Whether to send a chunk with the usage. */
  readonly includeUsage: boolean;
  /** Milliseconds without an event before a comment is sent. */
  readonly pingMs: number;
  /** Told about failures that are not the client's. */
  readonly onFailure: (error: unknown) => void;
  /** Told the usage when every request ended. */
  readonly onUsage: (usage: UsageBody) => void;
}

/** A streamed answer. Events are pulled only as fast as the client reads; cancelling the body ends the feed. */
export function eventStream(feed: EventFeed, writer: ChunkWriter, options: EventStreamOptions): Response {
  const source = messages(feed, writer, options);
  const encoder = new TextEncoder();
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const { done, value } = await source.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    cancel() {
      // Not left to the generator, which may wait for an event or may not have begun.
      feed.close();
      void source.return(undefined);
    },
  }, { highWaterMark: 0 });
  return new Response(stream, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" },
  });
}

/** The messages of the answer, one or more at a time. */
async function* messages(feed: EventFeed, writer: ChunkWriter, options: EventStreamOptions): AsyncGenerator<string> {
  const { pingMs } = options;
  try {
    const head = joined(writer.open());
    if (head !== "") yield head;
    const usages: Usage[] = [];
    const reasons = new Map<number, FinishReason[]>();
    for (let item = await feed.next(pingMs); item !== undefined; item = await feed.next(pingMs)) {
      if (item === "idle") {
        yield ": ping\n\n";
        continue;
      }
      const { source, event } = item;
      if (event.kind === "end") {
        usages.push(event.usage);
        checkEnd(event, reasons.get(source) ?? []);
        continue;
      }
      if (event.kind === "choice-end") reasons.set(source, [...reasons.get(source) ?? [], event.reason]);
      const text = joined(writer.write(source, event));
      if (text !== "") yield text;
    }
    if (feed.closed) return;
    const usage = usageBody(usages);
    options.onUsage(usage);
    if (options.includeUsage) yield message(writer.usage(usage));
  } catch (error) {
    const refusal = toApiError(error);
    if (!(error instanceof ApiError)) options.onFailure(error);
    yield message(refusal.body);
  } finally {
    feed.close();
  }
  yield "data: [DONE]\n\n";
}

function joined(chunks: Iterable<object>): string {
  let text = "";
  for (const chunk of chunks) text += message(chunk);
  return text;
}

/** JSON has no line breaks. Some clients insist on the space after the colon. */
function message(chunk: object): string {
  return `data: ${JSON.stringify(chunk)}\n\n`;
}
