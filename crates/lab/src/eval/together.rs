//! Ensembles as subjects.
//!
//! Options are not written but weighed: each member gives its log-likelihood of every option, as it would alone, and these
//! become the ensemble's. UniTE, which normalises every member over the union of what is considered, normalises over the
//! options: `P(o) = Z Σ λ_i softmax_o(log p_i(o))`, where Z, the geometric mean of what the members were divided by, keeps the
//! scale: scores by length depend on it, and an ensemble of one member is that member. The others mix the probabilities of
//! strings: `P(o) = Σ λ_i p_i(o)`, or the geometric mean of these.
//!
//! Texts are written one question after another, by all ensembles, so that a question is read once by each model however
//! many ensembles it belongs to.

use std::ops::ControlFlow;

use lathe_decode::ensemble::unite::log_sum_exp;
use lathe_decode::ensemble::{Ensemble, EnsembleEnd, Memory, Method, Mixture};
use lathe_decode::{DecodeError, Ended};
use lathe_model::PrefixCache;

use super::questions::Choice;
use super::subject::{Failed, Manner, OptionScore, Subject, Writing, Written};
use crate::ensemble::{EnsembleSpec, Members};
use crate::{Context, Error};

/// Ensembles of loaded models, asked together.
pub(super) struct Together<'a> {
    pub(super) members: &'a Members,
    /// Each ensemble, and the places of its members among the loaded models.
    pub(super) ensembles: &'a [(&'a EnsembleSpec, Vec<usize>)],
    pub(super) manner: &'a Manner,
}

/// Hears an ensemble's answer to a question: ensemble, question, answer.
type On<'a, T> = dyn FnMut(usize, usize, T) -> ControlFlow<()> + 'a;

