//! Ceilings: what this machine gives to code that only reads memory or only multiplies, from inside WebAssembly and with
//! the same threads as the kernels. Benches state their results as shares of these.

use crate::simd::*;
use crate::team::Team;
use wasm_bindgen::prelude::*;

/// Bytes one call of the read loop takes: long enough to amortise the call, short enough to tier up.
const READ_CHUNK: usize = 1 << 16;
/// Products in one call of a peak loop.
pub const PEAK_STEPS: usize = 4096;

struct ReadJob {
    address: usize,
    bytes: usize,
    sink: *mut u8,
}

#[inline(never)]
unsafe fn read_chunk(source: *const u8, bytes: usize, sink: *mut u8) {
    let mut sums = [i32x4_splat(0); 8];
    let mut at = 0;
    while at < bytes {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = v128_or(*sum, v128_load(source.add(at + 16 * lane) as *const v128));
        }
        at += 128;
    }
    for sum in sums {
        v128_store(sink as *mut v128, v128_or(v128_load(sink as *const v128), sum));
    }
}

unsafe fn read_job(team: &Team, thread: usize, argument: usize) {
    let job = &*(argument as *const ReadJob);
    let chunks = job.bytes / READ_CHUNK;
    let (first, end) = (chunks * thread / team.threads(), chunks * (thread + 1) / team.threads());
    for chunk in first..end {
        read_chunk((job.address + chunk * READ_CHUNK) as *const u8, READ_CHUNK, job.sink.add(64 * (thread % 64)));
    }
}

/// Reads `bytes` (whole chunks of 64 KiB) once, each thread its own consecutive part.
#[wasm_bindgen]
pub fn stream_read(team: usize, address: usize, bytes: usize) {
    let mut sink = [0u8; 64 * 64];
    let job = ReadJob { address, bytes, sink: sink.as_mut_ptr() };
    unsafe { (*(team as *const Team)).run(read_job, &job as *const ReadJob as usize) };
    std::hint::black_box(sink);
}

/// Twelve independent chains of the 4-products-per-lane integer dot: 192 products a step.
#[inline(never)]
unsafe fn dot_i32(source: *const v128, sink: *mut v128) {
    let mut sums = [i32x4_splat(0); 12];
    let (a, b) = (v128_load(source), v128_load(source.add(1)));
    for _ in 0..PEAK_STEPS {
        for sum in sums.iter_mut() {
            *sum = i32x4_relaxed_dot_i8x16_i7x16_add(a, b, *sum);
        }
    }
    for sum in sums {
        v128_store(sink, v128_xor(v128_load(sink), sum));
    }
}

/// The same with sums of 16 bits, widened after every 8th.
#[inline(never)]
unsafe fn dot_i16(source: *const v128, sink: *mut v128) {
    let mut sums = [i32x4_splat(0); 4];
    let a: [v128; 4] = std::array::from_fn(|lane| v128_load(source.add(lane)));
    let mut b = v128_load(source);
    for _ in 0..PEAK_STEPS * 12 / 32 {
        let mut short = [i16x8_splat(0); 4];
        for _ in 0..8 {
            for (lane, sum) in short.iter_mut().enumerate() {
                *sum = i16x8_add(*sum, i16x8_relaxed_dot_i8x16_i7x16(a[lane], b));
            }
            b = v128_xor(b, short[0]);
        }
        for (sum, lane) in sums.iter_mut().zip(short) {
            *sum = i32x4_add(*sum, i32x4_extadd_pairwise_i16x8(lane));
        }
    }
    for sum in sums {
        v128_store(sink, v128_xor(v128_load(sink), sum));
    }
}

/// Twelve independent chains of the f32 multiply-add: 48 products a step.
#[inline(never)]
unsafe fn madd_f32(source: *const v128, sink: *mut v128) {
    let mut sums = [f32x4_splat(0.0); 12];
    let (a, b) = (v128_load(source), v128_load(source.add(1)));
    for _ in 0..PEAK_STEPS {
        for sum in sums.iter_mut() {
            *sum = madd(a, b, *sum);
        }
    }
    for sum in sums {
        v128_store(sink, v128_xor(v128_load(sink), sum));
    }
}

/// Twelve independent chains of the 16-bit dot: 96 products a step.
#[inline(never)]
unsafe fn dot_wide(source: *const v128, sink: *mut v128) {
    let mut sums = [i32x4_splat(0); 12];
    let mut a = v128_load(source);
    let b = v128_load(source.add(1));
    for _ in 0..PEAK_STEPS {
        for sum in sums.iter_mut() {
            *sum = i32x4_add(*sum, i32x4_dot_i16x8(a, b));
        }
        a = v128_xor(a, sums[0]);
    }
    for sum in sums {
        v128_store(sink, v128_xor(v128_load(sink), sum));
    }
}

struct PeakJob {
    kind: u32,
    calls: usize,
}

unsafe fn peak_job(_team: &Team, _thread: usize, argument: usize) {
    let job = &*(argument as *const PeakJob);
    let source: [v128; 4] = std::array::from_fn(|lane| i32x4_splat(0x0102_0301 + lane as i32));
    let mut sink = i32x4_splat(0);
    for _ in 0..job.calls {
        let source = std::hint::black_box(source.as_ptr());
        match job.kind {
            0 => dot_i32(source, &mut sink),
            1 => dot_i16(source, &mut sink),
            2 => madd_f32(source, &mut sink),
            _ => dot_wide(source, &mut sink),
        }
    }
    std::hint::black_box(sink);
}

/// Runs a multiply loop `calls` times on every thread. Kinds and products of one call: 0 the relaxed 8-bit dot with
/// 32-bit sums (786,432), 1 with 16-bit sums (786,432), 2 the f32 multiply-add (196,608), 3 the 16-bit dot (393,216).
#[wasm_bindgen]
pub fn peak_run(team: usize, kind: u32, calls: usize) {
    let job = PeakJob { kind, calls };
    unsafe { (*(team as *const Team)).run(peak_job, &job as *const PeakJob as usize) };
}
