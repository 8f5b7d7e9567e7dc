//! The best low-rank approximation of the difference of two matrices.
//!
//! For D = tuned − base = U S Vᵀ (largest singular values first), B = U√S and A = √S Vᵀ, cut to the rank, are the two
//! factors of that rank that come nearest to D (Eckart and Young). Small matrices are decomposed; of larger ones the
//! leading singular vectors are found by subspace iteration from a random start (Halko, Martinsson and Tropp, 0909.4061,
//! algorithms 4.4 and 5.1), which reads D from the files a few times and never holds it. What is lost is measured in any
//! case, on the f32 factors that are returned.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::AdapterError;
use super::config::WeightLayout;
use crate::inputs::{InputError, Inputs};

/// The factors of a difference, as an adapter of scale 1 stores them.
#[derive(Clone, Debug, PartialEq)]
pub struct Extracted {
    /// At most what was asked for, and at most the smaller side of the matrix.
    pub rank: usize,
    /// `[rank, in]`
    pub a: Vec<f32>,
    /// `[out, rank]`
    pub b: Vec<f32>,
    /// The length of the difference: ‖D‖, the root of the sum of squares.
    pub norm: f64,
    /// The share of it that the factors do not have, ‖D − BA‖ / ‖D‖; 0 for no difference.
    pub residual: f64,
}

/// Matrices whose smaller side is at most this are decomposed whole, in f64, which takes a second or two.
const WHOLE: usize = 512;

/// Vectors that the subspace has beyond twice the rank. Differences of fine-tuned models have spectra that fall slowly, and
/// what the iteration converges with is the ratio of singular values at the rank and at the width of the subspace.
const OVERSAMPLING: usize = 8;

/// How often the subspace is multiplied by DDᵀ.
const POWER_ITERATIONS: usize = 4;

/// Numbers of a tile of rows.
const TILE: usize = 1 << 18;

/// Tiles whose sums are held at once.
const TILES_AT_ONCE: usize = 8;

/// Factors of input 1 minus input 0.
///
/// `layout` is that of the matrix; the factors are the same for both. The result depends on no thread.
///
/// # Errors
/// The tensor is no matrix, the rank is zero, the singular values do not converge, or numbers cannot be read.
pub fn extract(inputs: &dyn Inputs, rank: usize, layout: WeightLayout) -> Result<Extracted, AdapterError> {
    let [rows, columns] = *inputs.shape() else {
        return Err(AdapterError::NotAMatrix { shape: inputs.shape().to_vec() });
    };
    if rank == 0 {
        return Err(AdapterError::ZeroRank);
    }
    let difference = Difference { inputs, rows, columns };
    let side = rows.min(columns);
    let rank = rank.min(side);
    let norm = difference.norm_without(None)?;
    if norm == 0.0 {
        let (inputs, outputs) = sides(rows, columns, layout);
        return Ok(Extracted { rank, a: vec![0.0; rank * inputs], b: vec![0.0; outputs * rank], norm, residual: 0.0 });
    }
    let width = 2 * rank + OVERSAMPLING;
    // Near the whole space the iteration costs more than the decomposition.
    let factors = if side <= WHOLE || width >= side / 2 {
        difference.decomposed(rank)?
    } else {
        difference.iterated(rank, width)?
    };
    let residual = difference.norm_without(Some(&factors))? / norm;
    let Factors { left, right } = factors;
    let (a, b) = match layout {
        WeightLayout::OutputsFirst => (right, left),
        // The stored matrix is the transpose of BA.
        WeightLayout::InputsFirst => (transposed(&left, rows, rank), transposed(&right, rank, columns)),
    };
    Ok(Extracted { rank, a, b, norm, residual })
}

/// (in, out) of a matrix.
fn sides(rows: usize, columns: usize, layout: WeightLayout) -> (usize, usize) {
    match layout {
        WeightLayout::OutputsFirst => (columns, rows),
        WeightLayout::InputsFirst => (rows, columns),
    }
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// D, read in tiles of whole rows.
struct Difference<'a> {
    inputs: &'a dyn Inputs,
    rows: usize,
    columns: usize,
}

/// U√S `[rows, rank]` and √S Vᵀ `[rank, columns]`.
struct Factors {
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Factors {
    /// From vectors in columns and their singular values.
    fn new(left: MatRef<'_, f64>, singular: &[f64], right: MatRef<'_, f64>) -> Self {
        let at = |vectors: MatRef<'_, f64>, row: usize, k: usize| (vectors[(row, k)] * singular[k].sqrt()) as f32;
        let rank = 0..singular.len();
        Self {
            left: (0..left.nrows()).flat_map(|row| rank.clone().map(move |k| at(left, row, k))).collect(),
            right: rank.clone().flat_map(|k| (0..right.nrows()).map(move |row| at(right, row, k))).collect(),
        }
    }
}

impl Difference<'_> {
    fn rows_per_tile(&self) -> usize {
        (TILE / self.columns.max(1)).max(1)
    }

    fn tile(&self, index: usize) -> Range<usize> {
        let step = self.rows_per_tile();
        index * step..self.rows.min((index + 1) * step)
    }

    /// Rows of D, row by row: exact, as f32 are subtracted in f64.
    fn read(&self, rows: Range<usize>) -> Result<Vec<f64>, InputError> {
        let numbers = rows.start * self.columns..rows.end * self.columns;
        let (mut base, mut tuned) = (vec![0.0f32; numbers.len()], vec![0.0f32; numbers.len()]);
        self.inputs.read(0, numbers.clone(), &mut base)?;
        self.inputs.read(1, numbers, &mut tuned)?;
        Ok(tuned.iter().zip(&base).map(|(tuned, base)| f64::from(*tuned) - f64::from(*base)).collect())
    }

