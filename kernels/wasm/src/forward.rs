//! What the phases of a step compute: a decoder-only transformer over a batch of mixed prefill and decode.
//!
//! A value is computed by one chunk in one order, so neither the batch nor the thread count nor where a step stopped
//! changes its bits.

use crate::activation::silu_mul;
use crate::attention::{attend_begin, attend_some};
use crate::kv::append;
use crate::logits::{chunks as row_chunks, reduce_chunk, reduce_finish, CHUNK};
use crate::matrix::row_f32;
use crate::merge::merge_tree;
use crate::model::{Model, Step};
use crate::norm::rmsnorm;
use crate::phases::{Extent, Phase};
use crate::product::{prepare, product, Activations, Inputs, Matrix, ROW_TILE};
use crate::rope::{rope_apply, rope_table};
use crate::team::Team;
use crate::workspace::{OpenTask, Workspace, STREAM_TOKENS};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Weight rows of one unit.
const UNIT_ROWS: usize = 2 * ROW_TILE;
/// Units of one chunk of a product of more than [`STREAM_TOKENS`] tokens.
const CHUNK_UNITS: usize = 2;
/// Least units of one chunk of the head.
const HEAD_CHUNK_UNITS: usize = 32;
/// Tokens whose prepared inputs share no cache line with their neighbours'.
const INPUT_GROUP: usize = 4;

/// Cost of a value that is normalised, quantised, rotated or activated.
const VALUE_COST: usize = 64;
/// Cost of a sine and cosine in f64.
const ANGLE_COST: usize = 4096;
/// A product costs as much as one with this many tokens: with fewer it waits for memory.
const LEAST_TOKENS: usize = 4;
/// Cost of finding the candidates of a row.
const SUMMARY_COST: usize = 1 << 23;

/// One thread's view of a running step.
pub struct Run<'a> {
    pub w: &'a Workspace,
    pub m: &'a Model,
    pub s: &'a Step,
    pub team: &'a Team,
    pub thread: usize,
    pub activations: Activations,
}

/// What a phase prepares as inputs of matrices: rows of `k` values, normalised first when there is a `norm`.
struct Source {
    x: *const f32,
    k: usize,
    norm: *const f32,
    needs: u32,
}

fn row_units(rows: usize) -> usize {
    rows.div_ceil(UNIT_ROWS)
}

/// Rows of units `units` of a matrix of `rows` rows whose first unit has number `first`; empty when none is among them.
fn rows_of(units: &Range<usize>, first: usize, rows: usize) -> Range<usize> {
    let at = |unit: usize| (unit.max(first) - first).saturating_mul(UNIT_ROWS).min(rows);
    at(units.start)..at(units.end)
}

