// Cosine and sine of the angle of a position, times a factor: right to f32 at every position below 2^32.
//
// The angle and its reduction to [-pi / 4, pi / 4] are f64 (the multiple of pi / 2 is taken off in two parts, exact to 2^-100 of
// itself), the series too.
#pragma once
#include "elements.cuh"

// `inverse` are the radians per token, at most 1.
__device__ __forceinline__ float2 turn_of(u32 position, double inverse, float magnitude) {
  const double angle = (double)position * inverse;
  const double quarters = rint(angle * 0.63661977236758134308);
  double r = fma(-quarters, 1.57079632679489661923, angle);
  r = fma(-quarters, 6.12323399573676603587e-17, r);
  const double s = r * r;
  // Taylor to r^17 and r^16: the first term left out is below 2^-60.
  double sine = 1.0 / 355687428096000.0;
  sine = fma(sine, s, -1.0 / 1307674368000.0);
  sine = fma(sine, s, 1.0 / 6227020800.0);
  sine = fma(sine, s, -1.0 / 39916800.0);
  sine = fma(sine, s, 1.0 / 362880.0);
  sine = fma(sine, s, -1.0 / 5040.0);
  sine = fma(sine, s, 1.0 / 120.0);
  sine = fma(sine, s, -1.0 / 6.0);
  sine = fma(sine * s, r, r);
  double cosine = 1.0 / 20922789888000.0;
  cosine = fma(cosine, s, -1.0 / 87178291200.0);
  cosine = fma(cosine, s, 1.0 / 479001600.0);
  cosine = fma(cosine, s, -1.0 / 3628800.0);
  cosine = fma(cosine, s, 1.0 / 40320.0);
  cosine = fma(cosine, s, -1.0 / 720.0);
  cosine = fma(cosine, s, 1.0 / 24.0);
  cosine = fma(cosine, s, -0.5);
  cosine = fma(cosine, s, 1.0);
  // 2^32 quarter turns are more than a position below 2^32 and a frequency of at most 1 can make.
  const u32 quadrant = (u32)(long long)quarters % 4;
  const double c = quadrant % 2 == 0 ? cosine : sine;
  const double q = quadrant % 2 == 0 ? sine : cosine;
  const double factor = magnitude;
  return make_float2(
      (float)((quadrant == 1 || quadrant == 2 ? -c : c) * factor), (float)((quadrant >= 2 ? -q : q) * factor));
}
