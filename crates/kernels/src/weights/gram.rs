//! Sums over positions, in f64.

use super::{BLOCK, block};
use crate::isa::dispatch;

/// Partial sums of a block: number `i` goes to sum `i % LANES`.
const LANES: usize = 32;

/// How many pairs `count` vectors have, each with itself included.
#[must_use]
pub const fn pairs(count: usize) -> usize {
    count * (count + 1) / 2
}

/// Where a Gram matrix of [`add_gram`] has the product of two vectors.
#[must_use]
pub const fn pair(a: usize, b: usize) -> usize {
    if a < b { pairs(b) + a } else { pairs(a) + b }
}

/// Σ `f(i)` over a block.
#[inline(always)]
fn block_sum(len: usize, f: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let whole = len / LANES * LANES;
    let mut at = 0;
    while at < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(at + lane);
        }
        at += LANES;
    }
    for (lane, sum) in lanes.iter_mut().enumerate().take(len - whole) {
        *sum += f(whole + lane);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

dispatch! {
    /// Adds the dot products of the vectors, of their differences from `base` where there is one, to `sums`,
    /// `[pairs(vectors.len())]`; [`pair`] says in which order.
    pub fn add_gram(base: Option<&[f32]>, vectors: &[&[f32]], sums: &mut [f64]) {
        let len = vectors.first().map_or(0, |vector| vector.len());
        let stride = BLOCK.min(len).max(1);
        let mut rows = vec![0.0; vectors.len() * stride];
        let mut at = 0;
        while at < len {
            let width = BLOCK.min(len - at);
            for (row, vector) in rows.chunks_exact_mut(stride).zip(vectors) {
                match base {
                    Some(base) => {
                        for ((d, x), b) in row.iter_mut().zip(block(vector, at)).zip(block(base, at)) {
                            *d = f64::from(*x) - f64::from(*b);
                        }
                    }
                    None => {
                        for (d, x) in row.iter_mut().zip(block(vector, at)) {
                            *d = f64::from(*x);
                        }
                    }
                }
            }
            let mut sums = sums.iter_mut();
            for (i, a) in rows.chunks_exact(stride).enumerate() {
                for (b, sum) in rows.chunks_exact(stride).take(i + 1).zip(sums.by_ref()) {
                    let (a, b) = (&a[..width], &b[..width]);
                    *sum += block_sum(width, |i| a[i] * b[i]);
                }
            }
            at += BLOCK;
        }
    }
}

dispatch! {
    /// As [`add_gram`], for each column of a matrix of which one row is given: `sums` is `[pairs, columns]`.
    pub fn add_column_gram(base: Option<&[f32]>, row: &[&[f32]], sums: &mut [f64]) {
        let columns = row.first().map_or(0, |row| row.len());
        let mut sums = sums.chunks_exact_mut(columns.max(1));
        for (i, a) in row.iter().enumerate() {
            for (b, sums) in row[..=i].iter().zip(sums.by_ref()) {
                match base {
                    Some(base) => {
                        for (((sum, a), b), o) in sums.iter_mut().zip(*a).zip(*b).zip(base) {
                            let o = f64::from(*o);
                            *sum += (f64::from(*a) - o) * (f64::from(*b) - o);
                        }
                    }
                    None => {
                        for ((sum, a), b) in sums.iter_mut().zip(*a).zip(*b) {
                            *sum += f64::from(*a) * f64::from(*b);
                        }
                    }
                }
            }
        }
    }
}

dispatch! {
    /// Σ |x|.
    pub fn magnitudes(values: &[f64]) -> f64 {
        values.chunks(BLOCK).map(|values| block_sum(values.len(), |i| values[i].abs())).sum()
    }
}

dispatch! {
    /// Σ x².
    pub fn squares(values: &[f64]) -> f64 {
        values.chunks(BLOCK).map(|values| block_sum(values.len(), |i| values[i] * values[i])).sum()
    }
}
