//! Attention of one query token, straight from the pool: every key and value is read and converted once for up to four
//! query heads that share it.
//!
//! A register tile is H heads by P units of 8 tokens or 8 dimensions. The query and the weights are stored with every value
//! repeated in 4 lanes: V8 folds the offset of a plain load into its address, that of a broadcasting load it does not.

use crate::attention::{normalise, query_scale, softmax, Segment, SEGMENT};
use crate::kv::{Element, UNIT};
use crate::simd::*;

/// Query heads of one pass at most.
const HEADS: usize = 4;
const MAX_DIM: usize = 256;
const UNITS: usize = SEGMENT / UNIT;

/// Floats of scratch: repeated queries, scores, repeated weights.
pub(crate) const DECODE_FLOATS: usize = 4 * HEADS * MAX_DIM + HEADS * SEGMENT + 4 * HEADS * SEGMENT;

/// Keys and values of a segment's blocks.
struct Parts {
    keys: [*const u8; UNITS],
    values: [*const u8; UNITS],
}

/// Partial of the task's only query token over one segment: o [group][width], lse [group].
pub(crate) unsafe fn decode_segment<E: Element>(part: &Segment, o: *mut f32, lse: *mut f32, work: *mut f32) {
    let tokens = part.visible(0);
    let width = part.pool.width();
    let group = part.task.group;
    let mut parts = Parts { keys: [std::ptr::null(); UNITS], values: [std::ptr::null(); UNITS] };
    let block = part.pool.block_tokens;
    for i in (0..tokens).step_by(block) {
        (parts.keys[i / block], parts.values[i / block]) = part.parts(i);
    }
    let mut head = 0;
    while head < group {
        let left = group - head;
        let heads = if left % 4 == 0 { 4 } else { left.min(3) };
        let (o, lse) = (o.add(head * width), lse.add(head));
        match heads {
            1 => decode_heads::<E, 1, 2>(part, &parts, head, tokens, o, lse, work),
            2 => decode_heads::<E, 2, 2>(part, &parts, head, tokens, o, lse, work),
            3 => decode_heads::<E, 3, 1>(part, &parts, head, tokens, o, lse, work),
            _ => decode_heads::<E, 4, 1>(part, &parts, head, tokens, o, lse, work),
        }
        head += heads;
    }
}

#[inline(always)]
unsafe fn decode_heads<E: Element, const H: usize, const P: usize>(
    part: &Segment,
    parts: &Parts,
    head: usize,
    tokens: usize,
    o: *mut f32,
    lse: *mut f32,
    work: *mut f32,
) {
    let pool = part.pool;
    let (dims, width) = (pool.head_dim, pool.width());
    let q = work;
    let s = q.add(4 * HEADS * MAX_DIM);
    let p = s.add(HEADS * SEGMENT);
    let (scale, factor) = query_scale::<E>(pool);
    for h in 0..H {
        for d in 0..dims {
            let x = *part.task.q.add((head + h) * dims + d) * scale * factor;
            v128_store(q.add((d * H + h) * 4) as *mut v128, f32x4_splat(x));
        }
    }
    scores::<E, H, P>(&parts.keys, pool.block_tokens, dims, tokens, q, s);
    let mut stats = [(0f32, 0f32); H];
    for (h, stat) in stats.iter_mut().enumerate() {
        *stat = weights::<E, H>(s.add(h * SEGMENT), tokens, p.add(h * 4));
    }
    std::ptr::write_bytes(o, 0, H * width);
    values::<E, H>(&parts.values, pool.block_tokens, width, tokens, p, o);
    for (h, (m, l)) in stats.into_iter().enumerate() {
        *lse.add(h) = normalise(o.add(h * width), width, m, l);
    }
}

