//! Attention of a tile of query tokens: a segment's keys and values are decoded to f32 panels once and used by all rows.
//!
//! ```text
//! rows          query token j, head h: row j * group + h, in groups of R = 4
//! queries       [rows / 4][head_dim][4]           one broadcast load per row and d
//! keys          [256 / 8][head_dim][8]            a panel of 8 tokens stays in the L1 cache
//! values        [head_dim / 8][256][8]
//! scores        [4][256]                          scores, then weights, of one group of rows
//! ```
//!
//! 4 x 2 accumulators, 2 columns and 4 broadcasts fit V8's 15 vector registers whatever order LLVM gives them; 6 x 2 are
//! faster in the written order and much slower in another.

use crate::attention::{normalise, query_scale, softmax, Attend, Segment, SEGMENT};
use crate::kv::{Element, KvPool, UNIT};
use crate::simd::*;

/// Rows of one register tile.
const R: usize = 4;
/// Columns (tokens or dimensions) of one register tile.
const C: usize = UNIT;

fn query_floats(pool: &KvPool, rows: usize) -> usize {
    (rows.div_ceil(R) * R * pool.head_dim).div_ceil(4) * 4
}

/// Floats of scratch for a tile of `rows` rows.
pub(crate) fn tile_scratch_floats(pool: &KvPool, rows: usize) -> usize {
    query_floats(pool, rows) + SEGMENT * pool.head_dim + SEGMENT * pool.width() + R * SEGMENT
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

/// Partials of all rows over one segment: o [rows][width], lse [rows].
pub(crate) unsafe fn tile_segment<E: Element>(part: &Segment, o: *mut f32, lse: *mut f32, work: *mut f32) {
    let (pool, task) = (part.pool, part.task);
    let rows = task.queries * task.group;
    let (dims, width) = (pool.head_dim, pool.width());
    let keys = work.add(query_floats(pool, rows));
    let values = keys.add(SEGMENT * dims);
    let scores = values.add(SEGMENT * width);
    let mask = E::mask();
    for i in (0..part.tokens).step_by(pool.block_tokens) {
        let count = pool.block_tokens.min(part.tokens - i);
        let (stored_keys, stored_values) = part.parts(i);
        unpack::<E>(stored_keys, count.div_ceil(C) * dims, mask, keys.add(i * dims));
        for d in (0..width).step_by(C) {
            let source = stored_values.add(d * pool.block_tokens * E::BYTES);
            unpack::<E>(source, count, mask, values.add(d * SEGMENT + i * C));
        }
    }
    for first in (0..rows).step_by(R) {
        let count = R.min(rows - first);
        // Rows beyond the last repeat it: their results are not stored.
        let visible = std::array::from_fn(|r| part.visible((first + r.min(count - 1)) / task.group));
        tile_rows::<E>(
            dims,
            width,
            work.add(first * dims),
            keys,
            values,
            scores,
            &visible,
            count,
            o.add(first * width),
            lse.add(first),
        );
    }
}

/// `units` units as f32, in order.
#[inline(never)]
unsafe fn unpack<E: Element>(source: *const u8, units: usize, mask: v128, target: *mut f32) {
    for i in 0..units {
        let (low, high) = E::load(source.add(i * C * E::BYTES), mask);
        v128_store(target.add(i * C) as *mut v128, low);
        v128_store(target.add(i * C + 4) as *mut v128, high);
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
    // Sums go through memory: indexed by a number known only at run time, they would not stay in registers.
    let mut sums = [0f32; R * C];
    for d in (0..width).step_by(C) {
        let panel = values.add(d * SEGMENT);
        value_tile(panel, shared, s, sums.as_mut_ptr());
        for r in 0..count {
            let sum = sums.as_ptr().add(r * C) as *const v128;
            let (mut low, mut high) = (v128_load(sum), v128_load(sum.add(1)));
            // Tokens that not all rows see, at most a few: never a product with a value some row must not see.
            for token in shared..visible[r] {
                let x = v128_load32_splat(s.add(r * SEGMENT + token) as *const u32);
                low = madd(v128_load(panel.add(token * C) as *const v128), x, low);
                high = madd(v128_load(panel.add(token * C + 4) as *const v128), x, high);
            }
            v128_store(o.add(r * width + d) as *mut v128, low);
            v128_store(o.add(r * width + d + 4) as *mut v128, high);
        }
    }
    for (r, (m, l)) in stats.into_iter().enumerate().take(count) {
        *lse.add(r) = normalise(o.add(r * width), width, m, l);
    }
}

/// acc [R][8] += x [R] (stride floats apart) times the 8 values at `columns`.
#[inline(always)]
unsafe fn tile_step(columns: *const f32, x: *const f32, stride: usize, acc: &mut [[v128; 2]; R]) {
    let (low, high) = (v128_load(columns as *const v128), v128_load(columns.add(4) as *const v128));
    for (r, a) in acc.iter_mut().enumerate() {
        let x = v128_load32_splat(x.add(r * stride) as *const u32);
        a[0] = madd(low, x, a[0]);
        a[1] = madd(high, x, a[1]);
    }
}

/// s [R][SEGMENT] = q . k over whole panels of 8 tokens.
#[inline(always)]
unsafe fn score_tile<E: Element>(dims: usize, tokens: usize, q: *const f32, keys: *const f32, s: *mut f32) {
    for token in (0..tokens).step_by(C) {
        let mut acc = [[f32x4_splat(0.0); 2]; R];
        let advance = |(k, x): (*const f32, *const f32), n: usize| (k.add(n * C), x.add(n * R));
        steps(dims, (keys.add(token * dims), q), advance, |(k, x)| tile_step(k, x, 1, &mut acc));
        for (r, a) in acc.iter().enumerate() {
            let row = s.add(r * SEGMENT + token);
            v128_store(row as *mut v128, f32x4_mul(a[0], f32x4_splat(E::SCORE_SCALE)));
            v128_store(row.add(4) as *mut v128, f32x4_mul(a[1], f32x4_splat(E::SCORE_SCALE)));
        }
    }
}

/// sums [R][8] = p [R][SEGMENT] times a panel of 8 dimensions over the first `tokens` tokens, in token order.
#[inline(always)]
unsafe fn value_tile(panel: *const f32, tokens: usize, p: *const f32, sums: *mut f32) {
    let mut acc = [[f32x4_splat(0.0); 2]; R];
    let advance = |(v, x): (*const f32, *const f32), n: usize| (v.add(n * C), x.add(n));
    steps(tokens, (panel, p), advance, |(v, x)| tile_step(v, x, SEGMENT, &mut acc));
    for (r, a) in acc.iter().enumerate() {
        v128_store(sums.add(r * C) as *mut v128, a[0]);
        v128_store(sums.add(r * C + 4) as *mut v128, a[1]);
    }
}
