//! The gate: the first member drafts, the others say where that matters.

use std::ops::ControlFlow;

use super::{Logits, Session, spread, token_of};
use crate::DecodeError;
use crate::ensemble::safe::Opinion;
use crate::ensemble::unite::{self, log_sum_exp};
use crate::ensemble::{EnsembleEnd, Origin, Safe, StepListener, Symbol, Vote, sum_in_order};

/// What came of a draft.
pub(super) enum Round {
    /// All of it stands, or the text is over.
    Stands(ControlFlow<()>),
    /// What follows the text has to be decided together, from these logits. No view has read further.
    Disputed(Logits),
}

/// A token that the first member wrote.
struct Draft {
    symbol: Symbol,
    p: f64,
    /// What it was chosen from.
    logits: Vec<f32>,
}

impl Session<'_, '_> {
    /// One round: a draft of the first member, and as much of it as the others let stand.
    pub(super) fn draft_and_check(&mut self, safe: &Safe, on: &mut StepListener<'_>) -> Result<Round, DecodeError> {
        let from = self.text.len();
        let since = (self.seconds)();
        let (drafts, drafted) = self.draft(safe)?;
        let others: Vec<usize> = self.speaking().into_iter().filter(|member| *member != 0).collect();
        // Logits of each other member, the last row at the end of the draft.
        let mut read: Vec<Vec<Vec<f32>>> = vec![Vec::new(); self.views.len()];
        for &member in &others {
            self.read(member, &drafted)?;
            if self.views[member].is_over_full() {
                self.go_back();
                self.ended = Some(EnsembleEnd::ContextFull { member });
                return Ok(Round::Stands(ControlFlow::Continue(())));
            }
            let rows = self.views[member].rows_from(from);
            read[member] = self.views[member].logits(rows, self.item)?;
        }
        self.costs.forward += (self.seconds)() - since;
        for draft in drafts {
            let at = self.text.len();
            let has_boundary = others.iter().all(|member| self.views[*member].has_boundary(at));
            let mut rows: Logits = vec![None; self.views.len()];
            for &member in others.iter().filter(|_| has_boundary) {
                let back = self.views[member].row_at(at);
                rows[member] = read[member].len().checked_sub(back + 1).map(|row| read[member][row].clone());
            }
            let origin = self.opinion(&draft, &rows, has_boundary).verdict();
            rows[0] = Some(draft.logits);
            if origin == Origin::Ensemble {
                self.go_back();
                return Ok(Round::Disputed(rows));
            }
            // Methods of bytes have no votes on whole strings.
            let shows = has_boundary && self.plan.votes > 0 && !self.chooses_bytes();
            let votes = match shows {
                true => self.votes(&rows)?,
                false => {
                    let members = spread(&[draft.p], &[0], self.views.len());
                    vec![Vote { symbol: draft.symbol.clone(), p: draft.p, members }]
                }
            };
            let flow = self.record(draft.symbol, draft.p, votes, origin, on);
            if flow.is_break() || self.ended.is_some() {
                return Ok(Round::Stands(flow));
            }
        }
        Ok(Round::Stands(ControlFlow::Continue(())))
    }

    /// Up to n tokens of the first member, and the text with them.
    fn draft(&mut self, safe: &Safe) -> Result<(Vec<Draft>, Vec<u8>), DecodeError> {
        let mut drafts: Vec<Draft> = Vec::with_capacity(safe.draft);
        let mut text = self.text.clone();
        while drafts.len() < safe.draft {
            let view = &mut self.views[0];
            if view.is_full() || (!drafts.is_empty() && view.tokens() >= self.plan.max_tokens) {
                break;
            }
            let Some(logits) = view.logits(1, self.item)?.pop() else { break };
            let impossible = DecodeError::NothingPossible { item: self.item, step: view.tokens() };
            let first = unite::top(view.member.vocabulary, &logits, 1, self.plan.ends).pop();
            let (symbol, logit) = first.ok_or(impossible)?;
            let p = (logit - log_sum_exp(logits.iter().map(|logit| f64::from(*logit)))).exp();
            let is_end = symbol == Symbol::End;
            if let (Symbol::Text(bytes), Some(id)) = (&symbol, token_of(view, &logits, &symbol)) {
                text.extend_from_slice(bytes);
                view.push_own(id, &text);
            }
            drafts.push(Draft { symbol, p, logits });
            if is_end {
                break;
            }
        }
        Ok((drafts, text))
    }

    /// What the other members say of a drafted token: `rows` are their logits before it.
    fn opinion(&self, draft: &Draft, rows: &Logits, has_boundary: bool) -> Opinion {
        let mut is_first_choice = true;
        let mut parts = vec![draft.p * self.weights[0]];
        for (member, logits) in rows.iter().enumerate() {
            let Some(logits) = logits else { continue };
            let vocabulary = self.views[member].member.vocabulary;
            let first = unite::top(vocabulary, logits, 1, self.plan.ends).pop();
            is_first_choice &= first.is_some_and(|(symbol, _)| symbol == draft.symbol);
            let logit = unite::logit(vocabulary, logits, &draft.symbol).unwrap_or(f64::NEG_INFINITY);
            let total = log_sum_exp(logits.iter().map(|logit| f64::from(*logit)));
            parts.push((logit - total).exp() * self.weights[member]);
        }
        Opinion { has_boundary, is_first_choice, mean: sum_in_order(&mut parts) }
    }
}
