//! How likely texts are after a context: the log-probabilities that multiple choice compares.
//!
//! Tokens are read once wherever several texts have them in common: what all contexts begin with is run once, a context
//! once for all its targets, and the first token of a target is scored with the context itself, so that a target of one
//! token costs nothing more. The rest of the targets of several questions runs in one packed batch, each behind a copy of
//! its context's keys and values. A hidden state does not depend on the batch or on what came through the cache, so no bit
//! of a result depends on any of this. (Where rotary frequencies depend on the length of the text, that is not so, and
//! every text is run whole.)

use std::ops::{ControlFlow, Range};

use candle_core::Tensor;
use lathe_kernels::logits::{PartSummary, summarise_part};
use lathe_kernels::matmul::PIECE;
use lathe_model::rotary::Scaling;
use lathe_model::{Batch, Decoder, DecoderSpec, KvCache, NoTap};

use crate::DecodeError;

/// A context, and texts that may follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Tokens before, at least one.
    pub context: Vec<u32>,
    /// Tokens of each text that may follow, at least one.
    pub targets: Vec<Vec<u32>>,
}

/// How likely a target is after its context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// Σ log p of its tokens, nats.
    pub log_p: f64,
    /// Its tokens.
    pub tokens: usize,
}

/// How much is run at once. No result depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Forks at most.
    pub forks: usize,
    /// Positions that the cache may hold for them; one fork is run however many it needs.
    pub positions: usize,
}

/// New tokens of contexts that are run together; one context may have more.
const PASS_TOKENS: usize = 1024;

