//! Arithmetic on the weights of several models, position by position, on slices of one length.
//!
//! Numbers are f32, everything between them is f64, and a result is rounded to f32 once. A position's result depends on
//! nothing but the same position of the inputs (and its index, where something is drawn), so that pieces can be cut
//! anywhere. Sums over positions ([`add_gram`], [`magnitudes`]) run over blocks of [`BLOCK`] numbers, each in
//! 32 interleaved partial sums and a fixed tree; the blocks are added in order.

mod elect;
mod gram;
mod halves;
mod keys;
mod sparse;
#[cfg(test)]
mod tests;

pub use elect::{Election, Protection, elect, plain_sum};
pub use gram::{add_column_gram, add_gram, magnitudes, pair, pairs, squares};
pub use halves::{all_finite, largest_magnitude, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use keys::{
    KEY_LIMIT, LOWER, TABLES, UPPER, collect_lower, count_equal, count_lower, count_upper, difference_keys, spread_keys,
};
pub use sparse::{Draws, Ranked, draw, keep_between, keep_drawn, keep_ranked};

use crate::isa::dispatch;

/// Numbers that are worked on at once, so that what lies between two steps stays in the nearest cache.
pub const BLOCK: usize = 1024;

/// The block of a slice that begins at `at`.
#[inline(always)]
fn block<T>(values: &[T], at: usize) -> &[T] {
    &values[at..values.len().min(at + BLOCK)]
}

dispatch! {
    /// `Σ c_i · x_i` in the order of the inputs; 0 without inputs.
    pub fn sum(inputs: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
        match (inputs, coefficients) {
            ([a], [wa]) => {
                for (out, a) in out.iter_mut().zip(*a) {
                    *out = (f64::from(*a) * wa) as f32;
                }
            }
            ([a, b], [wa, wb]) => {
                for ((out, a), b) in out.iter_mut().zip(*a).zip(*b) {
                    *out = f64::from(*b).mul_add(*wb, f64::from(*a) * wa) as f32;
                }
            }
            _ => {
                let mut at = 0;
                for out in out.chunks_mut(BLOCK) {
                    let mut sums = [0.0; BLOCK];
                    for (x, weight) in inputs.iter().zip(coefficients) {
                        for (sum, x) in sums.iter_mut().zip(block(x, at)) {
                            *sum = f64::from(*x).mul_add(*weight, *sum);
                        }
                    }
                    for (out, sum) in out.iter_mut().zip(&sums) {
                        *out = *sum as f32;
                    }
                    at += BLOCK;
                }
            }
        }
    }
}

dispatch! {
    /// `b + Σ c_i · (x_i − b)` in the order of the models.
    pub fn sum_from(base: &[f32], models: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
        let mut at = 0;
        for out in out.chunks_mut(BLOCK) {
            let base = block(base, at);
            let mut sums = [0.0; BLOCK];
            for (x, weight) in models.iter().zip(coefficients) {
                for ((sum, x), b) in sums.iter_mut().zip(block(x, at)).zip(base) {
                    *sum = (f64::from(*x) - f64::from(*b)).mul_add(*weight, *sum);
                }
            }
            for ((out, sum), b) in out.iter_mut().zip(&sums).zip(base) {
                *out = (f64::from(*b) + sum) as f32;
            }
            at += BLOCK;
        }
    }
}

dispatch! {
    /// `b + Σ c_i · (x_i − b)` where every position has coefficients of its own; without a base, b is 0.
    pub fn sum_by_position(base: Option<&[f32]>, models: &[&[f32]], coefficients: &[&[f64]], out: &mut [f32]) {
        let mut at = 0;
        for out in out.chunks_mut(BLOCK) {
            let (mut origin, mut sums) = ([0.0; BLOCK], [0.0; BLOCK]);
            if let Some(base) = base {
                for (origin, b) in origin.iter_mut().zip(block(base, at)) {
                    *origin = f64::from(*b);
                }
            }
            for (x, weights) in models.iter().zip(coefficients) {
                for (((sum, x), origin), weight) in sums.iter_mut().zip(block(x, at)).zip(&origin).zip(block(weights, at))
                {
                    *sum = (f64::from(*x) - origin).mul_add(*weight, *sum);
                }
            }
            for ((out, sum), origin) in out.iter_mut().zip(&sums).zip(&origin) {
                *out = (origin + sum) as f32;
            }
            at += BLOCK;
        }
    }
}

dispatch! {
    /// From `a` towards `b`, but no further than `t` at any position.
    pub fn step_towards(a: &[f32], b: &[f32], t: f64, out: &mut [f32]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            let step = f64::from(*b) - f64::from(*a);
            let short = f64::from(*a) + t.copysign(step);
            *out = if step.abs() <= t { *b } else { short as f32 };
        }
    }
}
