//! How good a ranking is: average precision, reciprocal rank and discounted cumulative gain.
//!
//! [`average_precision`] is scikit-learn's: equal scores share a threshold. The others take a ranking without ties, as
//! trec_eval makes one ([`ranked`]).

use std::cmp::Ordering;

use crate::measured::{Measured, Number, Reason};

/// Items in the order of falling `scores`; of equal scores the one with the greater id comes first, as in trec_eval.
///
/// # Panics
/// When there are not as many ids as scores.
#[must_use]
pub fn ranked<Id: Ord>(scores: &[f64], ids: &[Id]) -> Vec<usize> {
    assert_eq!(scores.len(), ids.len(), "a score of every item");
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| falling(scores[*a], scores[*b]).then_with(|| ids[*b].cmp(&ids[*a])));
    order
}

/// Area under the step function of precision over recall, Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds that the different scores are.
/// Undefined where nothing is relevant.
///
/// # Panics
/// When there are not as many scores as items.
#[must_use]
pub fn average_precision(relevant: &[bool], scores: &[f64]) -> Number {
    assert_eq!(relevant.len(), scores.len(), "a score of every item");
    if scores.iter().any(|score| score.is_nan()) {
        return Measured::Undefined(Reason::Overflow);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| falling(scores[*a], scores[*b]));
    let (mut seen, mut hits, mut sum) = (0usize, 0usize, 0.0);
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let gained = group.iter().filter(|item| relevant[**item]).count();
        seen += group.len();
        hits += gained;
        sum += gained as f64 * (hits as f64 / seen as f64);
    }
    of_relevant(sum, hits)
}

/// trec_eval's average precision of a ranking: the precisions at the ranks of relevant items, divided by `relevant`, the
/// number of all that are relevant, ranked or not. Undefined where that is 0.
#[must_use]
pub fn ranked_average_precision(ranking: &[bool], relevant: usize) -> Number {
    let mut hits = 0usize;
    let mut sum = 0.0;
    for (rank, _) in ranking.iter().enumerate().filter(|(_, is_relevant)| **is_relevant) {
        hits += 1;
        sum += hits as f64 / (rank + 1) as f64;
    }
    of_relevant(sum, relevant)
}

/// 1 / rank of the first relevant item, and 0 where none is ranked. Undefined where `relevant`, the number of all that are
/// relevant, is 0.
#[must_use]
pub fn reciprocal_rank(ranking: &[bool], relevant: usize) -> Number {
    if relevant == 0 {
        return Measured::Undefined(Reason::NothingRelevant);
    }
    let first = ranking.iter().position(|is_relevant| *is_relevant);
    Number::from(first.map_or(0.0, |at| 1.0 / (at + 1) as f64))
}

/// nDCG at `k` with trec_eval's linear gain: `Σ gain / log2(rank + 1)` over the first `k` ranks, divided by the same sum of
/// the best ranking of `gains`, those of all items, ranked or not. Negative gains count as 0. Undefined where no gain is
/// positive.
#[must_use]
pub fn ndcg(ranking: &[f64], gains: &[f64], k: usize) -> Number {
    let mut best = gains.to_vec();
    best.sort_by(|a, b| falling(*a, *b));
    Number::ratio(discounted(ranking, k), discounted(&best, k), Reason::NothingRelevant)
}

fn discounted(gains: &[f64], k: usize) -> f64 {
    gains.iter().take(k).enumerate().map(|(rank, gain)| gain.max(0.0) / ((rank + 2) as f64).log2()).sum()
}

fn of_relevant(sum: f64, relevant: usize) -> Number {
    Number::ratio(sum, relevant as f64, Reason::NothingRelevant)
}

