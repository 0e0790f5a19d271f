//! Inputs of matrix products: rows of activations in every form some matrix wants.
//!
//! Forms, per row and block of 32 columns:
//! * f32: the values;
//! * 8 bit: q = round(x / d), d = max |x| / 127;
//! * 8 bit, hot: the same after outliers are taken out. A group of 4 columns whose largest magnitude is above 2 times the
//!   mean of the blocks' largest magnitudes is hot: it is rounded to 8 bits with a scale of its own, and only what is left
//!   of it goes into the block. A few per cent of the groups are hot and halve the error of a model's logits;
//! * 16 bit: 8 bit's way with 32767.
//!
//! With the integers come d and d * sum(q) (plus the hot groups' sums) over the block and over each half of it: a weight is
//! d_w * q_w + m_w, so a block of a product is d_w * d * sum(q_w q) + m_w * d * sum(q). All scales carry the factor
//! [`INPUT_UNIT`].
//!
//! Rows are kept in groups of four, interleaved so that one vector holds the same columns of four tokens: [k / n][token 4][n],
//! n = 4 columns of 8 bits, 2 of 16 bits (columns 0, 2, 1, 3 of each 4) or 1 f32; scales [block][d, sum, half sums][token 4].
//! For one token alone rows are kept once more as they are, with integers: [block][columns 32] and scales [block][4].

use crate::matrix::{Matrix, BF16, BLOCK, F16, F32, INPUT_HOT, INPUT_I16};
use crate::record::INPUT_UNIT;
use crate::simd::*;
use std::ops::Range;

/// The forms of [`prepare`], as bits. 8 bit and hot share their place: a row is in one of the two.
pub const FORM_F32: u32 = 1;
pub const FORM_I8: u32 = 2;
pub const FORM_HOT: u32 = 4;
pub const FORM_I16: u32 = 8;

/// Tokens of an interleaved group.
pub const GROUP: usize = 4;
/// Vectors of scales of a block: d, d * sum, and d * sum of each half.
pub const BLOCK_SCALES: usize = 4;
/// How far above the mean a group must be to be hot.
const HOT_FACTOR: f32 = 2.0;

/// How products represent their inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    I8,
    F32,
}

impl Activations {
    /// From the number that crosses the module's border: 0 is i8, 1 is f32.
    pub fn from_code(code: u32) -> Self {
        if code == 0 {
            Activations::I8
        } else {
            Activations::F32
        }
    }
}

impl Matrix {
    /// The form of inputs that products of this matrix read.
    #[inline(always)]
    pub fn needs(&self, activations: Activations) -> u32 {
        match (self.dtype, activations) {
            (F32 | F16 | BF16, _) | (_, Activations::F32) => FORM_F32,
            _ => match self.input() {
                INPUT_I16 => FORM_I16,
                INPUT_HOT => FORM_HOT,
                _ => FORM_I8,
            },
        }
    }
}

/// A hot group of one row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hot {
    /// Column of its first value, divided by 4.
    pub group: u32,
    /// Its four integers.
    pub q: u32,
    /// Their scale.
    pub d: f32,
}

/// Rows of one form, in groups of four tokens.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rows {
    /// First group.
    pub at: *mut u8,
    /// Bytes of a group.
    pub stride: usize,
    /// Bytes that 32 columns of a group take.
    pub block: usize,
    /// Scales of the first group; none with f32.
    pub scales: *mut u8,
    pub scale_stride: usize,
    pub scale_block: usize,
    /// Rows for one token alone: [row][block][16 bytes of scales, then 32 columns]; none with f32.
    pub flat: *mut u8,
    pub flat_stride: usize,
}

/// Room for `max_t` rows of up to `max_k` values in every form.
#[repr(C)]
pub struct Inputs {
    pub max_t: usize,
    pub max_k: usize,
    pub f32_rows: Rows,
    pub i8_rows: Rows,
    pub i16_rows: Rows,
    /// Hot groups of each row in ascending order, `hot_stride` entries apart, and how many.
    pub hot: *mut Hot,
    pub hot_stride: usize,
    pub hot_count: *mut u32,
}

unsafe fn take(bytes: usize) -> *mut u8 {
    std::alloc::alloc_zeroed(std::alloc::Layout::from_size_align_unchecked(bytes.max(64), 64))
}

