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

use crate::measured::{Estimate, Interval, Measured, Number, Reason};

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
/// set, so compare sets of one size. The interval is the value ± 1.96 jackknife standard errors over texts: resamples with
/// replacement repeat texts, and have fewer different n-grams than any set.
///
/// `n` is at least 1.
#[must_use]
pub fn distinct(words: &Words, n: usize) -> Estimate {
    let texts = words.texts.len();
    // In which texts an n-gram is: the first, and whether there is another.
    let mut found: HashMap<&[u32], (usize, bool)> = HashMap::new();
    for (index, text) in words.texts.iter().enumerate() {
        for gram in text.windows(n) {
            let (first, shared) = found.entry(gram).or_insert((index, false));
            *shared |= *first != index;
        }
    }
    let mut only_here = vec![0usize; texts];
    found.values().filter(|(_, shared)| !shared).for_each(|(index, _)| only_here[*index] += 1);
    let grams = |text: &Vec<u32>| text.windows(n).count();
    let total: usize = words.texts.iter().map(grams).sum();
    let value = Number::ratio(found.len() as f64, total as f64, Reason::Empty);
    let without: Option<Vec<f64>> = words
        .texts
        .iter()
        .zip(&only_here)
        .map(|(text, only)| {
            Number::ratio((found.len() - only) as f64, (total - grams(text)) as f64, Reason::Empty).value()
        })
        .collect();
    let interval = match (value.value(), without) {
        _ if texts < 2 => Measured::Undefined(Reason::OneUnit),
        (Some(value), Some(without)) => {
            let mean = without.iter().sum::<f64>() / texts as f64;
            let squares: f64 = without.iter().map(|x| (x - mean).powi(2)).sum();
            let half = 1.96 * (squares * (texts - 1) as f64 / texts as f64).sqrt();
            Measured::Value(Interval { low: value - half, high: value + half, resamples: texts })
        }
        _ => Measured::Undefined(Reason::Empty),
    };
    Estimate { value, n: texts, interval }
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
        assert_eq!(distinct(&words, 2).value, Measured::Value(0.5));
        assert_eq!(distinct(&words, 1).value, Measured::Value(2.0 / 6.0));
        assert_eq!(distinct(&words, 9).value.reason(), Some(Reason::Empty));
        // Without the first text 1/1, without the second 2/3: a standard error of 1/6.
        let interval = distinct(&words, 2).interval.value().expect("two texts");
        assert!(
            (interval.low - (0.5 - 1.96 / 6.0)).abs() < 1e-12 && (interval.high - (0.5 + 1.96 / 6.0)).abs() < 1e-12
        );
        assert_eq!(distinct(&Words::of(["a b"]), 2).interval.reason(), Some(Reason::OneUnit));
        assert_eq!(repetition(&words.texts[0], 2), Measured::Value(1.0 / 3.0));
        assert_eq!(repetition(&words.texts[1], 2), Measured::Value(0.0));
        assert_eq!(repetition(&words.texts[1], 3).reason(), Some(Reason::NoTokens));
    }
}
