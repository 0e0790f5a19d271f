//! Integer products with 8-bit inputs: weights of 4, 5 or 6 bits are the 7-bit operand of the relaxed dot, so every engine
//! computes the same integers.

use crate::eight_times;
use crate::matrix::*;
use crate::product::{rotations, splat, Direct, Group};
use crate::quantize::{Hot, BLOCK_SCALES};
use crate::record::*;
use crate::schedule::*;
use crate::simd::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wasm_bindgen::prelude::*;

/// Whether products sum in 16 bits (1) or in 32 bits (0); before the first product, not yet known.
static SHORT_SUMS: AtomicU32 = AtomicU32::new(NOT_KNOWN);
const NOT_KNOWN: u32 = 2;

/// Chooses sums of 16 bits (1) or of 32 bits (0) in 8-bit products, or (2) whichever is faster here; results are the same.
#[wasm_bindgen]
pub fn product_short_sums(short: u32) {
    SHORT_SUMS.store(short, Relaxed);
}

/// What the relaxed dot with 32-bit sums is on this CPU shows where its second operand is out of range: two x86 instructions
/// saturate at 16 bits between them and are slower than summing in 16 bits; one fused instruction does not saturate.
fn dot_is_fused() -> bool {
    let (a, b) = std::hint::black_box((i8x16_splat(127), i8x16_splat(-1)));
    i32x4_extract_lane::<0>(i32x4_relaxed_dot_i8x16_i7x16_add(a, b, i32x4_splat(0))) != 2 * 32767
}

fn short_sums() -> bool {
    if SHORT_SUMS.load(Relaxed) == NOT_KNOWN {
        SHORT_SUMS.store(!dot_is_fused() as u32, Relaxed);
    }
    SHORT_SUMS.load(Relaxed) == 1
}

/// Dots that fit a sum of 16 bits: each adds two products of at most max * 128.
const fn chain(dtype: u32) -> usize {
    match dtype {
        Q6_K => 2,
        Q5_K => 4,
        _ => 8,
    }
}

/// Groups of columns with scales of their own.
pub const fn parts(dtype: u32) -> usize {
    if dtype == Q6_K {
        2
    } else {
        1
    }
}

/// Field of a block's input scales that a part's minimum multiplies.
pub const fn total_field(dtype: u32, part: usize) -> usize {
    if parts(dtype) == 1 {
        1
    } else {
        2 + part
    }
}

/// Steps in the order that takes both columns of a nibble vector (4i and 16 + 4i) while it is in a register.
const fn columns(dtype: u32, step: usize) -> usize {
    if is_nibbles(dtype) {
        step / 2 + step % 2 * 4
    } else {
        step
    }
}

/// Whether a sum of 16 bits starts or is full at a step.
const fn starts(dtype: u32, step: usize) -> bool {
    step % chain(dtype) == 0
}

const fn fills(dtype: u32, step: usize) -> bool {
    step % chain(dtype) == chain(dtype) - 1
}

/// Adds one dot to a sum, of 16 or of 32 bits.
#[inline(always)]
fn add_dot<const D: u32, const SHORT: bool>(step: usize, a: v128, w: v128, short: &mut v128, sum: &mut v128) {
    let fresh = step % (8 / parts(D)) < chain(D);
    if !SHORT {
        *sum = i32x4_relaxed_dot_i8x16_i7x16_add(a, w, *sum);
        return;
    }
    let products = i16x8_relaxed_dot_i8x16_i7x16(a, w);
    *short = if starts(D, step) { products } else { i16x8_add(*short, products) };
    if fills(D, step) {
        let wide = i32x4_extadd_pairwise_i16x8(*short);
        *sum = if fresh { wide } else { i32x4_add(*sum, wide) };
    }
}

