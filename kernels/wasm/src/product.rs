//! Products of weight matrices and input rows: out[t][row] = sum over k of w[row][k] * x[t][k].
//!
//! One order of operations for every batch size, row range and thread count: an output's f32 sum starts at 0 and takes the
//! blocks of 32 columns in ascending order, in each block first the quantised product times its scale, then the minimum
//! times the input's sum; then the hot groups of the input in ascending order. Integer sums are exact, so the two ways to
//! form them (sums of 16 bits or of 32 bits, whichever this CPU is faster at) give the same bits.
//!
//! One or two tokens multiply straight from the stream of records, two tiles at a time. More tokens go in groups of four. Four
//! tokens and four rows make 16 products of one weight vector and one input vector: the input vector is rotated by 0 to 3
//! lanes, so lane r of rotation j is row r and token (r + j) mod 4, and a kernel needs three shuffles where it would need
//! four loads (a load costs a bounds check). With f32 inputs a tile's weights are dequantised once into a panel in L1 that
//! all groups share; integers are unpacked in registers, which costs less than a panel's stores and loads.

use crate::matrix::*;
use crate::product_f32::{direct_f32, f32_panel, GROUP_F32};
use crate::product_i16::{direct_i16, group_i16};
use crate::product_i8::{add_hot, direct_i8, group_i8};
use crate::quantize::*;
use crate::record::unit;
use crate::simd::*;
use std::mem::MaybeUninit;
use std::ops::Range;

pub use crate::matrix::{Matrix, ROW_TILE};
pub use crate::quantize::{prepare, Activations, Inputs};

/// Tokens that are faster one by one than as half of a group.
const DIRECT_TOKENS: usize = 2;
/// Groups of tokens that take a tile (and share its panel) before the next tile does.
const PANEL_GROUPS: usize = 16;
/// Half of the L1 cache.
const PANEL_BYTES: usize = 16384;
/// Vectors of sums of one tile and one group: [rotation 4][rows 2].
const GROUP_SUMS: usize = 8;

/// Adds `blocks` blocks of one token to the sums of one tile, or of both tiles of a pair. `x` is the token's flat row, or
/// its lane of the interleaved rows with f32; `sums` is [tile][2 vectors of 4 rows].
pub type Direct = unsafe fn(record: *const u8, blocks: usize, x: *const u8, sums: *mut v128);

/// Adds `blocks` blocks of one tile and one group of tokens to `sums` [rotation 4][2 vectors of 4 rows].
pub type Group = unsafe fn(record: *const u8, blocks: usize, x: *const u8, scales: *const u8, sums: *mut v128);

/// Lanes rotated by `J`.
#[inline(always)]
pub fn rotate<const J: usize>(x: v128) -> v128 {
    match J {
        0 => x,
        1 => i32x4_shuffle::<1, 2, 3, 0>(x, x),
        2 => i32x4_shuffle::<2, 3, 0, 1>(x, x),
        _ => i32x4_shuffle::<3, 0, 1, 2>(x, x),
    }
}

/// [`rotate`] by 0, 1, 2 and 3.
#[inline(always)]
pub fn rotations(x: v128) -> [v128; 4] {
    [x, rotate::<1>(x), rotate::<2>(x), rotate::<3>(x)]
}

/// Lane `L` in all lanes.
#[inline(always)]
pub fn splat<const L: usize>(x: v128) -> v128 {
    match L {
        0 => i32x4_shuffle::<0, 0, 0, 0>(x, x),
        1 => i32x4_shuffle::<1, 1, 1, 1>(x, x),
        2 => i32x4_shuffle::<2, 2, 2, 2>(x, x),
        _ => i32x4_shuffle::<3, 3, 3, 3>(x, x),
    }
}

#[repr(C, align(64))]
struct Panel(MaybeUninit<[u8; PANEL_BYTES]>);

impl Panel {
    #[inline(always)]
    fn new() -> Self {
        Panel(MaybeUninit::uninit())
    }

    #[inline(always)]
    fn at(&mut self) -> *mut u8 {
        self.0.as_mut_ptr() as *mut u8
    }
}

