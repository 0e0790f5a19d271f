//! Integer products with 16-bit inputs, for Q8_0 weights and for matrices that want inputs finer than 8 bits.

use crate::eight_times;
use crate::matrix::*;
use crate::product::{rotations, splat, Direct, Group};
use crate::product_i8::{parts, total_field};
use crate::quantize::BLOCK_SCALES;
use crate::record::*;
use crate::schedule::*;
use crate::simd::*;

const fn has_minimum(dtype: u32) -> bool {
    dtype != Q8_0
}

/// Columns 4s, 4s + 2 and columns 4s + 1, 4s + 3 of rows 4v to 4v + 3, in 16 bits.
#[inline(always)]
unsafe fn widen<const D: u32>(record: *const u8, s: usize, v: usize, c: Constants) -> [v128; 2] {
    if D == Q8_0 {
        return signed_pairs(record, s, v);
    }
    let packed = bytes::<D>(record, s, v, c);
    [u16x8_shr(u16x8_shl(packed, 8), 8), u16x8_shr(packed, 8)]
}

/// Adds the dots of both halves of 4 columns.
#[inline(always)]
fn add_dots(sum: v128, a: [v128; 2], w: [v128; 2]) -> v128 {
    i32x4_add(i32x4_add(sum, i32x4_dot_i16x8(a[0], w[0])), i32x4_dot_i16x8(a[1], w[1]))
}

#[inline(never)]
unsafe fn direct<const D: u32, const TILES: usize>(record: *const u8, blocks: usize, x: *const u8, sums: *mut v128) {
    let c = Constants::resident();
    let zero = i32x4_splat(0);
    let mut acc: [[v128; 2]; TILES] =
        std::array::from_fn(|i| [v128_load(sums.add(2 * i)), v128_load(sums.add(2 * i + 1))]);
    let (mut record, mut x) = (record, x as *const v128);
    let left = 'left: {
        for remaining in (0..blocks).rev() {
            let mut sum = [[zero; 2]; TILES];
            eight_times!(STEP, {
                let words = v128_load(x.add(1 + STEP / 2));
                let a = if STEP % 2 == 0 {
                    [splat::<0>(words), splat::<1>(words)]
                } else {
                    [splat::<2>(words), splat::<3>(words)]
                };
                for i in 0..TILES {
                    for v in 0..2 {
                        let w = widen::<D>(record.add(i * record_bytes(D)), STEP, v, c);
                        sum[i][v] = add_dots(sum[i][v], a, w);
                    }
                }
                if pin(remaining, STEP) {
                    break 'left sum;
                }
                if STEP % (8 / parts(D)) == 8 / parts(D) - 1 {
                    let part = STEP / (8 / parts(D));
                    let scales = v128_load(x);
                    let dx = splat::<0>(scales);
                    let total = match total_field(D, part) {
                        1 => splat::<1>(scales),
                        2 => splat::<2>(scales),
                        _ => splat::<3>(scales),
                    };
                    for i in 0..TILES {
                        for v in 0..2 {
                            let (d, m) = raw_scales::<D>(record.add(i * record_bytes(D)), part, v, c);
                            acc[i][v] = madd(f32x4_convert_i32x4(sum[i][v]), f32x4_mul(d, dx), acc[i][v]);
                            if has_minimum(D) {
                                acc[i][v] = madd(m, total, acc[i][v]);
                            }
                            sum[i][v] = zero;
                        }
                    }
                }
            });
            record = record.add(step_bytes(D));
            x = x.add(5);
        }
        for i in 0..TILES {
            v128_store(sums.add(2 * i), acc[i][0]);
            v128_store(sums.add(2 * i + 1), acc[i][1]);
        }
        return;
    };
    keep(&left);
}

#[inline(never)]
unsafe fn group<const D: u32>(record: *const u8, blocks: usize, x: *const u8, scales: *const u8, sums: *mut v128) {
    let c = Constants::resident();
    let zero = i32x4_splat(0);
    let mut acc: [[v128; 2]; 4] = std::array::from_fn(|j| [v128_load(sums.add(2 * j)), v128_load(sums.add(2 * j + 1))]);
    let (mut record, mut x, mut scales) = (record, x as *const v128, scales as *const v128);
    let left = 'left: {
        for remaining in (0..blocks).rev() {
            let mut sum = [[zero; 2]; 4];
            eight_times!(STEP, {
                let w = [widen::<D>(record, STEP, 0, c), widen::<D>(record, STEP, 1, c)];
                for odd in 0..2 {
                    let values = rotations(v128_load(x.add(2 * STEP + odd)));
                    for j in 0..4 {
                        for v in 0..2 {
                            sum[j][v] = i32x4_add(sum[j][v], i32x4_dot_i16x8(values[j], w[v][odd]));
                        }
                    }
                    if pin(remaining, 2 * STEP + odd) {
                        break 'left sum;
                    }
                }
                if STEP % (8 / parts(D)) == 8 / parts(D) - 1 {
                    let part = STEP / (8 / parts(D));
                    let dx = rotations(v128_load(scales));
                    let total = rotations(v128_load(scales.add(total_field(D, part))));
                    for v in 0..2 {
                        let (d, m) = raw_scales::<D>(record, part, v, c);
                        for j in 0..4 {
                            acc[j][v] = madd(f32x4_convert_i32x4(sum[j][v]), f32x4_mul(d, dx[j]), acc[j][v]);
                            if has_minimum(D) {
                                acc[j][v] = madd(m, total[j], acc[j][v]);
                            }
                            sum[j][v] = zero;
                        }
                    }
                }
            });
            record = record.add(step_bytes(D));
            x = x.add(16);
            scales = scales.add(BLOCK_SCALES);
        }
        for j in 0..4 {
            v128_store(sums.add(2 * j), acc[j][0]);
            v128_store(sums.add(2 * j + 1), acc[j][1]);
        }
        return;
    };
    keep(&left);
}

/// Kernels for one token and one or two tiles of records.
pub fn direct_i16(dtype: u32) -> [Direct; 2] {
    match dtype {
        Q8_0 => [direct::<Q8_0, 1>, direct::<Q8_0, 2>],
        Q4_0 => [direct::<Q4_0, 1>, direct::<Q4_0, 2>],
        Q4_1 => [direct::<Q4_1, 1>, direct::<Q4_1, 2>],
        Q4_K => [direct::<Q4_K, 1>, direct::<Q4_K, 2>],
        Q5_K => [direct::<Q5_K, 1>, direct::<Q5_K, 2>],
        _ => [direct::<Q6_K, 1>, direct::<Q6_K, 2>],
    }
}

/// The kernel for a group of tokens and one tile of records.
pub fn group_i16(dtype: u32) -> Group {
    match dtype {
        Q8_0 => group::<Q8_0>,
        Q4_0 => group::<Q4_0>,
        Q4_1 => group::<Q4_1>,
        Q4_K => group::<Q4_K>,
        Q5_K => group::<Q5_K>,
        _ => group::<Q6_K>,
    }
}
