//! The KV pool: element types, page layout, and writing tokens into it.
//!
//! A block is the keys and values of `block_tokens` consecutive tokens for all layers. In the pool the parts of different
//! blocks lie side by side, so that a sequence whose block ids ascend is read as one stream per layer and kv head (scattered
//! parts of a few KiB come from memory at a third of that speed); outside it a block is contiguous:
//!
//! ```text
//! pool  [layers][kv_heads] of K [blocks] then V [blocks]       stored block  [layers][kv_heads] of K then V
//! K     [block_tokens / 8][head_dim][8 tokens]                 V  [width / 8][block_tokens][8 dimensions]
//! width = head_dim rounded up to 8
//! ```
//!
//! Eight neighbours are one unit of 16 or 32 bytes, and both passes of attention read a part from front to back. Keys have
//! tokens in the lanes, so scores need no horizontal sums. In a unit of 16-bit elements, neighbours 0..3 are the low and 4..7
//! the high halves of four 32-bit words, so that one shift and one mask turn either half into four f32.

use crate::schedule::resident;
use crate::simd::*;

/// Element type of a pool; the number is the one in [`KvPool::kind`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum KvKind {
    F32 = 0,
    F16 = 1,
    BF16 = 2,
}

/// Elements of one unit.
pub const UNIT: usize = 8;

/// How the attention kernels read and write one element type.
///
/// WASM has no f16 arithmetic. The bits of an f16, moved to the exponent and mantissa of an f32, are its value times
/// 2^-112, subnormals included; the kernels keep that factor and fold its inverse into the other operand.
pub trait Element {
    const BYTES: usize;
    /// Factor on the query before scores are summed.
    const QUERY_SCALE: f32;
    /// Factor on a finished score; `QUERY_SCALE * SCORE_SCALE` undoes the factor of [`Element::load`].
    const SCORE_SCALE: f32;
    /// Factor on a probability before values are summed; it undoes the factor of [`Element::load`].
    const WEIGHT_SCALE: f32;
    /// What `load` takes as `mask`; read it once, outside the loop.
    fn mask() -> v128;
    /// Neighbours 0..3 and 4..7 of a unit as f32, times a power of two that the scales above undo.
    unsafe fn load(unit: *const u8, mask: v128) -> (v128, v128);
    /// Stores neighbour `at` of a unit, rounded to nearest even and clamped to the largest finite value.
    unsafe fn store(unit: *mut u8, at: usize, value: f32);
}

pub struct F32;
pub struct F16;
pub struct BF16;

impl Element for F32 {
    const BYTES: usize = 4;
    const QUERY_SCALE: f32 = 1.0;
    const SCORE_SCALE: f32 = 1.0;
    const WEIGHT_SCALE: f32 = 1.0;

    #[inline(always)]
    fn mask() -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    unsafe fn load(unit: *const u8, _mask: v128) -> (v128, v128) {
        (v128_load(unit as *const v128), v128_load(unit.add(16) as *const v128))
    }

    #[inline(always)]
    unsafe fn store(unit: *mut u8, at: usize, value: f32) {
        *(unit as *mut f32).add(at) = value;
    }
}

/// Where neighbour `at` lies in a unit of 16-bit elements.
#[inline(always)]
unsafe fn half(unit: *mut u8, at: usize) -> *mut u16 {
    (unit as *mut u16).add(at % 4 * 2 + at / 4)
}

/// 2^56: half of the f16 factor on the query, half on the score, so that neither leaves the range of f32.
const TWO_56: f32 = 72_057_594_037_927_936.0;

impl Element for F16 {
    const BYTES: usize = 2;
    const QUERY_SCALE: f32 = TWO_56;
    const SCORE_SCALE: f32 = TWO_56;
    const WEIGHT_SCALE: f32 = TWO_56 * TWO_56;

    #[inline(always)]
    fn mask() -> v128 {
        resident(u32x4_splat(0x8fff_e000))
    }

    #[inline(always)]
    unsafe fn load(unit: *const u8, mask: v128) -> (v128, v128) {
        let words = v128_load(unit as *const v128);
        let low = v128_and(i32x4_shr(i32x4_shl(words, 16), 3), mask);
        (low, v128_and(i32x4_shr(words, 3), mask))
    }

    /// A NaN is stored as an f16 NaN, which `load` reads as a finite value near 98304: a model that produced it has
    /// already produced NaN logits for that token.
    #[inline(always)]
    unsafe fn store(unit: *mut u8, at: usize, value: f32) {
        *half(unit, at) = f16_from_bits(value.to_bits());
    }
}