/// How products of one matrix are computed.
struct Plan<'a> {
    m: &'a Matrix,
    inputs: &'a Inputs,
    rows: Rows,
    /// Whether rows may have hot groups. What a row was made into decides, not what this matrix asked for: the two 8-bit
    /// forms share their place.
    hot: bool,
    unit: f32,
    direct: [Direct; 2],
    group: Group,
    /// Whether kernels read a panel of f32 instead of the records: the direct ones, the group ones.
    unpack: [bool; 2],
}

fn plan<'a>(m: &'a Matrix, inputs: &'a Inputs, activations: Activations) -> Plan<'a> {
    match m.needs(activations) {
        FORM_F32 => Plan {
            m,
            inputs,
            rows: inputs.f32_rows,
            hot: false,
            unit: 1.0,
            direct: direct_f32(m.dtype),
            group: GROUP_F32,
            unpack: [!matches!(m.dtype, F32 | F16 | BF16), true],
        },
        FORM_I16 => Plan {
            m,
            inputs,
            rows: inputs.i16_rows,
            hot: false,
            unit: unit(m.dtype),
            direct: direct_i16(m.dtype),
            group: group_i16(m.dtype),
            unpack: [false, false],
        },
        _ => Plan {
            m,
            inputs,
            rows: inputs.i8_rows,
            hot: true,
            unit: unit(m.dtype),
            direct: direct_i8(m.dtype),
            group: group_i8(m.dtype),
            unpack: [false, false],
        },
    }
}

impl Plan<'_> {
    /// Adds the hot groups of token `t` to the sums of `tiles` tiles.
    #[inline(always)]
    unsafe fn hot(&self, t: usize, tile: usize, tiles: usize, sums: *mut v128) {
        let count = if self.hot { *self.inputs.hot_count.add(t) as usize } else { 0 };
        if count > 0 {
            let entries = std::slice::from_raw_parts(self.inputs.hot.add(t * self.inputs.hot_stride), count);
            for index in 0..tiles {
                add_hot(self.m.dtype, self.m.at(tile + index, 0), entries, sums.add(2 * index));
            }
        }
    }
}

/// Where results go.
struct Output {
    at: *mut f32,
    stride: usize,
    add: bool,
    /// First row beyond the range.
    end: usize,
}

impl Output {
    /// Stores 8 rows of token `t`; rows beyond the range are dropped.
    #[inline(always)]
    unsafe fn put(&self, t: usize, row: usize, sums: *const v128, unit: f32) {
        let to = self.at.add(t * self.stride + row);
        let unit = f32x4_splat(unit);
        let sums = [f32x4_mul(v128_load(sums), unit), f32x4_mul(v128_load(sums.add(1)), unit)];
        if row + ROW_TILE <= self.end {
            for (v, sum) in sums.iter().enumerate() {
                let at = (to as *mut v128).add(v);
                v128_store(at, if self.add { f32x4_add(v128_load(at), *sum) } else { *sum });
            }
        } else {
            let from = sums.as_ptr() as *const f32;
            for index in 0..self.end - row {
                let sum = *from.add(index);
                *to.add(index) = if self.add { *to.add(index) + sum } else { sum };
            }
        }
    }
}

/// One token, one or two tiles.
#[inline(never)]
unsafe fn direct_tiles(plan: &Plan, t: usize, tile: usize, tiles: usize, out: &Output) {
    let (m, rows) = (plan.m, &plan.rows);
    let x = if rows.flat_stride > 0 {
        rows.flat.add(t * rows.flat_stride)
    } else {
        rows.at.add(t / GROUP * rows.stride + t % GROUP * 4)
    };
    let kernel = plan.direct[tiles - 1];
    let mut sums = [f32x4_splat(0.0); 4];
    if plan.unpack[0] {
        let mut panel = Panel::new();
        let step = PANEL_BYTES / step_bytes(F32);
        let mut block = 0;
        while block < m.blocks {
            let blocks = step.min(m.blocks - block);
            for index in 0..tiles {
                let to = panel.at().add(index * record_bytes(F32));
                f32_panel(m.dtype, m.at(tile + index, block), blocks, to, step_bytes(F32));
            }
            kernel(panel.at(), blocks, x.add(block * rows.block), sums.as_mut_ptr());
            block += blocks;
        }
    } else {
        kernel(m.at(tile, 0), m.blocks, x, sums.as_mut_ptr());
    }
    plan.hot(t, tile, tiles, sums.as_mut_ptr());
    for index in 0..tiles {
        out.put(t, (tile + index) * ROW_TILE, sums.as_ptr().add(2 * index), plan.unit);
    }
}

