/**
 * Encodes one piece of pre-tokenized text into ids.
 *
 * @module
 */
import { Unigram } from "@huggingface/tokenizers";
import { BytePairMerger, NO_SYMBOL } from "./bpe.ts";
import { byteCharacters } from "./byte_alphabet.ts";
import type { BpeSpec, TokenizerSpec, UnigramSpec } from "./tokenizer_json.ts";

/** Longest piece without a split that a unigram model encodes, UTF-16 units; its lattice takes about 1 KB for each. */
export const MAX_UNIGRAM_PIECE: number = 1 << 16;

/** Turns a piece into ids. */
export interface PieceEncoder {
  /** Appends the ids of `piece` to `out`. */
  encode(piece: string, out: number[]): void;
}

/** Encoder for the model of `spec`; control tokens are never among its results, except the unknown token. */
export function createPieceEncoder(spec: TokenizerSpec): PieceEncoder {
  const vocabulary = new PlainVocabulary(spec);
  if (spec.model.type === "Unigram") return new UnigramEncoder(spec.model, vocabulary);
  return spec.byteLevel ? new ByteEncoder(spec.model, vocabulary) : new CharacterEncoder(spec.model, vocabulary);
}

/** The tokens that plain text may become. */
class PlainVocabulary {
  /** Ids of control tokens. */
  readonly controls: ReadonlySet<number>;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #byteIds: readonly (number | undefined)[];
  /** Id of text without a token; {@linkcode NO_SYMBOL} without one. */
  readonly unknown: number;
  readonly #fuse: boolean;
  readonly #utf8 = new TextEncoder();

  constructor(spec: TokenizerSpec) {
    this.controls = new Set(spec.added.filter(({ control }) => control).map(({ id }) => id));
    this.#ids = spec.model.vocab;
    const idOf = (byte: number) => this.#ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    this.#byteIds = Array.from({ length: spec.byteFallback ? 256 : 0 }, (_, byte) => idOf(byte));
    this.unknown = spec.unknown ?? NO_SYMBOL;
    this.#fuse = spec.fuseUnknown;
  }

  /** Id of the token `text`. */
  idOf(text: string): number | undefined {
    const id = this.#ids.get(text);
    return id === undefined || this.controls.has(id) ? undefined : id;
  }

  /** Whether `id` is the token of a byte, which text never spells. */
  isByte(id: number): boolean {
    return this.#byteIds.includes(id);
  }

  /** Ids for text without a token: its bytes, else the unknown token; {@linkcode NO_SYMBOL} where it vanishes. */
  idsOfUnknown(text: string, { afterUnknown }: { readonly afterUnknown: boolean }): readonly number[] {
    const ids: number[] = [];
    for (const byte of this.#utf8.encode(text)) {
      const id = this.#byteIds[byte];
      if (id === undefined) return afterUnknown && this.#fuse ? [] : [this.unknown];
      ids.push(id);
    }
    return ids;
  }
}

/** Byte-level BPE: symbols are bytes. A byte without a token vanishes. */
class ByteEncoder implements PieceEncoder {
  readonly #merger: BytePairMerger;
  readonly #vocabulary: PlainVocabulary;
  readonly #ignoreMerges: boolean;
  readonly #characters = byteCharacters();
  readonly #symbolOfByte: Int32Array;
  readonly #utf8 = new TextEncoder();

  constructor(model: BpeSpec, vocabulary: PlainVocabulary) {
    this.#merger = new BytePairMerger(model.merges, vocabulary.controls);
    this.#vocabulary = vocabulary;
    this.#ignoreMerges = model.ignoreMerges;
    this.#symbolOfByte = Int32Array.from(this.#characters, (character) => vocabulary.idOf(character) ?? NO_SYMBOL);
  }

  encode(piece: string, out: number[]): void {
    const bytes = this.#utf8.encode(piece);
    if (this.#ignoreMerges) {
      const whole = this.#vocabulary.idOf(Array.from(bytes, (byte) => this.#characters[byte]).join(""));
      if (whole !== undefined) return void out.push(whole);
    }
    const symbols = new Int32Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) symbols[i] = this.#symbolOfByte[bytes[i]];
    appendMerged(this.#merger, symbols, out);
  }
}

/** BPE over characters, as SentencePiece vocabularies have it. */
class CharacterEncoder implements PieceEncoder {
  readonly #merger: BytePairMerger;
  readonly #vocabulary: PlainVocabulary;
  readonly #ignoreMerges: boolean;

  constructor(model: BpeSpec, vocabulary: PlainVocabulary) {
    this.#merger = new BytePairMerger(model.merges, vocabulary.controls);
    this.#vocabulary = vocabulary;
    this.#ignoreMerges = model.ignoreMerges;
  }

  encode(piece: string, out: number[]): void {
    const whole = this.#ignoreMerges ? this.#vocabulary.idOf(piece) : undefined;
    if (whole !== undefined) return void out.push(whole);
    const symbols: number[] = [];
    let afterUnknown = false;
    for (const character of piece) {
      const id = this.#vocabulary.idOf(character);
      if (id !== undefined) symbols.push(id);
      else symbols.push(...this.#vocabulary.idsOfUnknown(character, { afterUnknown }));
      afterUnknown = id === undefined;
    }
    appendMerged(this.#merger, Int32Array.from(symbols), out);
  }
}

/** The library's unigram model. */
class UnigramEncoder implements PieceEncoder {
  readonly #model: Unigram;
  readonly #vocabulary: PlainVocabulary;

  constructor(model: UnigramSpec, vocabulary: PlainVocabulary) {
    const hidden = (id: number | undefined) => id === undefined || vocabulary.isByte(id);
    // A lone surrogate occurs in no text, so a piece that begins with one is never matched.
    const vocab = model.pieces.map(([text, score], id): [string, number] => [
      hidden(vocabulary.idOf(text)) ? `\ud800${id}` : text,
      score,
    ]);
    this.#model = new Unigram({ type: "Unigram", vocab, unk_id: Math.max(0, vocabulary.unknown) }, "");
    this.#vocabulary = vocabulary;
  }

  encode(piece: string, out: number[]): void {
    if (piece.length > MAX_UNIGRAM_PIECE) {
      throw new RangeError(
        `Cannot tokenize text: wanted at most ${MAX_UNIGRAM_PIECE} characters without a space, got ${piece.length}`,
      );
    }
    let afterUnknown = false;
    for (const text of this.#model.tokenize(piece)) {
      const id = this.#vocabulary.idOf(text);
      const ids = id === undefined ? this.#vocabulary.idsOfUnknown(text, { afterUnknown }) : [id];
      for (const each of ids) if (each !== NO_SYMBOL) out.push(each);
      afterUnknown = id === undefined;
    }
  }
}

function appendMerged(merger: BytePairMerger, symbols: Int32Array, out: number[]): void {
  const count = merger.merge(symbols, symbols.length);
  for (let i = 0; i < count; i++) out.push(symbols[i]);
}
