//! Vectors of texts: their cosine, and what is made of two kinds of them.
//!
//! MoEE (arXiv 2410.10814) has two vectors of a text: a hidden state (HS) and what the routers say (RW). They are used
//! one after the other in one vector ([`concatenated`]), or as the sum `cos(HS) + α cos(RW)`, which [`joined`] gives as the
//! cosine of one vector. [`Moments`] and [`standardised_in_batches`] scale features, [`closed_form_alpha`] and [`searched_alpha`]
//! choose α, [`random_projection`] is a control, and [`BandFilter`] keeps the middle band of an unembedding's directions.

mod alpha;
mod project;
mod standardise;
#[cfg(test)]
mod tests;

pub use alpha::{closed_form_alpha, searched_alpha};
pub use project::{BandFilter, random_projection};
pub use standardise::{Moments, standardised_in_batches};

use crate::error::MeasureError;

/// Vectors of one width, finite in every value.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    width: usize,
    /// Row by row.
    values: Vec<f32>,
}

impl Vectors {
    /// `values` row by row, `[vectors, width]`. There may be no vector.
    ///
    /// # Errors
    /// A width of 0, a length that is no multiple of it, a value that is NaN or infinite.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Self, MeasureError> {
        const WHAT: &str = "vectors";
        if width == 0 {
            return Err(MeasureError::Dimensions { what: WHAT, rows: 0, columns: 0 });
        }
        if !values.len().is_multiple_of(width) {
            let expected = values.len().next_multiple_of(width);
            return Err(MeasureError::Shape { what: WHAT, expected, found: values.len() });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(MeasureError::NonFiniteVector { row: at / width, column: at % width, value: values[at] });
        }
        Ok(Self { width, values })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Values of each.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Vector `i`, `[width]`.
    ///
    /// # Panics
    /// When there are not as many.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// All of them in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    /// All values, row by row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The vectors of these numbers, in this order; a number may come more than once.
    ///
    /// # Panics
    /// When there are not as many.
    #[must_use]
    pub fn selected(&self, rows: &[usize]) -> Self {
        Self { width: self.width, values: rows.iter().flat_map(|row| self.row(*row)).copied().collect() }
    }
}

/// The cosine of two vectors, with sums in f64; 0 where either is zero. (scikit-learn's paired cosine is 0.5 there against any
/// other vector and 1 against another zero vector; a zero vector is like nothing here, itself included.)
///
/// Zeros that are appended to both vectors change no bit.
///
/// # Panics
/// When their lengths differ.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let squares = dot(a, a) * dot(b, b);
    if squares == 0.0 {
        return 0.0;
    }
    // The root of the product: the cosine of a vector with itself is then 1 and not its neighbour.
    (dot(a, b) / squares.sqrt()).clamp(-1.0, 1.0)
}

/// The same vectors with length 1; zero vectors stay zero.
#[must_use]
pub fn normalised(of: &Vectors) -> Vectors {
    let mut values = Vec::with_capacity(of.values.len());
    of.rows().for_each(|row| push_scaled(&mut values, row, 1.0));
    Vectors { width: of.width, values }
}

/// `[hidden ; router]` as they are, hidden states first.
///
/// # Errors
/// There are not as many of both.
pub fn concatenated(hidden: &Vectors, router: &Vectors) -> Result<Vectors, MeasureError> {
    check_pairs(hidden, router)?;
    let values = hidden.rows().zip(router.rows()).flat_map(|(hidden, router)| hidden.iter().chain(router)).copied();
    Ok(Vectors { width: hidden.width + router.width, values: values.collect() })
}

/// `[hidden/|hidden| ; √α router/|router|]`: one vector whose cosine times 1 + α is `cos(hidden) + α cos(router)`.
///
/// A zero part stays zero; the vector is then shorter, and its cosine is not divided by 1 + α but by less. With α = 0 the
/// hidden part is taken as it is, so that every cosine has the bits of that of hidden states alone.
///
/// # Errors
/// There are not as many of both; α is negative, infinite or NaN.
pub fn joined(hidden: &Vectors, router: &Vectors, alpha: f64) -> Result<Vectors, MeasureError> {
    check_pairs(hidden, router)?;
    if !(alpha.is_finite() && alpha >= 0.0) {
        return Err(MeasureError::Parameter { name: "alpha", value: alpha, wanted: "a number from 0 on" });
    }
    let width = hidden.width + router.width;
    let mut values = Vec::with_capacity(hidden.len() * width);
    for (hidden, router) in hidden.rows().zip(router.rows()) {
        if alpha == 0.0 {
            values.extend_from_slice(hidden);
            values.resize(values.len() + router.len(), 0.0);
        } else {
            push_scaled(&mut values, hidden, 1.0);
            push_scaled(&mut values, router, alpha.sqrt());
        }
    }
    Vectors::new(width, values)
}

fn check_pairs(hidden: &Vectors, router: &Vectors) -> Result<(), MeasureError> {
    if hidden.len() == router.len() {
        return Ok(());
    }
    let expected = hidden.len() * router.width;
    Err(MeasureError::Shape { what: "router vectors of the same texts", expected, found: router.values.len() })
}

/// Appends a vector scaled to `length`.
fn push_scaled(values: &mut Vec<f32>, row: &[f32], length: f64) {
    let found = dot(row, row).sqrt();
    let factor = if found == 0.0 { 0.0 } else { length / found };
    values.extend(row.iter().map(|value| (f64::from(*value) * factor) as f32));
}

/// Σ a b in f64: value i goes to partial sum i mod 8, and these are added in pairs.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one width");
    let mut sums = [0.0f64; 8];
    let (a, b) = (a.chunks(8), b.chunks(8));
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    tree(sums)
}

/// The sum of eight partial sums, in pairs.
pub(crate) fn tree([a, b, c, d, e, f, g, h]: [f64; 8]) -> f64 {
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
