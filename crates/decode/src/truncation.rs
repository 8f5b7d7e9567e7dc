//! Truncation: the kept set S of a step, one rule set with fixed ties.
//!
//! Rules are applied in this order, each to what the one before left, renormalised:
//!
//! 1. top-k (Fan et al. 2018): exactly the k most probable tokens; of equally probable ones those with the smaller ids.
//! 2. top-π, or nucleus (Holtzman et al. 2020): in the same order, a token is kept iff the mass of those before it is below
//!    π. The token that crosses π is kept, and so is the first one.
//! 3. min-p (Nguyen et al. 2024): tokens with at least `min_p` times the probability of the most probable one.
//! 4. locally typical (Meister et al. 2023): tokens in the order of |−ln p − H|, H the entropy, smaller ids first; one is
//!    kept iff the mass of those before it is below τ.
//!
//! A token of probability zero is in no kept set, so fewer than k may be left. k ≥ |V| and π = 1 keep everything.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// Which tokens of a step may be drawn. None is no such rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Truncation {
    /// k: the most probable tokens, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// π, in (0, 1]: the smallest set of most probable tokens whose mass reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Least probability, as a share of the largest one, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// τ, in (0, 1]: mass of the locally typical set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical: Option<f64>,
}

/// The kept set of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Every token that has a probability.
    All,
    /// These ids, ascending.
    Ids(Vec<u32>),
}

/// One row of a distribution: what the rules read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// Logits after penalties and temperature.
    pub(crate) logits: &'a [f32],
    /// The largest of them.
    pub(crate) max: f32,
    /// `e^(logit − max)` of each.
    pub(crate) weights: &'a [f32],
    /// Their sum.
    pub(crate) total: f64,
}

impl Truncation {
    /// Checks the ranges.
    ///
    /// # Errors
    /// k = 0; π or τ outside (0, 1]; min-p outside [0, 1].
    pub fn check(&self) -> Result<(), DecodeError> {
        let bad = |field, problem, hint| Err(DecodeError::Option { field, problem, hint: Some(hint) });
        if self.top_k == Some(0) {
            return bad("--top-k", "0 tokens cannot be drawn from".into(), "at least 1, which is greedy decoding");
        }
        for (field, mass) in [("--top-p", self.top_p), ("--typical", self.typical)] {
            if let Some(mass) = mass.filter(|mass| !(*mass > 0.0 && *mass <= 1.0)) {
                return bad(field, format!("{mass} is no mass"), "more than 0 and at most 1, which keeps every token");
            }
        }
        match self.min_p.filter(|share| !(0.0..=1.0).contains(share)) {
            Some(share) => bad("--min-p", format!("{share} is no share"), "between 0, which keeps every token, and 1"),
            None => Ok(()),
        }
    }

    /// Whether there is any rule. One that keeps everything counts.
    #[must_use]
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// The kept set of logits, which are finite or −∞, at least one of them finite.
    #[must_use]
    pub fn keep(&self, logits: &[f32]) -> Kept {
        let max = lathe_kernels::logits::largest(logits);
        let mut weights = vec![0.0; logits.len()];
        lathe_kernels::logits::weights_into(logits, max, &mut weights);
        let total = weights.iter().map(|w| f64::from(*w)).sum();
        self.apply(&Row { logits, max, weights: &weights, total })
    }

    pub(crate) fn apply(&self, row: &Row<'_>) -> Kept {
        let mut kept = Kept::All;
        if let Some(k) = self.top_k.filter(|k| *k < row.logits.len()) {
            kept = Kept::Ids(ids(largest(row, k)));
        }
        if let Some(mass) = self.top_p.filter(|mass| *mass < 1.0) {
            kept = Kept::Ids(nucleus(row, &kept, mass));
        }
        if let Some(share) = self.min_p.filter(|share| *share > 0.0) {
            let chosen = kept.ids(row.weights).filter(|id| f64::from(row.weights[*id as usize]) >= share);
            kept = Kept::Ids(chosen.collect());
        }
        if let Some(mass) = self.typical.filter(|mass| *mass < 1.0) {
            kept = Kept::Ids(typical(row, &kept, mass));
        }
        if let Kept::Ids(ids) = &mut kept {
            ids.retain(|id| row.weights[*id as usize] > 0.0);
            ids.sort_unstable();
        }
        kept
    }
}

