//! Integer products with 16-bit inputs, for Q8_0 weights and for matrices that want inputs finer than 8 bits.

use crate::matrix::*;
use crate::product::{Kernel, Tokens};
use crate::simd::*;

/// Panels of 16-bit weights, as types of record: [d f32 [8], m f32 [8]] x 2, then vectors of 4 rows x 2 columns, in the
/// order of the inputs. One pair of scales or, from Q6_K, two.
const WIDE_PANEL: u32 = 17;
const WIDE_PANEL_2: u32 = 18;
/// The same without m.
const WIDE_PANEL_SIGNED: u32 = 19;
pub const WIDE_RECORD: usize = 128 + 512;

/// The type of panel that a stored type unpacks to.
pub fn panel_type(dtype: u32) -> u32 {
    match dtype {
        Q8_0 => WIDE_PANEL_SIGNED,
        Q6_K => WIDE_PANEL_2,
        _ => WIDE_PANEL,
    }
}

const fn is_wide(dtype: u32) -> bool {
    dtype >= WIDE_PANEL
}

const fn parts(dtype: u32) -> usize {
    if dtype == Q6_K || dtype == WIDE_PANEL_2 {
        2
    } else {
        1
    }
}

const fn has_minimum(dtype: u32) -> bool {
    dtype != Q8_0 && dtype != WIDE_PANEL_SIGNED
}

#[inline(always)]
unsafe fn wide_scales<const D: u32>(record: *const u8, part: usize, v: usize) -> (v128, v128) {
    if is_wide(D) {
        let at = (record as *const v128).add(4 * part + v);
        (v128_load(at), v128_load(at.add(2)))
    } else {
        scales::<D>(record, part, v)
    }
}

/// Columns 4s, 4s + 2 (odd = 0) or 4s + 1, 4s + 3 (odd = 1) of rows 4v to 4v + 3.
#[inline(always)]
unsafe fn weights<const D: u32>(record: *const u8, s: usize, odd: usize, v: usize) -> v128 {
    if is_wide(D) {
        return v128_load((record.add(128) as *const v128).add((2 * s + odd) * 2 + v));
    }
    let packed = bytes::<D>(record, s, v);
    match (D, odd) {
        (Q8_0, 0) => i16x8_shr(i16x8_shl(packed, 8), 8),
        (Q8_0, _) => i16x8_shr(packed, 8),
        (_, 0) => v128_and(packed, u16x8_splat(255)),
        _ => u16x8_shr(packed, 8),
    }
}

/// `N` tokens, one tile, `blocks` blocks.
#[inline(never)]
unsafe fn kernel_n<const D: u32, const N: usize>(record: *const u8, blocks: usize, tokens: &Tokens, sums: *mut v128) {
    let stride = if is_wide(D) { WIDE_RECORD } else { record_bytes(D) };
    let mut acc: [[v128; 2]; N] = std::array::from_fn(|n| [v128_load(sums.add(2 * n)), v128_load(sums.add(2 * n + 1))]);
    let mut record = record;
    let mut q: [*const u8; N] = std::array::from_fn(|n| tokens.rows.add(n * tokens.row_stride));
    let mut scale: [*const u8; N] = std::array::from_fn(|n| tokens.scales.add(n * tokens.scale_stride));
    for _ in 0..blocks {
        for part in 0..parts(D) {
            let steps = 16 / parts(D);
            let mut sum = [[i32x4_splat(0); 2]; N];
            for step in 0..steps {
                let (s, odd) = ((part * steps + step) / 2, step % 2);
                let w = [weights::<D>(record, s, odd, 0), weights::<D>(record, s, odd, 1)];
                for n in 0..N {
                    let a = v128_load32_splat(q[n].add(8 * s + 4 * odd) as *const u32);
                    for v in 0..2 {
                        let products = i32x4_dot_i16x8(a, w[v]);
                        sum[n][v] = if step == 0 { products } else { i32x4_add(sum[n][v], products) };
                    }
                }
            }
            for v in 0..2 {
                let (d, m) = wide_scales::<D>(record, part, v);
                for n in 0..N {
                    let at = scale[n] as *const u32;
                    let d = f32x4_mul(d, v128_load32_splat(at));
                    acc[n][v] = madd(f32x4_convert_i32x4(sum[n][v]), d, acc[n][v]);
                    if has_minimum(D) {
                        let total = v128_load32_splat(at.add(if parts(D) == 1 { 1 } else { 2 + part }));
                        acc[n][v] = madd(m, total, acc[n][v]);
                    }
                }
            }
        }
        record = record.add(stride);
        for n in 0..N {
            q[n] = q[n].add(64);
            scale[n] = scale[n].add(16);
        }
    }
    for n in 0..N {
        v128_store(sums.add(2 * n), acc[n][0]);
        v128_store(sums.add(2 * n + 1), acc[n][1]);
    }
}

fn direct<const D: u32>(tokens: usize) -> Kernel {
    if tokens == 1 {
        kernel_n::<D, 1>
    } else {
        kernel_n::<D, 2>
    }
}

fn from_panel<const D: u32>(tokens: usize) -> Kernel {
    match tokens {
        1 => kernel_n::<D, 1>,
        2 => kernel_n::<D, 2>,
        3 => kernel_n::<D, 3>,
        _ => kernel_n::<D, 4>,
    }
}

/// The kernel for 1 to 4 tokens from a panel, for 1 or 2 from records.
pub fn kernel_i16(dtype: u32, tokens: usize) -> Kernel {
    match dtype {
        Q8_0 => direct::<Q8_0>(tokens),
        Q4_0 => direct::<Q4_0>(tokens),
        Q4_1 => direct::<Q4_1>(tokens),
        Q4_K => direct::<Q4_K>(tokens),
        Q5_K => direct::<Q5_K>(tokens),
        Q6_K => direct::<Q6_K>(tokens),
        WIDE_PANEL_2 => from_panel::<WIDE_PANEL_2>(tokens),
        WIDE_PANEL_SIGNED => from_panel::<WIDE_PANEL_SIGNED>(tokens),
        _ => from_panel::<WIDE_PANEL>(tokens),
    }
}

#[inline(never)]
unsafe fn wide_panel_of<const D: u32>(record: *const u8, blocks: usize, panel: *mut u8) {
    for block in 0..blocks {
        let from = record.add(block * record_bytes(D));
        let to = panel.add(block * WIDE_RECORD) as *mut v128;
        for part in 0..parts(D) {
            for v in 0..2 {
                let (d, m) = scales::<D>(from, part, v);
                v128_store(to.add(4 * part + v), d);
                v128_store(to.add(4 * part + 2 + v), m);
            }
        }
        for s in 0..8 {
            for odd in 0..2 {
                for v in 0..2 {
                    v128_store(to.add(8 + (2 * s + odd) * 2 + v), weights::<D>(from, s, odd, v));
                }
            }
        }
    }
}

/// Unpacks weights to 16 bits and scales to f32.
pub unsafe fn wide_panel(dtype: u32, record: *const u8, blocks: usize, panel: *mut u8) {
    match dtype {
        Q8_0 => wide_panel_of::<Q8_0>(record, blocks, panel),
        Q4_0 => wide_panel_of::<Q4_0>(record, blocks, panel),
        Q4_1 => wide_panel_of::<Q4_1>(record, blocks, panel),
        Q4_K => wide_panel_of::<Q4_K>(record, blocks, panel),
        Q5_K => wide_panel_of::<Q5_K>(record, blocks, panel),
        _ => wide_panel_of::<Q6_K>(record, blocks, panel),
    }
}
