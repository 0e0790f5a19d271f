//! Reads the records that [`crate::matrix`] lays out: scales, integer weights, dequantised values.

use crate::matrix::*;
use crate::schedule::*;
use crate::simd::*;

/// f16 to f32, every value including subnormals, infinities and NaN.
#[inline(always)]
pub fn half_to_f32(bits: u16) -> f32 {
    let wide = bits as u32;
    let magnitude = if wide & 0x7c00 == 0x7c00 {
        f32::from_bits(0x7f80_0000 | (wide & 0x3ff) << 13)
    } else {
        f32::from_bits((wide & 0x7fff) << 13) * HALF_UNIT
    };
    f32::from_bits(magnitude.to_bits() | (wide & 0x8000) << 16)
}

/// 2^112: what an f16's bits, moved to their place in an f32, are too small by.
const HALF_UNIT: f32 = f32::from_bits(0x7780_0000);
/// Factor of stored K-quant scales.
pub const K_UNIT: f32 = f32::from_bits((127 - 48) << 23);
/// Factor of the scales of prepared inputs.
pub const INPUT_UNIT: f32 = f32::from_bits((127 + 48) << 23);

/// What a sum of (raw scale * input scale) terms must be multiplied with. Raw f16 scales are 2^112 too small, stored
/// K-quant scales 2^48; input scales are 2^48 too large. All factors are powers of two, so nothing is rounded by this; the
/// sums stay far from both ends of f32.
pub const fn unit(dtype: u32) -> f32 {
    match dtype {
        Q8_0 | Q4_0 | Q4_1 => f32::from_bits((127 + 64) << 23),
        _ => 1.0,
    }
}

/// Constants that kernels keep in registers.
#[derive(Clone, Copy)]
pub struct Constants {
    low_nibbles: v128,
    half_bits: v128,
    half_unit: v128,
}

impl Constants {
    #[inline(always)]
    pub fn resident() -> Self {
        Constants {
            low_nibbles: resident(u8x16_splat(15)),
            half_bits: resident(i32x4_splat(0x8fff_e000u32 as i32)),
            half_unit: resident(f32x4_splat(HALF_UNIT)),
        }
    }
}

/// Four f16 values as f32, 2^112 too small: the bits move to their place.
#[inline(always)]
unsafe fn raw_half4(source: *const u8, c: Constants) -> v128 {
    v128_and(i32x4_shl(i32x4_load_extend_i16x4(source as *const i16), 13), c.half_bits)
}

/// Four f16 values as f32. Weights are finite.
#[inline(always)]
unsafe fn half4(source: *const u8, c: Constants) -> v128 {
    f32x4_mul(raw_half4(source, c), c.half_unit)
}

/// Scale and minimum of rows 4v to 4v + 3 of a record, in the domain of [`unit`]; `half` selects 16 columns where they have
/// scales of their own.
#[inline(always)]
pub unsafe fn raw_scales<const D: u32>(record: *const u8, half: usize, v: usize, c: Constants) -> (v128, v128) {
    match D {
        Q8_0 => (raw_half4(record.add(8 * v), c), f32x4_splat(0.0)),
        Q4_0 => {
            let d = raw_half4(record.add(8 * v), c);
            (d, f32x4_mul(d, f32x4_splat(-8.0)))
        }
        Q4_1 => (raw_half4(record.add(8 * v), c), raw_half4(record.add(16 + 8 * v), c)),
        Q6_K => {
            let d = v128_load(record.add(32 * half + 16 * v) as *const v128);
            (d, f32x4_mul(d, f32x4_splat(-32.0)))
        }
        _ => (v128_load(record.add(16 * v) as *const v128), v128_load(record.add(32 + 16 * v) as *const v128)),
    }
}

/// The same as they are.
#[inline(always)]
unsafe fn scales<const D: u32>(record: *const u8, half: usize, v: usize, c: Constants) -> (v128, v128) {
    match D {
        Q8_0 | Q4_0 => (half4(record.add(8 * v), c), f32x4_splat(0.0)),
        Q4_1 => (half4(record.add(8 * v), c), half4(record.add(16 + 8 * v), c)),
        _ => {
            let (d, m) = raw_scales::<D>(record, half, v, c);
            let unit = f32x4_splat(1.0 / K_UNIT);
            (f32x4_mul(d, unit), f32x4_mul(m, unit))
        }
    }
}

