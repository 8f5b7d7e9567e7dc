//! Which token types a training run learns, and when: losses of one model per type, averaged in groups of types whose
//! frequency comes from one fixed table, and the learning speed of every type over the checkpoints of a run
//! (arXiv 2410.11985).
//!
//! Counts belong to the targets that a model was trained on. One table serves every checkpoint, every run and the
//! held-out texts, so that a type stays in its bin. Types that the table lacks are in no group, but in the averages over
//! all types. Only ordinary targets are types; [`super::token_losses`] reports the others apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::types::split_count;
use super::{PredictedToken, SPLIT_PERCENTILE, Sums, TargetKind, learning_speed, power_of_three};
use crate::error::MeasureError;
use crate::measured::{Number, Reason};

/// What a model says of one token type.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeMean {
    /// Predicted tokens of this type, n_v; at least 1.
    pub tokens: u64,
    /// L_v: their mean loss, nats.
    pub nll: f64,
    /// Share of hits among them (0 to 1); `None` where the caller does not know all of them.
    pub accuracy: Option<f64>,
}

/// Averages of one model over groups of types, without intervals: a point of a curve over training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrequencyLevels {
    /// Predicted tokens.
    pub tokens: u64,
    /// Types among them, |V_seen|.
    pub types: usize,
    /// Mean loss over tokens, nats: the ordinary loss.
    pub micro_nll: Number,
    /// Mean over types of their mean loss, nats: the token-balanced loss.
    pub macro_nll: Number,
    /// Share of hits among the tokens (0 to 1).
    pub micro_accuracy: Number,
    /// Mean over types of their share of hits (0 to 1).
    pub macro_accuracy: Number,
    /// Types below the 95th percentile of the table's counts.
    pub low: GroupLevel,
    /// Types at the percentile or above.
    pub high: GroupLevel,
    /// By powers of 3 of the table's counts, rising; empty bins are left out.
    pub bins: Vec<BinLevel>,
}

/// Averages over a group of types.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLevel {
    /// Types.
    pub types: usize,
    /// Predicted tokens of these types.
    pub tokens: u64,
    /// Mean over types of their mean loss, nats.
    pub nll: Number,
    /// Mean over types of their share of hits (0 to 1).
    pub accuracy: Number,
}

/// Averages over the types v with 3^power ≤ n_v < 3^(power + 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinLevel {
    /// k.
    pub power: u32,
    /// Its types.
    #[serde(flatten)]
    pub level: GroupLevel,
}

/// Learning speeds of one run; see [`learning_speed`] for the formula.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeedByFrequency {
    /// Steps of the checkpoints, rising, the first is 0.
    pub steps: Vec<u64>,
    /// All types.
    pub all: GroupSpeed,
    /// Types below the 95th percentile of the table's counts.
    pub low: GroupSpeed,
    /// Types at the percentile or above.
    pub high: GroupSpeed,
    /// By powers of 3 of the table's counts, rising; empty bins are left out.
    pub bins: Vec<BinSpeed>,
}

/// Learning speeds of a group of types.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSpeed {
    /// Types.
    pub types: usize,
    /// Those of them whose loss is the same at every checkpoint: they have no speed.
    pub constant: usize,
    /// Mean of the speeds of the others (0 to 1; higher is sooner).
    pub speed: Number,
    /// Mean over all types of the group of the last loss, nats: the level that the speed hides.
    pub final_nll: Number,
}

/// Learning speeds of the types v with 3^power ≤ n_v < 3^(power + 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinSpeed {
    /// k.
    pub power: u32,
    /// Its types.
    #[serde(flatten)]
    pub speed: GroupSpeed,
}

/// The mean loss and the share of hits of every type among the ordinary targets.
///
/// # Errors
/// A loss that is NaN, infinite or negative, naming document and position.
pub fn type_means(tokens: &[PredictedToken]) -> Result<BTreeMap<u32, TypeMean>, MeasureError> {
    let documents = tokens.iter().map(|token| token.document + 1).max().unwrap_or(0);
    super::check(tokens, documents)?;
    let mut sums = BTreeMap::<u32, Sums>::new();
    for token in tokens.iter().filter(|token| token.kind == TargetKind::Ordinary) {
        sums.entry(token.target).or_insert_with(Sums::none).add(token);
    }
    let mean = |(id, sums): (u32, Sums)| {
        let accuracy = sums.hits.map(|hits| hits / sums.tokens);
        (id, TypeMean { tokens: sums.tokens as u64, nll: sums.nll / sums.tokens, accuracy })
    };
    Ok(sums.into_iter().map(mean).collect())
}

