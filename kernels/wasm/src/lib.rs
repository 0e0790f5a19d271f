//! DistAttention and transformer kernels for WebAssembly.
//!
//! Every kernel is an SPMD function: all threads of a [`team::Team`] call it with the same arguments and claim chunks of
//! its work from the team's counter. A chunk writes outputs that no other chunk writes, in an order of operations that
//! does not depend on the chunking, so results are bit-identical for any number of threads.

// Blocking waits have no stable intrinsic; the build sets RUSTC_BOOTSTRAP, as it must to build std with atomics.
#![feature(stdarch_wasm_atomic_wait)]
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

pub mod activation;
pub mod attend_pool;
pub mod attention;
pub mod attention_decode;
pub mod attention_run;
pub mod attention_tile;
pub mod elementwise_run;
pub mod forward;
pub mod kv;
pub mod linear;
pub mod logits;
pub mod matrix;
pub mod merge;
pub mod model;
pub mod norm;
pub mod phases;
pub mod plan;
pub mod product;
mod product_f32;
mod product_i16;
mod product_i8;
pub mod quantize;
mod record;
pub mod rope;
mod schedule;
pub mod simd;
pub mod stream;
pub mod team;
pub mod workspace;

use wasm_bindgen::prelude::*;

fn layout_of(bytes: usize) -> Option<std::alloc::Layout> {
    std::alloc::Layout::from_size_align(bytes.max(64), 64).ok()
}

/// Allocates `bytes` zeroed bytes aligned to 64; 0 when memory is exhausted or `bytes` is 2 GiB or more.
#[wasm_bindgen]
pub fn alloc(bytes: usize) -> usize {
    layout_of(bytes).map_or(0, |layout| unsafe { std::alloc::alloc_zeroed(layout) as usize })
}

/// Allocates `bytes` bytes aligned to 64 without touching them, so that fresh pages stay untaken until they are used; 0
/// when memory is exhausted or `bytes` is 2 GiB or more.
#[wasm_bindgen]
pub fn alloc_untouched(bytes: usize) -> usize {
    layout_of(bytes).map_or(0, |layout| unsafe { std::alloc::alloc(layout) as usize })
}

/// Frees what [`alloc`] or [`alloc_untouched`] returned for the same size.
#[wasm_bindgen]
pub fn dealloc(address: usize, bytes: usize) {
    if let Some(layout) = layout_of(bytes) {
        unsafe { std::alloc::dealloc(address as *mut u8, layout) }
    }
}
