//! The KV pool: element types, page layout, and writing tokens into it.
//!
//! A block holds the keys and values of `block_tokens` consecutive tokens for all layers and is contiguous, so copying a
//! block moves those tokens to another instance. Inside it, one page per (layer, kv head) is contiguous:
//!
//! ```text
//! block [layers][kv_heads] of page
//! page  K [head_dim][block_tokens], then V [block_tokens][width]      width = head_dim rounded up to 4
//! ```
//!
//! Keys are transposed: four consecutive tokens are four lanes, so scores need no horizontal sums.

use crate::simd::*;

/// Element type of a pool; the number is the one in [`KvPool::kind`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum KvKind {
    F32 = 0,
    F16 = 1,
    BF16 = 2,
}

/// How the attention kernels read one element type.
///
/// WASM has no f16 arithmetic. The bits of an f16, moved to the exponent and mantissa of an f32, are its value times
/// 2^-112, subnormals included; the kernels keep that factor and fold its inverse into the other operand, so reading
/// costs one shift and one mask for 4 values.
pub trait Element {
    const BYTES: usize;
    /// Factor on the query before scores are summed.
    const QUERY_SCALE: f32;
    /// Factor on a finished score; `QUERY_SCALE * SCORE_SCALE` undoes the factor of [`Element::load4`].
    const SCORE_SCALE: f32;
    /// Factor on a probability before values are summed; it undoes the factor of [`Element::load4`].
    const WEIGHT_SCALE: f32;
    /// Four consecutive elements as f32, times a power of two that the scales above undo.
    unsafe fn load4(address: *const u8) -> v128;
    /// Stores the first `count` lanes, rounded to nearest even and clamped to the largest finite value.
    unsafe fn store4(address: *mut u8, stride: usize, values: v128, count: usize);
}

pub struct F32;
pub struct F16;
pub struct BF16;

#[inline(always)]
unsafe fn store_lanes<T: Copy>(address: *mut u8, stride: usize, lanes: [T; 4], count: usize) {
    for (i, lane) in lanes.iter().enumerate().take(count) {
        (address.add(i * stride) as *mut T).write_unaligned(*lane);
    }
}

impl Element for F32 {
    const BYTES: usize = 4;
    const QUERY_SCALE: f32 = 1.0;
    const SCORE_SCALE: f32 = 1.0;
    const WEIGHT_SCALE: f32 = 1.0;

    #[inline(always)]
    unsafe fn load4(address: *const u8) -> v128 {
        v128_load(address as *const v128)
    }

    #[inline(always)]
    unsafe fn store4(address: *mut u8, stride: usize, values: v128, count: usize) {
        store_lanes::<f32>(address, stride, std::mem::transmute::<v128, [f32; 4]>(values), count);
    }
}

/// 2^56: half of the f16 factor on the query, half on the score, so that neither leaves the range of f32.
const TWO_56: f32 = 72_057_594_037_927_936.0;

impl Element for F16 {
    const BYTES: usize = 2;
    const QUERY_SCALE: f32 = TWO_56;
    const SCORE_SCALE: f32 = TWO_56;
    const WEIGHT_SCALE: f32 = TWO_56 * TWO_56;

    #[inline(always)]
    unsafe fn load4(address: *const u8) -> v128 {
        let wide = i32x4_load_extend_i16x4(address as *const i16);
        v128_and(i32x4_shl(wide, 13), u32x4_splat(0x8fff_e000))
    }

    /// A NaN is stored as an f16 NaN, which `load4` reads as a finite value near 98304: a model that produced it has
    /// already produced NaN logits for that token.
    #[inline(always)]
    unsafe fn store4(address: *mut u8, stride: usize, values: v128, count: usize) {
        let bits = std::mem::transmute::<v128, [u32; 4]>(values);
        store_lanes::<u16>(address, stride, bits.map(f16_from_bits), count);
    }
}

impl Element for BF16 {
    const BYTES: usize = 2;
    const QUERY_SCALE: f32 = 1.0;
    const SCORE_SCALE: f32 = 1.0;
    const WEIGHT_SCALE: f32 = 1.0;

    #[inline(always)]
    unsafe fn load4(address: *const u8) -> v128 {
        u32x4_shl(u32x4_load_extend_u16x4(address as *const u16), 16)
    }

