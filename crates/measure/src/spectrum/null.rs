//! What the metrics are for states without any structure: independent Gaussian numbers of the same shape.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lathe_kernels::matmul::Threads;
use rand_distr::{Distribution, StandardNormal};

use super::{HiddenStates, Metric, decomposition, matrix_entropy, matrix_nuclear_norm, unit_rows};
use crate::error::MeasureError;
use crate::measured::{Number, Reason};
use crate::statistics::{item_generator, mean, standard_deviation};

/// Gaussian draws whose metrics are averaged into a null value.
pub const GAUSSIAN_DRAWS: u64 = 8;

/// Null means up to this are rounding: two tokens have entropy 0 whatever they are.
const ZERO: f64 = 1e-9;

/// The null values computed so far. Share one between layers and texts of the same shape: a null costs
/// eight times its metric and is computed once for each shape, metric and seed.
#[derive(Debug, Default)]
pub struct NullCache {
    known: Mutex<BTreeMap<Shape, GaussianNull>>,
}

/// What a null value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// D; counts for MNN only.
    pub(super) kept: usize,
    pub(super) metric: Metric,
    pub(super) seed: u64,
}

/// A metric over the draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct GaussianNull {
    pub(super) mean: Number,
    /// Sample standard deviation.
    pub(super) sd: Number,
}

impl NullCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn get(&self, shape: Shape) -> Result<GaussianNull, MeasureError> {
        let shape = if shape.metric == Metric::MatrixNuclearNorm { shape } else { Shape { kept: 0, ..shape } };
        // Held while computing, so that layers on other threads wait instead of computing it again. The
        // computation starts no parallel work that could come back for the lock.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(null) = known.get(&shape) {
            return Ok(*null);
        }
        let null = gaussian_null(shape)?;
        known.insert(shape, null);
        Ok(null)
    }
}

impl GaussianNull {
    /// The mean as a divisor: undefined when it is zero but for rounding.
    pub(super) fn divisor(&self) -> Number {
        match self.mean {
            Number::Value(mean) if mean <= ZERO => Number::Undefined(Reason::NullIsZero),
            mean => mean,
        }
    }
}

fn gaussian_null(shape: Shape) -> Result<GaussianNull, MeasureError> {
    let mut values = Vec::new();
    for draw in 0..GAUSSIAN_DRAWS {
        let generator = item_generator(shape.seed, draw);
        let cloud: Vec<f32> = StandardNormal.sample_iter(generator).take(shape.rows * shape.width).collect();
        // Gaussian numbers are finite, and the search for others would start parallel work.
        match metric(HiddenStates { values: &cloud, tokens: shape.rows, width: shape.width }, shape)? {
            Number::Value(value) => values.push(value),
            undefined => {
                return Ok(GaussianNull { mean: undefined, sd: undefined });
            }
        }
    }
    Ok(GaussianNull { mean: mean(&values), sd: standard_deviation(&values) })
}

fn metric(cloud: HiddenStates<'_>, shape: Shape) -> Result<Number, MeasureError> {
    match shape.metric {
        Metric::MatrixNuclearNorm => {
            // On one thread, for the reason given at the lock.
            let columns = lathe_kernels::unit_rows::columns(cloud.values, cloud.width, Threads::One);
            Ok(matrix_nuclear_norm(&columns, shape.kept))
        }
        Metric::MatrixEntropy => {
            let entropy = decomposition::entropy(&unit_rows::unit_rows(cloud))?;
            Ok(matrix_entropy(entropy, shape.width))
        }
        Metric::NuclearNorm => {
            let norm = decomposition::nuclear_norm(&unit_rows::unit_rows(cloud))?;
            Ok(Number::from(norm / shape.rows as f64))
        }
    }
}
