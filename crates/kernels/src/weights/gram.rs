//! Sums over positions, in f64.

use super::BLOCK;
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

/// Adds the dot products of the vectors, of their differences from `base` where there is one, to `sums`,
/// `[pairs(vectors.len())]`; [`pair`] says in which order.
pub fn add_gram(base: Option<&[f32]>, vectors: &[&[f32]], sums: &mut [f64]) {
    let len = vectors.first().map_or(0, |vector| vector.len());
    let stride = BLOCK.min(len).max(1);
    let mut rows = vec![0.0; vectors.len() * stride];
    for at in (0..len).step_by(BLOCK) {
        let block = at..len.min(at + BLOCK);
        for (row, vector) in rows.chunks_exact_mut(stride).zip(vectors) {
            match base {
                Some(base) => differences(&base[block.clone()], &vector[block.clone()], row),
                None => widen(&vector[block.clone()], row),
            }
        }
        let rows: Vec<&[f64]> = rows.chunks_exact(stride).map(|row| &row[..block.len()]).collect();
        let mut sums = sums.iter_mut();
        for (i, a) in rows.iter().enumerate() {
            for (b, sum) in rows[..=i].iter().zip(sums.by_ref()) {
                *sum += dot(a, b);
            }
        }
    }
}

dispatch! {
    fn widen(x: &[f32], out: &mut [f64]) {
        for (d, x) in out.iter_mut().zip(x) {
            *d = f64::from(*x);
        }
    }
}

dispatch! {
    fn differences(base: &[f32], x: &[f32], out: &mut [f64]) {
        for ((d, x), b) in out.iter_mut().zip(x).zip(base) {
            *d = f64::from(*x) - f64::from(*b);
        }
    }
}

dispatch! {
    /// Σ a_i b_i over a block, product i in partial sum `i % LANES`.
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        let mut lanes = [0.0; LANES];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane = a.mul_add(*b, *lane);
            }
        }
        for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
            *lane = a.mul_add(*b, *lane);
        }
        tree(lanes)
    }
}

/// Adds partial sums in a fixed tree.
#[inline(always)]
fn tree(mut lanes: [f64; LANES]) -> f64 {
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

/// Σ |x|.
#[must_use]
pub fn magnitudes(values: &[f64]) -> f64 {
    values.chunks(BLOCK).map(block_magnitudes).sum()
}

dispatch! {
    fn block_magnitudes(values: &[f64]) -> f64 {
        let mut lanes = [0.0; LANES];
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            for (lane, x) in lanes.iter_mut().zip(group) {
                *lane += x.abs();
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += x.abs();
        }
        tree(lanes)
    }
}

/// Σ x².
#[must_use]
pub fn squares(values: &[f64]) -> f64 {
    values.chunks(BLOCK).map(|values| dot(values, values)).sum()
}
