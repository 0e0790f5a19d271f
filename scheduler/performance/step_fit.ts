/**
 * Fits T(b, S) = W(b)/f(b) + S/g(S) to timed steps: a polyline over the batch plus a constant time for each token attended.
 *
 * @module
 */
import { NormalEquations } from "./least_squares.ts";
import type { StepSample } from "./step_samples.ts";

/** Times of a step of one instance. */
export interface StepTimes {
  /** Corners of the polyline: batch sizes that were measured, ascending. */
  readonly batch: readonly number[];
  /** Time of everything but attention at each corner, ms. */
  readonly batchMs: readonly number[];
  /** Attention, ms for each thousand tokens. */
  readonly attentionMs: number;
}

/** Steps after which a sample counts half. */
const HALF_LIFE_STEPS = 512;
/** What the oldest sample counts at least: it may be all there is of its kind. */
const LEAST_WEIGHT = 0.02;
/** Samples that make a batch size a corner, and what its distance to the next one is at least. */
const CORNER_SAMPLES = 3;
const CORNER_RATIO = 1.4;
/** Rounds of weighing outliers down. */
const ROUNDS = 8;
/** Tukey's constant: 95 % as good as plain least squares on normal noise. */
const TUKEY = 4.685;
/** Deviations below this part of the time are never outliers: clocks are no better. */
const LEAST_SCALE = 0.002;
/** Part of the variation of the context that must not be explained by the batch, so that the two can be told apart. */
const DISTINCT = 1e-3;

/**
 * Fits the samples. Relative deviations count, recent samples more than old ones, and outliers (Tukey's bisquare on the
 * median deviation) not at all.
 *
 * @param steps Steps seen so far, for the age of the samples.
 * @returns undefined when the samples do not determine the times: too few, or contexts that do not vary.
 */
export function fitSteps(samples: readonly StepSample[], steps: number): StepTimes | undefined {
  const corners = cornersOf(samples);
  if (corners.length === 0) return undefined;
  const used = samples.filter(({ batch }) => batch >= corners[0] && batch <= corners[corners.length - 1]);
  const ages = used.map(({ step }) => Math.max(LEAST_WEIGHT, 2 ** ((step - steps) / HALF_LIFE_STEPS)));
  const rows = used.map(({ batch, contextTokens, ms }) => ({ hat: hatOf(corners, batch), contextTokens, ms }));
  let weights = used.map(({ ms }, i) => ages[i] / ms ** 2);
  let times = solve(rows, { corners, weights });
  for (let round = 1; round < ROUNDS; round++) {
    const fitted = times;
    if (fitted === undefined) return undefined;
    const predicted = used.map((sample) => stepMs(fitted, sample));
    const deviations = used.map(({ ms }, i) => Math.abs(ms - predicted[i]) / predicted[i]);
    const scale = Math.max(LEAST_SCALE, 1.4826 * weightedMedian(deviations, ages));
    weights = used.map((_, i) => {
      const part = deviations[i] / (TUKEY * scale);
      return part < 1 ? ages[i] * (1 - part ** 2) ** 2 / predicted[i] ** 2 : 0;
    });
    times = solve(rows, { corners, weights });
  }
  return times;
}

/**
 * Time of a step, ms. Beyond the outer corners the line between the nearest two goes on, unless it falls; a single corner
 * stands for all batch sizes.
 */
export function stepMs(
  { batch: corners, batchMs, attentionMs }: StepTimes,
  { batch, contextTokens }: { readonly batch: number; readonly contextTokens: number },
): number {
  const last = corners.length - 1;
  const inside = Math.min(Math.max(batch, corners[0]), corners[last]);
  let ms = hatOf(corners, inside).reduce((sum, [corner, part]) => sum + part * batchMs[corner], 0);
  if (inside !== batch && last > 0) {
    const [left, right] = batch < inside ? [0, 1] : [last - 1, last];
    const slope = (batchMs[right] - batchMs[left]) / (corners[right] - corners[left]);
    ms += Math.max(0, slope) * (batch - inside);
  }
  return Math.max(Number.MIN_VALUE, ms) + attentionMs * contextTokens / 1000;
}

/** Batch sizes with enough samples, some distance apart, the largest included. */
function cornersOf(samples: readonly StepSample[]): readonly number[] {
  const counts = new Map<number, number>();
  for (const { batch } of samples) counts.set(batch, (counts.get(batch) ?? 0) + 1);
  const measured = [...counts].filter(([, count]) => count >= CORNER_SAMPLES).map(([batch]) => batch)
    .sort((a, b) => b - a);
  const corners: number[] = [];
  for (const batch of measured) {
    const above = corners.at(-1);
    if (above === undefined || batch * CORNER_RATIO <= above) corners.push(batch);
  }
  return corners.reverse();
}

/** The corners around a batch that lies between the first and the last, with the part of each. */
function hatOf(corners: readonly number[], batch: number): readonly (readonly [corner: number, part: number])[] {
  if (corners.length === 1) return [[0, 1]];
  const above = corners.findIndex((corner, i) => i > 0 && (corner >= batch || i === corners.length - 1));
  const part = (batch - corners[above - 1]) / (corners[above] - corners[above - 1]);
  return [[above - 1, 1 - part], [above, part]];
}

/** A sample with its place on the polyline. */
interface Row {
  readonly hat: readonly (readonly [corner: number, part: number])[];
  readonly contextTokens: number;
  readonly ms: number;
}

function solve(
  rows: readonly Row[],
  { corners, weights }: { readonly corners: readonly number[]; readonly weights: readonly number[] },
): StepTimes | undefined {
  const attempt = (withAttention: boolean): readonly (number | undefined)[] => {
    const equations = new NormalEquations(corners.length + 1);
    rows.forEach(({ hat, contextTokens, ms }, i) => {
      if (weights[i] === 0) return;
      const attention = withAttention ? [[corners.length, contextTokens / 1000] as const] : [];
      equations.add([...hat, ...attention], { value: ms, weight: weights[i] });
    });
    return equations.solve(DISTINCT);
  };
  let solution = attempt(true);
  const attentionMs = solution[corners.length];
  if (attentionMs === undefined) return undefined;
  // More context never makes a step faster: what says so is noise.
  if (attentionMs < 0) solution = attempt(false);
  const known = [...corners.keys()].filter((i) => solution[i] !== undefined);
  if (known.length === 0) return undefined;
  return {
    batch: known.map((i) => corners[i]),
    batchMs: known.map((i) => Math.max(0, solution[i] ?? 0)),
    attentionMs: Math.max(0, attentionMs),
  };
}

function weightedMedian(values: readonly number[], weights: readonly number[]): number {
  const order = [...values.keys()].sort((a, b) => values[a] - values[b]);
  let left = weights.reduce((sum, weight) => sum + weight, 0) / 2;
  for (const i of order) {
    left -= weights[i];
    if (left <= 0) return values[i];
  }
  return 0;
}
