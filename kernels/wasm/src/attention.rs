//! DistAttention over a paged KV pool: the partial (o, lse) of query tokens over a token range.
//!
//! ```text
//! s_i = (q * scale) . k_i     m = max s_i     l = sum exp(s_i - m)     o = sum exp(s_i - m) v_i / l     lse = m + ln l
//! ```
//!
//! A sequence is cut at absolute positions into segments of [`SEGMENT`] tokens. One query head over one segment is always
//! computed in the same order: a score sums over d from 0 up; m and l over lanes i mod 4, then `sum4`; o over tokens in
//! order. Segments merge in the tree of [`crate::merge`]. There are two schedules of this arithmetic, equal to the bit:
//!
//! - one query token ([`crate::attention_decode`]): reads the pool once, all heads that share it at a time; memory bound.
//!   Bytes: 2 * head_dim * element bytes per token and kv head; 4 * head_dim flops per token and query head.
//! - a tile of query tokens ([`crate::attention_tile`]): decodes a segment to f32 scratch once, then register tiles of
//!   4 rows by 8 columns; bound by the multiply-add peak.
//!
//! Only tokens inside the range and at or before the query influence a result: other slots of the same blocks may hold
//! anything, NaN included, and table entries beyond the last token are not read.

use crate::attention_decode::{decode_segment, DECODE_FLOATS};
use crate::attention_tile::{pack_queries, tile_scratch_floats, tile_segment};
use crate::kv::{Element, KvKind, KvPool, BF16, F16, F32};
use crate::merge::{merge_into, Spine};
use crate::schedule::resident;
use crate::simd::*;

/// Tokens of one segment.
pub const SEGMENT: usize = 256;

/// One task: query tokens of one sequence against one kv head.
#[repr(C)]
pub struct Attend {
    pub layer: usize,
    pub kv_head: usize,
    /// Block ids; entry 0 holds the tokens from `table_start` on.
    pub blocks: *const u32,
    /// Absolute position of the first token of `blocks[0]`, a multiple of the block size.
    pub table_start: usize,
    /// Tokens attended to, [from, to), absolute; `from` is a multiple of the block size and at least `table_start`.
    pub from: usize,
    pub to: usize,
    /// Query token j attends to tokens up to `first_position + j`. `usize::MAX` means that `to` alone bounds it.
    pub first_position: usize,
    /// Query tokens.
    pub queries: usize,
    /// Query heads that share the kv head.
    pub group: usize,
    /// Rotated, not scaled. Head h of token j: `q + j * q_stride + h * head_dim` (floats).
    pub q: *const f32,
    pub q_stride: usize,
    /// Result, normalised. Head h of token j: `o + j * o_stride + h * head_dim` (floats).
    pub o: *mut f32,
    pub o_stride: usize,
    /// `lse + j * lse_stride + h`; null when not wanted.
    pub lse: *mut f32,
    pub lse_stride: usize,
}

/// Query tokens per prefill task that amortise decoding a segment: about 96 rows.
pub fn tile_queries(group: usize) -> usize {
    (96 / group).clamp(1, 96)
}

/// Partials that a task stacks at most: a segment's number is below 2^24, and two neighbours on the stack meet at
/// ever lower levels of the tree.
const STACK_DEPTH: usize = 25;

fn work_floats(pool: &KvPool, rows: usize) -> usize {
    tile_scratch_floats(pool, rows).max(DECODE_FLOATS)
}

/// Floats of one stacked partial: lse, then o.
fn slot_floats(pool: &KvPool, rows: usize) -> usize {
    rows.div_ceil(4) * 4 * (pool.width() + 1)
}

/// Bytes of scratch, aligned to 16, for tasks of at most `queries` query tokens and `group` heads over this pool. What a
/// task does not need is not touched.
pub fn attend_scratch_bytes(pool: &KvPool, queries: usize, group: usize) -> usize {
    let rows = queries * group;
    4 * (work_floats(pool, rows) + STACK_DEPTH * slot_floats(pool, rows))
}

/// What the schedules need to know about one segment.
pub(crate) struct Segment<'a> {
    pub pool: &'a KvPool,
    pub task: &'a Attend,
    /// Absolute position of the first token attended to.
    pub start: usize,
    /// Tokens attended to by the last query.
    pub tokens: usize,
}

