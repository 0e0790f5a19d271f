/**
 * Every bound of the server, by name.
 *
 * @module
 */

/** Bounds of one server. All of them hold at once; none can be switched off. */
export interface ServerLimits {
  /** Requests that have no token yet (tokenizing, waiting or in prefill) before new ones get 429. */
  readonly queuedRequests: number;
  /** Open connections; further ones are closed at once. */
  readonly connections: number;
  /** Bytes of a request body; raised to 16 bytes a token of the model's longest context where that is more. */
  readonly bodyBytes: number;
  /** Bytes of a request's header section. */
  readonly headerBytes: number;
  /** Header fields of a request. */
  readonly headerFields: number;
  /** Milliseconds a connection may take to send a header section. */
  readonly headerMs: number;
  /** Milliseconds a connection may take to send a whole request. */
  readonly bodyMs: number;
  /** Milliseconds a connection may stay open between two requests. */
  readonly idleMs: number;
  /** Nesting of a JSON body. */
  readonly jsonDepth: number;
  /** Object keys in a JSON body. */
  readonly jsonKeys: number;
  /** Messages of a chat. */
  readonly messages: number;
  /** Prompts of one completion request. */
  readonly prompts: number;
  /** Choices (`n`) of one prompt. */
  readonly choices: number;
  /** Stop strings of a request. */
  readonly stopStrings: number;
  /** UTF-8 bytes of one stop string. */
  readonly stopBytes: number;
  /** Stop ids of a request. */
  readonly stopTokenIds: number;
  /** Entries of `logit_bias`. */
  readonly logitBias: number;
  /** Rivals listed beside a token's log-probability. */
  readonly logprobs: number;
  /** Characters of `user`, `cache_salt` and a message's `name`. */
  readonly labelLength: number;
  /** Bytes written to a connection and not yet taken before its request is paused. */
  readonly outputBufferBytes: number;
  /** Milliseconds a request may be paused before its connection is closed. */
  readonly slowReaderMs: number;
  /** Milliseconds without an event after which a stream gets a comment. */
  readonly pingMs: number;
  /** Milliseconds a stream waits for its first event, so that a refusal still gets its own status. */
  readonly firstEventMs: number;
  /** Milliseconds without any progress after which a busy server is no longer ready. */
  readonly stallMs: number;
}

/** The bounds used where the caller names none. */
export const DEFAULT_LIMITS: ServerLimits = {
  queuedRequests: 512,
  connections: 4096,
  bodyBytes: 8 * 1024 * 1024,
  headerBytes: 64 * 1024,
  headerFields: 256,
  headerMs: 10_000,
  bodyMs: 30_000,
  idleMs: 75_000,
  jsonDepth: 64,
  jsonKeys: 100_000,
  messages: 10_000,
  prompts: 128,
  choices: 16,
  stopStrings: 4,
  stopBytes: 256,
  stopTokenIds: 128,
  logitBias: 300,
  logprobs: 20,
  labelLength: 256,
  outputBufferBytes: 256 * 1024,
  slowReaderMs: 30_000,
  pingMs: 15_000,
  firstEventMs: 100,
  stallMs: 60_000,
};

/**
 * Default bounds with some replaced.
 *
 * @throws {RangeError} when a replacement is not a positive integer.
 */
export function resolveLimits(changes: Partial<ServerLimits> = {}): ServerLimits {
  const limits = { ...DEFAULT_LIMITS, ...changes };
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(`Cannot use limit ${name}: wanted a positive integer, got ${value}`);
    }
  }
  return limits;
}
