/**
 * Reference outputs of SmolLM2-135M-Instruct Q4_1, made by an independent f32 implementation of the same quantised
 * weights (see `tests/testdata/golden/README.md`).
 *
 * @module
 */

/** Log-probabilities at chosen positions of one prompt. */
export interface LogitsCase {
  /** What the prompt is. */
  readonly name: string;
  /** Prompt ids, no BOS. */
  readonly ids: number[];
  /** Checked positions. */
  readonly positions: readonly {
    readonly pos: number;
    readonly lse: number;
    readonly margin: number;
    readonly top: readonly (readonly [id: number, logprob: number])[];
    readonly probe: readonly number[];
  }[];
}

/** One greedy continuation. */
export interface GreedyCase {
  /** Rendered and tokenized chat. */
  readonly prompt_ids: number[];
  /** 64 continuation ids, end tokens ignored. */
  readonly ids: number[];
  /** Largest logit minus the second, per step. */
  readonly margin: number[];
  /** Log-probability of the chosen id, per step. */
  readonly logprob: number[];
}

/** One scored text. */
export interface PerplexityCase {
  /** What the text is. */
  readonly name: string;
  /** Token ids, no BOS. */
  readonly ids: number[];
  /** Log-probability of `ids[i + 1]` given all before. */
  readonly token_logprob: number[];
  /** Mean negative log-probability. */
  readonly mean_nll: number;
}

function read<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`../testdata/golden/${name}.json`, import.meta.url)));
}

/** Logits cases and the vocabulary ids whose raw logits they hold. */
export function readLogits(): { vocab_probe_ids: number[]; cases: LogitsCase[] } {
  return read("logits");
}

/** Greedy cases. */
export function readGreedy(): GreedyCase[] {
  return read<{ cases: GreedyCase[] }>("greedy").cases;
}

/** Scored texts. */
export function readPerplexity(): PerplexityCase[] {
  return read<{ cases: PerplexityCase[] }>("perplexity").cases;
}
