//! Whole texts, read once: how likely they are, and where they leave the model.

use candle_core::Tensor;
use lathe_model::{Batch, Decoder, NoTap};

use super::{Document, RunError, Watch, batches};

/// What one pass over a text says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Sum over the predicted tokens, nats.
    pub nll: f64,
    /// Tokens with one before them, added start tokens left out.
    pub predicted: usize,
    /// Hidden state after the final norm at the last token, `[hidden_size]`.
    pub last: Vec<f32>,
}

/// Reads documents that have at least one token and are no longer than the context.
///
/// # Errors
/// A token outside the vocabulary; a document without tokens.
pub fn readings(decoder: &Decoder, documents: &[Document], watch: Watch<'_>) -> Result<Vec<Reading>, RunError> {
    let mut readings = Vec::with_capacity(documents.len());
    for group in batches(documents, |document| document.ids.len()) {
        let batch = Batch::of(group.iter().map(|document| &document.ids[..]));
        let hidden = decoder.forward(&batch, None, &mut NoTap)?;
        // Row `i` of a sequence predicts its token `i + 1`.
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (document, sequence) in group.iter().zip(batch.sequences()) {
            for position in document.added.max(1)..document.ids.len() {
                rows.push((sequence.start + position - 1) as u32);
                targets.push(document.ids[position]);
            }
        }
        let mut scores = Vec::new().into_iter();
        if !targets.is_empty() {
            let rows = Tensor::from_vec(rows, targets.len(), hidden.device()).map_err(lathe_model::Error::from)?;
            let predicting = hidden.index_select(&rows, 0).map_err(lathe_model::Error::from)?;
            scores = decoder.score(&predicting, &targets)?.into_iter();
        }
        for (document, sequence) in group.iter().zip(batch.sequences()) {
            let predicted = document.ids.len().saturating_sub(document.added.max(1));
            readings.push(Reading {
                nll: scores.by_ref().take(predicted).map(|score| score.nll).sum(),
                predicted,
                last: hidden
                    .get(sequence.start + sequence.len - 1)
                    .and_then(|row| row.to_vec1())
                    .map_err(lathe_model::Error::from)?,
            });
        }
        (watch.advance)(batch.ids().len() as u64);
    }
    Ok(readings)
}
