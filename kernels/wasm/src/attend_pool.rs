//! Attention to tokens of a pool on behalf of others: what a holder computes for queries that come from elsewhere. Needs
//! no model, and shares nothing with a step in progress but the pool and the team.

use crate::attention::{attend, attend_scratch_bytes, tile_queries, Attend};
use crate::kv::KvPool;
use crate::team::Team;
use wasm_bindgen::prelude::*;

/// Query tokens of one sequence against tokens [from, to) of it, all of which they see. Written by the host as consecutive
/// u32.
#[repr(C)]
pub struct PoolWork {
    blocks: *const u32,
    /// Position of the first token of `blocks[0]`.
    start: u32,
    from: u32,
    to: u32,
    queries: u32,
    /// [queries][heads][head_dim], rotated, not scaled.
    q: *const f32,
    /// [queries][heads][head_dim]
    o: *mut f32,
    /// [queries][heads]
    lse: *mut f32,
}

#[derive(Clone, Copy)]
struct Task {
    work: u32,
    kv_head: u32,
    first: u32,
    queries: u32,
}

/// What attention for others needs beyond the pool.
pub struct PoolAttention {
    team: *const Team,
    pool: *const KvPool,
    group: usize,
    scratch: Vec<*mut u8>,
    layer: usize,
    works: *const PoolWork,
    tasks: Vec<Task>,
}

/// Makes the scratch and lists for attention to `pool` with `group` query heads a kv head. Returns the address, 0 when
/// memory is exhausted.
#[wasm_bindgen]
pub unsafe fn pool_attention_new(team: usize, pool: usize, group: usize) -> usize {
    let (team, pool) = (team as *const Team, pool as *const KvPool);
    let bytes = attend_scratch_bytes(&*pool, tile_queries(group), group);
    let scratch: Vec<_> = (0..(*team).threads()).map(|_| crate::alloc_untouched(bytes) as *mut u8).collect();
    if scratch.iter().any(|s| s.is_null()) {
        return 0;
    }
    let works = std::ptr::null();
    Box::into_raw(Box::new(PoolAttention { team, pool, group, scratch, layer: 0, works, tasks: Vec::new() })) as usize
}

/// Attends to one layer for `count` works at `works`, on the whole team.
#[wasm_bindgen]
pub unsafe fn pool_attention_run(attention: usize, layer: usize, works: usize, count: usize) {
    let a = &mut *(attention as *mut PoolAttention);
    a.layer = layer;
    a.works = works as *const PoolWork;
    a.tasks.clear();
    let works = std::slice::from_raw_parts(a.works, count);
    let tile = tile_queries(a.group) as u32;
    for (index, work) in works.iter().enumerate() {
        for kv_head in 0..(*a.pool).kv_heads as u32 {
            for first in (0..work.queries).step_by(tile as usize) {
                let queries = (work.queries - first).min(tile);
                a.tasks.push(Task { work: index as u32, kv_head, first, queries });
            }
        }
    }
    // Long tasks first, so that no thread is left with one at the end.
    a.tasks.sort_by_key(|t| {
        let work = &works[t.work as usize];
        std::cmp::Reverse(t.queries as u64 * (work.to - work.from) as u64)
    });
    (*a.team).run(job, attention);
}

unsafe fn job(team: &Team, thread: usize, attention: usize) {
    let a = &*(attention as *const PoolAttention);
    let pool = &*a.pool;
    let (d, heads) = (pool.head_dim, pool.kv_heads * a.group);
    while let Some(task) = a.tasks.get(team.claim()) {
        let work = &*a.works.add(task.work as usize);
        let head = task.kv_head as usize * a.group;
        let row = task.first as usize * heads + head;
        let task = Attend {
            layer: a.layer,
            kv_head: task.kv_head as usize,
            blocks: work.blocks,
            table_start: work.start as usize,
            from: work.from as usize,
            to: work.to as usize,
            first_position: usize::MAX,
            queries: task.queries as usize,
            group: a.group,
            q: work.q.add(row * d),
            q_stride: heads * d,
            o: work.o.add(row * d),
            o_stride: heads * d,
            lse: work.lse.add(row),
            lse_stride: heads,
        };
        attend(pool, &task, a.scratch[thread]);
    }
}
