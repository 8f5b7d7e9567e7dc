//! Running a model for what the measurements need: losses of documents, spectra of layers, attention of heads.
//!
//! Everything here takes a [`Decoder`] and token ids in memory. Texts are packed into batches without padding, so a
//! number never depends on what else was in its batch.

mod attention;
mod context;
mod reading;
mod spectrum;
mod tokens;

pub use attention::{SinkShares, TextAttention, attention_of_text, key_window, sink_shares};
pub use context::{ContextAttention, attention_on_context};
pub use reading::{Reading, readings};
pub use spectrum::{LayerSpectra, Layers, Seconds, spectra};
pub use tokens::{Document, ScoredToken, Window, score_documents, windows};

use lathe_model::Decoder;

use crate::MeasureError;

/// What can go wrong while a model is measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The forward pass.
    #[error(transparent)]
    Model(#[from] lathe_model::Error),
    /// The mathematics of a measurement.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The mathematics of a measurement, at one layer.
    #[error("layer {layer}: {source}")]
    Layer {
        /// 0 is the embedding.
        layer: usize,
        /// What was wrong there.
        source: MeasureError,
    },
}

impl RunError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Measure(error) => error.hint(),
            Self::Layer { source, .. } => source.hint(),
        }
    }
}

/// Seconds since some moment, and a place to report progress to. Measurements know no clock of their own.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// A monotonic clock, seconds.
    pub seconds: &'a (dyn Fn() -> f64 + Sync),
    /// Called with the number of tokens that were just finished.
    pub advance: &'a (dyn Fn(u64) + Sync),
}

/// Tokens that one packed batch holds at most (one sequence may be longer).
const BATCH_TOKENS: usize = 1024;

/// Groups sequences, in order, into batches of at most 1024 tokens; a longer one is alone.
pub fn batches<T>(items: &[T], len: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, item) in items.iter().enumerate() {
        if i > start && tokens + len(item) > BATCH_TOKENS {
            groups.push(&items[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += len(item);
    }
    if start < items.len() {
        groups.push(&items[start..]);
    }
    groups
}

/// A window that fits the model.
fn fitting(decoder: &Decoder, window: usize) -> usize {
    window.clamp(2, decoder.spec().context_length.max(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_take_every_item_once() {
        let lens = [600, 500, 2000, 10, 1000, 14];
        let groups = batches(&lens, |len| *len);
        assert_eq!(groups.concat(), lens);
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [1, 1, 1, 3]);
        assert!(batches::<usize>(&[], |len| *len).is_empty());
    }
}
