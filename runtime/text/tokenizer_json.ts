/**
 * Reads a `tokenizer.json`-shaped object. A model file is not trusted: every part is checked before it is used.
 *
 * @module
 */
import type { TextAssets } from "../model/model.ts";

/** Most token ids, so that an absurd id never decides an allocation. */
export const MAX_TOKEN_ID: number = 1 << 22;
/** Most merge rules of a BPE vocabulary. */
export const MAX_MERGES: number = 1 << 22;

/** A node of the file whose fields are still unchecked. */
export type JsonNode = Readonly<Record<string, unknown>>;

/** A token that is matched in the text itself, before the model sees it. */
export interface AddedToken {
  /** Token id. */
  readonly id: number;
  /** Text that stands for it. */
  readonly content: string;
  /** Control token: recognised only on request, never in plain text. */
  readonly control: boolean;
  /** Whether whitespace before it belongs to it. */
  readonly lstrip: boolean;
  /** Whether whitespace after it belongs to it. */
  readonly rstrip: boolean;
  /** Whether it is matched after the normalizer instead of before. */
  readonly normalized: boolean;
}

/** Vocabulary and rules of byte-pair encoding. */
export interface BpeSpec {
  /** Kind of model. */
  readonly type: "BPE";
  /** Ids by text, control tokens included. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Left id, right id and joined id of each rule, the first rule is applied first. */
  readonly merges: Int32Array;
  /** Whether a piece that is a token itself is taken without applying the rules. */
  readonly ignoreMerges: boolean;
}

/** Vocabulary of a unigram model; the id is the position. */
export interface UnigramSpec {
  /** Kind of model. */
  readonly type: "Unigram";
  /** Ids by text, control tokens included. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Text and log-probability of each id. */
  readonly pieces: readonly (readonly [string, number])[];
}

/** What the file says, checked. */
export interface TokenizerSpec {
  /** Model. */
  readonly model: BpeSpec | UnigramSpec;
  /** Whether tokens are bytes in the GPT-2 alphabet; otherwise they are text with U+2581 for spaces. */
  readonly byteLevel: boolean;
  /** Whether characters without a token become `<0xNN>` tokens. */
  readonly byteFallback: boolean;
  /** Id of characters without a token, where the model has one. */
  readonly unknown?: number;
  /** Whether a run of unknown characters is one id. */
  readonly fuseUnknown: boolean;
  /** Added tokens, control tokens of the assets included. */
  readonly added: readonly AddedToken[];
  /** `normalizer` of the file. */
  readonly normalizer?: JsonNode;
  /** `pre_tokenizer` of the file. */
  readonly preTokenizer?: JsonNode;
  /** Whether decoding a whole text drops the space that encoding put before it. */
  readonly dropsLeadingSpace: boolean;
}

/** The field as an object; undefined when it is absent or null. */
export function optionalNode(value: unknown, where: string): JsonNode | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) throw wrong(where, "an object", value);
  return value as JsonNode;
}

/** The field as an array. */
export function arrayOf(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(where, "an array", value);
  return value;
}

function wrong(where: string, wanted: string, value: unknown): TypeError {
  const actual = value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
  return new TypeError(`Cannot read tokenizer: wanted ${where} to be ${wanted}, got ${actual}`);
}

function stringAt(value: unknown, where: string): string {
  if (typeof value !== "string") throw wrong(where, "a string", value);
  return value;
}

function isTokenId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < MAX_TOKEN_ID;
}

function wrongId(value: unknown, where: string): RangeError {
  return new RangeError(`Cannot read tokenizer: wanted ${where} in [0, ${MAX_TOKEN_ID}), got ${String(value)}`);
}

function idAt(value: unknown, where: string): number {
  if (!isTokenId(value)) throw wrongId(value, where);
  return value;
}

/**
 * Reads and checks the tokenizer of a model.
 *
 * @throws {TypeError} when a field has the wrong type or names a kind that is not supported.
 * @throws {RangeError} when ids repeat, a merge names an unknown token, or a size is over its limit.
 */
export function readTokenizerJson(assets: TextAssets): TokenizerSpec {
  const root = optionalNode(assets.tokenizerJson, "tokenizer");
  const model = optionalNode(root?.model, "model");
  if (root === undefined || model === undefined) throw new TypeError("Cannot read tokenizer: it has no model");
  const added = readAddedTokens(root, assets);
  const steps = [...nodesOf(root.pre_tokenizer, "pretokenizers"), ...nodesOf(root.decoder, "decoders")];
  const read = model.type === "Unigram" || (model.type === undefined && Array.isArray(model.vocab))
    ? readUnigram(model)
    : readBpe(model);
  return {
    model: read,
    byteLevel: steps.some((step) => step.type === "ByteLevel"),
    byteFallback: model.byte_fallback === true || steps.some((step) => step.type === "ByteFallback"),
    unknown: read.type === "Unigram"
      ? (model.unk_id === undefined || model.unk_id === null ? undefined : idAt(model.unk_id, "model.unk_id"))
      : (typeof model.unk_token === "string" ? read.vocab.get(model.unk_token) : undefined),
    fuseUnknown: read.type === "Unigram" || model.fuse_unk === true,
    added,
    normalizer: optionalNode(root.normalizer, "normalizer"),
    preTokenizer: optionalNode(root.pre_tokenizer, "pre_tokenizer"),
    dropsLeadingSpace: nodesOf(root.decoder, "decoders").some((step) =>
      (step.type === "Strip" && step.content === " " && Number(step.start) > 0) ||
      (step.type === "Metaspace" && step.prepend_scheme !== "never" && step.add_prefix_space !== false)
    ),
  };
}

