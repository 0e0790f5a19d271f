/**
 * What vLLM 0.26.0 with its FlashAttention-3 reached on one NVIDIA H200 (bf16, random data, medians): fixed figures, for it
 * does not run beside us.
 *
 * @module
 */

/** Read ceiling of that H200, bytes a second. */
export const VLLM_READ_CEILING = 4.69e12;

/** Figures of one shape. */
export interface VllmFigures {
  /** Milliseconds of a decode step, by `batch x context`. */
  readonly decodeMs: Readonly<Record<string, number>>;
  /** Prompt tokens a second, by the prompt's length. */
  readonly prefill: Readonly<Record<number, number>>;
  /** Seconds for 256 requests of 1,024 tokens in and 256 out, without HTTP. */
  readonly servingSeconds: number;
}

/** By name of the shape. */
export const VLLM: Readonly<Record<string, VllmFigures>> = {
  "llama2-7b": {
    decodeMs: {
      "1 x 128": 4.565,
      "1 x 1024": 4.686,
      "1 x 8192": 5.599,
      "1 x 65536": 12.439,
      "1 x 122880": 19.242,
      "32 x 1024": 9.165,
      "64 x 1024": 13.902,
      "128 x 1024": 23.598,
    },
    prefill: { 8192: 39_784, 65_536: 20_025 },
    servingSeconds: 19.8,
  },
  "llama3-8b": {
    decodeMs: {
      "1 x 128": 4.935,
      "1 x 1024": 5.026,
      "1 x 8192": 5.286,
      "1 x 65536": 7.077,
      "1 x 122880": 8.735,
      "32 x 1024": 6.324,
      "64 x 1024": 7.686,
      "128 x 1024": 10.598,
    },
    prefill: { 8192: 37_658, 65_536: 19_815 },
    servingSeconds: 10.85,
  },
  "smollm2-135m": {
    decodeMs: { "1 x 128": 1.603, "1 x 256": 1.59, "64 x 256": 3.277, "128 x 256": 3.94 },
    prefill: { 8192: 488_988 },
    servingSeconds: 1.6,
  },
};
