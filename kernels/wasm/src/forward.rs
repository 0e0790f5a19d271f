//! One step of a decoder-only transformer over a batch of mixed prefill and decode, run by all threads of a team.
//!
//! A step is cut into stages (embed; per layer: keys, attention, MLP; head) so that a caller may stop between them.
//! Every stage ends at a barrier. Inside a stage, threads claim chunks: rows of a weight matrix, tokens, or attention
//! tasks. A value is computed by one chunk in one order, so neither the batch nor the thread count changes its bits.
//!
//! Longer than other files because the records the host writes, the plan and the stages of a step describe each other.

use crate::activation::silu_mul;
use crate::attention::{attend, attend_scratch_bytes, tile_queries, Attend, SEGMENT};
use crate::kv::{append, KvPool};
use crate::logits::{chunks as row_chunks, reduce_chunk, reduce_finish, ChunkStats, Summary};
use crate::matrix::row_f32;
use crate::merge::merge_tree;
use crate::norm::rmsnorm;
use crate::product::{prepare, product, Activations, Inputs, Matrix, ROW_TILE};
use crate::rope::{rope_apply, rope_table};
use crate::team::Team;
use std::ops::Range;
use wasm_bindgen::prelude::*;

/// Weight rows of one chunk of a product of more than [`STREAM_TOKENS`] tokens.
const ROW_CHUNK: usize = 32;
/// Batches of at most this many tokens stream weights at the speed of memory: a thread takes one run of rows of each
/// matrix, because a jump costs more than a microsecond until the prefetcher has found the stream again. Every thread
/// also prepares the inputs for itself, which saves a barrier.
const STREAM_TOKENS: usize = 2;
/// Least rows of one chunk of the head.
const HEAD_CHUNK: usize = 512;
/// Tokens whose prepared inputs share no cache line with their neighbours'.
const INPUT_GROUP: usize = 4;

/// Addresses of one block's weights; 0 where a bias is absent. Written by the host as consecutive u32.
#[repr(C)]
pub struct Layer {
    attention_norm: *const f32,
    query: *const Matrix,
    key: *const Matrix,
    value: *const Matrix,
    query_bias: *const f32,
    key_bias: *const f32,
    value_bias: *const f32,
    output: *const Matrix,
    mlp_norm: *const f32,
    gate: *const Matrix,
    up: *const Matrix,
    down: *const Matrix,
}

/// A model on the device. Written by the host as consecutive u32 and f32.
#[repr(C)]
pub struct Model {
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    intermediate: u32,
    vocab: u32,
    eps: f32,
    rope_dimensions: u32,
    /// 0: pairs (2i, 2i+1); 1: pairs (i, i + dimensions / 2).
    rope_halves: u32,
    rope_magnitude: f32,
    /// f64 inverse frequencies.
    rope_frequencies: *const f64,
    /// Code of [`Activations`].
    activations: u32,
    max_tokens: u32,
    max_rows: u32,
    embedding: *const Matrix,
    layer: *const Layer,
    output_norm: *const f32,
    head: *const Matrix,
    pool: *const KvPool,
}

/// One sequence of a step. Written by the host as consecutive u32.
#[repr(C)]
pub struct Sequence {
    /// Index of its first token in the step.
    first: u32,
    count: u32,
    position: u32,
    blocks: *const u32,
}

/// A step. Written by the host as consecutive u32.
#[repr(C)]
pub struct Step {
    tokens: u32,
    sequences: u32,
    rows: u32,
    token: *const u32,
    sequence: *const Sequence,
    /// Step token whose logits row r holds.
    row_token: *const u32,
}

/// An attention task: a tile of queries of one sequence, one kv head, a range of segments.
#[derive(Clone, Copy)]
struct Task {
    sequence: u32,
    kv_head: u32,
    first: u32,
    queries: u32,
    segment_from: u32,
    segment_to: u32,
    /// Offset of its partials in the partial buffer, in partials; unused for tasks that finish their queries.
    partial: u32,
}

