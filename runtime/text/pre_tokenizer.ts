/**
 * Splits text into the pieces that a tokenizer model encodes one by one. Regular expressions are translated by the
 * tokenizer library; the steps themselves are written here because the library's differ from the reference
 * implementation (its digits are ASCII only, its whitespace is JavaScript's, `MergedWithPrevious` splits in isolation).
 *
 * @module
 */
import { SequencePreTokenizer, SplitPreTokenizer } from "@huggingface/tokenizers";
import { checkPattern } from "./pattern_check.ts";
import { type JsonNode, nodesOf, optionalNode } from "./tokenizer_json.ts";

/** Cuts each piece further. `first` says whether the pieces are the beginning of the text. */
type Step = (pieces: string[], first: boolean) => string[];

const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const BEHAVIOURS = ["Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext"] as const;

type Behaviour = typeof BEHAVIOURS[number];

/** Splits text as the `pre_tokenizer` of a tokenizer file says. */
export class PreTokenizer {
  readonly #steps: readonly Step[];

  /**
   * Builds the steps.
   *
   * @throws {RangeError} when a pattern is dangerous.
   * @throws {TypeError} when a step is not supported.
   */
  constructor(node: JsonNode | undefined) {
    this.#steps = nodesOf(node, "pretokenizers").map(stepOf);
  }

  /** Pieces of `text`, in order. */
  split(text: string, first: boolean): string[] {
    return this.#steps.reduce((pieces, step) => step(pieces, first), [text]);
  }
}

function stepOf(node: JsonNode): Step {
  switch (node.type) {
    case "ByteLevel": {
      const split = node.use_regex === false ? undefined : splitStep(regex(GPT2), "Isolated");
      if (node.add_prefix_space !== true) return split ?? ((pieces) => pieces);
      const prefix = (piece: string) => piece.startsWith(" ") ? piece : ` ${piece}`;
      return (pieces, first) => {
        const prefixed = pieces.map(prefix);
        return split === undefined ? prefixed : split(prefixed, first);
      };
    }
    case "Digits":
      return splitStep(regex(node.individual_digits === true ? String.raw`\p{N}` : String.raw`\p{N}+`), "Isolated");
    case "Metaspace":
      return metaspaceStep(node);
    case "Split": {
      const pattern = optionalNode(node.pattern, "pre_tokenizer pattern") ?? {};
      const behaviour = BEHAVIOURS.find((name) => name.toLowerCase() === String(node.behavior).toLowerCase());
      if (behaviour === undefined) {
        throw new TypeError(`Cannot build tokenizer: split behaviour ${String(node.behavior)} is not known`);
      }
      const compiled = typeof pattern.String === "string" ? literal(pattern.String) : regex(String(pattern.Regex));
      return splitStep(compiled, behaviour, node.invert === true);
    }
    default: {
      const library = new SequencePreTokenizer(JSON.parse(JSON.stringify({ type: "Sequence", pretokenizers: [node] })));
      return (pieces) => library.pre_tokenize(pieces);
    }
  }
}

function regex(source: string): RegExp {
  checkPattern(source);
  const { pattern } = new SplitPreTokenizer({
    type: "Split",
    pattern: { Regex: source },
    behavior: "Isolated",
    invert: false,
  });
  if (pattern === null) throw new TypeError(`Cannot build tokenizer: pattern ${source} did not compile`);
  return pattern;
}

function literal(text: string): RegExp {
  return new RegExp(RegExp.escape(text), "gu");
}

function metaspaceStep(node: JsonNode): Step {
  const mark = typeof node.replacement === "string" && node.replacement !== "" ? node.replacement : "\u2581";
  const scheme = node.prepend_scheme ?? (node.add_prefix_space === false ? "never" : "always");
  const split = node.split === false ? undefined : splitStep(literal(mark), "MergedWithNext");
  return (pieces, first) => {
    const marked = pieces.map((piece) => {
      const text = piece.replaceAll(" ", mark);
      const prepend = scheme === "always" || (scheme === "first" && first);
      return prepend && !text.startsWith(mark) ? mark + text : text;
    });
    return split === undefined ? marked : split(marked, first);
  };
}

function splitStep(pattern: RegExp, behaviour: Behaviour, invert = false): Step {
  return (pieces) => {
    const out: string[] = [];
    for (const piece of pieces) {
      let end = 0;
      let previousMatched = false;
      const emit = (text: string, matched: boolean) => {
        if (text === "") return;
        const join = (behaviour === "Contiguous" && matched === previousMatched && end > 0) ||
          (behaviour === "MergedWithPrevious" && matched && !previousMatched && end > 0) ||
          (behaviour === "MergedWithNext" && !matched && previousMatched);
        if (join) out[out.length - 1] += text;
        else if (behaviour !== "Removed" || !matched) out.push(text);
        previousMatched = matched;
        end += text.length;
      };
      for (const match of piece.matchAll(pattern)) {
        emit(piece.slice(end, match.index), invert);
        emit(match[0], !invert);
      }
      emit(piece.slice(end), invert);
    }
    return out;
  };
}
