//! The one sampler: from a row of logits to a token and what was known when it was drawn.
//!
//! The row is changed in this order: repetition penalty, presence penalty, tokens that may not come yet, temperature.
//! **The model's distribution p is the softmax of the result**, so that with penalties or a temperature other than 1,
//! log p is that of the changed model. Truncation ([`Truncation`]) makes the kept set S of p, m is the mass of S under p,
//! and q = p / m on S is what the token is drawn from.
//!
//! Temperature 0 is greedy decoding: the kept set is the one most probable token of p at temperature 1.

use std::cell::RefCell;

use lathe_kernels::logits::{largest, weights_into};
use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::truncation::{Kept, Row, Truncation, most_probable};

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f64,
    /// Which tokens may be drawn.
    #[serde(flatten)]
    pub truncation: Truncation,
    /// θ ≥ 1 (Keskar et al. 2019, section 4.1): logits of tokens that the prompt or the text has already are divided by
    /// it, negative ones multiplied. 1 changes nothing.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens that the text has already; the prompt does not count.
    pub presence_penalty: f64,
}

impl Default for Sampling {
    /// The model as it is.
    fn default() -> Self {
        Self { temperature: 1.0, truncation: Truncation::default(), repetition_penalty: 1.0, presence_penalty: 0.0 }
    }
}

/// One drawn token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The token.
    pub id: u32,
    /// The bytes that it adds to the text.
    pub bytes: Vec<u8>,
    /// Its log-probability under the model, nats.
    pub log_p: f64,
    /// Its log-probability under the truncated distribution that it was drawn from, nats.
    pub log_q: f64,
    /// Number of tokens in the kept set.
    pub kept: usize,
    /// ln m: log of the kept set's mass under the model, nats. `log_p = log_q + log_mass`.
    pub log_mass: f64,
    /// The most probable tokens under the model, the most probable first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
}

/// A token that could have been drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The token.
    pub id: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its log-probability under the model, nats.
    pub log_p: f64,
}

/// What a token is drawn after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History<'a> {
    /// Tokens of the prompt.
    pub(crate) prompt: &'a [u32],
    /// Tokens drawn so far.
    pub(crate) drawn: &'a [u32],
    /// Tokens that may not come yet.
    pub(crate) forbidden: &'a [u32],
}

thread_local! {
    /// Memory of the row that a thread is at: what it wrote for the last one is still in its cache.
    static WEIGHTS: RefCell<Weights> = RefCell::default();
}

#[derive(Debug, Default)]
struct Weights {
    /// `e^(logit − max)` of each token.
    weights: Vec<f32>,
    /// Sums of [`BLOCK`] weights each.
    sums: Vec<f64>,
}

/// Why no token was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    NotFinite,
    NothingPossible,
}

