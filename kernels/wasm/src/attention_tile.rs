//! Attention of a tile of query tokens: a segment's keys and values are decoded to f32 panels once and used by all rows.
//!
//! ```text
//! rows          query token j, head h: row j * group + h, in groups of R = 6
//! queries       [rows / 6][head_dim][6]           one broadcast load per row and d
//! keys          [256 / 8][head_dim][8]            a panel of 8 tokens stays in the L1 cache
//! values        [head_dim / 8][256][8]
//! scores        [6][256]                          scores, then weights, of one group of rows
//! ```
//!
//! 6 x 2 accumulators, 2 operands and 1 broadcast fill V8's 15 vector registers.

use crate::attention::{normalise, query_scale, row_width, softmax, Attend, Segment, SEGMENT};
use crate::kv::{Element, KvPool};
use crate::simd::*;

/// Rows of one register tile.
const R: usize = 6;
/// Columns (tokens or dimensions) of one register tile.
const C: usize = 8;

fn query_floats(pool: &KvPool, rows: usize) -> usize {
    (rows.div_ceil(R) * R * pool.head_dim).div_ceil(4) * 4
}

/// Floats of scratch for a tile of `rows` rows; also enough for the decode schedule.
pub(crate) fn tile_scratch_floats(pool: &KvPool, rows: usize) -> usize {
    query_floats(pool, rows) + SEGMENT * pool.head_dim + SEGMENT * row_width(pool) + R * SEGMENT * 2
}

/// Scales and packs the task's queries; rows that fill up the last group are 0.
#[inline(never)]
pub(crate) unsafe fn pack_queries<E: Element>(pool: &KvPool, task: &Attend, work: *mut f32) {
    let rows = task.queries * task.group;
    let dims = pool.head_dim;
    let (scale, factor) = query_scale::<E>(pool);
    std::ptr::write_bytes(work, 0, query_floats(pool, rows));
    for row in 0..rows {
        let q = task.q.add(row / task.group * task.q_stride + row % task.group * dims);
        let packed = work.add(row / R * R * dims + row % R);
        for d in 0..dims {
            *packed.add(d * R) = *q.add(d) * scale * factor;
        }
    }
}

/// Partials of all rows over one segment: o [rows][row_width], lse [rows].
pub(crate) unsafe fn tile_segment<E: Element>(part: &Segment, o: *mut f32, lse: *mut f32, work: *mut f32) {
    let (pool, task) = (part.pool, part.task);
    let rows = task.queries * task.group;
    let (dims, width) = (pool.head_dim, row_width(pool));
    let keys = work.add(query_floats(pool, rows));
    let values = keys.add(SEGMENT * dims);
    let scores = values.add(SEGMENT * width);
    for i in (0..part.tokens).step_by(pool.block_tokens) {
        let count = pool.block_tokens.min(part.tokens - i);
        let page = part.page(i);
        unpack_keys::<E>(page, pool.block_tokens, dims, i, count, keys);
        unpack_values::<E>(page.add(pool.key_bytes()), pool.width(), width, i, count, values);
    }
    for first in (0..rows).step_by(R) {
        let count = R.min(rows - first);
        // Rows beyond the last repeat it: their results are not stored.
        let visible = std::array::from_fn(|r| part.visible((first + r.min(count - 1)) / task.group));
        tile_rows::<E>(dims, width, work.add(first * dims), keys, values, scores, &visible, count, o.add(first * width), lse.add(first));
    }
}

/// Keys of `count` tokens of a page, the first of them token `at` of the segment, into panels.
#[inline(never)]
unsafe fn unpack_keys<E: Element>(page: *const u8, block: usize, dims: usize, at: usize, count: usize, keys: *mut f32) {
    for i in (0..count).step_by(4) {
        let token = at + i;
        let mut target = keys.add(token / C * C * dims + token % C);
        let mut source = page.add(i * E::BYTES);
        for _ in 0..dims {
            v128_store(target as *mut v128, E::load4(source));
            source = source.add(block * E::BYTES);
            target = target.add(C);
        }
    }
}

