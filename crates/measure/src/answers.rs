//! Whether a text that a model wrote is the right answer.
//!
//! A scorer compares a prediction with several right answers and keeps the best match. An empty prediction is never right,
//! and no scorer asks whether the prediction is a part of the answer: released scorers do, and count every one-letter text
//! as right (docs/methods/evaluation.md).

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// How a prediction is compared with the right answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scorer {
    /// The texts are equal.
    Exact {
        /// What is made equal before.
        #[serde(default)]
        normalise: Normalise,
    },
    /// A number of the prediction is the number of the answer. Thousands separators, currencies and units are passed over.
    Numeric {
        /// Which number of the prediction.
        #[serde(default)]
        take: Take,
    },
    /// The words of the answer stand in the prediction, one after another.
    Contains {},
    /// F1 of the words that both have, as SQuAD computes it.
    F1 {},
    /// The prediction begins with the letter of the right option: `B`, `B.`, `(B)`.
    Letter {},
    /// A part of the prediction is compared.
    Regex {
        /// What to look for; its first group, if it has one, else all of it.
        pattern: String,
        /// Which match.
        #[serde(default)]
        take: Take,
        /// How what was found is compared.
        #[serde(default)]
        compare: Compare,
        /// What is made equal before texts are compared.
        #[serde(default)]
        normalise: Normalise,
    },
}

/// What is made equal before texts are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// White space around the text.
    #[default]
    Trim,
    /// Case, ASCII punctuation, the articles `a`, `an`, `the`, and runs of white space, as SQuAD does.
    Squad,
}

/// Which of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The first: of an answer that comes at once.
    #[default]
    First,
    /// The last: of one at the end of a chain of thought.
    Last,
}

/// How a part that was found is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// As texts.
    #[default]
    Text,
    /// As numbers.
    Number,
}

/// A scorer that is ready to judge.
#[derive(Clone, Debug)]
pub struct Judge {
    scorer: Scorer,
    pattern: Option<Regex>,
}

/// What a judge says of a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// From 0, wrong, to 1, right.
    pub value: f64,
    /// The part of the prediction that was compared, where it is not all of it; none where there was no such part.
    pub taken: Option<String>,
}

impl Scorer {
    /// Its name in files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exact { .. } => "exact",
            Self::Numeric { .. } => "numeric",
            Self::Contains {} => "contains",
            Self::F1 {} => "f1",
            Self::Letter {} => "letter",
            Self::Regex { .. } => "regex",
        }
    }

    /// Whether every judgement is 0 or 1.
    #[must_use]
    pub fn is_share(&self) -> bool {
        !matches!(self, Self::F1 {})
    }

    /// Whether it looks for a part of the prediction and compares that.
    #[must_use]
    pub fn takes_a_part(&self) -> bool {
        matches!(self, Self::Numeric { .. } | Self::Letter {} | Self::Regex { .. })
    }

    /// # Errors
    /// The pattern is no regular expression; what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.judge().map(|_| ())
    }

    /// The scorer with its pattern compiled.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn judge(&self) -> Result<Judge, String> {
        let pattern = match self {
            Self::Regex { pattern, .. } => Some(Regex::new(pattern).map_err(|error| error.to_string())?),
            _ => None,
        };
        Ok(Judge { scorer: self.clone(), pattern })
    }

    /// Whether a right answer can be compared with at all: one that cannot would count every prediction as wrong.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check_answer(&self, answer: &str) -> Result<(), String> {
        if answer.trim().is_empty() {
            return Err("the right answer is empty".into());
        }
        match self {
            Self::Numeric { .. } | Self::Regex { compare: Compare::Number, .. } => match numbers(answer).len() {
                1 => Ok(()),
                0 => Err(format!("the right answer `{answer}` has no number")),
                several => Err(format!("the right answer `{answer}` has {several} numbers")),
            },
            Self::Letter {} if letter(answer) != Some(answer.to_owned()) => {
                Err(format!("the right answer `{answer}` is no capital letter"))
            }
            Self::Exact { .. } | Self::Contains {} | Self::F1 {} | Self::Letter {} | Self::Regex { .. } => Ok(()),
        }
    }
}