/// Averages of `means` over all types, over both sides of the split, and over bins; `table` holds the counts of ordinary
/// training targets.
#[must_use]
pub fn frequency_levels(means: &BTreeMap<u32, TypeMean>, table: &BTreeMap<u32, u64>) -> FrequencyLevels {
    let groups = Groups::new(means.keys().copied(), table);
    let level = |ids: &[u32]| {
        let of = |id: &u32| means[id];
        let sum = |value: &dyn Fn(TypeMean) -> f64| ids.iter().map(|id| value(of(id))).sum::<f64>();
        let hits: Option<Vec<f64>> = ids.iter().map(|id| of(id).accuracy).collect();
        let accuracy = match hits {
            Some(shares) => Number::ratio(shares.iter().sum(), ids.len() as f64, Reason::NoTokens),
            None => Number::Undefined(Reason::NotGiven),
        };
        GroupLevel {
            types: ids.len(),
            tokens: ids.iter().map(|id| of(id).tokens).sum(),
            nll: Number::ratio(sum(&|mean| mean.nll), ids.len() as f64, Reason::NoTokens),
            accuracy,
        }
    };
    let all = level(&groups.all);
    let weighted = |value: &dyn Fn(&TypeMean) -> Option<f64>| {
        let sum: Option<f64> = means.values().map(|mean| Some(value(mean)? * mean.tokens as f64)).sum();
        match sum {
            Some(sum) => Number::ratio(sum, all.tokens as f64, Reason::NoTokens),
            None => Number::Undefined(Reason::NotGiven),
        }
    };
    FrequencyLevels {
        tokens: all.tokens,
        types: all.types,
        micro_nll: weighted(&|mean| Some(mean.nll)),
        macro_nll: all.nll,
        micro_accuracy: weighted(&|mean| mean.accuracy),
        macro_accuracy: all.accuracy,
        low: level(&groups.low),
        high: level(&groups.high),
        bins: groups.bins.iter().map(|(power, ids)| BinLevel { power: *power, level: level(ids) }).collect(),
    }
}

/// Learning speed of every type over the checkpoints of a run, averaged in groups. `means[i]` is what the model says at
/// `steps[i]`, on the same tokens at each.
///
/// # Errors
/// As [`learning_speed`]; a checkpoint was scored on other types.
pub fn speed_by_frequency(
    steps: &[u64],
    means: &[BTreeMap<u32, TypeMean>],
    table: &BTreeMap<u32, u64>,
) -> Result<SpeedByFrequency, MeasureError> {
    if means.len() != steps.len() {
        return Err(MeasureError::Shape { what: "losses per checkpoint", expected: steps.len(), found: means.len() });
    }
    let first = means.first().ok_or(MeasureError::Checkpoint { index: 0, problem: "there is none" })?;
    if let Some(index) = means.iter().position(|other| !other.keys().eq(first.keys())) {
        return Err(MeasureError::Checkpoint { index, problem: "it was scored on other tokens than the first" });
    }
    let mut speeds = BTreeMap::new();
    for id in first.keys() {
        let losses: Vec<f64> = means.iter().map(|means| means[id].nll).collect();
        speeds.insert(*id, learning_speed(steps, &losses)?);
    }
    let groups = Groups::new(first.keys().copied(), table);
    let group = |ids: &[u32]| {
        let known: Vec<f64> = ids.iter().filter_map(|id| speeds[id].speed.value()).collect();
        let no_speed = if ids.is_empty() { Reason::NoTokens } else { Reason::Constant };
        let last: f64 = ids.iter().map(|id| speeds[id].final_nll).sum();
        GroupSpeed {
            types: ids.len(),
            constant: ids.len() - known.len(),
            speed: Number::ratio(known.iter().sum(), known.len() as f64, no_speed),
            final_nll: Number::ratio(last, ids.len() as f64, Reason::NoTokens),
        }
    };
    Ok(SpeedByFrequency {
        steps: steps.to_vec(),
        all: group(&groups.all),
        low: group(&groups.low),
        high: group(&groups.high),
        bins: groups.bins.iter().map(|(power, ids)| BinSpeed { power: *power, speed: group(ids) }).collect(),
    })
}

/// Types by the table's counts; those that it lacks are in `all` only.
struct Groups {
    all: Vec<u32>,
    low: Vec<u32>,
    high: Vec<u32>,
    bins: BTreeMap<u32, Vec<u32>>,
}

impl Groups {
    fn new(ids: impl Iterator<Item = u32>, table: &BTreeMap<u32, u64>) -> Self {
        let split = split_count(table.values().copied(), SPLIT_PERCENTILE);
        let mut groups = Self { all: ids.collect(), low: Vec::new(), high: Vec::new(), bins: BTreeMap::new() };
        for id in &groups.all {
            let count = table.get(id).copied().unwrap_or(0);
            if let Some(power) = power_of_three(count) {
                groups.bins.entry(power).or_default().push(*id);
                let side = if count < split { &mut groups.low } else { &mut groups.high };
                side.push(*id);
            }
        }
        groups
    }
}
