//! Merging partial attention results (o, lse) in the fixed binary tree over the segment index.
//!
//! The tree's leaves are the segments of a sequence, numbered from its start; node (k, i) covers segments
//! [i * 2^k, (i + 1) * 2^k). A missing leaf is the identity. So a whole sequence, a range of it, and a range whose
//! aligned nodes were reduced elsewhere all give the same bits, whatever was computed where.

use crate::simd::*;

/// a <- merge(a, b), o [width] each:
///
/// ```text
/// lse = max + ln(1 + e), e = exp(min - max);   o = o_a * w_a + o_b * w_b, weights 1 / (1 + e) and e / (1 + e)
/// ```
///
/// which is logaddexp with weights exp(lse_i - lse), written so that the weights sum to 1. `lse = -inf` marks an empty
/// partial: merging with it copies the other exactly.
#[inline(always)]
pub unsafe fn merge_into(a: *mut f32, lse_a: *mut f32, b: *const f32, lse_b: *const f32, width: usize) {
    let (la, lb) = (*lse_a, *lse_b);
    if lb == f32::NEG_INFINITY {
        return;
    }
    if la == f32::NEG_INFINITY {
        *lse_a = lb;
        std::ptr::copy_nonoverlapping(b, a, width);
        return;
    }
    let (high, low) = if la >= lb { (la, lb) } else { (lb, la) };
    let e = exp1(low - high);
    let sum = 1.0 + e;
    *lse_a = high + ln1(sum);
    let (big, small) = (1.0 / sum, e / sum);
    let (wa, wb) = if la >= lb { (big, small) } else { (small, big) };
    let (wa, wb) = (f32x4_splat(wa), f32x4_splat(wb));
    let mut d = 0;
    while d + 4 <= width {
        let o = f32x4_mul(v128_load(b.add(d) as *const v128), wb);
        let o = madd(v128_load(a.add(d) as *const v128), wa, o);
        v128_store(a.add(d) as *mut v128, o);
        d += 4;
    }
    if d < width {
        let o = f32x4_mul(load_part(b.add(d), width - d), wb);
        store_part(a.add(d), width - d, madd(load_part(a.add(d), width - d), wa, o));
    }
}

/// Deepest stack of a tree over 2^32 segments.
pub const MAX_DEPTH: usize = 33;

/// The right spine of the tree while nodes arrive in order: which stacked nodes must be merged before the next one.
///
/// Two neighbours meet at the node whose level is the highest differing bit of their first segments, so the last two are
/// merged as soon as the next node meets them higher up.
pub struct Spine {
    starts: [u32; MAX_DEPTH],
    depth: usize,
}

impl Spine {
    pub fn new() -> Self {
        Spine { starts: [0; MAX_DEPTH], depth: 0 }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether entries `depth - 2` and `depth - 1` are merged before a node that starts at segment `start` is pushed.
    pub fn merges_before(&self, start: usize) -> bool {
        self.depth >= 2 && {
            let (a, b) = (self.starts[self.depth - 2], self.starts[self.depth - 1]);
            (a ^ b).leading_zeros() > (b ^ start as u32).leading_zeros()
        }
    }

    /// Drops the last entry, now merged into the one before it.
    pub fn pop(&mut self) {
        self.depth -= 1;
    }

    pub fn push(&mut self, start: usize) {
        self.starts[self.depth] = start as u32;
        self.depth += 1;
    }
}

impl Default for Spine {
    fn default() -> Self {
        Self::new()
    }
}

/// Merges `count` partials of `rows` query heads in the tree. Partial p covers whole tree nodes from segment `starts[p]`
/// on, ascending; a null `starts` stands for `first, first + step, ...`. Row r of partial p: `o + p * o_stride + r * width` and
/// `lse + p * lse_stride + r` (strides in floats). The result is in partial 0 afterwards; the others are used up.
///
/// # Safety
/// `count` is at least 1.
#[inline(never)]
pub unsafe fn merge_tree(
    o: *mut f32,
    o_stride: usize,
    lse: *mut f32,
    lse_stride: usize,
    rows: usize,
    width: usize,
    count: usize,
    starts: *const u32,
    first: usize,
    step: usize,
) {
    let mut spine = Spine::new();
    let mut slots = [0usize; MAX_DEPTH];
    for p in 0..=count {
        let start = if p == count || starts.is_null() { first + p * step } else { *starts.add(p) as usize };
        while if p == count { spine.depth() >= 2 } else { spine.merges_before(start) } {
            let (a, b) = (slots[spine.depth() - 2], slots[spine.depth() - 1]);
            for r in 0..rows {
                merge_into(
                    o.add(a * o_stride + r * width),
                    lse.add(a * lse_stride + r),
                    o.add(b * o_stride + r * width),
                    lse.add(b * lse_stride + r),
                    width,
                );
            }
            spine.pop();
        }
        if p < count {
            slots[spine.depth()] = p;
            spine.push(start);
        }
    }
}
