//! Global decoding: the model's distribution over strings, cut to those whose tokens all lie in their kept sets, and
//! renormalised once (Gareev et al. 2024).
//!
//! With p the model, q local decoding and m the mass of a step's kept set, `w(y) = p(y) / q(y) = Π m ≤ 1`, the target is
//! `q(y) w(y) / Z` and `Z = E_q[w]`. Four samplers of it:
//!
//! * independent Metropolis–Hastings ([`imh`]), the paper's, on strings of local decoding;
//! * rejection ([`rejection`]): accept y with probability w(y). Exact; the acceptance rate is Z;
//! * importance resampling ([`importance`]): draw from a pool of local strings by weight;
//! * sequential Monte Carlo ([`smc()`]), which resamples while it writes.
//!
//! log w is the sum of the `log_mass` that every [`Step`](crate::Step) recorded when it was drawn; nothing is computed a
//! second time. Strings that reached their longest length are part of the state space: they are censored, and have no end
//! token to be weighed.

mod diagnostics;
pub mod imh;
pub mod importance;
pub mod rejection;
pub mod smc;

pub use diagnostics::{Diagnostics, LEAST_ACCEPTANCE, MOST_SPREAD, normal_acceptance};
pub use imh::{Imh, Keep, Supply, chain};
pub use rejection::Rejection;
pub use smc::{Population, SmcRun, smc};

use serde::{Deserialize, Serialize};

/// What the samplers know of a string of local decoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// log w, nats, at most 0.
    pub log_weight: f64,
    /// Whether it was cut by its length.
    pub censored: bool,
}

/// A string of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Index among the proposals.
    pub proposal: usize,
    /// The chain or population that it comes from.
    pub chain: usize,
    /// The bootstrap run; 0 where there is only one.
    pub run: usize,
}

/// Strings of global decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// In order.
    pub chosen: Vec<Chosen>,
    /// How far they can be trusted.
    pub diagnostics: Diagnostics,
}

/// Streams of draws that are no items: those of items leave the two highest bits free.
pub(crate) const SELECTION_STREAM: u64 = 1 << 62;

#[cfg(test)]
mod tests;
