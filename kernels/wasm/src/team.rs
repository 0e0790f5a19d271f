//! A fixed team of threads that run the same job together.
//!
//! Thread 0 is the caller of [`team_run`]; the others sit in [`team_worker`]. Waiting spins for a bounded time, then
//! sleeps in the kernel, so an idle team costs nothing.

use std::arch::wasm32::{memory_atomic_notify, memory_atomic_wait32};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::*};
use wasm_bindgen::prelude::*;

/// Polls before a waiting thread sleeps inside a step; about 50 microseconds.
const SPIN_IN_STEP: u32 = 20_000;
/// Polls before a worker sleeps between jobs.
const SPIN_IDLE: u32 = 20_000;

/// A job: every thread calls it once with its index.
pub type Job = unsafe fn(team: &Team, thread: usize, argument: usize);

#[repr(C)]
pub struct Team {
    threads: u32,
    /// Number of jobs started; workers wait for it to change.
    started: AtomicU32,
    /// Threads that arrived at the current barrier.
    arrived: AtomicU32,
    /// Number of barriers passed.
    passed: AtomicU32,
    /// Next chunk to claim since the last barrier.
    next: AtomicU32,
    stop: AtomicU32,
    job: AtomicUsize,
    argument: AtomicUsize,
}

fn wait_while_equal(cell: &AtomicU32, value: u32, spins: u32) {
    for _ in 0..spins {
        if cell.load(Acquire) != value {
            return;
        }
        core::hint::spin_loop();
    }
    while cell.load(Acquire) == value {
        unsafe { memory_atomic_wait32(cell.as_ptr() as *mut i32, value as i32, -1) };
    }
}

impl Team {
    pub fn threads(&self) -> usize {
        self.threads as usize
    }

    /// Waits until every thread of the team is here, then resets the chunk counter.
    #[inline(never)]
    pub fn barrier(&self) {
        if self.threads == 1 {
            self.next.store(0, Relaxed);
            return;
        }
        let passed = self.passed.load(Acquire);
        if self.arrived.fetch_add(1, AcqRel) + 1 == self.threads {
            self.arrived.store(0, Relaxed);
            self.next.store(0, Relaxed);
            self.passed.store(passed.wrapping_add(1), Release);
            unsafe { memory_atomic_notify(self.passed.as_ptr() as *mut i32, u32::MAX) };
        } else {
            wait_while_equal(&self.passed, passed, SPIN_IN_STEP);
        }
    }

    /// Claims the next chunk index since the last barrier.
    pub fn claim(&self) -> usize {
        self.next.fetch_add(1, Relaxed) as usize
    }

    /// Runs `job` on every thread; returns when all are done.
    pub fn run(&self, job: Job, argument: usize) {
        self.job.store(job as usize, Relaxed);
        self.argument.store(argument, Relaxed);
        self.next.store(0, Relaxed);
        if self.threads > 1 {
            self.started.fetch_add(1, Release);
            unsafe { memory_atomic_notify(self.started.as_ptr() as *mut i32, u32::MAX) };
        }
        unsafe { job(self, 0, argument) };
        self.barrier();
    }
}

/// Makes a team of `threads` threads; the caller starts `threads - 1` workers in [`team_worker`].
#[wasm_bindgen]
pub fn team_new(threads: u32) -> usize {
    Box::into_raw(Box::new(Team {
        threads,
        started: AtomicU32::new(0),
        arrived: AtomicU32::new(0),
        passed: AtomicU32::new(0),
        next: AtomicU32::new(0),
        stop: AtomicU32::new(0),
        job: AtomicUsize::new(0),
        argument: AtomicUsize::new(0),
    })) as usize
}

/// Serves jobs as thread `thread` until the team is stopped. `seen` is the number of jobs started when the worker was
/// created, so that a job started before the worker arrives is not missed.
#[wasm_bindgen]
pub fn team_worker(team: usize, thread: usize, seen: u32) {
    let team = unsafe { &*(team as *const Team) };
    let mut seen = seen;
    loop {
        wait_while_equal(&team.started, seen, SPIN_IDLE);
        seen = seen.wrapping_add(1);
        if team.stop.load(Acquire) != 0 {
            return;
        }
        let job: Job = unsafe { std::mem::transmute(team.job.load(Relaxed)) };
        unsafe { job(team, thread, team.argument.load(Relaxed)) };
        team.barrier();
    }
}

/// Makes every worker return. The team stays allocated: a worker may still be leaving.
#[wasm_bindgen]
pub fn team_stop(team: usize) {
    let team = unsafe { &*(team as *const Team) };
    team.stop.store(1, Release);
    team.started.fetch_add(1, Release);
    unsafe { memory_atomic_notify(team.started.as_ptr() as *mut i32, u32::MAX) };
}
