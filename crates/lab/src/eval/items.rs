//! One answered question: a line of the file of answers, and what many of them add up to.

use std::collections::BTreeMap;
use std::path::Path;

use lathe_decode::Ended;
use lathe_decode::ensemble::Counts;
use lathe_measure::answers::Judge;
use lathe_measure::shares::share;
use lathe_measure::statistics::bootstrap_mean;
use lathe_measure::{Estimate, Number};
use serde::{Deserialize, Serialize};

use super::questions::{Ask, Question};
use super::subject::{OptionScore, Written};
use super::task::{Length, Score, Task};
use crate::Error;
use crate::ensemble::Totals;

/// One answered question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Hash of everything that the answer depends on; the same for all lines of a file.
    pub run: String,
    /// Number of the question's row in its data, from 1.
    pub record: usize,
    /// Hash of the text that was asked.
    pub question: String,
    /// The headline score, from 0 to 1.
    pub score: f64,
    /// All scores by name.
    pub scores: BTreeMap<String, f64>,
    /// The answer.
    #[serde(flatten)]
    pub given: Given,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Given {
    /// An option.
    Likelihood {
        /// Which option is right, from 0.
        right: usize,
        /// Which one the headline chose.
        chosen: usize,
        /// What was compared.
        options: Vec<OptionRecord>,
    },
    /// A text.
    Generation {
        /// The right answers.
        answers: Vec<String>,
        /// What was written.
        text: String,
        /// Its tokens, the end token included.
        tokens: usize,
        /// Why it ended.
        ended: Ended,
        /// Of an ensemble: what happened while it wrote.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        together: Option<Counts>,
        /// The part that a scorer compared, for scorers that look for one; null where there was none.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        taken: BTreeMap<String, Option<String>>,
    },
}

/// An option with its likelihood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionRecord {
    /// The text, without delimiter.
    pub target: String,
    /// Σ log p, nats.
    pub log_p: f64,
    /// Tokens that were scored, those of the delimiter among them.
    pub tokens: usize,
}

/// A score over all questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreRow {
    /// Its name.
    pub name: String,
    /// A share with Wilson's interval, or a mean with that of the bootstrap.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl ItemRecord {
    /// Bytes of the answer: of the text, or of the option that was chosen.
    pub(super) fn response_bytes(&self) -> f64 {
        match &self.given {
            Given::Likelihood { chosen, options, .. } => options[*chosen].target.len() as f64,
            Given::Generation { text, .. } => text.len() as f64,
        }
    }

    /// Tokens of the answer.
    pub(super) fn response_tokens(&self) -> f64 {
        match &self.given {
            Given::Likelihood { chosen, options, .. } => options[*chosen].tokens as f64,
            Given::Generation { tokens, .. } => *tokens as f64,
        }
    }
}

/// Share of the symbols of all texts that the members of an ensemble chose together; none where one model answered.
pub(super) fn ensembled(items: &[ItemRecord]) -> Option<f64> {
    let counts = items.iter().filter_map(|item| match &item.given {
        Given::Generation { together, .. } => *together,
        Given::Likelihood { .. } => None,
    });
    let totals = Totals::of(counts);
    (totals.counts.ensembled + totals.counts.alone > 0).then_some(totals.ensembled_share)
}

/// The record of a choice.
pub(super) fn chosen(question: &Question, scores: &[OptionScore], headline: Length, run: &str) -> ItemRecord {
    let (targets, right) = match &question.ask {
        Ask::Choose { options, right } => (options.iter().map(|option| option.target.as_str()).collect(), *right),
        Ask::Write { .. } => (Vec::new(), 0),
    };
    let choice = |length: Length| {
        let value = |(score, target): (&OptionScore, &&str)| {
            score.log_p
                / match length {
                    Length::Sum => 1.0,
                    Length::PerCharacter => target.chars().count() as f64,
                    Length::PerByte => target.len() as f64,
                    Length::PerToken => score.tokens as f64,
                }
        };
        // The first of several that are equal.
        let values = scores.iter().zip(&targets).map(value).enumerate();
        values.fold((0, f64::NEG_INFINITY), |best, (index, value)| if value > best.1 { (index, value) } else { best }).0
    };
    let by_length: BTreeMap<String, f64> = Length::ALL
        .iter()
        .map(|length| (length.name().to_owned(), f64::from(u8::from(choice(*length) == right))))
        .collect();
    let options = scores.iter().zip(&targets).map(|(score, target)| OptionRecord {
        target: (*target).to_owned(),
        log_p: score.log_p,
        tokens: score.tokens,
    });
    ItemRecord {
        run: run.to_owned(),
        record: question.record,
        question: question.hash(),
        score: by_length[headline.name()],
        scores: by_length,
        given: Given::Likelihood { right, chosen: choice(headline), options: options.collect() },
    }
}

