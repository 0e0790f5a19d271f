/**
 * Errors as OpenAI clients read them: a status and `{"error": {message, type, param, code}}`.
 *
 * @module
 */
import { CapacityError } from "../engine/request.ts";
import { TemplateError } from "../text/codec.ts";

/** Body of every answer that is not a success. */
export interface ErrorBody {
  /** What went wrong. */
  readonly error: {
    /** One sentence for a person. */
    readonly message: string;
    /** Class of the error, by status. */
    readonly type: string;
    /** Path of the field at fault, or null. */
    readonly param: string | null;
    /** Stable name for a program, or null. */
    readonly code: string | null;
  };
}

/** What an {@linkcode ApiError} may state beside its message. */
export interface ApiErrorOptions {
  /** HTTP status, 400 to 599. */
  readonly status: number;
  /** Stable name for a program. */
  readonly code: string;
  /** Path of the field at fault, for example `messages[0].role`. */
  readonly param?: string;
  /** Response headers to add. */
  readonly headers?: Readonly<Record<string, string>>;
  /** What caused it; never shown to the client. */
  readonly cause?: unknown;
}

/** An answer that is not a success. Its message is shown to the client and never logged. */
export class ApiError extends Error {
  /** Error name. */
  override readonly name = "ApiError";
  /** HTTP status. */
  readonly status: number;
  /** Stable name for a program. */
  readonly code: string;
  /** Path of the field at fault. */
  readonly param: string | null;
  /** Response headers to add. */
  readonly headers: Readonly<Record<string, string>>;

  /** Makes one. */
  constructor(message: string, options: ApiErrorOptions) {
    super(message, { cause: options.cause });
    this.status = options.status;
    this.code = options.code;
    this.param = options.param ?? null;
    this.headers = options.headers ?? {};
  }

  /** The body to send. */
  get body(): ErrorBody {
    return { error: { message: this.message, type: errorType(this.status), param: this.param, code: this.code } };
  }
}

function errorType(status: number): string {
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

/** A 400 about one field. */
export function fieldError(param: string, problem: string, { code = "invalid_value" } = {}): ApiError {
  return new ApiError(`Cannot read ${param}: ${problem}`, { status: 400, code, param });
}

/** The answer for anything that a handler threw; what is not meant for clients becomes a plain 500. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof CapacityError) {
    const retry = error.retryAfterSeconds ?? (error.status === 400 ? undefined : 1);
    return new ApiError(error.message, {
      status: error.status,
      code: error.code,
      headers: retry === undefined ? {} : { "retry-after": String(Math.max(1, Math.ceil(retry))) },
      cause: error,
    });
  }
  if (error instanceof TemplateError) {
    return new ApiError(`Cannot render messages: ${error.message}`, {
      status: 400,
      code: "template_error",
      param: "messages",
      cause: error,
    });
  }
  return new ApiError("Cannot answer the request: the server failed", {
    status: 500,
    code: "internal_error",
    cause: error,
  });
}

/** The response for an error. */
export function errorResponse(error: ApiError): Response {
  return Response.json(error.body, { status: error.status, headers: error.headers });
}