/// Scores the targets of each fork, in order; `on` gets the index of the fork and a likelihood for each target. Where it
/// breaks, nothing more is scored.
///
/// # Errors
/// A context or target without tokens, a text longer than the model's context, logits that are not finite. The item of an
/// error is the index of the fork.
pub fn likelihoods(
    decoder: &Decoder,
    forks: &[Fork],
    room: Room,
    on: &mut dyn FnMut(usize, Vec<Likelihood>) -> ControlFlow<()>,
) -> Result<(), DecodeError> {
    forks.iter().enumerate().try_for_each(|(index, fork)| check(index, fork, decoder.spec().context_length))?;
    if depends_on_length(decoder.spec()) {
        for (index, fork) in forks.iter().enumerate() {
            if on(index, whole(decoder, index, fork)?).is_break() {
                break;
            }
        }
        return Ok(());
    }
    let shared = common_prefix(forks);
    let groups = groups(forks, shared.len(), room);
    let slots = groups.iter().map(|group| forks[group.clone()].iter().map(slots_of).sum()).max().unwrap_or(0);
    let mut run = Run { decoder, cache: KvCache::new(decoder.spec(), 1 + slots), shared: shared.len() };
    if !shared.is_empty() {
        let mut batch = Batch::default();
        batch.push(shared, SHARED, 0);
        decoder.forward(&batch, Some(&mut run.cache), &mut NoTap)?;
    }
    for group in groups {
        let scored = run.group(&forks[group.clone()], group.start)?;
        for (index, likelihoods) in group.zip(scored) {
            if on(index, likelihoods).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether a hidden state depends on how long its text is: then cached keys of a part are not those of the whole.
pub(crate) fn depends_on_length(spec: &DecoderSpec) -> bool {
    spec.rotary.iter().any(|rotary| matches!(rotary.scaling, Scaling::Dynamic { .. } | Scaling::LongRope { .. }))
}

fn check(item: usize, fork: &Fork, context: usize) -> Result<(), DecodeError> {
    let item = item as u64;
    if fork.context.is_empty() {
        return Err(DecodeError::EmptyPrompt { item });
    }
    if fork.targets.iter().any(Vec::is_empty) {
        return Err(DecodeError::EmptyTarget { item });
    }
    // The last token is predicted and never read.
    let tokens = fork.context.len() + fork.targets.iter().map(Vec::len).max().unwrap_or(1) - 1;
    if tokens > context {
        return Err(DecodeError::TextExceedsContext { item, tokens, context });
    }
    Ok(())
}

/// Without a cache: each text from its first token.
fn whole(decoder: &Decoder, index: usize, fork: &Fork) -> Result<Vec<Likelihood>, DecodeError> {
    let of_target = |target: &Vec<u32>| {
        let ids = [&fork.context[..], &target[..target.len() - 1]].concat();
        let hidden = decoder.forward(&Batch::single(&ids), None, &mut NoTap)?;
        let predicting = hidden.narrow(0, fork.context.len() - 1, target.len()).map_err(lathe_model::Error::from)?;
        let scores = decoder.score(&predicting, target)?;
        likelihood(index, None, scores.iter().map(|score| -score.nll))
    };
    fork.targets.iter().map(of_target).collect()
}

/// What all contexts begin with. The last token of every context stays outside: its hidden state is wanted.
fn common_prefix(forks: &[Fork]) -> &[u32] {
    let [first, others @ ..] = forks else { return &[] };
    if others.is_empty() {
        return &[];
    }
    let before = |fork: &Fork| fork.context.len() - 1;
    let common = others.iter().fold(before(first), |common, fork| {
        let most = common.min(before(fork));
        fork.context.iter().zip(&first.context).take(most).take_while(|(a, b)| a == b).count()
    });
    &first.context[..common]
}

/// Forks that are run together.
fn groups(forks: &[Fork], shared: usize, room: Room) -> Vec<Range<usize>> {
    let positions = |fork: &Fork| {
        let longest = fork.targets.iter().map(Vec::len).max().unwrap_or(0);
        slots_of(fork) * (fork.context.len() + longest)
    };
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut tokens, mut held) = (0, 0);
    for (index, fork) in forks.iter().enumerate() {
        let (new, needed) = (fork.context.len() - shared, positions(fork));
        let fits = tokens + new <= PASS_TOKENS && held + needed <= room.positions;
        match groups.last_mut().filter(|group| fits && group.len() < room.forks) {
            Some(group) => group.end += 1,
            None => {
                groups.push(index..index + 1);
                (tokens, held) = (0, 0);
            }
        }
        tokens += new;
        held += needed;
    }
    groups
}

/// Slots that a fork needs: its context's, in which one target goes on, and one for each other target that goes on.
fn slots_of(fork: &Fork) -> usize {
    fork.targets.iter().filter(|target| target.len() > 1).count().max(1)
}

/// The slot of what all contexts begin with.
const SHARED: usize = 0;

struct Run<'a> {
    decoder: &'a Decoder,
    cache: KvCache,
    /// Tokens that all contexts begin with.
    shared: usize,
}

impl Run<'_> {
    /// Scores the forks of a group; the first of them is number `first`.
    fn group(&mut self, forks: &[Fork], first: usize) -> Result<Vec<Vec<Likelihood>>, DecodeError> {
        let mut slot = SHARED + 1;
        let mut contexts = Vec::with_capacity(forks.len());
        for fork in forks {
            contexts.push(slot);
            self.prepare(slot);
            slot += slots_of(fork);
        }
        let beginnings = self.beginnings(forks, &contexts)?;
        // The rest of every target that has one: in the slot of its context, or in a copy of it.
        let mut batch = Batch::default();
        let mut targets = Vec::new();
        for (fork, context) in forks.iter().zip(&contexts) {
            let going_on: Vec<&Vec<u32>> = fork.targets.iter().filter(|target| target.len() > 1).collect();
            (1..going_on.len()).for_each(|copy| self.cache.copy(*context, context + copy));
            for (copy, target) in going_on.iter().enumerate() {
                batch.push(&target[..target.len() - 1], context + copy, fork.context.len());
                targets.extend_from_slice(&target[1..]);
            }
        }
        let scores = match targets.is_empty() {
            true => Vec::new(),
            false => {
                let hidden = self.decoder.forward(&batch, Some(&mut self.cache), &mut NoTap)?;
                self.decoder.score(&hidden, &targets)?
            }
        };
        let mut scores = scores.iter().map(|score| -score.nll);
        let of_fork = |(at, (fork, beginnings)): (usize, (&Fork, Vec<f64>))| {
            let of_target = |(target, beginning): (&Vec<u32>, f64)| {
                likelihood(first + at, Some(beginning), scores.by_ref().take(target.len() - 1))
            };
            fork.targets.iter().zip(beginnings).map(of_target).collect()
        };
        forks.iter().zip(beginnings).enumerate().map(of_fork).collect()
    }

    /// Makes a slot hold what all contexts begin with and nothing else.
    fn prepare(&mut self, slot: usize) {
        if self.shared == 0 {
            return self.cache.clear(slot);
        }
        // A window may have dropped what the shorter text sees.
        let holds =
            self.cache.len(slot) > self.shared && self.cache.rollback(slot, self.shared, self.decoder.spec()).is_ok();
        if !holds {
            self.cache.copy(SHARED, slot);
        }
    }

    /// Runs the contexts; log-probabilities of the first token of each target, `[fork][target]`.
    fn beginnings(&mut self, forks: &[Fork], slots: &[usize]) -> Result<Vec<Vec<f64>>, DecodeError> {
        let mut batch = Batch::default();
        let mut last = Vec::with_capacity(forks.len());
        for (fork, slot) in forks.iter().zip(slots) {
            batch.push(&fork.context[self.shared..], *slot, self.shared);
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            last.push(batch.ids().len() as u32 - 1);
        }
        let vocab_size = self.decoder.spec().vocab_size;
        let firsts = forks.iter().flat_map(|fork| &fork.targets).map(|target| target[0]);
        if let Some((position, id)) = firsts.enumerate().find(|(_, id)| *id as usize >= vocab_size) {
            return Err(lathe_model::Error::TokenOutOfRange { id, position, vocab_size }.into());
        }
        let hidden = self.decoder.forward(&batch, Some(&mut self.cache), &mut NoTap)?;
        let rows = Tensor::new(&last[..], hidden.device()).map_err(lathe_model::Error::from)?;
        let hidden = hidden.index_select(&rows, 0).map_err(lathe_model::Error::from)?;
        let mut beginnings = Vec::with_capacity(forks.len());
        // The sum of a row in the pieces of `Decoder::score`: the same bits for several targets of one row.
        let of_row = |row: usize, logits: &mut [f32]| {
            let pieces = logits.chunks(PIECE).enumerate().map(|(i, piece)| summarise_part(i * PIECE, piece));
            let log_sum_exp = pieces.reduce(PartSummary::join).map_or(f64::NAN, |all| all.finish().log_sum_exp);
            let targets = forks[row].targets.iter();
            targets.map(|target| f64::from(logits[target[0] as usize]) - log_sum_exp).collect::<Vec<f64>>()
        };
        self.decoder.for_logits(&hidden, of_row, &mut beginnings)?;
        Ok(beginnings)
    }
}

