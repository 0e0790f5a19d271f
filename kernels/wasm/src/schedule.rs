//! Hints that keep the compiler's order of instructions where it matters: in loops that use all vector registers.

use std::arch::wasm32::v128;

/// A constant that stays in a register over a loop: the compiler would otherwise make it anew in every round.
#[inline(always)]
pub fn resident(value: v128) -> v128 {
    unsafe { std::ptr::read_volatile(&value) }
}

/// Where [`pin`] says so, a kernel leaves with the sums it has; it never does.
#[cold]
#[inline(never)]
pub fn keep(sums: &[[v128; 2]]) {
    std::hint::black_box(sums);
}

/// Whether to leave the loop at this step: never, since no caller counts down from so far, but the compiler does not know.
/// A way out that takes the sums along keeps it from moving them past this point: it would compute one sum after the
/// other, each over all steps, and for that hold the factors of all steps, more than there are registers.
#[inline(always)]
pub fn pin(remaining: usize, step: usize) -> bool {
    remaining == usize::MAX - step
}

/// Runs a block 8 times with a constant index, written out: a loop with a call in it would stay a loop.
#[macro_export]
macro_rules! eight_times {
    ($name:ident, $body:block) => {
        $crate::eight_times!(@ $name, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $name:ident, $body:block, $($index:literal)*) => {
        $({
            const $name: usize = $index;
            $body
        })*
    };
}