/// A decode query whose segments were attended to by separate tasks.
#[derive(Clone, Copy)]
struct Join {
    token: u32,
    kv_head: u32,
    partial: u32,
    segments: u32,
}

/// Buffers of a model's steps.
pub struct Workspace {
    team: *const Team,
    model: *const Model,
    x: *mut f32,
    normed: *mut f32,
    query: *mut f32,
    key: *mut f32,
    value: *mut f32,
    attended: *mut f32,
    gate: *mut f32,
    up: *mut f32,
    cos: *mut f32,
    sin: *mut f32,
    position: *mut u32,
    owner: *mut u32,
    logits: *mut f32,
    stats: *mut ChunkStats,
    summary: *mut Summary,
    shared: *mut Inputs,
    private: Vec<*mut Inputs>,
    private_normed: Vec<*mut f32>,
    scratch: Vec<*mut u8>,
    /// Partials of split decode queries, grown by [`Workspace::plan`].
    partials: Vec<f32>,
    partial_o: *mut f32,
    partial_lse: *mut f32,
    tasks: Vec<Task>,
    joins: Vec<Join>,
    step: *const Step,
    from: u32,
    to: u32,
}

unsafe fn floats(count: usize) -> *mut f32 {
    // Fresh pages stay untaken until a step is large enough to use them.
    crate::alloc_untouched(count * 4) as *mut f32
}