/// Adds the log-probabilities of a target up.
fn likelihood(
    index: usize,
    beginning: Option<f64>,
    rest: impl Iterator<Item = f64>,
) -> Result<Likelihood, DecodeError> {
    let mut sum = Likelihood { log_p: 0.0, tokens: 0 };
    for log_p in beginning.into_iter().chain(rest) {
        if !log_p.is_finite() {
            return Err(DecodeError::NotFinite { item: index as u64, step: sum.tokens });
        }
        sum.log_p += log_p;
        sum.tokens += 1;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(context: &[u32], targets: &[usize]) -> Fork {
        Fork { context: context.to_vec(), targets: targets.iter().map(|len| vec![0; *len]).collect() }
    }

    #[test]
    fn the_common_prefix_leaves_every_context_a_token() {
        let forks = [fork(&[1, 2, 3], &[1]), fork(&[1, 2], &[1]), fork(&[1, 2, 4], &[1])];
        assert_eq!(common_prefix(&forks), [1]);
        assert_eq!(common_prefix(&[fork(&[1, 2, 3], &[1]), fork(&[1, 2, 4, 5], &[1])]), [1, 2]);
        assert!(common_prefix(&forks[..1]).is_empty());
        assert!(common_prefix(&[]).is_empty());
    }

    #[test]
    fn groups_keep_to_the_room() {
        let forks: Vec<Fork> = (0..5).map(|_| fork(&[1; 10], &[1, 3, 2])).collect();
        // Two slots of 13 positions each.
        let room = |forks, positions| Room { forks, positions };
        assert_eq!(groups(&forks, 0, room(2, 1000)), [0..2, 2..4, 4..5]);
        assert_eq!(groups(&forks, 0, room(9, 60)), [0..2, 2..4, 4..5]);
        assert_eq!(groups(&forks, 0, room(9, 1)).len(), 5);
        assert_eq!(groups(&forks, 0, room(9, 1000)).len(), 1);
        let long: Vec<Fork> = (0..3).map(|_| fork(&[1; 600], &[1])).collect();
        assert_eq!(groups(&long, 0, room(9, 10_000)).len(), 3);
        assert_eq!(groups(&long, 500, room(9, 10_000)).len(), 1);
        assert_eq!(slots_of(&fork(&[1], &[1, 1])), 1);
    }
}
