//! From hidden states and router outputs to the vectors that are written: scaled, joined, of length 1.

use std::path::PathBuf;

use lathe_measure::embedding::{
    Moments, Vectors, closed_form_alpha, concatenated, cosine, joined, normalised, searched_alpha,
    standardised_in_batches,
};
use lathe_measure::statistics::item_generator;
use lathe_measure::{Measured, Number};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::embedder::Features;
use crate::Error;

/// Pairs of texts that α is chosen on, at most.
pub const ALPHA_PAIRS: usize = 20_000;

/// What the vectors are made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VectorSpec {
    /// Which of the two, or both.
    pub kind: Kind,
    /// How features are scaled before.
    pub standardise: Standardise,
    /// Weight of the router part of a sum.
    pub alpha: Alpha,
    /// Their length.
    pub length: Length,
}

/// What a vector is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Hidden states (HS).
    #[default]
    Hs,
    /// Router outputs (RW).
    Rw,
    /// Hidden states and router outputs, one after the other.
    Concat,
    /// One vector whose cosine times 1 + α is cos(HS) + α cos(RW).
    Sum,
}

impl Kind {
    /// Whether it needs a model with experts.
    #[must_use]
    pub fn needs_router(self) -> bool {
        self != Self::Hs
    }

    /// As the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs => "hs",
            Self::Rw => "rw",
            Self::Concat => "concat",
            Self::Sum => "sum",
        }
    }
}

/// How features are scaled: each becomes (x − mean) / (standard deviation + 1e-8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standardise {
    /// Not at all.
    #[default]
    No,
    /// By the mean and deviation of these texts, which are kept in a file.
    Corpus {
        /// The file to write.
        statistics: Option<PathBuf>,
    },
    /// By what another run has kept.
    Stored {
        /// The file to read.
        statistics: PathBuf,
    },
    /// By the mean and deviation of each batch of this many texts, in order: what MoEE's code does. A vector then depends on
    /// its neighbours.
    Batch {
        /// Texts of a batch.
        size: usize,
    },
}

/// Weight of the router part of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// This.
    Fixed(f64),
    /// Standard deviation of the cosines of HS / that of the cosines of RW, over pairs of these texts.
    Auto,
    /// The best of a grid around that, by rank correlation of the sum with its parts.
    Search,
}

impl Default for Alpha {
    /// What MoEE's code uses.
    fn default() -> Self {
        Self::Fixed(1.0)
    }
}

/// The length of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// 1 where a sentence encoder's folder says so, else as it comes.
    #[default]
    Usual,
    /// As it comes.
    AsItIs,
    /// 1; a zero vector stays zero.
    One,
}

/// Means and deviations of features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BothMoments {
    /// Of hidden states.
    pub(super) hidden: Moments,
    /// Of router outputs; none of a model without experts.
    pub(super) router: Option<Moments>,
}

impl BothMoments {
    pub(super) fn of(features: &Features) -> Result<Self, Error> {
        let router = features.router.as_ref().map(Moments::of).transpose()?;
        Ok(Self { hidden: Moments::of(&features.hidden)?, router })
    }
}

/// How features are scaled, with the numbers for it.
pub(super) enum Scaling<'a> {
    No,
    Moments(&'a BothMoments),
    Batch(usize),
}

/// What α was, and how it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChosenAlpha {
    /// The weight.
    pub alpha: f64,
    /// How it was asked for.
    pub asked: Alpha,
    /// Pairs of texts that it was chosen on; 0 for a fixed one.
    pub pairs: usize,
}

/// Scales features.
///
/// # Errors
/// A batch of one text; other widths than those of the moments.
pub(super) fn scaled(features: Features, scaling: &Scaling<'_>) -> Result<Features, Error> {
    let of = |vectors: &Vectors, moments: Option<&Moments>| match (scaling, moments) {
        (Scaling::No, _) => Ok(vectors.clone()),
        (Scaling::Moments(_), Some(moments)) => moments.standardised(vectors),
        (Scaling::Moments(_), None) => Ok(vectors.clone()),
        (Scaling::Batch(size), _) => standardised_in_batches(vectors, *size),
    };
    if matches!(scaling, Scaling::No) {
        return Ok(features);
    }
    let both = match scaling {
        Scaling::Moments(moments) => Some(*moments),
        Scaling::No | Scaling::Batch(_) => None,
    };
    let hidden = of(&features.hidden, both.map(|both| &both.hidden))?;
    let router = match &features.router {
        Some(router) => Some(of(router, both.and_then(|both| both.router.as_ref()))?),
        None => None,
    };
    Ok(Features { hidden, router, ..features })
}