    #[inline(always)]
    unsafe fn store4(address: *mut u8, stride: usize, values: v128, count: usize) {
        let bits = std::mem::transmute::<v128, [u32; 4]>(values);
        store_lanes::<u16>(address, stride, bits.map(bf16_from_bits), count);
    }
}

/// f16 bits of the f32 with bits `x`: nearest even, clamped to 65504.
fn f16_from_bits(x: u32) -> u16 {
    let sign = (x >> 16) as u16 & 0x8000;
    let magnitude = x & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x477f_e000 {
        return sign | 0x7bff;
    }
    if magnitude < 0x3880_0000 {
        // Adding 0.5 aligns the mantissa to multiples of 2^-24, the spacing of f16 subnormals, and rounds to nearest even.
        return sign | ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()) as u16;
    }
    let odd = (magnitude >> 13) & 1;
    sign | ((magnitude - (112 << 23) + 0xfff + odd) >> 13) as u16
}

/// bf16 bits of the f32 with bits `x`: nearest even, clamped to the largest finite value.
fn bf16_from_bits(x: u32) -> u16 {
    let sign = (x >> 16) as u16 & 0x8000;
    let magnitude = x & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7fc0;
    }
    let odd = (magnitude >> 16) & 1;
    sign | ((magnitude + 0x7fff + odd) >> 16).min(0x7f7f) as u16
}

/// A pool of KV blocks in this module's memory. `base` is the address of `blocks * block_bytes()` zeroed bytes, which
/// the pool does not own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KvPool {
    pub base: usize,
    pub blocks: usize,
    pub layers: usize,
    pub kv_heads: usize,
    /// At most 256.
    pub head_dim: usize,
    /// A multiple of 4 that divides 256.
    pub block_tokens: usize,
    pub kind: KvKind,
}

impl KvPool {
    /// Elements of one value row: `head_dim` rounded up to 4.
    pub fn width(&self) -> usize {
        self.head_dim.div_ceil(4) * 4
    }

    pub fn element_bytes(&self) -> usize {
        match self.kind {
            KvKind::F32 => 4,
            KvKind::F16 | KvKind::BF16 => 2,
        }
    }

    /// Bytes of the K part of a page.
    pub fn key_bytes(&self) -> usize {
        self.head_dim * self.block_tokens * self.element_bytes()
    }

    /// Bytes of one page: K and V of one block, layer and kv head.
    pub fn page_bytes(&self) -> usize {
        self.key_bytes() + self.width() * self.block_tokens * self.element_bytes()
    }

    /// Bytes of one block: all layers and kv heads.
    pub fn block_bytes(&self) -> usize {
        self.page_bytes() * self.kv_heads * self.layers
    }

    /// First byte of a page.
    #[inline(always)]
    pub fn page(&self, layer: usize, kv_head: usize, block: usize) -> *mut u8 {
        debug_assert!(block < self.blocks && layer < self.layers && kv_head < self.kv_heads);
        (self.base + ((block * self.layers + layer) * self.kv_heads + kv_head) * self.page_bytes()) as *mut u8
    }
}

/// Writes keys and values of one token, `[kv_heads][head_dim]` each, into slot `slot` of a block. Other slots keep their
/// bytes. Tokens are independent: threads may append different tokens at once.
pub unsafe fn append(pool: &KvPool, layer: usize, block: usize, slot: usize, k: *const f32, v: *const f32) {
    match pool.kind {
        KvKind::F32 => append_as::<F32>(pool, layer, block, slot, k, v),
        KvKind::F16 => append_as::<F16>(pool, layer, block, slot, k, v),
        KvKind::BF16 => append_as::<BF16>(pool, layer, block, slot, k, v),
    }
}

#[inline(never)]
unsafe fn append_as<E: Element>(pool: &KvPool, layer: usize, block: usize, slot: usize, k: *const f32, v: *const f32) {
    let dims = pool.head_dim;
    for head in 0..pool.kv_heads {
        let page = pool.page(layer, head, block);
        let keys = page.add(slot * E::BYTES);
        let values = page.add(pool.key_bytes() + slot * pool.width() * E::BYTES);
        let key_stride = pool.block_tokens * E::BYTES;
        for d in (0..dims).step_by(4) {
            let count = (dims - d).min(4);
            let source = head * dims + d;
            E::store4(keys.add(d * key_stride), key_stride, load_part(k.add(source), count), count);
            E::store4(values.add(d * E::BYTES), E::BYTES, load_part(v.add(source), count), 4);
        }
    }
}