/** The node itself, or the members of a `Sequence`, nested ones included. */
export function nodesOf(value: unknown, members: string, depth = 0): JsonNode[] {
  const node = optionalNode(value, members);
  if (node === undefined) return [];
  if (node.type !== "Sequence") return [node];
  if (depth === 8) throw new RangeError(`Cannot read tokenizer: ${members} nest deeper than 8`);
  return arrayOf(node[members], members).flatMap((child) => nodesOf(child, members, depth + 1));
}

function readAddedTokens(root: JsonNode, assets: TextAssets): AddedToken[] {
  const byContent = new Map<string, AddedToken>();
  for (const entry of arrayOf(root.added_tokens ?? [], "added_tokens")) {
    const node = optionalNode(entry, "added_tokens[]") ?? {};
    const content = stringAt(node.content, "added_tokens[].content");
    const id = idAt(node.id, "added_tokens[].id");
    if (content === "") throw new RangeError(`Cannot read tokenizer: added token ${id} has no text`);
    const control = node.special === true || Object.hasOwn(assets.specialTokens, content);
    byContent.set(content, {
      id,
      content,
      control,
      lstrip: node.lstrip === true,
      rstrip: node.rstrip === true,
      normalized: node.normalized === undefined ? !control : node.normalized === true,
    });
  }
  for (const [content, id] of Object.entries(assets.specialTokens)) {
    if (content === "") throw new RangeError(`Cannot read tokenizer: control token ${id} has no text`);
    const known = byContent.get(content);
    const base = known ?? { content, lstrip: false, rstrip: false, normalized: false };
    byContent.set(content, { ...base, id: idAt(id, `id of control token ${content}`), control: true });
  }
  return [...byContent.values()];
}

function readUnigram(model: JsonNode): UnigramSpec {
  const pieces = arrayOf(model.vocab, "model.vocab").map((entry, id): readonly [string, number] => {
    const [text, score] = arrayOf(entry, `model.vocab[${id}]`);
    if (typeof score !== "number" || !Number.isFinite(score)) throw wrong(`score of token ${id}`, "finite", score);
    return [stringAt(text, `text of token ${id}`), score];
  });
  if (pieces.length > MAX_TOKEN_ID) throw new RangeError(`Cannot read tokenizer: ${pieces.length} tokens are too many`);
  return { type: "Unigram", vocab: new Map(pieces.map(([text], id) => [text, id])), pieces };
}

function readBpe(model: JsonNode): BpeSpec {
  if (model.type !== undefined && model.type !== "BPE") {
    throw new TypeError(`Cannot read tokenizer: wanted a BPE or Unigram model, got ${String(model.type)}`);
  }
  for (const field of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[field]) throw new TypeError(`Cannot read tokenizer: model.${field} is not supported`);
  }
  const vocab = new Map<string, number>();
  const taken = new Set<number>();
  for (const [text, id] of Object.entries(optionalNode(model.vocab, "model.vocab") ?? {})) {
    if (!isTokenId(id)) throw wrongId(id, `id of token ${JSON.stringify(text)}`);
    if (taken.has(id)) throw new RangeError(`Cannot read tokenizer: id ${id} belongs to two tokens`);
    taken.add(id);
    vocab.set(text, id);
  }
  if (vocab.size === 0) throw new RangeError("Cannot read tokenizer: the vocabulary is empty");
  const rules = arrayOf(model.merges ?? [], "model.merges");
  if (rules.length > MAX_MERGES) {
    throw new RangeError(`Cannot read tokenizer: wanted at most ${MAX_MERGES} merges, got ${rules.length}`);
  }
  const merges = new Int32Array(3 * rules.length);
  const idOf = (text: string, rank: number): number => {
    const id = vocab.get(text);
    if (id !== undefined) return id;
    throw new RangeError(`Cannot read tokenizer: merge ${rank} names ${JSON.stringify(text)}, which is no token`);
  };
  for (let rank = 0; rank < rules.length; rank++) {
    const [left, right] = readMerge(rules[rank], rank);
    merges[3 * rank] = idOf(left, rank);
    merges[3 * rank + 1] = idOf(right, rank);
    merges[3 * rank + 2] = idOf(left + right, rank);
  }
  return { type: "BPE", vocab, merges, ignoreMerges: model.ignore_merges === true };
}

function readMerge(rule: unknown, rank: number): readonly [string, string] {
  if (typeof rule === "string") {
    const space = rule.indexOf(" ", 1);
    if (space > 0) return [rule.slice(0, space), rule.slice(space + 1)];
  } else if (Array.isArray(rule) && rule.length === 2) {
    const [left, right] = rule;
    if (typeof left === "string" && typeof right === "string") return [left, right];
  }
  throw new TypeError(`Cannot read tokenizer: wanted merge ${rank} to be two texts, got ${JSON.stringify(rule)}`);
}
