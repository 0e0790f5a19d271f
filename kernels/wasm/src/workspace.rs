//! The buffers of a model's steps, and where the step in progress stands.

use crate::attention::{attend_scratch_bytes, tile_queries, Progress};
use crate::logits::{chunks as row_chunks, ChunkStats, Summary};
use crate::model::{Model, Step};
use crate::phases::Place;
use crate::plan::AttentionPlan;
use crate::product::Inputs;
use crate::team::Team;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64};
use wasm_bindgen::prelude::*;

/// Batches of at most this many tokens stream weights at the speed of memory: a thread takes one run of rows of each
/// matrix, because a jump costs more than a microsecond until the prefetcher has found the stream again. Every thread
/// also prepares the inputs for itself, which saves a barrier.
pub const STREAM_TOKENS: usize = 2;

/// An attention task that a thread has begun.
pub struct OpenTask {
    pub index: usize,
    pub progress: Progress,
}

/// What one thread alone uses.
pub struct Private {
    /// Inputs of a batch of at most [`STREAM_TOKENS`].
    pub inputs: *mut Inputs,
    pub normed: *mut f32,
    pub scratch: *mut u8,
    pub open: UnsafeCell<Option<OpenTask>>,
}

/// How far the attention of the current layer is. On cache lines of its own, because all threads write it.
#[repr(C, align(128))]
pub struct AttentionState {
    /// Next task to claim.
    pub next: AtomicU32,
    /// Cost of what is left.
    pub left: AtomicU64,
}

/// Buffers of a model's steps.
pub struct Workspace {
    pub team: *const Team,
    pub model: *const Model,
    pub x: *mut f32,
    pub normed: *mut f32,
    pub query: *mut f32,
    pub key: *mut f32,
    pub value: *mut f32,
    pub attended: *mut f32,
    pub gate: *mut f32,
    pub up: *mut f32,
    pub cos: *mut f32,
    pub sin: *mut f32,
    pub position: *mut u32,
    pub owner: *mut u32,
    pub logits: *mut f32,
    pub stats: *mut ChunkStats,
    pub summary: *mut Summary,
    pub shared: *mut Inputs,
    pub private: Vec<Private>,
    pub attention: AttentionState,
    pub plan: AttentionPlan,
    pub step: *const Step,
    /// Where the step stands.
    pub place: Place,
    /// Budget of the current slice.
    pub budget: f64,
    /// What [`AttentionState::left`] was when the slice began.
    pub attention_before: u64,
    /// What the slice ended with, written by thread 0.
    pub reached: UnsafeCell<(Place, u32)>,
}

unsafe fn floats(count: usize) -> *mut f32 {
    // Fresh pages stay untaken until a step is large enough to use them.
    crate::alloc_untouched(count * 4) as *mut f32
}

/// Makes the workspace of `model` for a team. Returns its address, 0 when memory is exhausted.
#[wasm_bindgen]
pub unsafe fn workspace_new(team: usize, model: usize) -> usize {
    let threads = (*(team as *const Team)).threads();
    let m = &*(model as *const Model);
    let t = m.max_tokens as usize;
    let (q, kv) = (m.query_width(), m.kv_width());
    let half = m.rope_dimensions as usize / 2;
    let widest = (m.hidden as usize).max(q).max(m.intermediate as usize);
    let buffers = [
        t * m.hidden as usize,
        t * m.hidden as usize,
        t * q,
        t * kv,
        t * kv,
        t * q,
        t * m.intermediate as usize,
        t * m.intermediate as usize,
        t * half,
        t * half,
        t,
        t,
        m.max_rows as usize * m.vocab as usize,
        m.max_rows as usize * row_chunks(m.vocab as usize) * size_of::<ChunkStats>() / 4,
        m.max_rows as usize * size_of::<Summary>() / 4,
    ]
    .map(|n| floats(n));
    let shared = Inputs::new(t, widest);
    let scratch = attend_scratch_bytes(&*m.pool, tile_queries(m.group()), m.group());
    let private: Vec<_> = (0..threads)
        .map(|_| Private {
            inputs: Inputs::new(STREAM_TOKENS, widest),
            normed: floats(STREAM_TOKENS * m.hidden as usize),
            scratch: crate::alloc_untouched(scratch) as *mut u8,
            open: UnsafeCell::new(None),
        })
        .collect();
    if buffers.iter().any(|b| b.is_null())
        || shared.is_null()
        || private.iter().any(|p| p.inputs.is_null() || p.normed.is_null() || p.scratch.is_null())
    {
        return 0;
    }
    let [x, normed, query, key, value, attended, gate, up, cos, sin, position, owner, logits, stats, summary] = buffers;
    Box::into_raw(Box::new(Workspace {
        team: team as *const Team,
        model: model as *const Model,
        x,
        normed,
        query,
        key,
        value,
        attended,
        gate,
        up,
        cos,
        sin,
        position: position as *mut u32,
        owner: owner as *mut u32,
        logits,
        stats: stats as *mut ChunkStats,
        summary: summary as *mut Summary,
        shared,
        private,
        attention: AttentionState { next: AtomicU32::new(0), left: AtomicU64::new(0) },
        plan: AttentionPlan::default(),
        step: std::ptr::null(),
        place: Place::default(),
        budget: 0.0,
        attention_before: 0,
        reached: UnsafeCell::new((Place::default(), 0)),
    })) as usize
}

/// Address of the logits, [max_rows, vocab] f32.
#[wasm_bindgen]
pub unsafe fn workspace_logits(workspace: usize) -> usize {
    (*(workspace as *const Workspace)).logits as usize
}

/// Address of the row summaries, see [`Summary`].
#[wasm_bindgen]
pub unsafe fn workspace_summaries(workspace: usize) -> usize {
    (*(workspace as *const Workspace)).summary as usize
}

/// Address of the current layer's queries, [tokens, heads * head_dim] f32, rotated.
#[wasm_bindgen]
pub unsafe fn workspace_queries(workspace: usize) -> usize {
    (*(workspace as *const Workspace)).query as usize
}

/// Bytes of one row summary.
#[wasm_bindgen]
pub fn workspace_summary_bytes() -> usize {
    size_of::<Summary>()
}
