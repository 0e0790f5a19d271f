/**
 * A model whose attention is exact: what it computes are small integers in float clothes, so that every wrong, missing,
 * stale or doubly counted token of KV gives another answer, and the same tokens give the same answer in any cut.
 *
 * Each token of each layer stores 8 words. A query scores a stored word by hashing the two together: a weight of 1 to 4
 * (head 1; head 0 weighs everything alike, so that its sum of weights is the number of tokens attended to) and four
 * values of 6 bits. A partial is what the contract says: o = Σ weight value / Σ weight, lse = ln Σ weight, in f32, and
 * partials merge by the real formula. The integers come back by rounding: with {@linkcode TOY_MAX_TOKENS} tokens at most
 * the largest sum is 2^18, and f32 keeps it to within a quarter.
 *
 * @module
 */
import type { AttentionPartial } from "../../kernels/merge_partials/spec.ts";
import type { TokenTable } from "../../runtime/text/codec.ts";
import { mix32 } from "./random.ts";

/** Layers. */
export const TOY_LAYERS = 2;
/** Query heads. */
export const TOY_HEADS = 2;
/** Width of a head. */
export const TOY_HEAD_DIM = 4;
/** Values of a row of queries, and of o. */
export const TOY_WIDTH: number = TOY_HEADS * TOY_HEAD_DIM;
/** Words of 32 bits that one token takes in one layer. */
export const TOY_WORDS = 8;
/** Rows of the vocabulary. */
export const TOY_VOCAB = 97;
/** Most tokens one query may attend to, so that rounding stays exact. */
export const TOY_MAX_TOKENS = 1024;

/** Token i is the i-th of 97 characters; the last three ids are control tokens. */
export function toyVocabulary(): TokenTable {
  const texts = Array.from({ length: TOY_VOCAB }, (_, id) => id < 94 ? String.fromCharCode(33 + id) : `<${id}>`);
  const encoder = new TextEncoder();
  const offsets = new Uint32Array(TOY_VOCAB + 1);
  texts.forEach((text, id) => offsets[id + 1] = offsets[id] + encoder.encode(text).length);
  return {
    size: TOY_VOCAB,
    bytes: encoder.encode(texts.join("")),
    offsets,
    special: Uint8Array.from(texts, (_, id) => id < 94 ? 0 : 1),
  };
}

/** State of a token before the first layer. */
export function embed(token: number, position: number): number {
  return mix32(Math.imul(token + 1, 0x9e3779b1) ^ Math.imul(position + 1, 0x85ebca6b));
}

/** What a layer keeps of a token. */
export function keyOf(layer: number, state: number): number {
  return mix32(state ^ Math.imul(layer + 3, 0x27d4eb2f));
}

/** Writes a query row, whole numbers below 2^16 each. */
export function writeQuery(layer: number, state: number, into: Float32Array): void {
  for (let i = 0; i < TOY_WIDTH; i += 2) {
    const bits = mix32(state ^ Math.imul(layer * TOY_WIDTH + i + 11, 0x165667b1));
    into[i] = bits & 0xffff;
    into[i + 1] = bits >>> 16;
  }
}

/**
 * What a head's query asks for.
 *
 * @throws {RangeError} when a value is not what {@linkcode writeQuery} writes.
 */
export function queryOf(values: Float32Array, at: number): number {
  let hash = 0;
  for (let i = 0; i < TOY_HEAD_DIM; i++) {
    const value = values[at + i];
    if (!Number.isInteger(value) || value < 0 || value > 0xffff) {
      throw new RangeError(`Cannot read a query: wanted whole numbers from 0 to 65535, got ${value}`);
    }
    hash = mix32(hash ^ value ^ Math.imul(i + 1, 0x9e3779b1));
  }
  return hash;
}

/** Integer sums of one query head over tokens, in any order. */
export class ToySum {
  /** Σ weight. */
  weight = 0;
  /** Σ weight value, by value. */
  readonly values: Float64Array = new Float64Array(TOY_HEAD_DIM);

  /** Attends to one more token. */
  add(head: number, query: number, key: number): void {
    const bits = mix32(query ^ key);
    const weight = head === 0 ? 1 : 1 + (bits >>> 30);
    this.weight += weight;
    for (let i = 0; i < TOY_HEAD_DIM; i++) this.values[i] += weight * ((bits >>> (6 * i)) & 63);
  }

  /** Starts again. */
  clear(): void {
    this.weight = 0;
    this.values.fill(0);
  }

  /** Writes it as row `row` of a partial. */
  store({ o, lse }: AttentionPartial, row: number): void {
    lse[row] = Math.log(this.weight);
    for (let i = 0; i < TOY_HEAD_DIM; i++) {
      o[row * TOY_HEAD_DIM + i] = this.weight === 0 ? 0 : this.values[i] / this.weight;
    }
  }

  /**
   * Reads it back from row `row` of a partial.
   *
   * @throws {RangeError} when the row does not hold whole numbers.
   */
  load({ o, lse }: AttentionPartial, row: number): void {
    const weight = Math.exp(lse[row]);
    this.weight = Math.round(weight);
    let worst = Math.abs(weight - this.weight);
    for (let i = 0; i < TOY_HEAD_DIM; i++) {
      const value = o[row * TOY_HEAD_DIM + i] * this.weight;
      this.values[i] = Math.round(value);
      worst = Math.max(worst, Math.abs(value - this.values[i]));
    }
    if (!(worst < 0.3)) throw new RangeError(`Cannot read a partial: it is ${worst} off the whole numbers`);
  }
}

/** State of a token after a layer, given its heads' sums. */
export function advanceState(state: number, sums: readonly ToySum[]): number {
  let next = state;
  for (const { weight, values } of sums) {
    next = mix32(next ^ weight);
    for (const value of values) next = mix32(Math.imul(next, 31) ^ value);
  }
  return next;
}

/** Logits of a state: uniform in [-4, 4). */
export function toyLogits(state: number): Float32Array {
  return Float32Array.from(
    { length: TOY_VOCAB },
    (_, id) => mix32(state ^ Math.imul(id + 1, 0x9e3779b1)) / 2 ** 29 - 4,
  );
}

/** Runs one sequence alone, without blocks, partials or floats. */
export class ToyRun {
  readonly #keys: number[][] = Array.from({ length: TOY_LAYERS }, () => []);
  readonly #sums = Array.from({ length: TOY_HEADS }, () => new ToySum());
  readonly #query = new Float32Array(TOY_WIDTH);

  /** Takes the next token. @returns the state after the last layer. */
  take(token: number): number {
    let state = embed(token, this.#keys[0].length);
    for (let layer = 0; layer < TOY_LAYERS; layer++) {
      const keys = this.#keys[layer];
      keys.push(keyOf(layer, state));
      writeQuery(layer, state, this.#query);
      for (const [head, sum] of this.#sums.entries()) {
        const query = queryOf(this.#query, head * TOY_HEAD_DIM);
        sum.clear();
        for (const key of keys) sum.add(head, query, key);
      }
      state = advanceState(state, this.#sums);
    }
    return state;
  }
}

/** The `count` greedy tokens after `prompt`. */
export function toyGreedy(prompt: ArrayLike<number>, count: number): number[] {
  const run = new ToyRun();
  let state = 0;
  for (let i = 0; i < prompt.length; i++) state = run.take(prompt[i]);
  const tokens: number[] = [];
  while (tokens.length < count) {
    const logits = toyLogits(state);
    const token = logits.indexOf(Math.max(...logits));
    tokens.push(token);
    if (tokens.length < count) state = run.take(token);
  }
  return tokens;
}