impl Kept {
    /// The ids, ascending; `weights` says which tokens have a probability.
    pub(crate) fn ids<'a>(&'a self, weights: &'a [f32]) -> Box<dyn Iterator<Item = u32> + 'a> {
        #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
        match self {
            Self::All => Box::new((0..weights.len() as u32).filter(|id| weights[*id as usize] > 0.0)),
            Self::Ids(ids) => Box::new(ids.iter().copied()),
        }
    }
}

/// A token and the number that it is ordered by; the smallest comes first, then the smallest id.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    key: f32,
    id: u32,
}

fn order(a: &Candidate, b: &Candidate) -> Ordering {
    a.key.total_cmp(&b.key).then(a.id.cmp(&b.id))
}

fn ids(candidates: Vec<Candidate>) -> Vec<u32> {
    candidates.into_iter().map(|candidate| candidate.id).collect()
}

/// The k most probable tokens, most probable first.
pub(crate) fn most_probable(row: &Row<'_>, k: usize) -> Vec<u32> {
    if k == 0 {
        return Vec::new();
    }
    let mut best = largest(row, k);
    best.sort_unstable_by(order);
    ids(best)
}

/// The k most probable tokens, k ≥ 1, the last of them last and the others in no order. Logits of −∞ are never among
/// them.
fn largest(row: &Row<'_>, k: usize) -> Vec<Candidate> {
    /// Logits that are compared with the bar at once.
    const BLOCK: usize = 64;
    let shrink = |best: &mut Vec<Candidate>| {
        if best.len() > k {
            best.select_nth_unstable_by(k - 1, order);
        }
        best.truncate(k);
    };
    let mut best: Vec<Candidate> = Vec::with_capacity(2 * k + BLOCK);
    // Ids ascend, so a later token that ties with the bar is behind everything above it: `>` is right.
    let mut bar = f32::NEG_INFINITY;
    for (block, values) in row.logits.chunks(BLOCK).enumerate() {
        if !values.iter().fold(false, |above, value| above | (*value > bar)) {
            continue;
        }
        for (i, value) in values.iter().enumerate().filter(|(_, value)| **value > bar) {
            #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
            best.push(Candidate { key: -value, id: (block * BLOCK + i) as u32 });
        }
        if best.len() > 2 * k {
            shrink(&mut best);
            bar = best.last().map_or(f32::INFINITY, |last| -last.key);
        }
    }
    shrink(&mut best);
    best
}

/// The top-π set of the kept tokens.
fn nucleus(row: &Row<'_>, kept: &Kept, mass: f64) -> Vec<u32> {
    /// Tokens that nearly always suffice; sorting all of them is what costs.
    const FIRST: usize = 512;
    let weight = |candidate: &Candidate| f64::from(row.weights[candidate.id as usize]);
    let of = |id: u32| Candidate { key: -row.logits[id as usize], id };
    let mut candidates: Vec<Candidate> = match kept {
        Kept::Ids(ids) => ids.iter().copied().map(of).collect(),
        Kept::All => {
            let first = largest(row, FIRST);
            let reached = first.iter().map(weight).sum::<f64>() >= mass * row.total;
            if reached { first } else { kept.ids(row.weights).map(of).collect() }
        }
    };
    let total = if matches!(kept, Kept::All) { row.total } else { candidates.iter().map(weight).sum() };
    let kept = until(&mut candidates, mass * total, weight);
    candidates.truncate(kept);
    ids(candidates)
}