/// Values of `count` tokens of a page into panels; dimensions from `stored` up to `width` are 0.
#[inline(never)]
unsafe fn unpack_values<E: Element>(
    rows: *const u8,
    stored: usize,
    width: usize,
    at: usize,
    count: usize,
    values: *mut f32,
) {
    for d in (0..width).step_by(4) {
        let mut target = values.add(d / C * C * SEGMENT + d % C + at * C);
        let mut source = rows.add(d * E::BYTES);
        for _ in 0..count {
            let value = if d < stored { E::load4(source) } else { f32x4_splat(0.0) };
            v128_store(target as *mut v128, value);
            source = source.add(stored * E::BYTES);
            target = target.add(C);
        }
    }
}

#[inline(never)]
unsafe fn tile_rows<E: Element>(
    dims: usize,
    width: usize,
    q: *const f32,
    keys: *const f32,
    values: *const f32,
    s: *mut f32,
    visible: &[usize; R],
    count: usize,
    o: *mut f32,
    lse: *mut f32,
) {
    let longest = visible.iter().copied().max().unwrap_or(0);
    let shared = visible.iter().copied().min().unwrap_or(0);
    score_tile::<E>(dims, longest, q, keys, s);
    let mut stats = [(f32::NEG_INFINITY, 0f32); R];
    for r in 0..count {
        if visible[r] > 0 {
            stats[r] = softmax::<E>(s.add(r * SEGMENT), visible[r]);
        }
    }
    // The tile stores R rows; a last group with fewer goes through the spare rows behind the scores.
    let mut spare = [0f32; R * 8];
    for d in (0..width).step_by(C) {
        let panel = values.add(d * SEGMENT);
        let acc = value_tile(panel, shared, s);
        for r in 0..count {
            let row = spare.as_mut_ptr().add(r * C) as *mut v128;
            let (mut low, mut high) = (acc[r][0], acc[r][1]);
            for token in shared..visible[r] {
                let x = v128_load32_splat(s.add(r * SEGMENT + token) as *const u32);
                low = madd(v128_load(panel.add(token * C) as *const v128), x, low);
                high = madd(v128_load(panel.add(token * C + 4) as *const v128), x, high);
            }
            v128_store(row, low);
            v128_store(row.add(1), high);
            std::ptr::copy_nonoverlapping(row as *const f32, o.add(r * width + d), C);
        }
    }
    for (r, (m, l)) in stats.into_iter().enumerate().take(count) {
        *lse.add(r) = normalise(o.add(r * width), width, m, l);
    }
}

/// s [R][SEGMENT] = q . k over whole panels of 8 tokens.
#[inline(always)]
unsafe fn score_tile<E: Element>(dims: usize, tokens: usize, q: *const f32, keys: *const f32, s: *mut f32) {
    for token in (0..tokens).step_by(C) {
        let mut acc = [[f32x4_splat(0.0); 2]; R];
        let (mut k, mut x) = (keys.add(token * dims), q);
        for _ in 0..dims {
            let (low, high) = (v128_load(k as *const v128), v128_load(k.add(4) as *const v128));
            for (r, a) in acc.iter_mut().enumerate() {
                let x = v128_load32_splat(x.add(r) as *const u32);
                a[0] = madd(low, x, a[0]);
                a[1] = madd(high, x, a[1]);
            }
            k = k.add(C);
            x = x.add(R);
        }
        for (r, a) in acc.iter().enumerate() {
            let row = s.add(r * SEGMENT + token);
            v128_store(row as *mut v128, f32x4_mul(a[0], f32x4_splat(E::SCORE_SCALE)));
            v128_store(row.add(4) as *mut v128, f32x4_mul(a[1], f32x4_splat(E::SCORE_SCALE)));
        }
    }
}

/// Sum over the first `tokens` tokens of p [R][SEGMENT] times a panel of 8 dimensions, in token order.
#[inline(always)]
unsafe fn value_tile(panel: *const f32, tokens: usize, p: *const f32) -> [[v128; 2]; R] {
    let mut acc = [[f32x4_splat(0.0); 2]; R];
    for token in 0..tokens {
        let row = panel.add(token * C);
        let (low, high) = (v128_load(row as *const v128), v128_load(row.add(4) as *const v128));
        for (r, a) in acc.iter_mut().enumerate() {
            let x = v128_load32_splat(p.add(r * SEGMENT + token) as *const u32);
            a[0] = madd(low, x, a[0]);
            a[1] = madd(high, x, a[1]);
        }
    }
    acc
}
