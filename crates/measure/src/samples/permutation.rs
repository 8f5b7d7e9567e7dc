//! Whether two paired lists of numbers differ: the mean difference, its interval, and a sign-flip permutation test.

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::measured::{Estimate, Number, Reason};
use crate::statistics::{bootstrap_mean, item_generator};

/// Random sign patterns of the test.
const PERMUTATIONS: u64 = 10_000;
/// Up to this many differences all sign patterns are looked at.
const EXACT: usize = 13;

/// Second minus first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Mean of the differences over pairs in which both numbers are defined.
    pub difference: Estimate,
    /// Two-sided p-value: how often random signs give a mean at least as far from 0. Undefined without pairs.
    pub p_value: Number,
}

/// Compares two lists pair by pair.
#[must_use]
pub fn paired_difference(first: &[Number], second: &[Number], seed: u64) -> Paired {
    let differences: Vec<Number> = first.iter().zip(second).map(|(a, b)| a.zip(*b, |a, b| b - a)).collect();
    let defined: Vec<f64> = differences.iter().filter_map(|difference| difference.value()).collect();
    Paired { difference: bootstrap_mean(&differences, seed), p_value: p_value(&defined, seed) }
}

fn p_value(differences: &[f64], seed: u64) -> Number {
    let n = differences.len();
    if n == 0 {
        return Number::Undefined(Reason::Empty);
    }
    let observed = differences.iter().sum::<f64>().abs();
    // Sums of the same numbers in other orders differ by rounding.
    let tolerance = 1e-12 * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let reaches = |signed: f64| signed.abs() >= observed - tolerance;
    if n <= EXACT {
        let patterns = 1u64 << n;
        let sum = |pattern: u64| {
            let signed = differences.iter().enumerate();
            signed.map(|(i, difference)| if pattern >> i & 1 == 1 { -difference } else { *difference }).sum()
        };
        let reaching = (0..patterns).filter(|pattern| reaches(sum(*pattern))).count();
        return Number::from(reaching as f64 / patterns as f64);
    }
    let reaching = (0..PERMUTATIONS)
        .into_par_iter()
        .filter(|permutation| {
            let mut generator = item_generator(seed, *permutation);
            reaches(differences.iter().map(|d| if generator.random::<bool>() { -d } else { *d }).sum())
        })
        .count();
    // The observed signs are one of the patterns.
    Number::from((reaching + 1) as f64 / (PERMUTATIONS + 1) as f64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Measured;

    fn numbers(values: &[f64]) -> Vec<Number> {
        values.iter().map(|value| Number::from(*value)).collect()
    }

    #[test]
    fn all_patterns_of_few_pairs() {
        // Differences 1, 2, 3: only +++ and −−− reach 6, two of eight patterns.
        let paired = paired_difference(&numbers(&[0.0, 0.0, 0.0]), &numbers(&[1.0, 2.0, 3.0]), 0);
        assert_eq!((paired.difference.value, paired.p_value), (Measured::Value(2.0), Measured::Value(0.25)));
        // 1 and −1 cancel, as half of the patterns do: every pattern is at least as far from 0.
        assert_eq!(paired_difference(&numbers(&[0.0, 1.0]), &numbers(&[1.0, 0.0]), 0).p_value, Measured::Value(1.0));
        assert_eq!(paired_difference(&[], &[], 0).p_value.reason(), Some(Reason::Empty));
    }

    #[test]
    fn undefined_numbers_leave_their_pair_out() {
        let undefined = Number::Undefined(Reason::NoTokens);
        let paired = paired_difference(&[undefined, 1.0.into()], &[1.0.into(), 3.0.into()], 0);
        assert_eq!((paired.difference.value, paired.difference.n), (Measured::Value(2.0), 1));
    }

    #[test]
    fn random_patterns_agree_with_normal_theory() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 7) - 2.7).collect();
        let p = paired_difference(&numbers(&[0.0; 200]), &numbers(&values), 1).p_value.value().unwrap();
        // z = Σ d / √(Σ d²)
        let z = values.iter().sum::<f64>() / values.iter().map(|d| d * d).sum::<f64>().sqrt();
        // 2 Φ(−z) for z = 1.8 … 2.2 lies between 0.028 and 0.072.
        assert!((1.8..2.2).contains(&z) && (0.02..0.08).contains(&p), "{z} {p}");
    }
}
