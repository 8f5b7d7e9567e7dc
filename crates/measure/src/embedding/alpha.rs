//! α of `cos(hidden) + α cos(router)`, from the similarities alone: no label is looked at.
//!
//! The paper maximises the rank correlations of the sum with its two parts, by a gradient it says nothing of.

use crate::correlation::{pearson, ranks};
use crate::measured::{Measured, Number, Reason};
use crate::statistics::standard_deviation;

/// Points of the search, evenly spaced in ln α.
const POINTS: i32 = 41;
/// A sum of correlations is better by more than rounding.
const ROUNDING: f64 = 1e-12;

/// α\* = sd(hidden) / sd(router): where the Pearson correlations of `hidden + α router` with its parts have the largest sum.
/// (With both lists centred, the sum is that of the cosines of `hidden + α router` with the two directions, largest half-way
/// between them.) Undefined where either list is constant or has fewer than two values.
///
/// # Panics
/// When the lists have different lengths.
#[must_use]
pub fn closed_form_alpha(hidden_similarities: &[f64], router_similarities: &[f64]) -> Number {
    assert_eq!(hidden_similarities.len(), router_similarities.len(), "similarities of the same pairs");
    let [hidden, router] = [hidden_similarities, router_similarities].map(spread);
    hidden.zip(router, |hidden, router| hidden / router)
}

/// The α of a logarithmic grid from a tenth of α\* to ten times α\* for which the Spearman correlations of
/// `hidden + α router` with its parts have the largest sum; the smallest of several. Undefined as [`closed_form_alpha`].
///
/// # Panics
/// When the lists have different lengths.
#[must_use]
pub fn searched_alpha(hidden_similarities: &[f64], router_similarities: &[f64]) -> Number {
    let start = match closed_form_alpha(hidden_similarities, router_similarities) {
        Measured::Value(start) => start,
        undefined => return undefined,
    };
    let (hidden_ranks, router_ranks) = (ranks(hidden_similarities), ranks(router_similarities));
    let mut best: Option<(f64, f64)> = None;
    for point in 0..POINTS {
        let half = f64::from(POINTS / 2);
        let alpha = start * 10f64.powf((f64::from(point) - half) / half);
        let pairs = hidden_similarities.iter().zip(router_similarities);
        let sum: Vec<f64> = pairs.map(|(hidden, router)| hidden + alpha * router).collect();
        let sum = ranks(&sum);
        let score = pearson(&sum, &hidden_ranks).zip(pearson(&sum, &router_ranks), |a, b| a + b);
        if let Measured::Value(score) = score
            && best.is_none_or(|(best, _)| score > best + ROUNDING)
        {
            best = Some((score, alpha));
        }
    }
    best.map_or(Measured::Undefined(Reason::Constant), |(_, alpha)| Number::from(alpha))
}

fn spread(of: &[f64]) -> Number {
    if of.windows(2).all(|pair| pair[0] == pair[1]) {
        let reason = match of.len() {
            0 => Reason::Empty,
            1 => Reason::OneUnit,
            _ => Reason::Constant,
        };
        return Measured::Undefined(reason);
    }
    standard_deviation(of)
}
