//! Vector building blocks shared by the kernels.

pub use std::arch::wasm32::*;

/// a * b + c, fused where the CPU fuses.
#[inline(always)]
pub fn madd(a: v128, b: v128, c: v128) -> v128 {
    f32x4_relaxed_madd(a, b, c)
}

/// exp(x) for x <= 0 (and a little above), 4 lanes. Cody-Waite reduction and a degree 6 polynomial; below -87.3 the
/// result is exactly 0, so -inf gives 0.
#[inline(always)]
pub fn exp4(x: v128) -> v128 {
    const LOG2E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_375;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let live = f32x4_gt(x, f32x4_splat(-87.3));
    let x = f32x4_max(x, f32x4_splat(-87.3));
    let n = f32x4_nearest(f32x4_mul(x, f32x4_splat(LOG2E)));
    let r = madd(n, f32x4_splat(-LN2_HI), x);
    let r = madd(n, f32x4_splat(-LN2_LO), r);
    let mut p = f32x4_splat(1.388_888_9e-3);
    p = madd(p, r, f32x4_splat(8.333_334e-3));
    p = madd(p, r, f32x4_splat(4.166_666_7e-2));
    p = madd(p, r, f32x4_splat(1.666_666_7e-1));
    p = madd(p, r, f32x4_splat(0.5));
    p = madd(p, r, f32x4_splat(1.0));
    p = madd(p, r, f32x4_splat(1.0));
    let scale = i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23);
    v128_and(f32x4_mul(p, scale), live)
}

/// exp(x) of one value, the same bits as a lane of [`exp4`].
#[inline(always)]
pub fn exp1(x: f32) -> f32 {
    f32x4_extract_lane::<0>(exp4(f32x4_splat(x)))
}

/// (l0 + l1) + (l2 + l3)
#[inline(always)]
pub fn sum4(v: v128) -> f32 {
    (f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v)) + (f32x4_extract_lane::<2>(v) + f32x4_extract_lane::<3>(v))
}