/// Scores to weights; weight i goes to the 4 floats at `repeated + 4 * H * i`. Returns (m, l).
#[inline(never)]
unsafe fn weights<E: Element, const H: usize>(s: *mut f32, tokens: usize, repeated: *mut f32) -> (f32, f32) {
    let stats = softmax::<E>(s, tokens);
    for i in (0..tokens).step_by(4) {
        let x = v128_load(s.add(i) as *const v128);
        let target = repeated.add(i * 4 * H);
        v128_store(target as *mut v128, i32x4_shuffle::<0, 0, 0, 0>(x, x));
        v128_store(target.add(4 * H) as *mut v128, i32x4_shuffle::<1, 1, 1, 1>(x, x));
        v128_store(target.add(8 * H) as *mut v128, i32x4_shuffle::<2, 2, 2, 2>(x, x));
        v128_store(target.add(12 * H) as *mut v128, i32x4_shuffle::<3, 3, 3, 3>(x, x));
    }
    stats
}

/// acc [H][P units] += units times the repeated factors x [H][4].
#[inline(always)]
unsafe fn step<E: Element, const H: usize, const P: usize>(
    units: [*const u8; P],
    x: *const f32,
    mask: v128,
    acc: &mut [[[v128; 2]; P]; H],
) {
    for i in 0..P {
        let (low, high) = E::load(units[i], mask);
        for h in 0..H {
            let x = v128_load(x.add(4 * h) as *const v128);
            acc[h][i][0] = madd(low, x, acc[h][i][0]);
            acc[h][i][1] = madd(high, x, acc[h][i][1]);
        }
    }
}

/// s [H][SEGMENT] = q . k for the units that hold the first `tokens` tokens.
#[inline(never)]
unsafe fn scores<E: Element, const H: usize, const P: usize>(
    keys: &[*const u8; UNITS],
    block: usize,
    dims: usize,
    tokens: usize,
    q: *const f32,
    s: *mut f32,
) {
    let unit = |token: usize| keys[token / block].add(token % block * dims * E::BYTES);
    let mut token = 0;
    while token + P * UNIT <= tokens {
        score_units::<E, H, P>(std::array::from_fn(|i| unit(token + i * UNIT)), dims, q, s.add(token));
        token += P * UNIT;
    }
    while token < tokens {
        score_units::<E, H, 1>([unit(token)], dims, q, s.add(token));
        token += UNIT;
    }
}

#[inline(always)]
unsafe fn score_units<E: Element, const H: usize, const P: usize>(
    units: [*const u8; P],
    dims: usize,
    q: *const f32,
    s: *mut f32,
) {
    let mask = E::mask();
    let mut acc = [[[f32x4_splat(0.0); 2]; P]; H];
    let advance =
        |(u, q): ([*const u8; P], *const f32), n: usize| (u.map(|u| u.add(n * UNIT * E::BYTES)), q.add(n * 4 * H));
    steps(dims, (units, q), advance, |(units, q)| step::<E, H, P>(units, q, mask, &mut acc));
    for h in 0..H {
        for i in 0..P {
            for (half, sum) in acc[h][i].iter().enumerate() {
                let score = f32x4_mul(*sum, f32x4_splat(E::SCORE_SCALE));
                v128_store(s.add(h * SEGMENT + i * UNIT + half * 4) as *mut v128, score);
            }
        }
    }
}

/// o [H][width] += repeated weights p [tokens][H][4] times the values of the first `tokens` tokens, in token order.
#[inline(never)]
unsafe fn values<E: Element, const H: usize>(
    values: &[*const u8; UNITS],
    block: usize,
    width: usize,
    tokens: usize,
    p: *const f32,
    o: *mut f32,
) {
    let mask = E::mask();
    for from in (0..tokens).step_by(block) {
        let count = block.min(tokens - from);
        let part = values[from / block];
        for d in (0..width).step_by(UNIT) {
            let mut acc = [[[f32x4_splat(0.0); 2]; 1]; H];
            for h in 0..H {
                let row = o.add(h * width + d) as *const v128;
                acc[h][0] = [v128_load(row), v128_load(row.add(1))];
            }
            let first = (part.add(d * block * E::BYTES), p.add(from * 4 * H));
            let advance = |(u, x): (*const u8, *const f32), n: usize| (u.add(n * UNIT * E::BYTES), x.add(n * 4 * H));
            steps(count, first, advance, |(unit, x)| step::<E, H, 1>([unit], x, mask, &mut acc));
            for h in 0..H {
                let row = o.add(h * width + d) as *mut v128;
                v128_store(row, acc[h][0][0]);
                v128_store(row.add(1), acc[h][0][1]);
            }
        }
    }
}
