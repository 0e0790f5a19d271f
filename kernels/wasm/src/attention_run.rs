//! Attention of one sequence over all heads on a team: what `attendPartial`, the tests and the benches call.

use crate::attention::{attend, attend_scratch_bytes, tile_queries, Attend, SEGMENT};
use crate::kv::{append, read_block, write_block, KvKind, KvPool};
use crate::merge::merge_tree;
use crate::team::Team;
use wasm_bindgen::prelude::*;

/// Makes a pool over `blocks * kv_block_bytes` zeroed bytes at `base`; kind 0 f32, 1 f16, 2 bf16.
#[wasm_bindgen]
pub fn kv_pool_new(
    base: usize,
    blocks: usize,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    block_tokens: usize,
    kind: u32,
) -> usize {
    let kind = match kind {
        0 => KvKind::F32,
        1 => KvKind::F16,
        _ => KvKind::BF16,
    };
    Box::into_raw(Box::new(KvPool { base, blocks, layers, kv_heads, head_dim, block_tokens, kind })) as usize
}

/// Frees what [`kv_pool_new`] made; the blocks stay the caller's.
#[wasm_bindgen]
pub fn kv_pool_free(pool: usize) {
    drop(unsafe { Box::from_raw(pool as *mut KvPool) });
}

/// Bytes of one block of such a pool.
#[wasm_bindgen]
pub fn kv_block_bytes(layers: usize, kv_heads: usize, head_dim: usize, block_tokens: usize, kind: u32) -> usize {
    let kind = if kind == 0 { KvKind::F32 } else { KvKind::F16 };
    KvPool { base: 0, blocks: 0, layers, kv_heads, head_dim, block_tokens, kind }.block_bytes()
}

/// Appends `tokens` tokens from `position` on; k and v [tokens][kv_heads][head_dim]. `blocks[0]` holds position 0.
#[wasm_bindgen]
pub fn kv_append(pool: usize, layer: usize, blocks: usize, position: usize, tokens: usize, k: usize, v: usize) {
    unsafe {
        let pool = &*(pool as *const KvPool);
        let row = pool.kv_heads * pool.head_dim;
        for i in 0..tokens {
            let at = position + i;
            let block = *(blocks as *const u32).add(at / pool.block_tokens) as usize;
            let (k, v) = ((k as *const f32).add(i * row), (v as *const f32).add(i * row));
            append(pool, layer, block, at % pool.block_tokens, k, v);
        }
    }
}

/// Copies the bytes of a block to `target`.
#[wasm_bindgen]
pub fn kv_read_block(pool: usize, block: usize, target: usize) {
    unsafe { read_block(&*(pool as *const KvPool), block, target as *mut u8) }
}

/// Copies the bytes of a block from `source`.
#[wasm_bindgen]
pub fn kv_write_block(pool: usize, block: usize, source: usize) {
    unsafe { write_block(&*(pool as *const KvPool), block, source as *const u8) }
}

struct Run<'a> {
    pool: &'a KvPool,
    layer: usize,
    blocks: *const u32,
    table_start: usize,
    from: usize,
    to: usize,
    first_position: usize,
    queries: usize,
    group: usize,
    q: *const f32,
    o: *mut f32,
    lse: *mut f32,
    /// Query tokens of one task.
    tile: usize,
    /// Segments of one task when tasks are cut by segment, a power of two; 0 when a task does all segments.
    span: usize,
    parts: Vec<f32>,
    scratch: Vec<Vec<u64>>,
}

impl Run<'_> {
    fn heads(&self) -> usize {
        self.pool.kv_heads * self.group
    }

    fn row(&self) -> usize {
        self.heads() * self.pool.head_dim
    }

    /// First and one past the last span of segments.
    fn spans(&self) -> (usize, usize) {
        if self.span == 0 || self.to <= self.from {
            return (0, 1);
        }
        (self.from / SEGMENT / self.span, (self.to - 1) / SEGMENT / self.span + 1)
    }
}