impl Judge {
    /// Its scorer.
    #[must_use]
    pub fn scorer(&self) -> &Scorer {
        &self.scorer
    }

    /// Compares a prediction with the right answers; the best match counts.
    #[must_use]
    pub fn judge(&self, prediction: &str, answers: &[String]) -> Judgement {
        let (taken, compared) = match (&self.scorer, &self.pattern) {
            (Scorer::Numeric { take }, _) => {
                let taken = pick(numbers(prediction), *take).map(|(text, _)| text);
                (taken.clone(), taken)
            }
            (Scorer::Letter {}, _) => {
                let taken = letter(prediction);
                (taken.clone(), taken)
            }
            (Scorer::Regex { take, .. }, Some(pattern)) => {
                let found = pattern.captures_iter(prediction).filter_map(|found| {
                    let part = found.iter().skip(1).flatten().next().or(found.get(0))?;
                    Some(part.as_str().to_owned())
                });
                let taken = pick(found.collect(), *take);
                (taken.clone(), taken)
            }
            _ => (None, Some(prediction.to_owned())),
        };
        let Some(compared) = compared.filter(|text| !text.trim().is_empty()) else {
            return Judgement { value: 0.0, taken };
        };
        let value = answers.iter().map(|answer| self.compare(&compared, answer)).fold(0.0, f64::max);
        Judgement { value, taken }
    }

    fn compare(&self, prediction: &str, answer: &str) -> f64 {
        let is_right = match &self.scorer {
            Scorer::F1 {} => return f1(prediction, answer),
            Scorer::Contains {} => contains(prediction, answer),
            Scorer::Letter {} => prediction == answer,
            Scorer::Numeric { .. } | Scorer::Regex { compare: Compare::Number, .. } => {
                equal_numbers(prediction, answer)
            }
            Scorer::Exact { normalise } | Scorer::Regex { normalise, .. } => match normalise {
                Normalise::Trim => prediction.trim() == answer.trim(),
                Normalise::Squad => comparable(prediction) == comparable(answer),
            },
        };
        f64::from(u8::from(is_right))
    }
}

/// A text as SQuAD compares it: lower case, without ASCII punctuation, without articles, single spaces.
#[must_use]
pub fn squad_normalised(text: &str) -> String {
    static ARTICLES: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b(a|an|the)\b").ok());
    let bare: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let without = match &*ARTICLES {
        Some(articles) => articles.replace_all(&bare, " ").into_owned(),
        None => bare,
    };
    without.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// [`squad_normalised`], or the text in lower case where that leaves nothing: `The The` is not `A`.
fn comparable(text: &str) -> String {
    let normalised = squad_normalised(text);
    if normalised.is_empty() { text.trim().to_lowercase() } else { normalised }
}

fn contains(prediction: &str, answer: &str) -> bool {
    let (prediction, answer) = (comparable(prediction), comparable(answer));
    let (words, wanted): (Vec<&str>, Vec<&str>) =
        (prediction.split_whitespace().collect(), answer.split_whitespace().collect());
    !wanted.is_empty() && words.windows(wanted.len()).any(|part| part == wanted)
}

/// Harmonic mean of precision and recall over words, each counted as often as it stands there.
fn f1(prediction: &str, answer: &str) -> f64 {
    let (prediction, answer) = (comparable(prediction), comparable(answer));
    let predicted: Vec<&str> = prediction.split_whitespace().collect();
    let mut left: Vec<&str> = answer.split_whitespace().collect();
    let wanted = left.len();
    let mut common = 0.0;
    for word in &predicted {
        if let Some(at) = left.iter().position(|other| other == word) {
            left.swap_remove(at);
            common += 1.0;
        }
    }
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / predicted.len() as f64, common / wanted as f64);
    2.0 * precision * recall / (precision + recall)
}

/// The letter that a text begins with, if it stands alone: `B`, `B.`, `(B)`, `B: nine lines`, but not `Because` or `A dog`.
fn letter(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('(').unwrap_or(text);
    let mut rest = text.chars();
    let letter = rest.next().filter(char::is_ascii_uppercase)?;
    let stands_alone = rest.next().is_none_or(|next| ".):,\n\r".contains(next));
    stands_alone.then(|| letter.to_string())
}

