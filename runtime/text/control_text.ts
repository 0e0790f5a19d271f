/**
 * Keeps control tokens out of chat messages. Before a template renders them, every control-token text inside a message is
 * interrupted by a private-use character; after rendering, control tokens are looked for and the character is dropped. So
 * only what the template itself writes becomes a control token.
 *
 * @module
 */
import type { AddedToken } from "./tokenizer_json.ts";

/** Values with control-token text interrupted. */
export interface GuardedText<T> {
  /** The values; the same object when nothing had to be interrupted. */
  readonly values: T;
  /** The character that interrupts, absent when it was not needed. */
  readonly marker?: string;
}

const PRIVATE_USE = /[\ue000-\uf8ff]/g;

/** Interrupts the control tokens of one model. */
export class ControlTextGuard {
  readonly #starts: RegExp | undefined;
  /** Beginnings of control tokens, which text after the message could complete. */
  readonly #beginnings = new Set<string>();
  readonly #longest: number;

  /** Makes one for the control tokens of a model. */
  constructor(controlTokens: readonly AddedToken[]) {
    const contents = controlTokens.map(({ content }) => content);
    if (contents.length > 0) this.#starts = new RegExp(`(?=${contents.map(RegExp.escape).join("|")})`, "gu");
    for (const content of contents) {
      for (let length = 1; length < content.length; length++) this.#beginnings.add(content.slice(0, length));
    }
    this.#longest = Math.max(0, ...contents.map(({ length }) => length));
  }

  /**
   * Copies `values` with every control-token text in its strings and keys interrupted, at any depth, and every beginning
   * of one at the end of a string too.
   *
   * @throws {RangeError} when an interruption is needed and the text already uses every private-use character.
   */
  guard<T>(values: T): GuardedText<T> {
    let needed = false;
    const used = new Set<string>();
    mapStrings(values, (text) => {
      needed ||= this.#interruptions(text).length > 0;
      for (const [character] of text.matchAll(PRIVATE_USE)) used.add(character);
      return text;
    });
    if (!needed) return { values };
    const marker = unusedCharacter(used);
    return { values: mapStrings(values, (text) => this.#interrupt(text, marker)), marker };
  }

  #interrupt(text: string, marker: string): string {
    let out = "";
    let start = 0;
    for (const at of this.#interruptions(text)) {
      out += text.slice(start, at) + marker;
      start = at;
    }
    return out + text.slice(start);
  }

  /** Places to interrupt, ascending: behind the first character of each control token or beginning of one. */
  #interruptions(text: string): number[] {
    if (this.#starts === undefined) return [];
    const starts = new Set<number>();
    for (const { index } of text.matchAll(this.#starts)) starts.add(index);
    // A template may trim the text before it writes on.
    for (const end of new Set([text.length, text.trimEnd().length])) {
      for (let at = Math.max(0, end - this.#longest + 1); at < end; at++) {
        if (this.#beginnings.has(text.slice(at, end))) starts.add(at);
      }
    }
    return [...starts].map((at) => at + String.fromCodePoint(text.codePointAt(at) ?? 0).length).sort((a, b) => a - b);
  }
}

function unusedCharacter(used: ReadonlySet<string>): string {
  for (let code = 0xe000; code <= 0xf8ff; code++) {
    const character = String.fromCharCode(code);
    if (!used.has(character)) return character;
  }
  throw new RangeError("Cannot protect chat messages: wanted an unused private-use character, all 6400 occur in them");
}

/** A copy of `value` with `change` applied to every string and key. */
function mapStrings<T>(value: T, change: (text: string) => string): T;
function mapStrings(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((member) => mapStrings(member, change));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [change(key), mapStrings(member, change)]));
}
