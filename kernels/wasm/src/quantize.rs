//! Inputs of matrix products: rows of activations in every form some matrix wants.
//!
//! Forms, per row and block of 32 columns:
//! * f32: the values;
//! * 8 bit: q = round(x / d), d = max |x| / 127;
//! * 16 bit: the same with 32767, each 4 columns in the order 0, 2, 1, 3 that the 16-bit dot wants.
//!
//! With the integers come d and d * sum(q) over the block and over each half of it: a weight is d_w * q_w + m_w, so a
//! block of a product is d_w * d * sum(q_w q) + m_w * d * sum(q).

use crate::matrix::{Matrix, BF16, BLOCK, F16, F32, Q8_0};
use crate::simd::*;
use std::ops::Range;

/// The forms of [`prepare`], as bits.
pub const FORM_F32: u32 = 1;
pub const FORM_I8: u32 = 2;
pub const FORM_I16: u32 = 4;

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
        match self.dtype {
            F32 | F16 | BF16 => FORM_F32,
            _ if activations == Activations::F32 => FORM_F32,
            Q8_0 => FORM_I16,
            _ if self.planes() == 2 => FORM_I16,
            _ => FORM_I8,
        }
    }
}

/// f32 numbers that go with a quantised block: d, d * sum, and d * sum of each half.
pub const BLOCK_SCALES: usize = 4;

/// Room for `max_t` rows of up to `max_k` values in every form. Rows of a form are `stride_*` elements apart.
#[repr(C)]
pub struct Inputs {
    pub max_t: usize,
    pub max_k: usize,
    pub f32_rows: *mut f32,
    pub f32_stride: usize,
    pub i8_rows: *mut i8,
    pub i8_stride: usize,
    pub i8_scales: *mut f32,
    pub i16_rows: *mut i16,
    pub i16_stride: usize,
    pub i16_scales: *mut f32,
    pub scale_stride: usize,
}

/// Zeroed memory that lives as long as the module; null when memory is exhausted.
unsafe fn forever<T>(count: usize) -> *mut T {
    std::alloc::alloc_zeroed(std::alloc::Layout::from_size_align_unchecked(count * size_of::<T>(), 64)) as *mut T
}

impl Inputs {
    /// Allocates; null when memory is exhausted.
    pub unsafe fn new(max_t: usize, max_k: usize) -> *mut Inputs {
        let padded = max_k.next_multiple_of(BLOCK);
        // An odd number of cache lines a row keeps the rows of a group of tokens out of each other's cache sets.
        let stride = |bytes: usize| ((padded * bytes).div_ceil(64) | 1) * 64 / bytes;
        let scale_stride = (padded / BLOCK).next_multiple_of(4) * BLOCK_SCALES + 16;
        let inputs = Inputs {
            max_t,
            max_k,
            f32_rows: forever(max_t * stride(4)),
            f32_stride: stride(4),
            i8_rows: forever(max_t * stride(1)),
            i8_stride: stride(1),
            i8_scales: forever(max_t * scale_stride),
            i16_rows: forever(max_t * stride(2)),
            i16_stride: stride(2),
            i16_scales: forever(max_t * scale_stride),
            scale_stride,
        };
        let parts = [
            inputs.f32_rows as usize,
            inputs.i8_rows as usize,
            inputs.i8_scales as usize,
            inputs.i16_rows as usize,
            inputs.i16_scales as usize,
        ];
        if parts.contains(&0) {
            return std::ptr::null_mut();
        }
        Box::into_raw(Box::new(inputs))
    }

    /// Frees what [`Inputs::new`] returned.
    pub unsafe fn free(inputs: *mut Inputs) {
        let it = Box::from_raw(inputs);
        unsafe fn release<T>(at: *mut T, count: usize) {
            let layout = std::alloc::Layout::from_size_align_unchecked(count * size_of::<T>(), 64);
            std::alloc::dealloc(at as *mut u8, layout);
        }
        release(it.f32_rows, it.max_t * it.f32_stride);
        release(it.i8_rows, it.max_t * it.i8_stride);
        release(it.i8_scales, it.max_t * it.scale_stride);
        release(it.i16_rows, it.max_t * it.i16_stride);
        release(it.i16_scales, it.max_t * it.scale_stride);
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

/// Largest magnitude of a block.
#[inline(always)]
fn magnitude(x: &[v128; 8]) -> f32 {
    let m: [v128; 8] = std::array::from_fn(|i| f32x4_abs(x[i]));
    let m: [v128; 4] = std::array::from_fn(|i| f32x4_max(m[i], m[i + 4]));
    let m = f32x4_max(f32x4_max(m[0], m[1]), f32x4_max(m[2], m[3]));
    let m = f32x4_max(m, i32x4_shuffle::<2, 3, 0, 1>(m, m));
    let m = f32x4_max(m, i32x4_shuffle::<1, 0, 3, 2>(m, m));
    f32x4_extract_lane::<0>(m)
}

/// Rounds a block to integers of magnitude at most `top`; returns them and the scale.
#[inline(always)]
fn round_block(x: &[v128; 8], top: f32) -> ([v128; 8], f32) {
    let largest = magnitude(x);
    let d = largest / top;
    // A block of zeros, or of values too small to have a reciprocal, becomes zeros.
    let inverse = if d > f32::MIN_POSITIVE { top / largest } else { 0.0 };
    let scale = f32x4_splat(inverse);
    (std::array::from_fn(|i| i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_mul(x[i], scale)))), d)
}

