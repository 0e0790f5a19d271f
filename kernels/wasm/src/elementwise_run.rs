//! The elementwise kernels as single calls on the calling thread, for tests and benches.

use crate::{activation, logits, norm, rope};
use wasm_bindgen::prelude::*;

/// RMSNorm of `rows` rows of `n` values.
#[wasm_bindgen]
pub fn rmsnorm_run(x: usize, w: usize, y: usize, rows: usize, n: usize, eps: f32) {
    for row in 0..rows {
        let offset = row * n;
        unsafe { norm::rmsnorm((x as *const f32).add(offset), w as *const f32, eps, n, (y as *mut f32).add(offset)) }
    }
}

/// Rotates x [tokens][heads][head_dim] at `positions` [tokens] (u32) in place; `halves` 0 or 1.
#[wasm_bindgen]
pub fn rope_run(
    x: usize,
    positions: usize,
    tokens: usize,
    heads: usize,
    head_dim: usize,
    inverse_frequencies: usize,
    pairs: usize,
    halves: u32,
    magnitude: f32,
) {
    let (mut cos, mut sin) = (vec![0f32; pairs], vec![0f32; pairs]);
    for t in 0..tokens {
        unsafe {
            let position = *(positions as *const u32).add(t);
            let frequencies = inverse_frequencies as *const f64;
            rope::rope_table(position, frequencies, pairs, magnitude, cos.as_mut_ptr(), sin.as_mut_ptr());
            let x = (x as *mut f32).add(t * heads * head_dim);
            rope::rope_apply(x, heads, head_dim, pairs, cos.as_ptr(), sin.as_ptr(), halves != 0);
        }
    }
}

/// y = silu(gate) * up over `n` values.
#[wasm_bindgen]
pub fn swiglu_run(gate: usize, up: usize, y: usize, n: usize) {
    unsafe { activation::silu_mul(gate as *const f32, up as *const f32, n, y as *mut f32) }
}

/// Reduces one row of logits into a `Summary` at `out`.
#[wasm_bindgen]
pub fn logits_run(row: usize, vocab: usize, out: usize) {
    unsafe { logits::reduce_row(row as *const f32, vocab, out as *mut logits::Summary) }
}
