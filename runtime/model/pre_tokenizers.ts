/**
 * Pre-tokenizers of byte-level BPE vocabularies by the name that GGUF files give them (`tokenizer.ggml.pre`). A text
 * is split by each pattern in turn; what lies between matches stays a piece.
 *
 * Source of names and patterns: the tokenizer.json files of the models named, as llama.cpp's `llama-vocab.cpp` lists
 * them.
 *
 * @module
 */

/** How one kind of vocabulary splits text. */
export interface PreTokenizer {
  /** Patterns in the order they are applied. */
  readonly patterns: readonly string[];
  /** Whether a piece that is a token is taken whole, without merging. @default {false} */
  readonly ignoreMerges?: boolean;
  /** Whether prompts begin with BOS when the file does not say. @default {false} */
  readonly addBos?: boolean;
}

const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const DIGIT = String.raw`\p{N}`;

/** The GPT-4 family of patterns, which differ in how many digits stay together. */
function gpt4(digits: string): string {
  return String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*` +
    String.raw`|\s*[\r\n]+|\s+(?!\S)|\s+`;
}

/** The GPT-4o family: words split where lower case is followed by upper case. */
function gpt4o({ digits, suffix }: { readonly digits: string; readonly suffix: string }): string {
  const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
  const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
  const before = String.raw`[^\r\n\p{L}\p{N}]?`;
  return `${before}${upper}*${lower}+${suffix}|${before}${upper}+${lower}*${suffix}|${digits}` +
    String.raw`| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
}

const SINGLE_DIGITS: PreTokenizer = { patterns: [DIGIT, GPT2] };
const PLAIN: PreTokenizer = { patterns: [GPT2] };
const QWEN2: PreTokenizer = { patterns: [gpt4(DIGIT)] };
const LLAMA3: PreTokenizer = { patterns: [gpt4(String.raw`\p{N}{1,3}`)], ignoreMerges: true, addBos: true };
const GPT4O: PreTokenizer = {
  patterns: [gpt4o({ digits: String.raw`\p{N}{1,3}`, suffix: "(?i:'s|'t|'re|'ve|'m|'ll|'d)?" })],
};

/** Pre-tokenizers by `tokenizer.ggml.pre`. */
export const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  default: {
    patterns: [
      String.raw`[\p{P}\$\+<=>\^~\|]+`,
      GPT2,
      String.raw`\p{N}+`,
      String.raw`[0-9][0-9][0-9]`,
    ],
  },
  "gpt-2": PLAIN,
  "phi-2": PLAIN,
  "roberta-bpe": PLAIN,
  mpt: PLAIN,
  olmo: PLAIN,
  jais: PLAIN,
  smollm: SINGLE_DIGITS,
  starcoder: SINGLE_DIGITS,
  refact: SINGLE_DIGITS,
  "command-r": SINGLE_DIGITS,
  codeshell: SINGLE_DIGITS,
  exaone: SINGLE_DIGITS,
  "minerva-7b": SINGLE_DIGITS,
  "llama-bpe": LLAMA3,
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  falcon3: LLAMA3,
  dbrx: { patterns: LLAMA3.patterns },
  "smaug-bpe": { patterns: LLAMA3.patterns },
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  stablelm2: QWEN2,
  megrez: QWEN2,
  tekken: {
    patterns: [gpt4o({ digits: DIGIT, suffix: "" })],
    ignoreMerges: true,
    addBos: true,
  },
  "gpt-4o": GPT4O,
  llama4: GPT4O,
};