unsafe fn release(at: *mut u8, bytes: usize) {
    if !at.is_null() {
        std::alloc::dealloc(at, std::alloc::Layout::from_size_align_unchecked(bytes.max(64), 64));
    }
}

impl Inputs {
    fn sizes(max_t: usize, max_k: usize) -> (usize, usize) {
        (max_t.div_ceil(GROUP), max_k.div_ceil(BLOCK))
    }

    unsafe fn rows(groups: usize, blocks: usize, bytes: usize, scaled: bool) -> Rows {
        let flat_stride = if scaled { blocks * (16 + BLOCK * bytes) } else { 0 };
        let block = BLOCK * GROUP * bytes;
        // An odd number of cache lines keeps the groups out of each other's cache sets.
        let stride = blocks * block + 64;
        let scale_block = if scaled { BLOCK_SCALES * 16 } else { 0 };
        let scale_stride = blocks * scale_block;
        Rows {
            at: take(groups * stride),
            stride,
            block,
            scales: take(groups * scale_stride),
            scale_stride,
            scale_block,
            flat: take(groups * GROUP * flat_stride),
            flat_stride,
        }
    }

    /// Allocates; null when memory is exhausted.
    pub unsafe fn new(max_t: usize, max_k: usize) -> *mut Inputs {
        let (groups, blocks) = Self::sizes(max_t, max_k);
        let hot_stride = blocks * BLOCK / 4;
        let inputs = Box::new(Inputs {
            max_t,
            max_k,
            f32_rows: Self::rows(groups, blocks, 4, false),
            i8_rows: Self::rows(groups, blocks, 1, true),
            i16_rows: Self::rows(groups, blocks, 2, true),
            hot: take(max_t * hot_stride * size_of::<Hot>()) as *mut Hot,
            hot_stride,
            hot_count: take(max_t * 4) as *mut u32,
        });
        let rows = [inputs.f32_rows, inputs.i8_rows, inputs.i16_rows];
        let missing = rows.iter().any(|rows| rows.at.is_null() || rows.scales.is_null() || rows.flat.is_null())
            || inputs.hot.is_null()
            || inputs.hot_count.is_null();
        let inputs = Box::into_raw(inputs);
        if missing {
            Self::free(inputs);
            return std::ptr::null_mut();
        }
        inputs
    }

    /// Frees what [`Inputs::new`] returned.
    pub unsafe fn free(inputs: *mut Inputs) {
        let it = Box::from_raw(inputs);
        let (groups, _) = Self::sizes(it.max_t, it.max_k);
        for rows in [it.f32_rows, it.i8_rows, it.i16_rows] {
            release(rows.at, groups * rows.stride);
            release(rows.scales, groups * rows.scale_stride);
            release(rows.flat, groups * GROUP * rows.flat_stride);
        }
        release(it.hot as *mut u8, it.max_t * it.hot_stride * size_of::<Hot>());
        release(it.hot_count as *mut u8, it.max_t * 4);
    }
}

#[inline(always)]
unsafe fn load_block(x: *const f32, count: usize) -> [v128; 8] {
    if count >= BLOCK {
        return std::array::from_fn(|i| v128_load((x as *const v128).add(i)));
    }
    let mut padded = [0f32; BLOCK];
    std::ptr::copy_nonoverlapping(x, padded.as_mut_ptr(), count);
    std::array::from_fn(|i| v128_load((padded.as_ptr() as *const v128).add(i)))
}

/// Largest of four lanes.
#[inline(always)]
fn largest(m: v128) -> f32 {
    let m = f32x4_max(m, i32x4_shuffle::<2, 3, 0, 1>(m, m));
    let m = f32x4_max(m, i32x4_shuffle::<1, 0, 3, 2>(m, m));
    f32x4_extract_lane::<0>(m)
}

/// Largest magnitude of a block.
#[inline(always)]
fn magnitude(x: &[v128; 8]) -> f32 {
    let m: [v128; 8] = std::array::from_fn(|i| f32x4_abs(x[i]));
    let m: [v128; 4] = std::array::from_fn(|i| f32x4_max(m[i], m[i + 4]));
    largest(f32x4_max(f32x4_max(m[0], m[1]), f32x4_max(m[2], m[3])))
}

