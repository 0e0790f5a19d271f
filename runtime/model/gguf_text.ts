/**
 * Tokenizer, chat template and end tokens from GGUF metadata.
 *
 * @module
 */
import type { GgufFile } from "../weights/gguf.ts";
import { ModelFileError } from "../weights/model_file_error.ts";
import type { TextAssets } from "./model.ts";
import { PRE_TOKENIZERS } from "./pre_tokenizers.ts";
import {
  type AddedToken,
  byteLevelTokenizer,
  isControlText,
  isEndText,
  MAX_MERGES,
  sentencePieceTokenizer,
} from "./tokenizer_json.ts";

const KEY = "tokenizer.ggml.";

/** Values of `tokenizer.ggml.token_type` that matter here. */
const TOKEN_TYPE = { unknown: 2, control: 3, userDefined: 4 } as const;

/**
 * Builds the text assets of a GGUF file whose embedding has `vocab` rows.
 *
 * @throws {ModelFileError} when the tokenizer is missing, damaged or of an unknown kind.
 */
export function ggufTextAssets(file: GgufFile, vocab: number): TextAssets {
  const error = (key: string, problem: string) => new ModelFileError(file.name, { field: KEY + key, problem });
  const strings = file.strings(`${KEY}tokens`);
  if (strings === undefined) throw error("tokens", "is missing");
  if (strings.length !== vocab) {
    throw error("tokens", `must have ${vocab} entries, one a row of the embedding, got ${strings.length}`);
  }
  const tokens = strings.toArray();
  const id = (name: string): number | undefined => {
    const value = file.number(`${KEY}${name}_token_id`);
    if (value === undefined || (Number.isInteger(value) && value >= 0 && value < vocab)) return value;
    throw error(`${name}_token_id`, `must be a token id below ${vocab}, got ${value}`);
  };
  const bos = id("bos");
  const ends = [id("eos"), id("eot"), id("eom")].filter((end) => end !== undefined);
  const sorted = sortTokens(file, {
    tokens,
    control: new Set([...ends, ...(bos === undefined ? [] : [bos])]),
  });
  const { vocabulary, added, specialTokens } = sorted;
  const model = file.string(`${KEY}model`);
  const stated = file.boolean(`${KEY}add_bos_token`);
  let tokenizerJson: unknown;
  let addBos: boolean;
  if (model === "gpt2") {
    const name = file.string(`${KEY}pre`) ?? "default";
    if (!Object.hasOwn(PRE_TOKENIZERS, name)) {
      throw error("pre", `must be one of ${Object.keys(PRE_TOKENIZERS).join(", ")}, got ${JSON.stringify(name)}`);
    }
    const preTokenizer = PRE_TOKENIZERS[name];
    tokenizerJson = byteLevelTokenizer({ vocabulary, added, merges: readMerges(file, sorted), preTokenizer });
    addBos = stated ?? preTokenizer.addBos ?? false;
  } else if (model === "llama") {
    const scores = file.numbers(`${KEY}scores`);
    if (scores?.length !== vocab) throw error("scores", `must have ${vocab} entries, got ${scores?.length ?? "none"}`);
    const unknown = tokens[id("unknown") ?? 0];
    const spacePrefix = file.boolean(`${KEY}add_space_prefix`) ?? true;
    try {
      tokenizerJson = sentencePieceTokenizer({ vocabulary, added, scores, unknown, spacePrefix });
    } catch (cause) {
      if (cause instanceof RangeError) throw error("tokens", `are not usable: ${cause.message}`);
      throw cause;
    }
    addBos = stated ?? true;
  } else {
    throw error("model", `must be "gpt2" or "llama", got ${JSON.stringify(model)}`);
  }
  const chatTemplate = file.string("tokenizer.chat_template");
  return {
    tokenizerJson,
    ...(chatTemplate !== undefined && { chatTemplate }),
    specialTokens,
    ...(bos !== undefined && { bos }),
    addBos: addBos && bos !== undefined,
    eos: endIds(ends, specialTokens),
  };
}

/** Stated end ids, then control tokens that end a turn or text in the models that have them. */
function endIds(stated: readonly number[], specialTokens: Readonly<Record<string, number>>): number[] {
  const known = Object.entries(specialTokens).filter(([text]) => isEndText(text)).map(([, id]) => id);
  return [...new Set([...stated, ...known])];
}

interface SortedTokens {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly added: readonly AddedToken[];
  readonly specialTokens: Readonly<Record<string, number>>;
}

/**
 * Control tokens are kept out of the vocabulary, so that no text can turn into one; user-defined tokens are added
 * tokens, matched in text before anything else.
 */
function sortTokens(
  file: GgufFile,
  { tokens, control }: { readonly tokens: readonly string[]; readonly control: ReadonlySet<number> },
): SortedTokens {
  const types = file.numbers(`${KEY}token_type`);
  if (types !== undefined && types.length !== tokens.length) {
    throw new ModelFileError(file.name, {
      field: `${KEY}token_type`,
      problem: `must have ${tokens.length} entries, got ${types.length}`,
    });
  }
  const sentencePiece = file.get(`${KEY}model`) === "llama";
  const vocabulary = new Map<string, number>();
  const special = new Map<string, number>();
  const added: AddedToken[] = [];
  for (let id = 0; id < tokens.length; id++) {
    const text = tokens[id];
    const type = types?.[id];
    const isControl = type === TOKEN_TYPE.control || (type === TOKEN_TYPE.userDefined && isControlText(text)) ||
      (types === undefined && control.has(id)) || (type === TOKEN_TYPE.unknown && !sentencePiece);
    const isAdded = type === TOKEN_TYPE.userDefined && !isControl;
    const into = isControl ? special : vocabulary;
    if (vocabulary.has(text) || special.has(text) || (text === "" && (isControl || isAdded))) {
      throw new ModelFileError(file.name, {
        field: `${KEY}tokens[${id}]`,
        problem: text === "" ? "must not be empty" : `repeats ${JSON.stringify(text)}`,
      });
    }
    into.set(text, id);
    if (isAdded) added.push({ id, content: text });
  }
  return { vocabulary, added, specialTokens: Object.fromEntries(special) };
}

/** Merges of the file but those that touch a control token: no text may turn into one. */
function readMerges(
  file: GgufFile,
  { vocabulary, specialTokens }: Pick<SortedTokens, "vocabulary" | "specialTokens">,
): string[] {
  const field = `${KEY}merges`;
  const strings = file.strings(field);
  if (strings === undefined) throw new ModelFileError(file.name, { field, problem: "is missing" });
  if (strings.length > MAX_MERGES) {
    const problem = `must have at most ${MAX_MERGES} entries, got ${strings.length}`;
    throw new ModelFileError(file.name, { field, problem });
  }
  return strings.toArray().filter((merge, index) => {
    const space = merge.indexOf(" ", 1);
    const left = merge.slice(0, space);
    const right = merge.slice(space + 1);
    const joined = left + right;
    if (vocabulary.has(joined) && vocabulary.has(left) && vocabulary.has(right) && space > 0) return true;
    const known = [left, right, joined].every((text) => vocabulary.has(text) || Object.hasOwn(specialTokens, text));
    if (known && space > 0) return false;
    throw new ModelFileError(file.name, {
      field: `${field}[${index}]`,
      problem: `must be two tokens that make a third, got ${JSON.stringify(merge.slice(0, 80))}`,
    });
  });
}
