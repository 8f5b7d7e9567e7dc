//! The token-balanced loss, and losses by frequency of the type in bins of powers of 3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Concentration, DocumentUnits, Frequencies, PredictedToken, Sums, concentration};
use crate::measured::{Estimate, Number, Reason};
use crate::statistics::bootstrap;

/// Percentile of the type counts that separates low from high frequency. The paper's reviews name a "below
/// the 95th percentile" rule.
pub const SPLIT_PERCENTILE: usize = 95;

/// Losses per token type. Intervals resample documents; a type that no resampled document contains is
/// missing from that resample's average over types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeLoss {
    /// Predicted tokens, T.
    pub tokens: usize,
    /// |V_seen|: different targets among them. Types that never are a target have no loss and are left out.
    pub types: usize,
    /// Share of types with a single target (0 to 1): their loss is one sample.
    pub singleton_share: Number,
    /// Mean loss over these tokens, nats: what the macro loss is to be compared with.
    pub micro_nll: Estimate,
    /// Token-balanced loss: mean over types of the mean loss of a type, nats.
    pub macro_nll: Estimate,
    /// exp of the token-balanced loss.
    pub macro_perplexity: Estimate,
    /// Share of hits among these tokens (0 to 1).
    pub micro_accuracy: Estimate,
    /// Mean over types of their share of hits (0 to 1).
    pub macro_accuracy: Estimate,
    /// By rising frequency; empty bins are left out.
    pub bins: Vec<FrequencyBin>,
    /// Low- against high-frequency types.
    pub split: FrequencySplit,
    /// Targets that a given frequency table lacks, which are in no bin and on neither side of the split.
    pub outside_table: OutsideTable,
    /// The concentration curves of the counts that made the bins.
    pub concentration: Concentration,
}

/// Types v with 3^power ≤ n_v < 3^(power + 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrequencyBin {
    /// k.
    pub power: u32,
    /// 3^k, the smallest count of the bin.
    pub count_least: u64,
    /// 3^(k+1) − 1, the largest.
    pub count_most: u64,
    /// Types in the bin.
    pub types: usize,
    /// Predicted tokens of these types.
    pub tokens: usize,
    /// Mean over types of their mean loss, nats.
    pub nll: Estimate,
    /// Mean loss over tokens, nats.
    pub frequency_weighted_nll: Estimate,
    /// Mean over types of their share of hits (0 to 1).
    pub accuracy: Estimate,
    /// Share of hits among the tokens (0 to 1).
    pub frequency_weighted_accuracy: Estimate,
}

/// Types below and from a percentile of the counts (nearest rank), which are those of the frequency table where one is
/// given, else those of the targets. The threshold is a choice of ours: the
/// text of the paper was not available.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrequencySplit {
    /// The percentile.
    pub percentile: usize,
    /// The count at the percentile; 0 without types.
    pub count: u64,
    /// Types with a smaller count.
    pub low_types: usize,
    /// Predicted tokens of the low types.
    pub low_tokens: usize,
    /// Mean over the low types of their mean loss, nats; undefined when all counts are equal.
    pub low_nll: Estimate,
    /// Mean over the low types of their share of hits (0 to 1).
    pub low_accuracy: Estimate,
    /// Types with this count or a larger one.
    pub high_types: usize,
    /// Predicted tokens of the high types.
    pub high_tokens: usize,
    /// Mean over the high types of their mean loss, nats.
    pub high_nll: Estimate,
    /// Mean over the high types of their share of hits (0 to 1).
    pub high_accuracy: Estimate,
}

/// Targets without an entry in the frequency table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutsideTable {
    /// Types.
    pub types: usize,
    /// Predicted tokens.
    pub tokens: usize,
    /// Mean over types of their mean loss, nats.
    pub nll: Estimate,
}

/// k with 3^k ≤ `count` < 3^(k + 1), by whole numbers: ln 243 / ln 3 rounds to just under 5. `None` for 0.
pub fn power_of_three(count: u64) -> Option<u32> {
    if count == 0 {
        return None;
    }
    let (mut power, mut lowest) = (0, 1);
    while lowest <= count / 3 {
        lowest *= 3;
        power += 1;
    }
    Some(power)
}

/// One type: its count in the frequency table and its sums per document.
struct TypeCells {
    frequency: u64,
    tokens: usize,
    /// (unit of the bootstrap, sums), ascending by unit.
    cells: Vec<(usize, Sums)>,
}

pub(super) fn type_loss(
    tokens: &[PredictedToken],
    units: &DocumentUnits,
    frequencies: Frequencies<'_>,
    seed: u64,
) -> TypeLoss {
    let types = collect_types(tokens, units, frequencies);
    let all: Vec<&TypeCells> = types.iter().collect();
    let averages = averages(&all, units.len(), seed);
    let singletons = types.iter().filter(|cells| cells.tokens == 1).count();
    let outside: Vec<&TypeCells> = types.iter().filter(|cells| cells.frequency == 0).collect();
    let counts: Vec<u64> = match frequencies {
        Frequencies::Targets => types.iter().map(|cells| cells.frequency).collect(),
        Frequencies::Table(table) => table.values().copied().collect(),
    };
    TypeLoss {
        tokens: tokens.len(),
        types: types.len(),
        singleton_share: Number::ratio(singletons as f64, types.len() as f64, Reason::NoTokens),
        micro_nll: averages.micro_nll,
        macro_nll: averages.macro_nll,
        macro_perplexity: averages.macro_perplexity,
        micro_accuracy: averages.micro_accuracy,
        macro_accuracy: averages.macro_accuracy,
        bins: frequency_bins(&types, units.len(), seed),
        split: frequency_split(&types, &counts, units.len(), seed),
        outside_table: OutsideTable {
            types: outside.len(),
            tokens: outside.iter().map(|cells| cells.tokens).sum(),
            nll: self::averages(&outside, units.len(), seed).macro_nll,
        },
        concentration: concentration(&counts),
    }
}

