//! What is wrong with an item before anything is measured.

use serde::{Deserialize, Serialize};

use super::matching::{holds, normalised};

/// Letters and digits of an answer below which it is found by accident.
pub const SHORTEST_ANSWER: usize = 3;

/// A fault of an item. The first two leave nothing to measure, the others make classes mean less than they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trap {
    /// One of the answers has no letter or digit.
    EmptyAnswer,
    /// Both answers are the same after normalisation.
    EqualAnswers,
    /// The answer of the context is not in it, letter for letter.
    AnswerNotInContext,
    /// The memorised answer is in the context too: "moved from Kabul to Herat" then follows the context and counts as both.
    MemorisedInContext,
    /// The memorised answer is in the question: who restates it seems to remember.
    MemorisedInQuestion,
    /// The answer of the context is in the question.
    AnswerInQuestion,
    /// One answer is a part of the other: New Cairo, Cairo.
    NestedAnswers,
    /// An answer of one or two letters: Bo, 21.
    ShortAnswer,
}

impl Trap {
    /// Every fault, in order.
    pub const ALL: [Self; 8] = [
        Self::EmptyAnswer,
        Self::EqualAnswers,
        Self::AnswerNotInContext,
        Self::MemorisedInContext,
        Self::MemorisedInQuestion,
        Self::AnswerInQuestion,
        Self::NestedAnswers,
        Self::ShortAnswer,
    ];

    /// What it is, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::EmptyAnswer => "an answer is empty",
            Self::EqualAnswers => "both answers are the same",
            Self::AnswerNotInContext => "the answer is not in the context",
            Self::MemorisedInContext => "the memorised answer is in the context",
            Self::MemorisedInQuestion => "the memorised answer is in the question",
            Self::AnswerInQuestion => "the answer is in the question",
            Self::NestedAnswers => "one answer is a part of the other",
            Self::ShortAnswer => "an answer has fewer than 3 letters",
        }
    }

    /// Whether an item with it cannot be scored.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::EmptyAnswer | Self::EqualAnswers)
    }
}

/// The faults of an item, in the order of [`Trap::ALL`]. Answers are looked for as whole words of normalised texts, but for
/// [`Trap::NestedAnswers`], which is about letters.
#[must_use]
pub fn traps(context: &str, question: &str, answer: &str, memorised: &str) -> Vec<Trap> {
    let [of_context, of_question, of_answer, of_memory] = [context, question, answer, memorised].map(normalised);
    let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let is_in = |text: &str, part: &str| {
        let (text, part) = (words(text), words(part));
        let [text, part] = [&text, &part].map(|of| of.iter().map(String::as_str).collect::<Vec<_>>());
        holds(&text, &part)
    };
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
    let is_there = |trap: &Trap| match trap {
        Trap::EmptyAnswer => of_answer.is_empty() || of_memory.is_empty(),
        Trap::EqualAnswers => of_answer == of_memory,
        Trap::AnswerNotInContext => !context.contains(answer),
        Trap::MemorisedInContext => is_in(&of_context, &of_memory),
        Trap::MemorisedInQuestion => is_in(&of_question, &of_memory),
        Trap::AnswerInQuestion => is_in(&of_question, &of_answer),
        Trap::NestedAnswers => {
            of_answer != of_memory && (of_answer.contains(&of_memory) || of_memory.contains(&of_answer))
        }
        Trap::ShortAnswer => letters(&of_answer) < SHORTEST_ANSWER || letters(&of_memory) < SHORTEST_ANSWER,
    };
    Trap::ALL.into_iter().filter(is_there).collect()
}

/// Where the first occurrence of an answer begins in a context, as a share of the context's characters; none where it is not there.
#[must_use]
pub fn relative_position(context: &str, answer: &str) -> Option<f64> {
    let at = context.find(answer).filter(|_| !answer.is_empty())?;
    Some(context[..at].chars().count() as f64 / context.chars().count() as f64)
}