/// Greater first; 0 and −0 are equal.
fn falling(a: f64, b: f64) -> Ordering {
    (b + 0.0).total_cmp(&(a + 0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(number: Number, expected: f64) {
        let value = number.value().expect("defined");
        assert!((value - expected).abs() < 5e-8, "{value} is not {expected}");
    }

    #[test]
    fn worked_examples() {
        let relevant = [true, false, true, false];
        close(average_precision(&relevant, &[0.9, 0.8, 0.7, 0.1]), 0.833_333_33);
        close(average_precision(&relevant, &[0.9, 0.8, 0.8, 0.1]), 0.833_333_33);
        // Judgements d1 = 2 and d3 = 1; the run is d2, d1, d3.
        close(ndcg(&[0.0, 2.0, 1.0], &[2.0, 0.0, 1.0], 10), 0.669_671_8);
        close(ranked_average_precision(&[false, true, true], 2), 0.583_333_33);
        close(reciprocal_rank(&[false, true, true], 2), 0.5);
        // The same run cut earlier: nothing at rank 1, and d1 at rank 2.
        close(ndcg(&[0.0, 2.0, 1.0], &[2.0, 0.0, 1.0], 1), 0.0);
        close(ndcg(&[0.0, 2.0, 1.0], &[2.0, 0.0, 1.0], 2), 1.261_859_5 / 2.630_929_8);
    }

    #[derive(serde::Deserialize)]
    struct Goldens {
        ranking: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        scores: Vec<f64>,
        relevant: Vec<bool>,
        average_precision: f64,
    }

    #[test]
    fn average_precision_as_scikit_learn_has_it() {
        let goldens = include_str!("../tests/data/embedding_goldens.json");
        let goldens: Goldens = serde_json::from_str(goldens).expect("written by the script");
        assert!(goldens.ranking.len() >= 4);
        for case in goldens.ranking {
            let found = average_precision(&case.relevant, &case.scores).value().expect("defined");
            assert!((found - case.average_precision).abs() < 1e-12, "{found} is not {}", case.average_precision);
        }
    }

    #[test]
    fn equal_scores_go_by_the_greater_id() {
        let ids = ["apositive_0", "negative_1", "apositive_2", "negative_0"];
        assert_eq!(ranked(&[0.5, 0.5, 0.7, 0.5], &ids), [2, 1, 3, 0]);
        assert_eq!(ranked(&[0.0, -0.0], &["a", "b"]), [1, 0]);
    }

    #[test]
    fn nothing_relevant_is_undefined_and_nothing_found_is_0() {
        let none = Number::Undefined(Reason::NothingRelevant);
        assert_eq!(average_precision(&[false; 2], &[0.1, 0.2]), none);
        assert_eq!(average_precision(&[], &[]), none);
        assert_eq!(average_precision(&[true], &[f64::NAN]), Number::Undefined(Reason::Overflow));
        assert_eq!(ranked_average_precision(&[false; 3], 0), none);
        assert_eq!(reciprocal_rank(&[], 0), none);
        assert_eq!(ndcg(&[0.0, 0.0], &[0.0, -1.0], 10), none);
        assert_eq!(ranked_average_precision(&[false; 3], 2), Number::Value(0.0));
        assert_eq!(reciprocal_rank(&[false; 3], 2), Number::Value(0.0));
        assert_eq!(ndcg(&[0.0, 0.0], &[1.0], 10), Number::Value(0.0));
        // A cut at k holds for the best ranking too.
        assert_eq!(ndcg(&[1.0, 0.0, 1.0], &[1.0, 1.0, 0.0], 1), Number::Value(1.0));
    }

    proptest! {
        #[test]
        fn the_order_of_equal_scores_counts_for_nothing(
            items in prop::collection::vec((any::<bool>(), 0u8..5), 1..30),
            from in 0usize..30,
        ) {
            let split = |items: &[(bool, u8)]| -> (Vec<bool>, Vec<f64>) {
                items.iter().map(|(is_relevant, score)| (*is_relevant, f64::from(*score))).unzip()
            };
            let mut turned = items.clone();
            turned.rotate_left(from % items.len());
            let (relevant, scores) = split(&items);
            let (turned_relevant, turned_scores) = split(&turned);
            let found = average_precision(&relevant, &scores);
            prop_assert_eq!(found, average_precision(&turned_relevant, &turned_scores));
            // One threshold for all: the share of what is relevant.
            let share = relevant.iter().filter(|is_relevant| **is_relevant).count() as f64 / relevant.len() as f64;
            let of_one = average_precision(&relevant, &vec![0.5; relevant.len()]);
            prop_assert!(of_one.value().is_none_or(|found| (found - share).abs() < 1e-12));
        }

        #[test]
        fn without_ties_both_precisions_agree(relevant in prop::collection::vec(any::<bool>(), 1..30)) {
            let scores: Vec<f64> = (0..relevant.len()).map(|i| -(i as f64)).collect();
            let count = relevant.iter().filter(|is_relevant| **is_relevant).count();
            let one = average_precision(&relevant, &scores);
            let other = ranked_average_precision(&relevant, count);
            prop_assert_eq!(one.reason(), other.reason());
            if let (Some(one), Some(other)) = (one.value(), other.value()) {
                prop_assert!((one - other).abs() < 1e-12);
            }
        }

        #[test]
        fn a_ranking_is_at_most_as_good_as_the_best(gains in prop::collection::vec(0u8..4, 1..20), k in 1usize..12) {
            let gains: Vec<f64> = gains.into_iter().map(f64::from).collect();
            if let Some(value) = ndcg(&gains, &gains, k).value() {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&value));
            }
        }
    }
}