/// The numbers of a text as they are written and as values, in order. A comma between groups of three digits separates
/// thousands; a hyphen is a sign unless a digit or letter stands before it.
fn numbers(text: &str) -> Vec<(String, f64)> {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?:[-+−][$€£¥]?)?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?").ok()
    });
    let Some(number) = &*NUMBER else { return Vec::new() };
    let found = number.find_iter(text).filter_map(|found| {
        let mut written = found.as_str();
        let before = text[..found.start()].chars().next_back();
        if before.is_some_and(char::is_alphanumeric) {
            written = written.trim_start_matches(['-', '+', '−']);
        }
        let sign = written.starts_with(['-', '−']);
        let digits: String = written.chars().filter(|c| c.is_ascii_digit() || ".eE-+".contains(*c)).collect();
        let value: f64 = digits.trim_start_matches(['-', '+']).parse().ok()?;
        Some((written.to_owned(), if sign { -value } else { value }))
    });
    found.collect()
}

fn equal_numbers(prediction: &str, answer: &str) -> bool {
    let value = |text| numbers(text).first().map(|(_, value)| *value);
    value(prediction).is_some_and(|found| value(answer) == Some(found))
}

fn pick<T>(mut found: Vec<T>, take: Take) -> Option<T> {
    match take {
        Take::First if !found.is_empty() => Some(found.swap_remove(0)),
        Take::First => None,
        Take::Last => found.pop(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn value(scorer: &Scorer, prediction: &str, answers: &[&str]) -> f64 {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        scorer.judge().unwrap().judge(prediction, &answers).value
    }

    fn right(scorer: &Scorer, prediction: &str, answer: &str) -> bool {
        value(scorer, prediction, &[answer]) == 1.0
    }

    const SQUAD: Scorer = Scorer::Exact { normalise: Normalise::Squad };
    const FIRST: Scorer = Scorer::Numeric { take: Take::First };
    const LAST: Scorer = Scorer::Numeric { take: Take::Last };

    #[test]
    fn nothing_and_one_character_are_never_right_by_being_a_part() {
        let text = Scorer::Exact { normalise: Normalise::Trim };
        let of_all = Scorer::Regex {
            pattern: "(.*)".into(),
            take: Take::First,
            compare: Compare::Text,
            normalise: Normalise::Squad,
        };
        for scorer in [text, SQUAD, FIRST, LAST, Scorer::Contains {}, Scorer::F1 {}, Scorer::Letter {}, of_all] {
            for prediction in ["", " ", "\n", "M", "e", "."] {
                assert_eq!(
                    value(&scorer, prediction, &["Meghan Trainor", "14", "the"]),
                    0.0,
                    "{scorer:?} {prediction:?}"
                );
            }
        }
        // What a text of articles normalises to is nothing, and nothing is equal to nothing.
        assert!(!right(&SQUAD, "The", "a"));
        assert!(right(&SQUAD, "the", "The"));
        assert!(!right(&Scorer::Contains {}, "Some words", "the"));
        assert_eq!(value(&Scorer::F1 {}, "the", &["a"]), 0.0);
    }

    #[test]
    fn squad_s_normalisation() {
        assert_eq!(squad_normalised("  The U.S.A., an  (old)\tName! "), "usa old name");
        assert_eq!(squad_normalised("Theatre another Anna"), "theatre another anna");
        assert!(right(&SQUAD, "the Beatles.", "Beatles"));
        assert!(!right(&Scorer::Exact { normalise: Normalise::Trim }, "the Beatles", "Beatles"));
        assert!(right(&Scorer::Exact { normalise: Normalise::Trim }, " B\n", "B"));
    }

    #[test]
    fn several_right_answers_and_the_best_of_them() {
        assert_eq!(value(&SQUAD, "six geese", &["5 rings", "Six geese"]), 1.0);
        assert_eq!(value(&Scorer::F1 {}, "six geese", &["geese a-laying", "swans"]), 0.5);
        assert_eq!(value(&SQUAD, "six", &[]), 0.0);
    }

    #[test]
    fn f1_counts_every_word_as_often_as_both_have_it() {
        // Common: the words b, c: precision 2/4, recall 2/3.
        let f1 = value(&Scorer::F1 {}, "b c c d", &["b c e"]);
        assert!((f1 - 2.0 * 0.5 * (2.0 / 3.0) / (0.5 + 2.0 / 3.0)).abs() < 1e-15);
        assert_eq!(value(&Scorer::F1 {}, "The cat", &["cat"]), 1.0);
    }

    #[test]
    fn containing_is_about_words() {
        assert!(right(&Scorer::Contains {}, "I think it was Meghan Trainor, in 2014.", "meghan trainor"));
        assert!(!right(&Scorer::Contains {}, "in 1984", "8"));
        assert!(!right(&Scorer::Contains {}, "Trainor, Meghan", "Meghan Trainor"));
    }

    #[test]
    fn numbers_as_people_write_them() {
        for (prediction, answer) in [
            ("1,234.50", "1234.5"),
            ("$1,234.50 in all", "1234.5 dollars"),
            ("about 50%", "50"),
            ("-$5", "-5"),
            ("$-5", "-5"),
            ("−3 degrees", "-3"),
            (".5", "0.5"),
            ("7.", "7 apples"),
            ("1e3", "1000"),
            ("12 and 3", "12"),
            ("1,2,3", "1"),
            ("10-3", "10"),
        ] {
            assert!(right(&FIRST, prediction, answer), "{prediction} is {answer}");
        }
        for (prediction, answer) in [("1,234", "1"), ("12", "2"), ("no idea", "3"), ("3.1", "3"), ("-5", "5")] {
            assert!(!right(&FIRST, prediction, answer), "{prediction} is not {answer}");
        }
        // The hyphen of a range or of a difference is no sign.
        assert!(right(&LAST, "10-3", "3"));
        assert!(right(&LAST, "He has 5, buys 4, so 5 + 4 = 9. The answer is 9.", "9 apples"));
        assert!(!right(&FIRST, "He has 5, buys 4, so 5 + 4 = 9. The answer is 9.", "9 apples"));
        let judge = LAST.judge().unwrap().judge("so it is $1,250.", &["1250".to_owned()]);
        assert_eq!(judge, Judgement { value: 1.0, taken: Some("1,250".into()) });
    }

    #[test]
    fn letters_stand_alone() {
        for prediction in ["B", " B", "B.", "(B)", "B. 9 lines", "B: 9", "B)\n"] {
            assert!(right(&Scorer::Letter {}, prediction, "B"), "{prediction:?}");
        }
        for prediction in ["Because", "A", "b", "BB", "9 lines B", "B dog", "(A) or B"] {
            assert!(!right(&Scorer::Letter {}, prediction, "B"), "{prediction:?}");
        }
    }

    #[test]
    fn a_pattern_takes_a_part() {
        let scorer = |pattern: &str, take, compare| Scorer::Regex {
            pattern: pattern.into(),
            take,
            compare,
            normalise: Normalise::Trim,
        };
        let marked = scorer(r"#### (\S+)", Take::First, Compare::Number);
        assert!(right(&marked, "3 + 4 = 7\n#### 7", "7"));
        assert!(!right(&marked, "it is 7", "7"));
        assert!(right(&scorer("yes|no", Take::Last, Compare::Text), "yes? no", "no"));
        assert!(scorer("(", Take::First, Compare::Text).check().unwrap_err().contains('('));
    }

    #[test]
    fn answers_that_nothing_could_match_are_refused() {
        assert!(FIRST.check_answer("nine").unwrap_err().contains("no number"));
        assert!(FIRST.check_answer("1/2").unwrap_err().contains("2 numbers"));
        assert!(FIRST.check_answer("9 (apples)").is_ok());
        assert!(SQUAD.check_answer(" ").is_err());
        assert!(Scorer::Letter {}.check_answer("B. 9").is_err());
        assert!(Scorer::Letter {}.check_answer("B").is_ok());
    }
}
