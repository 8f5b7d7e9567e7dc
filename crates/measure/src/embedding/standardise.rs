//! Features scaled to mean 0 and standard deviation 1.

use serde::{Deserialize, Serialize};

use super::Vectors;
use crate::error::MeasureError;

/// Added to every standard deviation: a feature that never changes becomes 0 and not 0/0.
const EPSILON: f64 = 1e-8;

/// Mean and spread of every feature of a set of vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Mean of each feature, `[width]`.
    pub mean: Vec<f64>,
    /// Sample standard deviation (n − 1) of each feature, `[width]`.
    pub deviation: Vec<f64>,
    /// Vectors that they are of.
    pub n: u64,
}

impl Moments {
    /// Those of `v`.
    ///
    /// # Errors
    /// Fewer than two vectors: the deviation of one is undefined.
    pub fn of(v: &Vectors) -> Result<Self, MeasureError> {
        if v.len() < 2 {
            return Err(MeasureError::FewVectors { what: "a standard deviation", needed: 2, found: v.len() });
        }
        let n = v.len() as f64;
        let mut mean = vec![0.0; v.width()];
        for row in v.rows() {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= n);
        let mut deviation = vec![0.0; v.width()];
        for row in v.rows() {
            for ((sum, value), mean) in deviation.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2);
            }
        }
        deviation.iter_mut().for_each(|sum| *sum = (*sum / (n - 1.0)).sqrt());
        Ok(Self { mean, deviation, n: v.len() as u64 })
    }

    /// `(x − mean) / (deviation + 1e-8)`, feature by feature. A feature that never changed in the set that the moments are
    /// of gets 1e8 times what it differs by here.
    ///
    /// # Errors
    /// Another width; a value that becomes too large for f32.
    pub fn standardised(&self, v: &Vectors) -> Result<Vectors, MeasureError> {
        for found in [self.mean.len(), self.deviation.len()] {
            if found != v.width() {
                return Err(MeasureError::Shape { what: "statistics of features", expected: v.width(), found });
            }
        }
        let mut values = Vec::with_capacity(v.values().len());
        for row in v.rows() {
            let features = row.iter().zip(&self.mean).zip(&self.deviation);
            values
                .extend(features.map(|((x, mean), deviation)| ((f64::from(*x) - mean) / (deviation + EPSILON)) as f32));
        }
        Vectors::new(v.width(), values)
    }
}

/// Every `batch` vectors, in order, by their own moments: what the authors' code does (moee.py), for comparison with it. A
/// vector depends on its neighbours here; in a batch of two, every feature is −1/√2 or 1/√2 whatever it was.
///
/// # Errors
/// A batch of 0 or 1, or a last batch of one vector.
pub fn standardised_in_batches(v: &Vectors, batch: usize) -> Result<Vectors, MeasureError> {
    if batch == 0 {
        return Err(MeasureError::Parameter { name: "batch", value: 0.0, wanted: "2 or more" });
    }
    if batch == 1 || v.len() % batch == 1 {
        return Err(MeasureError::BatchOfOne { batch, rows: v.len() });
    }
    let mut values = Vec::with_capacity(v.values().len());
    for rows in v.values().chunks(batch * v.width()) {
        let rows = Vectors::new(v.width(), rows.to_vec())?;
        values.extend_from_slice(Moments::of(&rows)?.standardised(&rows)?.values());
    }
    Vectors::new(v.width(), values)
}
