/**
 * A small byte-level BPE vocabulary and a chat template, enough to serve a synthetic model.
 *
 * @module
 */

/** Control tokens; their ids are their positions. */
export const CONTROL_TOKENS: readonly string[] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/** ChatML. */
export const CHAT_TEMPLATE: string =
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/** Merges in order of rank, in the GPT-2 alphabet, where \u0120 is a space. */
const MERGES: readonly string[] = [
  "\u0120 t",
  "h e",
  "i n",
  "\u0120 a",
  "r e",
  "o n",
  "\u0120t he",
  "e r",
  "\u0120 s",
  "a t",
  "\u0120 w",
  "n d",
  "e s",
  "o r",
  "\u0120a nd",
  "in g",
  "\u0120 o",
  "\u0120o f",
  "l l",
  "\u0120t o",
  "\u010a \u010a",
  "he ll",
  "hell o",
  "u s",
  "us er",
  "a s",
];

/** The character that stands for `byte` in the GPT-2 alphabet. */
function byteCharacter(byte: number): string {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  if (printable) return String.fromCharCode(byte);
  // The others are numbered from 256 on in the order of the bytes: 0-32, 127-160, 173.
  const rank = byte <= 0x20 ? byte : byte === 0xad ? 67 : byte - 0x7f + 33;
  return String.fromCharCode(256 + rank);
}

/** Tokens by id, and merges. */
export interface SyntheticTokenizer {
  /** Text of each token: control tokens, bytes, merged tokens, then unused ones up to the wanted size. */
  readonly tokens: readonly string[];
  /** `tokenizer.ggml.token_type` of each token. */
  readonly types: readonly number[];
  /** Merges in order of rank. */
  readonly merges: readonly string[];
}

/** Tokens without unused ones. */
export const MINIMUM_VOCABULARY: number = CONTROL_TOKENS.length + 256 + usableMerges().length;

/** The merges whose parts exist by then. */
function usableMerges(): string[] {
  const known = new Set(Array.from({ length: 256 }, (_, byte) => byteCharacter(byte)));
  return MERGES.filter((merge) => {
    const [left, right] = merge.split(" ");
    if (!known.has(left) || !known.has(right) || known.has(left + right)) return false;
    known.add(left + right);
    return true;
  });
}

/** A vocabulary of `vocab` tokens, at least {@linkcode MINIMUM_VOCABULARY}. @throws {RangeError} */
export function syntheticTokenizer(vocab: number = MINIMUM_VOCABULARY): SyntheticTokenizer {
  if (vocab < MINIMUM_VOCABULARY) {
    throw new RangeError(`Cannot make a tokenizer: wanted at least ${MINIMUM_VOCABULARY} tokens, got ${vocab}`);
  }
  const merges = usableMerges();
  const words = [
    ...Array.from({ length: 256 }, (_, byte) => byteCharacter(byte)),
    ...merges.map((merge) => merge.replace(" ", "")),
  ];
  const unused = Array.from({ length: vocab - MINIMUM_VOCABULARY }, (_, index) => `[PAD${index}]`);
  return {
    tokens: [...CONTROL_TOKENS, ...words, ...unused],
    types: [...CONTROL_TOKENS.map(() => 3), ...words.map(() => 1), ...unused.map(() => 5)],
    merges,
  };
}
