//! Runs that differ in their seed only, as one.

use lathe_measure::statistics::Spread;
use lathe_measure::tokens::{BinSpeed, FrequencyBin, GroupSpeed, SpeedByFrequency};
use lathe_measure::{Number, Reason};
use serde::{Deserialize, Serialize};

use super::{RunFairness, RunSplit};

/// The runs of one variant and weight decay. Spreads are over their seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecayFairness {
    /// Variant and weight decay.
    pub name: String,
    /// The variant.
    pub variant: String,
    /// λ.
    pub weight_decay: f64,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// On training texts.
    pub training: DecaySplit,
    /// On held-out texts.
    pub held_out: Option<DecaySplit>,
}

/// The last checkpoints of some runs on one set of texts, and their learning speeds. Losses are in nats, shares from 0 to 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecaySplit {
    /// (a) Mean loss over tokens.
    pub micro_nll: Spread,
    /// (b) Mean over low-frequency types of their mean loss.
    pub low_nll: Spread,
    /// (c) Mean over high-frequency types of their mean loss.
    pub high_nll: Spread,
    /// (d) Token-balanced: mean over types of their mean loss.
    pub macro_nll: Spread,
    /// (d) over (a).
    pub macro_over_micro: Spread,
    /// exp of (a).
    pub perplexity: Spread,
    /// exp of (d).
    pub macro_perplexity: Spread,
    /// Share of hits among the tokens.
    pub accuracy: Spread,
    /// Mean over types of their share of hits.
    pub macro_accuracy: Spread,
    /// Mean over low-frequency types of their share of hits.
    pub low_accuracy: Spread,
    /// Mean over high-frequency types of their share of hits.
    pub high_accuracy: Spread,
    /// Mean learning speed of types.
    pub speed: Spread,
    /// Of low-frequency types.
    pub low_speed: Spread,
    /// Of high-frequency types.
    pub high_speed: Spread,
    /// By powers of 3 of the training counts, rising; empty bins are left out.
    pub bins: Vec<DecayBin>,
}

/// A bin of types over seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecayBin {
    /// k.
    pub power: u32,
    /// 3^k, the smallest count of the bin.
    pub count_least: u64,
    /// 3^(k+1) − 1, the largest.
    pub count_most: u64,
    /// Types of the bin among the targets that were scored.
    pub types: usize,
    /// Targets of these types.
    pub tokens: usize,
    /// Mean over types of their mean loss, nats.
    pub nll: Spread,
    /// Mean loss over tokens, nats.
    pub frequency_weighted_nll: Spread,
    /// Mean over types of their share of hits.
    pub accuracy: Spread,
    /// Mean learning speed of types.
    pub speed: Spread,
}

/// How much sooner types are learnt with a low weight decay than with a high one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedGap {
    /// The variant.
    pub variant: String,
    /// The two weight decays, low and high: 0.1 and 1 where both were run (the paper's), else the lowest and the highest.
    pub weight_decays: [f64; 2],
    /// Gaps on training texts by bin, rising: k, and the mean speed at the low decay less that at the high one.
    pub bins: Vec<(u32, Number)>,
    /// Of low-frequency types.
    pub low: Number,
    /// Of high-frequency types.
    pub high: Number,
}

/// Runs, which are sorted by variant and weight decay, with equal ones put together.
pub(super) fn decays(runs: &[RunFairness]) -> Vec<DecayFairness> {
    let same = |a: &RunFairness, b: &RunFairness| a.variant == b.variant && a.weight_decay == b.weight_decay;
    let of = |runs: &[RunFairness]| {
        let run = &runs[0];
        let training: Vec<&RunSplit> = runs.iter().map(|run| &run.training).collect();
        let held_out: Option<Vec<&RunSplit>> = runs.iter().map(|run| run.held_out.as_ref()).collect();
        DecayFairness {
            name: format!("{} {}", run.variant, run.weight_decay).trim_start().to_owned(),
            variant: run.variant.clone(),
            weight_decay: run.weight_decay,
            seeds: runs.iter().map(|run| run.seed).collect(),
            training: split(&training),
            held_out: held_out.map(|splits| split(&splits)),
        }
    };
    runs.chunk_by(same).map(of).collect()
}

