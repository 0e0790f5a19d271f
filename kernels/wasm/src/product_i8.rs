//! Integer products with 8-bit inputs: weights of 4, 5 or 6 bits are the 7-bit operand of the relaxed dot, so every engine
//! computes the same integers.

use crate::matrix::*;
use crate::product::{Kernel, Tokens};
use crate::simd::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wasm_bindgen::prelude::*;

/// Nibbles unpacked to bytes, as a type of record: d f32 [8], m f32 [8], byte vectors.
pub const BYTE_PANEL: u32 = 16;
pub const BYTE_RECORD: usize = 64 + 256;

/// Whether products sum in 16 bits (1) or in 32 bits (0). CPUs with a fused 8-bit dot are faster at the latter.
static SHORT_SUMS: AtomicU32 = AtomicU32::new(1);

/// Chooses sums of 16 bits (1) or of 32 bits (0) in 8-bit products; results are the same.
#[wasm_bindgen]
pub fn product_short_sums(short: u32) {
    SHORT_SUMS.store(short, Relaxed);
}

pub fn is_nibbles(dtype: u32) -> bool {
    matches!(dtype, Q4_0 | Q4_1 | Q4_K)
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
const fn parts(dtype: u32) -> usize {
    if dtype == Q6_K {
        2
    } else {
        1
    }
}

#[inline(always)]
unsafe fn weights<const D: u32>(record: *const u8, s: usize, v: usize) -> v128 {
    if D == BYTE_PANEL {
        v128_load((record.add(64) as *const v128).add(2 * s + v))
    } else {
        bytes::<D>(record, s, v)
    }
}

/// `N` tokens, one tile, `blocks` blocks.
#[inline(never)]
unsafe fn kernel_n<const D: u32, const N: usize, const SHORT: bool>(
    record: *const u8,
    blocks: usize,
    tokens: &Tokens,
    sums: *mut v128,
) {
    let stride = if D == BYTE_PANEL { BYTE_RECORD } else { record_bytes(D) };
    let zero = i32x4_splat(0);
    let mut acc: [[v128; 2]; N] = std::array::from_fn(|n| [v128_load(sums.add(2 * n)), v128_load(sums.add(2 * n + 1))]);
    let mut record = record;
    let mut q: [*const u8; N] = std::array::from_fn(|n| tokens.rows.add(n * tokens.row_stride));
    let mut scale: [*const u8; N] = std::array::from_fn(|n| tokens.scales.add(n * tokens.scale_stride));
    for _ in 0..blocks {
        let mut short = [[zero; 2]; N];
        let mut sum = [[zero; 2]; N];
        for step in 0..8 {
            // Nibble vectors hold columns 4i and 16 + 4i: take both while they are in a register.
            let s = if is_nibble_order(D) { step / 2 + step % 2 * 4 } else { step };
            let w = [weights::<D>(record, s, 0), weights::<D>(record, s, 1)];
            for n in 0..N {
                let a = v128_load32_splat(q[n].add(4 * s) as *const u32);
                for v in 0..2 {
                    if SHORT {
                        let products = i16x8_relaxed_dot_i8x16_i7x16(a, w[v]);
                        let fresh = step % chain(D) == 0;
                        short[n][v] = if fresh { products } else { i16x8_add(short[n][v], products) };
                    } else {
                        sum[n][v] = i32x4_relaxed_dot_i8x16_i7x16_add(a, w[v], sum[n][v]);
                    }
                }
            }
            if SHORT && step % chain(D) == chain(D) - 1 {
                for n in 0..N {
                    for v in 0..2 {
                        let wide = i32x4_extadd_pairwise_i16x8(short[n][v]);
                        let fresh = step % (8 / parts(D)) < chain(D);
                        sum[n][v] = if fresh { wide } else { i32x4_add(sum[n][v], wide) };
                    }
                }
            }
            if step % (8 / parts(D)) == 8 / parts(D) - 1 {
                let part = step / (8 / parts(D));
                for v in 0..2 {
                    let (d, m) = scales::<D>(record, part, v);
                    for n in 0..N {
                        let at = scale[n] as *const u32;
                        let total = v128_load32_splat(at.add(if parts(D) == 1 { 1 } else { 2 + part }));
                        let d = f32x4_mul(d, v128_load32_splat(at));
                        acc[n][v] = madd(f32x4_convert_i32x4(sum[n][v]), d, acc[n][v]);
                        acc[n][v] = madd(m, total, acc[n][v]);
                        sum[n][v] = zero;
                    }
                }
            }
        }
        record = record.add(stride);
        for n in 0..N {
            q[n] = q[n].add(32);
            scale[n] = scale[n].add(16);
        }
    }
    for n in 0..N {
        v128_store(sums.add(2 * n), acc[n][0]);
        v128_store(sums.add(2 * n + 1), acc[n][1]);
    }
}

const fn is_nibble_order(dtype: u32) -> bool {
    matches!(dtype, Q4_0 | Q4_1 | Q4_K)
}

fn kernel_of<const D: u32>(tokens: usize) -> Kernel {
    let short = SHORT_SUMS.load(Relaxed) != 0;
    match (tokens, short) {
        (1, true) => kernel_n::<D, 1, true>,
        (2, true) => kernel_n::<D, 2, true>,
        (3, true) => kernel_n::<D, 3, true>,
        (_, true) => kernel_n::<D, 4, true>,
        (1, false) => kernel_n::<D, 1, false>,
        (2, false) => kernel_n::<D, 2, false>,
        (3, false) => kernel_n::<D, 3, false>,
        (_, false) => kernel_n::<D, 4, false>,
    }
}

/// The kernel for 1 to 4 tokens.
pub fn kernel_i8(dtype: u32, tokens: usize) -> Kernel {
    match dtype {
        Q4_0 => kernel_of::<Q4_0>(tokens),
        Q4_1 => kernel_of::<Q4_1>(tokens),
        Q4_K => kernel_of::<Q4_K>(tokens),
        Q5_K => kernel_of::<Q5_K>(tokens),
        Q6_K => kernel_of::<Q6_K>(tokens),
        _ => kernel_of::<BYTE_PANEL>(tokens),
    }
}

#[inline(never)]
unsafe fn byte_panel_of<const D: u32>(record: *const u8, blocks: usize, panel: *mut u8) {
    for block in 0..blocks {
        let from = record.add(block * record_bytes(D));
        let to = panel.add(block * BYTE_RECORD) as *mut v128;
        for v in 0..2 {
            let (d, m) = scales::<D>(from, 0, v);
            v128_store(to.add(v), d);
            v128_store(to.add(2 + v), m);
        }
        for i in 0..4 {
            for v in 0..2 {
                v128_store(to.add(4 + 2 * i + v), bytes::<D>(from, i, v));
                v128_store(to.add(4 + 2 * (i + 4) + v), bytes::<D>(from, i + 4, v));
            }
        }
    }
}

/// Unpacks nibbles to bytes and scales to f32.
pub unsafe fn byte_panel(dtype: u32, record: *const u8, blocks: usize, panel: *mut u8) {
    match dtype {
        Q4_0 => byte_panel_of::<Q4_0>(record, blocks, panel),
        Q4_1 => byte_panel_of::<Q4_1>(record, blocks, panel),
        _ => byte_panel_of::<Q4_K>(record, blocks, panel),
    }
}
