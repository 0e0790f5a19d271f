//! The gated MLP's activation: y = silu(gate) * up, silu(g) = g / (1 + exp(-g)).

use crate::simd::*;

/// y_i = silu(gate_i) * up_i for 4 lanes.
#[inline(always)]
pub fn silu_mul4(exp: &Exp, gate: v128, up: v128) -> v128 {
    // Clamping at 87 keeps the exponential finite; silu(-87) is already below 1e-36.
    let e = exp.of(f32x4_pmin(f32x4_neg(gate), f32x4_splat(87.0)));
    f32x4_mul(f32x4_div(gate, f32x4_add(f32x4_splat(1.0), e)), up)
}

/// y = silu(gate) * up over `n` values; y may be gate or up.
#[inline(never)]
pub unsafe fn silu_mul(gate: *const f32, up: *const f32, n: usize, y: *mut f32) {
    let exp = Exp::new();
    let mut i = 0;
    while i + 4 <= n {
        let value = silu_mul4(&exp, v128_load(gate.add(i) as *const v128), v128_load(up.add(i) as *const v128));
        v128_store(y.add(i) as *mut v128, value);
        i += 4;
    }
    if i < n {
        store_part(y.add(i), n - i, silu_mul4(&exp, load_part(gate.add(i), n - i), load_part(up.add(i), n - i)));
    }
}
