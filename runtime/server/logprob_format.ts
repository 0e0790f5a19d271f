/**
 * Log-probabilities in the three forms that clients know.
 *
 * @module
 */
import type { TokenLogprob } from "../engine/request.ts";
import type { ChatLogprobs, ChatTokenLogprob, CompletionLogprobs, PromptLogprob } from "./response_types.ts";
import type { TokenTexts } from "./token_texts.ts";

/** JSON has no infinity; this is what vLLM sends instead. */
const LEAST_LOGPROB = -9999;

function finite(logprob: number): number {
  return Math.max(logprob, LEAST_LOGPROB);
}

/** How tokens are shown. */
export interface TokenStyle {
  /** Texts of tokens. */
  readonly texts: TokenTexts;
  /** Show `token_id:N` instead of the text. */
  readonly asIds: boolean;
  /** Whether control tokens are left out of the text. */
  readonly skipSpecial: boolean;
}

function shown(id: number, style: TokenStyle): string {
  return style.asIds ? `token_id:${id}` : style.texts.text(id);
}

/** Chat form: one entry a token with its rivals. */
export function chatLogprobs(entries: readonly TokenLogprob[], style: TokenStyle): ChatLogprobs {
  const entry = (id: number, logprob: number): ChatTokenLogprob => ({
    token: shown(id, style),
    logprob: finite(logprob),
    bytes: Array.from(style.texts.bytes(id)),
  });
  return {
    content: entries.map(({ id, logprob, top }) => ({
      ...entry(id, logprob),
      top_logprobs: top.map((rival) => entry(rival.id, rival.logprob)),
    })),
  };
}

/** Prompt form: by token id; null where there is none. */
export function promptLogprobs(
  entries: readonly (TokenLogprob | null)[],
  texts: TokenTexts,
): (PromptLogprob | null)[] {
  return entries.map((entry) => {
    if (entry === null) return null;
    const all = entry.top.map(({ id, logprob }, place) => ({ id, logprob, rank: place + 1 }));
    if (!all.some(({ id }) => id === entry.id)) all.push({ id: entry.id, logprob: entry.logprob, rank: entry.rank });
    return Object.fromEntries(
      all.map(({ id, logprob, rank }) => [id, { logprob: finite(logprob), rank, decoded_token: texts.text(id) }]),
    );
  });
}

/** Characters of a token in a text of this style. */
export function shownCharacters(id: number, { texts, skipSpecial }: TokenStyle): number {
  return skipSpecial && texts.isSpecial(id) ? 0 : texts.characters(id);
}

/** What {@linkcode CompletionLogprobWriter} formats beside the ids. */
export interface LogprobPart {
  /** Log-probabilities; null where there is none. */
  readonly entries: readonly (TokenLogprob | null)[];
  /** Characters of each token in the text; by default as the style shows them. */
  readonly lengths?: readonly number[];
}

/** Completion form: four arrays. Keeps the offset of the text so far, so that a stream can be formatted in pieces. */
export class CompletionLogprobWriter {
  readonly #style: TokenStyle;
  #offset = 0;

  /** Begins at offset 0. */
  constructor(style: TokenStyle) {
    this.#style = style;
  }

  /** Formats the next tokens. `entries` has one element a token, and so has `lengths`, their characters in the text. */
  write(ids: readonly number[], { entries, lengths }: LogprobPart): CompletionLogprobs {
    const style = this.#style;
    const offsets = ids.map((id, place) => {
      const at = this.#offset;
      this.#offset += lengths?.[place] ?? shownCharacters(id, style);
      return at;
    });
    return {
      tokens: ids.map((id) => shown(id, style)),
      token_logprobs: entries.map((entry) => entry === null ? null : finite(entry.logprob)),
      top_logprobs: entries.map((entry) =>
        entry === null ? null : Object.fromEntries(
          [...entry.top, entry].map(({ id, logprob }) => [shown(id, style), finite(logprob)]),
        )
      ),
      text_offset: offsets,
    };
  }
}

/** `parts` one after the other. */
export function joinCompletionLogprobs(parts: readonly CompletionLogprobs[]): CompletionLogprobs {
  return {
    tokens: parts.flatMap((part) => part.tokens),
    token_logprobs: parts.flatMap((part) => part.token_logprobs),
    top_logprobs: parts.flatMap((part) => part.top_logprobs),
    text_offset: parts.flatMap((part) => part.text_offset),
  };
}
