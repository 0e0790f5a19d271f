//! Vector building blocks shared by the kernels.

use crate::schedule::resident;
pub use std::arch::wasm32::*;

/// a * b + c, fused where the CPU fuses.
#[inline(always)]
pub fn madd(a: v128, b: v128, c: v128) -> v128 {
    f32x4_relaxed_madd(a, b, c)
}

/// Calls `step` for `count` successive positions of `cursor`, four to a turn of the loop; `advance(c, n)` is n positions
/// after c. A branch after each call keeps LLVM from regrouping the steps by accumulator, which would take more
/// registers than there are.
#[inline(always)]
pub fn steps<C: Copy>(count: usize, cursor: C, advance: impl Fn(C, usize) -> C, mut step: impl FnMut(C)) {
    let (mut left, mut at) = (count, cursor);
    while left > 0 {
        step(at);
        if left == 1 {
            return;
        }
        step(advance(at, 1));
        if left == 2 {
            return;
        }
        step(advance(at, 2));
        if left == 3 {
            return;
        }
        step(advance(at, 3));
        left -= 4;
        at = advance(at, 4);
    }
}

/// exp over 4 lanes; make one outside the loop that uses it.
#[derive(Clone, Copy)]
pub struct Exp {
    lowest: v128,
    log2e: v128,
    round: v128,
    ln2_high: v128,
    ln2_low: v128,
    coefficients: [v128; 5],
    one: v128,
}

impl Exp {
    #[inline(always)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let all = |x: f32| resident(f32x4_splat(x));
        Exp {
            lowest: all(-87.3),
            log2e: all(std::f32::consts::LOG2_E),
            // 1.5 * 2^23: adding it rounds to an integer that then stands in the low mantissa bits.
            round: all(12_582_912.0),
            ln2_high: all(-0.693_359_375),
            ln2_low: all(2.121_944_4e-4),
            coefficients: [1.406_127_7e-3, 8.379_021e-3, 4.166_477_8e-2, 1.666_636_5e-1, 0.5].map(all),
            one: all(1.0),
        }
    }

    /// exp(x) for x <= 88, within 2 ulp; exactly 1 at 0. Below -87.3 the result is exactly 0, so -inf gives 0; a quiet NaN
    /// stays NaN. Cody-Waite reduction, minimax polynomial of degree 6 (2.6e-9), exponent added as an integer.
    #[inline(always)]
    pub fn of(&self, x: v128) -> v128 {
        let dead = f32x4_lt(x, self.lowest);
        let t = madd(x, self.log2e, self.round);
        let n = f32x4_sub(t, self.round);
        let r = madd(n, self.ln2_low, madd(n, self.ln2_high, x));
        let c = &self.coefficients;
        let mut p = madd(c[0], r, c[1]);
        p = madd(p, r, c[2]);
        p = madd(p, r, c[3]);
        p = madd(p, r, c[4]);
        p = madd(p, r, self.one);
        p = madd(p, r, self.one);
        v128_andnot(i32x4_add(p, i32x4_shl(t, 23)), dead)
    }
}

/// exp(x), 4 lanes, the same bits as [`Exp::of`].
#[inline(always)]
pub fn exp4(x: v128) -> v128 {
    Exp::new().of(x)
}

/// exp(x) of one value, the same bits as a lane of [`exp4`].
#[inline(always)]
pub fn exp1(x: f32) -> f32 {
    f32x4_extract_lane::<0>(exp4(f32x4_splat(x)))
}

/// ln(x) for normal positive x, within 2 ulp (absolute 6e-8 near 1); NaN and infinity give NaN. Mantissa in [sqrt(1/2),
/// sqrt(2)), Cephes polynomial.
#[inline(always)]
pub fn ln4(x: v128) -> v128 {
    const LN2_HI: f32 = 0.693_359_375;
    const LN2_LO: f32 = -2.121_944_4e-4;
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let e = i32x4_shr(i32x4_sub(x, i32x4_splat(SQRT_HALF)), 23);
    let f = f32x4_sub(i32x4_sub(x, i32x4_shl(e, 23)), f32x4_splat(1.0));
    let n = f32x4_convert_i32x4(e);
    let mut p = f32x4_splat(7.037_683_6e-2);
    p = madd(p, f, f32x4_splat(-1.151_461e-1));
    p = madd(p, f, f32x4_splat(1.167_699_9e-1));
    p = madd(p, f, f32x4_splat(-1.242_014_1e-1));
    p = madd(p, f, f32x4_splat(1.424_932_3e-1));
    p = madd(p, f, f32x4_splat(-1.666_805_7e-1));
    p = madd(p, f, f32x4_splat(2.000_071_5e-1));
    p = madd(p, f, f32x4_splat(-2.499_999_4e-1));
    p = madd(p, f, f32x4_splat(3.333_333_1e-1));
    let z = f32x4_mul(f, f);
    let mut y = f32x4_mul(f32x4_mul(f, z), p);
    y = madd(n, f32x4_splat(LN2_LO), y);
    y = madd(z, f32x4_splat(-0.5), y);
    // The bits of a NaN have an exponent like any other: x - x is 0, or NaN where there is no answer.
    f32x4_add(madd(n, f32x4_splat(LN2_HI), f32x4_add(f, y)), f32x4_sub(x, x))
}

/// ln(x) of one value, the same bits as a lane of [`ln4`].
#[inline(always)]
pub fn ln1(x: f32) -> f32 {
    f32x4_extract_lane::<0>(ln4(f32x4_splat(x)))
}

/// (l0 + l1) + (l2 + l3)
#[inline(always)]
pub fn sum4(v: v128) -> f32 {
    (f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v))
        + (f32x4_extract_lane::<2>(v) + f32x4_extract_lane::<3>(v))
}

/// The first `count` of 4 values, the other lanes 0. Reads nothing beyond them.
#[inline(always)]
pub unsafe fn load_part(address: *const f32, count: usize) -> v128 {
    if count >= 4 {
        return v128_load(address as *const v128);
    }
    let mut lanes = [0f32; 4];
    std::ptr::copy_nonoverlapping(address, lanes.as_mut_ptr(), count);
    v128_load(lanes.as_ptr() as *const v128)
}

/// Stores the first `count` of 4 lanes.
#[inline(always)]
pub unsafe fn store_part(address: *mut f32, count: usize, values: v128) {
    let mut lanes = [0f32; 4];
    v128_store(lanes.as_mut_ptr() as *mut v128, values);
    std::ptr::copy_nonoverlapping(lanes.as_ptr(), address, count.min(4));
}
