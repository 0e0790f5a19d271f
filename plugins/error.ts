/**
 * Errors of plugins: one that cannot be used, and one that answers nonsense.
 *
 * @module
 */

/** A plugin that cannot be loaded, configured or created. The message is one line. */
export class PluginError extends Error {
  /** Error name. */
  override readonly name = "PluginError";
  /** Plugin's name, or its specifier before the name is known. */
  readonly plugin: string;
  /** Hook that failed, if one did. */
  readonly hook?: string;

  /** Makes one. */
  constructor(
    message: string,
    options: { readonly plugin: string; readonly hook?: string; readonly cause?: unknown },
  ) {
    super(oneLine(message), "cause" in options ? { cause: options.cause } : undefined);
    this.plugin = options.plugin;
    this.hook = options.hook;
  }
}

/** An answer of a policy that is not accepted; the message says why. */
export class PolicyFault extends Error {
  /** Error name. */
  override readonly name = "PolicyFault";
}

/** What a thrown value says, as one line. Never throws. */
export function reasonOf(thrown: unknown): string {
  try {
    return oneLine(thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown));
  } catch {
    return "a value that cannot be printed";
  }
}

/** Text without control characters and line breaks, of at most 500 characters. */
export function oneLine(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}\s]+/gu, " ").trim();
  return line.length > 500 ? `${line.slice(0, 499)}…` : line;
}
