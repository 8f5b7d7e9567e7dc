//! What one member has read: its prompt, and the shared text as its own tokens.
//!
//! A member that proposed a string itself goes on with its own token for it, as it would alone. For a string of others the
//! end of the text is encoded anew, from a place where every tokenizer splits, and what the member read since the first
//! changed token is forgotten (method page, sections 4.9 and 7.2).

use lathe_model::{Batch, KvCache, NoTap, PrefixCache};
use lathe_tokenizer::splits_before;

use super::Member;
use crate::DecodeError;

/// A member in the middle of a text.
pub(super) struct View<'e, 'a> {
    pub(super) member: &'e Member<'a>,
    cache: &'e mut PrefixCache,
    /// Tokens of the prompt.
    prompt: usize,
    /// Prompt and text.
    ids: Vec<u32>,
    /// Where each token of the text ends in it, bytes.
    ends: Vec<usize>,
}

/// Tokens at the end of a text that another string may change.
const UNSETTLED: usize = 8;

impl<'e, 'a> View<'e, 'a> {
    pub(super) fn new(member: &'e Member<'a>, cache: &'e mut PrefixCache, prompt: &[u32]) -> Self {
        Self { member, cache, prompt: prompt.len(), ids: prompt.to_vec(), ends: Vec::new() }
    }

    /// Tokens of the text.
    pub(super) fn tokens(&self) -> usize {
        self.ends.len()
    }

    /// Prompt and text.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether no token can be read any more.
    pub(super) fn is_full(&self) -> bool {
        self.ids.len() >= self.member.decoder.spec().context_length
    }

    /// Whether more was read than the context holds.
    pub(super) fn is_over_full(&self) -> bool {
        self.ids.len() > self.member.decoder.spec().context_length
    }

