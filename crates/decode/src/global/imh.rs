//! Independent Metropolis–Hastings on strings of local decoding (Gareev et al. 2024, as their code runs it).
//!
//! A chain starts at the first of its N proposals. Each further proposal y' replaces the state y with probability
//! `min(1, w(y') / w(y))`. The chain's result is its last state, so that M chains give M independent strings, each after a
//! burn-in of N − 1 steps.
//!
//! The distance from the target falls at least like `(1 − Z / w_max)^n`. Where log w is about normal with standard
//! deviation σ, the stationary acceptance is `2 Φ(−σ/√2)`; a chain of N proposals can never pass the heaviest of them.

use serde::{Deserialize, Serialize};

use super::diagnostics::Diagnostics;
use super::{Chosen, Proposal, SELECTION_STREAM, Selection};
use crate::{DecodeError, uniform};

/// Many chains of a few proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imh {
    /// M: chains.
    pub chains: usize,
    /// N: proposals of each, the first state included.
    pub proposals: usize,
    /// Which states are the result.
    pub keep: Keep,
    /// Where a chain's proposals come from.
    pub supply: Supply,
}

/// Which states of a chain are its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The last one.
    Last,
    /// All after so many.
    After(usize),
}

/// Where the proposals of a chain come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Supply {
    /// Every chain has its own.
    Fresh,
    /// Each of so many runs draws all proposals anew, with replacement, from the same pool: the paper's ten runs.
    Bootstrap(usize),
}

/// The states of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index of the state after each proposal, `[N]`; the first is 0.
    pub states: Vec<usize>,
    /// Proposals after the first that were accepted, one of equal weight included.
    pub accepted: usize,
}

/// Runs one chain over the proposals' log w. `uniform(i)` in `[0, 1)` decides about proposal `i`, from 1.
pub fn chain(log_weights: &[f64], uniform: impl Fn(usize) -> f64) -> Chain {
    let mut chain = Chain { states: Vec::with_capacity(log_weights.len()), accepted: 0 };
    let mut state = 0;
    for (proposal, log_weight) in log_weights.iter().enumerate() {
        if proposal > 0 && uniform(proposal).ln() < log_weight - log_weights[state] {
            state = proposal;
            chain.accepted += 1;
        }
        chain.states.push(state);
    }
    chain
}

impl Imh {
    /// Strings that local decoding has to supply.
    #[must_use]
    pub fn supply(&self) -> usize {
        self.chains.saturating_mul(self.proposals)
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// No chain or no proposal; a burn-in that leaves no state.
    pub fn check(&self) -> Result<(), DecodeError> {
        let bad = |field, problem: String, hint| Err(DecodeError::Option { field, problem, hint });
        if self.chains == 0 {
            return bad("--samples", "0 chains give nothing".into(), None);
        }
        if self.proposals == 0 {
            return bad("--proposals", "a chain has to start somewhere".into(), Some("at least 1; the paper uses 500"));
        }
        if let Keep::After(burn_in) = self.keep
            && burn_in >= self.proposals
        {
            let problem = format!("{burn_in} leaves nothing of a chain of {} proposals", self.proposals);
            return bad("--burn-in", problem, None);
        }
        if self.supply == Supply::Bootstrap(0) {
            return bad("--bootstrap", "0 runs give nothing".into(), None);
        }
        Ok(())
    }

    /// Runs the chains on the first `M · N` proposals.
    ///
    /// # Errors
    /// As [`Imh::check`]; fewer than `M · N` proposals.
    pub fn select(&self, proposals: &[Proposal], seed: u64) -> Result<Selection, DecodeError> {
        self.check()?;
        let Some(pool) = proposals.get(..self.supply()) else {
            let (chains, each, there) = (self.chains, self.proposals, proposals.len());
            return Err(DecodeError::Option {
                field: "--samples, --proposals",
                problem: format!("{chains} chains of {each} need {} strings, and there are {there}", self.supply()),
                hint: Some("strings that were filtered out do not count"),
            });
        };
        let runs = match self.supply {
            Supply::Fresh => 1,
            Supply::Bootstrap(runs) => runs,
        };
        let (mut chosen, mut accepted) = (Vec::new(), 0);
        for run in 0..runs {
            for chain_index in 0..self.chains {
                let stream = SELECTION_STREAM + (run * self.chains + chain_index) as u64;
                let first = chain_index * self.proposals;
                let own: Vec<usize> = match self.supply {
                    Supply::Fresh => (first..first + self.proposals).collect(),
                    // Two draws a step: which proposal, and whether it is accepted.
                    Supply::Bootstrap(_) => (0..self.proposals)
                        .map(|i| (uniform(seed, stream, 2 * i as u64 + 1) * pool.len() as f64) as usize)
                        .collect(),
                };
                let log_weights: Vec<f64> = own.iter().map(|i| pool[*i].log_weight).collect();
                let chain = chain(&log_weights, |step| uniform(seed, stream, 2 * step as u64));
                accepted += chain.accepted;
                let kept = match self.keep {
                    Keep::Last => &chain.states[self.proposals - 1..],
                    Keep::After(burn_in) => &chain.states[burn_in..],
                };
                chosen.extend(kept.iter().map(|state| Chosen { proposal: own[*state], chain: chain_index, run }));
            }
        }
        let steps = runs * self.chains * (self.proposals - 1);
        let mut diagnostics = Diagnostics::of(pool, &chosen);
        diagnostics.accept(accepted, steps);
        diagnostics.warn_of_mixing(self.proposals);
        Ok(Selection { chosen, diagnostics })
    }
}
