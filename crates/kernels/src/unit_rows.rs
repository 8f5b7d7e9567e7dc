//! Rows centred on their mean and scaled to length 1, as far as their columns go: what the Matrix Nuclear-Norm needs.
//!
//! Two passes over the matrix, in f64: the mean of every column, then the squares of the centred and scaled rows. Rows
//! are taken in blocks of `BLOCK_ROWS` rows, and the sums of the blocks are added in order. Threads share the blocks.

use rayon::prelude::*;

use crate::isa::dispatch;
use crate::matmul::Threads;

/// Rows that are summed by one task.
const BLOCK_ROWS: usize = 64;

/// Values that one task looks at.
const FINITE_CHUNK: usize = 1 << 15;

/// Partial sums of a row's length: value `i` goes to sum `i % 32`.
const LANES: usize = 32;

/// The columns of a matrix whose rows are centred and of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitRowColumns {
    /// Mean of each column of the matrix as it was given, `[columns]`.
    pub mean: Vec<f64>,
    /// Distances from the mean up to this one are rounding of the f64 sums: such a row has no direction.
    pub resolution: f64,
    /// Rows that have a direction.
    pub rows_used: usize,
    /// Σ over those rows of the squared values, `[columns]`; they add up to `rows_used`.
    pub squared_norms: Vec<f64>,
}

/// Columns of the matrix `values`, `[values.len() / columns, columns]`, once its rows are centred and scaled. With a
/// value that is not finite, so is some mean.
///
/// # Panics
/// When the rows are not whole.
#[must_use]
pub fn columns(values: &[f32], columns: usize, threads: Threads) -> UnitRowColumns {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "rows of {columns}");
    let rows = (values.len() / columns) as f64;
    let sums = blocks(values, columns, threads, |block| {
        let (mut sums, mut largest) = (vec![0.0; columns], 0.0);
        add_sums(block, &mut sums, &mut largest);
        (sums, largest)
    });
    let (mut mean, mut largest) = (vec![0.0; columns], 0.0f32);
    for (sums, of_block) in &sums {
        mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
        largest = largest.max(*of_block);
    }
    mean.iter_mut().for_each(|sum| *sum /= rows);
    // A sum of N terms is off by at most N ε Σ|x|, so its mean by N ε times the largest size, and a row of d such means
    // by sqrt(d) times that; the factor 4 covers the division and the subtraction. f32 values resolve nothing near that.
    let resolution = 4.0 * rows * f64::EPSILON * (columns as f64).sqrt() * f64::from(largest);

    let parts = blocks(values, columns, threads, |block| {
        let (mut squared_norms, mut rows_used) = (vec![0.0; columns], 0);
        add_unit_rows(block, &mean, resolution, &mut squared_norms, &mut rows_used);
        (squared_norms, rows_used)
    });
    let (mut squared_norms, mut rows_used) = (vec![0.0; columns], 0);
    for (part, used) in &parts {
        squared_norms.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        rows_used += used;
    }
    UnitRowColumns { mean, resolution, rows_used, squared_norms }
}

/// Whether no value is infinite or NaN.
#[must_use]
pub fn all_finite(values: &[f32]) -> bool {
    values.par_chunks(FINITE_CHUNK).all(chunk_is_finite)
}

dispatch! {
    fn chunk_is_finite(values: &[f32]) -> bool {
        // A fold without an early end vectorises.
        values.iter().fold(true, |all, value| all & value.is_finite())
    }
}

/// What `work` says of every block of rows, in order.
fn blocks<T: Send>(
    values: &[f32],
    columns: usize,
    threads: Threads,
    work: impl Fn(&[f32]) -> T + Send + Sync,
) -> Vec<T> {
    let block = BLOCK_ROWS * columns;
    match threads {
        Threads::One => values.chunks(block).map(work).collect(),
        Threads::Pool => values.par_chunks(block).map(work).collect(),
    }
}

dispatch! {
    /// Adds the rows of a block to `sums`, `[columns]`, and keeps the largest size of a value in `largest`.
    fn add_sums(block: &[f32], sums: &mut [f64], largest: &mut f32) {
        let columns = sums.len();
        // Four rows at a time: a sum is loaded and stored once for them.
        let mut rows = block.chunks_exact(4 * columns);
        for four in rows.by_ref() {
            let (ab, cd) = four.split_at(2 * columns);
            let ((a, b), (c, d)) = (ab.split_at(columns), cd.split_at(columns));
            for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *sum = *sum + f64::from(*a) + f64::from(*b) + f64::from(*c) + f64::from(*d);
            }
        }
        for row in rows.remainder().chunks_exact(columns) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mut lanes = [0.0f32; 2 * LANES];
        let (parts, rest) = block.as_chunks::<{ 2 * LANES }>();
        for part in parts {
            for (lane, x) in lanes.iter_mut().zip(part) {
                *lane = if x.abs() > *lane { x.abs() } else { *lane };
            }
        }
        *largest = lanes.iter().chain(rest).fold(*largest, |largest, x| largest.max(x.abs()));
    }
}

