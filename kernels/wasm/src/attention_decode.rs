//! Attention of one query token, straight from the pool: every key and value is read and converted once for up to four
//! query heads that share it.
//!
//! Register tiles are (heads x vectors of 4 tokens or 4 dimensions) with 8 or 9 accumulators: enough to hide the latency of
//! a multiply-add, few enough that V8 keeps them, the operands and the f16 mask in its 15 vector registers.

use crate::attention::{normalise, query_scale, row_width, softmax, Segment, SEGMENT};
use crate::kv::Element;
use crate::simd::*;

/// Largest head_dim; also the stride of a query row in scratch.
const MAX_DIM: usize = 256;
/// Tokens whose values are summed before moving to the next dimensions: their rows stay in the L1 cache.
const VALUE_TOKENS: usize = 64;
const VECTORS: usize = SEGMENT / 4;

/// Partial of the task's only query token over one segment: o [group][row_width], lse [group].
pub(crate) unsafe fn decode_segment<E: Element>(part: &Segment, o: *mut f32, lse: *mut f32, work: *mut f32) {
    let tokens = part.visible(0);
    let width = row_width(part.pool);
    let group = part.task.group;
    let mut pages = [std::ptr::null::<u8>(); VECTORS];
    let block = part.pool.block_tokens;
    for i in (0..tokens).step_by(block) {
        pages[i / block] = part.page(i);
    }
    let mut head = 0;
    while head < group {
        let left = group - head;
        let heads = if left % 4 == 0 { 4 } else { left.min(3) };
        let (o, lse) = (o.add(head * width), lse.add(head));
        match heads {
            1 => decode_heads::<E, 1, 4>(part, &pages, head, tokens, o, lse, work),
            2 => decode_heads::<E, 2, 4>(part, &pages, head, tokens, o, lse, work),
            3 => decode_heads::<E, 3, 3>(part, &pages, head, tokens, o, lse, work),
            _ => decode_heads::<E, 4, 2>(part, &pages, head, tokens, o, lse, work),
        }
        head += heads;
    }
}

#[inline(always)]
unsafe fn decode_heads<E: Element, const H: usize, const V: usize>(
    part: &Segment,
    pages: &[*const u8; VECTORS],
    head: usize,
    tokens: usize,
    o: *mut f32,
    lse: *mut f32,
    work: *mut f32,
) {
    let pool = part.pool;
    let width = row_width(pool);
    let (q, s) = (work, work.add(H * MAX_DIM));
    let (scale, factor) = query_scale::<E>(pool);
    for h in 0..H {
        for d in (0..pool.head_dim).step_by(4) {
            let x = load_part(part.task.q.add((head + h) * pool.head_dim + d), pool.head_dim - d);
            let x = f32x4_mul(f32x4_mul(x, f32x4_splat(scale)), f32x4_splat(factor));
            v128_store(q.add(h * MAX_DIM + d) as *mut v128, x);
        }
    }
    scores::<E, H, V>(pages, pool.block_tokens, pool.head_dim, tokens, q, s);
    let mut stats = [(0f32, 0f32); H];
    for (h, stat) in stats.iter_mut().enumerate() {
        *stat = softmax_row::<E>(s.add(h * SEGMENT), tokens);
    }
    std::ptr::write_bytes(o, 0, H * width);
    values::<E, H, V>(pages, pool.block_tokens, pool.key_bytes(), pool.width(), tokens, s, o, width);
    for (h, (m, l)) in stats.into_iter().enumerate() {
        *lse.add(h) = normalise(o.add(h * width), width, m, l);
    }
}

#[inline(never)]
unsafe fn softmax_row<E: Element>(s: *mut f32, tokens: usize) -> (f32, f32) {
    softmax::<E>(s, tokens)
}

