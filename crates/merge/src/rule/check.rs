//! Parameters that have a meaning, and those that have none.

use super::prepared::RuleError;
use super::{Consensus, Deltas, Rescale, Sparsify};

/// Weights whose sum is below this share of their sizes sum to zero but for rounding.
pub(super) const CANCELLED: f64 = 1e-12;

/// Checks of one tensor's parameters.
pub(super) struct Checks<'a> {
    tensor: &'a str,
}

impl<'a> Checks<'a> {
    pub(super) fn new(tensor: &'a str) -> Self {
        Self { tensor }
    }

    /// Exactly so many inputs.
    pub(super) fn inputs(&self, rule: &'static str, found: usize, wanted: usize) -> Result<(), RuleError> {
        if found == wanted && wanted > 0 {
            return Ok(());
        }
        let wanted = format!("{} input(s)", wanted.max(1));
        Err(RuleError::InputCount { rule, wanted, tensor: self.tensor.to_owned(), found })
    }

    /// That many inputs or more.
    pub(super) fn at_least(&self, rule: &'static str, found: usize, least: usize) -> Result<(), RuleError> {
        if found >= least {
            return Ok(());
        }
        let wanted = format!("at least {least} inputs");
        Err(RuleError::InputCount { rule, wanted, tensor: self.tensor.to_owned(), found })
    }

    pub(super) fn within(
        &self,
        name: &'static str,
        value: f64,
        fulfilled: bool,
        allowed: &'static str,
    ) -> Result<(), RuleError> {
        if fulfilled {
            return Ok(());
        }
        Err(RuleError::Parameter { name, tensor: self.tensor.to_owned(), value, allowed })
    }

    pub(super) fn finite(&self, name: &'static str, values: &[f64]) -> Result<(), RuleError> {
        values.iter().try_for_each(|value| self.within(name, *value, value.is_finite(), "finite"))
    }

    /// A share of something that is not empty.
    pub(super) fn share(&self, name: &'static str, value: f64) -> Result<(), RuleError> {
        self.within(name, value, value > 0.0 && value <= 1.0, "above 0 and at most 1")
    }

    pub(super) fn weights<'w>(&self, weights: &'w [f64]) -> Result<&'w [f64], RuleError> {
        self.finite("weight", weights).map(|()| weights)
    }

    /// Weights divided by their sum.
    pub(super) fn normalized(&self, weights: &[f64]) -> Result<Vec<f64>, RuleError> {
        self.weights(weights)?;
        let sum: f64 = weights.iter().sum();
        let sizes: f64 = weights.iter().map(|w| w.abs()).sum();
        if sum.abs() <= CANCELLED * sizes {
            return Err(RuleError::WeightSum { tensor: self.tensor.to_owned() });
        }
        Ok(weights.iter().map(|w| w / sum).collect())
    }

    /// Checks differences and returns their weights: divided by their sum where all count and it is asked for.
    pub(super) fn deltas(&self, deltas: &Deltas) -> Result<Vec<f64>, RuleError> {
        self.finite("lambda", &[deltas.lambda])?;
        for sparsify in &deltas.sparsify {
            self.sparsify(*sparsify)?;
        }
        if let Consensus::Protect { slack } = deltas.consensus {
            self.within("slack", slack, slack >= 0.0 && slack.is_finite(), "0 or more")?;
        }
        if deltas.normalize && deltas.consensus == Consensus::Sum {
            return self.normalized(&deltas.weights);
        }
        self.weights(&deltas.weights).map(<[f64]>::to_vec)
    }

    fn sparsify(&self, sparsify: Sparsify) -> Result<(), RuleError> {
        match sparsify {
            Sparsify::All => Ok(()),
            Sparsify::Largest { density } | Sparsify::Random { density } => self.share("density", density),
            Sparsify::RandomByRank { density, epsilon } => {
                self.share("density", density)?;
                self.within("epsilon", epsilon, epsilon >= 0.0 && epsilon.is_finite(), "0 or more")?;
                // A density of 1 keeps everything, whatever the ranks.
                let inside = density == 1.0 || (density - epsilon > 0.0 && density + epsilon < 1.0);
                self.within("epsilon", epsilon, inside, "such that density - epsilon > 0 and density + epsilon < 1")
            }
            Sparsify::Middle { density, gamma } => {
                self.share("density", density)?;
                self.within("gamma", gamma, (0.0..1.0).contains(&gamma), "0 or more and below 1")
            }
        }
    }
}

impl Sparsify {
    /// Whether nothing is dropped.
    pub(super) fn is_dense(&self) -> bool {
        match *self {
            Self::All => true,
            Self::Largest { density }
            | Self::Random { density }
            | Self::RandomByRank { density, .. }
            | Self::Middle { density, .. } => density == 1.0,
        }
    }

    /// By what a kept number is multiplied, where that follows from the density alone.
    pub(super) fn scale(&self, rescale: Rescale) -> f64 {
        match (*self, rescale) {
            (
                Self::Largest { density } | Self::Random { density } | Self::Middle { density, .. },
                Rescale::InverseDensity,
            ) => 1.0 / density,
            // By rank, each number has a probability of its own.
            _ => 1.0,
        }
    }
}
