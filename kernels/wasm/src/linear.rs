//! Matrix products run by a whole team on their own: for tests and benches of the kernels in [`crate::product`].

use crate::product::*;
use crate::quantize::GROUP;
use crate::team::Team;
use wasm_bindgen::prelude::*;

/// Workspace for up to `max_t` rows of up to `max_k` values; 0 when memory is exhausted.
#[wasm_bindgen]
pub fn inputs_new(max_t: usize, max_k: usize) -> usize {
    unsafe { Inputs::new(max_t, max_k) as usize }
}

/// Frees a workspace.
#[wasm_bindgen]
pub fn inputs_free(inputs: usize) {
    unsafe { Inputs::free(inputs as *mut Inputs) };
}

struct Job {
    matrix: *const Matrix,
    inputs: *const Inputs,
    x: *const f32,
    t: usize,
    out: *mut f32,
    activations: Activations,
    /// Rows of one chunk.
    chunk: usize,
    add: bool,
}

unsafe fn job(team: &Team, thread: usize, argument: usize) {
    let job = &*(argument as *const Job);
    let (m, inputs) = (&*job.matrix, &*job.inputs);
    // Whole groups of tokens, so that threads do not share cache lines.
    let groups = job.t.div_ceil(GROUP);
    let part = |thread: usize| job.t.min(groups * thread / team.threads() * GROUP);
    let rows = part(thread)..part(thread + 1);
    prepare(inputs, job.x, m.cols, m.cols, rows, m.needs(job.activations));
    team.barrier();
    loop {
        let first = team.claim() * job.chunk;
        if first >= m.rows {
            break;
        }
        let rows = first..m.rows.min(first + job.chunk);
        product(m, inputs, 0..job.t, rows, job.out, m.rows, job.add, job.activations);
    }
}

/// out [t, rows] = x [t, cols] times the matrix transposed, or out += that where `add` is not 0. `activations` is 0 for
/// i8, 1 for f32; threads claim `chunk` rows at a time, a multiple of 8.
#[wasm_bindgen]
pub fn linear_run(
    team: usize,
    matrix: usize,
    inputs: usize,
    x: usize,
    t: usize,
    out: usize,
    activations: u32,
    chunk: usize,
    add: u32,
) {
    let it = Job {
        matrix: matrix as *const Matrix,
        inputs: inputs as *const Inputs,
        x: x as *const f32,
        t,
        out: out as *mut f32,
        activations: Activations::from_code(activations),
        chunk,
        add: add != 0,
    };
    unsafe { (*(team as *const Team)).run(job, &it as *const Job as usize) };
}
