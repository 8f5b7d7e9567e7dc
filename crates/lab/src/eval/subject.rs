//! Whom questions are put to. A subject gets text and answers with log-likelihoods or text; what becomes of the text, in
//! which tokens and behind which template, is its own affair.
//!
//! Tokens are made as lm-evaluation-harness makes them (docs/methods/evaluation.md), so that equal strings have equal
//! log-likelihoods.

use std::ops::ControlFlow;

use lathe_decode::ensemble::Counts;
use lathe_decode::{DecodeError, Decoding, Ended, Event, Fork, Request, Room, Sampling, Stops, Writer};
use lathe_model::KvCache;
use lathe_tokenizer::{BosEos, Markup, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::questions::Choice;
use crate::generate::{Turn, batch_by_memory, beginning, encode_prompt, rendered};
use crate::{Error, Loaded};

/// What becomes of a text that is longer than a model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlong {
    /// It is an error.
    #[default]
    Refuse,
    /// Its beginning is dropped, as lm-evaluation-harness does without a word.
    TruncateLeft,
}

/// How a subject is asked.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Whether a question is the beginning of a text, or what a user says.
    pub turn: Turn,
    /// What becomes of texts that are too long.
    pub overlong: Overlong,
    /// Questions at once; none chooses by memory. No answer depends on it.
    pub batch: Option<usize>,
}

/// What a model says of an option.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionScore {
    /// Σ log p of the target's tokens, nats.
    pub log_p: f64,
    /// Those tokens.
    pub tokens: usize,
}

/// What a model wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// The text, without stop string; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Its tokens, the end token included.
    pub tokens: usize,
    /// Why it ended.
    pub ended: Ended,
    /// Of an ensemble: what happened.
    pub together: Option<Counts>,
}

/// How an answer is written: greedily.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing<'a> {
    /// Tokens after which it ends.
    pub max_tokens: usize,
    /// Texts that end it.
    pub stop: &'a [String],
}

/// Why a question was not answered.
#[derive(Debug)]
pub enum Failed {
    /// The question itself.
    Question {
        /// Its index among those that were asked.
        index: usize,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// The model gave NaN or an infinite logit.
    NotFinite {
        /// Index of the question.
        index: usize,
    },
    /// Anything else.
    Task(Box<Error>),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Task(Box::new(error.into()))
    }
}

/// What answers questions: a model, in a manner.
pub struct Subject<'a> {
    /// The model.
    pub loaded: &'a Loaded,
    /// How it is asked.
    pub manner: &'a Manner,
}