/// s [H][SEGMENT] = q . k for the vectors of 4 tokens that hold the first `tokens` tokens.
#[inline(never)]
unsafe fn scores<E: Element, const H: usize, const V: usize>(
    pages: &[*const u8; VECTORS],
    block: usize,
    dims: usize,
    tokens: usize,
    q: *const f32,
    s: *mut f32,
) {
    let vectors = tokens.div_ceil(4);
    let stride = block * E::BYTES;
    let key = |v: usize| {
        let token = v * 4;
        pages[token / block].add(token % block * E::BYTES)
    };
    let mut v = 0;
    while v + V <= vectors {
        let mut keys = [std::ptr::null(); V];
        for (i, k) in keys.iter_mut().enumerate() {
            *k = key(v + i);
        }
        score_vectors::<E, H, V>(keys, stride, dims, q, s.add(v * 4));
        v += V;
    }
    while v < vectors {
        score_vectors::<E, H, 1>([key(v)], stride, dims, q, s.add(v * 4));
        v += 1;
    }
}

#[inline(always)]
unsafe fn score_vectors<E: Element, const H: usize, const V: usize>(
    keys: [*const u8; V],
    stride: usize,
    dims: usize,
    q: *const f32,
    s: *mut f32,
) {
    let mut acc = [[f32x4_splat(0.0); V]; H];
    let mut keys = keys;
    for d in 0..dims {
        let mut x = [f32x4_splat(0.0); H];
        for h in 0..H {
            x[h] = v128_load32_splat(q.add(h * MAX_DIM + d) as *const u32);
        }
        for i in 0..V {
            let k = E::load4(keys[i]);
            keys[i] = keys[i].add(stride);
            for h in 0..H {
                acc[h][i] = madd(k, x[h], acc[h][i]);
            }
        }
    }
    for h in 0..H {
        for i in 0..V {
            let score = f32x4_mul(acc[h][i], f32x4_splat(E::SCORE_SCALE));
            v128_store(s.add(h * SEGMENT + i * 4) as *mut v128, score);
        }
    }
}

/// o [H][o_stride] += p [H][SEGMENT] times the value rows of the first `tokens` tokens, in token order.
#[inline(never)]
unsafe fn values<E: Element, const H: usize, const V: usize>(
    pages: &[*const u8; VECTORS],
    block: usize,
    key_bytes: usize,
    width: usize,
    tokens: usize,
    p: *const f32,
    o: *mut f32,
    o_stride: usize,
) {
    let mut from = 0;
    while from < tokens {
        let to = tokens.min(from + VALUE_TOKENS);
        let mut d = 0;
        while d + 4 * V <= width {
            value_vectors::<E, H, V>(pages, block, key_bytes, width, from, to, d, p, o.add(d), o_stride);
            d += 4 * V;
        }
        while d < width {
            value_vectors::<E, H, 1>(pages, block, key_bytes, width, from, to, d, p, o.add(d), o_stride);
            d += 4;
        }
        from = to;
    }
}

#[inline(always)]
unsafe fn value_vectors<E: Element, const H: usize, const V: usize>(
    pages: &[*const u8; VECTORS],
    block: usize,
    key_bytes: usize,
    width: usize,
    from: usize,
    to: usize,
    d: usize,
    p: *const f32,
    o: *mut f32,
    o_stride: usize,
) {
    let mut acc = [[f32x4_splat(0.0); V]; H];
    for h in 0..H {
        for i in 0..V {
            acc[h][i] = v128_load(o.add(h * o_stride + i * 4) as *const v128);
        }
    }
    let mut token = from;
    while token < to {
        let slot = token % block;
        let end = to.min(token - slot + block);
        let mut row = pages[token / block].add(key_bytes + (slot * width + d) * E::BYTES);
        while token < end {
            let mut x = [f32x4_splat(0.0); H];
            for h in 0..H {
                x[h] = v128_load32_splat(p.add(h * SEGMENT + token) as *const u32);
            }
            for i in 0..V {
                let value = E::load4(row.add(i * 4 * E::BYTES));
                for h in 0..H {
                    acc[h][i] = madd(value, x[h], acc[h][i]);
                }
            }
            row = row.add(width * E::BYTES);
            token += 1;
        }
    }
    for h in 0..H {
        for i in 0..V {
            v128_store(o.add(h * o_stride + i * 4) as *mut v128, acc[h][i]);
        }
    }
}
