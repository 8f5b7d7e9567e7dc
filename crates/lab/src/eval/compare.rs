//! `lathe eval compare`: two files of answers to the same questions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lathe_measure::shares::{PairedScores, paired, share};
use lathe_measure::statistics::bootstrap_mean;
use lathe_measure::{Estimate, Number};
use serde::{Deserialize, Serialize};

use super::items::{ItemRecord, read};
use crate::Error;

/// What to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareSpec {
    /// Two files of answers.
    pub answers: [PathBuf; 2],
    /// Seed of the interval of the difference.
    #[serde(default)]
    pub seed: u64,
}

/// How two files differ.
#[derive(Clone, Debug, Serialize)]
pub struct CompareResult {
    /// The files.
    pub answers: [PathBuf; 2],
    /// Questions that both have.
    pub questions: usize,
    /// Questions that only one has: they are not compared.
    pub alone: [usize; 2],
    /// The headline score of each over the questions that both have.
    pub scores: [Estimate; 2],
    /// First minus second.
    #[serde(flatten)]
    pub paired: PairedScores,
}

/// Compares the headline scores of two files, question by question.
///
/// # Errors
/// A file cannot be read, or has a question twice; the two have none in common.
pub fn compare(spec: &CompareSpec) -> Result<CompareResult, Error> {
    let [first, second] = [by_question(&spec.answers[0])?, by_question(&spec.answers[1])?];
    let both: Vec<(f64, f64)> =
        first.iter().filter_map(|(question, score)| Some((*score, *second.get(question)?))).collect();
    if both.is_empty() {
        return Err(Error::Spec {
            field: "compare",
            problem: format!(
                "{} and {} have no question in common",
                spec.answers[0].display(),
                spec.answers[1].display()
            ),
            hint: Some("answers are compared that were given to the same text of the same row".into()),
        });
    }
    let (a, b): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
    Ok(CompareResult {
        answers: spec.answers.clone(),
        questions: a.len(),
        alone: [first.len() - a.len(), second.len() - a.len()],
        scores: [score(&a, spec.seed), score(&b, spec.seed)],
        paired: paired(&a, &b, spec.seed),
    })
}

/// A share where every question is right or wrong, else a mean.
fn score(scores: &[f64], seed: u64) -> Estimate {
    if scores.iter().all(|score| *score == 0.0 || *score == 1.0) {
        share(scores.iter().filter(|score| **score == 1.0).count(), scores.len())
    } else {
        bootstrap_mean(&scores.iter().copied().map(Number::from).collect::<Vec<_>>(), seed)
    }
}

/// Headline scores by row and text.
fn by_question(file: &Path) -> Result<BTreeMap<(usize, String), f64>, Error> {
    let mut scores = BTreeMap::new();
    for (index, ItemRecord { record, question, score, .. }) in read(file)?.into_iter().enumerate() {
        if scores.insert((record, question), score).is_some() {
            return Err(Error::Record {
                file: file.to_owned(),
                line: index + 1,
                problem: format!("the question of record {record} was there before"),
                expected: "a file of answers has every question once",
            });
        }
    }
    Ok(scores)
}