    /// Gives `use_tile` the results of all tiles in order; they are computed some at a time.
    fn for_tiles<T: Send>(
        &self,
        compute: impl Fn(MatRef<'_, f64>, Range<usize>) -> T + Sync,
        mut use_tile: impl FnMut(Range<usize>, T),
    ) -> Result<(), InputError> {
        let tiles = self.rows.div_ceil(self.rows_per_tile());
        for begin in (0..tiles).step_by(TILES_AT_ONCE) {
            let group = begin..tiles.min(begin + TILES_AT_ONCE);
            let results = group.clone().into_par_iter().map(|index| {
                let rows = self.tile(index);
                let values = self.read(rows.clone())?;
                Ok(compute(MatRef::from_row_major_slice(&values, rows.len(), self.columns), rows))
            });
            for (index, result) in group.clone().zip(results.collect::<Result<Vec<_>, InputError>>()?) {
                use_tile(self.tile(index), result);
            }
        }
        Ok(())
    }

    /// ‖D‖, or ‖D − BA‖.
    fn norm_without(&self, factors: Option<&Factors>) -> Result<f64, InputError> {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let factors = factors.map(|factors| (wide(&factors.left), wide(&factors.right)));
        let mut sum = 0.0;
        let squares = |tile: MatRef<'_, f64>, rows: Range<usize>| {
            let mut rest = tile.to_owned();
            if let Some((left, right)) = &factors {
                let rank = right.len() / self.columns;
                let left = MatRef::from_row_major_slice(&left[rows.start * rank..rows.end * rank], rows.len(), rank);
                let right = MatRef::from_row_major_slice(right, rank, self.columns);
                matmul(rest.as_mut(), Accum::Add, left, right, -1.0, Par::Seq);
            }
            rest.col_iter().map(|column| column.iter().map(|value| value * value).sum::<f64>()).sum::<f64>()
        };
        self.for_tiles(squares, |_, squares| sum += squares)?;
        Ok(sum.sqrt())
    }

    fn decomposed(&self, rank: usize) -> Result<Factors, AdapterError> {
        let values = self.read(0..self.rows)?;
        let matrix = MatRef::from_row_major_slice(&values, self.rows, self.columns);
        let svd = matrix.thin_svd().map_err(|_| self.no_convergence())?;
        let singular = svd.S().column_vector().iter().copied().take(rank).collect::<Vec<_>>();
        Ok(Factors::new(svd.U(), &singular, svd.V()))
    }

    /// The leading singular vectors, from a subspace of `width` dimensions.
    fn iterated(&self, rank: usize, width: usize) -> Result<Factors, AdapterError> {
        let mut right = random_signs(self.columns, width);
        let mut left = self.times(&right)?.qr().compute_thin_Q();
        for _ in 0..POWER_ITERATIONS {
            right = self.transposed_times(&left)?.qr().compute_thin_Q();
            left = self.times(&right)?.qr().compute_thin_Q();
        }
        // D ≈ Q Qᵀ D, and DᵀQ = P S Wᵀ, so that D ≈ (Q W) S Pᵀ.
        let small = self.transposed_times(&left)?;
        let svd = small.thin_svd().map_err(|_| self.no_convergence())?;
        let singular = svd.S().column_vector().iter().copied().take(rank).collect::<Vec<_>>();
        let mut vectors = Mat::zeros(self.rows, width);
        matmul(vectors.as_mut(), Accum::Replace, left.as_ref(), svd.V(), 1.0, Par::Seq);
        Ok(Factors::new(vectors.as_ref(), &singular, svd.U()))
    }

    /// D · right, `[rows, width]`
    fn times(&self, right: &Mat<f64>) -> Result<Mat<f64>, InputError> {
        let mut out = Mat::zeros(self.rows, right.ncols());
        let multiply = |tile: MatRef<'_, f64>, rows: Range<usize>| {
            let mut part = Mat::zeros(rows.len(), right.ncols());
            matmul(part.as_mut(), Accum::Replace, tile, right.as_ref(), 1.0, Par::Seq);
            part
        };
        self.for_tiles(multiply, |rows, part| out.subrows_mut(rows.start, rows.len()).copy_from(part))?;
        Ok(out)
    }

    /// Dᵀ · left, `[columns, width]`: sums over tiles, joined in order.
    fn transposed_times(&self, left: &Mat<f64>) -> Result<Mat<f64>, InputError> {
        let mut out = Mat::<f64>::zeros(self.columns, left.ncols());
        let multiply = |tile: MatRef<'_, f64>, rows: Range<usize>| {
            let mut part = Mat::zeros(self.columns, left.ncols());
            let left = left.subrows(rows.start, rows.len());
            matmul(part.as_mut(), Accum::Replace, tile.transpose(), left, 1.0, Par::Seq);
            part
        };
        self.for_tiles(multiply, |_, part| out += part)?;
        Ok(out)
    }

    fn no_convergence(&self) -> AdapterError {
        AdapterError::NoConvergence { rows: self.rows, columns: self.columns }
    }
}

/// A start that no difference is likely to be orthogonal to: signs from a counter (SplitMix64).
fn random_signs(rows: usize, columns: usize) -> Mat<f64> {
    Mat::from_fn(rows, columns, |row, column| {
        let mut bits = ((row * columns + column) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (bits ^ (bits >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
    })
}
