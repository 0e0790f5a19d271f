//! RMSNorm: y_i = x_i * w_i / sqrt(mean(x^2) + eps).

use crate::simd::*;

/// Normalises one row of `n` values into y, which may be x. The sum of squares runs over lanes i mod 16, then a fixed tree.
#[inline(never)]
pub unsafe fn rmsnorm(x: *const f32, w: *const f32, eps: f32, n: usize, y: *mut f32) {
    let mut acc = [f32x4_splat(0.0); 4];
    let mut i = 0;
    while i + 16 <= n {
        for (j, a) in acc.iter_mut().enumerate() {
            let v = v128_load(x.add(i + 4 * j) as *const v128);
            *a = madd(v, v, *a);
        }
        i += 16;
    }
    while i < n {
        let v = load_part(x.add(i), n - i);
        acc[0] = madd(v, v, acc[0]);
        i += 4;
    }
    let sum = sum4(f32x4_add(f32x4_add(acc[0], acc[1]), f32x4_add(acc[2], acc[3])));
    let scale = f32x4_splat(1.0 / (sum / n as f32 + eps).sqrt());
    let mut i = 0;
    while i + 4 <= n {
        let v = f32x4_mul(v128_load(x.add(i) as *const v128), scale);
        v128_store(y.add(i) as *mut v128, f32x4_mul(v, v128_load(w.add(i) as *const v128)));
        i += 4;
    }
    if i < n {
        let v = f32x4_mul(load_part(x.add(i), n - i), scale);
        store_part(y.add(i), n - i, f32x4_mul(v, load_part(w.add(i), n - i)));
    }
}
