//! Products of weight matrices and input rows: out[t][row] = sum over k of w[row][k] * x[t][k].
//!
//! One order of operations for every batch size, row range and thread count: an output's f32 sum starts at 0 and takes the
//! blocks of 32 columns in ascending order, in each block first the quantised product times its scale, then the minimum
//! times the input's sum. Integer sums are exact, so the two ways to form them (sums of 16 bits or of 32 bits, whichever
//! this CPU is faster at) give the same bits.
//!
//! One or two tokens multiply straight from the records. More share a panel: the tile's weights, unpacked once into L1.

use crate::matrix::*;
use crate::product_i16::{kernel_i16, wide_panel, WIDE_RECORD};
use crate::product_i8::{byte_panel, is_nibbles, kernel_i8, BYTE_PANEL, BYTE_RECORD};
use crate::quantize::*;
use crate::simd::*;
use std::mem::MaybeUninit;
use std::ops::Range;

pub use crate::matrix::{Matrix, ROW_TILE};
pub use crate::quantize::{prepare, Activations, Inputs};

/// Tokens of one call of a kernel.
pub const TOKENS: usize = 4;
/// Tokens that multiply straight from the records.
const DIRECT_TOKENS: usize = 2;
/// Tokens that share one panel before it is made anew.
const PANEL_TOKENS: usize = 64;
/// Half of the L1 cache.
const PANEL_BYTES: usize = 16384;

/// Rows of prepared inputs as a kernel sees them: `rows` and `scales` point at the first token's first block, strides
/// are in bytes.
#[derive(Clone, Copy)]
pub struct Tokens {
    pub rows: *const u8,
    pub row_stride: usize,
    pub scales: *const u8,
    pub scale_stride: usize,
}

impl Tokens {
    #[inline(always)]
    unsafe fn at(self, token: usize) -> Self {
        Tokens {
            rows: self.rows.add(token * self.row_stride),
            scales: self.scales.add(token * self.scale_stride),
            ..self
        }
    }
}

/// Adds the products of one tile and `blocks` blocks to `sums` [token][2 vectors].
pub type Kernel = unsafe fn(record: *const u8, blocks: usize, tokens: &Tokens, sums: *mut v128);

/// Unpacks `blocks` records into a panel.
pub type Unpack = unsafe fn(dtype: u32, record: *const u8, blocks: usize, panel: *mut u8);

#[repr(C, align(64))]
struct Panel(MaybeUninit<[u8; PANEL_BYTES]>);

#[inline(never)]
unsafe fn kernel_f32_n<const N: usize>(record: *const u8, blocks: usize, tokens: &Tokens, sums: *mut v128) {
    let x: [*const u8; N] = std::array::from_fn(|n| tokens.rows.add(n * tokens.row_stride));
    let mut acc: [[v128; 2]; N] = std::array::from_fn(|n| [v128_load(sums.add(2 * n)), v128_load(sums.add(2 * n + 1))]);
    for block in 0..blocks {
        for part in 0..4 {
            let weights = (record as *const v128).add(block * 64 + part * 16);
            for col in 0..8 {
                let w = [v128_load(weights.add(2 * col)), v128_load(weights.add(2 * col + 1))];
                for n in 0..N {
                    let at = x[n].add((block * BLOCK + part * 8 + col) * 4);
                    let value = v128_load32_splat(at as *const u32);
                    acc[n] = [madd(w[0], value, acc[n][0]), madd(w[1], value, acc[n][1])];
                }
            }
        }
    }
    for n in 0..N {
        v128_store(sums.add(2 * n), acc[n][0]);
        v128_store(sums.add(2 * n + 1), acc[n][1]);
    }
}

fn kernel_f32(tokens: usize) -> Kernel {
    match tokens {
        1 => kernel_f32_n::<1>,
        2 => kernel_f32_n::<2>,
        3 => kernel_f32_n::<3>,
        _ => kernel_f32_n::<4>,
    }
}

unsafe fn f32_panel(dtype: u32, record: *const u8, blocks: usize, panel: *mut u8) {
    for block in 0..blocks {
        dequantize_any(dtype, record.add(block * record_bytes(dtype)), panel.add(block * 1024) as *mut v128);
    }
}

/// How a product of one matrix is computed.
struct Plan {
    /// None: the kernel reads the records themselves.
    unpack: Option<Unpack>,
    /// Bytes of a record as the kernel reads it.
    record: usize,
    kernel: fn(u32, usize) -> Kernel,
    /// Type the kernel is told: the matrix's own, or that of the panel.
    reads: u32,
    inputs: Tokens,
    /// Bytes of a block of inputs and of its scales.
    block: (usize, usize),
}

