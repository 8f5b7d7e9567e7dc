//! Importance weights: Z, the effective sample size, and resampling from a pool.

use serde::{Deserialize, Serialize};

use super::diagnostics::Diagnostics;
use super::{Chosen, Proposal, SELECTION_STREAM, Selection};
use crate::{DecodeError, uniform};

/// Draws from a pool of local strings in proportion to their weights, with replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Importance {
    /// Strings of the pool.
    pub proposals: usize,
    /// Strings of the result.
    pub samples: usize,
}

impl Importance {
    /// Draws from the first proposals.
    ///
    /// # Errors
    /// Nothing to draw from or to draw; fewer proposals than the pool should have.
    pub fn select(&self, proposals: &[Proposal], seed: u64) -> Result<Selection, DecodeError> {
        let bad = |field, problem| Err(DecodeError::Option { field, problem, hint: None });
        if self.samples == 0 {
            return bad("--samples", "0 strings are nothing".into());
        }
        let Some(pool) = proposals.get(..self.proposals).filter(|pool| !pool.is_empty()) else {
            return bad("--proposals", format!("{} strings of {}", self.proposals, proposals.len()));
        };
        let log_weights: Vec<f64> = pool.iter().map(|proposal| proposal.log_weight).collect();
        let weights = normalised(&log_weights);
        let draw = |sample: usize| {
            let at = uniform(seed, SELECTION_STREAM, sample as u64);
            Chosen { proposal: at_cumulative(&weights, at), chain: sample, run: 0 }
        };
        let chosen: Vec<Chosen> = (0..self.samples).map(draw).collect();
        let mut diagnostics = Diagnostics::of(pool, &chosen);
        diagnostics.warn_of_weights();
        Ok(Selection { chosen, diagnostics })
    }
}

/// `ln (1/n Σ e^x)`; −∞ of none.
#[must_use]
pub fn log_mean_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    let sum: f64 = values.iter().map(|value| (value - max).exp()).sum();
    max + (sum / values.len() as f64).ln()
}

/// Weights that sum to 1.
#[must_use]
pub fn normalised(log_weights: &[f64]) -> Vec<f64> {
    let max = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = log_weights.iter().map(|log_weight| (log_weight - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// `(Σ w)² / Σ w²`: how many draws of the target the weighted strings are worth; 0 of none.
#[must_use]
pub fn effective_sample_size(log_weights: &[f64]) -> f64 {
    if log_weights.is_empty() {
        return 0.0;
    }
    1.0 / normalised(log_weights).iter().map(|weight| weight * weight).sum::<f64>()
}

/// The index at which the cumulative sum of weights exceeds `at`.
fn at_cumulative(weights: &[f64], mut at: f64) -> usize {
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
    for (index, weight) in weights[..last].iter().enumerate() {
        if at < *weight {
            return index;
        }
        at -= weight;
    }
    last
}

/// Systematic resampling: how often each index is drawn, one draw for each of as many equal parts of `[0, 1)`, all at the
/// same place `at` of their part.
pub(crate) fn systematic(weights: &[f64], at: f64) -> Vec<usize> {
    let n = weights.len();
    let mut counts = vec![0; n];
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
    let (mut index, mut cumulative) = (0, weights.first().copied().unwrap_or(0.0));
    for part in 0..n {
        let place = (part as f64 + at) / n as f64;
        while index < last && cumulative <= place {
            index += 1;
            cumulative += weights[index];
        }
        counts[index] += 1;
    }
    counts
}