impl Together<'_> {
    /// Scores the options of each question; `wanted` says which ensembles are asked which questions.
    ///
    /// # Errors
    /// A question does not fit a model; a model fails.
    pub(super) fn choices(
        &self,
        questions: &[&[Choice]],
        wanted: &dyn Fn(usize, usize) -> bool,
        on: &mut On<'_, Vec<OptionScore>>,
    ) -> Result<(), Failed> {
        // By question, then by model.
        let mut of_models: Vec<Vec<Vec<OptionScore>>> = questions.iter().map(|_| Vec::new()).collect();
        for loaded in &self.members.loaded {
            Subject { loaded, manner: self.manner }.choices(questions, &mut |question, of| {
                of_models[question].push(of);
                ControlFlow::Continue(())
            })?;
        }
        for (question, of_models) in of_models.iter().enumerate() {
            for (at, (ensemble, places)) in self.ensembles.iter().enumerate().filter(|(at, _)| wanted(*at, question)) {
                let of_members: Vec<&[OptionScore]> = places.iter().map(|place| &of_models[*place][..]).collect();
                if on(at, question, weighed(ensemble, &of_members)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes an answer to each prompt; `wanted` says which ensembles are asked which questions.
    ///
    /// # Errors
    /// A prompt does not fit a model; a model fails.
    pub(super) fn answers(
        &self,
        prompts: &[&str],
        writing: &Writing<'_>,
        wanted: &dyn Fn(usize, usize) -> bool,
        context: &Context<'_>,
        on: &mut On<'_, Written>,
    ) -> Result<(), Failed> {
        let written = crate::ensemble::Writing::greedy(writing.max_tokens, writing.stop);
        // What each model has read, whoever asked it.
        let mut pool: Vec<Option<PrefixCache>> = self.members.loaded.iter().map(|_| None).collect();
        let mut memories: Vec<Memory> = self.ensembles.iter().map(|_| Memory::default()).collect();
        for (question, prompt) in prompts.iter().enumerate() {
            for (at, (spec, places)) in self.ensembles.iter().enumerate().filter(|(at, _)| wanted(*at, question)) {
                let subject = |place: &usize| Subject { loaded: &self.members.loaded[*place], manner: self.manner };
                let prompts = places
                    .iter()
                    .map(|place| subject(place).prompt(question, prompt, writing.max_tokens))
                    .collect::<Result<Vec<_>, Failed>>()?;
                let memory = &mut memories[at];
                memory.put(places.iter().map(|place| pool[*place].take()).collect());
                let plan = spec.plan(&written);
                let write = |ensemble: &Ensemble<'_>| {
                    ensemble.write(&plan, question as u64, &prompts, memory, &mut |_, _| ControlFlow::Continue(()))
                };
                let text = self.members.with(places, context, write)?.map_err(|error| match error {
                    DecodeError::NotFinite { .. } => Failed::NotFinite { index: question },
                    other => other.into(),
                })?;
                places.iter().zip(memories[at].take()).for_each(|(place, cache)| pool[*place] = cache);
                let text = text.ok_or(Error::Interrupted)?;
                let eos = self.members.loaded[places[0]].tokenizer()?.special().eos.first().copied();
                let answer = Written {
                    text: String::from_utf8_lossy(&text.text).into_owned(),
                    tokens: text.tokens,
                    ended: ended(&text.ended, eos),
                    together: Some(text.counts),
                };
                if on(at, question, answer).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The end of a text in the words for one model: the end symbol is the first member's end token, and a full context is a
/// matter of length.
fn ended(end: &EnsembleEnd, eos: Option<u32>) -> Ended {
    match end {
        EnsembleEnd::EndSymbol => eos.map_or(Ended::Length, |id| Ended::EndToken { id }),
        EnsembleEnd::StopString { string } => Ended::StopString { string: string.clone() },
        EnsembleEnd::Length | EnsembleEnd::ContextFull { .. } => Ended::Length,
    }
}

/// An ensemble's log-likelihoods of options from its members'. Tokens are the first member's.
fn weighed(ensemble: &EnsembleSpec, members: &[&[OptionScore]]) -> Vec<OptionScore> {
    let weights = ensemble.normalised_weights();
    let mut log_p: Vec<Vec<f64>> =
        members.iter().map(|scores| scores.iter().map(|score| score.log_p).collect()).collect();
    let mut scale = 0.0;
    if matches!(ensemble.method, Method::Unite(_)) {
        let totals: Vec<f64> = log_p.iter().map(|of| log_sum_exp(of.iter().copied())).collect();
        log_p.iter_mut().zip(&totals).for_each(|(of, total)| of.iter_mut().for_each(|log_p| *log_p -= total));
        let mut parts: Vec<f64> = totals
            .iter()
            .zip(&weights)
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(total, weight)| total * weight)
            .collect();
        parts.sort_by(f64::total_cmp);
        scale = parts.iter().sum();
    }
    let is_geometric = matches!(ensemble.method, Method::Bytes(covers) if covers.mixture == Mixture::Geometric);
    let option = |at: usize| {
        let of = log_p.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
        // In an order that is not the members'.
        let mut parts: Vec<f64> = match is_geometric {
            true => of.map(|(log_p, weight)| log_p[at] * weight).collect(),
            false => of.map(|(log_p, weight)| log_p[at] + weight.ln()).collect(),
        };
        parts.sort_by(f64::total_cmp);
        if is_geometric { parts.iter().sum() } else { log_sum_exp(parts.iter().copied()) + scale }
    };
    (0..members[0].len()).map(|at| OptionScore { log_p: option(at), tokens: members[0][at].tokens }).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn ensemble(method: &str) -> EnsembleSpec {
        let spec = format!(r#"{{"members": ["smollm2", "gemma3-270m"], "method": {method}, "weights": [3, 1]}}"#);
        serde_json::from_str(&spec).unwrap()
    }

    #[test]
    fn one_member_is_that_member_at_any_length() {
        let scores = [-7.0, -3.5, -12.25].map(|log_p| OptionScore { log_p, tokens: 2 });
        for method in [r#"{"by": "unite"}"#, r#"{"by": "gac"}"#, r#"{"by": "bytes", "mixture": "geometric"}"#] {
            for (members, weights) in [(vec![&scores[..]], vec![1.0]), (vec![&scores[..]; 2], vec![3.0, 1.0])] {
                let spec = EnsembleSpec { weights: Some(weights), ..ensemble(method) };
                let found = weighed(&spec, &members);
                assert!(
                    found.iter().zip(&scores).all(|(a, b)| (a.log_p - b.log_p).abs() < 1e-12),
                    "{method}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn options_are_weighed_as_the_method_weighs_strings() {
        // p of two options under each member.
        let scores = |p: [f64; 2]| p.map(|p| OptionScore { log_p: p.ln(), tokens: 2 });
        let (a, b) = (scores([0.2, 0.1]), scores([0.01, 0.03]));
        let of = |method: &str| weighed(&ensemble(method), &[&a, &b]).iter().map(|s| s.log_p.exp()).collect::<Vec<_>>();
        let close = |found: Vec<f64>, expected: [f64; 2]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        };
        let scale = 0.3f64.powf(0.75) * 0.04f64.powf(0.25);
        close(of(r#"{"by": "unite"}"#), [0.75 * 2.0 / 3.0 + 0.25 * 0.25, 0.75 / 3.0 + 0.25 * 0.75].map(|p| p * scale));
        close(of(r#"{"by": "gac"}"#), [0.75 * 0.2 + 0.25 * 0.01, 0.75 * 0.1 + 0.25 * 0.03]);
        let geometric = [0.2f64.powf(0.75) * 0.01f64.powf(0.25), 0.1f64.powf(0.75) * 0.03f64.powf(0.25)];
        close(of(r#"{"by": "bytes", "mixture": "geometric"}"#), geometric);
        assert!(
            serde_json::from_str::<EnsembleSpec>(r#"{"members": ["smollm2"], "method": {"by": "unite", "q": 1}}"#)
                .is_err()
        );
    }
}