/// The vectors of a kind.
///
/// # Errors
/// There is no router part and one is needed; α cannot be used.
pub(super) fn combined(features: &Features, kind: Kind, alpha: f64) -> Result<Vectors, Error> {
    let router = || {
        features.router.as_ref().ok_or_else(|| Error::Spec {
            field: "--kind",
            problem: format!("`{}` of a model without expert layers", kind.name()),
            hint: Some("--kind hs takes the hidden states".into()),
        })
    };
    Ok(match kind {
        Kind::Hs => features.hidden.clone(),
        Kind::Rw => router()?.clone(),
        Kind::Concat => concatenated(&features.hidden, router()?)?,
        Kind::Sum => joined(&features.hidden, router()?, alpha)?,
    })
}

/// Vectors of the asked length.
pub(super) fn with_length(vectors: Vectors, length: Length) -> Vectors {
    match length {
        Length::Usual | Length::AsItIs => vectors,
        Length::One => normalised(&vectors),
    }
}

/// α as it was asked for, chosen on pairs of these texts where it is not fixed.
///
/// # Errors
/// It is negative or no number; there are too few texts, or one of the similarities does not vary.
pub(super) fn chosen_alpha(features: &Features, alpha: Alpha) -> Result<ChosenAlpha, Error> {
    let refused =
        |problem: String, hint: &str| Err(Error::Spec { field: "--alpha", problem, hint: Some(hint.to_owned()) });
    let choose: fn(&[f64], &[f64]) -> Number = match alpha {
        Alpha::Fixed(value) if value >= 0.0 && value.is_finite() => {
            return Ok(ChosenAlpha { alpha: value, asked: alpha, pairs: 0 });
        }
        Alpha::Fixed(value) => return refused(format!("{value} is no weight"), "a number from 0 on, auto, or search"),
        Alpha::Auto => closed_form_alpha,
        Alpha::Search => searched_alpha,
    };
    let Some(router) = &features.router else { return Ok(ChosenAlpha { alpha: 0.0, asked: alpha, pairs: 0 }) };
    let pairs = sampled_pairs(features.hidden.len(), ALPHA_PAIRS);
    let similarities = |of: &Vectors| pairs.iter().map(|[a, b]| cosine(of.row(*a), of.row(*b))).collect::<Vec<f64>>();
    match choose(&similarities(&features.hidden), &similarities(router)) {
        Measured::Value(value) => Ok(ChosenAlpha { alpha: value, asked: alpha, pairs: pairs.len() }),
        Measured::Undefined(reason) => {
            let problem = format!("it cannot be chosen on {} pairs of texts: {reason}", pairs.len());
            refused(problem, "give a number, or more texts")
        }
    }
}