/// Attention of `queries` query tokens over tokens [from, to) of one sequence on a team; q and o
/// [queries][kv_heads * group][head_dim], lse [queries][kv_heads * group]. `tile` 0 picks the task size. `span` 0: a task
/// covers all segments; else tasks are also cut into aligned spans of `span` segments (a power of two), merged afterwards.
#[wasm_bindgen]
pub fn attend_run(
    team: usize,
    pool: usize,
    layer: usize,
    blocks: usize,
    table_start: usize,
    from: usize,
    to: usize,
    first_position: usize,
    queries: usize,
    group: usize,
    q: usize,
    o: usize,
    lse: usize,
    tile: usize,
    span: usize,
) {
    let team = unsafe { &*(team as *const Team) };
    let pool = unsafe { &*(pool as *const KvPool) };
    let tile = if tile == 0 { tile_queries(group) } else { tile }.min(queries.max(1));
    let bytes = attend_scratch_bytes(pool, tile, group);
    let mut run = Run {
        pool,
        layer,
        blocks: blocks as *const u32,
        table_start,
        from,
        to,
        first_position,
        queries,
        group,
        q: q as *const f32,
        o: o as *mut f32,
        lse: lse as *mut f32,
        tile,
        span,
        parts: Vec::new(),
        scratch: (0..team.threads()).map(|_| Vec::with_capacity(bytes.div_ceil(8) + 1)).collect(),
    };
    if span > 0 {
        let (first, end) = run.spans();
        run.parts = Vec::with_capacity((end - first) * queries * run.heads() * (run.pool.head_dim + 1));
    }
    team.run(attend_job, &run as *const Run as usize);
}

unsafe fn attend_job(team: &Team, thread: usize, argument: usize) {
    let run = &*(argument as *const Run);
    let scratch = run.scratch[thread].as_ptr() as *mut u8;
    let scratch = scratch.add(scratch.align_offset(16));
    let (first, end) = run.spans();
    let tiles = run.queries.div_ceil(run.tile);
    loop {
        let task = team.claim();
        if task >= tiles * run.pool.kv_heads * (end - first) {
            break;
        }
        let part = task % (end - first);
        let kv_head = task / (end - first) % run.pool.kv_heads;
        let query = task / (end - first) / run.pool.kv_heads * run.tile;
        attend_task(run, first, part, kv_head, query, scratch);
    }
    if run.span == 0 {
        return;
    }
    team.barrier();
    loop {
        let query = team.claim();
        if query >= run.queries {
            break;
        }
        merge_query(run, end - first, first, query);
    }
}

/// Where part `part` of query token `query` is: o [heads][head_dim], then lse [heads].
unsafe fn part_at(run: &Run, part: usize, query: usize) -> *mut f32 {
    let size = run.heads() * (run.pool.head_dim + 1);
    (run.parts.as_ptr() as *mut f32).add((part * run.queries + query) * size)
}

unsafe fn attend_task(run: &Run, first: usize, part: usize, kv_head: usize, query: usize, scratch: *mut u8) {
    let dims = run.pool.head_dim;
    let head = kv_head * run.group;
    let mut task = Attend {
        layer: run.layer,
        kv_head,
        blocks: run.blocks,
        table_start: run.table_start,
        from: run.from,
        to: run.to,
        first_position: run.first_position.saturating_add(query),
        queries: run.tile.min(run.queries - query),
        group: run.group,
        q: run.q.add(query * run.row() + head * dims),
        q_stride: run.row(),
        o: run.o.add(query * run.row() + head * dims),
        o_stride: run.row(),
        lse: run.lse.add(query * run.heads() + head),
        lse_stride: run.heads(),
    };
    if run.span > 0 {
        let base = part_at(run, part, query);
        task.from = run.from.max((first + part) * run.span * SEGMENT);
        task.to = run.to.min((first + part + 1) * run.span * SEGMENT);
        task.o = base.add(head * dims);
        task.o_stride = run.heads() * (run.pool.head_dim + 1);
        task.lse = base.add(run.row() + head);
        task.lse_stride = task.o_stride;
    }
    attend(run.pool, &task, scratch);
}

unsafe fn merge_query(run: &Run, parts: usize, first: usize, query: usize) {
    let base = part_at(run, 0, query);
    let heads = run.heads();
    let lse = base.add(run.row());
    let stride = run.queries * heads * (run.pool.head_dim + 1);
    let (from, step) = (first * run.span, run.span);
    merge_tree(base, stride, lse, stride, heads, run.pool.head_dim, parts, std::ptr::null(), from, step);
    std::ptr::copy_nonoverlapping(base, run.o.add(query * run.row()), run.row());
    std::ptr::copy_nonoverlapping(lse, run.lse.add(query * heads), heads);
}

/// See [`merge_tree`]; `starts` 0 stands for 0, 1, 2, ...
#[wasm_bindgen]
pub fn merge_run(
    o: usize,
    o_stride: usize,
    lse: usize,
    lse_stride: usize,
    rows: usize,
    width: usize,
    count: usize,
    starts: usize,
) {
    unsafe {
        merge_tree(o as *mut f32, o_stride, lse as *mut f32, lse_stride, rows, width, count, starts as *const u32, 0, 1)
    }
}