unsafe fn plan(m: &Matrix, inputs: &Inputs, count: usize, activations: Activations) -> Plan {
    match m.needs(activations) {
        FORM_I8 => {
            let panel = is_nibbles(m.dtype) && count > DIRECT_TOKENS;
            Plan {
                unpack: if panel { Some(byte_panel) } else { None },
                record: if panel { BYTE_RECORD } else { m.record },
                kernel: kernel_i8,
                reads: if panel { BYTE_PANEL } else { m.dtype },
                inputs: Tokens {
                    rows: inputs.i8_rows as *const u8,
                    row_stride: inputs.i8_stride,
                    scales: inputs.i8_scales as *const u8,
                    scale_stride: inputs.scale_stride * 4,
                },
                block: (BLOCK, BLOCK_SCALES * 4),
            }
        }
        FORM_I16 => {
            let panel = count > DIRECT_TOKENS;
            Plan {
                unpack: if panel { Some(wide_panel) } else { None },
                record: if panel { WIDE_RECORD } else { m.record },
                kernel: kernel_i16,
                reads: if panel { crate::product_i16::panel_type(m.dtype) } else { m.dtype },
                inputs: Tokens {
                    rows: inputs.i16_rows as *const u8,
                    row_stride: inputs.i16_stride * 2,
                    scales: inputs.i16_scales as *const u8,
                    scale_stride: inputs.scale_stride * 4,
                },
                block: (BLOCK * 2, BLOCK_SCALES * 4),
            }
        }
        _ => Plan {
            unpack: if m.dtype == F32 { None } else { Some(f32_panel) },
            record: 1024,
            kernel: |_, tokens| kernel_f32(tokens),
            reads: F32,
            inputs: Tokens {
                rows: inputs.f32_rows as *const u8,
                row_stride: inputs.f32_stride * 4,
                scales: inputs.f32_rows as *const u8,
                scale_stride: 0,
            },
            block: (BLOCK * 4, 0),
        },
    }
}

/// Stores the sums of one tile, [token][8 rows], to `out`; rows beyond the matrix are dropped.
#[inline(always)]
unsafe fn store(sums: *const v128, count: usize, valid: usize, out: *mut f32, out_stride: usize, add: bool) {
    for t in 0..count {
        let to = out.add(t * out_stride);
        if valid == ROW_TILE {
            for v in 0..2 {
                let at = (to as *mut v128).add(v);
                let sum = v128_load(sums.add(2 * t + v));
                v128_store(at, if add { f32x4_add(v128_load(at), sum) } else { sum });
            }
        } else {
            let from = sums.add(2 * t) as *const f32;
            for row in 0..valid {
                let sum = *from.add(row);
                *to.add(row) = if add { *to.add(row) + sum } else { sum };
            }
        }
    }
}

#[inline(never)]
unsafe fn tile_product(plan: &Plan, m: &Matrix, tile: usize, tokens: Tokens, count: usize, sums: *mut v128) {
    for t in 0..2 * count {
        v128_store(sums.add(t), f32x4_splat(0.0));
    }
    let mut panel = Panel(MaybeUninit::uninit());
    let panel = panel.0.as_mut_ptr() as *mut u8;
    let step = if plan.unpack.is_some() { PANEL_BYTES / plan.record } else { m.blocks };
    let mut block = 0;
    while block < m.blocks {
        let blocks = step.min(m.blocks - block);
        let stored = m.tile(tile).add(block * m.record) as *const u8;
        let record = match plan.unpack {
            Some(unpack) => {
                unpack(m.dtype, stored, blocks, panel);
                panel
            }
            None => stored,
        };
        let here = Tokens {
            rows: tokens.rows.add(block * plan.block.0),
            scales: tokens.scales.add(block * plan.block.1),
            ..tokens
        };
        let mut t = 0;
        while t < count {
            let group = TOKENS.min(count - t);
            (plan.kernel)(plan.reads, group)(record, blocks, &here.at(t), sums.add(2 * t));
            t += group;
        }
        block += blocks;
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
    let plan = plan(m, inputs, t.len(), activations);
    let mut sums = [f32x4_splat(0.0); 2 * PANEL_TOKENS];
    let mut first = t.start;
    while first < t.end {
        let count = PANEL_TOKENS.min(t.end - first);
        let tokens = plan.inputs.at(first);
        let mut row = rows.start;
        while row < rows.end {
            tile_product(&plan, m, row / ROW_TILE, tokens, count, sums.as_mut_ptr());
            let valid = ROW_TILE.min(rows.end - row);
            store(sums.as_ptr(), count, valid, out.add(first * out_stride + row), out_stride, add);
            row += ROW_TILE;
        }
        first += count;
    }
}
