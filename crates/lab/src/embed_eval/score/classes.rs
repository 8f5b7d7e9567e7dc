//! Classification: a logistic regression for each draw of training texts.

use lathe_measure::Number;
use lathe_measure::embedding::Vectors;
use lathe_measure::logistic::{Convergence, Logistic, LogisticOptions};
use lathe_measure::statistics::{bootstrap, standard_deviation};
use serde_json::json;

use super::super::Training;
use super::super::asked::Classes;
use super::{How, Scored, each, mean_of, row};
use crate::Error;
use crate::eval::ScoreRow;

/// Steps of training that goes on until it converges, at most: a bound, not a choice.
const MANY_STEPS: usize = 20_000;

/// What the classifiers of all draws say of the texts that are asked.
#[derive(Clone, Debug)]
pub(in crate::embed_eval) struct Answered {
    /// Probabilities of each draw, `[test, classes]`.
    draws: Vec<Vec<f64>>,
    /// The same of classifiers that were trained until they converged, where that was asked for.
    converged: Option<Vec<Vec<f64>>>,
    /// Draws that had not converged.
    not_converged: usize,
}

/// Trains the classifiers of all draws, MTEB's way: no scaling, C = 1, at most 100 steps.
///
/// # Errors
/// A classifier cannot be trained.
pub(in crate::embed_eval) fn answered(of: &Classes, vectors: &Vectors, how: &How) -> Result<Answered, Error> {
    let usual = LogisticOptions::default();
    let (draws, not_converged) = trained(of, vectors, &usual)?;
    let converged = match how.training {
        Training::Limited => None,
        Training::AlsoToConvergence if not_converged == 0 => Some(draws.clone()),
        Training::AlsoToConvergence => Some(trained(of, vectors, &LogisticOptions { rounds: MANY_STEPS, ..usual })?.0),
    };
    Ok(Answered { draws, converged, not_converged })
}

fn trained(of: &Classes, vectors: &Vectors, options: &LogisticOptions) -> Result<(Vec<Vec<f64>>, usize), Error> {
    let draws = each(&of.draws, |draw| -> Result<_, Error> {
        let train = vectors.selected(&draw.iter().map(|text| text.text).collect::<Vec<_>>());
        let labels: Vec<usize> = draw.iter().map(|text| text.label).collect();
        let model = Logistic::fit(&train, &labels, of.names.len(), options)?;
        let said = of.test.iter().flat_map(|text| model.probabilities(vectors.row(text.text))).collect();
        Ok((said, matches!(model.converged(), Convergence::Reached { .. })))
    });
    let draws = draws.into_iter().collect::<Result<Vec<(Vec<f64>, bool)>, Error>>()?;
    let missed = draws.iter().filter(|(_, converged)| !converged).count();
    Ok((draws.into_iter().map(|(said, _)| said).collect(), missed))
}

/// The probabilities of two classifiers together: `(p_HS + α p_RW) / (1 + α)`.
pub(in crate::embed_eval) fn combined(hidden: &Answered, router: &Answered, alpha: f64) -> Answered {
    let mixed = |hidden: &[Vec<f64>], router: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let draw = |(hidden, router): (&Vec<f64>, &Vec<f64>)| {
            hidden.iter().zip(router).map(|(hidden, router)| (hidden + alpha * router) / (1.0 + alpha)).collect()
        };
        hidden.iter().zip(router).map(draw).collect()
    };
    let converged = hidden.converged.as_ref().zip(router.converged.as_ref());
    Answered {
        draws: mixed(&hidden.draws, &router.draws),
        converged: converged.map(|(hidden, router)| mixed(hidden, router)),
        not_converged: hidden.not_converged.max(router.not_converged),
    }
}

/// Accuracy and macro F1, means over draws. Resamples draw texts that are asked.
pub(in crate::embed_eval) fn of_answers(of: &Classes, answered: &Answered, seed: u64) -> Scored {
    let chosen = each(&answered.draws, |draw| choices(draw, of.names.len()));
    let estimates = estimates(of, &chosen, seed);
    let mut scores = row(["accuracy", "f1_macro"], estimates);
    if let Some(converged) = &answered.converged {
        let chosen = each(converged, |draw| choices(draw, of.names.len()));
        let [accuracy, f1] = self::estimates(of, &chosen, seed);
        scores.push(ScoreRow { name: "accuracy_converged".into(), estimate: accuracy });
        scores.push(ScoreRow { name: "f1_macro_converged".into(), estimate: f1 });
    }
    let right = |draw: &Vec<usize>, index: usize| draw[index] == of.test[index].label;
    let accuracies: Vec<f64> = chosen
        .iter()
        .map(|draw| (0..of.test.len()).filter(|index| right(draw, *index)).count() as f64 / of.test.len() as f64)
        .collect();
    let share = |index: usize| chosen.iter().filter(|draw| right(draw, index)).count() as f64 / chosen.len() as f64;
    Scored {
        scores,
        deviation: Some(standard_deviation(&accuracies)),
        not_converged: Some(answered.not_converged),
        units: (0..of.test.len()).map(|index| json!(share(index))).collect(),
        ..Scored::default()
    }
}

/// The likeliest class of each text; of equal ones the first.
fn choices(probabilities: &[f64], classes: usize) -> Vec<usize> {
    let likeliest = |of: &[f64]| (0..classes).rev().max_by(|a, b| of[*a].total_cmp(&of[*b])).unwrap_or(0);
    probabilities.chunks_exact(classes).map(likeliest).collect()
}

fn estimates(of: &Classes, chosen: &[Vec<usize>], seed: u64) -> [lathe_measure::Estimate; 2] {
    // A label that was not trained is a class too: one that is never chosen.
    let classes = of.names.len() + 1;
    bootstrap(of.test.len(), seed, |times| {
        let both: Vec<[Number; 2]> = chosen
            .iter()
            .map(|draw| {
                // How often a class is the label, is chosen, and both.
                let mut counts = vec![[0u64; 3]; classes];
                for ((text, chosen), times) in of.test.iter().zip(draw).zip(times) {
                    counts[text.label][0] += u64::from(*times);
                    counts[*chosen][1] += u64::from(*times);
                    if text.label == *chosen {
                        counts[text.label][2] += u64::from(*times);
                    }
                }
                let texts: u64 = counts.iter().map(|[labelled, ..]| labelled).sum();
                let right: u64 = counts.iter().map(|[.., both]| both).sum();
                let seen = counts.iter().filter(|[labelled, chosen, _]| labelled + chosen > 0);
                let f1: Vec<Number> = seen
                    .map(|[labelled, chosen, both]| Number::from(2.0 * *both as f64 / (labelled + chosen) as f64))
                    .collect();
                [Number::from(right as f64 / texts as f64), mean_of(f1.into_iter())]
            })
            .collect();
        [0, 1].map(|which| mean_of(both.iter().map(|numbers| numbers[which])))
    })
}
