//! Methods that choose single bytes, and the gate around them.

use std::ops::ControlFlow;

use super::gate::Round;
use super::{Session, spread};
use crate::DecodeError;
use crate::ensemble::chared::Table;
use crate::ensemble::covers::{Beam, Mixture, NextByte, Paths, mix};
use crate::ensemble::{Covers, EnsembleEnd, Origin, StepListener, Symbol, Vote, by_rank, sum_in_order};

/// How far bytes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// To the end of the text.
    End,
    /// To the end of a word, where all tokenizers have a boundary: what is decided together behind the gate.
    Word,
}

/// Whether a word has begun.
#[derive(Default)]
struct Word {
    begun: bool,
}

impl Word {
    /// Whether the word is over before this symbol.
    fn ends_before(&mut self, symbol: &Symbol) -> bool {
        let is_space = match symbol {
            Symbol::End => true,
            Symbol::Text(bytes) => bytes.first().is_some_and(u8::is_ascii_whitespace),
        };
        let over = self.begun && is_space;
        self.begun |= !is_space;
        over
    }
}

impl Session<'_, '_> {
    /// Single bytes, with their distributions over all spellings.
    pub(in crate::ensemble) fn write_bytes(
        &mut self,
        options: &Covers,
        on: &mut StepListener<'_>,
    ) -> Result<ControlFlow<()>, DecodeError> {
        self.by_bytes(on, |this, until, on| this.bytes(options, until, on))
    }

    /// Single bytes, with a vote on where tokens end.
    pub(in crate::ensemble) fn write_characters(
        &mut self,
        on: &mut StepListener<'_>,
    ) -> Result<ControlFlow<()>, DecodeError> {
        self.by_bytes(on, Self::characters)
    }