/// The locally typical set of the kept tokens.
fn typical(row: &Row<'_>, kept: &Kept, mass: f64) -> Vec<u32> {
    let max = row.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: u32| f64::from(row.weights[id as usize]);
    let shifted = |id: u32| f64::from(row.logits[id as usize] - max);
    let total: f64 = kept.ids(row.weights).map(weight).sum();
    // H = ln total − Σ w (logit − max) / total, and −ln p = ln total − (logit − max): ln total cancels.
    let mean: f64 = kept.ids(row.weights).map(|id| weight(id) * shifted(id)).sum::<f64>() / total;
    #[expect(clippy::cast_possible_truncation, reason = "an order of f32 logits")]
    let of = |id: u32| Candidate { key: (mean - shifted(id)).abs() as f32, id };
    let mut candidates: Vec<Candidate> = kept.ids(row.weights).map(of).collect();
    let kept = until(&mut candidates, mass * total, |candidate| weight(candidate.id));
    candidates.truncate(kept);
    ids(candidates)
}

/// Moves the candidates that are kept to the front and returns their number: in the order of candidates, one is kept iff
/// the mass before it is below `wanted`. Quickselect on mass: only the side on which the boundary lies is looked at.
fn until(candidates: &mut [Candidate], wanted: f64, weight: impl Fn(&Candidate) -> f64) -> usize {
    let (mut from, mut to, mut before) = (0, candidates.len(), 0.0);
    // Everything before `from` is kept and weighs `before`; nothing from `to` on is kept.
    while from < to {
        let middle = from + (to - from) / 2;
        candidates[from..to].select_nth_unstable_by(middle - from, order);
        let mass: f64 = candidates[from..middle].iter().map(&weight).sum();
        if before + mass < wanted || middle == 0 {
            before += mass + weight(&candidates[middle]);
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    fn kept(truncation: Truncation, logits: &[f32]) -> Vec<u32> {
        let weights: Vec<f32> = logits.iter().map(|l| if *l > f32::NEG_INFINITY { 1.0 } else { 0.0 }).collect();
        truncation.keep(logits).ids(&weights).collect()
    }

    fn top_k(k: usize) -> Truncation {
        Truncation { top_k: Some(k), ..Truncation::default() }
    }

    fn top_p(p: f64) -> Truncation {
        Truncation { top_p: Some(p), ..Truncation::default() }
    }

    #[test]
    fn the_token_that_crosses_the_mass_is_kept_and_none_after_it() {
        let row = logits(&[0.5, 0.25, 0.25]);
        assert_eq!(kept(top_p(0.5), &row), [0]);
        assert_eq!(kept(top_p(0.75), &row), [0, 1]);
        assert_eq!(kept(top_p(0.76), &row), [0, 1, 2]);
        assert_eq!(kept(top_p(1e-300), &row), [0]);
        assert_eq!(top_p(1.0).keep(&row), Kept::All);
    }

    #[test]
    fn ties_go_to_the_smaller_id() {
        assert_eq!(kept(top_k(1), &[1.0, 2.0, 2.0]), [1]);
        assert_eq!(kept(top_k(2), &[2.0, 2.0, 2.0]), [0, 1]);
        assert_eq!(kept(top_p(0.5), &[2.0, 2.0, 2.0]), [0, 1]);
        assert_eq!(top_k(3).keep(&[1.0, 2.0, 2.0]), Kept::All);
    }

    #[test]
    fn impossible_tokens_are_never_kept() {
        let none = f32::NEG_INFINITY;
        assert_eq!(kept(top_k(3), &[none, 1.0, none, 2.0]), [1, 3]);
        assert_eq!(kept(top_p(0.999_999), &[none, 1.0, none, 2.0]), [1, 3]);
        assert_eq!(kept(Truncation { min_p: Some(1e-9), ..Truncation::default() }, &[none, 1.0, 2.0]), [1, 2]);
        assert_eq!(kept(Truncation { typical: Some(0.99), ..Truncation::default() }, &[none, 1.0, 2.0]), [1, 2]);
    }

    #[test]
    fn rules_follow_each_other_on_what_is_left() {
        let row = logits(&[0.4, 0.3, 0.2, 0.1]);
        // Of the first two, 4/7 is 0.571: below 0.6, so both are kept; on all four 0.4 < 0.6 keeps two as well.
        assert_eq!(kept(Truncation { top_k: Some(2), top_p: Some(0.57), ..Truncation::default() }, &row), [0]);
        assert_eq!(kept(top_p(0.57), &row), [0, 1]);
        assert_eq!(kept(Truncation { min_p: Some(0.49), ..Truncation::default() }, &row), [0, 1, 2]);
        assert_eq!(kept(Truncation { min_p: Some(1.0), ..Truncation::default() }, &row), [0]);
        // H = 1.2799; −ln p = 0.916, 1.204, 1.609, 2.303: token 1 is the most typical, then 2, then 0.
        assert_eq!(kept(Truncation { typical: Some(0.3), ..Truncation::default() }, &row), [1]);
        assert_eq!(kept(Truncation { typical: Some(0.45), ..Truncation::default() }, &row), [1, 2]);
        assert_eq!(kept(Truncation { typical: Some(0.6), ..Truncation::default() }, &row), [0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for bad in [top_k(0), top_p(0.0), top_p(1.1), top_p(-0.5), top_p(f64::NAN)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(Truncation { typical: Some(0.0), ..Truncation::default() }.check().is_err());
        assert!(Truncation { min_p: Some(1.5), ..Truncation::default() }.check().is_err());
        assert!(Truncation { top_k: Some(1), top_p: Some(1.0), min_p: Some(0.0), typical: Some(0.2) }.check().is_ok());
    }

    /// The definitions, by sorting everything.
    fn by_definition(truncation: Truncation, logits: &[f32]) -> Vec<u32> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |id: &u32| f64::from(logits[*id as usize] - max).exp();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        ids.truncate(truncation.top_k.unwrap_or(usize::MAX));
        let reaching = |ids: &mut Vec<u32>, mass: f64| {
            let total: f64 = ids.iter().map(weight).sum();
            let mut before = 0.0;
            ids.retain(|id| {
                let is_kept = before < mass * total;
                before += weight(id);
                is_kept
            });
        };
        reaching(&mut ids, truncation.top_p.unwrap_or(2.0));
        ids.retain(|id| weight(id) >= truncation.min_p.unwrap_or(0.0));
        if let Some(mass) = truncation.typical {
            let total: f64 = ids.iter().map(weight).sum();
            let surprisal = |id: &u32| total.ln() - weight(id).ln();
            let entropy: f64 = ids.iter().map(|id| weight(id) / total * surprisal(id)).sum();
            ids.sort_by(|a, b| {
                let [a_key, b_key] = [a, b].map(|id| (surprisal(id) - entropy).abs());
                a_key.total_cmp(&b_key).then(a.cmp(b))
            });
            reaching(&mut ids, mass);
        }
        ids.sort_unstable();
        ids
    }

    proptest! {
        #[test]
        fn sets_are_those_of_the_definition(
            // A few distinct values, so that ties are common; far enough apart that rounding decides nothing else.
            row in proptest::collection::vec(-40i32..40, 1..2000),
            k in proptest::option::of(1usize..1500),
            top_p in proptest::option::of(0.013f64..0.999),
            min_p in proptest::option::of(0.01f64..0.9),
        ) {
            let row: Vec<f32> = row.into_iter().map(|x| x as f32 * 0.173).collect();
            let truncation = Truncation { top_k: k, top_p, min_p, typical: None };
            prop_assert_eq!(kept(truncation, &row), by_definition(truncation, &row));
        }

        #[test]
        fn typical_sets_are_those_of_the_definition(
            row in proptest::collection::vec(-6.0f32..6.0, 1..600),
            typical in 0.01f64..0.99,
        ) {
            let truncation = Truncation { typical: Some(typical), ..Truncation::default() };
            prop_assert_eq!(kept(truncation, &row), by_definition(truncation, &row));
        }

        #[test]
        fn everything_is_kept_by_rules_that_cut_nothing(row in proptest::collection::vec(-9.0f32..9.0, 1..300)) {
            let rules = Truncation { top_k: Some(row.len()), top_p: Some(1.0), min_p: Some(0.0), typical: Some(1.0) };
            prop_assert_eq!(rules.keep(&row), Kept::All);
        }
    }
}