/// The record of a text.
pub(super) fn written(question: &Question, answer: Written, judges: &[Judge], run: &str) -> ItemRecord {
    let answers = match &question.ask {
        Ask::Write { answers, .. } => answers.clone(),
        Ask::Choose { .. } => Vec::new(),
    };
    let (mut scores, mut taken) = (BTreeMap::new(), BTreeMap::new());
    let mut headline = None;
    for judge in judges {
        let judgement = judge.judge(&answer.text, &answers);
        headline.get_or_insert(judgement.value);
        scores.insert(judge.scorer().name().to_owned(), judgement.value);
        if judge.scorer().takes_a_part() {
            taken.insert(judge.scorer().name().to_owned(), judgement.taken);
        }
    }
    let Written { text, tokens, ended, together } = answer;
    ItemRecord {
        run: run.to_owned(),
        record: question.record,
        question: question.hash(),
        score: headline.unwrap_or(0.0),
        scores,
        given: Given::Generation { answers, text, tokens, ended, together, taken },
    }
}

/// The score that tables show.
pub(super) fn headline(task: &Task) -> &'static str {
    match &task.score {
        Score::Likelihood { headline } => headline.name(),
        Score::Generation { scorers, .. } => scorers[0].name(),
    }
}

/// Every score over all questions, the headline first.
pub(super) fn scores(task: &Task, judges: &[Judge], items: &[ItemRecord]) -> Vec<ScoreRow> {
    let estimate = |name: &str, is_share: bool| {
        let values: Vec<f64> = items.iter().filter_map(|item| item.scores.get(name).copied()).collect();
        let estimate = if is_share {
            share(values.iter().filter(|value| **value == 1.0).count(), values.len())
        } else {
            bootstrap_mean(&values.into_iter().map(Number::from).collect::<Vec<_>>(), 0)
        };
        ScoreRow { name: name.to_owned(), estimate }
    };
    match &task.score {
        Score::Likelihood { headline } => {
            let others = Length::ALL.iter().filter(|length| *length != headline);
            std::iter::once(headline).chain(others).map(|length| estimate(length.name(), true)).collect()
        }
        Score::Generation { .. } => {
            judges.iter().map(|judge| estimate(judge.scorer().name(), judge.scorer().is_share())).collect()
        }
    }
}

/// Reads a file of answers.
///
/// # Errors
/// It cannot be read, or a line is no answered question.
pub(super) fn read(file: &Path) -> Result<Vec<ItemRecord>, Error> {
    const EXPECTED: &str = "a file of answers is what `lathe eval --out` writes";
    let text = fs_read(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| {
        let problem =
            |error: String| Error::Record { file: file.into(), line: index + 1, problem: error, expected: EXPECTED };
        let item: ItemRecord =
            serde_json::from_str(line).map_err(|error| problem(format!("not an answered question: {error}")))?;
        if !(0.0..=1.0).contains(&item.score) {
            return Err(problem(format!("score is {}, expected 0 to 1", item.score)));
        }
        if let Given::Likelihood { chosen, options, .. } = &item.given
            && *chosen >= options.len()
        {
            return Err(problem(format!("chosen is {chosen} of {} options", options.len())));
        }
        Ok(item)
    };
    lines.map(read).collect()
}

fn fs_read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })
}