    /// A method of bytes to the end, or a word at a time behind the gate.
    fn by_bytes(
        &mut self,
        on: &mut StepListener<'_>,
        write: impl Fn(&mut Self, Until, &mut StepListener<'_>) -> Result<ControlFlow<()>, DecodeError>,
    ) -> Result<ControlFlow<()>, DecodeError> {
        while self.goes_on() {
            let flow = match self.plan.gate {
                None => write(self, Until::End, on)?,
                Some(safe) => match self.draft_and_check(&safe, on)? {
                    Round::Stands(flow) => flow,
                    Round::Disputed(_) => {
                        let flow = write(self, Until::Word, on)?;
                        self.read_all()?;
                        flow
                    }
                },
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Bytes by beams of covers.
    fn bytes(
        &mut self,
        options: &Covers,
        until: Until,
        on: &mut StepListener<'_>,
    ) -> Result<ControlFlow<()>, DecodeError> {
        let speaking = self.speaking();
        let weights: Vec<f64> = speaking.iter().map(|member| self.weights[*member]).collect();
        let since = (self.seconds)();
        let mut beams: Vec<(Paths<'_, '_>, Beam)> = Vec::with_capacity(speaking.len());
        for &member in &speaking {
            beams.push(Paths::begin(&mut self.views[member], options, self.plan.ends, self.item)?);
        }
        self.costs.forward += (self.seconds)() - since;
        let mut word = Word::default();
        loop {
            let since = (self.seconds)();
            let next: Vec<NextByte> = beams.iter().map(|(paths, beam)| beam.next(paths.vocabulary())).collect();
            let log_p: Vec<f64> = beams.iter().map(|(_, beam)| beam.log_p()).collect();
            let (votes, silent) = mix(&next, &log_p, &weights, options.mixture);
            self.counts.silent += silent;
            self.costs.combine += (self.seconds)() - since;
            let Some((byte, flow)) = self.choose_byte(votes, &speaking, until, &mut word, on)? else {
                return Ok(ControlFlow::Continue(()));
            };
            if flow.is_break() || self.ended.is_some() {
                return Ok(flow);
            }
            let since = (self.seconds)();
            for (at, (paths, beam)) in beams.iter_mut().enumerate() {
                if beam.longest() >= paths.context() {
                    self.ended = Some(EnsembleEnd::ContextFull { member: speaking[at] });
                    return Ok(ControlFlow::Continue(()));
                }
                if next[at].bytes[usize::from(byte)] > 0.0 {
                    beam.push(byte, paths.vocabulary(), options, paths)?;
                    continue;
                }
                // It had nothing to say about this byte, and has to read the text anew, as if it had followed a cover of
                // the least share.
                let log_p = log_p[at] + options.prune.max(f64::MIN_POSITIVE).ln();
                let view = &mut self.views[speaking[at]];
                if let Some(again) = paths.begin_again(view, &self.text, log_p, options)? {
                    *beam = again;
                }
            }
            self.costs.forward += (self.seconds)() - since;
        }
    }

    /// Bytes by tables of one spelling.
    fn characters(&mut self, until: Until, on: &mut StepListener<'_>) -> Result<ControlFlow<()>, DecodeError> {
        let speaking = self.speaking();
        let weights: Vec<f64> = speaking.iter().map(|member| self.weights[*member]).collect();
        let mut tables: Vec<Table> = Vec::new();
        let mut word = Word::default();
        loop {
            if tables.is_empty() {
                self.read_all()?;
                if !self.goes_on() {
                    return Ok(ControlFlow::Continue(()));
                }
                let since = (self.seconds)();
                for &member in &speaking {
                    tables.push(Table::read(&mut self.views[member], self.plan.ends, self.item)?);
                }
                self.costs.forward += (self.seconds)() - since;
            }
            let since = (self.seconds)();
            let (next, token_ends): (Vec<_>, Vec<_>) = tables.iter().map(Table::next).unzip();
            let (mut votes, _) = mix(&next, &vec![0.0; next.len()], &weights, Mixture::Arithmetic);
            let mut parts: Vec<f64> = token_ends.iter().zip(&weights).map(|(p, weight)| p * weight).collect();
            // ε is a symbol without bytes here.
            votes.push(Vote { symbol: Symbol::Text(Vec::new()), p: sum_in_order(&mut parts), members: token_ends });
            votes.sort_by(by_rank);
            self.costs.combine += (self.seconds)() - since;
            let chosen = self.choose(&votes)?;
            if votes[chosen].symbol == Symbol::Text(Vec::new()) {
                self.drawn += 1;
                tables.clear();
                continue;
            }
            let Some((byte, flow)) = self.choose_byte(votes, &speaking, until, &mut word, on)? else {
                return Ok(ControlFlow::Continue(()));
            };
            if flow.is_break() || self.ended.is_some() {
                return Ok(flow);
            }
            for (table, member) in tables.iter_mut().zip(&speaking) {
                table.push(byte);
                if table.is_empty() {
                    // The member knows no token like this: it reads what there is.
                    let text = self.text.clone();
                    self.read(*member, &text)?;
                    *table = Table::read(&mut self.views[*member], self.plan.ends, self.item)?;
                }
            }
        }
    }

    /// Chooses and records a byte. None where the word is over before it.
    fn choose_byte(
        &mut self,
        votes: Vec<Vote>,
        speaking: &[usize],
        until: Until,
        word: &mut Word,
        on: &mut StepListener<'_>,
    ) -> Result<Option<(u8, ControlFlow<()>)>, DecodeError> {
        let chosen = self.choose(&votes)?;
        let (symbol, p) = (votes[chosen].symbol.clone(), votes[chosen].p);
        if until == Until::Word && word.ends_before(&symbol) {
            return Ok(None);
        }
        let members = self.views.len();
        let shown = votes.into_iter().take(self.plan.votes);
        let shown = shown.map(|vote| Vote { members: spread(&vote.members, speaking, members), ..vote }).collect();
        let byte = match &symbol {
            Symbol::Text(bytes) => bytes[0],
            Symbol::End => 0,
        };
        if symbol != Symbol::End {
            // The first member's tokens count, whatever spelling its distributions follow. A text of as many as it may have
            // goes on as long as its last token does.
            let text = [&self.text[..], &[byte]].concat();
            self.views[0].read(&text).ok_or(DecodeError::CannotSpell { item: self.item, member: 0 })?;
            if self.views[0].tokens() > self.plan.max_tokens && !self.text.is_empty() {
                self.ended = Some(EnsembleEnd::Length);
                self.views[0].read(&self.text).ok_or(DecodeError::CannotSpell { item: self.item, member: 0 })?;
                return Ok(Some((byte, ControlFlow::Continue(()))));
            }
        }
        Ok(Some((byte, self.record(symbol, p, shown, Origin::Ensemble, on))))
    }
}
