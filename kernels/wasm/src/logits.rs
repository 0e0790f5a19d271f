//! What a sampler needs of a row of logits: log-sum-exp and the largest candidates.
//!
//! A row is cut into chunks of [`CHUNK`]; any thread may reduce any chunk, then one call finishes the row. Chunks are
//! always the same and joined in order, so the bits do not depend on who did what.
//!
//! The candidates come from group maxima: at least [`TOP`] values are as large as the TOP-th largest of the maxima of groups of
//! 64, so only groups whose maximum reaches it are read again, about 64 of 768 for a vocabulary of 49152.

use crate::simd::*;

/// Logits of one chunk.
pub const CHUNK: usize = 4096;
/// Logits of one group within a chunk.
const GROUP: usize = 64;
const GROUPS: usize = CHUNK / GROUP;
/// Candidates reported.
pub const TOP: usize = 64;

/// What is known of one chunk.
#[repr(C)]
pub struct ChunkStats {
    max: f32,
    /// sum exp(x - max)
    sum: f32,
    /// Largest logit of each group, NaN counted as -inf; -inf beyond the row.
    groups: [f32; GROUPS],
}

/// Chunks of a row.
pub fn chunks(vocab: usize) -> usize {
    vocab.div_ceil(CHUNK)
}

/// Reduces chunk `chunk` of a row.
#[inline(never)]
pub unsafe fn reduce_chunk(logits: *const f32, vocab: usize, chunk: usize, out: *mut ChunkStats) {
    let first = chunk * CHUNK;
    let n = (vocab - first).min(CHUNK);
    let x = logits.add(first);
    let out = &mut *out;
    let none = f32x4_splat(f32::NEG_INFINITY);
    let mut max4 = none;
    for g in 0..GROUPS {
        let mut m4 = none;
        let end = ((g + 1) * GROUP).min(n);
        let mut i = g * GROUP;
        while i + 4 <= end {
            // pmax(m, x) keeps m when x is NaN.
            m4 = f32x4_pmax(m4, v128_load(x.add(i) as *const v128));
            i += 4;
        }
        if i < end {
            m4 = f32x4_pmax(m4, tail(x.add(i), end - i));
        }
        out.groups[g] = max_lane(m4);
        max4 = f32x4_pmax(max4, m4);
    }
    out.max = max_lane(max4);
    // A chunk of -inf alone must not compute -inf - -inf; a NaN must show.
    let base = f32x4_splat(if out.max == f32::NEG_INFINITY { 0.0 } else { out.max });
    let exp = Exp::new();
    let mut sum = [f32x4_splat(0.0); 2];
    let mut i = 0;
    while i + 8 <= n {
        sum[0] = f32x4_add(sum[0], exp.of(f32x4_sub(v128_load(x.add(i) as *const v128), base)));
        sum[1] = f32x4_add(sum[1], exp.of(f32x4_sub(v128_load(x.add(i + 4) as *const v128), base)));
        i += 8;
    }
    while i < n {
        sum[0] = f32x4_add(sum[0], exp.of(f32x4_sub(tail(x.add(i), n - i), base)));
        i += 4;
    }
    out.sum = sum4(f32x4_add(sum[0], sum[1]));
}

/// Up to 4 values, lanes beyond `count` -inf.
#[inline(always)]
unsafe fn tail(x: *const f32, count: usize) -> v128 {
    let lanes = i32x4_lt(i32x4(0, 1, 2, 3), i32x4_splat(count.min(4) as i32));
    v128_bitselect(load_part(x, count), f32x4_splat(f32::NEG_INFINITY), lanes)
}

#[inline(always)]
fn max_lane(v: v128) -> f32 {
    let (a, b) = (f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v));
    let (c, d) = (f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v));
    a.max(b).max(c.max(d))
}

/// An integer that orders as the float does; NaN counts as -inf.
fn key(x: f32) -> i32 {
    let bits = if x.is_nan() { f32::NEG_INFINITY.to_bits() } else { (x + 0.0).to_bits() } as i32;
    bits ^ ((bits >> 31) & 0x7fff_ffff)
}

/// What a sampler reads of one row.
#[repr(C)]
pub struct Summary {
    /// ln sum exp(logit); NaN when a logit is NaN.
    pub log_sum_exp: f32,
    /// Candidates: min(TOP, vocab).
    pub count: u32,
    /// Ids of the largest logits, descending, ties by lower id. NaN counts as -inf.
    pub ids: [i32; TOP],
    /// Their logits.
    pub logits: [f32; TOP],
}

/// Bytes of a [`Summary`].
pub const SUMMARY_BYTES: usize = std::mem::size_of::<Summary>();

/// Finishes a row from its chunks' statistics.
#[inline(never)]
pub unsafe fn reduce_finish(logits: *const f32, vocab: usize, stats: *const ChunkStats, out: *mut Summary) {
    let stats = std::slice::from_raw_parts(stats, chunks(vocab));
    let max = stats.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.max));
    let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let mut sum = 0.0;
    for c in stats {
        sum += if c.max == f32::NEG_INFINITY { c.sum } else { c.sum * exp1(c.max - base) };
    }
    let out = &mut *out;
    out.log_sum_exp = if sum == 0.0 { f32::NEG_INFINITY } else { base + ln1(sum) };
    top(logits, vocab, stats, out);
}

/// Reduces a whole row on one thread; the same bits as its chunks and [`reduce_finish`].
pub unsafe fn reduce_row(logits: *const f32, vocab: usize, out: *mut Summary) {
    let count = chunks(vocab);
    let mut stats: Vec<ChunkStats> = Vec::with_capacity(count);
    for chunk in 0..count {
        reduce_chunk(logits, vocab, chunk, stats.as_mut_ptr().add(chunk));
    }
    reduce_finish(logits, vocab, stats.as_ptr(), out);
}

#[inline(never)]
unsafe fn top(logits: *const f32, vocab: usize, stats: &[ChunkStats], out: &mut Summary) {
    let wanted = TOP.min(vocab);
    let mut maxima: Vec<i32> = stats.iter().flat_map(|c| c.groups.iter().map(|&m| key(m))).collect();
    let groups = vocab.div_ceil(GROUP);
    maxima.truncate(groups);
    let threshold = if groups > TOP {
        let mut order = maxima.clone();
        *order.select_nth_unstable_by(TOP - 1, |a, b| b.cmp(a)).1
    } else {
        i32::MIN
    };
    // Descending logit, then ascending id, is ascending order of this number.
    let rank = |k: i32, id: usize| ((!k as u32 ^ 0x8000_0000) as u64) << 32 | id as u64;
    let mut found: Vec<u64> = Vec::with_capacity(4 * TOP);
    for (g, &m) in maxima.iter().enumerate() {
        if m < threshold {
            continue;
        }
        for id in g * GROUP..((g + 1) * GROUP).min(vocab) {
            let k = key(*logits.add(id));
            if k >= threshold {
                found.push(rank(k, id));
            }
        }
    }
    if found.len() > wanted {
        found.select_nth_unstable(wanted - 1);
        found.truncate(wanted);
    }
    found.sort_unstable();
    for (i, &f) in found.iter().enumerate() {
        let id = f as u32 as usize;
        out.ids[i] = id as i32;
        out.logits[i] = *logits.add(id);
    }
    out.count = wanted as u32;
}