/// Pairs of different ones of `n` texts: all of them, in order, where there are at most `most`, else `most` that are drawn.
/// Pair k depends on k alone.
pub(super) fn sampled_pairs(n: usize, most: usize) -> Vec<[usize; 2]> {
    if n < 2 {
        return Vec::new();
    }
    if n.saturating_mul(n - 1) / 2 <= most {
        return (0..n).flat_map(|a| (a + 1..n).map(move |b| [a, b])).collect();
    }
    let draw = |pair: usize| {
        let mut generator = item_generator(0, pair as u64);
        let a = generator.random_range(0..n);
        let b = generator.random_range(0..n - 1);
        [a, if b < a { b } else { b + 1 }]
    };
    (0..most).map(draw).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::f64::consts::FRAC_1_SQRT_2;

    use super::*;

    /// The page's example: probabilities of two layers with three experts, and hidden states of width 2.
    fn example() -> Features {
        let router = vec![
            0.25, 0.5, 0.25, 0.375, 0.125, 0.5, //
            0.5, 0.25, 0.25, 0.375, 0.125, 0.5, //
            0.25, 0.25, 0.5, 0.125, 0.75, 0.125,
        ];
        Features {
            hidden: Vectors::new(2, vec![3.0, 4.0, 4.0, 3.0, 0.0, 5.0]).unwrap(),
            router: Some(Vectors::new(6, router).unwrap()),
            tokens: 0,
            truncated: 0,
        }
    }

    fn cosines(vectors: &Vectors) -> [f64; 3] {
        [[0, 1], [0, 2], [1, 2]].map(|[a, b]| cosine(vectors.row(a), vectors.row(b)))
    }

    fn near(found: [f64; 3], expected: [f64; 3], within: f64) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < within, "{found} {expected}");
        }
    }

    #[test]
    fn the_worked_example() {
        let features = example();
        near(cosines(&combined(&features, Kind::Hs, 1.0).unwrap()), [0.96, 0.8, 0.6], 1e-9);
        near(cosines(&combined(&features, Kind::Rw, 1.0).unwrap()), [0.92, 0.592_697_496_7, 0.592_697_496_7], 1e-9);
        let concat = [0.958_787_877_8, 0.792_879_600_4, 0.599_641_617_1];
        near(cosines(&combined(&features, Kind::Concat, 1.0).unwrap()), concat, 2e-9);
        let sum = |alpha| cosines(&combined(&features, Kind::Sum, alpha).unwrap()).map(|cosine| cosine * (1.0 + alpha));
        near(sum(1.0), [1.88, 1.392_697_496_7, 1.192_697_496_7], 1e-6);
        near(sum(0.5), [1.42, 1.096_348_748_3, 0.896_348_748_3], 1e-6);
        // alpha = 0 is HS, bit for bit.
        assert_eq!(sum(0.0), cosines(&features.hidden));
        let chosen = chosen_alpha(&features, Alpha::Auto).unwrap();
        assert!((chosen.alpha - 0.954_499_2).abs() < 1e-6, "{chosen:?}");
        assert_eq!(chosen.pairs, 3);
    }

    #[test]
    fn the_worked_example_scaled() {
        let moments = BothMoments::of(&example()).unwrap();
        for scaling in [Scaling::Moments(&moments), Scaling::Batch(3)] {
            let features = scaled(example(), &scaling).unwrap();
            near(cosines(&features.hidden), [0.625, -0.746_202_5, -0.986_053_3], 1e-6);
            let router = cosines(features.router.as_ref().unwrap());
            near(router, [0.0, -FRAC_1_SQRT_2, -FRAC_1_SQRT_2], 1e-6);
        }
        // A batch of two says nothing: whatever varies is antipodal. A batch of one is refused.
        let two = Features { hidden: example().hidden.selected(&[0, 1]), router: None, tokens: 0, truncated: 0 };
        let two = scaled(two, &Scaling::Batch(2)).unwrap();
        assert!((cosine(two.hidden.row(0), two.hidden.row(1)) + 1.0).abs() < 1e-6);
        assert!(scaled(example(), &Scaling::Batch(2)).is_err());
        assert!(scaled(example(), &Scaling::Batch(1)).is_err());
    }

    #[test]
    fn weights_that_are_none() {
        for alpha in [-1.0, f64::NAN, f64::INFINITY] {
            let error = chosen_alpha(&example(), Alpha::Fixed(alpha)).unwrap_err().to_string();
            assert!(error.ends_with("is no weight"), "{error}");
        }
        let one = Features {
            hidden: example().hidden.selected(&[0]),
            router: Some(example().hidden.selected(&[0])),
            tokens: 0,
            truncated: 0,
        };
        assert!(chosen_alpha(&one, Alpha::Auto).is_err());
        let dense = Features { router: None, ..example() };
        let error = combined(&dense, Kind::Sum, 1.0).unwrap_err();
        assert_eq!(error.to_string(), "--kind: `sum` of a model without expert layers");
    }

    #[test]
    fn pairs_are_all_or_drawn() {
        assert_eq!(sampled_pairs(3, 10), [[0, 1], [0, 2], [1, 2]]);
        assert!(sampled_pairs(1, 10).is_empty() && sampled_pairs(0, 10).is_empty());
        let drawn = sampled_pairs(50, 400);
        assert_eq!(drawn.len(), 400);
        assert!(drawn.iter().all(|[a, b]| a != b && *a < 50 && *b < 50));
        // Each is drawn for its number alone.
        assert_eq!(sampled_pairs(50, 300), drawn[..300]);
    }
}
