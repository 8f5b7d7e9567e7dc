//! Asking a model: what it writes with and without the context, how likely both answers are, where it looks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use lathe_decode::{DecodeError, Fork};
use lathe_measure::attention::tokens_in_range;
use lathe_measure::context::{context_preference, log_probability_margin, mentions};
use lathe_measure::run::{ContextAttention, attention_on_context};
use lathe_measure::{Number, Reason};
use lathe_tokenizer::{BosEos, Markup};

use super::data::{Conflict, Conflicts, question};
use super::prompt::{Fitted, PromptForm, continued, fit, located};
use super::{AttentionDetail, ContextItem, ContextSpec, KnownBy};
use crate::eval::subject::{Failed, Manner, Overlong, Subject, Writing, Written};
use crate::{Error, Loaded};

/// What was written without a context, by question.
#[derive(Clone, Debug, Default)]
pub(super) struct Recalled(BTreeMap<String, String>);

impl Recalled {
    /// Takes what an earlier run has written.
    pub(super) fn remember(&mut self, item: &ContextItem) {
        if let Some(text) = &item.closed_book {
            self.0.insert(item.question.clone(), text.clone());
        }
    }
}

/// One model, and what it is asked.
pub(super) struct Asking<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) name: &'a str,
    /// Never [`PromptForm::Auto`].
    pub(super) template: PromptForm,
    pub(super) spec: &'a ContextSpec,
    pub(super) conflicts: &'a Conflicts,
    pub(super) recalled: &'a mut Recalled,
}

/// How likely both answers are.
struct Likely {
    context: (f64, usize),
    memorised: (f64, usize),
    preference: Number,
}