fn collect_types(tokens: &[PredictedToken], units: &DocumentUnits, frequencies: Frequencies<'_>) -> Vec<TypeCells> {
    let mut cells = BTreeMap::<u32, BTreeMap<usize, Sums>>::new();
    for token in tokens {
        let of_type = cells.entry(token.target).or_default();
        of_type.entry(units.of(token)).or_insert_with(Sums::none).add(token);
    }
    let with_frequency = |(target, cells): (u32, BTreeMap<usize, Sums>)| {
        let tokens = cells.values().map(|sums| sums.tokens as usize).sum();
        let frequency = match frequencies {
            Frequencies::Targets => tokens as u64,
            Frequencies::Table(table) => table.get(&target).copied().unwrap_or(0),
        };
        TypeCells { frequency, tokens, cells: cells.into_iter().collect() }
    };
    cells.into_iter().map(with_frequency).collect()
}

fn frequency_bins(types: &[TypeCells], units: usize, seed: u64) -> Vec<FrequencyBin> {
    let mut bins = BTreeMap::<u32, Vec<&TypeCells>>::new();
    for cells in types {
        if let Some(power) = power_of_three(cells.frequency) {
            bins.entry(power).or_default().push(cells);
        }
    }
    let bin = |(power, members): (u32, Vec<&TypeCells>)| {
        let averages = averages(&members, units, seed);
        FrequencyBin {
            power,
            count_least: 3u64.pow(power),
            count_most: 3u64.checked_pow(power + 1).map_or(u64::MAX, |next| next - 1),
            types: members.len(),
            tokens: members.iter().map(|cells| cells.tokens).sum(),
            nll: averages.macro_nll,
            frequency_weighted_nll: averages.micro_nll,
            accuracy: averages.macro_accuracy,
            frequency_weighted_accuracy: averages.micro_accuracy,
        }
    };
    bins.into_iter().map(bin).collect()
}

fn frequency_split(types: &[TypeCells], counts: &[u64], units: usize, seed: u64) -> FrequencySplit {
    let count = split_count(counts.iter().copied(), SPLIT_PERCENTILE);
    let known = types.iter().filter(|cells| cells.frequency > 0);
    let (low, high): (Vec<&TypeCells>, Vec<&TypeCells>) = known.partition(|cells| cells.frequency < count);
    let tokens = |side: &[&TypeCells]| side.iter().map(|cells| cells.tokens).sum();
    let (of_low, of_high) = (averages(&low, units, seed), averages(&high, units, seed));
    FrequencySplit {
        percentile: SPLIT_PERCENTILE,
        count,
        low_types: low.len(),
        low_tokens: tokens(&low),
        low_nll: of_low.macro_nll,
        low_accuracy: of_low.macro_accuracy,
        high_types: high.len(),
        high_tokens: tokens(&high),
        high_nll: of_high.macro_nll,
        high_accuracy: of_high.macro_accuracy,
    }
}

/// The count at a percentile of the counts above 0, by nearest rank: of m sorted ones that at ⌈percentile · m / 100⌉; 0 where
/// there is none.
pub fn split_count(counts: impl Iterator<Item = u64>, percentile: usize) -> u64 {
    let mut counts: Vec<u64> = counts.filter(|&count| count > 0).collect();
    counts.sort_unstable();
    let rank = (counts.len() * percentile.min(100)).div_ceil(100);
    rank.checked_sub(1).map_or(0, |index| counts[index])
}

struct Averages {
    micro_nll: Estimate,
    macro_nll: Estimate,
    macro_perplexity: Estimate,
    micro_accuracy: Estimate,
    macro_accuracy: Estimate,
}

/// Averages over tokens and over types. `units` is that of the whole set, so that groups of types are
/// resampled with the same documents.
fn averages(types: &[&TypeCells], units: usize, seed: u64) -> Averages {
    let [micro_nll, macro_nll, macro_perplexity, micro_accuracy, macro_accuracy] = bootstrap(units, seed, |times| {
        let mut all = Sums::none();
        // Here a "token" is a type: its mean loss and share of hits count once.
        let mut over_types = Sums::none();
        for of_type in types {
            let mut sums = Sums::none();
            for (unit, cell) in &of_type.cells {
                sums.add_times(cell, times[*unit]);
            }
            if sums.tokens > 0.0 {
                all.add_times(&sums, 1);
                over_types.add_times(&sums.per_token(), 1);
            }
        }
        [
            all.mean_nll(),
            over_types.mean_nll(),
            over_types.mean_nll().map(f64::exp),
            all.accuracy(),
            over_types.accuracy(),
        ]
    });
    Averages { micro_nll, macro_nll, macro_perplexity, micro_accuracy, macro_accuracy }
}

impl Sums {
    /// The averages over its tokens as one item.
    fn per_token(&self) -> Self {
        Self {
            tokens: 1.0,
            nll: self.nll / self.tokens,
            hits: self.hits.map(|hits| hits / self.tokens),
            entropy: self.entropy.map(|entropy| entropy / self.tokens),
        }
    }
}
