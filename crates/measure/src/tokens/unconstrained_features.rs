//! What weight decay does to rare classes in the unconstrained-features model with non-negative features
//! (Dang et al. 2024), in closed form: the theory that arXiv 2410.11985 lays over its curves. It needs a width
//! of at least the number of classes, which no language model has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::types::split_count;
use super::{SPLIT_PERCENTILE, power_of_three};
use crate::error::MeasureError;
use crate::measured::{Number, Reason};

/// One class at the optimum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassLoss {
    /// Samples of the class.
    pub samples: u64,
    /// Cross-entropy in nats: −ln(1 − c), or ln K when the class collapses; undefined without samples.
    pub nll: Number,
    /// Logit of the class above the others, in nats; 0 when it collapses, undefined (unbounded) without decay.
    pub margin: Number,
}

/// Optimal losses of (1/N) Σ CE + (λ/2)‖W‖² + (λ/2)‖H‖² with non-negative H, K classes of `class_sizes`.
///
/// Class means become orthogonal, so the problem separates by class:
/// c = λ N sqrt((K − 1) / (K n)); below (K − 1)/K the loss is −ln(1 − c).
///
/// # Errors
/// `weight_decay` is negative, NaN or infinite.
pub fn unconstrained_features_losses(class_sizes: &[u64], weight_decay: f64) -> Result<Vec<ClassLoss>, MeasureError> {
    if !weight_decay.is_finite() || weight_decay < 0.0 {
        return Err(MeasureError::Parameter { name: "weight decay", value: weight_decay, wanted: "0 or above" });
    }
    let classes = class_sizes.len() as f64;
    let total: f64 = class_sizes.iter().map(|&samples| samples as f64).sum();
    Ok(class_sizes.iter().map(|&samples| class_loss(samples, classes, total, weight_decay)).collect())
}

/// One class of `samples` of all `total`.
fn class_loss(samples: u64, classes: f64, total: f64, weight_decay: f64) -> ClassLoss {
    if samples == 0 {
        let nothing = Number::Undefined(Reason::Empty);
        return ClassLoss { samples, nll: nothing, margin: nothing };
    }
    let c = weight_decay * total * ((classes - 1.0) / (classes * samples as f64)).sqrt();
    if c >= (classes - 1.0) / classes {
        return ClassLoss { samples, nll: Number::from(classes.ln()), margin: Number::from(0.0) };
    }
    let margin = ((classes - 1.0) * (1.0 / c - 1.0)).ln();
    // −ln(1 − c) without the cancellation at small c; 0.0 − … keeps c = 0 from giving −0.
    ClassLoss { samples, nll: Number::from(0.0 - (-c).ln_1p()), margin: Number::from(margin) }
}

/// What the theory says of a table of counts at one weight decay λ. Losses are in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TheoryPoint {
    /// λ of the unconstrained-features model, on both W and H. It is not the λ of decoupled weight decay: only the shapes of
    /// curves can be compared.
    pub weight_decay: f64,
    /// Mean over samples.
    pub micro_nll: Number,
    /// Mean over classes.
    pub macro_nll: Number,
    /// Mean over the classes below the 95th percentile of the counts.
    pub low_nll: Number,
    /// Mean over the classes at the percentile or above.
    pub high_nll: Number,
    /// By powers of 3, rising; empty bins are left out.
    pub bins: Vec<TheoryBin>,
}

/// The classes with 3^power ≤ n < 3^(power + 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TheoryBin {
    /// k.
    pub power: u32,
    /// Classes in the bin.
    pub types: usize,
    /// Mean over classes, nats.
    pub nll: Number,
}

/// The theory's curves for classes of the sizes `counts` (in any order; counts of 0 take no part), at `points` values of
/// λ with equal ratios: from a hundredth of the λ at which the rarest class collapses to twice that at which the most frequent one
/// does. Empty with fewer than two classes or points.
#[must_use]
pub fn theory_by_frequency(counts: &[u64], points: usize) -> Vec<TheoryPoint> {
    let mut sizes = BTreeMap::<u64, usize>::new();
    counts.iter().filter(|&&count| count > 0).for_each(|&count| *sizes.entry(count).or_default() += 1);
    let types: usize = sizes.values().sum();
    let (Some((&rarest, _)), Some((&commonest, _))) = (sizes.first_key_value(), sizes.last_key_value()) else {
        return Vec::new();
    };
    if types < 2 || points < 2 {
        return Vec::new();
    }
    let classes = types as f64;
    let total: f64 = sizes.iter().map(|(&size, &many)| size as f64 * many as f64).sum();
    // Where c is (K − 1)/K.
    let collapse = |size: u64| ((classes - 1.0) * size as f64 / classes).sqrt() / total;
    let (first, last) = (collapse(rarest) / 100.0, 2.0 * collapse(commonest));
    let split = split_count(counts.iter().copied(), SPLIT_PERCENTILE);
    let point = |index: usize| {
        let weight_decay = first * (last / first).powf(index as f64 / (points - 1) as f64);
        let losses: Vec<(u64, usize, f64)> = sizes
            .iter()
            .filter_map(|(&size, &many)| {
                Some((size, many, class_loss(size, classes, total, weight_decay).nll.value()?))
            })
            .collect();
        let mean = |wanted: &dyn Fn(u64) -> bool| {
            let those = losses.iter().filter(|(size, ..)| wanted(*size));
            let (sum, many) = those.fold((0.0, 0), |(sum, all), (_, many, nll)| (sum + nll * *many as f64, all + many));
            (many, Number::ratio(sum, many as f64, Reason::Empty))
        };
        let in_samples: f64 = losses.iter().map(|(size, many, nll)| nll * *many as f64 * *size as f64).sum();
        let mut powers: Vec<u32> = sizes.keys().filter_map(|&size| power_of_three(size)).collect();
        powers.dedup();
        let bin = |power: u32| {
            let (types, nll) = mean(&|size| power_of_three(size) == Some(power));
            TheoryBin { power, types, nll }
        };
        TheoryPoint {
            weight_decay,
            micro_nll: Number::ratio(in_samples, total, Reason::Empty),
            macro_nll: mean(&|_| true).1,
            low_nll: mean(&|size| size < split).1,
            high_nll: mean(&|size| size >= split).1,
            bins: powers.into_iter().map(bin).collect(),
        }
    };
    (0..points).map(point).collect()
}
