/**
 * What every route works with.
 *
 * @module
 */
import type { AdmissionQueue, QueuePlace } from "./admission_queue.ts";
import type { Backend, BackendGate } from "./backend.ts";
import type { BodySchema } from "./body_schema.ts";
import type { EngineRequest } from "../engine/request.ts";
import { EventFeed } from "./event_feed.ts";
import { type ChunkWriter, eventStream } from "./event_stream.ts";
import type { Exchange } from "./exchange.ts";
import { collect, type RequestOutcome, runRequest } from "./generation.ts";
import type { ServerLimits } from "./limits.ts";
import { describeFailure, type Logger } from "./logger.ts";
import { parseJsonObject } from "./parse_json.ts";
import { checkJsonHeaders, readBody } from "./read_body.ts";
import type { SamplingFields } from "./sampling_fields.ts";
import type { UsageBody } from "./response_types.ts";

/** Bytes of a body for each token of the longest context. */
const BODY_BYTES_PER_TOKEN = 16;

/** Parts of a server that its routes share. */
export interface ServiceParts {
  /** Bounds. */
  readonly limits: ServerLimits;
  /** Engine and codec, maybe still loading. */
  readonly gate: BackendGate;
  /** Places for requests without a token yet. */
  readonly queue: AdmissionQueue;
  /** Log. */
  readonly logger: Logger;
}

/** What a route that reads a body works with. */
export interface RouteParts<T> {
  /** Shared parts. */
  readonly service: Service;
  /** Schema of the body. */
  readonly schema: BodySchema<T>;
}

/** A request that was read. */
export interface ReadRequest<T> {
  /** Backend that would run it. */
  readonly backend: Backend;
  /** Longest prompt plus output when it was read, tokens. */
  readonly maxModelLen: number;
  /** Fields of its body. */
  readonly fields: T;
}

/** What {@linkcode Service.answer} runs and how it shapes what comes of it. */
export interface AnswerPlan {
  /** Backend that runs the requests. */
  readonly backend: Backend;
  /** Fields of the request. */
  readonly fields: SamplingFields;
  /** Requests to run. */
  readonly requests: readonly EngineRequest[];
  /** Their places in the queue. */
  readonly places: readonly QueuePlace[];
  /** Chunks, for a streamed answer. */
  readonly chunks: () => ChunkWriter;
  /** Body, for a whole answer. */
  readonly whole: (outcomes: readonly RequestOutcome[]) => { readonly usage: UsageBody };
}

/** Reading bodies and running requests, the same for every route. */
export class Service {
  /** Bounds. */
  readonly limits: ServerLimits;
  /** Engine and codec. */
  readonly gate: BackendGate;
  readonly #queue: AdmissionQueue;
  readonly #logger: Logger;

  /** Puts the parts together. */
  constructor(parts: ServiceParts) {
    this.limits = parts.limits;
    this.gate = parts.gate;
    this.#queue = parts.queue;
    this.#logger = parts.logger;
  }

  /**
   * Reads and checks the body of a request to a loaded backend.
   *
   * @throws {ApiError} when the backend has not loaded or the body is not what `schema` wants.
   */
  async read<T>(exchange: Exchange, schema: BodySchema<T>): Promise<ReadRequest<T>> {
    const { incoming, outgoing } = exchange;
    const { limits } = this;
    checkJsonHeaders(incoming);
    const backend = this.gate.require();
    const maxModelLen = await backend.length.current();
    const bytes = await readBody(incoming, {
      limitBytes: Math.max(limits.bodyBytes, BODY_BYTES_PER_TOKEN * maxModelLen),
      onWanted: () => {
        if (exchange.wantsContinue) outgoing.writeContinue();
      },
    });
    const { value, ignored } = schema.read(parseJsonObject(bytes, { depth: limits.jsonDepth, keys: limits.jsonKeys }));
    if (ignored.length > 0) exchange.notes.ignored = ignored;
    return { backend, maxModelLen, fields: value };
  }

  /**
   * Runs `work` with `count` places in the queue, which are left when it throws.
   *
   * @throws {ApiError} 429 when the queue is full; else what `work` throws.
   */
  async queued<T>(count: number, work: (places: readonly QueuePlace[]) => Promise<T>): Promise<T> {
    const places = this.#queue.enter(count);
    try {
      return await work(places);
    } catch (error) {
      for (const place of places) place.leave();
      throw error;
    }
  }

  /** As {@linkcode queued} with one place, which is also left when `work` is done. */
  async briefly<T>(work: () => Promise<T>): Promise<T> {
    return await this.queued(1, async ([place]) => {
      const result = await work();
      place.leave();
      return result;
    });
  }

  /**
   * Runs requests and answers with what they generate, as a stream or whole.
   *
   * @throws {ApiError} when a request is refused or fails before a stream has begun.
   */
  async answer(exchange: Exchange, plan: AnswerPlan): Promise<Response> {
    const { backend, fields, requests, places } = plan;
    // The client may have left while its prompt was tokenized.
    exchange.signal.throwIfAborted();
    const feed = new EventFeed(
      requests.map((request, index) => runRequest(request, { backend, exchange, place: places[index] })),
    );
    if (fields.stream !== true) {
      const body = plan.whole(await collect(feed, requests));
      note(exchange, body.usage);
      return Response.json(body);
    }
    const onFailure = (error: unknown) =>
      this.#logger.error("generation failed", { id: exchange.id, ...describeFailure(error) });
    try {
      const first = await feed.settle(this.limits.firstEventMs);
      if (first?.event.kind === "end" && first.event.error !== undefined) await collect(feed, requests);
    } catch (error) {
      feed.close();
      throw error;
    }
    return eventStream(feed, plan.chunks(), {
      includeUsage: fields.stream_options?.include_usage === true,
      pingMs: this.limits.pingMs,
      onFailure,
      onUsage: (usage) => note(exchange, usage),
    });
  }
}

function note(exchange: Exchange, usage: UsageBody): void {
  exchange.notes.prompt_tokens = usage.prompt_tokens;
  exchange.notes.cached_tokens = usage.prompt_tokens_details.cached_tokens;
  exchange.notes.completion_tokens = usage.completion_tokens;
}
