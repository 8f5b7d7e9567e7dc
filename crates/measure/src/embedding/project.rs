//! Fixed linear maps of vectors: a random one as a control, and one that follows from the model's unembedding.

use lathe_kernels::matmul::{Matrix, product};
use rand_distr::{Distribution, StandardNormal};

use super::Vectors;
use crate::error::MeasureError;
use crate::spectrum::decomposition::eigenvectors;
use crate::statistics::item_generator;

/// `v` times a matrix of independent normal numbers with variance 1/`width`, `[vectors, width]`: what is left of a vector when
/// nothing but its width is changed. Column `j` of the matrix is drawn by (`seed`, `j`), so a wider projection begins with
/// the same columns, up to the factor.
///
/// # Panics
/// When `width` is 0.
#[must_use]
pub fn random_projection(v: &Vectors, width: usize, seed: u64) -> Vectors {
    assert!(width > 0, "a projection has a column");
    let scale = 1.0 / (width as f32).sqrt();
    let column = |column: usize| {
        let draws: Vec<f32> = StandardNormal.sample_iter(item_generator(seed, column as u64)).take(v.width()).collect();
        draws.into_iter().map(move |draw| draw * scale)
    };
    let columns: Vec<f32> = (0..width).flat_map(column).collect();
    mapped(v, &columns, width)
}

/// The middle band of an unembedding's directions (EmbedFilter, arXiv 2606.07502).
///
/// With the right singular vectors of the unembedding `W`, `[vocabulary, width]`, from the largest singular value to the
/// smallest, a filter keeps `width / tau` of them, rounded, and drops half of the others at each end (the odd one among
/// the small ones). With tau = 2 that is the middle half: a quarter is dropped at each end. Filtered vectors are the
/// coordinates in the kept directions.
#[derive(Clone, Debug, PartialEq)]
pub struct BandFilter {
    width: usize,
    kept: usize,
    /// Kept directions, `[kept, width]`.
    directions: Vec<f32>,
}

impl BandFilter {
    /// From `gram`, `WᵀW` of the unembedding, `[width, width]`, whose eigenvectors are the right singular vectors; the lower
    /// triangle is read. The eigenvectors take some 10 · width³ multiply-adds, on one thread. Of the two signs of
    /// a direction, its largest value is positive.
    ///
    /// # Errors
    /// Another length than width², a value that is not finite, `tau` below 1, eigenvectors that do not converge.
    pub fn of(gram: &[f64], width: usize, tau: f64) -> Result<Self, MeasureError> {
        const WHAT: &str = "Gram matrix of the unembedding";
        let expected = width.checked_mul(width).filter(|expected| *expected > 0).ok_or(MeasureError::Dimensions {
            what: WHAT,
            rows: width,
            columns: width,
        })?;
        if gram.len() != expected {
            return Err(MeasureError::Shape { what: WHAT, expected, found: gram.len() });
        }
        if let Some(at) = gram.iter().position(|value| !value.is_finite()) {
            let value = gram[at] as f32;
            return Err(MeasureError::NonFiniteVector { row: at / width, column: at % width, value });
        }
        if !(tau.is_finite() && tau >= 1.0) {
            return Err(MeasureError::Parameter { name: "tau", value: tau, wanted: "a number from 1 on" });
        }
        let kept = ((width as f64 / tau).round() as usize).clamp(1, width);
        let dropped_large = (width - kept) / 2;
        let vectors = eigenvectors(gram, width)?;
        let mut directions = Vec::with_capacity(kept * width);
        // Eigenvalues rise with the column, so the largest is the last.
        for rank in dropped_large..dropped_large + kept {
            let column = vectors.col(width - 1 - rank);
            let mut largest = 0.0f64;
            for value in column.iter() {
                if value.abs() > largest.abs() {
                    largest = *value;
                }
            }
            let sign = if largest < 0.0 { -1.0 } else { 1.0 };
            directions.extend(column.iter().map(|value| (value * sign) as f32));
        }
        Ok(Self { width, kept, directions })
    }

    /// Width of filtered vectors.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Coordinates in the kept directions, `[vectors, kept]`.
    ///
    /// # Panics
    /// When the vectors are not as wide as the unembedding.
    #[must_use]
    pub fn applied(&self, v: &Vectors) -> Vectors {
        assert_eq!(v.width(), self.width, "vectors of the unembedding's width");
        mapped(v, &self.directions, self.kept)
    }
}

/// Products with the rows of `directions`, `[width, v.width()]`.
fn mapped(v: &Vectors, directions: &[f32], width: usize) -> Vectors {
    let vectors = Matrix::new(v.values(), v.len(), v.width());
    let directions = Matrix::new(directions, width, v.width());
    Vectors { width, values: product(&[(vectors, directions.transposed())]) }
}
