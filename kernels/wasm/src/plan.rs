//! Spreads the attention of a batch over tasks, and says which partials are joined afterwards. How a batch is cut changes
//! who computes a value, never the value.

use crate::attention::{tile_queries, Attend, SEGMENT};
use crate::model::{Model, Sequence, Step};

/// What an f32 multiply-accumulate of attention costs, in those of a matrix product.
const ATTENTION_COST: u64 = 3;

/// A tile of queries of one sequence, one kv head, a range of segments.
#[derive(Clone, Copy)]
pub struct Task {
    pub sequence: u32,
    pub kv_head: u32,
    pub first: u32,
    pub queries: u32,
    segment_from: u32,
    segment_to: u32,
    /// Where its first row goes; rows of further tokens follow as in [`Sequence`]'s partials.
    o: *mut f32,
    /// Null for tasks that finish their queries.
    lse: *mut f32,
}

impl Task {
    /// The task as the kernel takes it; `query` holds the queries of the step.
    ///
    /// # Safety
    /// The step is the planned one.
    pub unsafe fn attend(&self, m: &Model, s: &Step, layer: usize, query: *const f32) -> Attend {
        let sequence = &*s.sequence.add(self.sequence as usize);
        let (width, group) = (m.query_width(), m.group());
        let token = (sequence.first + self.first) as usize;
        Attend {
            layer,
            kv_head: self.kv_head as usize,
            blocks: sequence.blocks,
            table_start: 0,
            from: self.segment_from as usize * SEGMENT,
            to: self.segment_to as usize * SEGMENT,
            first_position: (sequence.position + self.first) as usize,
            queries: self.queries as usize,
            group,
            q: query.add(token * width + self.kv_head as usize * group * m.head_dim as usize),
            q_stride: width,
            o: self.o,
            o_stride: width,
            lse: self.lse,
            lse_stride: m.heads as usize,
        }
    }

    /// Cost of the whole task.
    fn cost(&self, m: &Model) -> u64 {
        (self.segment_to - self.segment_from + 1) as u64 * self.unit_cost(m)
    }

    /// Cost of one segment, and of finishing the task.
    pub fn unit_cost(&self, m: &Model) -> u64 {
        let rows = self.queries as u64 * m.group() as u64;
        2 * rows * m.head_dim as u64 * SEGMENT as u64 * ATTENTION_COST
    }
}

/// A sequence whose nodes were attended to one by one.
#[derive(Clone, Copy)]
pub struct Join {
    pub sequence: u32,
    pub partial: *mut f32,
    pub partials: usize,
    /// First segment of each partial; null for 0, 1, 2, ...
    pub starts: *const u32,
    /// Number of its first unit; a unit is one token and kv head.
    pub unit: usize,
}

/// The attention of a step.
#[derive(Default)]
pub struct AttentionPlan {
    pub tasks: Vec<Task>,
    pub joins: Vec<Join>,
    /// Tokens times kv heads over all joins.
    pub join_units: usize,
    /// Most partials of one join.
    pub join_partials: usize,
    /// Cost of all tasks.
    pub cost: u64,
    /// Partials of decode queries that are split over threads.
    partials: Vec<f32>,
}

impl AttentionPlan {
    /// Plans a step whose results go to `attended` [tokens][heads * head_dim].
    ///
    /// # Safety
    /// Records are as the host wrote them and outlive the plan.
    pub unsafe fn make(&mut self, m: &Model, s: &Step, threads: usize, attended: *mut f32) {
        self.tasks.clear();
        self.joins.clear();
        self.join_units = 0;
        self.join_partials = 0;
        let split = threads > 1 && s.all().len() * (m.kv_heads as usize) < 4 * threads && self.reserve(m, s);
        let mut split_floats = 0;
        for (index, sequence) in s.all().iter().enumerate() {
            let index = index as u32;
            let segments = (sequence.position + sequence.count).div_ceil(SEGMENT as u32);
            if sequence.nodes > 0 {
                let nodes = sequence.nodes as usize;
                self.join(index, sequence, m, sequence.partial, nodes, sequence.node_first);
                for node in 0..nodes {
                    let (first, count) = (*sequence.node_first.add(node), *sequence.node_segments.add(node));
                    if count > 0 {
                        let o = sequence.partial.add(node * sequence.partial_floats(m));
                        self.cut(index, sequence, m, first..first + count, o, true);
                    }
                }
            } else if split && sequence.count == 1 && segments > 1 {
                let partial = self.partials.as_mut_ptr().add(split_floats);
                self.join(index, sequence, m, partial, segments as usize, std::ptr::null());
                for segment in 0..segments {
                    let o = partial.add(segment as usize * sequence.partial_floats(m));
                    self.cut(index, sequence, m, segment..segment + 1, o, true);
                }
                split_floats += segments as usize * sequence.partial_floats(m);
            } else {
                let o = attended.add(sequence.first as usize * m.query_width());
                self.cut(index, sequence, m, 0..segments, o, false);
            }
        }
        // Long tasks first, so that no thread is left with one at the end; then head by head, as the pool lies in memory.
        self.tasks
            .sort_by_key(|t| (std::cmp::Reverse(t.queries * (t.segment_to - t.segment_from)), t.sequence, t.kv_head));
        self.cost = self.tasks.iter().map(|t| t.cost(m)).sum();
    }

    /// Makes room for the partials of all decode queries; false when memory is short.
    unsafe fn reserve(&mut self, m: &Model, s: &Step) -> bool {
        let decodes = s.all().iter().filter(|q| q.count == 1 && q.nodes == 0);
        let floats: usize =
            decodes.map(|q| (q.position as usize + 1).div_ceil(SEGMENT) * q.partial_floats(m)).sum();
        self.partials.clear();
        self.partials.try_reserve(floats).is_ok()
    }

    unsafe fn join(
        &mut self,
        index: u32,
        sequence: &Sequence,
        m: &Model,
        partial: *mut f32,
        partials: usize,
        starts: *const u32,
    ) {
        self.joins.push(Join { sequence: index, partial, partials, starts, unit: self.join_units });
        self.join_units += sequence.count as usize * m.kv_heads as usize;
        self.join_partials = self.join_partials.max(partials);
    }

    /// Tasks of a range of segments. `o` is the place of the first token's first head, of a whole partial if `partial`.
    unsafe fn cut(
        &mut self,
        index: u32,
        sequence: &Sequence,
        m: &Model,
        segments: std::ops::Range<u32>,
        o: *mut f32,
        partial: bool,
    ) {
        let tile = tile_queries(m.group()) as u32;
        let (width, heads) = (m.query_width(), m.heads as usize);
        for kv_head in 0..m.kv_heads {
            let head = kv_head as usize * m.group();
            for first in (0..sequence.count).step_by(tile as usize) {
                let queries = (sequence.count - first).min(tile);
                let last = (sequence.position + first + queries).div_ceil(SEGMENT as u32);
                let lse = if partial {
                    o.add(sequence.count as usize * width + first as usize * heads + head)
                } else {
                    std::ptr::null_mut()
                };
                self.tasks.push(Task {
                    sequence: index,
                    kv_head,
                    first,
                    queries,
                    segment_from: segments.start,
                    segment_to: segments.end.min(last).max(segments.start),
                    o: o.add(first as usize * width + head * m.head_dim as usize),
                    lse,
                });
            }
        }
    }
}
