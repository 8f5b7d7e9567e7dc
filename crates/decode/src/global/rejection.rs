//! Exact global decoding: a string of local decoding is accepted with probability w.
//!
//! Accepted strings are independent draws of the target. The acceptance rate is Z, as it is for the other way to reject:
//! writing without truncation and discarding a string at its first token outside the kept set.

use super::diagnostics::Diagnostics;
use super::{Chosen, Proposal, SELECTION_STREAM, Selection};
use crate::{DecodeError, uniform};

/// Accepts proposals in their order until there are enough.
#[derive(Clone, Debug)]
pub struct Rejection {
    wanted: usize,
    seed: u64,
    /// Those looked at, up to the one that was accepted last where there are enough.
    seen: Vec<Proposal>,
    chosen: Vec<Chosen>,
}

impl Rejection {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(wanted: usize, seed: u64) -> Self {
        Self { wanted, seed, seen: Vec::new(), chosen: Vec::new() }
    }

    /// Looks at the next proposal, unless there are enough. Whether it was accepted.
    pub fn offer(&mut self, proposal: Proposal) -> bool {
        if self.is_complete() {
            return false;
        }
        let index = self.seen.len();
        self.seen.push(proposal);
        let accepted = uniform(self.seed, SELECTION_STREAM, index as u64).ln() < proposal.log_weight;
        if accepted {
            self.chosen.push(Chosen { proposal: index, chain: self.chosen.len(), run: 0 });
        }
        accepted
    }

    /// Whether as many were accepted as are wanted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.chosen.len() >= self.wanted
    }

    /// The accepted strings.
    ///
    /// # Errors
    /// There are too few.
    pub fn finish(self) -> Result<Selection, DecodeError> {
        let (drawn, accepted) = (self.seen.len(), self.chosen.len());
        if !self.is_complete() {
            return Err(DecodeError::TooFewAccepted { drawn, accepted, wanted: self.wanted });
        }
        let mut diagnostics = Diagnostics::of(&self.seen, &self.chosen);
        diagnostics.accept(accepted, drawn);
        diagnostics.warn_of_censoring();
        Ok(Selection { chosen: self.chosen, diagnostics })
    }
}
