//! BLEU among the texts of a set (Papineni et al. 2002), up to 4-grams: how alike they are.
//!
//! `BLEU = BP · exp(¼ Σ ln p_n)`, p_n the share of a text's n-grams that its references have, each counted at most as often
//! as in the one reference with most of it; BP = exp(1 − r/c) for a text of c words that is shorter than r, the length of
//! the nearest reference (the shorter of two), else 1. Two numbers bear the name Self-BLEU:
//!
//! * *mean pairwise*: each text against every other one alone, averaged (Gareev et al. 2024). A p_n of zero makes it zero.
//! * *Self-BLEU*: each text against all others at once (Zhu et al. 2018), with 0.1 in place of no match (Chen and Cherry
//!   2014, method 1), as their code has it. Far higher, and it rises with the number of texts.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Words;
use crate::measured::{Estimate, Number, Reason};
use crate::statistics::{bootstrap, bootstrap_mean};

const ORDERS: usize = 4;
/// Matches that stand for none in Self-BLEU.
const SMOOTHED: f64 = 0.1;

/// Mean of BLEU(i, j) over ordered pairs i ≠ j. The interval resamples texts; pairs of a text with itself are left out.
#[must_use]
pub fn mean_pairwise_bleu(words: &Words, seed: u64) -> Estimate {
    let grams: Vec<Grams<'_>> = words.texts.iter().map(|text| Grams::of(text)).collect();
    let n = grams.len();
    let pairs: Vec<Vec<f64>> = grams
        .par_iter()
        .enumerate()
        .map(|(i, candidate)| (0..n).map(|j| if i == j { 0.0 } else { pair(candidate, &grams[j]) }).collect())
        .collect();
    let [estimate] = bootstrap(n, seed, |drawn| {
        let (mut sum, mut weight) = (0.0, 0.0);
        for (i, row) in pairs.iter().enumerate().filter(|(i, _)| drawn[*i] > 0) {
            for (j, bleu) in row.iter().enumerate().filter(|(j, _)| *j != i) {
                let times = f64::from(drawn[i]) * f64::from(drawn[j]);
                sum += times * bleu;
                weight += times;
            }
        }
        [Number::ratio(sum, weight, Reason::OneUnit)]
    });
    estimate
}

/// Mean of every text's BLEU against all others. The interval resamples the texts' values, the others held fixed.
#[must_use]
pub fn self_bleu(words: &Words, seed: u64) -> Estimate {
    let grams: Vec<Grams<'_>> = words.texts.iter().map(|text| Grams::of(text)).collect();
    if grams.len() < 2 {
        return Estimate { value: Number::Undefined(Reason::OneUnit), ..bootstrap_mean(&[], seed) };
    }
    // The two largest counts of every n-gram, and whose the largest is: what all others have of it is one of the two.
    let mut largest: HashMap<&[u32], (u32, usize, u32)> = HashMap::new();
    for (index, text) in grams.iter().enumerate() {
        for (gram, count) in text.counts.iter().flatten() {
            let entry = largest.entry(gram).or_insert((0, index, 0));
            if *count > entry.0 {
                *entry = (*count, index, entry.0);
            } else {
                entry.2 = entry.2.max(*count);
            }
        }
    }
    let mut lengths: Vec<usize> = grams.iter().map(|text| text.len).collect();
    lengths.sort_unstable();
    let values: Vec<Number> = grams
        .par_iter()
        .enumerate()
        .map(|(index, text)| {
            let matches = |order: usize| {
                let clipped = text.counts[order].iter().map(|(gram, count)| {
                    let others = largest.get(gram).map_or(
                        0,
                        |(most, whose, second)| {
                            if *whose == index { *second } else { *most }
                        },
                    );
                    f64::from((*count).min(others))
                });
                clipped.sum::<f64>()
            };
            let logs = (0..ORDERS).map(|order| {
                let total = text.len.saturating_sub(order).max(1) as f64;
                let found = matches(order);
                (if found > 0.0 { found } else { SMOOTHED } / total).ln()
            });
            let mean: f64 = logs.sum::<f64>() / ORDERS as f64;
            Number::from(brevity(text.len, nearest(&lengths, text.len)) * mean.exp())
        })
        .collect();
    bootstrap_mean(&values, seed)
}

/// n-grams of a text with their counts, by order.
struct Grams<'a> {
    counts: [HashMap<&'a [u32], u32>; ORDERS],
    len: usize,
}

impl<'a> Grams<'a> {
    fn of(text: &'a [u32]) -> Self {
        let counts = std::array::from_fn(|order| {
            let mut counts = HashMap::new();
            text.windows(order + 1).for_each(|gram| *counts.entry(gram).or_insert(0) += 1);
            counts
        });
        Self { counts, len: text.len() }
    }
}