/// Makes the workspace of `model` for a team. Returns its address, 0 when memory is exhausted.
#[wasm_bindgen]
pub unsafe fn workspace_new(team: usize, model: usize) -> usize {
    let team_ref = &*(team as *const Team);
    let m = &*(model as *const Model);
    let t = m.max_tokens as usize;
    let (q, kv) = (m.query_width(), m.kv_width());
    let half = m.rope_dimensions as usize / 2;
    let widest = (m.hidden as usize).max(q).max(m.intermediate as usize);
    let pool = &*m.pool;
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
    let private: Vec<_> = (0..team_ref.threads()).map(|_| Inputs::new(STREAM_TOKENS, widest)).collect();
    let private_normed: Vec<_> =
        (0..team_ref.threads()).map(|_| floats(STREAM_TOKENS * m.hidden as usize)).collect();
    let scratch_size = attend_scratch_bytes(pool, tile_queries(m.group()), m.group());
    let scratch: Vec<_> = (0..team_ref.threads()).map(|_| crate::alloc(scratch_size) as *mut u8).collect();
    if buffers.iter().any(|b| b.is_null())
        || shared.is_null()
        || private.iter().any(|p| p.is_null())
        || private_normed.iter().any(|p| p.is_null())
        || scratch.iter().any(|s| s.is_null())
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
        private_normed,
        scratch,
        partials: Vec::new(),
        partial_o: std::ptr::null_mut(),
        partial_lse: std::ptr::null_mut(),
        tasks: Vec::new(),
        joins: Vec::new(),
        step: std::ptr::null(),
        from: 0,
        to: 0,
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

/// Bytes of one row summary.
#[wasm_bindgen]
pub fn workspace_summary_bytes() -> usize {
    size_of::<Summary>()
}

/// Stages of a step: embed, three per layer, head.
#[wasm_bindgen]
pub unsafe fn workspace_stages(workspace: usize) -> u32 {
    3 * (*(*(workspace as *const Workspace)).model).layers + 2
}

/// Runs stages `from..to` of a step on the whole team. Stages of one step must run in order, each once.
#[wasm_bindgen]
pub unsafe fn workspace_run(workspace: usize, step: usize, from: u32, to: u32) {
    let w = &mut *(workspace as *mut Workspace);
    if from == 0 {
        w.step = step as *const Step;
        w.plan();
    }
    w.from = from;
    w.to = to;
    (*w.team).run(run_stages, workspace);
}

/// Partial attention of one query over `length` tokens from `start` on, all heads: o [heads][head_dim], lse [heads].
/// `blocks[0]` holds `start`.
#[wasm_bindgen]
pub unsafe fn workspace_attend(
    workspace: usize,
    layer: usize,
    start: usize,
    length: usize,
    blocks: usize,
    query: usize,
    o: usize,
    lse: usize,
) {
    let w = &*(workspace as *const Workspace);
    let m = &*w.model;
    let (d, group) = (m.head_dim as usize, m.group());
    for kv_head in 0..m.kv_heads as usize {
        let task = Attend {
            layer,
            kv_head,
            blocks: blocks as *const u32,
            table_start: start,
            from: start,
            to: start + length,
            first_position: usize::MAX,
            queries: 1,
            group,
            q: (query as *const f32).add(kv_head * group * d),
            q_stride: 0,
            o: (o as *mut f32).add(kv_head * group * d),
            o_stride: 0,
            lse: (lse as *mut f32).add(kv_head * group),
            lse_stride: 0,
        };
        attend(&*m.pool, &task, w.scratch[0]);
    }
}

unsafe fn run_stages(team: &Team, thread: usize, workspace: usize) {
    let w = &*(workspace as *const Workspace);
    let m = &*w.model;
    let r = Run { w, m, s: &*w.step, team, thread, activations: Activations::from_code(m.activations) };
    for stage in w.from..w.to {
        if stage == 0 {
            r.embed();
        } else if stage == 3 * r.m.layers + 1 {
            r.head();
        } else {
            let layer = (stage as usize - 1) / 3;
            match (stage - 1) % 3 {
                0 => r.keys(layer),
                1 => r.attention(layer),
                _ => r.mlp(layer),
            }
        }
        // `Team::run` ends with a barrier of its own.
        if stage + 1 < w.to {
            team.barrier();
        }
    }
}

impl Model {
    fn group(&self) -> usize {
        (self.heads / self.kv_heads) as usize
    }
    fn query_width(&self) -> usize {
        (self.heads * self.head_dim) as usize
    }
    fn kv_width(&self) -> usize {
        (self.kv_heads * self.head_dim) as usize
    }
}

impl Workspace {
    /// Spreads the batch over attention tasks. How it is cut changes who computes a value, never the value.
    unsafe fn plan(&mut self) {
        let m = &*self.model;
        let s = &*self.step;
        let threads = (*self.team).threads();
        let sequences = std::slice::from_raw_parts(s.sequence, s.sequences as usize);
        self.tasks.clear();
        self.joins.clear();
        // Merging reads whole vectors, so heads of another width are not split.
        let split = threads > 1 && sequences.len() * (m.kv_heads as usize) < 4 * threads && m.head_dim % 4 == 0;
        let tile = tile_queries(m.group()) as u32;
        let mut partials = 0u32;
        for (index, sequence) in sequences.iter().enumerate() {
            for i in 0..sequence.count {
                *self.position.add((sequence.first + i) as usize) = sequence.position + i;
                *self.owner.add((sequence.first + i) as usize) = index as u32;
            }
            let segments = (sequence.position + sequence.count).div_ceil(SEGMENT as u32);
            for kv_head in 0..m.kv_heads {
                if sequence.count == 1 && segments > 1 && split {
                    let base = partials;
                    partials += segments;
                    self.joins.push(Join { token: sequence.first, kv_head, partial: base, segments });
                    for segment in 0..segments {
                        self.tasks.push(Task {
                            sequence: index as u32,
                            kv_head,
                            first: 0,
                            queries: 1,
                            segment_from: segment,
                            segment_to: segment + 1,
                            partial: base + segment,
                        });
                    }
                    continue;
                }
                let mut first = 0;
                while first < sequence.count {
                    let queries = (sequence.count - first).min(tile);
                    let last = (sequence.position + first + queries).div_ceil(SEGMENT as u32);
                    self.tasks.push(Task {
                        sequence: index as u32,
                        kv_head,
                        first,
                        queries,
                        segment_from: 0,
                        segment_to: last,
                        partial: u32::MAX,
                    });
                    first += queries;
                }
            }
        }
        // Long tasks first, so that no thread is left with one at the end.
        self.tasks.sort_by_key(|t| std::cmp::Reverse(t.queries * (t.segment_to - t.segment_from)));
        let (heads, width) = (partials as usize * m.group(), m.head_dim as usize);
        self.partials.resize(heads * (width + 1), 0.0);
        self.partial_o = self.partials.as_mut_ptr();
        self.partial_lse = self.partial_o.add(heads * width);
    }
}

/// One thread's view of a running step.
struct Run<'a> {
    w: &'a Workspace,
    m: &'a Model,
    s: &'a Step,
    team: &'a Team,
    thread: usize,
    activations: Activations,
}

