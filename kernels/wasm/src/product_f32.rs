//! Products with f32 inputs: exact dequantised weights, one multiply-add a column.

use crate::eight_times;
use crate::matrix::*;
use crate::product::{rotations, Direct, Group};
use crate::record::*;
use crate::schedule::*;
use crate::simd::*;

/// The kernel for a group of tokens and one tile of a panel.
pub const GROUP_F32: Group = group;

/// Kernels for one token and one or two tiles: of records (F32, F16, BF16) or of a panel.
pub fn direct_f32(dtype: u32) -> [Direct; 2] {
    match dtype {
        F16 => [direct::<F16, 1>, direct::<F16, 2>],
        BF16 => [direct::<BF16, 1>, direct::<BF16, 2>],
        _ => [direct::<F32, 1>, direct::<F32, 2>],
    }
}

#[inline(never)]
unsafe fn direct<const D: u32, const TILES: usize>(record: *const u8, blocks: usize, x: *const u8, sums: *mut v128) {
    let mut acc: [[v128; 2]; TILES] =
        std::array::from_fn(|i| [v128_load(sums.add(2 * i)), v128_load(sums.add(2 * i + 1))]);
    let c = Constants::resident();
    let column = record_bytes(D) / BLOCK;
    let (mut record, mut x) = (record, x);
    let left = 'left: {
        for remaining in (0..blocks).rev() {
            for eight in 0..BLOCK / 8 {
                let weights = record.add(eight * 8 * column);
                eight_times!(STEP, {
                    let value = v128_load32_splat(x.add(16 * STEP) as *const u32);
                    for i in 0..TILES {
                        for v in 0..2 {
                            let at = weights.add(STEP * column + i * record_bytes(D) + v * column / 2);
                            acc[i][v] = madd(float4::<D>(at, c), value, acc[i][v]);
                        }
                    }
                    if pin(remaining, STEP) {
                        break 'left acc;
                    }
                });
                x = x.add(16 * 8);
            }
            record = record.add(step_bytes(D));
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
