//! CharED: next-byte distributions of one spelling, with a vote on where a token ends (Gu et al. 2024, arXiv 2407.11009),
//! on bytes.
//!
//! Every member holds a table of the strings that its next token can be. The tables give next-byte distributions, in which
//! ε, the end of a token, is a symbol like the bytes; `P = Σ λ_i P_i`. A byte narrows every table to the strings that go on
//! with it. ε ends the token for all members: they read the text anew, also those whose table knew longer strings. That is
//! what [`super::covers`] does exactly, and what it costs can be seen by running both.

use lathe_tokenizer::ByteVocabulary;

use super::covers::{Masses, NextByte, Node};
use super::view::View;
use super::{EndSymbol, gac};
use crate::DecodeError;

/// One member's table: the strings that go on like the bytes since the last token.
pub(super) struct Table<'a> {
    vocabulary: &'a ByteVocabulary,
    node: Node,
}

impl<'a> Table<'a> {
    /// The whole table, of what the member has read.
    pub(super) fn read(view: &mut View<'_, 'a>, ends: EndSymbol, item: u64) -> Result<Self, DecodeError> {
        let logits = view.logits(1, item)?.remove(0);
        let vocabulary = view.member.vocabulary;
        Ok(Self::new(vocabulary, Masses::new(&gac::probabilities(vocabulary, &logits, ends))))
    }

    pub(super) fn new(vocabulary: &'a ByteVocabulary, masses: Masses) -> Self {
        Self { vocabulary, node: Node::root(vocabulary, masses) }
    }

    /// Whether no string goes on like this.
    pub(super) fn is_empty(&self) -> bool {
        self.node.mass() <= 0.0
    }

    /// Distribution of the next byte, and with it the mass of ε; they sum to 1 together.
    pub(super) fn next(&self) -> (NextByte, f64) {
        let vocabulary = self.vocabulary;
        let mut next = NextByte { bytes: [0.0; 256], end: self.node.end() };
        self.node.add_bytes(vocabulary, 1.0, &mut next.bytes);
        let token_end = self.node.complete(vocabulary).map_or(0.0, |string| self.node.mass_of(string));
        let total = next.bytes.iter().sum::<f64>() + next.end + token_end;
        if total > 0.0 {
            next.bytes.iter_mut().for_each(|p| *p /= total);
            next.end /= total;
            return (next, token_end / total);
        }
        (next, 0.0)
    }

    /// Narrows the table.
    pub(super) fn push(&mut self, byte: u8) {
        self.node = self.node.below(self.vocabulary, byte);
    }
}
