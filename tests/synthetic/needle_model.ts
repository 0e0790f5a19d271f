/**
 * A LLaMA-shaped model with constructed weights that follows pointers: whatever stands between, the token after `ask(i)` is
 * `ask(j)` if `needle(i, j)` stands anywhere before. So one prompt with one needle for each key, asked for the first of
 * them, is answered with all of them in the order of the chain, each found at its own depth.
 *
 * How: one layer, one head. A needle's key and a question's query are the same unit vector, so their score is
 * {@linkcode MATCH_SCORE}, all others are at most a quarter of that. exp(score - MATCH_SCORE) is 0 in f32 then, however many
 * others there are: the attention is one-hot and its output is exactly the needle's value, which the output projection
 * turns into the next question. Only two dimensions of the head are rotated, and in those keys and queries are 0, so
 * positions make no difference. The MLP is 0.
 *
 * @module
 */
import { type GgufTensor, writeGguf } from "./gguf_writer.ts";
import { quantize } from "./quantize.ts";
import { Random } from "../simulation/random.ts";
import { withDefaults } from "./spec.ts";
import { ggufMetadata } from "./synthetic_gguf.ts";
import { MINIMUM_VOCABULARY } from "./tokenizer.ts";

/** Keys, and values: as many as the head has dimensions that are not rotated. */
export const NEEDLE_KEYS = 24;

/** Score of a question and its needle: e to the power of minus three quarters of it is 0 in f32. */
export const MATCH_SCORE = 160;

const HEAD_DIM = 32;
/** The first dimensions of a head are rotated. */
const ROTATED = 2;
const FIRST_CODE = HEAD_DIM - NEEDLE_KEYS;
const HIDDEN = 128;
/** Where the parts of the residual stream begin. */
const KEY = 0;
const VALUE = NEEDLE_KEYS;
const QUESTION = 2 * NEEDLE_KEYS;
const NEXT = 3 * NEEDLE_KEYS;
const BIAS = 4 * NEEDLE_KEYS;
/** Share of a needle's key in that of hay. */
const HAY_KEY = 0.25;

const FIRST_NEEDLE = MINIMUM_VOCABULARY;
const FIRST_QUESTION = FIRST_NEEDLE + NEEDLE_KEYS * NEEDLE_KEYS;
const VOCAB = FIRST_QUESTION + NEEDLE_KEYS;
/** Control tokens come first and are no hay. */
const FIRST_HAY = 3;

/** Token that says: after the question for `key` comes the question for `value`. */
export function needle(key: number, value: number): number {
  return FIRST_NEEDLE + key * NEEDLE_KEYS + value;
}

/** Token that asks for `key`. */
export function ask(key: number): number {
  return FIRST_QUESTION + key;
}

/** A prompt and what must follow. */
export interface Haystack {
  /** Prompt: hay, one needle for each key, and a question at its end. */
  readonly prompt: readonly number[];
  /** The {@linkcode NEEDLE_KEYS} tokens that must follow. */
  readonly answer: readonly number[];
  /** Positions of the needles in the order in which the answer finds them. */
  readonly positions: readonly number[];
}

/**
 * Hides the needles of a chain through all keys at `depths`, from 0 (the first token) to 1 (just before the question).
 *
 * @throws {RangeError} when there is not one depth for each key, or two fall on the same token.
 */
export function hideNeedles(
  { length, depths, seed }: { readonly length: number; readonly depths: readonly number[]; readonly seed: number },
): Haystack {
  const random = new Random(seed);
  const places = depths.map((depth) => Math.round(depth * (length - 2)));
  if (places.length !== NEEDLE_KEYS || new Set(places).size !== NEEDLE_KEYS) {
    throw new RangeError(`Cannot hide needles: wanted ${NEEDLE_KEYS} different depths, got ${places}`);
  }
  const prompt = Array.from({ length }, () => random.integer(FIRST_HAY, FIRST_NEEDLE - 1));
  const chain = random.shuffle(places.map((_, key) => key));
  const hidden = random.shuffle(places);
  const next = (at: number) => chain[(at + 1) % NEEDLE_KEYS];
  for (const [at, key] of chain.entries()) prompt[hidden[at]] = needle(key, next(at));
  prompt[length - 1] = ask(chain[0]);
  return { prompt, answer: chain.map((_, at) => ask(next(at))), positions: hidden };
}

