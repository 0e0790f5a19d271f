//! Weight matrices, repacked for the vector unit.
//!
//! Stored rows are cut into tiles of 8 rows and blocks of 32 columns. In a record (one block of one tile) vector lane r
//! holds row r (or 4 + r): products need no horizontal sums. The records of two neighbouring tiles alternate, so that 16
//! rows are one stream of memory. Rows and columns are padded with zeros.
//!
//! Record, by type (v = 0, 1 selects rows 4v to 4v + 3; s = 0..8 selects columns 4s to 4s + 3):
//!
//! | type | scales | weights |
//! |---|---|---|
//! | Q4_0 | d f16 [8] | nibble vectors [i 4][v 2]: low nibbles are columns 4i.., high nibbles 16 + 4i.. |
//! | Q4_1 | d f16 [8], m f16 [8] | nibble vectors |
//! | Q4_K | d f32 [8], m f32 [8] | nibble vectors |
//! | Q5_K | d f32 [8], m f32 [8] | byte vectors [s 8][v 2] |
//! | Q6_K | d f32 [16 columns: 2][8] | byte vectors |
//! | Q8_0 | d f16 [8] | signed bytes [s 8][v 2][columns 0, 2; columns 1, 3][row 4] |
//! | F32, F16, BF16 | | [column 32][row 8] |
//!
//! A weight is d * q + m: Q4_0 has m = -8 d, Q6_K has m = -32 d, both exact. The K types' d and m are the exact products of
//! their two stored factors.
//!
//! Products read scales in a domain of powers of two that saves the last step of decoding an f16: see
//! [`crate::record::unit`].

use crate::record::{dequantize_any, half_to_f32, K_UNIT};
use crate::simd::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wasm_bindgen::prelude::*;

pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const BF16: u32 = 2;
pub const Q8_0: u32 = 3;
pub const Q4_0: u32 = 4;
pub const Q4_1: u32 = 5;
pub const Q4_K: u32 = 6;
pub const Q5_K: u32 = 7;
pub const Q6_K: u32 = 8;

/// Forms of the integer path's inputs; see [`crate::quantize`].
pub const INPUT_I8: u32 = 0;
pub const INPUT_HOT: u32 = 1;
pub const INPUT_I16: u32 = 2;

/// Rows of a tile. Row ranges of a product start at a multiple of it.
pub const ROW_TILE: usize = 8;
/// Columns of a block.
pub const BLOCK: usize = 32;

/// A repacked matrix of `rows` x `cols` weights.
#[repr(C)]
pub struct Matrix {
    pub dtype: u32,
    pub rows: usize,
    pub cols: usize,
    /// Blocks of 32 columns in a row, the last one padded.
    pub blocks: usize,
    /// Bytes of a record.
    pub record: usize,
    pub data: *mut u8,
    /// Form of the integer path's inputs, one of the `INPUT_` codes.
    input: AtomicU32,
}

impl Matrix {
    /// Address of the record of a tile and a block. The tile's next block is [`Matrix::step`] bytes on; the second tile
    /// of a pair is one record behind the first.
    #[inline(always)]
    pub unsafe fn at(&self, tile: usize, block: usize) -> *mut u8 {
        self.data.add(((tile / 2 * self.blocks + block) * 2 + tile % 2) * self.record)
    }

    /// Bytes from a tile's record to its next.
    #[inline(always)]
    pub fn step(&self) -> usize {
        2 * self.record
    }

    /// Form of the integer path's inputs, one of the `INPUT_` codes.
    #[inline(always)]
    pub fn input(&self) -> u32 {
        self.input.load(Relaxed)
    }
}

/// Bytes of the scales at the head of a record.
pub const fn scale_bytes(dtype: u32) -> usize {
    match dtype {
        Q8_0 | Q4_0 => 16,
        Q4_1 => 32,
        Q4_K | Q5_K | Q6_K => 64,
        _ => 0,
    }
}

/// Bytes from a tile's record to its next.
pub const fn step_bytes(dtype: u32) -> usize {
    2 * record_bytes(dtype)
}

/// Bytes of a record; 0 for an unknown type.
pub const fn record_bytes(dtype: u32) -> usize {
    scale_bytes(dtype)
        + match dtype {
            F32 => 1024,
            F16 | BF16 => 512,
            Q4_0 | Q4_1 | Q4_K => 128,
            Q8_0 | Q5_K | Q6_K => 256,
            _ => 0,
        }
}