/// The sums of the group's token `token`, 8 rows, out of [rotation 4][2].
#[inline(always)]
unsafe fn unrotate(sums: *const v128, token: usize) -> [v128; 2] {
    let lanes = sums as *const f32;
    let lane = |v: usize, r: usize| *lanes.add(((token + 4 - r) % 4 * 2 + v) * 4 + r);
    std::array::from_fn(|v| f32x4(lane(v, 0), lane(v, 1), lane(v, 2), lane(v, 3)))
}

/// Tokens `t`, at most [`PANEL_GROUPS`] groups of them, one tile.
#[inline(never)]
unsafe fn group_tile(plan: &Plan, t: Range<usize>, tile: usize, out: &Output) {
    let (m, rows) = (plan.m, &plan.rows);
    let (first, end) = (t.start / GROUP, t.end.div_ceil(GROUP));
    let mut sums = [f32x4_splat(0.0); PANEL_GROUPS * GROUP_SUMS];
    let mut panel = Panel::new();
    let step = if plan.unpack[1] { PANEL_BYTES / record_bytes(F32) } else { m.blocks };
    let mut block = 0;
    while block < m.blocks {
        let blocks = step.min(m.blocks - block);
        let mut record = m.at(tile, block) as *const u8;
        if plan.unpack[1] {
            f32_panel(m.dtype, record, blocks, panel.at(), record_bytes(F32));
            record = panel.at();
        }
        for group in first..end {
            let x = rows.at.add(group * rows.stride + block * rows.block);
            let scales = rows.scales.add(group * rows.scale_stride + block * rows.scale_block);
            (plan.group)(record, blocks, x, scales, sums.as_mut_ptr().add((group - first) * GROUP_SUMS));
        }
        block += blocks;
    }
    for token in t {
        let mut sum = unrotate(sums.as_ptr().add((token / GROUP - first) * GROUP_SUMS), token % GROUP);
        plan.hot(token, tile, 1, sum.as_mut_ptr());
        out.put(token, tile * ROW_TILE, sum.as_ptr(), plan.unit);
    }
}

/// Computes rows `rows` (from a multiple of [`ROW_TILE`]) for the prepared input rows `t`: out[t * out_stride + row] is set,
/// or added to. Any number of threads may compute disjoint parts.
pub unsafe fn product(
    m: &Matrix,
    inputs: &Inputs,
    t: Range<usize>,
    rows: Range<usize>,
    out: *mut f32,
    out_stride: usize,
    add: bool,
    activations: Activations,
) {
    let plan = plan(m, inputs, activations);
    let out = Output { at: out, stride: out_stride, add, end: rows.end };
    let tiles = rows.start / ROW_TILE..rows.end.div_ceil(ROW_TILE);
    if t.len() == 1 || t.len() <= DIRECT_TOKENS && !plan.unpack[0] {
        let mut tile = tiles.start;
        while tile < tiles.end {
            let count = (2 - tile % 2).min(tiles.end - tile);
            for token in t.clone() {
                direct_tiles(&plan, token, tile, count, &out);
            }
            tile += count;
        }
        return;
    }
    let mut first = t.start;
    while first < t.end {
        let end = t.end.min((first / GROUP + PANEL_GROUPS) * GROUP);
        for tile in tiles.clone() {
            group_tile(&plan, first..end, tile, &out);
        }
        first = end;
    }
}
