//! A step as a list of phases that can stop: between phases, and within one between its units.
//!
//! A phase is so many units of work (tokens, groups of weight rows, attention tasks), each with a cost. Threads claim
//! chunks of units; a barrier ends the phase. Under a budget a slice takes as many units as it pays for, and the next one
//! goes on behind them. All threads compute the same places from the same costs, so they need not agree on anything.
//! Attention is the exception: its tasks may be long and stop between segments, each on the thread that began it; there a
//! thread has a share of the budget, and the slice ends unless every task is complete.

use crate::forward::Run;
use crate::model::Step;
use crate::product::Activations;
use crate::team::Team;
use crate::workspace::Workspace;
use std::sync::atomic::Ordering::Relaxed;
use wasm_bindgen::prelude::*;

/// Parts of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Embed,
    /// Normalises and quantises what the projections take.
    AttentionInputs,
    Projections,
    Queries,
    KeysValues,
    /// Rotates queries and keys and appends keys and values to the pool.
    RotateAll,
    RotateQueries,
    RotateKeys,
    /// A stop: the queries can be sent.
    Asked,
    Attention,
    /// A stop: partials from elsewhere must be there.
    Awaited,
    Join,
    OutputInputs,
    Output,
    MlpInputs,
    GateUp,
    DownInputs,
    Down,
    HeadInputs,
    Head,
    Statistics,
    Summaries,
}

use Phase::*;

/// Phases of a layer whose batch has all its keys and values here.
const LOCAL: &[Phase] = &[
    AttentionInputs, Projections, RotateAll, Attention, Join, OutputInputs, Output, MlpInputs, GateUp, DownInputs, Down,
];

/// Phases of a layer when some are elsewhere: queries leave before keys and values are computed.
const SPREAD: &[Phase] = &[
    AttentionInputs, Queries, RotateQueries, Asked, KeysValues, RotateKeys, Attention, Awaited, Join, OutputInputs, Output,
    MlpInputs, GateUp, DownInputs, Down,
];

const HEAD: &[Phase] = &[HeadInputs, Head, Statistics, Summaries];

/// Where a step stands.
#[derive(Clone, Copy, Default)]
pub struct Place {
    /// Number of the phase.
    phase: usize,
    /// Units of it that are done; 1 when attention has begun.
    done: usize,
}

impl Place {
    fn next(&mut self) {
        *self = Place { phase: self.phase + 1, done: 0 };
    }

    /// The phase and its layer; `None` at the end.
    fn at(&self, order: &[Phase], layers: usize) -> Option<(Phase, usize)> {
        if self.phase == 0 {
            return Some((Embed, 0));
        }
        let index = self.phase - 1;
        if index < layers * order.len() {
            Some((order[index % order.len()], index / order.len()))
        } else {
            HEAD.get(index - layers * order.len()).map(|phase| (*phase, layers))
        }
    }
}

/// How much a phase is.
pub struct Extent {
    pub units: usize,
    /// Units that a thread takes at a time.
    pub chunk: usize,
    /// Whether a chunk may be smaller.
    pub divisible: bool,
    /// Multiply-accumulates of a matrix product that take about as long as one unit.
    pub cost: f64,
}

impl Extent {
    /// Units of one chunk and of one slice, when `done` units are done and `left` of the budget is left.
    fn slice(&self, done: usize, left: f64, threads: usize) -> (usize, usize) {
        let rest = self.units - done;
        let paid = (left / self.cost).ceil().min(rest as f64) as usize;
        if paid == rest {
            return (self.chunk, rest);
        }
        let chunk = if self.divisible { self.chunk.min(paid / threads).max(1) } else { self.chunk };
        (chunk, paid.max(chunk * threads).next_multiple_of(chunk).min(rest))
    }
}

const DONE: u32 = 0;
const SLICE: u32 = 1;
const QUERIES: u32 = 2;
const PARTIALS: u32 = 3;

/// Plans a step, which [`workspace_advance`] then runs. Its record and what it points to must stay as they are until the
/// step is complete; another step may be begun at any time, and replaces it.
#[wasm_bindgen]
pub unsafe fn workspace_begin(workspace: usize, step: usize) {
    let w = &mut *(workspace as *mut Workspace);
    let (m, s) = (&*w.model, &*(step as *const Step));
    w.step = s;
    w.place = Place::default();
    for private in &mut w.private {
        *private.open.get_mut() = None;
    }
    for (index, sequence) in s.all().iter().enumerate() {
        for i in 0..sequence.count {
            *w.position.add((sequence.first + i) as usize) = sequence.position + i;
            *w.owner.add((sequence.first + i) as usize) = index as u32;
        }
    }
    w.plan.make(m, s, (*w.team).threads(), w.attended);
}

/// Runs the step on the whole team to its next stop: 0 complete, 1 the budget is used up, 2 the queries of a layer are
/// there, 3 the layer goes on only after the host has brought all partials; plus 4 times the layer for the last two.
/// `budget` is in multiply-accumulates of a matrix product, infinite for none.
#[wasm_bindgen]
pub unsafe fn workspace_advance(workspace: usize, budget: f64) -> u32 {
    let w = workspace as *mut Workspace;
    // A budget of nothing still moves the step on.
    (*w).budget = budget.max(1.0);
    (*w).attention_before = (*w).attention.left.load(Relaxed);
    (*(*w).team).run(slice, workspace);
    let (place, stop) = *(*w).reached.get();
    (*w).place = place;
    stop
}

unsafe fn slice(team: &Team, thread: usize, workspace: usize) {
    let w = &*(workspace as *const Workspace);
    let (m, s) = (&*w.model, &*w.step);
    let r = Run { w, m, s, team, thread, activations: Activations::from_code(m.activations) };
    let order = if s.all().iter().any(|q| q.nodes > 0) { SPREAD } else { LOCAL };
    let mut place = w.place;
    let mut left = w.budget;
    let stop = loop {
        let Some((phase, layer)) = place.at(order, m.layers as usize) else {
            break DONE;
        };
        match phase {
            Asked => {
                place.next();
                break QUERIES + 4 * layer as u32;
            }
            Awaited => {
                place.next();
                break PARTIALS + 4 * layer as u32;
            }
            _ if left <= 0.0 => break SLICE,
            Attention => {
                // Others may be at work already, so what was left is read from where nobody writes.
                let before = if place.done == 0 { w.plan.cost } else { w.attention_before };
                r.attention(layer, left / team.threads() as f64);
                team.barrier();
                let after = w.attention.left.load(Relaxed);
                left -= (before - after) as f64;
                if after > 0 {
                    place.done = 1;
                    break SLICE;
                }
                place.next();
            }
            _ if r.is_private(phase) => {
                r.prepare_private(phase, layer);
                place.next();
            }
            _ => {
                let extent = r.extent(phase);
                if extent.units == 0 {
                    place.next();
                    continue;
                }
                if thread == 0 && matches!(phase, RotateAll | RotateKeys) {
                    // Attention comes next, behind a barrier.
                    w.attention.next.store(0, Relaxed);
                    w.attention.left.store(w.plan.cost, Relaxed);
                }
                let (chunk, units) = extent.slice(place.done, left, team.threads());
                loop {
                    let start = team.claim() * chunk;
                    if start >= units {
                        break;
                    }
                    r.work(phase, layer, place.done + start..place.done + (start + chunk).min(units));
                }
                team.barrier();
                left -= units as f64 * extent.cost;
                place.done += units;
                if place.done == extent.units {
                    place.next();
                }
            }
        }
    };
    if thread == 0 {
        *w.reached.get() = (place, stop);
    }
}