impl Element for BF16 {
    const BYTES: usize = 2;
    const QUERY_SCALE: f32 = 1.0;
    const SCORE_SCALE: f32 = 1.0;
    const WEIGHT_SCALE: f32 = 1.0;

    #[inline(always)]
    fn mask() -> v128 {
        resident(u32x4_splat(0xffff_0000))
    }

    #[inline(always)]
    unsafe fn load(unit: *const u8, mask: v128) -> (v128, v128) {
        let words = v128_load(unit as *const v128);
        (i32x4_shl(words, 16), v128_and(words, mask))
    }

    #[inline(always)]
    unsafe fn store(unit: *mut u8, at: usize, value: f32) {
        *half(unit, at) = bf16_from_bits(value.to_bits());
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
    /// A multiple of 8 that divides 256.
    pub block_tokens: usize,
    pub kind: KvKind,
}

impl KvPool {
    /// Stored dimensions of a value: `head_dim` rounded up to 8.
    pub fn width(&self) -> usize {
        self.head_dim.div_ceil(UNIT) * UNIT
    }

    pub fn element_bytes(&self) -> usize {
        match self.kind {
            KvKind::F32 => 4,
            KvKind::F16 | KvKind::BF16 => 2,
        }
    }

    /// Bytes of the keys of one block, layer and kv head.
    pub fn key_bytes(&self) -> usize {
        self.head_dim * self.block_tokens * self.element_bytes()
    }

    /// Bytes of the values of one block, layer and kv head.
    pub fn value_bytes(&self) -> usize {
        self.width() * self.block_tokens * self.element_bytes()
    }

    /// Bytes of one block: all layers and kv heads, keys and values.
    pub fn block_bytes(&self) -> usize {
        (self.key_bytes() + self.value_bytes()) * self.kv_heads * self.layers
    }

    fn region(&self, layer: usize, kv_head: usize) -> usize {
        self.base + (layer * self.kv_heads + kv_head) * self.blocks * (self.key_bytes() + self.value_bytes())
    }

    /// Keys of a block.
    #[inline(always)]
    pub fn keys(&self, layer: usize, kv_head: usize, block: usize) -> *mut u8 {
        (self.region(layer, kv_head) + block * self.key_bytes()) as *mut u8
    }

    /// Values of a block.
    #[inline(always)]
    pub fn values(&self, layer: usize, kv_head: usize, block: usize) -> *mut u8 {
        (self.region(layer, kv_head) + self.blocks * self.key_bytes() + block * self.value_bytes()) as *mut u8
    }
}

/// Copies the `block_bytes()` bytes of a block out of the pool.
pub unsafe fn read_block(pool: &KvPool, block: usize, target: *mut u8) {
    each_part(pool, block, |part, at, bytes| std::ptr::copy_nonoverlapping(part as *const u8, target.add(at), bytes));
}

/// Copies a block that [`read_block`] of a pool with the same layout returned into the pool.
pub unsafe fn write_block(pool: &KvPool, block: usize, source: *const u8) {
    each_part(pool, block, |part, at, bytes| std::ptr::copy_nonoverlapping(source.add(at), part, bytes));
}

unsafe fn each_part(pool: &KvPool, block: usize, mut copy: impl FnMut(*mut u8, usize, usize)) {
    let mut at = 0;
    for layer in 0..pool.layers {
        for head in 0..pool.kv_heads {
            copy(pool.keys(layer, head, block), at, pool.key_bytes());
            at += pool.key_bytes();
            copy(pool.values(layer, head, block), at, pool.value_bytes());
            at += pool.value_bytes();
        }
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
    let (dims, unit) = (pool.head_dim, UNIT * E::BYTES);
    for head in 0..pool.kv_heads {
        let keys = pool.keys(layer, head, block).add(slot / UNIT * dims * unit);
        let values = pool.values(layer, head, block).add(slot * unit);
        let source = head * dims;
        for d in 0..dims {
            E::store(keys.add(d * unit), slot % UNIT, *k.add(source + d));
            E::store(values.add(d / UNIT * pool.block_tokens * unit), d % UNIT, *v.add(source + d));
        }
        for d in dims..pool.width() {
            E::store(values.add(d / UNIT * pool.block_tokens * unit), d % UNIT, 0.0);
        }
    }
}
