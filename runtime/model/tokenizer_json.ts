/**
 * Builds `tokenizer.json`-shaped objects (Hugging Face tokenizers) from vocabularies.
 *
 * The objects hold no control tokens: a library that gets one never turns text into a control token.
 *
 * @module
 */
import type { PreTokenizer } from "./pre_tokenizers.ts";

/** Most merges of a BPE vocabulary. */
export const MAX_MERGES: number = 2 ** 20;
/** Longest piece of a SentencePiece vocabulary that merges are derived for, characters. */
const MAX_PIECE_CHARACTERS = 256;

/** SentencePiece writes a space as this character. */
const META_SPACE = "\u2581";

/** A token that is matched in text before the model runs. */
export interface AddedToken {
  /** Its id. */
  readonly id: number;
  /** Its text. */
  readonly content: string;
}

/** Texts of control tokens that end a turn or the text. */
const END_TEXTS: ReadonlySet<string> = new Set([
  "<|endoftext|>",
  "<|end_of_text|>",
  "<|im_end|>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<|end|>",
  "<end_of_turn>",
]);

/** Whether a control token with this text ends generation. */
export function isEndText(text: string): boolean {
  return END_TEXTS.has(text);
}

/** Whether a token looks like a control token although its file calls it user-defined, as some converters do. */
export function isControlText(text: string): boolean {
  return END_TEXTS.has(text) || /^<\|[^|<>]+\|>$/.test(text);
}

function tokenizerJson(parts: {
  readonly added: readonly AddedToken[];
  readonly normalizer: unknown;
  readonly preTokenizer: unknown;
  readonly decoder: unknown;
  readonly model: Readonly<Record<string, unknown>>;
}): unknown {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: parts.added.map(({ id, content }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: false,
    })),
    normalizer: parts.normalizer,
    pre_tokenizer: parts.preTokenizer,
    post_processor: null,
    decoder: parts.decoder,
    model: {
      type: "BPE",
      dropout: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      ...parts.model,
    },
  };
}

/** A byte-level BPE tokenizer. `merges` are in order of rank, each `left right`. */
export function byteLevelTokenizer({ vocabulary, added, merges, preTokenizer }: {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
  readonly merges: readonly string[];
  readonly preTokenizer: PreTokenizer;
}): unknown {
  return tokenizerJson({
    added,
    normalizer: null,
    preTokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...preTokenizer.patterns.map((pattern) => ({
          type: "Split",
          pattern: { Regex: pattern },
          behavior: "Isolated",
          invert: false,
        })),
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: preTokenizer.ignoreMerges ?? false,
      vocab: Object.fromEntries(vocabulary),
      merges,
    },
  });
}

/**
 * A SentencePiece BPE tokenizer with byte fallback. SentencePiece merges the pair whose joined piece scores highest, so
 * every split of a piece into two becomes a merge, ranked by the piece's score.
 *
 * @throws {RangeError} when that makes more than {@linkcode MAX_MERGES}.
 */
export function sentencePieceTokenizer({ vocabulary, added, scores, unknown, spacePrefix }: {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
  readonly scores: ArrayLike<number>;
  readonly unknown: string;
  readonly spacePrefix: boolean;
}): unknown {
  const metaSpace = { type: "Replace", pattern: { String: " " }, content: META_SPACE };
  return tokenizerJson({
    added,
    normalizer: {
      type: "Sequence",
      normalizers: spacePrefix ? [{ type: "Prepend", prepend: META_SPACE }, metaSpace] : [metaSpace],
    },
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: META_SPACE }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(spacePrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      unk_token: unknown,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary),
      merges: deriveMerges({
        vocabulary,
        scores,
        excluded: new Set([unknown, ...added.map(({ content }) => content)]),
      }),
    },
  });
}

function deriveMerges({ vocabulary, scores, excluded }: {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly scores: ArrayLike<number>;
  readonly excluded: ReadonlySet<string>;
}): string[] {
  const pieces = [...vocabulary]
    // A space cannot occur after normalisation, and byte tokens are reached by fallback only.
    .filter(([piece]) => !excluded.has(piece) && !piece.includes(" ") && !/^<0x[0-9A-F]{2}>$/.test(piece))
    .sort(([, a], [, b]) => scores[b] - scores[a] || a - b);
  const merges: string[] = [];
  for (const [piece] of pieces) {
    const characters = [...piece];
    if (characters.length < 2 || characters.length > MAX_PIECE_CHARACTERS) continue;
    let cut = 0;
    for (let count = 1; count < characters.length; count++) {
      cut += characters[count - 1].length;
      const left = piece.slice(0, cut);
      const right = piece.slice(cut);
      if (vocabulary.has(left) && vocabulary.has(right)) merges.push(`${left} ${right}`);
    }
    if (merges.length > MAX_MERGES) {
      throw new RangeError(`Cannot derive merges: wanted at most ${MAX_MERGES}, got ${merges.length} and more`);
    }
  }
  return merges;
}