impl Segment<'_> {
    /// Keys and values of the block of token `start + i`; `i` is a multiple of the block size.
    #[inline(always)]
    pub unsafe fn parts(&self, i: usize) -> (*const u8, *const u8) {
        let entry = (self.start + i - self.task.table_start) / self.pool.block_tokens;
        let block = *self.task.blocks.add(entry) as usize;
        let (layer, head) = (self.task.layer, self.task.kv_head);
        (self.pool.keys(layer, head, block), self.pool.values(layer, head, block))
    }

    /// Tokens of this segment that query token `j` attends to.
    #[inline(always)]
    pub fn visible(&self, j: usize) -> usize {
        let end = self.task.first_position.saturating_add(j).saturating_add(1);
        end.saturating_sub(self.start).min(self.tokens)
    }
}

/// How far a task has come. Its scratch belongs to it until it is complete.
pub struct Progress {
    spine: Spine,
    next: usize,
    end: usize,
}

impl Progress {
    /// Segments to go.
    pub fn left(&self) -> usize {
        self.end - self.next
    }
}

/// Computes one task. Any number of threads may run different tasks at once, each with its own scratch.
///
/// # Safety
/// Every table entry that covers a token attended to holds a block id of the pool; scratch is as
/// [`attend_scratch_bytes`] says.
pub unsafe fn attend(pool: &KvPool, task: &Attend, scratch: *mut u8) {
    let mut progress = attend_begin(pool, task, scratch);
    attend_some(pool, task, &mut progress, usize::MAX, scratch);
}

/// Begins a task that [`attend_some`] carries on. Safety: as [`attend`].
pub unsafe fn attend_begin(pool: &KvPool, task: &Attend, scratch: *mut u8) -> Progress {
    if task.queries > 1 {
        let work = scratch as *mut f32;
        match pool.kind {
            KvKind::F32 => pack_queries::<F32>(pool, task, work),
            KvKind::F16 => pack_queries::<F16>(pool, task, work),
            KvKind::BF16 => pack_queries::<BF16>(pool, task, work),
        }
    }
    let to = task.to.min(task.first_position.saturating_add(task.queries));
    let next = task.from / SEGMENT;
    let end = if to > task.from { (to - 1) / SEGMENT + 1 } else { next };
    Progress { spine: Spine::new(), next, end }
}

/// Attends to at most `segments` more segments. Returns whether the task is complete; its result is stored then. Safety:
/// as [`attend`].
pub unsafe fn attend_some(
    pool: &KvPool,
    task: &Attend,
    progress: &mut Progress,
    segments: usize,
    scratch: *mut u8,
) -> bool {
    let scratch = scratch as *mut f32;
    match pool.kind {
        KvKind::F32 => attend_as::<F32>(pool, task, progress, segments, scratch),
        KvKind::F16 => attend_as::<F16>(pool, task, progress, segments, scratch),
        KvKind::BF16 => attend_as::<BF16>(pool, task, progress, segments, scratch),
    }
}

#[inline(never)]
unsafe fn attend_as<E: Element>(
    pool: &KvPool,
    task: &Attend,
    progress: &mut Progress,
    segments: usize,
    scratch: *mut f32,
) -> bool {
    let rows = task.queries * task.group;
    let width = pool.width();
    let to = task.to.min(task.first_position.saturating_add(task.queries));
    let slot_lse = rows.div_ceil(4) * 4;
    let slot = slot_floats(pool, rows);
    let work = scratch;
    let stack = scratch.add(work_floats(pool, rows));

    let spine = &mut progress.spine;
    for segment in progress.next..progress.next + segments.min(progress.end - progress.next) {
        while spine.merges_before(segment) {
            merge_top(stack, slot, slot_lse, rows, width, spine);
        }
        let start = task.from.max(segment * SEGMENT);
        let end = to.min((segment + 1) * SEGMENT);
        let part = Segment { pool, task, start, tokens: end - start };
        let lse = stack.add(spine.depth() * slot);
        let o = lse.add(slot_lse);
        if task.queries == 1 {
            decode_segment::<E>(&part, o, lse, work);
        } else {
            tile_segment::<E>(&part, o, lse, work);
        }
        spine.push(segment);
        progress.next = segment + 1;
    }
    if progress.next < progress.end {
        return false;
    }
    while spine.depth() >= 2 {
        merge_top(stack, slot, slot_lse, rows, width, spine);
    }
    finish(pool, task, stack, stack.add(slot_lse), spine.depth() == 0);
    true
}

