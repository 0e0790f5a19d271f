//! Products with f32 inputs: exact dequantised weights, one multiply-add a column.

use crate::matrix::*;
use crate::product::{rotations, Direct, Group};
use crate::simd::*;

/// Kernels for one tile and for two.
pub const DIRECT_F32: [Direct; 2] = [direct::<1>, direct::<2>];
pub const GROUP_F32: Group = group;

#[inline(never)]
unsafe fn direct<const TILES: usize>(
    record: *const u8,
    blocks: usize,
    x: *const u8,
    sums: *mut v128,
) {
    let mut acc: [[v128; 2]; TILES] =
        std::array::from_fn(|i| [v128_load(sums.add(2 * i)), v128_load(sums.add(2 * i + 1))]);
    let mut weights = record as *const v128;
    let mut x = x;
    for _ in 0..blocks {
        for _ in 0..BLOCK {
            let value = v128_load32_splat(x as *const u32);
            for i in 0..TILES {
                for v in 0..2 {
                    acc[i][v] = madd(v128_load(weights.add(64 * i + v)), value, acc[i][v]);
                }
            }
            weights = weights.add(2);
            x = x.add(16);
        }
        weights = weights.add(64);
    }
    for i in 0..TILES {
        v128_store(sums.add(2 * i), acc[i][0]);
        v128_store(sums.add(2 * i + 1), acc[i][1]);
    }
}

#[inline(never)]
unsafe fn group(record: *const u8, blocks: usize, x: *const u8, _scales: *const u8, sums: *mut v128) {
    let mut acc: [[v128; 2]; 4] = std::array::from_fn(|j| [v128_load(sums.add(2 * j)), v128_load(sums.add(2 * j + 1))]);
    let mut weights = record as *const v128;
    let mut x = x as *const v128;
    for _ in 0..blocks * BLOCK {
        let w = [v128_load(weights), v128_load(weights.add(1))];
        let values = rotations(v128_load(x));
        for j in 0..4 {
            for v in 0..2 {
                acc[j][v] = madd(w[v], values[j], acc[j][v]);
            }
        }
        weights = weights.add(2);
        x = x.add(1);
    }
    for j in 0..4 {
        v128_store(sums.add(2 * j), acc[j][0]);
        v128_store(sums.add(2 * j + 1), acc[j][1]);
    }
}

/// Dequantises a tile's records into records that are `step` bytes apart.
pub unsafe fn f32_panel(dtype: u32, record: *const u8, blocks: usize, panel: *mut u8, step: usize) {
    for block in 0..blocks {
        let from = record.add(block * step_bytes(dtype));
        dequantize_any(dtype, from, panel.add(block * step) as *mut v128);
    }
}