/// Whether a record holds nibble vectors.
pub const fn is_nibbles(dtype: u32) -> bool {
    matches!(dtype, Q4_0 | Q4_1 | Q4_K)
}

/// Columns and bytes of a stored block of the model file.
const fn stored_block(dtype: u32) -> (usize, usize) {
    match dtype {
        F32 => (1, 4),
        F16 | BF16 => (1, 2),
        Q8_0 => (32, 34),
        Q4_0 => (32, 18),
        Q4_1 => (32, 20),
        Q4_K => (256, 144),
        Q5_K => (256, 176),
        _ => (256, 210),
    }
}

/// Bytes a matrix takes in this memory. Codes of `dtype`: F32 0, F16 1, BF16 2, Q8_0 3, Q4_0 4, Q4_1 5, Q4_K 6, Q5_K 7,
/// Q6_K 8.
#[wasm_bindgen]
pub fn matrix_bytes(dtype: u32, rows: usize, cols: usize) -> f64 {
    2.0 * rows.div_ceil(2 * ROW_TILE) as f64 * cols.div_ceil(BLOCK) as f64 * record_bytes(dtype) as f64
}

/// Allocates a matrix to load rows into. 0 when memory is exhausted or the shape does not fit the type (codes as in
/// [`matrix_bytes`]; `cols` is a multiple of the type's stored block).
#[wasm_bindgen]
pub fn matrix_new(dtype: u32, rows: usize, cols: usize) -> usize {
    let bytes = matrix_bytes(dtype, rows, cols);
    if dtype > Q6_K || rows == 0 || cols == 0 || cols % stored_block(dtype).0 != 0 || bytes >= 4294967296.0 {
        return 0;
    }
    let Ok(layout) = std::alloc::Layout::from_size_align(bytes as usize, 64) else { return 0 };
    let data = unsafe { std::alloc::alloc(layout) };
    if data.is_null() {
        return 0;
    }
    // Only the last pair of tiles has rows that no load writes.
    let last = bytes as usize - bytes as usize / rows.div_ceil(2 * ROW_TILE);
    unsafe { std::ptr::write_bytes(data.add(last), 0, bytes as usize - last) };
    Box::into_raw(Box::new(Matrix {
        dtype,
        rows,
        cols,
        blocks: cols.div_ceil(BLOCK),
        record: record_bytes(dtype),
        data,
        input: AtomicU32::new(if dtype == Q8_0 { INPUT_I16 } else { INPUT_HOT }),
    })) as usize
}

/// Frees a matrix.
#[wasm_bindgen]
pub fn matrix_free(matrix: usize) {
    unsafe {
        let matrix = Box::from_raw(matrix as *mut Matrix);
        let bytes = matrix_bytes(matrix.dtype, matrix.rows, matrix.cols) as usize;
        std::alloc::dealloc(matrix.data, std::alloc::Layout::from_size_align(bytes, 64).unwrap());
    }
}

/// Sets how the integer path represents this matrix's inputs: 0 as 8 bits, 1 (the default) as 8 bits with a second term
/// for outliers, 2 as 16 bits. Q8_0 always takes 16 bits.
#[wasm_bindgen]
pub fn matrix_set_input(matrix: usize, input: u32) {
    let m = unsafe { &*(matrix as *const Matrix) };
    if m.dtype != Q8_0 {
        m.input.store(input, Relaxed);
    }
}

#[inline(always)]
unsafe fn u16_at(source: *const u8) -> u16 {
    (source as *const u16).read_unaligned()
}

#[inline(always)]
unsafe fn u32_at(source: *const u8) -> u32 {
    (source as *const u32).read_unaligned()
}

/// Puts the 32 weight bytes of one row into a record of byte vectors; `place` is the row's first byte there.
#[inline(always)]
unsafe fn put_bytes(place: *mut u8, bytes: *const u8) {
    for step in 0..8 {
        (place.add(32 * step) as *mut u32).write(u32_at(bytes.add(4 * step)));
    }
}

/// Puts the 32 weights of one row into a record of Q8_0.
#[inline(always)]
unsafe fn put_signed(place: *mut u8, bytes: *const u8) {
    for step in 0..8 {
        let word = u32_at(bytes.add(4 * step));
        let to = place.add(32 * step) as *mut u16;
        to.write((word & 0xff | word >> 8 & 0xff00) as u16);
        to.add(4).write((word >> 8 & 0xff | word >> 16 & 0xff00) as u16);
    }
}

