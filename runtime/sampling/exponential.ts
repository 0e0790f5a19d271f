/**
 * exp(-x) for x >= 0, fast enough to weigh a whole vocabulary per token.
 *
 * @module
 */

const STEPS = 1024;
const STEPS_PER_UNIT = STEPS / Math.LN2;
const UNITS_PER_STEP = Math.LN2 / STEPS;
const FRACTIONS = Float64Array.from({ length: STEPS }, (_, i) => 2 ** (-i / STEPS));
const POWERS = Float64Array.from({ length: 1100 }, (_, i) => 2 ** -i);
/** exp(-x) is below the least positive number from here on. */
const UNDERFLOW = 746;

/**
 * exp(-x) for x >= 0 within a relative error of 1e-12; 0 where it underflows (x above 746, Infinity included); NaN for
 * NaN.
 */
export function expOfMinus(x: number): number {
  if (x >= UNDERFLOW) return 0;
  // x = (1024 p + f) ln 2 / 1024 + r, hence exp(-x) = 2^-p 2^(-f/1024) exp(-r) with 0 <= r < 0.00068.
  const steps = (x * STEPS_PER_UNIT) | 0;
  const r = x - steps * UNITS_PER_STEP;
  const series = 1 - r * (1 - r * (0.5 - r * (1 / 6 - r * (1 / 24))));
  return FRACTIONS[steps & (STEPS - 1)] * POWERS[steps >> 10] * series;
}