/** The model as a GGUF file, for contexts of up to `contextLength` tokens. */
export function buildNeedleModel({ contextLength }: { readonly contextLength: number }): Uint8Array {
  const spec = withDefaults({
    layers: 1,
    hidden: HIDDEN,
    heads: 1,
    kvHeads: 1,
    headDim: HEAD_DIM,
    intermediate: 32,
    vocab: VOCAB,
    contextLength,
    // Norms of constructed states are far above it.
    normEps: 1e-9,
    tied: false,
    ropeDimensions: ROTATED,
  });
  const tensors = weights(spec.intermediate).map(({ name, rows, cols, values }): GgufTensor => ({
    name,
    dimensions: rows === undefined ? [cols] : [cols, rows],
    type: 0,
    data: quantize("F32", values),
  }));
  return writeGguf({ metadata: ggufMetadata(spec), tensors });
}

interface NeedleWeight {
  readonly name: string;
  /** Undefined for a vector. */
  readonly rows?: number;
  readonly cols: number;
  readonly values: Float32Array;
}

function weights(intermediate: number): NeedleWeight[] {
  const ones = (name: string): NeedleWeight => ({ name, cols: HIDDEN, values: new Float32Array(HIDDEN).fill(1) });
  const zeros = (name: string, rows: number, cols: number) => matrix(name, { rows, cols, entries: [] });
  const keys = Array.from({ length: NEEDLE_KEYS }, (_, key) => key);
  // A token of norm 2 has states of the square root of HIDDEN / 2 after normalisation, one of norm 1 of that of HIDDEN.
  const needleState = Math.sqrt(HIDDEN / 2);
  const questionState = Math.sqrt(HIDDEN);
  const queryGain = MATCH_SCORE * Math.sqrt(HEAD_DIM) / (needleState * questionState);
  return [
    embedding(),
    ones("blk.0.attn_norm.weight"),
    matrix("blk.0.attn_q.weight", {
      rows: HEAD_DIM,
      cols: HIDDEN,
      entries: keys.map((key) => [FIRST_CODE + key, QUESTION + key, queryGain]),
    }),
    matrix("blk.0.attn_k.weight", {
      rows: HEAD_DIM,
      cols: HIDDEN,
      entries: keys.map((key) => [FIRST_CODE + key, KEY + key, 1]),
    }),
    matrix("blk.0.attn_v.weight", {
      rows: HEAD_DIM,
      cols: HIDDEN,
      entries: keys.map((value) => [FIRST_CODE + value, VALUE + value, 1]),
    }),
    matrix("blk.0.attn_output.weight", {
      rows: HIDDEN,
      cols: HEAD_DIM,
      entries: keys.map((value) => [NEXT + value, FIRST_CODE + value, 1]),
    }),
    ones("blk.0.ffn_norm.weight"),
    zeros("blk.0.ffn_gate.weight", intermediate, HIDDEN),
    zeros("blk.0.ffn_up.weight", intermediate, HIDDEN),
    zeros("blk.0.ffn_down.weight", HIDDEN, intermediate),
    ones("output_norm.weight"),
    matrix("output.weight", {
      rows: VOCAB,
      cols: HIDDEN,
      entries: keys.map((value) => [ask(value), NEXT + value, 4]),
    }),
  ];
}

function embedding(): NeedleWeight {
  const entries: Entry[] = [];
  for (let hay = 0; hay < FIRST_NEEDLE; hay++) {
    entries.push([hay, KEY + hay % NEEDLE_KEYS, HAY_KEY], [hay, BIAS, Math.sqrt(2 - HAY_KEY ** 2)]);
  }
  for (let key = 0; key < NEEDLE_KEYS; key++) {
    for (let value = 0; value < NEEDLE_KEYS; value++) {
      entries.push([needle(key, value), KEY + key, 1], [needle(key, value), VALUE + value, 1]);
    }
    entries.push([ask(key), QUESTION + key, 1]);
  }
  return matrix("token_embd.weight", { rows: VOCAB, cols: HIDDEN, entries });
}

/** Row, column, value. */
type Entry = readonly [row: number, col: number, value: number];

function matrix(
  name: string,
  { rows, cols, entries }: { readonly rows: number; readonly cols: number; readonly entries: readonly Entry[] },
): NeedleWeight {
  const values = new Float32Array(rows * cols);
  for (const [row, col, value] of entries) values[row * cols + col] = value;
  return { name, rows, cols, values };
}
