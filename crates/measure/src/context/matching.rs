//! Which of two answers a text holds.

use serde::{Deserialize, Serialize};
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::canonical_combining_class;

/// How answers are looked for in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// Whole words of [`normalised`] texts; where one answer is a part of the other, matches of the longer one are taken away
    /// before the shorter one is looked for: `New Cairo` is no `Cairo`.
    #[default]
    Safe,
    /// Whole words of [`normalised`] texts, each answer for itself.
    Words,
    /// Lower-case substrings, as the paper's "accuracy by entailment": `Bo` is in `Both`, and `Malé` not in `Male`.
    Substring,
}

impl Matching {
    /// Its name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Words => "words",
            Self::Substring => "substring",
        }
    }
}

/// Which of the two answers a text holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mentions {
    /// The answer of the context.
    pub context: bool,
    /// The memorised answer.
    pub parametric: bool,
}

/// The four classes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// It holds the answer of the context and not the memorised one.
    ContextOnly,
    /// It holds the memorised answer and not that of the context.
    ParametricOnly,
    /// It holds both: "moved from Kabul to Herat".
    Both,
    /// It holds neither: another answer, a refusal, or nothing at all.
    Neither,
}

impl Mentions {
    /// The class of the text.
    #[must_use]
    pub fn class(self) -> Answered {
        match (self.context, self.parametric) {
            (true, false) => Answered::ContextOnly,
            (false, true) => Answered::ParametricOnly,
            (true, true) => Answered::Both,
            (false, false) => Answered::Neither,
        }
    }
}

/// A text in compatibility decomposition (NFKD) without accents, in lower case, with one space for whatever is neither letter
/// nor digit. Vowel signs that are letters of their script stay.
#[must_use]
pub fn normalised(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let plain = text.nfkd().map(|(c, _)| c).flat_map(char::to_lowercase);
    // Lower case can bring new accents: İ becomes i and a dot.
    for c in plain.filter(|c| canonical_combining_class(*c) == 0) {
        if c.is_alphanumeric() {
            result.push(c);
        } else if !result.ends_with(' ') && !result.is_empty() {
            result.push(' ');
        }
    }
    result.truncate(result.trim_end().len());
    result
}

/// Which of the two answers an output holds. An answer of nothing but punctuation is nowhere.
#[must_use]
pub fn mentions(output: &str, context_answer: &str, memorised: &str, matching: Matching) -> Mentions {
    if matching == Matching::Substring {
        let output = output.to_lowercase();
        let holds = |answer: &str| !answer.is_empty() && output.contains(&answer.to_lowercase());
        return Mentions { context: holds(context_answer), parametric: holds(memorised) };
    }
    let texts = [output, context_answer, memorised].map(normalised);
    let [output, context, parametric] = texts.each_ref().map(|text| text.split(' ').filter(|word| !word.is_empty()));
    let (output, context, parametric): (Vec<&str>, Vec<&str>, Vec<&str>) =
        (output.collect(), context.collect(), parametric.collect());
    let without = |longer: &[&str]| masked(&output, longer);
    let is_nested = matching == Matching::Safe && context != parametric;
    Mentions {
        context: match is_nested && holds(&parametric, &context) {
            true => holds(&without(&parametric), &context),
            false => holds(&output, &context),
        },
        parametric: match is_nested && holds(&context, &parametric) {
            true => holds(&without(&context), &parametric),
            false => holds(&output, &parametric),
        },
    }
}

/// Whether `words` stand in a text, one after another.
pub(super) fn holds(text: &[&str], words: &[&str]) -> bool {
    !words.is_empty() && text.windows(words.len()).any(|part| part == words)
}

/// The text with nothing in the place of `words`, found from the left and not overlapping. No word is empty, so that what is left
/// before and after them does not join.
fn masked<'a>(text: &[&'a str], words: &[&str]) -> Vec<&'a str> {
    let mut left = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(words) {
            left.push("");
            at += words.len();
        } else {
            left.push(text[at]);
            at += 1;
        }
    }
    left
}