    /// Tokens that end within the first `at` bytes of the text.
    pub(super) fn tokens_until(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end <= at)
    }

    /// Whether a token ends at this place of the text.
    pub(super) fn has_boundary(&self, at: usize) -> bool {
        at == 0 || self.ends.binary_search(&at).is_ok()
    }

    /// Logits of the next token after each of the last `rows` tokens, [rows][vocab_size].
    ///
    /// # Errors
    /// The model fails, or its logits are NaN or infinite.
    pub(super) fn logits(&mut self, rows: usize, item: u64) -> Result<Vec<Vec<f32>>, DecodeError> {
        let decoder = self.member.decoder;
        let begun = self.cache.begin(&self.ids[..self.ids.len() - rows + 1], decoder.spec());
        let mut batch = Batch::default();
        batch.push(&self.ids[begun.reused..], begun.slot, begun.reused);
        let hidden = decoder.forward(&batch, Some(self.cache.cache()), &mut NoTap)?;
        let read = self.ids.len() - begun.reused;
        let hidden = hidden.narrow(0, read - rows, rows).map_err(lathe_model::Error::from)?;
        let mut logits = Vec::with_capacity(rows);
        decoder.for_logits(&hidden, |_, row| row.to_vec(), &mut logits)?;
        let bad = |value: &f32| value.is_nan() || *value == f32::INFINITY;
        match logits.iter().any(|row| row.iter().any(bad)) {
            true => Err(DecodeError::NotFinite { item, step: self.tokens() }),
            false => Ok(logits),
        }
    }

    /// Takes the member's own token for the new end of `text`.
    pub(super) fn push_own(&mut self, id: u32, text: &[u8]) {
        self.ids.push(id);
        self.ends.push(text.len());
    }

    /// Reads `text`, which begins with what was read before, however it is spelt now. Whether earlier tokens changed; none
    /// where the vocabulary cannot spell it.
    pub(super) fn read(&mut self, text: &[u8]) -> Option<bool> {
        let (kept, from) = self.settled(text);
        let tail = (self.member.spell)(&text[from..])?;
        let old = &self.ids[self.prompt + kept..];
        let same = old.iter().zip(&tail).take_while(|(a, b)| a == b).count();
        let changed = same < old.len();
        self.ids.truncate(self.prompt + kept);
        self.ends.truncate(kept);
        let mut end = from;
        for id in &tail {
            end += self.width(*id);
            self.ids.push(*id);
            self.ends.push(end);
        }
        Some(changed)
    }

    /// Forgets the text from `at` on, where a token has to end.
    pub(super) fn truncate(&mut self, at: usize) {
        let kept = self.ends.partition_point(|end| *end <= at);
        self.ends.truncate(kept);
        self.ids.truncate(self.prompt + kept);
    }

    /// The tokens of `string` after `text`: as a part of it where that leaves the text's own tokens as they are, else by
    /// itself.
    pub(super) fn spell(&self, text: &[u8], string: &[u8]) -> Option<Vec<u32>> {
        let (kept, from) = self.settled(text);
        let whole = (self.member.spell)(&[&text[from..], string].concat())?;
        match whole.strip_prefix(&self.ids[self.prompt + kept..]) {
            Some(rest) if !rest.is_empty() => Some(rest.to_vec()),
            _ => (self.member.spell)(string),
        }
    }

    /// The tokens that end after `at`, and the last one before them.
    pub(super) fn rows_from(&self, at: usize) -> usize {
        self.ends.iter().rev().take_while(|end| **end > at).count() + 1
    }

    /// The row, counted from the end, whose logits are of what follows the first `at` bytes of the text.
    pub(super) fn row_at(&self, at: usize) -> usize {
        self.ends.len() - self.ends.partition_point(|end| *end <= at)
    }

    /// ln P of whole strings given as their tokens, after what was read last: `first` are the log-probabilities of the next
    /// token. [strings], nats; −∞ for what the context has no room for.
    pub(super) fn whole(&mut self, strings: &[Vec<u32>], first: &[f64]) -> Result<Vec<f64>, DecodeError> {
        let decoder = self.member.decoder;
        let mut log_p: Vec<f64> = strings.iter().map(|ids| first[ids[0] as usize]).collect();
        let room = decoder.spec().context_length - self.ids.len();
        let (longer, no_room): (Vec<usize>, Vec<usize>) =
            (0..strings.len()).filter(|at| strings[*at].len() > 1).partition(|at| strings[*at].len() - 1 <= room);
        no_room.into_iter().for_each(|at| log_p[at] = f64::NEG_INFINITY);
        if longer.is_empty() {
            return Ok(log_p);
        }
        let mut cache = KvCache::new(decoder.spec(), longer.len());
        let (mut batch, mut targets) = (Batch::default(), Vec::new());
        for (slot, at) in longer.iter().enumerate() {
            let ids = &strings[*at];
            self.lend(&mut cache, slot)?;
            batch.push(&ids[..ids.len() - 1], slot, self.ids.len());
            targets.extend_from_slice(&ids[1..]);
        }
        let hidden = decoder.forward(&batch, Some(&mut cache), &mut NoTap)?;
        let mut scores = decoder.score(&hidden, &targets)?.into_iter();
        for at in longer {
            log_p[at] -= scores.by_ref().take(strings[at].len() - 1).map(|score| score.nll).sum::<f64>();
        }
        Ok(log_p)
    }

    /// Copies what was read to a slot of another cache.
    pub(super) fn lend(&mut self, cache: &mut KvCache, slot: usize) -> Result<(), DecodeError> {
        let decoder = self.member.decoder;
        cache.copy_from(slot, self.cache.cache(), 0);
        // What was read beyond the text is forgotten here, or a window has forgotten the rest.
        if cache.rollback(slot, self.ids.len(), decoder.spec()).is_err() {
            cache.clear(slot);
            let mut batch = Batch::default();
            batch.push(&self.ids, slot, 0);
            decoder.forward(&batch, Some(cache), &mut NoTap)?;
        }
        Ok(())
    }

    /// Tokens of the text that no continuation changes, and the bytes that they take.
    fn settled(&self, text: &[u8]) -> (usize, usize) {
        let may = self.ends.len().saturating_sub(UNSETTLED);
        let splits = (1..=may).rev().find(|kept| splits_before(text, self.ends[kept - 1]));
        splits.map_or((0, 0), |kept| (kept, self.ends[kept - 1]))
    }

    fn width(&self, id: u32) -> usize {
        let vocabulary = self.member.vocabulary;
        vocabulary.string_of(id).map_or(0, |string| vocabulary.string(string).len())
    }
}
