//! Eigenvalues and singular values, in f64 on one thread, so that no bit depends on the thread count.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Mat, MatRef, Par};

use super::unit_rows::UnitRows;
use crate::error::MeasureError;

/// H = −Σ λ ln λ in nats over the eigenvalues of ZᵀZ / N, with 0 ln 0 = 0.
///
/// Z Zᵀ has the same non-zero eigenvalues, so the smaller of the two Gram matrices is decomposed. Their
/// trace is N by construction and needs no normalising. Rounding leaves eigenvalues of some 1e-16 in place
/// of zeros; λ ln λ of those is below 1e-14.
pub(super) fn entropy(unit_rows: &UnitRows) -> Result<f64, MeasureError> {
    let eigenvalues = gram_eigenvalues(unit_rows)?;
    let entropy: f64 = eigenvalues
        .into_iter()
        .map(|eigenvalue| eigenvalue / unit_rows.rows as f64)
        .filter(|&share| share > 0.0)
        .map(|share| -share * share.ln())
        .sum();
    // A single eigenvalue of 1 + 2e-16 would give an entropy below 0.
    Ok(entropy.max(0.0))
}

/// Σ σ of Z, from its singular values and not from the square roots of the Gram eigenvalues: squaring Z
/// turns each zero into about 1e-16 and its root into 1e-8, and Z always has a zero (its rows are dependent).
pub(super) fn nuclear_norm(unit_rows: &UnitRows) -> Result<f64, MeasureError> {
    Ok(singular_values(&unit_rows.values, unit_rows.rows, unit_rows.width)?.iter().sum())
}

/// Singular values of `values`, `[rows, columns]` row by row; largest first, min(rows, columns) of them.
pub(super) fn singular_values(values: &[f64], rows: usize, columns: usize) -> Result<Vec<f64>, MeasureError> {
    let matrix = MatRef::from_column_major_slice(values, columns, rows);
    let mut singular = Diag::<f64>::zeros(rows.min(columns));
    let scratch =
        svd_scratch::<f64>(columns, rows, ComputeSvdVectors::No, ComputeSvdVectors::No, Par::Seq, Default::default());
    let mut buffer = MemBuffer::new(scratch);
    svd(matrix, singular.as_mut(), None, None, Par::Seq, MemStack::new(&mut buffer), Default::default())
        .map_err(|_| MeasureError::NoConvergence { what: "singular values", rows, columns })?;
    Ok(singular.column_vector().iter().copied().collect())
}

/// Eigenvalues of the smaller of Z Zᵀ and ZᵀZ, smallest first.
fn gram_eigenvalues(unit_rows: &UnitRows) -> Result<Vec<f64>, MeasureError> {
    // Row-major Z is column-major Zᵀ, [width, rows].
    let transposed = MatRef::from_column_major_slice(&unit_rows.values, unit_rows.width, unit_rows.rows);
    let (left, right) = if unit_rows.rows <= unit_rows.width {
        (transposed.transpose(), transposed)
    } else {
        (transposed, transposed.transpose())
    };
    let side = unit_rows.rows.min(unit_rows.width);
    let mut gram = Mat::<f64>::zeros(side, side);
    matmul(
        gram.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        left,
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    eigenvalues(gram.as_ref())
}

/// Eigenvalues of a symmetric matrix of which the lower triangle is read, smallest first.
pub(crate) fn eigenvalues(symmetric: MatRef<'_, f64>) -> Result<Vec<f64>, MeasureError> {
    let side = symmetric.nrows();
    let mut eigenvalues = Diag::<f64>::zeros(side);
    let scratch = self_adjoint_evd_scratch::<f64>(side, ComputeEigenvectors::No, Par::Seq, Default::default());
    let mut buffer = MemBuffer::new(scratch);
    self_adjoint_evd(symmetric, eigenvalues.as_mut(), None, Par::Seq, MemStack::new(&mut buffer), Default::default())
        .map_err(|_| MeasureError::NoConvergence { what: "eigenvalues", rows: side, columns: side })?;
    Ok(eigenvalues.column_vector().iter().copied().collect())
}

/// Eigenvectors of a symmetric matrix, `[side, side]`, of which the lower triangle of the row-major values is read: column by
/// column, that of the smallest eigenvalue first.
pub(crate) fn eigenvectors(symmetric: &[f64], side: usize) -> Result<Mat<f64>, MeasureError> {
    // Row-major values are the transpose of column-major ones.
    let symmetric = MatRef::from_column_major_slice(symmetric, side, side).transpose();
    let (mut eigenvalues, mut vectors) = (Diag::<f64>::zeros(side), Mat::<f64>::zeros(side, side));
    let scratch = self_adjoint_evd_scratch::<f64>(side, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut buffer = MemBuffer::new(scratch);
    let (values, stack) = (eigenvalues.as_mut(), MemStack::new(&mut buffer));
    self_adjoint_evd(symmetric, values, Some(vectors.as_mut()), Par::Seq, stack, Default::default())
        .map_err(|_| MeasureError::NoConvergence { what: "eigenvectors", rows: side, columns: side })?;
    Ok(vectors)
}