/// Puts 16 bytes of nibble pairs (columns j and 16 + j) of one row into a record of nibble vectors.
#[inline(always)]
unsafe fn put_nibbles(place: *mut u8, bytes: *const u8) {
    for step in 0..4 {
        (place.add(32 * step) as *mut u32).write(u32_at(bytes.add(4 * step)));
    }
}

/// Puts a scale of a K type.
#[inline(always)]
unsafe fn put_scale(place: *mut u8, value: f32) {
    (place as *mut f32).write(value * K_UNIT);
}

/// The 6-bit scale and minimum of sub-block `j` of a Q4_K or Q5_K block.
#[inline(always)]
unsafe fn scale_and_min(packed: *const u8, j: usize) -> (u8, u8) {
    if j < 4 {
        (*packed.add(j) & 63, *packed.add(j + 4) & 63)
    } else {
        let (low, high) = (*packed.add(j + 4), (*packed.add(j - 4), *packed.add(j)));
        (low & 15 | high.0 >> 6 << 4, low >> 4 | high.1 >> 6 << 4)
    }
}

unsafe fn load_q4_k(mut record: *mut u8, stride: usize, slot: usize, source: *const u8) {
    let (d, dmin) = (half_to_f32(u16_at(source)), half_to_f32(u16_at(source.add(2))));
    let low = u8x16_splat(15);
    for sub in 0..8 {
        let (scale, min) = scale_and_min(source.add(4), sub);
        put_scale(record.add(4 * slot), d * scale as f32);
        put_scale(record.add(32 + 4 * slot), -(dmin * min as f32));
        let quants = source.add(16 + 32 * (sub / 2)) as *const v128;
        let (first, second) = (v128_load(quants), v128_load(quants.add(1)));
        let packed = if sub % 2 == 0 {
            v128_or(v128_and(first, low), u8x16_shl(second, 4))
        } else {
            v128_or(u8x16_shr(first, 4), v128_andnot(second, low))
        };
        put_nibbles(record.add(64 + 4 * slot), &packed as *const v128 as *const u8);
        record = record.add(stride);
    }
}

unsafe fn load_q5_k(mut record: *mut u8, stride: usize, slot: usize, source: *const u8) {
    let (d, dmin) = (half_to_f32(u16_at(source)), half_to_f32(u16_at(source.add(2))));
    for sub in 0..8 {
        let (scale, min) = scale_and_min(source.add(4), sub);
        put_scale(record.add(4 * slot), d * scale as f32);
        put_scale(record.add(32 + 4 * slot), -(dmin * min as f32));
        let mut bytes = [u8x16_splat(0); 2];
        for (half, out) in bytes.iter_mut().enumerate() {
            let high = v128_load((source.add(16) as *const v128).add(half));
            let quants = v128_load((source.add(48 + 32 * (sub / 2)) as *const v128).add(half));
            let nibble = if sub % 2 == 0 { v128_and(quants, u8x16_splat(15)) } else { u8x16_shr(quants, 4) };
            let bit = v128_and(u8x16_shr(high, sub as u32), u8x16_splat(1));
            *out = v128_or(nibble, u8x16_shl(bit, 4));
        }
        put_bytes(record.add(64 + 4 * slot), bytes.as_ptr() as *const u8);
        record = record.add(stride);
    }
}

unsafe fn load_q6_k(mut record: *mut u8, stride: usize, slot: usize, source: *const u8) {
    let d = half_to_f32(u16_at(source.add(208)));
    for sub in 0..8 {
        // 128 columns share 64 bytes of low nibbles and 32 bytes of two high bits; quarter q of them is one block.
        let (half, quarter) = (sub / 4, sub % 4);
        let mut bytes = [u8x16_splat(0); 2];
        for (part, out) in bytes.iter_mut().enumerate() {
            let low = v128_load(source.add(64 * half + 32 * (quarter % 2) + 16 * part) as *const v128);
            let high = v128_load(source.add(128 + 32 * half + 16 * part) as *const v128);
            let nibble = if quarter < 2 { v128_and(low, u8x16_splat(15)) } else { u8x16_shr(low, 4) };
            let bits = v128_and(u8x16_shr(high, 2 * quarter as u32), u8x16_splat(3));
            *out = v128_or(nibble, u8x16_shl(bits, 4));
            let scale = *(source.add(192 + 8 * half + 2 * quarter + part) as *const i8);
            put_scale(record.add(32 * part + 4 * slot), d * scale as f32);
        }
        put_bytes(record.add(64 + 4 * slot), bytes.as_ptr() as *const u8);
        record = record.add(stride);
    }
}

