/**
 * Tokenizer, chat template and end tokens from the files of a Hugging Face directory.
 *
 * @module
 */
import type { HfDirectory } from "../weights/hf_directory.ts";
import { isJsonObject, JsonDocument, type JsonObject } from "../weights/json_document.ts";
import type { TextAssets } from "./model.ts";
import { isEndText, MAX_MERGES } from "./tokenizer_json.ts";

/** Longest regular expression in a tokenizer, characters. */
export const MAX_REGEX_CHARACTERS = 4096;

/** Put before a control token's piece in a Unigram vocabulary: a lone surrogate, which well-formed text never holds. */
const UNMATCHABLE = "\ud800";

/**
 * Builds the text assets of a directory whose embedding has `vocab` rows. Control tokens are taken out of the
 * tokenizer, so that no text turns into one, and its post-processor with them.
 *
 * @throws {ModelFileError} when the tokenizer is missing or damaged.
 */
export function hfTextAssets(directory: HfDirectory, vocab: number): TextAssets {
  const tokenizer = directory.json("tokenizer.json");
  if (tokenizer === undefined) throw directory.config.error("tokenizer.json", "is missing beside it");
  const settings = directory.json("tokenizer_config.json") ?? new JsonDocument("tokenizer_config.json", {});
  const model = tokenizer.object("model");
  if (model === undefined) throw tokenizer.error("model", "is missing");
  checkPatterns(tokenizer, tokenizer.root);
  const { special, kept } = sortAddedTokens(tokenizer, vocab);
  const specialTokens = Object.fromEntries(special);
  const bos = namedToken(settings, "bos_token", special) ?? tokenIds(directory.config, "bos_token_id", vocab).at(0);
  const stated = settings.boolean("add_bos_token");
  return {
    tokenizerJson: {
      ...tokenizer.root,
      added_tokens: kept,
      post_processor: null,
      normalizer: tokenizer.get("normalizer") ?? null,
      pre_tokenizer: tokenizer.get("pre_tokenizer") ?? null,
      decoder: tokenizer.get("decoder") ?? null,
      model: withoutControlTokens(model, { special, vocab }),
    },
    ...chatTemplate(directory, settings),
    specialTokens,
    ...(bos !== undefined && { bos }),
    addBos: bos !== undefined && (stated ?? templateBegins(tokenizer.get("post_processor"), bos, special)),
    eos: endIds(directory, { settings, special, vocab }),
  };
}

function chatTemplate(directory: HfDirectory, settings: JsonDocument): { chatTemplate?: string } {
  const file = directory.text("chat_template.jinja");
  if (file !== undefined) return { chatTemplate: file };
  const stated = settings.get("chat_template");
  if (typeof stated === "string") return { chatTemplate: stated };
  if (!Array.isArray(stated)) return {};
  const named = stated.filter(isJsonObject).find(({ name }) => name === "default")?.template;
  return typeof named === "string" ? { chatTemplate: named } : {};
}

function sortAddedTokens(
  tokenizer: JsonDocument,
  vocab: number,
): { special: Map<string, number>; kept: JsonObject[] } {
  const added = tokenizer.get("added_tokens") ?? [];
  if (!Array.isArray(added)) throw tokenizer.error("added_tokens", "must be an array");
  const special = new Map<string, number>();
  const kept: JsonObject[] = [];
  const contents = new Set<string>();
  const ids = new Set<number>();
  added.forEach((token: unknown, index) => {
    const field = `added_tokens[${index}]`;
    if (!isJsonObject(token)) throw tokenizer.error(field, "must be an object");
    const { id, content } = token;
    if (typeof content !== "string" || content === "") {
      throw tokenizer.error(`${field}.content`, "must be a string that is not empty");
    }
    if (!isTokenId(id, vocab)) throw tokenizer.error(`${field}.id`, `must be a token id below ${vocab}, got ${id}`);
    if (contents.has(content) || ids.has(id)) throw tokenizer.error(field, "repeats the text or id of another");
    contents.add(content);
    ids.add(id);
    if (token.special === true) special.set(content, id);
    else kept.push(token);
  });
  return { special, kept };
}

function isTokenId(value: unknown, vocab: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < vocab;
}

/** Checks the model and returns it without control tokens. The token for unknown text stays: the model needs it. */
function withoutControlTokens(
  model: JsonDocument,
  { special, vocab }: { readonly special: ReadonlyMap<string, number>; readonly vocab: number },
): JsonObject {
  const vocabulary = model.get("vocab");
  if (Array.isArray(vocabulary)) {
    if (vocabulary.length > vocab) throw model.error("vocab", `must have at most ${vocab} entries`);
    const pieces = vocabulary.map((entry: unknown, id) => {
      if (!Array.isArray(entry) || typeof entry[0] !== "string" || typeof entry[1] !== "number") {
        throw model.error(`vocab[${id}]`, "must be a piece and its score");
      }
      return special.get(entry[0]) === id ? [UNMATCHABLE + entry[0], entry[1]] : entry;
    });
    return { ...model.root, vocab: pieces };
  }
  if (!isJsonObject(vocabulary)) throw model.error("vocab", "must be an object or an array");
  const unknown = model.string("unk_token");
  const ids = new Uint8Array(vocab);
  const kept: [string, unknown][] = [];
  for (const entry of Object.entries(vocabulary)) {
    const [token, id] = entry;
    if (!isTokenId(id, vocab)) {
      throw model.error(`vocab[${JSON.stringify(token)}]`, `must be an id below ${vocab}, got ${id}`);
    }
    if (ids[id] !== 0) throw model.error(`vocab[${JSON.stringify(token)}]`, `repeats id ${id}`);
    ids[id] = 1;
    if (!special.has(token) || token === unknown) kept.push(entry);
  }
  return { ...model.root, vocab: Object.fromEntries(kept), ...checkedMerges(model, { vocabulary, special }) };
}