/// Weights that are summed together, so that the drawn one is found without looking at all.
const BLOCK: usize = 512;

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.truncation.check()?;
        let bad = |field, value: f64, hint| {
            Err(DecodeError::Option { field, problem: format!("{value} is out of range"), hint: Some(hint) })
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad("--temperature", self.temperature, "0 is greedy decoding, 1 the model as it is");
        }
        if !(self.repetition_penalty >= 1.0 && self.repetition_penalty.is_finite()) {
            return bad("--repetition-penalty", self.repetition_penalty, "1 changes nothing; 1.1 to 1.3 is usual");
        }
        if !self.presence_penalty.is_finite() {
            return bad("--presence-penalty", self.presence_penalty, "0 changes nothing");
        }
        Ok(())
    }

    /// Draws the token at `uniform` in `[0, 1)` of the truncated distribution's cumulative sum over rising ids.
    /// `alternatives` of the most probable tokens are recorded. Bytes are left empty; `logits` are left as penalties and
    /// temperature made them.
    ///
    /// # Errors
    /// Logits are NaN or +∞, or none is above −∞.
    pub(crate) fn draw(
        &self,
        logits: &mut [f32],
        history: &History<'_>,
        uniform: f64,
        alternatives: usize,
    ) -> Result<Step, NoToken> {
        self.change(logits, history);
        WEIGHTS.with_borrow_mut(|memory| {
            let (row, sums) = weigh(logits, memory)?;
            Ok(self.draw_from(&row, sums, uniform, alternatives))
        })
    }

    fn draw_from(&self, row: &Row<'_>, sums: &[f64], uniform: f64, alternatives: usize) -> Step {
        let kept = self.rules().apply(row);
        let (count, mass) = match &kept {
            Kept::All => (row.weights.iter().filter(|weight| **weight > 0.0).count(), row.total),
            Kept::Ids(ids) => (ids.len(), ids.iter().map(|id| f64::from(row.weights[*id as usize])).sum()),
        };
        let id = match &kept {
            Kept::All => drawn_from_all(row.weights, sums, uniform * mass),
            Kept::Ids(ids) => drawn(ids.iter().copied(), row.weights, uniform * mass),
        };
        let log_p = |id: u32| f64::from(row.logits[id as usize]) - f64::from(row.max) - row.total.ln();
        // The kept set may be everything, and its sum in another order a little more than the total.
        let log_mass = if mass >= row.total || count == 0 { 0.0 } else { (mass / row.total).ln() };
        let alternatives = most_probable(row, alternatives).into_iter();
        Step {
            id,
            bytes: Vec::new(),
            log_p: log_p(id),
            // Not above 0, where the kept set is one token.
            log_q: (log_p(id) - log_mass).min(0.0),
            kept: count,
            log_mass,
            alternatives: alternatives.map(|id| Alternative { id, bytes: Vec::new(), log_p: log_p(id) }).collect(),
        }
    }

    /// Penalties, masked tokens and temperature.
    fn change(&self, logits: &mut [f32], history: &History<'_>) {
        #[expect(clippy::cast_possible_truncation, reason = "logits are f32")]
        let [theta, presence, temperature] =
            [self.repetition_penalty, self.presence_penalty, self.temperature].map(|value| value as f32);
        let unique = |ids: &[&[u32]]| {
            let mut ids = ids.concat();
            ids.sort_unstable();
            ids.dedup();
            ids.retain(|id| (*id as usize) < logits.len());
            ids
        };
        let repeated = if theta == 1.0 { Vec::new() } else { unique(&[history.prompt, history.drawn]) };
        let present = if presence == 0.0 { Vec::new() } else { unique(&[history.drawn]) };
        let forbidden = unique(&[history.forbidden]);
        for id in repeated {
            let logit = &mut logits[id as usize];
            *logit = if *logit > 0.0 { *logit / theta } else { *logit * theta };
        }
        present.into_iter().for_each(|id| logits[id as usize] -= presence);
        forbidden.into_iter().for_each(|id| logits[id as usize] = f32::NEG_INFINITY);
        if temperature != 1.0 && temperature != 0.0 {
            logits.iter_mut().for_each(|logit| *logit /= temperature);
        }
    }

    fn rules(&self) -> Truncation {
        if self.temperature == 0.0 { Truncation { top_k: Some(1), ..Truncation::default() } } else { self.truncation }
    }
}

/// Weights of the changed logits and their sums.
fn weigh<'a>(logits: &'a [f32], memory: &'a mut Weights) -> Result<(Row<'a>, &'a [f64]), NoToken> {
    let Weights { weights, sums } = memory;
    let max = largest(logits);
    if max == f32::INFINITY {
        return Err(NoToken::NotFinite);
    }
    if max == f32::NEG_INFINITY {
        let is_nan = logits.iter().any(|logit| logit.is_nan());
        return Err(if is_nan { NoToken::NotFinite } else { NoToken::NothingPossible });
    }
    weights.resize(logits.len(), 0.0);
    weights_into(logits, max, weights);
    sums.clear();
    sums.extend(weights.chunks(BLOCK).map(sum));
    let total: f64 = sums.iter().sum();
    if !total.is_finite() {
        return Err(NoToken::NotFinite);
    }
    Ok((Row { logits, max, weights, total }, sums))
}

/// Sum in eight interleaved parts.
fn sum(values: &[f32]) -> f64 {
    let mut parts = [0.0; 8];
    let (whole, rest) = values.as_chunks::<8>();
    for chunk in whole {
        parts.iter_mut().zip(chunk).for_each(|(part, value)| *part += f64::from(*value));
    }
    parts.iter().sum::<f64>() + rest.iter().map(|value| f64::from(*value)).sum::<f64>()
}

/// The first id at which the cumulative weight exceeds `at`; the last one with a weight where rounding leaves none.
fn drawn(ids: impl Iterator<Item = u32>, weights: &[f32], mut at: f64) -> u32 {
    let mut last = 0;
    for id in ids {
        let weight = f64::from(weights[id as usize]);
        if weight > 0.0 {
            last = id;
            if at < weight {
                break;
            }
            at -= weight;
        }
    }
    last
}

