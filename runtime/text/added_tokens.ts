/**
 * Finds added tokens (control tokens and user-defined ones) in text.
 *
 * @module
 */
import type { AddedToken } from "./tokenizer_json.ts";

/** A stretch of ordinary text, or the token that stands there. */
export type Section = string | AddedToken;

/** Cuts text at the added tokens it contains, the longest one first where several begin at the same place. */
export class AddedTokenSplitter {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  readonly #pattern: RegExp | undefined;

  /** Makes one for `tokens`. */
  constructor(tokens: readonly AddedToken[]) {
    this.#tokens = new Map(tokens.map((token) => [token.content, token]));
    const longestFirst = tokens.map(({ content }) => content).sort((a, b) => b.length - a.length || (a < b ? -1 : 1));
    if (longestFirst.length > 0) this.#pattern = new RegExp(longestFirst.map(RegExp.escape).join("|"), "gu");
  }

  /**
   * Sections of `text` in order, none of them empty. Whitespace that a token takes along is dropped. A token directly
   * followed by `marker` is ordinary text.
   */
  split(text: string, marker?: string): Section[] {
    if (this.#pattern === undefined) return text === "" ? [] : [text];
    const sections: Section[] = [];
    let start = 0;
    let strip = false;
    const pushText = (end: number, stripEnd: boolean) => {
      let section = text.slice(start, end);
      if (strip) section = section.trimStart();
      if (stripEnd) section = section.trimEnd();
      if (section !== "") sections.push(section);
    };
    for (const match of text.matchAll(this.#pattern)) {
      const end = match.index + match[0].length;
      const token = this.#tokens.get(match[0]);
      if (token === undefined || (marker !== undefined && text.startsWith(marker, end))) continue;
      pushText(match.index, token.lstrip);
      sections.push(token);
      start = end;
      strip = token.rstrip;
    }
    pushText(text.length, false);
    return sections;
  }
}
