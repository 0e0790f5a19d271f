//! Rotary position embedding: pair (a, b) at position p becomes (a cos - b sin, b cos + a sin), angle p * inverse frequency.

use crate::simd::*;

/// Cosines and sines of one position, `pairs` each, times `magnitude`. Angles, reduction and functions are in f64: right to
/// f32 for any angle. Computed once per token and step, used by all layers and heads.
#[inline(never)]
pub unsafe fn rope_table(
    position: u32,
    inverse_frequencies: *const f64,
    pairs: usize,
    magnitude: f32,
    cos: *mut f32,
    sin: *mut f32,
) {
    for i in 0..pairs {
        let (s, c) = (position as f64 * *inverse_frequencies.add(i)).sin_cos();
        *cos.add(i) = (c * magnitude as f64) as f32;
        *sin.add(i) = (s * magnitude as f64) as f32;
    }
}

/// Rotates the first `2 * pairs` values of each of `heads` heads in place; x [heads][head_dim]. Pairs are (i, i + pairs)
/// when `halves`, as Hugging Face files store rows, else (2i, 2i + 1), as GGUF LLaMA files do.
pub unsafe fn rope_apply(
    x: *mut f32,
    heads: usize,
    head_dim: usize,
    pairs: usize,
    cos: *const f32,
    sin: *const f32,
    halves: bool,
) {
    for head in 0..heads {
        let x = x.add(head * head_dim);
        if halves {
            rotate_halves(x, pairs, cos, sin);
        } else {
            rotate_adjacent(x, pairs, cos, sin);
        }
    }
}

#[inline(always)]
fn rotate(a: v128, b: v128, cos: v128, sin: v128) -> (v128, v128) {
    (madd(a, cos, f32x4_neg(f32x4_mul(b, sin))), madd(b, cos, f32x4_mul(a, sin)))
}

#[inline(never)]
unsafe fn rotate_halves(x: *mut f32, pairs: usize, cos: *const f32, sin: *const f32) {
    for i in (0..pairs).step_by(4) {
        let count = (pairs - i).min(4);
        let (low, high) = (x.add(i), x.add(i + pairs));
        let (a, b) = (load_part(low, count), load_part(high, count));
        let (a, b) = rotate(a, b, load_part(cos.add(i), count), load_part(sin.add(i), count));
        store_part(low, count, a);
        store_part(high, count, b);
    }
}

#[inline(never)]
unsafe fn rotate_adjacent(x: *mut f32, pairs: usize, cos: *const f32, sin: *const f32) {
    for i in (0..pairs).step_by(4) {
        let count = (pairs - i).min(4);
        let at = x.add(2 * i);
        let first = load_part(at, 2 * count);
        let second = load_part(at.add(4), (2 * count).saturating_sub(4));
        let (a, b) = (i32x4_shuffle::<0, 2, 4, 6>(first, second), i32x4_shuffle::<1, 3, 5, 7>(first, second));
        let (a, b) = rotate(a, b, load_part(cos.add(i), count), load_part(sin.add(i), count));
        store_part(at, 2 * count, i32x4_shuffle::<0, 4, 1, 5>(a, b));
        store_part(at.add(4), (2 * count).saturating_sub(4), i32x4_shuffle::<2, 6, 3, 7>(a, b));
    }
}
