//! From items to rates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::matching::{Answered, Mentions};
use crate::measured::{Estimate, Number, Reason};
use crate::shares;
use crate::statistics::bootstrap;

/// What was found of one item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// Its question, any number: items with the same one are resampled together.
    pub question: usize,
    /// What the written answer holds.
    pub mentions: Mentions,
    /// M_C, 0 to 1.
    pub preference: Number,
    /// [`log_probability_margin`], nats per token.
    pub margin: Number,
}

/// How many items are of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// The answer of the context alone.
    pub context_only: usize,
    /// The memorised answer alone.
    pub parametric_only: usize,
    /// Both.
    pub both: usize,
    /// Neither.
    pub neither: usize,
}

impl Classes {
    /// Counts one more.
    pub fn add(&mut self, class: Answered) {
        *match class {
            Answered::ContextOnly => &mut self.context_only,
            Answered::ParametricOnly => &mut self.parametric_only,
            Answered::Both => &mut self.both,
            Answered::Neither => &mut self.neither,
        } += 1;
    }
}

/// How much answers rely on the context. Intervals resample questions; where all or no answers count, resampling shows no spread, and the
/// interval is Wilson's with one answer for each question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliance {
    /// Items.
    pub items: usize,
    /// Different questions.
    pub questions: usize,
    /// Items of each class.
    pub classes: Classes,
    /// Share of answers that hold the answer of the context: the paper's counterfactual accuracy (0 to 1).
    pub context_rate: Estimate,
    /// Share of answers that hold the memorised answer: the paper's parametric accuracy (0 to 1).
    pub parametric_rate: Estimate,
    /// Share of answers that hold the answer of the context and not the memorised one: the strict figure (0 to 1).
    pub context_only_rate: Estimate,
    /// Mean M_C over items whose answers begin with different tokens (0 to 1; 0.5 is no preference).
    pub preference: Estimate,
    /// Mean margin, nats per token; above 0 the context's answer is the likelier one.
    pub margin: Estimate,
}

/// M_C = p(context answer) / (p(context answer) + p(memorised answer)) of the next token (§5.3), from log-probabilities or
/// logits of the two, nats.
#[must_use]
pub fn context_preference(context: f64, memorised: f64) -> Number {
    Number::from(memorised - context).map(|difference| 1.0 / (1.0 + difference.exp()))
}

/// log p of the context's answer over its tokens less the same of the memorised one, nats per token.
#[must_use]
pub fn log_probability_margin(context: (f64, usize), memorised: (f64, usize)) -> Number {
    let per_token = |(log_p, tokens): (f64, usize)| Number::ratio(log_p, tokens as f64, Reason::NoTokens);
    per_token(context).zip(per_token(memorised), |context, memorised| context - memorised)
}

/// The rates of items.
#[must_use]
pub fn reliance(items: &[Item], seed: u64) -> Reliance {
    let mut classes = Classes::default();
    items.iter().for_each(|item| classes.add(item.mentions.class()));
    let share = |is: bool| Number::from(f64::from(u8::from(is)));
    let numbers = |item: &Item| {
        [
            share(item.mentions.context),
            share(item.mentions.parametric),
            share(item.mentions.class() == Answered::ContextOnly),
            item.preference,
            item.margin,
        ]
    };
    let questions: Vec<usize> = items.iter().map(|item| item.question).collect();
    let values: Vec<[Number; 5]> = items.iter().map(numbers).collect();
    let [context_rate, parametric_rate, context_only_rate, preference, margin] =
        mean_by_question(&questions, &values, seed);
    let [context_rate, parametric_rate, context_only_rate] =
        [context_rate, parametric_rate, context_only_rate].map(with_a_width);
    Reliance {
        items: items.len(),
        questions: context_rate.n,
        classes,
        context_rate,
        parametric_rate,
        context_only_rate,
        preference,
        margin,
    }
}

/// A share whose interval has a width.
fn with_a_width(of: Estimate) -> Estimate {
    match of.value.value() {
        Some(0.0) => shares::share(0, of.n),
        Some(1.0) => shares::share(of.n, of.n),
        _ => of,
    }
}

/// Means of the defined values of items, with intervals that draw whole questions: `questions[i]` is the question of item i,
/// `values[i]` its numbers. `n` of an estimate is the number of different questions.
///
/// # Panics
/// When there are not as many of both.
#[must_use]
pub fn mean_by_question<const K: usize>(questions: &[usize], values: &[[Number; K]], seed: u64) -> [Estimate; K] {
    assert_eq!(questions.len(), values.len(), "a question for each item");
    // Numbered in the order of their first items, so that names of questions change nothing.
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    let mut sums: Vec<[(f64, f64); K]> = Vec::new();
    for (question, numbers) in questions.iter().zip(values) {
        let place = *places.entry(*question).or_insert(sums.len());
        if place == sums.len() {
            sums.push([(0.0, 0.0); K]);
        }
        for (sum, number) in sums[place].iter_mut().zip(numbers) {
            if let Some(value) = number.value() {
                *sum = (sum.0 + value, sum.1 + 1.0);
            }
        }
    }
    bootstrap(sums.len(), seed, |drawn| {
        std::array::from_fn(|k| {
            let add = |all: (f64, f64), (of, times): (&[(f64, f64); K], &u32)| {
                let times = f64::from(*times);
                (all.0 + times * of[k].0, all.1 + times * of[k].1)
            };
            let (sum, count) = sums.iter().zip(drawn).fold((0.0, 0.0), add);
            Number::ratio(sum, count, Reason::Empty)
        })
    })
}