/// Writes d, d * sum, d * (sum of the first 16), d * (sum of the last 16).
#[inline(always)]
unsafe fn put_scales(out: *mut f32, q: &[v128; 8], d: f32) {
    let half = |at: usize| {
        let s = i32x4_add(i32x4_add(q[at], q[at + 1]), i32x4_add(q[at + 2], q[at + 3]));
        let s = i32x4_add(s, i32x4_shuffle::<2, 3, 0, 1>(s, s));
        i32x4_extract_lane::<0>(s) + i32x4_extract_lane::<1>(s)
    };
    let (first, last) = (half(0), half(4));
    let sums = i32x4(1, first + last, first, last);
    v128_store(out as *mut v128, f32x4_mul(f32x4_convert_i32x4(sums), f32x4_splat(d)));
}

#[inline(never)]
unsafe fn quantize_i8(x: *const f32, k: usize, q: *mut i8, scales: *mut f32) {
    for block in 0..k.div_ceil(BLOCK) {
        let values = load_block(x.add(block * BLOCK), k - block * BLOCK);
        let (rounded, d) = round_block(&values, 127.0);
        put_scales(scales.add(block * BLOCK_SCALES), &rounded, d);
        for half in 0..2 {
            let at = 4 * half;
            let low = i16x8_narrow_i32x4(rounded[at], rounded[at + 1]);
            let high = i16x8_narrow_i32x4(rounded[at + 2], rounded[at + 3]);
            v128_store(q.add(block * BLOCK + 16 * half) as *mut v128, i8x16_narrow_i16x8(low, high));
        }
    }
}

#[inline(never)]
unsafe fn quantize_i16(x: *const f32, k: usize, q: *mut i16, scales: *mut f32) {
    for block in 0..k.div_ceil(BLOCK) {
        let values = load_block(x.add(block * BLOCK), k - block * BLOCK);
        let (rounded, d) = round_block(&values, 32767.0);
        put_scales(scales.add(block * BLOCK_SCALES), &rounded, d);
        for part in 0..4 {
            let pair = i16x8_narrow_i32x4(rounded[2 * part], rounded[2 * part + 1]);
            let ordered = i16x8_shuffle::<0, 2, 1, 3, 4, 6, 5, 7>(pair, pair);
            v128_store(q.add(block * BLOCK + 8 * part) as *mut v128, ordered);
        }
    }
}

#[inline(never)]
unsafe fn copy_f32(x: *const f32, k: usize, out: *mut f32) {
    for block in 0..k.div_ceil(BLOCK) {
        let values = load_block(x.add(block * BLOCK), k - block * BLOCK);
        for (i, value) in values.iter().enumerate() {
            v128_store((out.add(block * BLOCK) as *mut v128).add(i), *value);
        }
    }
}

/// Brings rows `rows` of `x` (row i at x + i * stride, `k` values) into the forms named by `needs`, as rows `rows` of
/// `inputs`.
pub unsafe fn prepare(inputs: &Inputs, x: *const f32, stride: usize, k: usize, rows: Range<usize>, needs: u32) {
    for row in rows {
        let from = x.add(row * stride);
        if needs & FORM_F32 != 0 {
            copy_f32(from, k, inputs.f32_rows.add(row * inputs.f32_stride));
        }
        if needs & FORM_I8 != 0 {
            let scales = inputs.i8_scales.add(row * inputs.scale_stride);
            quantize_i8(from, k, inputs.i8_rows.add(row * inputs.i8_stride), scales);
        }
        if needs & FORM_I16 != 0 {
            let scales = inputs.i16_scales.add(row * inputs.scale_stride);
            quantize_i16(from, k, inputs.i16_rows.add(row * inputs.i16_stride), scales);
        }
    }
}
