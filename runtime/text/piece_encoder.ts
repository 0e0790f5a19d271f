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
  const controls = new Set(spec.added.filter(({ control }) => control).map(({ id }) => id));
  const plain = new Map([...spec.model.vocab].filter(([, id]) => !controls.has(id)));
  if (spec.model.type === "Unigram") return new UnigramEncoder(spec, spec.model, plain);
  return spec.byteLevel ? new ByteEncoder(spec.model, plain) : new CharacterEncoder(spec, spec.model, plain);
}

/** Byte-level BPE: symbols are bytes. A byte without a token vanishes. */
class ByteEncoder implements PieceEncoder {
  readonly #merger: BytePairMerger;
  readonly #characters = byteCharacters();
  readonly #symbolOfByte: Int32Array;
  readonly #wholePieces: ReadonlyMap<string, number> | undefined;
  readonly #utf8 = new TextEncoder();

  constructor(model: BpeSpec, plain: ReadonlyMap<string, number>) {
    this.#merger = new BytePairMerger(model.merges, plain);
    this.#symbolOfByte = Int32Array.from(this.#characters, (character) => plain.get(character) ?? NO_SYMBOL);
    if (model.ignoreMerges) this.#wholePieces = plain;
  }

  encode(piece: string, out: number[]): void {
    const bytes = this.#utf8.encode(piece);
    if (this.#wholePieces !== undefined) {
      let text = "";
      for (const byte of bytes) text += this.#characters[byte];
      const whole = this.#wholePieces.get(text);
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
  readonly #plain: ReadonlyMap<string, number>;
  readonly #ignoreMerges: boolean;
  readonly #unknown: UnknownText;

  constructor(spec: TokenizerSpec, model: BpeSpec, plain: ReadonlyMap<string, number>) {
    this.#merger = new BytePairMerger(model.merges, plain);
    this.#plain = plain;
    this.#ignoreMerges = model.ignoreMerges;
    this.#unknown = new UnknownText(spec);
  }

  encode(piece: string, out: number[]): void {
    const whole = this.#ignoreMerges ? this.#plain.get(piece) : undefined;
    if (whole !== undefined) return void out.push(whole);
    const symbols: number[] = [];
    let afterUnknown = false;
    for (const character of piece) {
      const id = this.#plain.get(character);
      if (id !== undefined) symbols.push(id);
      else symbols.push(...this.#unknown.idsOf(character, { afterUnknown }));
      afterUnknown = id === undefined;
    }
    appendMerged(this.#merger, Int32Array.from(symbols), out);
  }
}

/** The library's unigram model. */
class UnigramEncoder implements PieceEncoder {
  readonly #model: Unigram;
  readonly #plain: ReadonlyMap<string, number>;
  readonly #unknown: UnknownText;

  constructor(spec: TokenizerSpec, model: UnigramSpec, plain: ReadonlyMap<string, number>) {
    const reachable = (text: string) => plain.has(text) && !(spec.byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(text));
    // A lone surrogate occurs in no text, so a piece that begins with one is never matched.
    const vocab = model.pieces.map(([text, score], id): [string, number] => [
      reachable(text) ? text : `\ud800${id}`,
      score,
    ]);
    this.#model = new Unigram({ type: "Unigram", vocab, unk_id: spec.unknown ?? 0 }, "");
    this.#plain = plain;
    this.#unknown = new UnknownText(spec);
  }

  encode(piece: string, out: number[]): void {
    if (piece.length > MAX_UNIGRAM_PIECE) {
      throw new RangeError(
        `Cannot tokenize text: wanted at most ${MAX_UNIGRAM_PIECE} characters without a space, got ${piece.length}`,
      );
    }
    let afterUnknown = false;
    for (const text of this.#model.tokenize(piece)) {
      const id = this.#plain.get(text);
      const ids = id === undefined ? this.#unknown.idsOf(text, { afterUnknown }) : [id];
      for (const each of ids) if (each !== NO_SYMBOL) out.push(each);
      afterUnknown = id === undefined;
    }
  }
}

/** What becomes of text that has no token: its bytes, else the unknown token, else nothing. */
class UnknownText {
  readonly #byteIds: readonly (number | undefined)[];
  readonly #unknown: number;
  readonly #fuse: boolean;
  readonly #utf8 = new TextEncoder();

  constructor(spec: TokenizerSpec) {
    const idOf = (byte: number) => spec.model.vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    this.#byteIds = Array.from({ length: spec.byteFallback ? 256 : 0 }, (_, byte) => idOf(byte));
    this.#unknown = spec.unknown ?? NO_SYMBOL;
    this.#fuse = spec.fuseUnknown;
  }

  /** Ids for `text`; {@linkcode NO_SYMBOL} where it vanishes. */
  idsOf(text: string, { afterUnknown }: { readonly afterUnknown: boolean }): readonly number[] {
    const ids: number[] = [];
    for (const byte of this.#utf8.encode(text)) {
      const id = this.#byteIds[byte];
      if (id === undefined) return afterUnknown && this.#fuse ? [] : [this.#unknown];
      ids.push(id);
    }
    return ids;
  }
}

function appendMerged(merger: BytePairMerger, symbols: Int32Array, out: number[]): void {
  const count = merger.merge(symbols, symbols.length);
  for (let i = 0; i < count; i++) out.push(symbols[i]);
}
