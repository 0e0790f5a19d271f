/**
 * e4m3, the 8-bit floating-point numbers of FP8 KV: a sign, 4 bits of exponent with bias 7, 3 bits of fraction. The largest is
 * 448, the smallest above 0 is 2^-9; there is no infinity, and all ones behind the sign are NaN. Every one is a bf16 and an
 * f16 too.
 *
 * @module
 */

/** The largest number. */
export const MAX_E4M3 = 448;
/** All ones behind the sign. */
const NOT_A_NUMBER = 0x7f;
/** Exponent of the smallest normal number; below it steps stay as they are there. */
const LEAST_EXPONENT = -6;
const FRACTION_BITS = 3;
const BIAS = 7;

/** Bits of the number nearest to a value, ties to even; what is beyond the largest becomes the largest. NaN stays NaN. */
export function e4m3Bits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  if (Number.isNaN(value)) return NOT_A_NUMBER;
  const size = Math.min(Math.abs(value), MAX_E4M3);
  let exponent = LEAST_EXPONENT;
  while (size >= 2 ** (exponent + 1)) exponent++;
  const steps = size / 2 ** (exponent - FRACTION_BITS);
  const below = Math.floor(steps);
  const up = steps - below > 0.5 || (steps - below === 0.5 && below % 2 === 1);
  // A carry out of the fraction goes to the exponent.
  return sign | ((exponent - LEAST_EXPONENT << FRACTION_BITS) + below + (up ? 1 : 0));
}

/** The number of some bits. */
export function e4m3Value(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const size = bits & 0x7f;
  if (size === NOT_A_NUMBER) return NaN;
  const [exponent, fraction] = [size >> FRACTION_BITS, size & 2 ** FRACTION_BITS - 1];
  return exponent === 0
    ? sign * fraction * 2 ** (LEAST_EXPONENT - FRACTION_BITS)
    : sign * (1 + fraction / 2 ** FRACTION_BITS) * 2 ** (exponent - BIAS);
}