impl Subject<'_> {
    /// Scores the options of each question, in order. Where `on` breaks, nothing more is asked.
    ///
    /// # Errors
    /// A question does not fit the model; the model fails.
    pub fn choices(
        &self,
        questions: &[&[Choice]],
        on: &mut dyn FnMut(usize, Vec<OptionScore>) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        let asked: Vec<Vec<Asked>> = questions
            .par_iter()
            .enumerate()
            .map(|(index, options)| {
                let forks = options.iter().map(|option| self.fork(index, option));
                Ok(merged(forks.collect::<Result<Vec<_>, Failed>>()?))
            })
            .collect::<Result<_, Failed>>()?;
        // Where each fork belongs, in the order that they are scored.
        let of_fork: Vec<usize> =
            asked.iter().enumerate().flat_map(|(index, forks)| std::iter::repeat_n(index, forks.len())).collect();
        let options: Vec<Vec<usize>> = asked.iter().flatten().map(|asked| asked.options.clone()).collect();
        let forks: Vec<Fork> = asked.into_iter().flatten().map(|asked| asked.fork).collect();
        let mut scores: Vec<Option<OptionScore>> = Vec::new();
        let scored = lathe_decode::likelihoods(&self.loaded.decoder, &forks, self.room(), &mut |fork, likelihoods| {
            let index = of_fork[fork];
            scores.resize(questions[index].len(), None);
            for (option, likelihood) in options[fork].iter().zip(likelihoods) {
                scores[*option] = Some(OptionScore { log_p: likelihood.log_p, tokens: likelihood.tokens });
            }
            if of_fork.get(fork + 1) == Some(&index) {
                return ControlFlow::Continue(());
            }
            on(index, scores.drain(..).flatten().collect())
        });
        scored.map_err(|error| match error {
            DecodeError::NotFinite { item, .. } => Failed::NotFinite { index: of_fork[item as usize] },
            other => other.into(),
        })
    }

    /// Writes an answer to each prompt, in the order in which they end. Where `on` breaks, nothing more is asked.
    ///
    /// # Errors
    /// A prompt does not fit the model; the model fails.
    pub fn answers(
        &self,
        prompts: &[&str],
        writing: &Writing<'_>,
        on: &mut dyn FnMut(usize, Written) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        let tokenizer = self.loaded.tokenizer()?;
        let encoded: Vec<Vec<u32>> = prompts
            .par_iter()
            .enumerate()
            .map(|(index, prompt)| self.prompt(index, prompt, writing.max_tokens))
            .collect::<Result<_, Failed>>()?;
        let longest = encoded.iter().map(Vec::len).max().unwrap_or(0) + writing.max_tokens;
        let bytes = |id: u32| tokenizer.token_bytes(id).as_slice().to_vec();
        let batch = self.manner.batch.unwrap_or_else(|| batch_by_memory(self.loaded, longest));
        let writer = Writer { decoder: &self.loaded.decoder, bytes: &bytes, batch };
        let stops =
            Stops { end_tokens: tokenizer.special().eos.clone(), ids: Vec::new(), strings: writing.stop.to_vec() };
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let decoding = Decoding { sampling: greedy, stops, max_tokens: writing.max_tokens, ..Decoding::default() };
        let requests = encoded.into_iter().enumerate().map(|(index, prompt)| Request { item: index as u64, prompt });
        let written = lathe_decode::generate(&writer, &decoding, requests, &mut |event| match event {
            Event::Step { .. } => ControlFlow::Continue(()),
            Event::Finished(generation) => on(
                generation.item as usize,
                Written {
                    text: String::from_utf8_lossy(&generation.text).into_owned(),
                    tokens: generation.steps.len(),
                    ended: generation.ended,
                    together: None,
                },
            ),
        });
        written.map_err(|error| match error {
            DecodeError::NotFinite { item, .. } => Failed::NotFinite { index: item as usize },
            other => other.into(),
        })
    }

    /// Tokens of a prompt that leaves room for so many more.
    pub(super) fn prompt(&self, index: usize, prompt: &str, room: usize) -> Result<Vec<u32>, Failed> {
        let ids = encode_prompt(prompt, &self.manner.turn, self.loaded)?;
        self.fitting(index, ids, room)
    }

    /// How much is scored at once.
    pub(crate) fn room(&self) -> Room {
        const BYTES: usize = 1 << 30;
        let position = KvCache::bytes_per_position(self.loaded.decoder.spec()).max(1);
        Room { forks: self.manner.batch.unwrap_or(64), positions: BYTES / position }
    }

    fn fork(&self, index: usize, option: &Choice) -> Result<(Vec<u32>, Vec<u32>), Failed> {
        let tokenizer = self.loaded.tokenizer()?;
        let continuation = option.delimiter.clone() + &option.target;
        let (context, target) = match rendered(&option.context, &self.manner.turn, self.loaded)? {
            Some(text) => pair(tokenizer, &text, &continuation, Origin::Template)?,
            None => pair(tokenizer, &option.context, &continuation, Origin::Text)?,
        };
        if target.is_empty() || context.is_empty() {
            let part = if context.is_empty() { "prompt" } else { "target" };
            let problem = format!("{part}: `{}` adds no token", if context.is_empty() { "" } else { &option.target });
            return Err(Failed::Question { index, problem, hint: "it joins with the text before it" });
        }
        // The last token is predicted and never read.
        let context = self.fitting(index, context, target.len() - 1)?;
        Ok((context, target))
    }

    /// A text that has room for so many tokens after it.
    fn fitting(&self, index: usize, ids: Vec<u32>, after: usize) -> Result<Vec<u32>, Failed> {
        let context = self.loaded.decoder.spec().context_length;
        let room = context.saturating_sub(after);
        if ids.len() <= room {
            return Ok(ids);
        }
        match self.manner.overlong {
            Overlong::TruncateLeft if room > 0 => Ok(ids[ids.len() - room..].to_vec()),
            Overlong::TruncateLeft | Overlong::Refuse => {
                let tokens = ids.len() + after;
                let problem =
                    format!("the text needs {tokens} tokens and the context of {} is {context}", self.loaded.reference);
                let hint = "fewer examples make it shorter; --truncate-left drops its beginning";
                Err(Failed::Question { index, problem, hint })
            }
        }
    }
}

/// A context with the targets of all options that share it.
struct Asked {
    fork: Fork,
    /// Which options its targets are.
    options: Vec<usize>,
}

/// Puts options with the same context together.
fn merged(pairs: Vec<(Vec<u32>, Vec<u32>)>) -> Vec<Asked> {
    let mut all: Vec<Asked> = Vec::new();
    for (option, (context, target)) in pairs.into_iter().enumerate() {
        match all.iter_mut().find(|asked| asked.fork.context == context) {
            Some(asked) => {
                asked.fork.targets.push(target);
                asked.options.push(option);
            }
            None => all.push(Asked { fork: Fork { context, targets: vec![target] }, options: vec![option] }),
        }
    }
    all
}

/// Where a text comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It is the beginning of one, and gets the tokens that the tokenizer puts there.
    Text,
    /// A chat template, which wrote them itself.
    Template,
}

/// Tokens of a context and of what follows it, as lm-evaluation-harness makes them: white space at the end of the context
/// belongs to what follows; the tokens of the target are those of the whole text beyond as many as the context alone has.
fn pair(
    tokenizer: &Tokenizer,
    context: &str,
    continuation: &str,
    origin: Origin,
) -> Result<(Vec<u32>, Vec<u32>), Error> {
    // Python's white space has four characters more.
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let bare = context.trim_end_matches(is_space);
    let text = context.to_owned() + continuation;
    if bare.is_empty() {
        // Behind the start token, or the end token of a model without one.
        let target = tokenizer.encode(&text, BosEos::Omit, Markup::Text)?;
        return Ok((beginning(tokenizer, "")?, target));
    }
    let encode = |text: &str| match origin {
        Origin::Text => beginning(tokenizer, text),
        Origin::Template => Ok(tokenizer.encode(text, BosEos::Omit, Markup::Parse)?),
    };
    let before = encode(bare)?;
    let mut whole = encode(&text)?;
    let target = whole.split_off(before.len().min(whole.len()));
    Ok((before, target))
}

#[cfg(test)]
mod tests;