impl Asking<'_> {
    /// Measures the items of some records.
    pub(super) fn items(&mut self, records: &[usize], is_first: bool) -> Result<Vec<(usize, ContextItem)>, Error> {
        let conflicts = self.conflicts;
        let of: Vec<&Conflict> = records.iter().map(|record| &conflicts.records[*record]).collect();
        let manner = Manner { turn: self.template.turn(), overlong: Overlong::Refuse, batch: self.spec.batch };
        let subject = Subject { loaded: self.loaded, manner: &manner };
        let fitted = of.iter().map(|conflict| self.fitted(conflict, &manner)).collect::<Result<Vec<_>, _>>()?;
        self.recall(&of, &subject, is_first)?;
        let outputs = self.write(&of, &fitted, &subject)?;
        let likely = self.likely(&of, &fitted, &subject)?;
        let attention = self.attention(&fitted, &manner)?;
        let items = of.into_iter().zip(fitted).zip(outputs).zip(likely).zip(attention);
        Ok(records
            .iter()
            .zip(items)
            .map(|(record, ((((conflict, fitted), output), likely), attention))| {
                (*record, self.item(conflict, fitted, output, &likely, attention))
            })
            .collect())
    }

    fn item(
        &self,
        conflict: &Conflict,
        fitted: Fitted,
        output: Written,
        likely: &Likely,
        attention: Option<Vec<f64>>,
    ) -> ContextItem {
        let found = |text: &str| mentions(text, &conflict.answer, &conflict.memorised, self.spec.matching);
        let closed_book = match self.spec.known_by {
            KnownBy::Each | KnownBy::First => self.recalled.0.get(&conflict.question).cloned(),
            KnownBy::Data | KnownBy::Skip => None,
        };
        let recalled = closed_book.as_deref().map(found);
        ContextItem {
            model: self.name.to_owned(),
            record: conflict.record,
            context: conflict.context.clone(),
            question: conflict.question.clone(),
            answer: conflict.answer.clone(),
            memorised: conflict.memorised.clone(),
            mentions: found(&output.text),
            class: found(&output.text).class(),
            output: output.text,
            tokens: output.tokens,
            preference: likely.preference,
            margin: log_probability_margin(likely.context, likely.memorised),
            log_p_context: likely.context,
            log_p_memorised: likely.memorised,
            closed_book,
            known: recalled.map(|found| found.parametric && !found.context).or(conflict.known),
            is_lost: fitted.is_cut && !fitted.context.contains(&conflict.answer),
            is_cut: fitted.is_cut,
            attention,
        }
    }

    /// The prompt, with room for what is written and for both answers.
    fn fitted(&self, conflict: &Conflict, manner: &Manner) -> Result<Fitted, Error> {
        let tokenizer = self.loaded.tokenizer()?;
        let mut after = self.spec.max_tokens;
        for answer in [&conflict.answer, &conflict.memorised] {
            // One more for a space that becomes a token of its own.
            after = after.max(tokenizer.encode(answer, BosEos::Omit, Markup::Text)?.len() + 1);
        }
        let build =
            |context: &str| self.template.prompt(self.spec.instruction.as_deref(), Some(context), &conflict.question);
        fit(self.loaded, &manner.turn, &conflict.context, after, &build)?
            .map_err(|problem| question(&self.conflicts.file, conflict.record, problem))
    }

    /// Asks without a context what has not been asked before.
    fn recall(&mut self, of: &[&Conflict], subject: &Subject<'_>, is_first: bool) -> Result<(), Error> {
        let is_asked = match self.spec.known_by {
            KnownBy::Each => true,
            KnownBy::First => is_first,
            KnownBy::Data | KnownBy::Skip => false,
        };
        if !is_asked {
            return Ok(());
        }
        let mut new = BTreeSet::new();
        let asked: Vec<&&Conflict> = of
            .iter()
            .filter(|conflict| {
                !self.recalled.0.contains_key(&conflict.question) && new.insert(conflict.question.as_str())
            })
            .collect();
        let prompts: Vec<String> = asked
            .iter()
            .map(|conflict| self.template.prompt(self.spec.instruction.as_deref(), None, &conflict.question))
            .collect();
        let written = self.written(&prompts, subject, |index| asked[index].record)?;
        for (conflict, written) in asked.iter().zip(written) {
            self.recalled.0.insert(conflict.question.clone(), written.text);
        }
        Ok(())
    }

    fn write(&self, of: &[&Conflict], fitted: &[Fitted], subject: &Subject<'_>) -> Result<Vec<Written>, Error> {
        let prompts: Vec<String> = fitted.iter().map(|fitted| fitted.prompt.clone()).collect();
        self.written(&prompts, subject, |index| of[index].record)
    }

    /// What the model writes greedily up to the end of the line, in the order of the prompts.
    fn written(
        &self,
        prompts: &[String],
        subject: &Subject<'_>,
        record: impl Fn(usize) -> usize,
    ) -> Result<Vec<Written>, Error> {
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let writing = Writing { max_tokens: self.spec.max_tokens, stop: &["\n".to_owned()] };
        let mut all: Vec<Option<Written>> = vec![None; prompts.len()];
        subject
            .answers(&prompts, &writing, &mut |index, written| {
                all[index] = Some(Written { text: written.text.trim().to_owned(), ..written });
                ControlFlow::Continue(())
            })
            .map_err(|failed| failure(failed, &self.conflicts.file, self.name, &record))?;
        all.into_iter().map(|written| written.ok_or(Error::Interrupted)).collect()
    }

    /// Log-probabilities of both answers, and of the tokens that they begin with.
    fn likely(&self, of: &[&Conflict], fitted: &[Fitted], subject: &Subject<'_>) -> Result<Vec<Likely>, Error> {
        let mut forks = Vec::with_capacity(of.len());
        for (conflict, fitted) in of.iter().zip(fitted) {
            let turn = &subject.manner.turn;
            let tokens = |answer: &str| {
                let answer = format!("{}{answer}", self.template.delimiter());
                let (before, after) = continued(self.loaded, turn, &fitted.prompt, &answer)?;
                match after.is_empty() {
                    true => Err(question(&self.conflicts.file, conflict.record, format!("`{answer}` has no token"))),
                    false => Ok((before, after)),
                }
            };
            let (before, context) = tokens(&conflict.answer)?;
            let (_, memorised) = tokens(&conflict.memorised)?;
            let firsts = [vec![context[0]], vec![memorised[0]]];
            forks.push(Fork { context: before, targets: [vec![context, memorised], firsts.to_vec()].concat() });
        }
        let mut all = Vec::with_capacity(of.len());
        let scored = lathe_decode::likelihoods(&self.loaded.decoder, &forks, subject.room(), &mut |index, found| {
            let targets = &forks[index].targets;
            let preference = match targets[2] == targets[3] {
                true => Number::Undefined(Reason::SameToken),
                false => context_preference(found[2].log_p, found[3].log_p),
            };
            all.push(Likely {
                context: (found[0].log_p, found[0].tokens),
                memorised: (found[1].log_p, found[1].tokens),
                preference,
            });
            ControlFlow::Continue(())
        });
        scored.map_err(|error| {
            let failed = match error {
                DecodeError::NotFinite { item, .. } => Failed::NotFinite { index: item as usize },
                other => other.into(),
            };
            failure(failed, &self.conflicts.file, self.name, &|index: usize| of[index].record)
        })?;
        Ok(all)
    }

    /// Attention of the last position on the context, by layer.
    fn attention(&self, fitted: &[Fitted], manner: &Manner) -> Result<Vec<Option<Vec<f64>>>, Error> {
        let none = || fitted.iter().map(|_| None).collect();
        if self.spec.attention == AttentionDetail::Skip {
            return Ok(none());
        }
        let (mut prompts, mut places) = (Vec::new(), Vec::new());
        for (index, fitted) in fitted.iter().enumerate() {
            let (text, tokens) = located(self.loaded, &manner.turn, &fitted.prompt)?;
            // A template may have changed the text; then nobody knows which tokens are the context's.
            let Some(start) = text.find(&fitted.context).filter(|_| !fitted.context.is_empty()) else { continue };
            let ranges: Vec<_> = tokens.iter().map(|token| token.bytes.clone().unwrap_or(0..0)).collect();
            let positions = tokens_in_range(&ranges, start..start + fitted.context.len());
            prompts.push(ContextAttention { ids: tokens.iter().map(|token| token.id).collect(), positions });
            places.push(index);
        }
        let mut all: Vec<Option<Vec<f64>>> = none();
        for (place, shares) in places.into_iter().zip(attention_on_context(&self.loaded.decoder, &prompts)?) {
            all[place] = Some(shares);
        }
        Ok(all)
    }
}

/// What went wrong, with the record that it went wrong with.
fn failure(failed: Failed, file: &Path, model: &str, record: &dyn Fn(usize) -> usize) -> Error {
    match failed {
        Failed::Question { index, problem, .. } => question(file, record(index), problem),
        Failed::NotFinite { index } => {
            Error::NotFinite { model: model.to_owned(), task: "context".into(), record: record(index) }
        }
        Failed::Task(error) => *error,
    }
}