fn split(runs: &[&RunSplit]) -> DecaySplit {
    let over = |value: &dyn Fn(&RunSplit) -> Number| Spread::of(&runs.iter().map(|run| value(run)).collect::<Vec<_>>());
    let speed = |group: &dyn Fn(&SpeedByFrequency) -> GroupSpeed| {
        over(&|run| run.speed.as_ref().map_or(Number::Undefined(Reason::NotGiven), |speed| group(speed).speed))
    };
    DecaySplit {
        micro_nll: over(&|run| run.report.types.micro_nll.value),
        low_nll: over(&|run| run.report.types.split.low_nll.value),
        high_nll: over(&|run| run.report.types.split.high_nll.value),
        macro_nll: over(&|run| run.report.types.macro_nll.value),
        macro_over_micro: over(&|run| {
            let types = &run.report.types;
            types.macro_nll.value.zip(types.micro_nll.value, |of_types, of_tokens| of_types / of_tokens)
        }),
        perplexity: over(&|run| run.report.types.micro_nll.value.map(f64::exp)),
        macro_perplexity: over(&|run| run.report.types.macro_perplexity.value),
        accuracy: over(&|run| run.report.types.micro_accuracy.value),
        macro_accuracy: over(&|run| run.report.types.macro_accuracy.value),
        low_accuracy: over(&|run| run.report.types.split.low_accuracy.value),
        high_accuracy: over(&|run| run.report.types.split.high_accuracy.value),
        speed: speed(&|of| of.all),
        low_speed: speed(&|of| of.low),
        high_speed: speed(&|of| of.high),
        bins: runs.first().map_or(&[][..], |run| &run.report.types.bins).iter().map(|bin| of_bin(bin, runs)).collect(),
    }
}

/// All runs were scored on the same targets with the same counts, so all have the bins of the first.
fn of_bin(bin: &FrequencyBin, runs: &[&RunSplit]) -> DecayBin {
    let missing = Number::Undefined(Reason::NotGiven);
    let over = |value: &dyn Fn(&FrequencyBin) -> Number| {
        let of_run = |run: &&RunSplit| {
            let own = run.report.types.bins.iter().find(|own| own.power == bin.power);
            own.map_or(missing, value)
        };
        Spread::of(&runs.iter().map(of_run).collect::<Vec<_>>())
    };
    let speed_of = |run: &&RunSplit| {
        let bins: &[BinSpeed] = run.speed.as_ref().map_or(&[], |speed| &speed.bins);
        bins.iter().find(|own| own.power == bin.power).map_or(missing, |own| own.speed.speed)
    };
    DecayBin {
        power: bin.power,
        count_least: bin.count_least,
        count_most: bin.count_most,
        types: bin.types,
        tokens: bin.tokens,
        nll: over(&|own| own.nll.value),
        frequency_weighted_nll: over(&|own| own.frequency_weighted_nll.value),
        accuracy: over(&|own| own.accuracy.value),
        speed: Spread::of(&runs.iter().map(speed_of).collect::<Vec<_>>()),
    }
}

/// The gap of every variant with two weight decays and speeds.
pub(super) fn gaps(decays: &[DecayFairness]) -> Vec<SpeedGap> {
    let of_variant = |decays: &[DecayFairness]| {
        let at = |weight_decay: f64| decays.iter().find(|decay| decay.weight_decay == weight_decay);
        let (low, high) = match (at(0.1), at(1.0)) {
            (Some(low), Some(high)) => (low, high),
            _ => (decays.first()?, decays.last()?),
        };
        if low.weight_decay == high.weight_decay || low.training.speed.n == 0 || high.training.speed.n == 0 {
            return None;
        }
        let gap = |low: &Spread, high: &Spread| low.mean.zip(high.mean, |low, high| low - high);
        let bins = low.training.bins.iter().filter_map(|bin| {
            let other = high.training.bins.iter().find(|other| other.power == bin.power)?;
            Some((bin.power, gap(&bin.speed, &other.speed)))
        });
        Some(SpeedGap {
            variant: low.variant.clone(),
            weight_decays: [low.weight_decay, high.weight_decay],
            bins: bins.collect(),
            low: gap(&low.training.low_speed, &high.training.low_speed),
            high: gap(&low.training.high_speed, &high.training.high_speed),
        })
    };
    decays.chunk_by(|a, b| a.variant == b.variant).filter_map(of_variant).collect()
}