#[inline(never)]
unsafe fn merge_top(stack: *mut f32, slot: usize, slot_lse: usize, rows: usize, width: usize, spine: &mut Spine) {
    let b = stack.add((spine.depth() - 1) * slot);
    let a = b.sub(slot);
    for r in 0..rows {
        merge_into(a.add(slot_lse + r * width), a.add(r), b.add(slot_lse + r * width), b.add(r), width);
    }
    spine.pop();
}

/// Copies the rows to the caller's places.
#[inline(never)]
unsafe fn finish(pool: &KvPool, task: &Attend, lse: *const f32, o: *const f32, empty: bool) {
    let width = pool.width();
    for j in 0..task.queries {
        for h in 0..task.group {
            let row = j * task.group + h;
            let target = task.o.add(j * task.o_stride + h * pool.head_dim);
            if empty {
                std::ptr::write_bytes(target, 0, pool.head_dim);
            } else {
                std::ptr::copy_nonoverlapping(o.add(row * width), target, pool.head_dim);
            }
            if !task.lse.is_null() {
                *task.lse.add(j * task.lse_stride + h) = if empty { f32::NEG_INFINITY } else { *lse.add(row) };
            }
        }
    }
}

/// The query times 1/sqrt(head_dim) times the element type's factor.
#[inline(always)]
pub(crate) fn query_scale<E: Element>(pool: &KvPool) -> (f32, f32) {
    ((1.0 / (pool.head_dim as f64).sqrt()) as f32, E::QUERY_SCALE)
}

/// Turns the first `tokens` scores of a row into weights exp(s - m) * WEIGHT_SCALE; returns (m, l). When every score is
/// -inf, l is 0. Scores from `tokens` up to the next multiple of 4 are overwritten, whatever they hold.
#[inline(always)]
pub(crate) unsafe fn softmax<E: Element>(s: *mut f32, tokens: usize) -> (f32, f32) {
    let none = f32x4_splat(f32::NEG_INFINITY);
    let whole = tokens / 4 * 4;
    let address = |i: usize| s.add(i) as *mut v128;
    if whole < tokens {
        let lanes = i32x4_lt(i32x4(0, 1, 2, 3), i32x4_splat((tokens - whole) as i32));
        v128_store(address(whole), v128_bitselect(v128_load(address(whole)), none, lanes));
    }
    let mut maxima = [none; 4];
    let mut i = 0;
    while i + 16 <= tokens {
        for (j, m4) in maxima.iter_mut().enumerate() {
            *m4 = f32x4_pmax(*m4, v128_load(address(i + 4 * j)));
        }
        i += 16;
    }
    while i < tokens {
        maxima[0] = f32x4_pmax(maxima[0], v128_load(address(i)));
        i += 4;
    }
    let m4 = f32x4_pmax(f32x4_pmax(maxima[0], maxima[1]), f32x4_pmax(maxima[2], maxima[3]));
    let m = f32x4_extract_lane::<0>(m4)
        .max(f32x4_extract_lane::<1>(m4))
        .max(f32x4_extract_lane::<2>(m4).max(f32x4_extract_lane::<3>(m4)));
    if m == f32::NEG_INFINITY {
        return (m, 0.0);
    }
    let exp = Exp::new();
    let scale = resident(f32x4_splat(E::WEIGHT_SCALE));
    let m4 = f32x4_splat(m);
    let mut l4 = f32x4_splat(0.0);
    for i in (0..tokens).step_by(4) {
        let p = exp.of(f32x4_sub(v128_load(address(i)), m4));
        l4 = f32x4_add(l4, p);
        v128_store(address(i), f32x4_mul(p, scale));
    }
    (m, sum4(l4))
}

/// Divides a row by l and returns its lse; an empty row becomes o = 0, lse = -inf.
#[inline(always)]
pub(crate) unsafe fn normalise(o: *mut f32, width: usize, m: f32, l: f32) -> f32 {
    if l == 0.0 {
        std::ptr::write_bytes(o, 0, width);
        return f32::NEG_INFINITY;
    }
    let l4 = f32x4_splat(l);
    for d in (0..width).step_by(4) {
        let address = o.add(d) as *mut v128;
        v128_store(address, f32x4_div(v128_load(address), l4));
    }
    m + ln1(l)
}