fn drawn_from_all(weights: &[f32], sums: &[f64], mut at: f64) -> u32 {
    let last = sums.iter().rposition(|sum| *sum > 0.0).unwrap_or(0);
    let mut block = 0;
    while block < last && at >= sums[block] {
        at -= sums[block];
        block += 1;
    }
    #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
    let (from, to) = ((block * BLOCK) as u32, weights.len().min((block + 1) * BLOCK) as u32);
    drawn(from..to, weights, at)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::uniform;
    use proptest::prelude::*;

    const NOTHING: History<'static> = History { prompt: &[], drawn: &[], forbidden: &[] };

    fn draw(sampling: Sampling, logits: &[f32], history: &History<'_>, uniform: f64) -> Result<Step, NoToken> {
        sampling.draw(&mut logits.to_vec(), history, uniform, 2)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn a_step_says_what_was_known() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.2].iter().map(|p| p.ln() + 3.0).collect();
        let truncation = Truncation { top_k: Some(2), ..Truncation::default() };
        let step = draw(Sampling { truncation, ..Sampling::default() }, &logits, &NOTHING, 0.7).unwrap();
        // 0.7 of 0.8 is 0.56: the second token.
        assert_eq!((step.id, step.kept), (1, 2));
        assert!(close(step.log_p, 0.3f64.ln()) && close(step.log_mass, 0.8f64.ln()), "{step:?}");
        assert!(close(step.log_q, (0.3f64 / 0.8).ln()), "{step:?}");
        assert_eq!(step.alternatives.iter().map(|a| a.id).collect::<Vec<_>>(), [0, 1]);
        assert!(close(step.alternatives[0].log_p, 0.5f64.ln()));
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_probable() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        for at in [0.0, 0.5, 0.999] {
            let step = draw(greedy, &[1.0, 2.0, 2.0], &NOTHING, at).unwrap();
            assert_eq!((step.id, step.kept, step.log_q), (1, 1, 0.0));
            assert!(close(step.log_p, step.log_mass));
        }
    }

    #[test]
    fn penalties_and_masks() {
        let history = History { prompt: &[0], drawn: &[1, 1], forbidden: &[3] };
        let sampling = Sampling { repetition_penalty: 2.0, presence_penalty: 0.5, ..Sampling::default() };
        let mut logits = [1.0, -1.0, 1.0, 9.0];
        sampling.change(&mut logits, &history);
        assert_eq!(logits, [0.5, -2.5, 1.0, f32::NEG_INFINITY]);
        let halved = Sampling { temperature: 2.0, ..Sampling::default() };
        halved.change(&mut logits, &NOTHING);
        assert_eq!(logits, [0.25, -1.25, 0.5, f32::NEG_INFINITY]);
    }

    #[test]
    fn logits_that_say_nothing_are_refused() {
        let any = Sampling::default();
        assert_eq!(draw(any, &[0.0, f32::NAN], &NOTHING, 0.5), Err(NoToken::NotFinite));
        assert_eq!(draw(any, &[f32::NAN; 2], &NOTHING, 0.5), Err(NoToken::NotFinite));
        assert_eq!(draw(any, &[0.0, f32::INFINITY], &NOTHING, 0.5), Err(NoToken::NotFinite));
        assert_eq!(draw(any, &[f32::NEG_INFINITY; 3], &NOTHING, 0.5), Err(NoToken::NothingPossible));
        assert_eq!(draw(any, &[f32::NEG_INFINITY, -7.0], &NOTHING, 0.5).unwrap().id, 1);
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Sampling { temperature: bad, ..any }.check().is_err());
            assert!(Sampling { repetition_penalty: bad, ..any }.check().is_err());
        }
        assert!(Sampling { presence_penalty: f64::NAN, ..any }.check().is_err());
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        let probabilities = [0.4f32, 0.1, 0.3, 0.2];
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut counts = [0u32; 4];
        for item in 0..20_000 {
            counts[draw(Sampling::default(), &logits, &NOTHING, uniform(1, item, 0)).unwrap().id as usize] += 1;
        }
        for (count, p) in counts.iter().zip(probabilities.map(f64::from)) {
            let error = (p * (1.0 - p) / 20_000.0).sqrt();
            assert!((f64::from(*count) / 20_000.0 - p).abs() < 4.0 * error, "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn drawing_in_blocks_is_drawing_one_by_one(
            row in proptest::collection::vec(-20.0f32..20.0, 1..3000),
            at in 0.0f64..1.0,
        ) {
            let step = draw(Sampling::default(), &row, &NOTHING, at).unwrap();
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f64> = row.iter().map(|l| f64::from(l - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let before: f64 = weights[..step.id as usize].iter().sum();
            let weight = weights[step.id as usize];
            prop_assert!(before / total <= at + 1e-6 && at - 1e-6 < (before + weight) / total);
            prop_assert!(close(step.log_p, (weight / total).ln()));
            prop_assert_eq!((step.log_mass, step.log_q), (0.0, step.log_p));
        }

        #[test]
        fn what_is_recorded_agrees(
            row in proptest::collection::vec(-9.0f32..9.0, 1..300),
            k in 1usize..310,
            p in 0.01f64..1.0,
            at in 0.0f64..1.0,
        ) {
            let truncation = Truncation { top_k: Some(k), top_p: Some(p), ..Truncation::default() };
            let step = draw(Sampling { truncation, ..Sampling::default() }, &row, &NOTHING, at).unwrap();
            prop_assert!(close(step.log_q + step.log_mass, step.log_p));
            prop_assert!(step.log_mass <= 0.0 && step.log_q <= 0.0 && step.kept <= k.min(row.len()));
        }
    }
}
