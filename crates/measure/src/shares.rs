//! Shares of items that are right, and whether two runs over the same items differ.

use serde::{Deserialize, Serialize};

use crate::measured::{Estimate, Interval, Measured, Number, Reason};
use crate::statistics::bootstrap_mean;

/// The 97.5th percentile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A share with Wilson's score interval at 95 %, which stays within 0..=1 and has a width where all or no items are right.
#[must_use]
pub fn share(right: usize, n: usize) -> Estimate {
    if n == 0 {
        let none = Reason::Empty;
        return Estimate { value: Measured::Undefined(none), n, interval: Measured::Undefined(none) };
    }
    let (share, total) = (right as f64 / n as f64, n as f64);
    let scale = 1.0 + Z * Z / total;
    let centre = (share + Z * Z / (2.0 * total)) / scale;
    let half = Z / scale * (share * (1.0 - share) / total + Z * Z / (4.0 * total * total)).sqrt();
    // Exactly 0 and 1 where none or all are right; rounding would leave them out.
    let low = if right == 0 { 0.0 } else { centre - half };
    let high = if right == n { 1.0 } else { centre + half };
    let interval = Interval { low, high, resamples: 0 };
    Estimate { value: Number::from(share), n, interval: Measured::Value(interval) }
}

/// Two runs over the same items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedScores {
    /// First minus second, with a bootstrap interval over items.
    pub difference: Estimate,
    /// Items that the first alone has right.
    pub first_only: usize,
    /// Items that the second alone has right.
    pub second_only: usize,
    /// McNemar's exact two-sided p; none where an item can be right in part.
    pub p_value: Number,
}

/// Compares scores in 0..=1 of the same items, `[items]` each.
///
/// # Panics
/// When there are not as many of both.
#[must_use]
pub fn paired(first: &[f64], second: &[f64], seed: u64) -> PairedScores {
    assert_eq!(first.len(), second.len(), "scores of the same items");
    let differences: Vec<Number> = first.iter().zip(second).map(|(a, b)| Number::from(a - b)).collect();
    let only =
        |better: &[f64], worse: &[f64]| better.iter().zip(worse).filter(|(a, b)| **a == 1.0 && **b < 1.0).count();
    let (first_only, second_only) = (only(first, second), only(second, first));
    let is_whole = first.iter().chain(second).all(|score| *score == 0.0 || *score == 1.0);
    let p_value = match (is_whole, first.is_empty()) {
        (_, true) => Measured::Undefined(Reason::Empty),
        (false, _) => Measured::Undefined(Reason::NotWhole),
        (true, _) => Number::from(mcnemar(first_only, second_only)),
    };
    PairedScores { difference: bootstrap_mean(&differences, seed), first_only, second_only, p_value }
}

/// McNemar's exact two-sided p: twice the smaller tail of Binomial(`b` + `c`, 1/2), at most 1.
#[must_use]
pub fn mcnemar(b: usize, c: usize) -> f64 {
    let (fewer, all) = (b.min(c), b + c);
    // ln of C(all, k) / 2^all for rising k.
    let mut ln_term = -(all as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=fewer {
        tail += ln_term.exp();
        ln_term += ((all - k) as f64 / (k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wilson_s_interval_of_known_shares() {
        // scipy 1.17, binomtest(8, 10).proportion_ci(method="wilson"), and of (0, 10).
        let interval = |right, n| share(right, n).interval.value().unwrap();
        let eight = interval(8, 10);
        assert!((eight.low - 0.490_162_471_536_641_84).abs() < 1e-12, "{eight:?}");
        assert!((eight.high - 0.943_317_848_545_624_8).abs() < 1e-12, "{eight:?}");
        let none = interval(0, 10);
        assert!(none.low == 0.0 && (none.high - 0.277_532_799_862_889_15).abs() < 1e-12, "{none:?}");
        assert_eq!(interval(10, 10).high, 1.0);
        assert_eq!(share(0, 0).value, Number::Undefined(Reason::Empty));
    }

    #[test]
    fn mcnemar_s_p_of_small_tables() {
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(3, 3), 1.0);
        // 2 (1 + 10) / 2^10.
        assert!((mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-12);
        assert!((mcnemar(9, 1) - 22.0 / 1024.0).abs() < 1e-12);
        assert!((mcnemar(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        // Far beyond what 2^-n can hold.
        assert!(mcnemar(0, 3000) == 0.0 && mcnemar(1500, 1500) == 1.0);
    }

    #[test]
    fn pairs_are_counted_apart() {
        let of = paired(&[1.0, 1.0, 0.0, 1.0], &[0.0, 1.0, 1.0, 0.0], 0);
        assert_eq!((of.first_only, of.second_only), (2, 1));
        assert_eq!(of.difference.value, Number::Value(0.25));
        assert_eq!(of.p_value, Number::Value(1.0));
        assert_eq!(paired(&[0.5], &[1.0], 0).p_value, Number::Undefined(Reason::NotWhole));
        assert_eq!(paired(&[], &[], 0).p_value, Number::Undefined(Reason::Empty));
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_share(n in 1_usize..2000, part in 0.0..=1.0) {
            let right = (part * n as f64) as usize;
            let of = share(right, n);
            let (value, interval) = (of.value.value().unwrap(), of.interval.value().unwrap());
            prop_assert!(interval.low <= value && value <= interval.high);
            prop_assert!(0.0 <= interval.low && interval.high <= 1.0);
        }

        #[test]
        fn p_is_a_probability_and_knows_no_order(b in 0_usize..400, c in 0_usize..400) {
            let p = mcnemar(b, c);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert_eq!(p, mcnemar(c, b));
        }
    }
}
