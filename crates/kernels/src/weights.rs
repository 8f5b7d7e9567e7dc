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
pub use halves::{all_finite, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, sum_bf16};
pub use keys::{
    KEY_LIMIT, LOWER, TABLES, UPPER, collect_lower, count_equal, count_lower, count_upper, difference_keys, spread_keys,
};
pub use sparse::{Draws, Ranked, clear_below, draw, keep_between, keep_drawn, keep_ranked};

use crate::isa::dispatch;

/// Numbers that are worked on at once, so that what lies between two steps stays in the nearest cache.
pub const BLOCK: usize = 1024;

/// Evaluates `$known` with `$N` models where they are few enough for code of their own: the compiler then keeps a
/// position's values in registers and works on several positions at once. More models are as right and slower.
macro_rules! by_count {
    ($count:expr, $N:ident => $known:expr, $any:expr $(,)?) => {
        match $count {
            1 => by_count!(@ 1, $N, $known),
            2 => by_count!(@ 2, $N, $known),
            3 => by_count!(@ 3, $N, $known),
            4 => by_count!(@ 4, $N, $known),
            5 => by_count!(@ 5, $N, $known),
            6 => by_count!(@ 6, $N, $known),
            _ => $any,
        }
    };
    (@ $count:literal, $N:ident, $known:expr) => {{
        const $N: usize = $count;
        $known
    }};
}
use by_count;

/// The first `len` values of each of `N` slices: what bounds checks need to know.
#[inline(always)]
fn cut<'a, T, const N: usize>(slices: &[&'a [T]], len: usize) -> [&'a [T]; N] {
    std::array::from_fn(|i| &slices[i][..len])
}

/// The first `N` values.
#[inline(always)]
fn known<const N: usize>(values: &[f64]) -> [f64; N] {
    std::array::from_fn(|i| values[i])
}

dispatch! {
    /// `Σ c_i · x_i` in the order of the inputs; 0 without inputs.
    pub fn sum(inputs: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
        by_count!(
            inputs.len(),
            N => sum_of(&cut::<_, N>(inputs, out.len()), &known::<N>(coefficients), out),
            sum_of(inputs, coefficients, out),
        );
    }
}

#[inline(always)]
fn sum_of(inputs: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = 0.0;
        for (x, weight) in inputs.iter().zip(coefficients) {
            sum = f64::from(x[i]).mul_add(*weight, sum);
        }
        *out = sum as f32;
    }
}

dispatch! {
    /// `b + Σ c_i · (x_i − b)` in the order of the models.
    pub fn sum_from(base: &[f32], models: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
        let base = &base[..out.len()];
        by_count!(
            models.len(),
            N => sum_from_of(base, &cut::<_, N>(models, out.len()), &known::<N>(coefficients), out),
            sum_from_of(base, models, coefficients, out),
        );
    }
}

#[inline(always)]
fn sum_from_of(base: &[f32], models: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
    for (i, (out, b)) in out.iter_mut().zip(base).enumerate() {
        let b = f64::from(*b);
        let mut sum = 0.0;
        for (x, weight) in models.iter().zip(coefficients) {
            sum = (f64::from(x[i]) - b).mul_add(*weight, sum);
        }
        *out = (b + sum) as f32;
    }
}

dispatch! {
    /// `b + Σ c_i · (x_i − b)` where every position has coefficients of its own; without a base, b is 0.
    pub fn sum_by_position(base: Option<&[f32]>, models: &[&[f32]], coefficients: &[&[f64]], out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            let b = base.map_or(0.0, |base| f64::from(base[i]));
            let mut sum = 0.0;
            for (x, weights) in models.iter().zip(coefficients) {
                sum = (f64::from(x[i]) - b).mul_add(weights[i], sum);
            }
            *out = (b + sum) as f32;
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
