//! Logistic regression with a squared penalty, as scikit-learn's `LogisticRegression` states it.
//!
//! With n vectors, labels y and C, the mean of `−ln p(y | x)` plus `|w|² / (2 C n)` is made smallest. For two classes
//! `p(1 | x)` is the logistic function of one score `w·x + b`; for more, `p` is the softmax over a score of each
//! class. Intercepts carry no penalty; vectors are neither scaled nor normalised. Sums run in f64 in the order of the
//! vectors, whatever the number of threads.
//!
//! Long vectors take more rounds than the field's protocol allows (100), and where the rounds end depends on the
//! minimiser: [`Logistic::converged`] says whether they did.

mod legacy;
mod minimise;
#[cfg(test)]
mod tests;

pub use legacy::{LegacyMt19937, legacy_shuffle};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::embedding::{Vectors, tree};
use crate::error::MeasureError;
use minimise::{Limits, minimise};

/// Choices of the regression; the defaults are those of scikit-learn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogisticOptions {
    /// C, the inverse of the penalty's strength.
    pub c: f64,
    /// The largest component of the gradient at which the fit has converged.
    pub tolerance: f64,
    /// Rounds of the minimiser at most.
    pub rounds: usize,
}

impl Default for LogisticOptions {
    fn default() -> Self {
        Self { c: 1.0, tolerance: 1e-4, rounds: 100 }
    }
}

/// How a fit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convergence {
    /// At a minimum: the gradient is below the tolerance, or the objective no longer falls.
    Reached {
        /// Rounds that it took.
        rounds: usize,
    },
    /// The rounds were used up, or no step lowered the objective.
    Stopped {
        /// Rounds done.
        rounds: usize,
    },
}

/// A fitted classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    classes: usize,
    width: usize,
    /// Weights and at the end the intercept of each score, `[scores, width + 1]`; one score for two classes.
    scores: Vec<f64>,
    converged: Convergence,
}

impl Logistic {
    /// Fits vectors with labels 0 to `classes` − 1, `[vectors]`.
    ///
    /// # Errors
    /// Not as many labels as vectors, a label that is no class, a class without a vector, fewer than two classes, an option
    /// outside its range.
    pub fn fit(v: &Vectors, labels: &[usize], classes: usize, options: &LogisticOptions) -> Result<Self, MeasureError> {
        check(v, labels, classes, options)?;
        let scores = if classes == 2 { 1 } else { classes };
        let objective = Objective {
            width: v.width(),
            scores,
            values: v.values().iter().map(|value| f64::from(*value)).collect(),
            labels,
            penalty: 1.0 / (options.c * v.len() as f64),
        };
        let limits = Limits { gradient: options.tolerance, rounds: options.rounds };
        let start = vec![0.0; scores * (v.width() + 1)];
        let (scores, converged) = minimise(start, &limits, |at, gradient| objective.value(at, gradient));
        Ok(Self { classes, width: v.width(), scores, converged })
    }

    /// How the fit ended.
    #[must_use]
    pub fn converged(&self) -> Convergence {
        self.converged
    }

    /// Weights and at the end the intercept of each score, `[scores, width + 1]`: one score, that of class 1, for two classes, and
    /// one for each class of more.
    #[must_use]
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Probability of each class, `[classes]`.
    ///
    /// # Panics
    /// When the vector has another width than those of the fit.
    #[must_use]
    pub fn probabilities(&self, row: &[f32]) -> Vec<f64> {
        assert_eq!(row.len(), self.width, "vectors of the width that was fitted");
        let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let scores: Vec<f64> = self.scores.chunks_exact(self.width + 1).map(|score| scored(&row, score)).collect();
        if self.classes == 2 {
            return vec![logistic(-scores[0]), logistic(scores[0])];
        }
        let log_sum = log_sum_exp(&scores);
        scores.iter().map(|score| (score - log_sum).exp()).collect()
    }

    /// The most probable class, the first of several.
    ///
    /// # Panics
    /// As [`Logistic::probabilities`].
    #[must_use]
    pub fn predict(&self, row: &[f32]) -> usize {
        let probabilities = self.probabilities(row);
        let mut best = 0;
        for (class, probability) in probabilities.iter().enumerate() {
            if *probability > probabilities[best] {
                best = class;
            }
        }
        best
    }
}