impl Run<'_> {
    fn tokens(&self) -> usize {
        self.s.tokens as usize
    }

    /// Calls `work` with every chunk of `0..total` that this thread claims.
    fn chunks(&self, total: usize, size: usize, mut work: impl FnMut(Range<usize>)) {
        loop {
            let start = self.team.claim() * size;
            if start >= total {
                return;
            }
            work(start..(start + size).min(total));
        }
    }

    /// Tokens a thread takes at a time where the work is per token.
    fn token_chunk(&self) -> usize {
        (self.tokens() / (4 * self.team.threads())).clamp(1, 16).next_multiple_of(INPUT_GROUP)
    }

    /// Rows of a matrix that a thread takes at a time when `tokens` rows of inputs are multiplied; whole pairs of tiles.
    fn row_chunk(&self, rows: usize, tokens: usize) -> usize {
        if tokens <= STREAM_TOKENS {
            rows.div_ceil(self.team.threads()).next_multiple_of(2 * ROW_TILE)
        } else {
            ROW_CHUNK
        }
    }

    /// Prepares the inputs of `matrices` from rows of `x`, normalised first when `norm` is given, and returns the
    /// workspace that holds them.
    unsafe fn inputs(&self, x: *const f32, k: usize, norm: Option<*const f32>, matrices: &[*const Matrix]) -> &Inputs {
        let needs = matrices.iter().fold(0, |all, m| all | (**m).needs(self.activations));
        let fill = |inputs: &Inputs, normed: *mut f32, rows: Range<usize>| {
            let source = match norm {
                None => x,
                Some(weight) => {
                    for t in rows.clone() {
                        rmsnorm(x.add(t * k), weight, self.m.eps, k, normed.add(t * k));
                    }
                    normed as *const f32
                }
            };
            prepare(inputs, source, k, k, rows, needs);
        };
        if self.tokens() <= STREAM_TOKENS {
            let inputs = &*self.w.private[self.thread];
            fill(inputs, self.w.private_normed[self.thread], 0..self.tokens());
            inputs
        } else {
            let inputs = &*self.w.shared;
            self.chunks(self.tokens(), self.token_chunk(), |rows| fill(inputs, self.w.normed, rows));
            self.team.barrier();
            inputs
        }
    }

    unsafe fn embed(&self) {
        let hidden = self.m.hidden as usize;
        let half = self.m.rope_dimensions as usize / 2;
        self.chunks(self.tokens(), self.token_chunk(), |rows| {
            for t in rows {
                row_f32(&*self.m.embedding, *self.s.token.add(t) as usize, self.w.x.add(t * hidden));
                rope_table(
                    *self.w.position.add(t),
                    self.m.rope_frequencies,
                    half,
                    self.m.rope_magnitude,
                    self.w.cos.add(t * half),
                    self.w.sin.add(t * half),
                );
            }
        });
    }

    /// Queries, keys and values of a layer, rotated; keys and values stored in the pool.
    unsafe fn keys(&self, layer: usize) {
        let m = self.m;
        let l = &*m.layer.add(layer);
        let tokens = self.tokens();
        let inputs = self.inputs(self.w.x, m.hidden as usize, Some(l.attention_norm), &[l.query, l.key, l.value]);
        let (q, kv) = (m.query_width(), m.kv_width());
        // One numbering over the chunks of the three matrices.
        let (query_chunk, kv_chunk) = (self.row_chunk(q, tokens), self.row_chunk(kv, tokens));
        let (query_chunks, kv_chunks) = (q.div_ceil(query_chunk), kv.div_ceil(kv_chunk));
        self.chunks(query_chunks + 2 * kv_chunks, 1, |chunk| {
            let (matrix, out, width, size, index) = if chunk.start < query_chunks {
                (l.query, self.w.query, q, query_chunk, chunk.start)
            } else if chunk.start < query_chunks + kv_chunks {
                (l.key, self.w.key, kv, kv_chunk, chunk.start - query_chunks)
            } else {
                (l.value, self.w.value, kv, kv_chunk, chunk.start - query_chunks - kv_chunks)
            };
            let rows = index * size..(index * size + size).min(width);
            product(&*matrix, inputs, 0..tokens, rows, out, width, false, self.activations);
        });
        self.team.barrier();
        let half = m.rope_dimensions as usize / 2;
        self.chunks(tokens, self.token_chunk(), |rows| {
            for t in rows {
                let (query, key, value) = (self.w.query.add(t * q), self.w.key.add(t * kv), self.w.value.add(t * kv));
                add_bias(query, l.query_bias, q);
                add_bias(key, l.key_bias, kv);
                add_bias(value, l.value_bias, kv);
                let (cos, sin) = (self.w.cos.add(t * half), self.w.sin.add(t * half));
                rope_apply(query, m.heads as usize, m.head_dim as usize, half, cos, sin, m.rope_halves != 0);
                rope_apply(key, m.kv_heads as usize, m.head_dim as usize, half, cos, sin, m.rope_halves != 0);
                let sequence = &*self.s.sequence.add(*self.w.owner.add(t) as usize);
                let position = *self.w.position.add(t) as usize;
                let block_tokens = (*m.pool).block_tokens as usize;
                let block = *sequence.blocks.add(position / block_tokens) as usize;
                append(&*m.pool, layer, block, position % block_tokens, key, value);
            }
        });
    }

    unsafe fn attention(&self, layer: usize) {
        let m = self.m;
        let w = self.w;
        let (q, d, group) = (m.query_width(), m.head_dim as usize, m.group());
        let scratch = w.scratch[self.thread];
        self.chunks(w.tasks.len(), 1, |index| {
            let task = w.tasks[index.start];
            let sequence = &*self.s.sequence.add(task.sequence as usize);
            let token = (sequence.first + task.first) as usize;
            let column = task.kv_head as usize * group * d;
            let (o, lse) = if task.partial == u32::MAX {
                (w.attended.add(token * q + column), std::ptr::null_mut())
            } else {
                let p = task.partial as usize;
                (w.partial_o.add(p * group * d), w.partial_lse.add(p * group))
            };
            let task = Attend {
                layer,
                kv_head: task.kv_head as usize,
                blocks: sequence.blocks,
                table_start: 0,
                from: task.segment_from as usize * SEGMENT,
                to: task.segment_to as usize * SEGMENT,
                first_position: (sequence.position + task.first) as usize,
                queries: task.queries as usize,
                group,
                q: w.query.add(token * q + column),
                q_stride: q,
                o,
                o_stride: q,
                lse,
                lse_stride: group,
            };
            attend(&*m.pool, &task, scratch);
        });
        if w.joins.is_empty() {
            return;
        }
        self.team.barrier();
        self.chunks(w.joins.len(), 1, |index| {
            let join = w.joins[index.start];
            let out = w.attended.add(join.token as usize * q + join.kv_head as usize * group * d);
            let (o, lse) = (w.partial_o.add(join.partial as usize * group * d), w.partial_lse.add(join.partial as usize * group));
            let count = join.segments as usize;
            merge_tree(o, group * d, lse, group, group, d, count, std::ptr::null(), 0, 1);
            std::ptr::copy_nonoverlapping(o, out, group * d);
        });
    }

    /// Output projection and gated MLP, both added to the residual stream.
    unsafe fn mlp(&self, layer: usize) {
        let m = self.m;
        let l = &*m.layer.add(layer);
        let tokens = self.tokens();
        let (hidden, inner) = (m.hidden as usize, m.intermediate as usize);
        let inputs = self.inputs(self.w.attended, m.query_width(), None, &[l.output]);
        self.chunks(hidden, self.row_chunk(hidden, tokens), |rows| {
            product(&*l.output, inputs, 0..tokens, rows, self.w.x, hidden, true, self.activations);
        });
        self.team.barrier();
        let inputs = self.inputs(self.w.x, hidden, Some(l.mlp_norm), &[l.gate, l.up]);
        self.chunks(inner, self.row_chunk(inner, tokens), |rows| {
            product(&*l.gate, inputs, 0..tokens, rows.clone(), self.w.gate, inner, false, self.activations);
            product(&*l.up, inputs, 0..tokens, rows.clone(), self.w.up, inner, false, self.activations);
            for t in 0..tokens {
                let at = t * inner + rows.start;
                silu_mul(self.w.gate.add(at), self.w.up.add(at), rows.len(), self.w.gate.add(at));
            }
        });
        self.team.barrier();
        let inputs = self.inputs(self.w.gate, inner, None, &[l.down]);
        self.chunks(hidden, self.row_chunk(hidden, tokens), |rows| {
            product(&*l.down, inputs, 0..tokens, rows, self.w.x, hidden, true, self.activations);
        });
    }

    /// Logits and their summaries for the wanted rows.
    unsafe fn head(&self) {
        let m = self.m;
        let rows = self.s.rows as usize;
        if rows == 0 {
            return;
        }
        let (hidden, vocab) = (m.hidden as usize, m.vocab as usize);
        // The wanted rows move to the front of the normalised buffer, which no one reads any more.
        self.chunks(rows, INPUT_GROUP, |group| {
            for r in group.clone() {
                let token = *self.s.row_token.add(r) as usize;
                rmsnorm(self.w.x.add(token * hidden), m.output_norm, m.eps, hidden, self.w.normed.add(r * hidden));
            }
            let needs = (*m.head).needs(self.activations);
            prepare(&*self.w.shared, self.w.normed, hidden, hidden, group, needs);
        });
        self.team.barrier();
        self.chunks(vocab, self.row_chunk(vocab, rows).max(HEAD_CHUNK), |columns| {
            product(&*m.head, &*self.w.shared, 0..rows, columns, self.w.logits, vocab, false, self.activations);
        });
        self.team.barrier();
        let per_row = row_chunks(vocab);
        self.chunks(rows * per_row, 1, |c| {
            let (row, chunk) = (c.start / per_row, c.start % per_row);
            reduce_chunk(self.w.logits.add(row * vocab), vocab, chunk, self.w.stats.add(c.start));
        });
        self.team.barrier();
        self.chunks(rows, 1, |r| {
            let r = r.start;
            reduce_finish(self.w.logits.add(r * vocab), vocab, self.w.stats.add(r * per_row), self.w.summary.add(r));
        });
    }
}

unsafe fn add_bias(row: *mut f32, bias: *const f32, width: usize) {
    if !bias.is_null() {
        for i in 0..width {
            *row.add(i) += *bias.add(i);
        }
    }
}