#[inline(never)]
unsafe fn direct<const D: u32, const TILES: usize, const SHORT: bool>(
    record: *const u8,
    blocks: usize,
    x: *const u8,
    sums: *mut v128,
) {
    let c = Constants::resident();
    let zero = i32x4_splat(0);
    let mut acc: [[v128; 2]; TILES] =
        std::array::from_fn(|i| [v128_load(sums.add(2 * i)), v128_load(sums.add(2 * i + 1))]);
    let (mut record, mut x) = (record, x as *const v128);
    let left = 'left: {
        for remaining in (0..blocks).rev() {
            let mut short = [[zero; 2]; TILES];
            let mut sum = [[zero; 2]; TILES];
            let scales = v128_load(x);
            let values = [v128_load(x.add(1)), v128_load(x.add(2))];
            eight_times!(STEP, {
                let s = columns(D, STEP);
                let a = match s % 4 {
                    0 => splat::<0>(values[s / 4]),
                    1 => splat::<1>(values[s / 4]),
                    2 => splat::<2>(values[s / 4]),
                    _ => splat::<3>(values[s / 4]),
                };
                for i in 0..TILES {
                    for v in 0..2 {
                        let w = bytes::<D>(record.add(i * record_bytes(D)), s, v, c);
                        add_dot::<D, SHORT>(STEP, a, w, &mut short[i][v], &mut sum[i][v]);
                    }
                }
                if STEP % 2 == 1 && !(SHORT && fills(D, STEP)) && pin(remaining, STEP) {
                    break 'left if SHORT { short } else { sum };
                }
                if STEP % (8 / parts(D)) == 8 / parts(D) - 1 {
                    let part = STEP / (8 / parts(D));
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
                            acc[i][v] = madd(m, total, acc[i][v]);
                            sum[i][v] = zero;
                        }
                    }
                }
            });
            record = record.add(step_bytes(D));
            x = x.add(3);
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
unsafe fn group<const D: u32, const SHORT: bool>(
    record: *const u8,
    blocks: usize,
    x: *const u8,
    scales: *const u8,
    sums: *mut v128,
) {
    let c = Constants::resident();
    let zero = i32x4_splat(0);
    let mut acc: [[v128; 2]; 4] = std::array::from_fn(|j| [v128_load(sums.add(2 * j)), v128_load(sums.add(2 * j + 1))]);
    let (mut record, mut x, mut scales) = (record, x as *const v128, scales as *const v128);
    let left = 'left: {
        for remaining in (0..blocks).rev() {
            let mut short = [[zero; 2]; 4];
            let mut sum = [[zero; 2]; 4];
            eight_times!(STEP, {
                let s = columns(D, STEP);
                let w = [bytes::<D>(record, s, 0, c), bytes::<D>(record, s, 1, c)];
                let values = rotations(v128_load(x.add(s)));
                for j in 0..4 {
                    for v in 0..2 {
                        add_dot::<D, SHORT>(STEP, values[j], w[v], &mut short[j][v], &mut sum[j][v]);
                    }
                }
                if !(SHORT && fills(D, STEP)) && pin(remaining, STEP) {
                    break 'left if SHORT { short } else { sum };
                }
                if STEP % (8 / parts(D)) == 8 / parts(D) - 1 {
                    let part = STEP / (8 / parts(D));
                    let dx = rotations(v128_load(scales));
                    let total = rotations(v128_load(scales.add(total_field(D, part))));
                    for v in 0..2 {
                        let (d, m) = raw_scales::<D>(record, part, v, c);
                        for j in 0..4 {
                            acc[j][v] = madd(f32x4_convert_i32x4(sum[j][v]), f32x4_mul(d, dx[j]), acc[j][v]);
                            acc[j][v] = madd(m, total[j], acc[j][v]);
                            sum[j][v] = zero;
                        }
                    }
                }
            });
            record = record.add(step_bytes(D));
            x = x.add(8);
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

fn direct_of<const D: u32>() -> [Direct; 2] {
    if short_sums() {
        [direct::<D, 1, true>, direct::<D, 2, true>]
    } else {
        [direct::<D, 1, false>, direct::<D, 2, false>]
    }
}

/// Kernels for one token and one or two tiles of records.
pub fn direct_i8(dtype: u32) -> [Direct; 2] {
    match dtype {
        Q4_0 => direct_of::<Q4_0>(),
        Q4_1 => direct_of::<Q4_1>(),
        Q4_K => direct_of::<Q4_K>(),
        Q5_K => direct_of::<Q5_K>(),
        _ => direct_of::<Q6_K>(),
    }
}

fn group_of<const D: u32>() -> Group {
    if short_sums() {
        group::<D, true>
    } else {
        group::<D, false>
    }
}

/// The kernel for a group of tokens and one tile of records.
pub fn group_i8(dtype: u32) -> Group {
    match dtype {
        Q4_0 => group_of::<Q4_0>(),
        Q4_1 => group_of::<Q4_1>(),
        Q4_K => group_of::<Q4_K>(),
        Q5_K => group_of::<Q5_K>(),
        _ => group_of::<Q6_K>(),
    }
}

#[inline(never)]
unsafe fn add_hot_of<const D: u32>(tile: *const u8, entries: &[Hot], sums: *mut v128) {
    let c = Constants::resident();
    let mut acc = [v128_load(sums), v128_load(sums.add(1))];
    for hot in entries {
        let (block, s) = (hot.group as usize / 8, hot.group as usize % 8);
        let record = tile.add(block * step_bytes(D));
        for v in 0..2 {
            let w = if s < 4 { bytes::<D>(record, s, v, c) } else { bytes::<D>(record, 4 + s % 4, v, c) };
            let (d, _) = raw_scales::<D>(record, s / 4, v, c);
            let sum = i32x4_relaxed_dot_i8x16_i7x16_add(u32x4_splat(hot.q), w, i32x4_splat(0));
            acc[v] = madd(f32x4_convert_i32x4(sum), f32x4_mul(d, f32x4_splat(hot.d)), acc[v]);
        }
    }
    v128_store(sums, acc[0]);
    v128_store(sums.add(1), acc[1]);
}

/// Adds the hot groups of one token to the sums of one tile.
pub unsafe fn add_hot(dtype: u32, tile: *const u8, entries: &[Hot], sums: *mut v128) {
    match dtype {
        Q4_0 => add_hot_of::<Q4_0>(tile, entries, sums),
        Q4_1 => add_hot_of::<Q4_1>(tile, entries, sums),
        Q4_K => add_hot_of::<Q4_K>(tile, entries, sums),
        Q5_K => add_hot_of::<Q5_K>(tile, entries, sums),
        _ => add_hot_of::<Q6_K>(tile, entries, sums),
    }
}
