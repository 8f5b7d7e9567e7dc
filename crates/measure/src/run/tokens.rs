//! Losses of documents.

use lathe_model::{Batch, Decoder, NoTap, TokenScore};

use super::{RunError, Watch, batches, fitting};
use crate::tokens::{PredictedToken, TargetKind};

/// A tokenised document.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Token ids, an added start token included.
    pub ids: Vec<u32>,
    /// Bytes of text that each token stands for.
    pub bytes: Vec<u64>,
    /// What each token stands for.
    pub kinds: Vec<TargetKind>,
    /// Number of start tokens that were added: they are context of every window and never predicted.
    pub added: usize,
}

/// A predicted token: where it stands, and what the model says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredToken {
    /// Index of the document.
    pub document: usize,
    /// Index of the token in the document.
    pub position: usize,
    /// The model's word.
    pub score: TokenScore,
}

/// One forward pass over a part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Index of the document.
    pub document: usize,
    /// Start tokens, the token before the part, and the part.
    pub ids: Vec<u32>,
    /// Position in the document of the first predicted token.
    pub first: usize,
    /// Tokens before it in `ids`, at least one.
    pub context: usize,
}

/// Scores every token of every document that has a token before it, exactly once, in [`windows`].
///
/// # Errors
/// A token outside the vocabulary.
pub fn score_documents(
    decoder: &Decoder,
    documents: &[Document],
    window: usize,
    watch: Watch<'_>,
) -> Result<Vec<ScoredToken>, RunError> {
    let window = fitting(decoder, window);
    let windows = windows(documents, window);
    let mut scored = Vec::with_capacity(documents.iter().map(|d| d.ids.len()).sum());
    for group in batches(&windows, |window| window.ids.len()) {
        let batch = Batch::of(group.iter().map(|window| &window.ids[..window.ids.len() - 1]));
        let hidden = decoder.forward(&batch, None, &mut NoTap)?;
        let targets: Vec<u32> = group.iter().flat_map(|window| &window.ids[1..]).copied().collect();
        let mut scores = decoder.score(&hidden, &targets)?.into_iter();
        for window in group {
            let of_window: Vec<TokenScore> = scores.by_ref().take(window.ids.len() - 1).collect();
            let predicted = of_window.into_iter().skip(window.context - 1).enumerate();
            scored.extend(predicted.map(|(i, score)| ScoredToken {
                document: window.document,
                position: window.first + i,
                score,
            }));
        }
        (watch.advance)(group.iter().map(|window| (window.ids.len() - window.context) as u64).sum());
    }
    Ok(scored)
}

/// Parts of documents in which every token that has a token before it is predicted exactly once.
///
/// A document longer than `window` is cut into consecutive windows; each later one starts with the added start tokens
/// and the last token of the window before, so that only context is lost at a cut, never a prediction.
#[must_use]
pub fn windows(documents: &[Document], window: usize) -> Vec<Window> {
    documents.iter().enumerate().flat_map(|(index, document)| windows_of(index, document, window)).collect()
}

fn windows_of(index: usize, document: &Document, window: usize) -> Vec<Window> {
    let ids = &document.ids;
    let prefix = &ids[..document.added.min(ids.len())];
    let mut windows = Vec::new();
    // The first token of a document without a start token has nothing before it.
    let mut first = prefix.len().max(1);
    while first < ids.len() {
        let mut part = prefix.to_vec();
        if first > prefix.len() {
            part.push(ids[first - 1]);
        }
        let context = part.len();
        let end = ids.len().min(first + window.saturating_sub(context).max(1));
        part.extend_from_slice(&ids[first..end]);
        windows.push(Window { document: index, ids: part, first, context });
        first = end;
    }
    windows
}

impl ScoredToken {
    /// The input of [`crate::tokens::token_losses`].
    #[must_use]
    pub fn predicted(&self, documents: &[Document]) -> PredictedToken {
        let document = &documents[self.document];
        let target = document.ids[self.position];
        PredictedToken {
            document: self.document,
            target,
            kind: document.kinds[self.position],
            nll: self.score.nll,
            hit: Some(self.score.argmax == target),
            entropy: Some(self.score.entropy.max(0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_predicted_once() {
        for (added, len, window) in [(0, 10, 4), (1, 10, 4), (0, 2, 8), (1, 2, 2), (0, 1, 4), (1, 1, 4), (0, 9, 9)] {
            let document = Document { ids: (0..len).collect(), added, ..Document::default() };
            let windows = windows_of(0, &document, window);
            let predicted: Vec<u32> = windows.iter().flat_map(|w| w.ids[w.context..].to_vec()).collect();
            let expected: Vec<u32> = (added.max(1) as u32..len).collect();
            assert_eq!(predicted, expected, "added {added}, {len} tokens, window {window}");
            for w in &windows {
                assert!(w.ids.len() <= window.max(w.context + 1), "{} of {window}", w.ids.len());
                assert!(w.context >= 1);
                assert_eq!(w.ids[w.context - 1] as usize, w.first - 1, "the token before is the context");
            }
        }
    }
}
