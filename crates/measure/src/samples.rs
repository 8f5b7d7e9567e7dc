//! Measurements of sets of texts: length, variety, repetition, and the distance between two sets.
//!
//! Texts are lists of word ids ([`Words`]); a word is a run of letters, digits and combining marks, and every other
//! character that is no white space is a word of its own.

mod bleu;
mod mauve;
mod permutation;

use std::collections::{HashMap, HashSet};

pub use bleu::{mean_pairwise_bleu, self_bleu};
pub use mauve::{Mauve, MauveOptions, divergence_area, mauve};
pub use permutation::{Paired, paired_difference};

use crate::measured::{Estimate, Number, Reason};
use crate::statistics::bootstrap;

/// Texts as words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Word ids of every text.
    pub texts: Vec<Vec<u32>>,
}

impl Words {
    /// Splits texts.
    #[must_use]
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ids: HashMap<&str, u32> = HashMap::new();
        let texts = texts.into_iter().map(|text| {
            split(text)
                .into_iter()
                .map(|word| {
                    let next = ids.len() as u32;
                    *ids.entry(word).or_insert(next)
                })
                .collect()
        });
        Self { texts: texts.collect() }
    }
}

/// The words of a text.
fn split(text: &str) -> Vec<&str> {
    let is_inside = |c: char| c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c);
    let mut words = Vec::new();
    let mut begun = None;
    for (at, c) in text.char_indices() {
        if is_inside(c) {
            begun.get_or_insert(at);
            continue;
        }
        if let Some(from) = begun.take() {
            words.push(&text[from..at]);
        }
        if !c.is_whitespace() {
            words.push(&text[at..at + c.len_utf8()]);
        }
    }
    words.extend(begun.map(|from| &text[from..]));
    words
}

/// distinct-n (Li et al. 2016): different n-grams of a set as a share of all its n-grams. It falls with the size of the
/// set, so compare sets of one size. The interval resamples texts, which repeats some: its middle lies below the value.
///
/// `n` is at least 1.
#[must_use]
pub fn distinct(words: &Words, n: usize, seed: u64) -> Estimate {
    let mut ids: HashMap<&[u32], usize> = HashMap::new();
    let of_text: Vec<Vec<usize>> = words
        .texts
        .iter()
        .map(|text| {
            text.windows(n)
                .map(|gram| {
                    let next = ids.len();
                    *ids.entry(gram).or_insert(next)
                })
                .collect()
        })
        .collect();
    let [estimate] = bootstrap(of_text.len(), seed, |drawn| {
        let mut seen = vec![false; ids.len()];
        let mut total = 0;
        for (grams, times) in of_text.iter().zip(drawn) {
            total += grams.len() * *times as usize;
            if *times > 0 {
                grams.iter().for_each(|gram| seen[*gram] = true);
            }
        }
        [Number::ratio(seen.iter().filter(|seen| **seen).count() as f64, total as f64, Reason::Empty)]
    });
    estimate
}

/// Share of a text's n-grams that occurred in it before (seq-rep-n, Welleck et al. 2020); undefined for a text without one.
#[must_use]
pub fn repetition(text: &[u32], n: usize) -> Number {
    let total = text.windows(n).count();
    let different = text.windows(n).collect::<HashSet<_>>().len();
    Number::ratio((total - different) as f64, total as f64, Reason::NoTokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Measured;

    #[test]
    fn words_of_a_text() {
        assert_eq!(split("The sea's old, isn't it?"), ["The", "sea", "'", "s", "old", ",", "isn", "'", "t", "it", "?"]);
        assert_eq!(split(" e\u{301}te 12\n"), ["e\u{301}te", "12"]);
        assert!(split("  ").is_empty());
        assert_eq!(Words::of(["a b a", "b c"]).texts, [vec![0, 1, 0], vec![1, 2]]);
    }

    #[test]
    fn variety_and_repetition() {
        let words = Words::of(["a b a b", "a b"]);
        // ab ba ab | ab
        assert_eq!(distinct(&words, 2, 0).value, Measured::Value(0.5));
        assert_eq!(distinct(&words, 1, 0).value, Measured::Value(2.0 / 6.0));
        assert_eq!(distinct(&words, 9, 0).value.reason(), Some(Reason::Empty));
        assert_eq!(repetition(&words.texts[0], 2), Measured::Value(1.0 / 3.0));
        assert_eq!(repetition(&words.texts[1], 2), Measured::Value(0.0));
        assert_eq!(repetition(&words.texts[1], 3).reason(), Some(Reason::NoTokens));
    }
}
