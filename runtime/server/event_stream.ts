/**
 * Server-sent events: chunks in order, comments while nothing happens, errors as events, `[DONE]` last.
 *
 * @module
 */
import { type ServerSentEventMessage, ServerSentEventStream } from "@std/http";
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
  const stream = new ReadableStream<ServerSentEventMessage>({
    async pull(controller) {
      const { done, value } = await source.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel() {
      // Not left to the generator, which may wait for an event or may not have begun.
      feed.close();
      void source.return(undefined);
    },
  }, { highWaterMark: 0 });
  return new Response(stream.pipeThrough(new ServerSentEventStream()), {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" },
  });
}

async function* messages(
  feed: EventFeed,
  writer: ChunkWriter,
  options: EventStreamOptions,
): AsyncGenerator<ServerSentEventMessage> {
  try {
    for (const chunk of writer.open()) yield message(chunk);
    const usages = yield* chunks(feed, writer, options);
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
  yield { data: " [DONE]" };
}

async function* chunks(
  feed: EventFeed,
  writer: ChunkWriter,
  options: EventStreamOptions,
): AsyncGenerator<ServerSentEventMessage, Usage[]> {
  const usages: Usage[] = [];
  const reasons = new Map<number, FinishReason[]>();
  for (let item = await feed.next(options.pingMs); item !== undefined; item = await feed.next(options.pingMs)) {
    if (item === "idle") {
      yield { comment: " ping" };
      continue;
    }
    const { source, event } = item;
    if (event.kind === "end") {
      usages.push(event.usage);
      checkEnd(event, reasons.get(source) ?? []);
      continue;
    }
    if (event.kind === "choice-end") reasons.set(source, [...reasons.get(source) ?? [], event.reason]);
    for (const chunk of writer.write(source, event)) yield message(chunk);
  }
  return usages;
}

/** The space after the colon, which some clients insist on, is part of the data here. */
function message(chunk: object): ServerSentEventMessage {
  return { data: ` ${JSON.stringify(chunk)}` };
}
