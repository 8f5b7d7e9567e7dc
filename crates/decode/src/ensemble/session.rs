//! One text being written: what was chosen, by whom, and when it is over.

mod bytes;
mod gate;

use std::cell::Cell;
use std::ops::ControlFlow;

use lathe_model::PrefixCache;

use super::gac::Universe;
use super::safe::sharpen;
use super::unite::{self, Append, Missing, Row};
use super::view::View;
use super::{
    Costs, Counts, EndSymbol, Ensemble, EnsembleEnd, EnsembleStep, EnsembleText, Memory, Method, Origin, Plan, Safe,
    StepListener, Symbol, Vote,
};
use crate::stop::Text;
use crate::{DecodeError, Stops, uniform};
use gate::Round;

/// A text, its members' views of it, and its record.
pub(super) struct Session<'e, 'a> {
    views: Vec<View<'e, 'a>>,
    universe: Option<&'e Universe>,
    plan: &'e Plan,
    /// λ, with sum 1.
    weights: Vec<f64>,
    item: u64,
    /// All bytes that were chosen.
    text: Vec<u8>,
    /// The same without a stop string.
    shown: Text,
    stops: Stops,
    drawn: u64,
    steps: Vec<EnsembleStep>,
    ended: Option<EnsembleEnd>,
    counts: Counts,
    costs: Costs,
    seconds: &'a (dyn Fn() -> f64 + Sync),
}

/// Logits of the members with a weight, by member.
type Logits = Vec<Option<Vec<f32>>>;

impl<'e, 'a> Session<'e, 'a> {
    pub(super) fn begin(
        ensemble: &'e Ensemble<'a>,
        memory: &'e mut Memory,
        plan: &'e Plan,
        item: u64,
        prompts: &[Vec<u32>],
    ) -> Result<Self, DecodeError> {
        for (member, prompt) in ensemble.members.iter().zip(prompts) {
            crate::generate::check_prompt(item, prompt, member.decoder.spec().context_length)?;
        }
        let members = ensemble.members.iter().zip(&mut memory.caches).zip(prompts);
        let views = members.map(|((member, cache), prompt)| {
            let cache = cache.get_or_insert_with(|| PrefixCache::new(member.decoder.spec(), 1));
            View::new(member, cache, prompt)
        });
        Ok(Self {
            views: views.collect(),
            universe: memory.universe.as_ref(),
            plan,
            weights: plan.normalised_weights(),
            item,
            text: Vec::new(),
            shown: Text::default(),
            stops: Stops { strings: plan.stops.clone(), ..Stops::default() },
            drawn: 0,
            steps: Vec::new(),
            ended: None,
            counts: Counts::default(),
            costs: Costs::default(),
            seconds: ensemble.seconds,
        })
    }

    pub(super) fn finish(self) -> EnsembleText {
        EnsembleText {
            tokens: self.views[0].tokens(),
            text: self.shown.into_bytes(),
            steps: self.steps,
            // A session is finished when it has ended.
            ended: self.ended.unwrap_or(EnsembleEnd::Length),
            counts: self.counts,
            costs: self.costs,
        }
    }

