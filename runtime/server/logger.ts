/**
 * Structured logging to standard error. Writing never blocks the caller: lines beyond the caps are counted and dropped.
 *
 * @module
 */

/** Levels, from chatty to silent. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** Values beside a message. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined | readonly string[]>>;

/** Where the server writes what it does. Neither messages nor fields may hold prompts, outputs or keys. */
export interface Logger {
  /** For the developer. */
  debug(message: string, fields?: LogFields): void;
  /** For the operator. */
  info(message: string, fields?: LogFields): void;
  /** Something the operator may want to change. */
  warn(message: string, fields?: LogFields): void;
  /** Something that failed. */
  error(message: string, fields?: LogFields): void;
  /** Resolves when every accepted line was handed over. */
  flush(): Promise<void>;
}

/** Options of {@linkcode createLogger}. */
export interface LoggerOptions {
  /** Least level that is written. @default {"info"} */
  readonly level?: LogLevel;
  /** `json`: one object a line; `pretty`: for a terminal. @default {"pretty"} */
  readonly format?: "json" | "pretty";
  /** Takes one line with its line feed; a rejection drops it. By default standard error. */
  readonly write?: (line: Uint8Array) => Promise<void>;
  /** Bytes of a line, its line feed included; the rest is cut off. @default {4096} */
  readonly lineBytes?: number;
  /** Lines written a second. @default {1000} */
  readonly linesPerSecond?: number;
  /** Lines waiting for a slow reader of the log. @default {1000} */
  readonly waitingLines?: number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const SEVERITY: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 };
const PLAIN_WORD = /^[\w.:/@+-]+$/;

/** Makes a logger. */
export function createLogger(options: LoggerOptions = {}): Logger {
  return new LineLogger(options);
}

class LineLogger implements Logger {
  readonly #least: number;
  readonly #json: boolean;
  readonly #lineBytes: number;
  readonly #linesPerSecond: number;
  readonly #waitingLines: number;
  readonly #write: (line: Uint8Array) => Promise<void>;
  readonly #now: () => number;
  readonly #encoder = new TextEncoder();
  #waiting: Uint8Array[] = [];
  #draining: Promise<void> | undefined;
  #second = 0;
  #written = 0;
  #dropped = 0;

  constructor(options: LoggerOptions) {
    this.#least = SEVERITY[options.level ?? "info"];
    this.#json = options.format === "json";
    this.#lineBytes = options.lineBytes ?? 4096;
    this.#linesPerSecond = options.linesPerSecond ?? 1000;
    this.#waitingLines = options.waitingLines ?? 1000;
    this.#write = options.write ?? writeToStandardError;
    this.#now = options.now ?? Date.now;
  }

  debug(message: string, fields: LogFields = {}): void {
    this.#log("debug", message, fields);
  }

  info(message: string, fields: LogFields = {}): void {
    this.#log("info", message, fields);
  }

  warn(message: string, fields: LogFields = {}): void {
    this.#log("warn", message, fields);
  }

  error(message: string, fields: LogFields = {}): void {
    this.#log("error", message, fields);
  }

  async flush(): Promise<void> {
    await this.#draining;
  }

  #log(level: LogLevel, message: string, fields: LogFields): void {
    if (SEVERITY[level] < this.#least) return;
    const now = this.#now();
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#written = 0;
    }
    if (this.#written >= this.#linesPerSecond || this.#waiting.length >= this.#waitingLines) {
      this.#dropped++;
      return;
    }
    this.#written++;
    if (this.#dropped > 0) {
      const dropped = this.#dropped;
      this.#dropped = 0;
      this.#push(this.#format("warn", "log lines dropped", { dropped }, now));
    }
    this.#push(this.#format(level, message, fields, now));
  }

  #format(level: LogLevel, message: string, fields: LogFields, now: number): string {
    const time = new Date(now).toISOString();
    if (this.#json) return JSON.stringify({ time, level, message, ...fields });
    const pairs = Object.entries(fields).filter(([, value]) => value !== undefined);
    const details = pairs.map(([name, value]) => ` ${name}=${plain(value)}`).join("");
    return `${time.slice(11, 23)} ${level.padEnd(5)} ${message}${details}`;
  }

  #push(line: string): void {
    let bytes = this.#encoder.encode(`${line}\n`);
    if (bytes.length > this.#lineBytes) {
      bytes = bytes.slice(0, this.#lineBytes);
      bytes[this.#lineBytes - 1] = 0x0a;
    }
    this.#waiting.push(bytes);
    this.#draining ??= this.#drain();
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      for (const line of lines) {
        try {
          await this.#write(line);
        } catch {
          // A closed or full log must not stop the server; the loss is told with the next line that gets through.
          this.#dropped++;
        }
      }
    }
    this.#draining = undefined;
  }
}

function plain(value: LogFields[string]): string {
  const text = Array.isArray(value) ? value.join(",") : String(value);
  return PLAIN_WORD.test(text) ? text : JSON.stringify(text);
}

async function writeToStandardError(line: Uint8Array): Promise<void> {
  let rest = line;
  while (rest.length > 0) rest = rest.subarray(await Deno.stderr.write(rest));
}

/** What may be logged of an unexpected error: its class and where it was thrown, never its message. */
export function describeFailure(error: unknown): { readonly error: string; readonly at: readonly string[] } {
  if (!(error instanceof Error)) return { error: typeof error, at: [] };
  const frames = (error.stack ?? "").split("\n").filter((line) => line.startsWith("    at "));
  return { error: error.name, at: frames.slice(0, 8).map((line) => line.trim()) };
}
