/**
 * One request and its answer, as handlers see them.
 *
 * @module
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LogFields } from "./logger.ts";

/** What a request adds to its line in the log. Never prompts, outputs or keys. */
export type ExchangeNotes = Record<string, LogFields[string]>;

/** One request on its way through the server. */
export interface Exchange {
  /** Request id: the client's `x-request-id` when it is well formed, else a fresh one. */
  readonly id: string;
  /** The request; its body is read by handlers only. */
  readonly incoming: IncomingMessage;
  /** The answer; written by the listener only. */
  readonly outgoing: ServerResponse;
  /** When the header section was complete, ms on the monotonic clock. */
  readonly arrivedMs: number;
  /** Aborted when the client is gone or the server stops; its reason is an `ApiError`. */
  readonly signal: AbortSignal;
  /** Whether the client waits for `100 Continue` before it sends the body. */
  readonly wantsContinue: boolean;
  /** What to log about it. */
  readonly notes: ExchangeNotes;
  /** Pattern of the route that answers, for metrics. */
  route: string;
  /** Owner of the key that was used; empty without keys. */
  tenant: string;
}