fn pair(candidate: &Grams<'_>, reference: &Grams<'_>) -> f64 {
    let mut sum = 0.0;
    for order in 0..ORDERS {
        let found: u32 = candidate.counts[order]
            .iter()
            .map(|(gram, count)| reference.counts[order].get(gram).map_or(0, |other| *count.min(other)))
            .sum();
        if found == 0 {
            return 0.0;
        }
        sum += (f64::from(found) / (candidate.len - order) as f64).ln();
    }
    brevity(candidate.len, reference.len) * (sum / ORDERS as f64).exp()
}

fn brevity(candidate: usize, reference: usize) -> f64 {
    match candidate {
        0 => 0.0,
        _ if candidate >= reference => 1.0,
        _ => (1.0 - reference as f64 / candidate as f64).exp(),
    }
}

/// The length among the others that is nearest to `len`; the shorter of two. `sorted` has `len` itself once more.
fn nearest(sorted: &[usize], len: usize) -> usize {
    let own = sorted.partition_point(|other| *other < len);
    if sorted.get(own + 1) == Some(&len) {
        return len;
    }
    let below = own.checked_sub(1).map(|at| sorted[at]);
    match (below, sorted.get(own + 1)) {
        (Some(below), Some(above)) if above - len < len - below => *above,
        (Some(below), _) => below,
        (None, Some(above)) => *above,
        (None, None) => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(estimate: Estimate, expected: f64) -> bool {
        estimate.value.value().is_some_and(|value| (value - expected).abs() < 1e-12)
    }

    #[test]
    fn equal_and_unlike_texts() {
        let same = Words::of(["one two three four five"; 3]);
        assert!(close(mean_pairwise_bleu(&same, 0), 1.0) && close(self_bleu(&same, 0), 1.0));
        let unlike = Words::of(["a b c d e", "f g h i j"]);
        assert!(close(mean_pairwise_bleu(&unlike, 0), 0.0));
        // (0.1/5 · 0.1/4 · 0.1/3 · 0.1/2)^(1/4)
        assert!(close(self_bleu(&unlike, 0), (1e-4f64 / 120.0).powf(0.25)));
    }

    #[test]
    fn a_pair_by_hand() {
        // Of "a b c d e f": unigrams 5/6, bigrams 4/5, 3-grams 3/4, 4-grams 2/3 in "a b c d e x y z", which is longer.
        let words = Words::of(["a b c d e f", "a b c d e x y z"]);
        let p = 5.0 / 6.0 * 4.0 / 5.0 * 3.0 / 4.0 * 2.0 / 3.0;
        let there = (1.0f64 - 8.0 / 6.0).exp() * f64::powf(p, 0.25);
        let back = f64::powf(5.0 / 8.0 * 4.0 / 7.0 * 3.0 / 6.0 * 2.0 / 5.0, 0.25);
        assert!(close(mean_pairwise_bleu(&words, 0), (there + back) / 2.0));
        assert!(close(self_bleu(&words, 0), (there + back) / 2.0), "one reference is the other definition");
    }

    #[test]
    fn counts_are_clipped_at_the_reference_with_most() {
        // "a a a a": the others have at most two a's at once, and one pair of them.
        let words = Words::of(["a a a a", "a a", "a b"]);
        let of_first = [2.0 / 4.0, 1.0 / 3.0, SMOOTHED / 2.0, SMOOTHED].iter().map(|p: &f64| p.ln()).sum::<f64>() / 4.0;
        let of_second = [2.0 / 2.0, 1.0, SMOOTHED, SMOOTHED].iter().map(|p: &f64| p.ln()).sum::<f64>() / 4.0;
        let of_third = [1.0 / 2.0, SMOOTHED, SMOOTHED, SMOOTHED].iter().map(|p: &f64| p.ln()).sum::<f64>() / 4.0;
        assert!(close(self_bleu(&words, 0), (of_first.exp() + of_second.exp() + of_third.exp()) / 3.0));
    }

    #[test]
    fn too_few_and_empty_texts() {
        assert_eq!(self_bleu(&Words::of(["a"]), 0).value.reason(), Some(Reason::OneUnit));
        assert_eq!(mean_pairwise_bleu(&Words::of(["a"]), 0).value.reason(), Some(Reason::OneUnit));
        assert!(close(mean_pairwise_bleu(&Words::of(["", ""]), 0), 0.0));
        assert!(self_bleu(&Words::of(["", "a b"]), 0).value.value().is_some());
        assert_eq!((nearest(&[3, 5, 7], 5), nearest(&[3, 5, 5], 5), nearest(&[2, 5, 7], 5)), (3, 5, 7));
    }
}
