//! How unevenly counts are spread over token types: two curves, because the paper's claim that 95 % of the
//! tokens lie in the top 0.01 % of types cannot hold, while "95 % of types lie each under 0.01 %" can.

use serde::{Deserialize, Serialize};

use crate::measured::{Number, Reason};

/// Shares of types on the first curve, in parts of 10,000.
const TOP_SHARES: [u64; 9] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];

/// Relative frequencies on the second curve, in parts of 1,000,000.
const FREQUENCIES: [u64; 9] = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];

/// Masses whose types are counted, in percent.
const MASSES: [u64; 4] = [50, 90, 95, 99];

/// The curves of a table of counts; types with count 0 take no part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concentration {
    /// Types with a count.
    pub types: usize,
    /// Sum of the counts.
    pub tokens: u64,
    /// Mass of the most frequent types, for 0.01 % to 100 % of the types in steps of about 3.
    pub mass_of_top: Vec<MassOfTop>,
    /// Share of types that are rarer than a threshold, for 0.001 % to 10 % in steps of about 3.
    pub types_under: Vec<TypesUnder>,
    /// Types needed for 50, 90, 95 and 99 % of the tokens: the first curve read the other way.
    pub types_for_mass: Vec<TypesForMass>,
}

/// A point of the first curve. Points with less than one whole type are left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassOfTop {
    /// Share of the types, most frequent first (0 to 1).
    pub share_of_types: f64,
    /// Types that make up this share, rounded down.
    pub types: usize,
    /// Share of all tokens that they hold (0 to 1).
    pub mass: f64,
}

/// A point of the second curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypesUnder {
    /// Threshold on n_v / T (0 to 1).
    pub relative_frequency: f64,
    /// Share of types below it (0 to 1); undefined without types.
    pub share_of_types: Number,
}

/// How many types hold a share of the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypesForMass {
    /// Share of the tokens (0 to 1).
    pub mass: f64,
    /// The fewest types that hold at least this share.
    pub types: usize,
    /// The same as a share of all types (0 to 1); undefined without types.
    pub share_of_types: Number,
}

/// The curves of `counts`, one count per type in any order. All comparisons are between whole numbers.
pub fn concentration(counts: &[u64]) -> Concentration {
    let mut counts: Vec<u64> = counts.iter().copied().filter(|&count| count > 0).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let types = counts.len();
    let cumulative: Vec<u128> = counts
        .iter()
        .scan(0u128, |sum, &count| {
            *sum += u128::from(count);
            Some(*sum)
        })
        .collect();
    let total = cumulative.last().copied().unwrap_or(0);

    let top = |share: u64| {
        let top_types = types * share as usize / 10_000;
        let held = *cumulative.get(top_types.checked_sub(1)?)?;
        let mass = held as f64 / total as f64;
        Some(MassOfTop { share_of_types: share as f64 / 10_000.0, types: top_types, mass })
    };
    let under = |threshold: u64| {
        let rarer = counts.len()
            - counts.partition_point(|&count| u128::from(count) * 1_000_000 >= u128::from(threshold) * total);
        TypesUnder {
            relative_frequency: threshold as f64 / 1_000_000.0,
            share_of_types: Number::ratio(rarer as f64, types as f64, Reason::NoTokens),
        }
    };
    let for_mass = |percent: u64| {
        let short = cumulative.partition_point(|&held| held * 100 < total * u128::from(percent));
        let needed = (short + 1).min(types);
        TypesForMass {
            mass: percent as f64 / 100.0,
            types: needed,
            share_of_types: Number::ratio(needed as f64, types as f64, Reason::NoTokens),
        }
    };
    Concentration {
        types,
        tokens: u64::try_from(total).unwrap_or(u64::MAX),
        mass_of_top: TOP_SHARES.into_iter().filter_map(top).collect(),
        types_under: FREQUENCIES.into_iter().map(under).collect(),
        types_for_mass: MASSES.into_iter().map(for_mass).collect(),
    }
}
