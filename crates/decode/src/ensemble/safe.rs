//! SAFE: ensembling only where it can change something (Yun et al. 2025, arXiv 2510.15346, section 3).
//!
//! The first member drafts a few tokens. The others read the drafted text, each in its own tokens, in one pass. A drafted
//! token stands where another member has no token boundary before it (its opinion would be about a text that it has never
//! seen), where all others would have written the same, and where its mean probability is above one half, so that no other
//! string can have more. At the first token that is none of these the members decide together, the rest of the draft is
//! forgotten, and the first member goes on.

use serde::{Deserialize, Serialize};

use super::{Origin, Symbol, Vote, by_rank};

/// The options of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Safe {
    /// n: tokens that the first member writes before the others look.
    pub draft: usize,
    /// What is done with a combined distribution that favours nothing.
    pub sharpen: Sharpen,
}

impl Default for Safe {
    fn default() -> Self {
        Self { draft: DRAFT, sharpen: Sharpen::default() }
    }
}

/// The paper's n.
pub const DRAFT: usize = 5;
/// λ: a string of the first member with this probability gathers that of its continuations.
const GATHERS: f64 = 0.1;
/// New tokens beyond which the gate is on unless a caller says otherwise: the lengths at which ensembles of models with
/// different tokenizers were seen to fall behind their members.
pub const GATED_BEYOND: usize = 32;

/// What is done where no symbol has half of the combined probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharpen {
    /// Nothing.
    Nothing,
    /// A string of the first member gathers the probability of all that begin with it: what a member spells in more tokens
    /// than another is one string again.
    #[default]
    Prefix,
    /// The members' geometric mean instead of the arithmetic one. It forbids what any member gives 0, as UniTE does with a
    /// string whose first token counts already.
    Geometric,
}

/// What the others say of one drafted token: whether they have a boundary before it, whether they would have written it,
/// and its probability under all members with their weights.
pub(super) struct Opinion {
    pub(super) has_boundary: bool,
    pub(super) is_first_choice: bool,
    pub(super) mean: f64,
}

impl Opinion {
    /// Whether the drafted token stands, and why.
    pub(super) fn verdict(&self) -> Origin {
        if !self.has_boundary {
            Origin::NoBoundary
        } else if self.is_first_choice || self.mean > 0.5 {
            Origin::Agreed
        } else {
            Origin::Ensemble
        }
    }
}

/// The votes, sharpened where no symbol has half of the probability. `weights` as the members in votes.
pub(super) fn sharpen(votes: Vec<Vote>, how: Sharpen, weights: &[f64]) -> Vec<Vote> {
    if votes.first().is_none_or(|best| best.p >= 0.5) {
        return votes;
    }
    match how {
        Sharpen::Nothing => votes,
        Sharpen::Prefix => gathered(votes),
        Sharpen::Geometric => geometric(votes, weights),
    }
}

fn gathered(votes: Vec<Vote>) -> Vec<Vote> {
    let continues = |short: &Symbol, long: &Symbol| match (short, long) {
        (Symbol::Text(short), Symbol::Text(long)) => long.len() > short.len() && long.starts_with(short),
        _ => false,
    };
    let gain = |vote: &Vote| {
        let gathers = vote.p > GATHERS && vote.members.first().is_some_and(|p| *p > 0.0);
        let longer = votes.iter().filter(|other| gathers && continues(&vote.symbol, &other.symbol));
        longer.map(|other| other.p).sum::<f64>()
    };
    let mut sharpened: Vec<Vote> = votes.iter().map(|vote| Vote { p: vote.p + gain(vote), ..vote.clone() }).collect();
    sharpened.sort_by(by_rank);
    sharpened
}

/// Π p_i^λ_i, normalised; the votes as they are where every product is 0.
fn geometric(votes: Vec<Vote>, weights: &[f64]) -> Vec<Vote> {
    let product = |vote: &Vote| {
        let mut logs: Vec<f64> = vote
            .members
            .iter()
            .zip(weights)
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(p, weight)| p.ln() * weight)
            .collect();
        super::sum_in_order(&mut logs).exp()
    };
    let products: Vec<f64> = votes.iter().map(product).collect();
    let total: f64 = products.iter().sum();
    if total <= 0.0 {
        return votes;
    }
    let mut sharpened: Vec<Vote> =
        votes.into_iter().zip(products).map(|(vote, product)| Vote { p: product / total, ..vote }).collect();
    sharpened.sort_by(by_rank);
    sharpened
}