    /// Strings that are tokens of some member, one at a time.
    pub(super) fn write_strings(&mut self, on: &mut StepListener<'_>) -> Result<ControlFlow<()>, DecodeError> {
        while self.goes_on() {
            let flow = match self.plan.gate {
                None => {
                    let rows = self.all_logits()?;
                    self.ensemble_string(&rows, None, on)?
                }
                Some(safe) => match self.draft_and_check(&safe, on)? {
                    Round::Stands(flow) => flow,
                    Round::Disputed(rows) => self.ensemble_string(&rows, Some(&safe), on)?,
                },
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the text is not over; one whose members cannot read on is.
    fn goes_on(&mut self) -> bool {
        if self.ended.is_none() {
            let full =
                (0..self.views.len()).find(|member| self.weights[*member] > 0.0 && self.views[*member].is_full());
            self.ended = full.map(|member| EnsembleEnd::ContextFull { member });
            // A word that was chosen byte by byte may have been the last one.
            if self.plan.gate.is_some() && self.tokens() >= self.plan.max_tokens {
                self.ended = Some(EnsembleEnd::Length);
            }
        }
        self.ended.is_none()
    }

    /// Whether the members choose single bytes.
    fn chooses_bytes(&self) -> bool {
        matches!(self.plan.method, Method::Bytes(_) | Method::Chared)
    }

    /// Members with a weight.
    fn speaking(&self) -> Vec<usize> {
        (0..self.views.len()).filter(|member| self.weights[*member] > 0.0).collect()
    }

    fn all_logits(&mut self) -> Result<Logits, DecodeError> {
        let since = (self.seconds)();
        let mut all = vec![None; self.views.len()];
        for member in self.speaking() {
            all[member] = self.views[member].logits(1, self.item)?.pop();
        }
        self.costs.forward += (self.seconds)() - since;
        Ok(all)
    }

    /// Chooses what follows the text from the logits at its end.
    fn ensemble_string(
        &mut self,
        rows: &Logits,
        safe: Option<&Safe>,
        on: &mut StepListener<'_>,
    ) -> Result<ControlFlow<()>, DecodeError> {
        let mut votes = self.votes(rows)?;
        if let Some(safe) = safe {
            votes = sharpen(votes, safe.sharpen, &self.weights);
        }
        let chosen = self.choose(&votes)?;
        let vote = votes[chosen].clone();
        let mut symbol = vote.symbol;
        if let (Symbol::Text(bytes), Method::Unite(unite::Unite { append: Append::PrimaryFirstToken, .. })) =
            (&symbol, self.plan.method)
        {
            let vocabulary = self.views[0].member.vocabulary;
            let first = self.views[0].spell(&self.text, bytes).and_then(|ids| vocabulary.string_of(*ids.first()?));
            symbol = Symbol::Text(first.map_or(bytes.clone(), |first| vocabulary.string(first).to_vec()));
        }
        // A member whose own first choice it was goes on with its own token.
        let own: Vec<Option<u32>> = rows
            .iter()
            .zip(&self.views)
            .map(|(logits, view)| own_token(view, logits.as_deref()?, &symbol, self.plan.ends))
            .collect();
        if let Symbol::Text(bytes) = &symbol {
            let text = [&self.text[..], bytes].concat();
            let since = (self.seconds)();
            for member in self.reading() {
                match own[member] {
                    Some(id) => self.views[member].push_own(id, &text),
                    None => self.read(member, &text)?,
                }
            }
            self.costs.spell += (self.seconds)() - since;
        }
        Ok(self.record(symbol, vote.p, votes, Origin::Ensemble, on))
    }

    /// Members that read along: those with a weight, and the first one, which counts the tokens.
    fn reading(&self) -> Vec<usize> {
        (0..self.views.len()).filter(|member| *member == 0 || self.weights[*member] > 0.0).collect()
    }

    fn read(&mut self, member: usize, text: &[u8]) -> Result<(), DecodeError> {
        let changed = self.views[member].read(text).ok_or(DecodeError::CannotSpell { item: self.item, member })?;
        self.counts.respelt += usize::from(changed);
        Ok(())
    }

    fn read_all(&mut self) -> Result<(), DecodeError> {
        let text = std::mem::take(&mut self.text);
        let since = (self.seconds)();
        let read = self.reading().into_iter().try_for_each(|member| self.read(member, &text));
        self.costs.spell += (self.seconds)() - since;
        self.text = text;
        read
    }

    /// Lets all views forget what they read beyond the text.
    fn go_back(&mut self) {
        self.views.iter_mut().for_each(|view| view.truncate(self.text.len()));
    }

    /// The combined distribution, the most probable symbol first.
    fn votes(&mut self, rows: &Logits) -> Result<Vec<Vote>, DecodeError> {
        let since = (self.seconds)();
        let mut spelling = 0.0;
        let votes = match self.plan.method {
            Method::Unite(options) => self.unite(&options, rows, &mut spelling)?,
            _ => {
                let vocabularies: Vec<_> = self.views.iter().map(|view| view.member.vocabulary).collect();
                let logits: Vec<Option<&[f32]>> = rows.iter().map(Option::as_deref).collect();
                // Enough to draw from, and to show.
                let count = if self.plan.temperature == 0.0 { self.plan.votes.max(GAC_VOTES) } else { usize::MAX };
                self.universe.map_or_else(Vec::new, |universe| {
                    universe.votes(&vocabularies, &logits, &self.weights, self.plan.ends, count)
                })
            }
        };
        self.costs.combine += (self.seconds)() - since - spelling;
        self.costs.spell += spelling;
        Ok(votes)
    }

    fn unite(&mut self, options: &unite::Unite, logits: &Logits, spelling: &mut f64) -> Result<Vec<Vote>, DecodeError> {
        let spent = Cell::new(0.0);
        let (text, seconds) = (&self.text, self.seconds);
        let spellers: Vec<_> = self
            .views
            .iter()
            .map(|view| {
                let spent = &spent;
                move |string: &[u8]| {
                    let since = seconds();
                    let ids = view.spell(text, string);
                    spent.set(spent.get() + seconds() - since);
                    ids
                }
            })
            .collect();
        let speaking: Vec<usize> = (0..logits.len()).filter(|member| logits[*member].is_some()).collect();
        let rows: Vec<Row<'_>> = speaking
            .iter()
            .map(|member| Row {
                vocabulary: self.views[*member].member.vocabulary,
                logits: logits[*member].as_deref().unwrap_or(&[]),
                spell: &spellers[*member],
            })
            .collect();
        let union = unite::union(&rows, options.k, self.plan.ends);
        let mut scores: Vec<Vec<f64>> = Vec::with_capacity(rows.len());
        let mut missing: Vec<Vec<(usize, Vec<u32>)>> = Vec::with_capacity(rows.len());
        for row in &rows {
            scores.push(unite::scores(row, &union, options.duplicates));
            missing.push(if options.missing == Missing::WholeString {
                unite::missing(row, &union)
            } else {
                Vec::new()
            });
        }
        *spelling = spent.get();
        drop(rows);
        drop(spellers);
        for (at, (member, missing)) in speaking.iter().zip(missing).enumerate() {
            if !missing.is_empty() {
                let of: Vec<f64> = logits[*member].iter().flatten().map(|logit| f64::from(*logit)).collect();
                let (places, strings): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
                // Logits instead of log-probabilities: the softmax over U takes the difference away.
                let whole = self.views[*member].whole(&strings, &of)?;
                places.into_iter().zip(whole).for_each(|(place, score)| scores[at][place] = score);
            }
        }
        let weights: Vec<f64> = speaking.iter().map(|member| self.weights[*member]).collect();
        let (votes, silent) = unite::combine(union, &scores, &weights);
        self.counts.silent += silent;
        let all = self.views.len();
        Ok(votes.into_iter().map(|vote| Vote { members: spread(&vote.members, &speaking, all), ..vote }).collect())
    }

    /// The most probable symbol, or a drawn one.
    fn choose(&self, votes: &[Vote]) -> Result<usize, DecodeError> {
        let possible = || DecodeError::NothingPossible { item: self.item, step: self.views[0].tokens() };
        if votes.first().is_none_or(|best| best.p <= 0.0) {
            return Err(possible());
        }
        if self.plan.temperature == 0.0 {
            return Ok(0);
        }
        let weights: Vec<f64> =
            votes.iter().map(|vote| (vote.p / votes[0].p).powf(1.0 / self.plan.temperature)).collect();
        let mut at = uniform(self.plan.seed, self.item, self.drawn) * weights.iter().sum::<f64>();
        for (chosen, weight) in weights.iter().enumerate() {
            if at < *weight {
                return Ok(chosen);
            }
            at -= weight;
        }
        Ok(0)
    }

    /// Appends a symbol and says whether the text is over with it.
    fn record(
        &mut self,
        symbol: Symbol,
        p: f64,
        mut votes: Vec<Vote>,
        origin: Origin,
        on: &mut StepListener<'_>,
    ) -> ControlFlow<()> {
        match origin {
            Origin::Ensemble => self.counts.ensembled += 1,
            Origin::Agreed | Origin::NoBoundary => self.counts.alone += 1,
        }
        self.drawn += 1;
        match &symbol {
            Symbol::End => self.ended = Some(EnsembleEnd::EndSymbol),
            Symbol::Text(bytes) => {
                self.text.extend_from_slice(bytes);
                let stopped = self.shown.push(bytes, &self.stops);
                self.ended = match stopped {
                    Some(index) => Some(EnsembleEnd::StopString { string: self.stops.strings[index].clone() }),
                    None => {
                        let may_go_on = origin == Origin::Ensemble && self.chooses_bytes();
                        (!may_go_on && self.tokens() >= self.plan.max_tokens).then_some(EnsembleEnd::Length)
                    }
                };
            }
        }
        votes.truncate(self.plan.votes);
        let step = EnsembleStep { symbol, origin, p, votes };
        let certain = match self.ended.is_some() {
            true => self.shown.rest(),
            false => self.shown.newly_certain(&self.stops),
        };
        let flow = on(&step, certain);
        if self.plan.votes > 0 {
            self.steps.push(step);
        }
        flow
    }

    /// Tokens of the first member in the text as it is; a view may have read further.
    fn tokens(&self) -> usize {
        self.views[0].tokens_until(self.text.len())
    }
}

/// A member's own token for a symbol that is its first choice.
fn own_token(view: &View<'_, '_>, logits: &[f32], symbol: &Symbol, ends: EndSymbol) -> Option<u32> {
    let (first, _) = unite::top(view.member.vocabulary, logits, 1, ends).pop()?;
    (first == *symbol).then(|| token_of(view, logits, symbol)).flatten()
}

/// A member's most probable token with the bytes of a symbol.
fn token_of(view: &View<'_, '_>, logits: &[f32], symbol: &Symbol) -> Option<u32> {
    let vocabulary = view.member.vocabulary;
    let Symbol::Text(bytes) = symbol else { return None };
    let ids = vocabulary.ids(vocabulary.find(bytes)?);
    let logit = |id: &u32| logits.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    ids.iter().copied().reduce(|best, id| if logit(&id) > logit(&best) { id } else { best })
}

/// Values of the members at `places` among all, who have 0.
fn spread(values: &[f64], places: &[usize], all: usize) -> Vec<f64> {
    let mut of = vec![0.0; all];
    places.iter().zip(values).for_each(|(place, value)| of[*place] = *value);
    of
}

/// Votes of GaC that are ranked at least.
const GAC_VOTES: usize = 16;