fn check(v: &Vectors, labels: &[usize], classes: usize, options: &LogisticOptions) -> Result<(), MeasureError> {
    let LogisticOptions { c, tolerance, rounds } = *options;
    let parameter = |name, value, wanted| Err(MeasureError::Parameter { name, value, wanted });
    if !(c.is_finite() && c > 0.0) {
        return parameter("C", c, "a number above 0");
    }
    if !(tolerance.is_finite() && tolerance >= 0.0) {
        return parameter("tolerance", tolerance, "a number from 0 on");
    }
    if rounds == 0 {
        return parameter("rounds", 0.0, "1 or more");
    }
    if classes < 2 {
        return parameter("classes", classes as f64, "2 or more");
    }
    if labels.len() != v.len() {
        return Err(MeasureError::Shape { what: "labels of the vectors", expected: v.len(), found: labels.len() });
    }
    if v.len() < classes {
        return Err(MeasureError::FewVectors { what: "this number of classes", needed: classes, found: v.len() });
    }
    let mut is_there = vec![false; classes];
    for (row, label) in labels.iter().enumerate() {
        *is_there.get_mut(*label).ok_or(MeasureError::Label { row, label: *label, classes })? = true;
    }
    match is_there.iter().position(|is_there| !is_there) {
        Some(class) => Err(MeasureError::EmptyClass { class }),
        None => Ok(()),
    }
}

/// What a fit makes smallest.
struct Objective<'a> {
    width: usize,
    scores: usize,
    /// `[vectors, width]`
    values: Vec<f64>,
    labels: &'a [usize],
    /// 1 / (C n)
    penalty: f64,
}

impl Objective<'_> {
    /// The objective at `at`, `[scores, width + 1]`, and its gradient.
    fn value(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let n = self.labels.len() as f64;
        let span = self.width + 1;
        let mut residuals = vec![0.0; self.labels.len() * self.scores];
        let rows = self.values.par_chunks_exact(self.width).zip(self.labels);
        let losses = rows.zip(residuals.par_chunks_exact_mut(self.scores));
        let losses: Vec<f64> = losses.map(|((row, label), residuals)| loss(row, *label, at, residuals)).collect();
        let mut value = losses.iter().sum::<f64>() / n;

        for score in at.chunks_exact(span) {
            value += 0.5 * self.penalty * score[..self.width].iter().map(|w| w * w).sum::<f64>();
        }
        gradient.par_chunks_exact_mut(span).zip(at.par_chunks_exact(span)).enumerate().for_each(
            |(k, (gradient, score))| {
                gradient.fill(0.0);
                for (row, residuals) in self.values.chunks_exact(self.width).zip(residuals.chunks_exact(self.scores)) {
                    let residual = residuals[k] / n;
                    gradient.iter_mut().zip(row).for_each(|(sum, value)| *sum += residual * value);
                    gradient[self.width] += residual;
                }
                gradient[..self.width].iter_mut().zip(score).for_each(|(sum, weight)| *sum += self.penalty * weight);
            },
        );
        value
    }
}

/// −ln p(label | row), and its derivatives by the scores.
fn loss(row: &[f64], label: usize, at: &[f64], residuals: &mut [f64]) -> f64 {
    for (residual, score) in residuals.iter_mut().zip(at.chunks_exact(row.len() + 1)) {
        *residual = scored(row, score);
    }
    if let [residual] = &mut *residuals {
        let score = *residual;
        *residual = logistic(score) - label as f64;
        // −ln of the logistic function of ± score, without a large exponential.
        let against = if label == 1 { -score } else { score };
        return against.max(0.0) + (-against.abs()).exp().ln_1p();
    }
    let log_sum = log_sum_exp(residuals);
    let loss = log_sum - residuals[label];
    for (k, residual) in residuals.iter_mut().enumerate() {
        *residual = (*residual - log_sum).exp() - if k == label { 1.0 } else { 0.0 };
    }
    loss
}

/// `w·x + b`, with eight partial sums.
fn scored(row: &[f64], score: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (row, weights) in row.chunks(8).zip(score[..row.len()].chunks(8)) {
        sums.iter_mut().zip(row.iter().zip(weights)).for_each(|(sum, (value, weight))| *sum += value * weight);
    }
    tree(sums) + score[row.len()]
}

/// 1 / (1 + e^−x)
fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        return 1.0 / (1.0 + (-x).exp());
    }
    let e = x.exp();
    e / (1.0 + e)
}

fn log_sum_exp(scores: &[f64]) -> f64 {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + scores.iter().map(|score| (score - most).exp()).sum::<f64>().ln()
}
