/**
 * Reader of the golden attention file, for tests: model-free cases computed in f64 by an independent implementation.
 *
 * @module
 */

/** Numbers as stored: infinities are strings. */
export type StoredNumber = number | "-inf" | "inf";

/** One range of a shape. */
export interface GoldenRange {
  /** Tokens [from, to). */
  readonly range: readonly [number, number];
  /** Values of o at the case's `probe_index`. */
  readonly o_probe: readonly number[];
  /** All lse values, [batch, heads]. */
  readonly lse: readonly StoredNumber[];
}

/** A shape whose inputs come from {@linkcode goldenInput}. */
export interface GoldenCase {
  /** Batch rows. */
  readonly batch: number;
  /** Query heads. */
  readonly q_heads: number;
  /** Key and value heads. */
  readonly kv_heads: number;
  /** Width of a head. */
  readonly head_dim: number;
  /** Tokens. */
  readonly kv_len: number;
  /** Factor on the generated queries. */
  readonly q_mul: number;
  /** Seed of the generator. */
  readonly seed: number;
  /** Flat indices into o, [batch, q_heads, head_dim]. */
  readonly probe_index: readonly number[];
  /** The whole and three cuts of it. */
  readonly ranges: readonly GoldenRange[];
}

/** A small case with complete inputs, [batch, heads, tokens, head_dim]. */
export interface GoldenEdge {
  /** What the case is about. */
  readonly name: string;
  /** Batch rows. */
  readonly batch: number;
  /** Query heads. */
  readonly q_heads: number;
  /** Key and value heads. */
  readonly kv_heads: number;
  /** Width of a head. */
  readonly head_dim: number;
  /** Tokens. */
  readonly kv_len: number;
  /** Queries, [batch, q_heads, head_dim]. */
  readonly q: readonly number[];
  /** Keys, [batch, kv_heads, kv_len, head_dim]. */
  readonly k: readonly number[];
  /** Values, as the keys. */
  readonly v: readonly number[];
  /** Added to the scores, [batch, kv_len]. */
  readonly mask?: readonly StoredNumber[];
  /** Expected o. */
  readonly o: readonly number[];
  /** Expected lse. */
  readonly lse: readonly StoredNumber[];
  /** Suggested absolute tolerance for o. */
  readonly tol: number;
}

/** A merge of single rows. */
export interface GoldenMerge {
  /** What the case is about. */
  readonly name: string;
  /** What is merged, in order. */
  readonly parts: readonly { readonly o: readonly number[]; readonly lse: StoredNumber }[];
  /** Expected o. */
  readonly o: readonly number[];
  /** Expected lse. */
  readonly lse: StoredNumber;
}

/** The file. */
export interface GoldenAttention {
  /** Shapes with generated inputs. */
  readonly cases: readonly GoldenCase[];
  /** Small cases with complete inputs. */
  readonly edge: readonly GoldenEdge[];
  /** Merges. */
  readonly merge: readonly GoldenMerge[];
}

/** Reads the golden file. */
export async function readGolden(): Promise<GoldenAttention> {
  return JSON.parse(
    await Deno.readTextFile(new URL("../../tests/testdata/golden/attention.json", import.meta.url)),
  );
}

/** A stored number. */
export function storedNumber(value: StoredNumber): number {
  return typeof value === "number" ? value : value === "inf" ? Infinity : -Infinity;
}

/** Input tensor `tensor` (3 * seed for q, + 1 for k, + 2 for v) of a case: the generator of the golden set. */
export function goldenInput(count: number, tensor: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, (_, i) => {
    const y = Math.sin(i * 12.9898 + tensor * 78.233) * 43758.5453;
    return Math.fround((y - Math.floor(y)) * 2 - 1);
  });
}

/** Tokens [from, to) of one batch row of a [batch, heads, tokens, width] tensor, as [tokens, heads, width]. */
export function tokenMajor(
  tensor: ArrayLike<number>,
  at: { batch: number; heads: number; tokens: number; width: number; keep: readonly number[] },
): Float32Array<ArrayBuffer> {
  const { batch, heads, tokens, width, keep } = at;
  const out = new Float32Array(keep.length * heads * width);
  keep.forEach((token, i) => {
    for (let h = 0; h < heads; h++) {
      for (let d = 0; d < width; d++) {
        out[(i * heads + h) * width + d] = tensor[((batch * heads + h) * tokens + token) * width + d];
      }
    }
  });
  return out;
}