/// Scale of integers up to `top` for values up to `most`, and its reciprocal: 0 for zeros and for values too small to have
/// one.
#[inline(always)]
fn scale_of(most: f32, top: f32) -> (f32, f32) {
    let d = most * (1.0 / top);
    (d, if d > f32::MIN_POSITIVE { top / most } else { 0.0 })
}

/// x * inverse to the nearest integer, ties to even, for results below 2^22: adding 1.5 * 2^23 leaves no bits for a
/// fraction, and the integer in the low ones.
#[inline(always)]
fn round(x: v128, inverse: f32) -> v128 {
    const SHIFT: f32 = 12_582_912.0;
    let shifted = f32x4_add(f32x4_mul(x, f32x4_splat(inverse)), f32x4_splat(SHIFT));
    i32x4_sub(shifted, i32x4_splat(SHIFT.to_bits() as i32))
}

#[inline(always)]
fn sum_lanes(s: v128) -> i32 {
    let s = i32x4_add(s, i32x4_shuffle::<2, 3, 0, 1>(s, s));
    i32x4_extract_lane::<0>(s) + i32x4_extract_lane::<1>(s)
}

/// Sums of the two halves of a block.
#[inline(always)]
fn half_sums(q: &[v128; 8]) -> [i32; 2] {
    std::array::from_fn(|half| {
        let q = &q[4 * half..];
        sum_lanes(i32x4_add(i32x4_add(q[0], q[1]), i32x4_add(q[2], q[3])))
    })
}

/// Writes d, the sum, and the half sums of one row's block.
#[inline(always)]
unsafe fn put_scales(place: *mut u8, flat: *mut u8, d: f32, sums: [i32; 2], hot: [f32; 2]) {
    let fields = f32x4(
        d,
        d * (sums[0] + sums[1]) as f32 + (hot[0] + hot[1]),
        d * sums[0] as f32 + hot[0],
        d * sums[1] as f32 + hot[1],
    );
    let fields = f32x4_mul(fields, f32x4_splat(INPUT_UNIT));
    v128_store(flat as *mut v128, fields);
    let place = place as *mut u32;
    v128_store32_lane::<0>(fields, place);
    v128_store32_lane::<1>(fields, place.add(GROUP));
    v128_store32_lane::<2>(fields, place.add(2 * GROUP));
    v128_store32_lane::<3>(fields, place.add(3 * GROUP));
}

/// Writes four words, one every 16 bytes.
#[inline(always)]
unsafe fn put_words(place: *mut u8, words: v128) {
    let place = place as *mut u32;
    v128_store32_lane::<0>(words, place);
    v128_store32_lane::<1>(words, place.add(GROUP));
    v128_store32_lane::<2>(words, place.add(2 * GROUP));
    v128_store32_lane::<3>(words, place.add(3 * GROUP));
}

/// The low byte of each lane, in one word.
#[inline(always)]
fn pack(q: v128) -> u32 {
    let q = i8x16_shuffle::<0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>(q, q);
    u32x4_extract_lane::<0>(q)
}

/// Writes each block's largest magnitude to the first place of its flat scales; returns the limit above which a group of
/// 4 is hot.
#[inline(always)]
unsafe fn magnitudes(x: *const f32, k: usize, flat: *mut u8) -> f32 {
    let blocks = k.div_ceil(BLOCK);
    let mut sum = 0.0;
    for block in 0..blocks {
        let most = magnitude(&load_block(x.add(block * BLOCK), k - block * BLOCK));
        *(flat.add(block * (16 + BLOCK)) as *mut f32) = most;
        sum += most;
    }
    HOT_FACTOR * (sum / blocks as f32)
}

