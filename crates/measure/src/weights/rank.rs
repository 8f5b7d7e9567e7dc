//! The effective rank of a matrix (Roy and Vetterli, EUSIPCO 2007): in how many directions it points.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatRef, Par};
use rand_distr::{Distribution, StandardNormal};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};
use crate::spectrum::decomposition::eigenvalues;
use crate::statistics::item_generator;

/// exp(H) with H = −Σ p ln p in nats over the shares p = σ / Σσ of the singular values: from 1, one direction, to
/// min(rows, columns), all of them alike. Undefined where all of `values`, `[rows, columns]` row by row, are zero.
///
/// Singular values are the roots of the eigenvalues of the smaller Gram matrix, in f64; squares below the resolution of the
/// largest one count as zero. That takes rows · columns · s + 4/3 · s³ multiply-adds and 16 · s² bytes beside the
/// matrix, s the smaller side, on one thread.
///
/// # Errors
/// A length other than rows × columns; the eigenvalues do not converge.
pub fn effective_rank(values: &[f32], rows: usize, columns: usize) -> Result<Number, MeasureError> {
    const WHAT: &str = "weights";
    let expected = rows.checked_mul(columns).filter(|expected| *expected > 0).ok_or(MeasureError::Dimensions {
        what: WHAT,
        rows,
        columns,
    })?;
    if values.len() != expected {
        return Err(MeasureError::Shape { what: WHAT, expected, found: values.len() });
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Ok(Number::Undefined(Reason::Overflow));
    }
    let squares = eigenvalues(gram(values, rows, columns).as_ref())?;
    let largest = squares.last().copied().unwrap_or(0.0);
    let resolution = largest * f64::EPSILON * squares.len() as f64;
    let singular: Vec<f64> = squares.into_iter().filter(|square| *square > resolution).map(f64::sqrt).collect();
    let total: f64 = singular.iter().sum();
    if total == 0.0 {
        return Ok(Number::Undefined(Reason::AllZero));
    }
    let entropy: f64 = singular.iter().map(|sigma| sigma / total).map(|share| -share * share.ln()).sum();
    Ok(Number::from(entropy.max(0.0).exp()))
}

/// The effective rank of a matrix of independent normal numbers: what a difference without structure has, as that of
/// rounding. One draw: for matrices of some hundred rows another one differs in the fourth digit.
///
/// # Errors
/// The eigenvalues do not converge.
pub fn noise_rank(rows: usize, columns: usize) -> Result<Number, MeasureError> {
    let draws = StandardNormal.sample_iter(item_generator(0, 0));
    let values: Vec<f32> = draws.take(rows.saturating_mul(columns)).collect();
    effective_rank(&values, rows, columns)
}

/// The lower triangle of the smaller Gram matrix, a block of the longer side at a time.
fn gram(values: &[f32], rows: usize, columns: usize) -> Mat<f64> {
    /// Rows or columns that are widened to f64 at once.
    const BLOCK: usize = 256;
    let (side, long) = (rows.min(columns), rows.max(columns));
    let mut gram = Mat::<f64>::zeros(side, side);
    // [side, block] column by column.
    let mut block = Vec::with_capacity(side * BLOCK.min(long));
    for first in (0..long).step_by(BLOCK) {
        let last = long.min(first + BLOCK);
        block.clear();
        if rows >= columns {
            block.extend(values[first * columns..last * columns].iter().map(|value| f64::from(*value)));
        } else {
            let column = |column: usize| (0..rows).map(move |row| f64::from(values[row * columns + column]));
            block.extend((first..last).flat_map(column));
        }
        let block = MatRef::from_column_major_slice(&block, side, last - first);
        matmul(
            gram.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            block,
            BlockStructure::Rectangular,
            block.transpose(),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    }
    gram
}