/// Columns 4s, 4s + 2 and columns 4s + 1, 4s + 3 of rows 4v to 4v + 3 of Q8_0, in 16 bits.
#[inline(always)]
pub unsafe fn signed_pairs(record: *const u8, s: usize, v: usize) -> [v128; 2] {
    let at = record.add(scale_bytes(Q8_0) + 32 * s + 16 * v) as *const i8;
    [i16x8_load_extend_i8x8(at), i16x8_load_extend_i8x8(at.add(8))]
}

/// The vector of 4 rows x 4 columns, columns 4s to 4s + 3, as bytes; not of Q8_0.
#[inline(always)]
pub unsafe fn bytes<const D: u32>(record: *const u8, s: usize, v: usize, c: Constants) -> v128 {
    let weights = record.add(scale_bytes(D)) as *const v128;
    match D {
        Q4_0 | Q4_1 | Q4_K => {
            let pairs = v128_load(weights.add((s % 4) * 2 + v));
            v128_and(if s < 4 { pairs } else { u16x8_shr(pairs, 4) }, c.low_nibbles)
        }
        _ => v128_load(weights.add(s * 2 + v)),
    }
}

/// Four stored floats as f32.
#[inline(always)]
pub unsafe fn float4<const D: u32>(source: *const u8, c: Constants) -> v128 {
    match D {
        F16 => half4(source, c),
        BF16 => u32x4_shl(u32x4_load_extend_u16x4(source as *const u16), 16),
        _ => v128_load(source as *const v128),
    }
}

/// Dequantises a record into [column 32][row 8], each value rounded as the model format's reference does.
#[inline(always)]
pub unsafe fn dequantize<const D: u32>(record: *const u8, out: *mut v128) {
    match D {
        F32 => std::ptr::copy_nonoverlapping(record as *const v128, out, 64),
        F16 | BF16 => {
            let c = Constants::resident();
            for vector in 0..64 {
                v128_store(out.add(vector), float4::<D>(record.add(8 * vector), c));
            }
        }
        _ => {
            let c = Constants::resident();
            for v in 0..2 {
                for s in 0..8 {
                    let (d, m) = scales::<D>(record, s / 4, v, c);
                    if D == Q8_0 {
                        for (odd, pairs) in signed_pairs(record, s, v).into_iter().enumerate() {
                            let values = [i32x4_shr(i32x4_shl(pairs, 16), 16), i32x4_shr(pairs, 16)];
                            for (j, value) in values.into_iter().enumerate() {
                                let value = f32x4_mul(f32x4_convert_i32x4(value), d);
                                v128_store(out.add((4 * s + odd + 2 * j) * 2 + v), value);
                            }
                        }
                        continue;
                    }
                    let packed = bytes::<D>(record, s, v, c);
                    // Byte j of every lane: shift it to the top, then down again.
                    for j in 0..4 {
                        let top = i32x4_shl(packed, 24 - 8 * j as u32);
                        let value = match D {
                            Q4_0 => f32x4_mul(f32x4_convert_i32x4(i32x4_sub(u32x4_shr(top, 24), i32x4_splat(8))), d),
                            Q6_K => f32x4_mul(f32x4_convert_i32x4(i32x4_sub(u32x4_shr(top, 24), i32x4_splat(32))), d),
                            _ => f32x4_add(f32x4_mul(f32x4_convert_i32x4(u32x4_shr(top, 24)), d), m),
                        };
                        v128_store(out.add((4 * s + j) * 2 + v), value);
                    }
                }
            }
        }
    }
}

/// [`dequantize`] of whichever type.
#[inline(never)]
pub unsafe fn dequantize_any(dtype: u32, record: *const u8, out: *mut v128) {
    match dtype {
        F32 => dequantize::<F32>(record, out),
        F16 => dequantize::<F16>(record, out),
        BF16 => dequantize::<BF16>(record, out),
        Q8_0 => dequantize::<Q8_0>(record, out),
        Q4_0 => dequantize::<Q4_0>(record, out),
        Q4_1 => dequantize::<Q4_1>(record, out),
        Q4_K => dequantize::<Q4_K>(record, out),
        Q5_K => dequantize::<Q5_K>(record, out),
        _ => dequantize::<Q6_K>(record, out),
    }
}