/** Merges of the file but those that touch a control token: no text may turn into one. */
function checkedMerges(
  model: JsonDocument,
  { vocabulary, special }: { readonly vocabulary: JsonObject; readonly special: ReadonlyMap<string, number> },
): { merges?: unknown[] } {
  const merges = model.get("merges");
  if (merges === undefined) return {};
  if (!Array.isArray(merges)) throw model.error("merges", "must be an array");
  if (merges.length > MAX_MERGES) {
    throw model.error("merges", `must have at most ${MAX_MERGES} entries, got ${merges.length}`);
  }
  const known = (text: string) => Object.hasOwn(vocabulary, text) || special.has(text);
  const pairs = merges.map((merge: unknown, index): readonly [string, string] => {
    const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (Array.isArray(pair) && pair.length === 2) {
      const [left, right]: unknown[] = pair;
      const strings = typeof left === "string" && typeof right === "string";
      if (strings && known(left) && known(right) && known(left + right)) return [left, right];
    }
    throw model.error(
      `merges[${index}]`,
      `must be two tokens that make a third, got ${JSON.stringify(merge)?.slice(0, 80)}`,
    );
  }).filter(([left, right]) => !special.has(left) && !special.has(right) && !special.has(left + right));
  // One string a merge is far cheaper to copy between threads than a pair; pairs are needed only where tokens hold spaces.
  const spaced = pairs.some(([left, right]) => left.includes(" ") || right.includes(" "));
  return { merges: spaced ? [...pairs] : pairs.map(([left, right]) => `${left} ${right}`) };
}

/** Refuses regular expressions that are too long anywhere in the tokenizer's pipeline. */
function checkPatterns(tokenizer: JsonDocument, root: JsonObject): void {
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) return value.forEach(visit);
    if (!isJsonObject(value)) return;
    for (const [key, child] of Object.entries(value)) {
      if (key === "Regex" && (typeof child !== "string" || child.length > MAX_REGEX_CHARACTERS)) {
        throw tokenizer.error("Regex", `must be a string of at most ${MAX_REGEX_CHARACTERS} characters`);
      }
      visit(child);
    }
  };
  for (const part of ["normalizer", "pre_tokenizer", "decoder"]) visit(root[part]);
}

/** Id of the token that a `tokenizer_config.json` field names, as text or as an object with the text in it. */
function namedToken(settings: JsonDocument, key: string, special: ReadonlyMap<string, number>): number | undefined {
  const value = settings.get(key);
  const content = isJsonObject(value) ? value.content : value;
  return typeof content === "string" ? special.get(content) : undefined;
}

/** Ids of a field that holds one id or several. */
function tokenIds(document: JsonDocument, key: string, vocab: number): number[] {
  const value = document.get(key);
  const ids: unknown[] = value === undefined ? [] : Array.isArray(value) ? value : [value];
  return ids.map((id) => {
    if (!isTokenId(id, vocab)) {
      throw document.error(key, `must be a token id below ${vocab}, got ${JSON.stringify(id)}`);
    }
    return id;
  });
}

function endIds(
  directory: HfDirectory,
  { settings, special, vocab }: {
    readonly settings: JsonDocument;
    readonly special: ReadonlyMap<string, number>;
    readonly vocab: number;
  },
): number[] {
  const generation = directory.json("generation_config.json");
  const named = namedToken(settings, "eos_token", special);
  const known = [...special].filter(([text]) => isEndText(text)).map(([, id]) => id);
  return [
    ...new Set([
      ...(generation === undefined ? [] : tokenIds(generation, "eos_token_id", vocab)),
      ...tokenIds(directory.config, "eos_token_id", vocab),
      ...(named === undefined ? [] : [named]),
      ...known,
    ]),
  ];
}

/** Whether the tokenizer's own template (a TemplateProcessing, maybe in a Sequence) puts BOS first. */
function templateBegins(processor: unknown, bos: number, special: ReadonlyMap<string, number>): boolean {
  if (!isJsonObject(processor)) return false;
  if (processor.type === "Sequence" && Array.isArray(processor.processors)) {
    return processor.processors.some((inner: unknown) => templateBegins(inner, bos, special));
  }
  if (processor.type !== "TemplateProcessing" || !Array.isArray(processor.single)) return false;
  const first: unknown = processor.single[0];
  const token = isJsonObject(first) && isJsonObject(first.SpecialToken) ? first.SpecialToken.id : undefined;
  return typeof token === "string" && special.get(token) === bos;
}