#[inline(never)]
unsafe fn load_row(m: &Matrix, row: usize, source: *const u8) {
    let slot = row % ROW_TILE;
    // Byte of the row's lane in a pair of vectors.
    let lane = 4 * slot;
    let record = m.at(row / ROW_TILE, 0);
    let stride = m.step();
    match m.dtype {
        F32 => {
            for col in 0..m.cols {
                let place = record.add(col / BLOCK * stride) as *mut u32;
                place.add(col % BLOCK * ROW_TILE + slot).write(u32_at(source.add(4 * col)));
            }
        }
        F16 | BF16 => {
            for col in 0..m.cols {
                let place = record.add(col / BLOCK * stride) as *mut u16;
                place.add(col % BLOCK * ROW_TILE + slot).write(u16_at(source.add(2 * col)));
            }
        }
        Q8_0 => {
            for block in 0..m.blocks {
                let (to, from) = (record.add(block * stride), source.add(34 * block));
                (to as *mut u16).add(slot).write(u16_at(from));
                put_signed(to.add(16 + lane / 16 * 16 + lane % 16 / 2), from.add(2));
            }
        }
        Q4_0 => {
            for block in 0..m.blocks {
                let (to, from) = (record.add(block * stride), source.add(18 * block));
                (to as *mut u16).add(slot).write(u16_at(from));
                put_nibbles(to.add(16 + lane), from.add(2));
            }
        }
        Q4_1 => {
            for block in 0..m.blocks {
                let (to, from) = (record.add(block * stride), source.add(20 * block));
                (to as *mut u16).add(slot).write(u16_at(from));
                (to as *mut u16).add(8 + slot).write(u16_at(from.add(2)));
                put_nibbles(to.add(32 + lane), from.add(4));
            }
        }
        _ => {
            let (_, bytes) = stored_block(m.dtype);
            for block in 0..m.cols / 256 {
                let (to, from) = (record.add(8 * block * stride), source.add(bytes * block));
                match m.dtype {
                    Q4_K => load_q4_k(to, stride, slot, from),
                    Q5_K => load_q5_k(to, stride, slot, from),
                    _ => load_q6_k(to, stride, slot, from),
                }
            }
        }
    }
}

/// Repacks `count` stored rows at `source` into rows `row..row + count` of the matrix.
#[wasm_bindgen]
pub fn matrix_load(matrix: usize, row: usize, count: usize, source: usize) {
    let m = unsafe { &*(matrix as *const Matrix) };
    let (cols, bytes) = stored_block(m.dtype);
    let stored = m.cols / cols * bytes;
    for index in 0..count {
        unsafe {
            if m.cols % BLOCK != 0 && (row + index) % ROW_TILE == 0 {
                // The padded columns belong to no row.
                let last = m.at((row + index) / ROW_TILE, m.blocks - 1);
                std::ptr::write_bytes(last, 0, m.record);
            }
            load_row(m, row + index, (source as *const u8).add(index * stored));
        }
    }
}

/// Writes row `row`, dequantised, to `out` [cols].
pub unsafe fn row_f32(m: &Matrix, row: usize, out: *mut f32) {
    let mut tile = [f32x4_splat(0.0); 64];
    let values = tile.as_mut_ptr() as *mut f32;
    for block in 0..m.blocks {
        dequantize_any(m.dtype, m.at(row / ROW_TILE, block), values as *mut v128);
        for col in 0..BLOCK.min(m.cols - block * BLOCK) {
            *out.add(block * BLOCK + col) = *values.add(col * ROW_TILE + row % ROW_TILE);
        }
    }
}

/// [`row_f32`] for tests: writes row `row` to `out` [cols].
#[wasm_bindgen]
pub fn matrix_row(matrix: usize, row: usize, out: usize) {
    unsafe { row_f32(&*(matrix as *const Matrix), row, out as *mut f32) };
}