dispatch! {
    /// Adds the squares of the centred and scaled rows of a block to `squared_norms`, `[columns]`.
    fn add_unit_rows(block: &[f32], mean: &[f64], resolution: f64, squared_norms: &mut [f64], rows_used: &mut usize) {
        let columns = mean.len();
        let mut rows = block.chunks_exact(4 * columns);
        for four in rows.by_ref() {
            let (ab, cd) = four.split_at(2 * columns);
            let ((a, b), (c, d)) = (ab.split_at(columns), cd.split_at(columns));
            let (wa, wb) = (weight(a, mean, resolution), weight(b, mean, resolution));
            let (wc, wd) = (weight(c, mean, resolution), weight(d, mean, resolution));
            *rows_used += [wa, wb, wc, wd].iter().filter(|weight| **weight > 0.0).count();
            let inputs = mean.iter().zip(a).zip(b).zip(c).zip(d);
            for (sum, ((((mean, a), b), c), d)) in squared_norms.iter_mut().zip(inputs) {
                let (a, b) = (f64::from(*a) - mean, f64::from(*b) - mean);
                let (c, d) = (f64::from(*c) - mean, f64::from(*d) - mean);
                *sum = (d * d).mul_add(wd, (c * c).mul_add(wc, (b * b).mul_add(wb, (a * a).mul_add(wa, *sum))));
            }
        }
        for row in rows.remainder().chunks_exact(columns) {
            let weight = weight(row, mean, resolution);
            *rows_used += usize::from(weight > 0.0);
            for ((sum, x), mean) in squared_norms.iter_mut().zip(row).zip(mean) {
                let centred = f64::from(*x) - mean;
                *sum = (centred * centred).mul_add(weight, *sum);
            }
        }
    }
}

/// 1 / |x - mean|² of a row; 0 where it has no direction.
#[inline(always)]
fn weight(row: &[f32], mean: &[f64], resolution: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (parts, rest) = row.as_chunks::<LANES>();
    let (mean_parts, mean_rest) = mean.as_chunks::<LANES>();
    for (x, mean) in parts.iter().zip(mean_parts) {
        for ((lane, x), mean) in lanes.iter_mut().zip(x).zip(mean) {
            let centred = f64::from(*x) - mean;
            *lane = centred.mul_add(centred, *lane);
        }
    }
    for (lane, (x, mean)) in lanes.iter_mut().zip(rest.iter().zip(mean_rest)) {
        let centred = f64::from(*x) - mean;
        *lane = centred.mul_add(centred, *lane);
    }
    let square: f64 = lanes.iter().sum();
    if square.sqrt() > resolution { 1.0 / square } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise;

    /// The definition, row by row.
    fn reference(values: &[f32], columns: usize, resolution: f64) -> (Vec<f64>, Vec<f64>, usize) {
        let rows: Vec<&[f32]> = values.chunks_exact(columns).collect();
        let mean: Vec<f64> =
            (0..columns).map(|i| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64).collect();
        let (mut squares, mut used) = (vec![0.0; columns], 0);
        for row in rows {
            let centred: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean).collect();
            let length = centred.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length > resolution {
                squares.iter_mut().zip(&centred).for_each(|(sum, x)| *sum += (x / length).powi(2));
                used += 1;
            }
        }
        (mean, squares, used)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_definition(rows in 1usize..150, width in 1usize..40, seed in 1u32..99) {
            let values = noise(rows * width, seed);
            let found = columns(&values, width, Threads::Pool);
            let (mean, squares, used) = reference(&values, width, found.resolution);
            prop_assert_eq!(found.rows_used, used);
            for (found, expected) in found.mean.iter().chain(&found.squared_norms).zip(mean.iter().chain(&squares)) {
                prop_assert!((found - expected).abs() < 1e-12 * (1.0 + expected.abs()), "{found} {expected}");
            }
        }

        #[test]
        fn threads_do_not_change_a_bit(rows in 1usize..300, width in 1usize..40, seed in 1u32..99) {
            let values = noise(rows * width, seed);
            let one = columns(&values, width, Threads::One);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
            prop_assert_eq!(pool.install(|| columns(&values, width, Threads::Pool)), one);
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_seen() {
        let mut values = noise(FINITE_CHUNK + 77, 1);
        assert!(all_finite(&values) && all_finite(&[]));
        for (at, value) in [(0, f32::NAN), (FINITE_CHUNK + 76, f32::NEG_INFINITY)] {
            let was = std::mem::replace(&mut values[at], value);
            assert!(!all_finite(&values));
            values[at] = was;
        }
    }

    #[test]
    fn a_row_at_the_mean_has_no_direction() {
        let found = columns(&[1.0, 0.0, -1.0, 0.0, 0.0, 0.0], 2, Threads::One);
        assert_eq!((found.rows_used, found.squared_norms), (2, vec![2.0, 0.0]));
        assert!(columns(&[1.0, f32::INFINITY, 2.0, 3.0], 2, Threads::One).mean[1].is_infinite());
        assert_eq!(columns(&[], 3, Threads::One).rows_used, 0);
    }
}