#[inline(never)]
unsafe fn quantize_i8(x: *const f32, k: usize, inputs: &Inputs, row: usize, hot: bool) {
    let rows = &inputs.i8_rows;
    let q = rows.at.add(row / GROUP * rows.stride + row % GROUP * 4);
    let scales = rows.scales.add(row / GROUP * rows.scale_stride + row % GROUP * 4);
    let flat = rows.flat.add(row * rows.flat_stride);
    let limit = magnitudes(x, k, flat);
    let limit = if hot { limit } else { f32::INFINITY };
    let mut count = 0;
    for block in 0..k.div_ceil(BLOCK) {
        let mut values = load_block(x.add(block * BLOCK), k - block * BLOCK);
        let flat = flat.add(block * (16 + BLOCK));
        let mut most = *(flat as *const f32);
        let mut hot_sums = [0.0; 2];
        if most > limit {
            for (i, value) in values.iter_mut().enumerate() {
                let peak = largest(f32x4_abs(*value));
                if peak > limit {
                    let (d, inverse) = scale_of(peak, 127.0);
                    let rounded = round(*value, inverse);
                    *value = madd(f32x4_convert_i32x4(rounded), f32x4_splat(-d), *value);
                    hot_sums[i / 4] += d * sum_lanes(rounded) as f32;
                    *inputs.hot.add(row * inputs.hot_stride + count) =
                        Hot { group: (block * 8 + i) as u32, q: pack(rounded), d: d * INPUT_UNIT };
                    count += 1;
                }
            }
            most = magnitude(&values);
        }
        let (d, inverse) = scale_of(most, 127.0);
        let rounded: [v128; 8] = std::array::from_fn(|i| round(values[i], inverse));
        put_scales(scales.add(block * rows.scale_block), flat, d, half_sums(&rounded), hot_sums);
        for half in 0..2 {
            let part = &rounded[4 * half..];
            let words = i8x16_narrow_i16x8(i16x8_narrow_i32x4(part[0], part[1]), i16x8_narrow_i32x4(part[2], part[3]));
            v128_store(flat.add(16 + 16 * half) as *mut v128, words);
            put_words(q.add(block * rows.block + 64 * half), words);
        }
    }
    *inputs.hot_count.add(row) = count as u32;
}

#[inline(never)]
unsafe fn quantize_i16(x: *const f32, k: usize, inputs: &Inputs, row: usize) {
    let rows = &inputs.i16_rows;
    let q = rows.at.add(row / GROUP * rows.stride + row % GROUP * 4);
    let scales = rows.scales.add(row / GROUP * rows.scale_stride + row % GROUP * 4);
    let flat = rows.flat.add(row * rows.flat_stride);
    for block in 0..k.div_ceil(BLOCK) {
        let values = load_block(x.add(block * BLOCK), k - block * BLOCK);
        let (d, inverse) = scale_of(magnitude(&values), 32767.0);
        let rounded: [v128; 8] = std::array::from_fn(|i| round(values[i], inverse));
        let flat = flat.add(block * (16 + 2 * BLOCK));
        put_scales(scales.add(block * rows.scale_block), flat, d, half_sums(&rounded), [0.0; 2]);
        for part in 0..4 {
            let pair = i16x8_narrow_i32x4(rounded[2 * part], rounded[2 * part + 1]);
            let words = i16x8_shuffle::<0, 2, 1, 3, 4, 6, 5, 7>(pair, pair);
            v128_store(flat.add(16 + 16 * part) as *mut v128, words);
            put_words(q.add(block * rows.block + 64 * part), words);
        }
    }
}

#[inline(never)]
unsafe fn copy_f32(x: *const f32, k: usize, inputs: &Inputs, row: usize) {
    let rows = &inputs.f32_rows;
    let out = rows.at.add(row / GROUP * rows.stride) as *mut f32;
    for col in 0..k.next_multiple_of(BLOCK) {
        *out.add(col * GROUP + row % GROUP) = if col < k { *x.add(col) } else { 0.0 };
    }
}

/// Brings rows `rows` of `x` (row i at x + i * stride, `k` values) into the forms named by `needs`, as rows `rows` of
/// `inputs`.
pub unsafe fn prepare(inputs: &Inputs, x: *const f32, stride: usize, k: usize, rows: Range<usize>, needs: u32) {
    for row in rows {
        let from = x.add(row * stride);
        if needs & FORM_F32 != 0 {
            copy_f32(from, k, inputs, row);
        }
        if needs & (FORM_I8 | FORM_HOT) != 0 {
            quantize_i8(from, k, inputs, row, needs & FORM_HOT != 0);
        }
        if needs & FORM_I16 != 0 {
            quantize_i16(from, k, inputs, row);
        }
    }
}
