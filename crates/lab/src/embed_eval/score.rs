//! What vectors reach in a task, by MTEB's protocols, with intervals over the task's units.

mod classes;
mod clusters;
mod pairs;
mod search;

use lathe_measure::embedding::Vectors;
use lathe_measure::{Number, Reason};
use rayon::prelude::*;
use serde_json::Value;

pub(super) use classes::{Answered, answered, combined, of_answers};

use super::asked::What;
use crate::Error;
use crate::eval::ScoreRow;

/// How scores come about.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Of intervals and clusterings.
    pub(super) seed: u64,
    /// Clusterings of each set.
    pub(super) clusterings: usize,
    /// Whether classifiers are also trained until they converge.
    pub(super) training: super::Training,
}

/// What vectors of one kind reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Scored {
    /// The headline first.
    pub(super) scores: Vec<ScoreRow>,
    /// Standard deviation of the headline over draws or clusterings.
    pub(super) deviation: Option<Number>,
    /// Draws whose classifier had not converged after MTEB's number of steps.
    pub(super) not_converged: Option<usize>,
    /// Units without a value, which no mean counts.
    pub(super) undefined: usize,
    /// What came of each unit.
    pub(super) units: Vec<Value>,
}

/// Scores vectors.
///
/// # Errors
/// They cannot be classified or clustered.
pub(super) fn scored(what: &What, vectors: &Vectors, how: &How) -> Result<Scored, Error> {
    Ok(match what {
        What::Pairs(of) => pairs::scored_pairs(of, vectors, how.seed),
        What::SamePairs(of) => pairs::same_pairs(of, vectors, how.seed),
        What::Lists(of) => search::lists(of, vectors, how.seed),
        What::Search(of) => search::search(of, vectors, how.seed),
        What::Summaries(of) => pairs::summaries(of, vectors, how.seed),
        What::Classes(of) => of_answers(of, &answered(of, vectors, how)?, how.seed),
        What::Sets(of) => clusters::sets(of, vectors, how)?,
    })
}

fn row<const K: usize>(names: [&str; K], estimates: [lathe_measure::Estimate; K]) -> Vec<ScoreRow> {
    names.into_iter().zip(estimates).map(|(name, estimate)| ScoreRow { name: name.to_owned(), estimate }).collect()
}

/// Every value as often as it was drawn.
fn expanded<T: Copy>(values: &[T], times: &[u32]) -> Vec<T> {
    values.iter().zip(times).flat_map(|(value, times)| std::iter::repeat_n(*value, *times as usize)).collect()
}

/// `of` every one, in parallel; each is computed alone, so nothing depends on the threads.
fn each<T: Sync, O: Send>(all: &[T], of: impl Fn(&T) -> O + Send + Sync) -> Vec<O> {
    all.par_iter().map(of).collect()
}

/// How many have no value.
fn undefined(numbers: &[Number]) -> usize {
    numbers.iter().filter(|number| number.value().is_none()).count()
}

/// The mean of numbers of which none is left out.
fn mean_of(numbers: impl ExactSizeIterator<Item = Number>) -> Number {
    let n = numbers.len();
    let sum = numbers.fold(Number::from(0.0), |sum, number| sum.zip(number, |sum, number| sum + number));
    if n == 0 { Number::Undefined(Reason::Empty) } else { sum.map(|sum| sum / n as f64) }
}

#[cfg(test)]
mod tests;
