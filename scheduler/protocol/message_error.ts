/**
 * A message in a sound frame that cannot be what it says.
 *
 * @module
 */
import type { RefusalCode } from "./messages.ts";

/** A message whose frame and call are sound and whose content is not: it deserves an answer, the link may stay. */
export class MessageError extends Error {
  /** Error name. */
  override readonly name = "MessageError";
  /** What is wrong. */
  readonly code: RefusalCode;
  /** The call it belongs to. */
  readonly call: number;
  /** Makes one. */
  constructor(message: string, options: { readonly code: RefusalCode; readonly call: number }) {
    super(message);
    this.code = options.code;
    this.call = options.call;
  }
}
