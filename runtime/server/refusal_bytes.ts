/**
 * Answers to bytes that never became a request.
 *
 * @module
 */
import { ApiError } from "./api_error.ts";

const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  408: "Request Timeout",
  431: "Request Header Fields Too Large",
};

/** A whole HTTP/1.1 response for an error code of the HTTP parser. */
export function refusalBytes(parserCode: string): string {
  const refusal = refusalOf(parserCode);
  const body = JSON.stringify(refusal.body);
  return `HTTP/1.1 ${refusal.status} ${REASONS[refusal.status]}\r\nContent-Type: application/json\r\n` +
    `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`;
}

function refusalOf(parserCode: string): ApiError {
  switch (parserCode) {
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new ApiError("Cannot read the request: it took too long", { status: 408, code: "request_timeout" });
    case "HPE_HEADER_OVERFLOW":
      return new ApiError("Cannot read the request: its header section is too long", {
        status: 431,
        code: "headers_too_large",
      });
    default:
      return new ApiError("Cannot read the request: it is not valid HTTP/1.1", { status: 400, code: "invalid_http" });
  }
}