impl Run<'_> {
    fn tokens(&self) -> usize {
        self.s.tokens as usize
    }

    fn streams(&self) -> bool {
        self.tokens() <= STREAM_TOKENS
    }

    /// Whether every thread does all of this phase for itself.
    pub fn is_private(&self, phase: Phase) -> bool {
        use Phase::*;
        self.streams() && matches!(phase, AttentionInputs | OutputInputs | MlpInputs | DownInputs)
    }

    /// How much a phase is.
    pub fn extent(&self, phase: Phase) -> Extent {
        use Phase::*;
        let m = self.m;
        let (hidden, inner, vocab) = (m.hidden as usize, m.intermediate as usize, m.vocab as usize);
        let (q, kv) = (m.query_width(), m.kv_width());
        let rows = self.s.rows as usize;
        match phase {
            Embed => self.per_token(hidden * VALUE_COST + m.rope_dimensions as usize / 2 * ANGLE_COST),
            AttentionInputs | MlpInputs => self.per_token(hidden * VALUE_COST),
            OutputInputs => self.per_token(q * VALUE_COST),
            DownInputs => self.per_token(inner * VALUE_COST),
            Projections => self.per_rows(row_units(q) + 2 * row_units(kv), hidden, self.tokens()),
            Queries => self.per_rows(row_units(q), hidden, self.tokens()),
            KeysValues => self.per_rows(2 * row_units(kv), hidden, self.tokens()),
            RotateAll => self.per_token((q + 2 * kv) * VALUE_COST),
            RotateQueries => self.per_token(q * VALUE_COST),
            RotateKeys => self.per_token(2 * kv * VALUE_COST),
            Join => {
                let plan = &self.w.plan;
                let chunk = (plan.join_units / (4 * self.team.threads())).clamp(1, 16);
                let values = plan.join_partials * m.group() * (m.head_dim as usize + 16);
                Extent { units: plan.join_units, chunk, divisible: true, cost: (values * VALUE_COST / 8) as f64 }
            }
            Output => self.per_rows(row_units(hidden), q, self.tokens()),
            GateUp => self.per_rows(row_units(inner), 2 * hidden + VALUE_COST, self.tokens()),
            Down => self.per_rows(row_units(hidden), inner, self.tokens()),
            HeadInputs => {
                Extent { units: rows, chunk: INPUT_GROUP, divisible: false, cost: (hidden * VALUE_COST) as f64 }
            }
            Head => {
                let units = if rows == 0 { 0 } else { row_units(vocab) };
                let extent = self.per_rows(units, hidden, rows);
                Extent { chunk: extent.chunk.max(HEAD_CHUNK_UNITS), ..extent }
            }
            Statistics => {
                let units = rows * row_chunks(vocab);
                Extent { units, chunk: 1, divisible: true, cost: (CHUNK * VALUE_COST) as f64 }
            }
            Summaries => Extent { units: rows, chunk: 1, divisible: true, cost: SUMMARY_COST as f64 },
            Asked | Attention | Awaited => unreachable!(),
        }
    }

    fn per_token(&self, cost: usize) -> Extent {
        let tokens = self.tokens();
        let chunk = (tokens / (4 * self.team.threads())).clamp(1, 16).next_multiple_of(INPUT_GROUP);
        Extent { units: tokens, chunk, divisible: false, cost: cost as f64 }
    }

    /// Units of weight rows of `cols` columns, multiplied with `tokens` inputs.
    fn per_rows(&self, units: usize, cols: usize, tokens: usize) -> Extent {
        let chunk = if tokens <= STREAM_TOKENS { units.div_ceil(self.team.threads()) } else { CHUNK_UNITS };
        let cost = UNIT_ROWS * cols * tokens.max(LEAST_TOKENS);
        Extent { units, chunk: chunk.max(1), divisible: true, cost: cost as f64 }
    }

    /// Computes units `range` of a phase. Inputs of the phases before are complete.
    pub unsafe fn work(&self, phase: Phase, layer: usize, range: Range<usize>) {
        use Phase::*;
        match phase {
            Embed => self.embed(range),
            AttentionInputs | OutputInputs | MlpInputs | DownInputs => {
                self.prepare(phase, layer, range, &*self.w.shared, self.w.normed)
            }
            Projections | Queries => self.project(layer, range),
            KeysValues => {
                let queries = row_units(self.m.query_width());
                self.project(layer, range.start + queries..range.end + queries);
            }
            RotateAll => {
                self.rotate_queries(layer, range.clone());
                self.rotate_keys(layer, range);
            }
            RotateQueries => self.rotate_queries(layer, range),
            RotateKeys => self.rotate_keys(layer, range),
            Join => range.for_each(|unit| self.join(unit)),
            Output => self.add_product((*self.m.layer.add(layer)).output, range),
            GateUp => self.gate_up(layer, range),
            Down => self.add_product((*self.m.layer.add(layer)).down, range),
            HeadInputs => self.head_inputs(range),
            Head => self.head(range),
            Statistics => range.for_each(|unit| self.statistics(unit)),
            Summaries => range.for_each(|row| self.summary(row)),
            Asked | Attention | Awaited => unreachable!(),
        }
    }

    /// Does a private phase.
    pub unsafe fn prepare_private(&self, phase: Phase, layer: usize) {
        let private = &self.w.private[self.thread];
        self.prepare(phase, layer, 0..self.tokens(), &*private.inputs, private.normed);
    }

    unsafe fn source(&self, phase: Phase, layer: usize) -> Source {
        let (m, w) = (self.m, self.w);
        let l = &*m.layer.add(layer);
        let needs = |matrices: &[*const Matrix]| {
            matrices.iter().fold(0, |all, matrix| all | unsafe { (**matrix).needs(self.activations) })
        };
        let hidden = m.hidden as usize;
        match phase {
            Phase::AttentionInputs => {
                Source { x: w.x, k: hidden, norm: l.attention_norm, needs: needs(&[l.query, l.key, l.value]) }
            }
            Phase::OutputInputs => {
                Source { x: w.attended, k: m.query_width(), norm: std::ptr::null(), needs: needs(&[l.output]) }
            }
            Phase::MlpInputs => Source { x: w.x, k: hidden, norm: l.mlp_norm, needs: needs(&[l.gate, l.up]) },
            _ => Source { x: w.gate, k: m.intermediate as usize, norm: std::ptr::null(), needs: needs(&[l.down]) },
        }
    }

    unsafe fn prepare(&self, phase: Phase, layer: usize, tokens: Range<usize>, inputs: &Inputs, normed: *mut f32) {
        let Source { mut x, k, norm, needs } = self.source(phase, layer);
        if !norm.is_null() {
            for t in tokens.clone() {
                rmsnorm(x.add(t * k), norm, self.m.eps, k, normed.add(t * k));
            }
            x = normed;
        }
        prepare(inputs, x, k, k, tokens, needs);
    }

    /// The prepared inputs of the current phase.
    unsafe fn inputs(&self) -> &Inputs {
        if self.streams() {
            &*self.w.private[self.thread].inputs
        } else {
            &*self.w.shared
        }
    }

    unsafe fn embed(&self, tokens: Range<usize>) {
        let (m, w) = (self.m, self.w);
        let hidden = m.hidden as usize;
        let half = m.rope_dimensions as usize / 2;
        for t in tokens {
            row_f32(&*m.embedding, *self.s.token.add(t) as usize, w.x.add(t * hidden));
            let (cos, sin) = (w.cos.add(t * half), w.sin.add(t * half));
            rope_table(*w.position.add(t), m.rope_frequencies, half, m.rope_magnitude, cos, sin);
        }
    }

    /// Queries, keys and values of a layer: one numbering over the units of the three matrices.
    unsafe fn project(&self, layer: usize, units: Range<usize>) {
        let (m, w) = (self.m, self.w);
        let l = &*m.layer.add(layer);
        let (q, kv) = (m.query_width(), m.kv_width());
        let mut first = 0;
        for (matrix, width, out) in [(l.query, q, w.query), (l.key, kv, w.key), (l.value, kv, w.value)] {
            let rows = rows_of(&units, first, width);
            if !rows.is_empty() {
                product(&*matrix, self.inputs(), 0..self.tokens(), rows, out, width, false, self.activations);
            }
            first += row_units(width);
        }
    }

    unsafe fn rotate(&self, row: *mut f32, heads: u32, t: usize) {
        let m = self.m;
        let half = m.rope_dimensions as usize / 2;
        let (cos, sin) = (self.w.cos.add(t * half), self.w.sin.add(t * half));
        rope_apply(row, heads as usize, m.head_dim as usize, half, cos, sin, m.rope_halves != 0);
    }

    unsafe fn rotate_queries(&self, layer: usize, tokens: Range<usize>) {
        let (m, q) = (self.m, self.m.query_width());
        for t in tokens {
            let query = self.w.query.add(t * q);
            add_bias(query, (*m.layer.add(layer)).query_bias, q);
            self.rotate(query, m.heads, t);
        }
    }

    /// Rotates keys, and stores keys and values in the pool.
    unsafe fn rotate_keys(&self, layer: usize, tokens: Range<usize>) {
        let (m, w, kv) = (self.m, self.w, self.m.kv_width());
        let l = &*m.layer.add(layer);
        for t in tokens {
            let (key, value) = (w.key.add(t * kv), w.value.add(t * kv));
            add_bias(key, l.key_bias, kv);
            add_bias(value, l.value_bias, kv);
            self.rotate(key, m.kv_heads, t);
            let sequence = &*self.s.sequence.add(*w.owner.add(t) as usize);
            let position = *w.position.add(t) as usize;
            let block_tokens = (*m.pool).block_tokens;
            let block = *sequence.blocks.add(position / block_tokens) as usize;
            append(&*m.pool, layer, block, position % block_tokens, key, value);
        }
    }

    /// Attention tasks, until none is left or this thread has spent its share.
    pub unsafe fn attention(&self, layer: usize, share: f64) {
        let (m, w) = (self.m, self.w);
        let private = &w.private[self.thread];
        let open = &mut *private.open.get();
        let mut spent = 0;
        while (spent as f64) < share {
            let (index, begun) = match open.take() {
                Some(OpenTask { index, progress }) => (index, Some(progress)),
                None => (w.attention.next.fetch_add(1, Relaxed) as usize, None),
            };
            let Some(task) = w.plan.tasks.get(index) else {
                break;
            };
            let attend = task.attend(m, self.s, layer, w.query);
            let mut progress = begun.unwrap_or_else(|| attend_begin(&*m.pool, &attend, private.scratch));
            let unit = task.unit_cost(m);
            let segments = ((share - spent as f64) / unit as f64).ceil() as usize;
            let before = progress.left();
            let complete = attend_some(&*m.pool, &attend, &mut progress, segments, private.scratch);
            spent += (before - progress.left() + complete as usize) as u64 * unit;
            if !complete {
                *open = Some(OpenTask { index, progress });
            }
        }
        w.attention.left.fetch_sub(spent, Relaxed);
    }

    /// Merges the partials of one token and kv head.
    unsafe fn join(&self, unit: usize) {
        let (m, w) = (self.m, self.w);
        let joins = &w.plan.joins;
        let join = &joins[joins.partition_point(|j| j.unit <= unit) - 1];
        let sequence = &*self.s.sequence.add(join.sequence as usize);
        let (kv_heads, group, d) = (m.kv_heads as usize, m.group(), m.head_dim as usize);
        let token = (unit - join.unit) / kv_heads;
        let head = (unit - join.unit) % kv_heads * group;
        let o = join.partial.add(token * m.query_width() + head * d);
        let lse = join.partial.add(sequence.count as usize * m.query_width() + token * m.heads as usize + head);
        let stride = sequence.partial_floats(m);
        merge_tree(o, stride, lse, stride, group, d, join.partials, join.starts, 0, 1);
        let out = w.attended.add((sequence.first as usize + token) * m.query_width() + head * d);
        std::ptr::copy_nonoverlapping(o, out, group * d);
    }

    /// Adds rows of `matrix` times the inputs to the residual stream.
    unsafe fn add_product(&self, matrix: *const Matrix, units: Range<usize>) {
        let hidden = self.m.hidden as usize;
        let rows = rows_of(&units, 0, hidden);
        product(&*matrix, self.inputs(), 0..self.tokens(), rows, self.w.x, hidden, true, self.activations);
    }

    unsafe fn gate_up(&self, layer: usize, units: Range<usize>) {
        let (w, inner, tokens) = (self.w, self.m.intermediate as usize, self.tokens());
        let l = &*self.m.layer.add(layer);
        let rows = rows_of(&units, 0, inner);
        product(&*l.gate, self.inputs(), 0..tokens, rows.clone(), w.gate, inner, false, self.activations);
        product(&*l.up, self.inputs(), 0..tokens, rows.clone(), w.up, inner, false, self.activations);
        for t in 0..tokens {
            let at = t * inner + rows.start;
            silu_mul(w.gate.add(at), w.up.add(at), rows.len(), w.gate.add(at));
        }
    }

    /// Moves the wanted rows to the front of the normalised buffer, which no one reads any more, and prepares them.
    unsafe fn head_inputs(&self, rows: Range<usize>) {
        let (m, w, hidden) = (self.m, self.w, self.m.hidden as usize);
        for r in rows.clone() {
            let token = *self.s.row_token.add(r) as usize;
            rmsnorm(w.x.add(token * hidden), m.output_norm, m.eps, hidden, w.normed.add(r * hidden));
        }
        prepare(&*w.shared, w.normed, hidden, hidden, rows, (*m.head).needs(self.activations));
    }

    unsafe fn head(&self, units: Range<usize>) {
        let (m, w, vocab) = (self.m, self.w, self.m.vocab as usize);
        let columns = rows_of(&units, 0, vocab);
        product(&*m.head, &*w.shared, 0..self.s.rows as usize, columns, w.logits, vocab, false, self.activations);
    }

    unsafe fn statistics(&self, unit: usize) {
        let (w, vocab) = (self.w, self.m.vocab as usize);
        let per_row = row_chunks(vocab);
        reduce_chunk(w.logits.add(unit / per_row * vocab), vocab, unit % per_row, w.stats.add(unit));
    }

    unsafe fn summary(&self, row: usize) {
        let (w, vocab) = (self.w, self.m.vocab as usize);
        let stats = w.stats.add(row * row_chunks(vocab));
        reduce_finish(w.logits.add(row * vocab), vocab, stats, w.summary.add(row));
    }
}

unsafe fn add_bias(row: *mut f32, bias: *const f32, width: usize) {
    if !bias.is_null() {
        for i in 0..width {
            *row.add(i) += *bias.add(i);
        }
    }
}
