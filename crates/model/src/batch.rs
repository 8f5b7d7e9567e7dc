//! Packed input of a forward pass: the tokens of several sequences, one after another.
//!
//! There is no padding. Every row-wise part of the model sees one matrix of tokens; only attention knows where the
//! sequences begin.

use lathe_kernels::attention::Rows;

use crate::Error;

/// Tokens of one or more sequences.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ids: Vec<u32>,
    sequences: Vec<Rows>,
    slots: Vec<usize>,
}

impl Batch {
    /// One whole sequence.
    #[must_use]
    pub fn single(ids: &[u32]) -> Self {
        let mut batch = Self::default();
        batch.push(ids, 0, 0);
        batch
    }

    /// Several whole sequences; sequence `i` belongs to slot `i`.
    #[must_use]
    pub fn of<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self::default();
        for (slot, ids) in sequences.into_iter().enumerate() {
            batch.push(ids, slot, 0);
        }
        batch
    }

    /// Sequences that come as rows of a padded matrix: `ids` is `[rows, width]` and `mask` says which of them are tokens.
    /// Padding may stand on either side; it is left out, and position 0 is a row's first token. Sequence `i` belongs to
    /// slot `i`.
    ///
    /// # Errors
    /// A row without tokens, or with padding between its tokens.
    ///
    /// # Panics
    /// When ids and mask are not the same whole number of rows.
    pub fn from_padded(ids: &[u32], mask: &[bool], width: usize) -> Result<Self, Error> {
        assert!(ids.len() == mask.len() && width > 0 && ids.len().is_multiple_of(width), "rows of {width}");
        let mut batch = Self::default();
        for (row, (ids, mask)) in ids.chunks_exact(width).zip(mask.chunks_exact(width)).enumerate() {
            let first = mask.iter().position(|token| *token).ok_or(Error::NoTokens)?;
            let len = mask[first..].iter().take_while(|token| **token).count();
            if let Some(gap) = mask[first + len..].iter().position(|token| *token) {
                return Err(Error::PaddingInside { row, position: first + len, tokens_again: first + len + gap });
            }
            batch.push(&ids[first..first + len], row, 0);
        }
        Ok(batch)
    }

    /// Appends tokens of the cached sequence `slot` that start at `position`.
    pub fn push(&mut self, ids: &[u32], slot: usize, position: usize) {
        self.sequences.push(Rows { start: self.ids.len(), len: ids.len(), position });
        self.slots.push(slot);
        self.ids.extend_from_slice(ids);
    }

    /// All token ids, in packed order.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Where each sequence lies.
    #[must_use]
    pub fn sequences(&self) -> &[Rows] {
        &self.sequences
    }

    /// Cache slot of each sequence.
    #[must_use]
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Position of every token within its sequence.
    #[must_use]
    pub fn positions(&self) -> Vec<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "positions are checked against the context length")]
        self.sequences.iter().flat_map(|rows| (rows.position..rows.position + rows.len).map(|p| p as u32)).collect()
    }

    /// Checks ids and lengths against a model.
    pub(crate) fn check(&self, vocab_size: usize, context: usize) -> Result<(), Error> {
        if self.ids.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(position) = self.ids.iter().position(|id| *id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id: self.ids[position], position, vocab_size });
        }
        match self.sequences.iter().map(|rows| rows.position + rows.len).max() {
            Some(tokens) if tokens > context => Err(Error::ContextExceeded { tokens, context }),
            _ => Ok(()),
        }
    }
}
