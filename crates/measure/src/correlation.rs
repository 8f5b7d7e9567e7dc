//! How two lists of numbers go together: correlation of values and of ranks.

use crate::measured::{Measured, Number, Reason};

/// Pearson's correlation. Undefined with fewer than two pairs, and where a list is constant.
///
/// # Panics
/// When the lists have different lengths.
#[must_use]
pub fn pearson(a: &[f64], b: &[f64]) -> Number {
    assert_eq!(a.len(), b.len(), "pairs of numbers");
    if a.len() < 2 {
        return Measured::Undefined(if a.is_empty() { Reason::Empty } else { Reason::OneUnit });
    }
    // Compared before the mean is taken: its rounding would leave a spread of 1e-17 behind.
    if [a, b].iter().any(|list| list.windows(2).all(|pair| pair[0] == pair[1])) {
        return Measured::Undefined(Reason::Constant);
    }
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        aa += a * a;
        ab += a * b;
        bb += b * b;
    }
    match Number::ratio(ab, aa.sqrt() * bb.sqrt(), Reason::Constant) {
        Measured::Value(value) => Measured::Value(value.clamp(-1.0, 1.0)),
        undefined => undefined,
    }
}

/// Spearman's correlation: Pearson's of average ranks. Undefined as [`pearson`].
///
/// # Panics
/// When the lists have different lengths.
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> Number {
    assert_eq!(a.len(), b.len(), "pairs of numbers");
    if a.iter().chain(b).any(|value| value.is_nan()) {
        return Measured::Undefined(Reason::Overflow);
    }
    pearson(&ranks(a), &ranks(b))
}

/// Ranks from 1 on, of the smallest first; equal values share the average of theirs.
#[must_use]
pub fn ranks(of: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..of.len()).collect();
    // A sum with 0 makes -0 equal to 0 for the total order too.
    order.sort_by(|a, b| (of[*a] + 0.0).total_cmp(&(of[*b] + 0.0)));
    let mut ranks = vec![0.0; of.len()];
    let mut first = 0;
    for group in order.chunk_by(|a, b| of[*a] == of[*b]) {
        // The average of first + 1 to first + group.
        let rank = first as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|index| ranks[*index] = rank);
        first += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn worked_example_with_ties() {
        let rho = spearman(&[1.0, 2.0, 3.0, 4.0], &[0.1, 0.4, 0.4, 0.9]).value().expect("defined");
        assert!((rho - 0.948_683_3).abs() < 5e-8, "{rho}");
        assert_eq!(ranks(&[0.4, 0.1, 0.9, 0.4, -0.0, 0.0]), [4.5, 3.0, 6.0, 4.5, 1.5, 1.5]);
    }

    #[test]
    fn worked_example_of_summarisation() {
        let rho = spearman(&[0.2, 0.8, 0.6], &[0.5, 0.9, 0.4]).value().expect("defined");
        assert!((rho - 0.5).abs() < 1e-12, "{rho}");
    }

    #[derive(serde::Deserialize)]
    struct Goldens {
        correlation: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        a: Vec<f64>,
        b: Vec<f64>,
        pearson: f64,
        spearman: f64,
    }

    #[test]
    fn correlations_as_scipy_has_them() {
        let goldens = include_str!("../tests/data/embedding_goldens.json");
        let goldens: Goldens = serde_json::from_str(goldens).expect("written by the script");
        assert!(goldens.correlation.len() >= 4);
        for case in goldens.correlation {
            let close = |found: Number, expected: f64| {
                let found = found.value().expect("defined");
                assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
            };
            close(pearson(&case.a, &case.b), case.pearson);
            close(spearman(&case.a, &case.b), case.spearman);
        }
    }

    #[test]
    fn what_has_no_correlation() {
        assert_eq!(spearman(&[1.0, 2.0], &[0.1, 0.1]), Number::Undefined(Reason::Constant));
        assert_eq!(pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), Number::Undefined(Reason::Constant));
        assert_eq!(spearman(&[1.0], &[1.0]), Number::Undefined(Reason::OneUnit));
        assert_eq!(pearson(&[], &[]), Number::Undefined(Reason::Empty));
        assert_eq!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]), Number::Undefined(Reason::Overflow));
        assert_eq!(pearson(&[1.0, f64::INFINITY], &[1.0, 2.0]), Number::Undefined(Reason::Overflow));
        // Ranks ask which is larger and no more.
        let infinite = spearman(&[1.0, f64::INFINITY, f64::NEG_INFINITY], &[2.0, 3.0, 1.0]);
        assert!(infinite.value().is_some_and(|rho| (rho - 1.0).abs() < 1e-12), "{infinite:?}");
    }

    proptest! {
        #[test]
        fn a_rising_map_leaves_ranks_alone(values in prop::collection::vec((-9i32..9, -9i32..9), 2..40)) {
            let (a, b): (Vec<f64>, Vec<f64>) = values.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            let moved: Vec<f64> = a.iter().map(|a| a * 3.0 + 5.0).collect();
            prop_assert_eq!(ranks(&moved), ranks(&a));
            prop_assert_eq!(spearman(&a, &b), spearman(&b, &a));
            if let Some(rho) = spearman(&a, &b).value() {
                prop_assert!((-1.0..=1.0).contains(&rho));
                let mirrored: Vec<f64> = b.iter().map(|b| -b).collect();
                let other = spearman(&a, &mirrored).value().unwrap_or(f64::NAN);
                prop_assert!((rho + other).abs() < 1e-12);
            }
        }
    }
}
