/**
 * Inverse frequencies of rotary embeddings, with context-extension scaling applied, in f64.
 *
 * RoPE: Su et al. 2021. Linear (position interpolation): Chen et al. 2023. YaRN: Peng et al. 2023. llama3: the scheme
 * of Llama 3.1.
 *
 * @module
 */
import type { RopeConfig } from "./model.ts";

/** How the trained frequencies are stretched to a longer context. */
export type RopeScaling =
  | { readonly kind: "none" }
  | {
    readonly kind: "linear";
    /** Context stretch; every frequency is divided by it. */
    readonly factor: number;
  }
  | {
    readonly kind: "llama3";
    /** Divisor of the low frequencies. */
    readonly factor: number;
    /** Wavelengths above `originalContext / lowFrequencyFactor` are fully stretched. */
    readonly lowFrequencyFactor: number;
    /** Wavelengths below `originalContext / highFrequencyFactor` stay as trained. */
    readonly highFrequencyFactor: number;
    /** Context of the training before the stretch, tokens. */
    readonly originalContext: number;
  }
  | {
    readonly kind: "yarn";
    /** Context stretch. */
    readonly factor: number;
    /** Context of the training before the stretch, tokens. */
    readonly originalContext: number;
    /** Rotations over the original context above which a pair stays as trained. @default {32} */
    readonly betaFast?: number;
    /** Rotations over the original context below which a pair is fully stretched. @default {1} */
    readonly betaSlow?: number;
    /** Factor on cosine and sine. @default {0.1 ln(factor) + 1} */
    readonly attentionFactor?: number;
    /** Whether the ends of the ramp are rounded to whole pairs. @default {true} */
    readonly truncate?: boolean;
  };

/** Everything that determines a {@linkcode RopeConfig}. */
export interface RopeInit {
  /** Rotated dimensions of a head, even. */
  readonly dimensions: number;
  /** Base of the geometric frequency series. */
  readonly theta: number;
  /** How rows of the query and key projections pair up. */
  readonly pairing: RopeConfig["pairing"];
  /** Context extension. @default {{ kind: "none" }} */
  readonly scaling?: RopeScaling;
  /** Divisor of each pair's frequency, `dimensions / 2` values, as `rope_freqs.weight` of a GGUF file holds them. */
  readonly divisors?: ArrayLike<number>;
}

/**
 * Builds the rotary embedding of a model.
 *
 * @throws {RangeError} when a number is not finite and positive, `theta` is not above 1, or `dimensions` is odd.
 */
export function ropeConfig(init: RopeInit): RopeConfig {
  const { dimensions, theta, pairing, scaling = { kind: "none" }, divisors } = init;
  if (!Number.isInteger(dimensions) || dimensions < 2 || dimensions % 2 !== 0) {
    throw new RangeError(`Cannot build RoPE: dimensions must be even and at least 2, got ${dimensions}`);
  }
  if (!(theta > 1 && theta < Infinity)) {
    throw new RangeError(`Cannot build RoPE: theta must be a finite number above 1, got ${theta}`);
  }
  const pairs = dimensions / 2;
  if (divisors !== undefined && divisors.length !== pairs) {
    throw new RangeError(`Cannot build RoPE: wanted ${pairs} frequency divisors, got ${divisors.length}`);
  }
  const inverse = new Float64Array(pairs);
  for (let pair = 0; pair < pairs; pair++) {
    const divisor = divisors?.[pair] ?? 1;
    checkPositive(`divisor ${pair}`, divisor);
    inverse[pair] = Math.pow(theta, (-2 * pair) / dimensions) / divisor;
  }
  const magnitude = scale(inverse, { dimensions, theta, scaling });
  inverse.forEach((frequency, pair) => checkPositive(`frequency ${pair}`, frequency));
  return { dimensions, inverseFrequencies: inverse, magnitude, pairing };
}

function checkPositive(name: string, value: number): void {
  if (!Number.isFinite(value) || value <= 0) {
    throw new RangeError(`Cannot build RoPE: ${name} must be a positive number, got ${value}`);
  }
}

/** Scales `inverse` in place and returns the magnitude. */
function scale(
  inverse: Float64Array,
  { dimensions, theta, scaling }: {
    readonly dimensions: number;
    readonly theta: number;
    readonly scaling: RopeScaling;
  },
): number {
  switch (scaling.kind) {
    case "none":
      return 1;
    case "linear":
      checkPositive("factor", scaling.factor);
      for (let pair = 0; pair < inverse.length; pair++) inverse[pair] /= scaling.factor;
      return 1;
    case "llama3":
      scaleLlama3(inverse, scaling);
      return 1;
    case "yarn":
      return scaleYarn(inverse, { dimensions, theta, scaling });
    default:
      return scaling satisfies never;
  }
}

function scaleLlama3(inverse: Float64Array, scaling: RopeScaling & { readonly kind: "llama3" }): void {
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalContext } = scaling;
  checkPositive("factor", factor);
  checkPositive("low frequency factor", lowFrequencyFactor);
  checkPositive("original context", originalContext);
  if (!(highFrequencyFactor > lowFrequencyFactor)) {
    throw new RangeError(
      `Cannot build RoPE: high frequency factor must exceed ${lowFrequencyFactor}, got ${highFrequencyFactor}`,
    );
  }
  for (let pair = 0; pair < inverse.length; pair++) {
    const rotations = (originalContext * inverse[pair]) / (2 * Math.PI);
    // 0 below the low bound (fully stretched), 1 above the high bound (as trained), linear between.
    const kept = clamp01((rotations - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor));
    inverse[pair] = (1 - kept) * (inverse[pair] / factor) + kept * inverse[pair];
  }
}

function scaleYarn(
  inverse: Float64Array,
  { dimensions, theta, scaling }: {
    readonly dimensions: number;
    readonly theta: number;
    readonly scaling: RopeScaling & { readonly kind: "yarn" };
  },
): number {
  const { factor, originalContext, betaFast = 32, betaSlow = 1, truncate = true } = scaling;
  checkPositive("factor", factor);
  checkPositive("original context", originalContext);
  checkPositive("beta fast", betaFast);
  checkPositive("beta slow", betaSlow);
  // Pair at which the rotation count over the original context equals `rotations`.
  const pairAt = (rotations: number) =>
    (dimensions * Math.log(originalContext / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const first = pairAt(betaFast);
  const last = pairAt(betaSlow);
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, dimensions - 1);
  const width = low === high ? 0.001 : high - low;
  for (let pair = 0; pair < inverse.length; pair++) {
    const stretched = clamp01((pair - low) / width);
    inverse[pair] = stretched * (inverse[pair] / factor) + (1 - stretched) * inverse[pair];
  }
  const magnitude = scaling.attentionFactor ?? yarnAttentionFactor(factor);
  checkPositive("attention factor", magnitude);
  return magnitude;
}

/** YaRN's factor on cosine and sine for a stretch of `factor` (section 3.4 of the paper: 0.1 ln s + 1). */
export function yarnAttentionFactor(factor: number, weight = 1): number {
  return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;
}

function clamp01(value: number): number {
  return Math.min(1, Math.max(0, value));
}
