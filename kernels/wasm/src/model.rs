//! A model and a step as the host describes them: records of consecutive u32 and f32.

use crate::kv::KvPool;
use crate::product::Matrix;

/// Addresses of one block's weights; 0 where a bias is absent.
#[repr(C)]
pub struct Layer {
    pub attention_norm: *const f32,
    pub query: *const Matrix,
    pub key: *const Matrix,
    pub value: *const Matrix,
    pub query_bias: *const f32,
    pub key_bias: *const f32,
    pub value_bias: *const f32,
    pub output: *const Matrix,
    pub mlp_norm: *const f32,
    pub gate: *const Matrix,
    pub up: *const Matrix,
    pub down: *const Matrix,
}

/// A model on the device.
#[repr(C)]
pub struct Model {
    pub layers: u32,
    pub hidden: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub intermediate: u32,
    pub vocab: u32,
    pub eps: f32,
    pub rope_dimensions: u32,
    /// 0: pairs (2i, 2i+1); 1: pairs (i, i + dimensions / 2).
    pub rope_halves: u32,
    pub rope_magnitude: f32,
    /// f64 inverse frequencies.
    pub rope_frequencies: *const f64,
    /// Code of [`crate::product::Activations`].
    pub activations: u32,
    pub max_tokens: u32,
    pub max_rows: u32,
    pub embedding: *const Matrix,
    pub layer: *const Layer,
    pub output_norm: *const f32,
    pub head: *const Matrix,
    pub pool: *const KvPool,
}

impl Model {
    /// Query heads that share a kv head.
    pub fn group(&self) -> usize {
        (self.heads / self.kv_heads) as usize
    }

    /// Floats of the queries of one token.
    pub fn query_width(&self) -> usize {
        (self.heads * self.head_dim) as usize
    }

    /// Floats of the keys of one token.
    pub fn kv_width(&self) -> usize {
        (self.kv_heads * self.head_dim) as usize
    }
}

/// One sequence of a step.
///
/// A sequence with segments elsewhere comes with the nodes of the merge tree that make it up, ascending: every local one
/// is attended to here, of every other one the host writes the partial. Partial p of `count` tokens is
/// o [count][heads][head_dim], then lse [count][heads], at `partial + p * partial_floats()`.
#[repr(C)]
pub struct Sequence {
    /// Index of its first token in the step.
    pub first: u32,
    pub count: u32,
    pub position: u32,
    pub blocks: *const u32,
    /// Nodes; 0 when every segment is local.
    pub nodes: u32,
    /// First segment of each node.
    pub node_first: *const u32,
    /// Segments of each local node; 0 for a node whose partial the host brings.
    pub node_segments: *const u32,
    pub partial: *mut f32,
}

impl Sequence {
    /// Floats of one partial.
    pub fn partial_floats(&self, m: &Model) -> usize {
        self.count as usize * m.heads as usize * (m.head_dim as usize + 1)
    }
}

/// A step.
#[repr(C)]
pub struct Step {
    pub tokens: u32,
    pub sequences: u32,
    pub rows: u32,
    pub token: *const u32,
    pub sequence: *const Sequence,
    /// Step token whose logits row r holds.
    pub row_token: *const u32,
}

impl Step {
    /// The sequences.
    ///
    /// # Safety
    /// The record is as the host wrote it.
    pub unsafe fn all(&self) -> &[Sequence] {
        std::slice::from_raw_parts(self.sequence, self.sequences as usize)
    }
}
