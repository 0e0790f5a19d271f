//! Integer products with 16-bit inputs, for Q8_0 weights and for matrices that want inputs finer than 8 bits.

use crate::matrix::*;
use crate::product::{rotations, Direct, Group};
use crate::quantize::BLOCK_SCALES;
use crate::simd::*;

/// Panels of 16-bit weights: [d f32 [8], m f32 [8]] x 2, then vectors of 4 rows x 2 columns, in the order of the inputs.
/// Kinds: with one pair of scales, with two (Q6_K), with one and no m (Q8_0).
const ONE_SCALE: u32 = 0;
const TWO_SCALES: u32 = 1;
const NO_MINIMUM: u32 = 2;
pub const WIDE_RECORD: usize = 128 + 512;

const fn kind(dtype: u32) -> u32 {
    match dtype {
        Q8_0 => NO_MINIMUM,
        Q6_K => TWO_SCALES,
        _ => ONE_SCALE,
    }
}

const fn parts(kind: u32) -> usize {
    if kind == TWO_SCALES {
        2
    } else {
        1
    }
}

/// Field of a block's input scales that a part's minimum multiplies.
const fn total_field(kind: u32, part: usize) -> usize {
    if parts(kind) == 1 {
        1
    } else {
        2 + part
    }
}

/// Columns 4s, 4s + 2 (odd = 0) and 4s + 1, 4s + 3 (odd = 1) of rows 4v to 4v + 3.
#[inline(always)]
unsafe fn widen<const D: u32>(record: *const u8, s: usize, v: usize, c: Constants) -> [v128; 2] {
    let packed = bytes::<D>(record, s, v, c);
    if D == Q8_0 {
        [i16x8_shr(i16x8_shl(packed, 8), 8), i16x8_shr(packed, 8)]
    } else {
        [u16x8_shr(u16x8_shl(packed, 8), 8), u16x8_shr(packed, 8)]
    }
}

#[inline(never)]
unsafe fn direct<const D: u32, const TILES: usize>(
    record: *const u8,
    blocks: usize,
    x: *const u8,
    sums: *mut v128,
) {
    let c = Constants::resident();
    let mut acc: [[v128; 2]; TILES] =
        std::array::from_fn(|i| [v128_load(sums.add(2 * i)), v128_load(sums.add(2 * i + 1))]);
    let mut record = record;
    let mut x = x;
    for _ in 0..blocks {
        for part in 0..parts(kind(D)) {
            let dx = v128_load32_splat(x as *const u32);
            for i in 0..TILES {
                for v in 0..2 {
                    let steps = 8 / parts(kind(D));
                    let mut sum = i32x4_splat(0);
                    for step in 0..steps {
                        let s = part * steps + step;
                        let w = widen::<D>(record.add(i * record_bytes(D)), s, v, c);
                        for odd in 0..2 {
                            let a = v128_load32_splat(x.add(16 + (2 * s + odd) * 4) as *const u32);
                            sum = i32x4_add(sum, i32x4_dot_i16x8(a, w[odd]));
                        }
                    }
                    let (d, m) = raw_scales::<D>(record.add(i * record_bytes(D)), part, v, c);
                    acc[i][v] = madd(f32x4_convert_i32x4(sum), f32x4_mul(d, dx), acc[i][v]);
                    if kind(D) != NO_MINIMUM {
                        let total = v128_load32_splat(x.add(total_field(kind(D), part) * 4) as *const u32);
                        acc[i][v] = madd(m, total, acc[i][v]);
                    }
                }
            }
        }
        record = record.add(step_bytes(D));
        x = x.add(16 + BLOCK * 2);
    }
    for i in 0..TILES {
        v128_store(sums.add(2 * i), acc[i][0]);
        v128_store(sums.add(2 * i + 1), acc[i][1]);
    }
}

#[inline(never)]
unsafe fn group<const KIND: u32>(record: *const u8, blocks: usize, x: *const u8, scales: *const u8, sums: *mut v128) {
    // The number of steps is not a constant: unrolled, the sums of all steps would be live at once.
    let steps = std::ptr::read_volatile(&(16 / parts(KIND)));
    let mut acc: [[v128; 2]; 4] = std::array::from_fn(|j| [v128_load(sums.add(2 * j)), v128_load(sums.add(2 * j + 1))]);
    let (mut record, mut x, mut scales) = (record as *const v128, x as *const v128, scales as *const v128);
    for _ in 0..blocks {
        for part in 0..parts(KIND) {
            let mut sum = [[i32x4_splat(0); 2]; 4];
            let mut weights = record.add(8 + part * 16);
            for _ in 0..steps {
                let w = [v128_load(weights), v128_load(weights.add(1))];
                let values = rotations(v128_load(x));
                for j in 0..4 {
                    for v in 0..2 {
                        sum[j][v] = i32x4_add(sum[j][v], i32x4_dot_i16x8(values[j], w[v]));
                    }
                }
                weights = weights.add(2);
                x = x.add(1);
            }
            let dx = rotations(v128_load(scales));
            let total = rotations(v128_load(scales.add(total_field(KIND, part))));
            for v in 0..2 {
                let d = v128_load(record.add(4 * part + v));
                let m = v128_load(record.add(4 * part + 2 + v));
                for j in 0..4 {
                    acc[j][v] = madd(f32x4_convert_i32x4(sum[j][v]), f32x4_mul(d, dx[j]), acc[j][v]);
                    if KIND != NO_MINIMUM {
                        acc[j][v] = madd(m, total[j], acc[j][v]);
                    }
                }
            }
        }
        record = record.add(WIDE_RECORD / 16);
        scales = scales.add(BLOCK_SCALES);
    }
    for j in 0..4 {
        v128_store(sums.add(2 * j), acc[j][0]);
        v128_store(sums.add(2 * j + 1), acc[j][1]);
    }
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

/// The kernel for a group of tokens and the panel that [`wide_panel`] makes.
pub fn group_i16(dtype: u32) -> Group {
    match kind(dtype) {
        NO_MINIMUM => group::<NO_MINIMUM>,
        TWO_SCALES => group::<TWO_SCALES>,
        _ => group::<ONE_SCALE>,
    }
}

#[inline(never)]
unsafe fn wide_panel_of<const D: u32>(record: *const u8, blocks: usize, panel: *mut u8) {
    let c = Constants::resident();
    for block in 0..blocks {
        let from = record.add(block * step_bytes(D));
        let to = panel.add(block * WIDE_RECORD) as *mut v128;
        for v in 0..2 {
            for part in 0..parts(kind(D)) {
                let (d, m) = raw_scales::<D>(from, part, v, c);
                v128_store(to.add(4 * part + v), d);
                v128_store(to.add(4 * part + 2 + v), m);
            }
            for s in 0..8 {
                let w = widen::<D>(from, s, v, c);
                v128_store(to.add(8 + 4 * s + v), w[0]);
                v128_store(to.add(8 + 4 * s + 2 + v), w[1]);
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
