/**
 * Text to token ids, on the calling thread.
 *
 * @module
 */
import { SequenceNormalizer } from "@huggingface/tokenizers";
import type { TextAssets } from "../model/model.ts";
import { AddedTokenSplitter } from "./added_tokens.ts";
import type { TokenTable } from "./codec.ts";
import { Detokenizer } from "./detokenizer.ts";
import { createPieceEncoder, type PieceEncoder } from "./piece_encoder.ts";
import { PreTokenizer } from "./pre_tokenizer.ts";
import { buildTokenTable } from "./token_table.ts";
import { type AddedToken, type JsonNode, readTokenizerJson, type TokenizerSpec } from "./tokenizer_json.ts";

/** Pieces whose ids are remembered; the memory is dropped when it is full. */
const CACHED_PIECES = 1 << 15;
/** Longest remembered piece, UTF-16 units. */
const CACHED_PIECE_LENGTH = 32;

/** Options of {@linkcode Tokenizer.encode}. */
export interface EncodeOptions {
  /** Whether control tokens written in the text become their ids. @default {false} */
  readonly parseSpecial?: boolean;
  /** A character to drop from the text after control tokens were looked for: it hides those that it interrupts. */
  readonly marker?: string;
}

/** Tokenizer of one model. */
export class Tokenizer {
  /** Bytes of every token. */
  readonly vocabulary: TokenTable;
  /** Control tokens. */
  readonly controlTokens: readonly AddedToken[];
  /** Whether {@linkcode Tokenizer.decode} drops one space at the start, which encoding had put there. */
  readonly dropsLeadingSpace: boolean;
  readonly #controls: AddedTokenSplitter;
  readonly #raw: AddedTokenSplitter;
  readonly #normalized: AddedTokenSplitter;
  readonly #normalize: (text: string) => string;
  readonly #preTokenizer: PreTokenizer;
  readonly #cutWords: boolean;
  readonly #encoder: PieceEncoder;
  readonly #cache = new Map<string, readonly number[]>();

  /**
   * Builds the tokenizer of a model.
   *
   * @throws {TypeError} when the tokenizer file has the wrong shape or needs something that is not supported.
   * @throws {RangeError} when its contents contradict each other or are over a limit.
   */
  constructor(assets: TextAssets) {
    const spec = readTokenizerJson(assets);
    const users = spec.added.filter(({ control }) => !control);
    this.controlTokens = spec.added.filter(({ control }) => control);
    this.#controls = new AddedTokenSplitter(this.controlTokens);
    this.#raw = new AddedTokenSplitter(users.filter(({ normalized }) => !normalized));
    this.#normalize = normalizerOf(spec.normalizer);
    this.#normalized = new AddedTokenSplitter(
      users.filter(({ normalized }) => normalized)
        .map((token) => ({ ...token, content: this.#normalize(token.content) }))
        .filter(({ content }) => content !== ""),
    );
    this.#preTokenizer = new PreTokenizer(spec.preTokenizer);
    this.#cutWords = wordsAreIndependent(spec);
    this.#encoder = createPieceEncoder(spec);
    this.vocabulary = buildTokenTable(spec);
    this.dropsLeadingSpace = spec.dropsLeadingSpace;
  }

  /**
   * Token ids of `text`, without BOS. Plain text never yields a control token (but for a vocabulary that has an unknown
   * token instead of bytes, and text outside it). Lone surrogates count as U+FFFD.
   *
   * @throws {RangeError} when the text has a stretch that the model cannot encode in bounded time and memory.
   */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const { parseSpecial = false, marker } = options;
    const out: number[] = [];
    const wellFormed = text.toWellFormed();
    let first = true;
    for (const section of parseSpecial ? this.#controls.split(wellFormed, marker) : [wellFormed]) {
      if (typeof section !== "string") out.push(section.id);
      else this.#encodePlain(marker === undefined ? section : section.replaceAll(marker, ""), { out, first });
      first = false;
    }
    return Int32Array.from(out);
  }

  /** Text of `ids`; bytes that are not UTF-8 become U+FFFD. Control tokens appear as text unless `skipSpecial`. */
  decode(ids: ArrayLike<number>, options: { readonly skipSpecial?: boolean } = {}): string {
    return decodeIds(this.vocabulary, ids, { ...options, dropLeadingSpace: this.dropsLeadingSpace });
  }

  #encodePlain(text: string, { out, first }: { out: number[]; first: boolean }): void {
    for (const section of this.#raw.split(text)) {
      if (typeof section !== "string") out.push(section.id);
      else this.#encodeNormalized(this.#normalize(section), { out, first });
      first = false;
    }
  }

  #encodeNormalized(text: string, { out, first }: { out: number[]; first: boolean }): void {
    for (const section of this.#normalized.split(text)) {
      if (typeof section !== "string") out.push(section.id);
      else {
        for (const piece of this.#preTokenizer.split(section, first)) {
          if (this.#cutWords) { for (const word of piece.split(WORD_BORDER)) this.#encodePiece(word, out); }
          else this.#encodePiece(piece, out);
        }
      }
      first = false;
    }
  }

  #encodePiece(piece: string, out: number[]): void {
    if (piece.length > CACHED_PIECE_LENGTH) return this.#encoder.encode(piece, out);
    let ids = this.#cache.get(piece);
    if (ids === undefined) {
      const fresh: number[] = [];
      this.#encoder.encode(piece, fresh);
      if (this.#cache.size === CACHED_PIECES) this.#cache.clear();
      this.#cache.set(piece, fresh);
      ids = fresh;
    }
    for (const id of ids) out.push(id);
  }
}

/**
 * Text of `ids` in one go.
 *
 * @throws {RangeError} when an id is not in the table.
 */
export function decodeIds(
  table: TokenTable,
  ids: ArrayLike<number>,
  options: { readonly skipSpecial?: boolean; readonly dropLeadingSpace: boolean },
): string {
  const detokenizer = new Detokenizer(table, options);
  const parts: string[] = [];
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (!Number.isInteger(id) || id < 0 || id >= table.size) {
      throw new RangeError(`Cannot decode token ${id} at position ${i}: wanted an id in [0, ${table.size})`);
    }
    parts.push(detokenizer.push(id));
  }
  parts.push(detokenizer.flush());
  const text = parts.join("");
  return options.dropLeadingSpace && text.startsWith(" ") ? text.slice(1) : text;
}

/** `ids` with the begin-of-sequence id before them where the model wants one and it is not there yet. */
export function withBos(ids: Int32Array, assets: Pick<TextAssets, "bos" | "addBos">): Int32Array {
  if (!assets.addBos || assets.bos === undefined || ids[0] === assets.bos) return ids;
  const out = new Int32Array(ids.length + 1);
  out[0] = assets.bos;
  out.set(ids, 1);
  return out;
}

function normalizerOf(node: JsonNode | undefined): (text: string) => string {
  if (node === undefined) return (text) => text;
  const library = new SequenceNormalizer(JSON.parse(JSON.stringify({ type: "Sequence", normalizers: [node] })));
  return (text) => library.normalize(text);
}

const WORD_BORDER = /(?<=[^\u2581])(?=\u2581)/u;

/**
 * Whether text can be cut before every U+2581 that follows another character without changing the ids: no token spans
 * such a place. SentencePiece vocabularies have no other split, so a whole prompt would be one piece.
 */
function wordsAreIndependent({ model, byteLevel }: TokenizerSpec): boolean {
  if (byteLevel || (model.type === "BPE" && model.ignoreMerges)) return false;
  for (const text of model.vocab.keys()) if (/[^\u2581]\u2581/u.test(text)) return false;
  return true;
}
