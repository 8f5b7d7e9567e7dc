//! `lathe measure tokens`: loss per token, byte and token type.

use lathe_measure::run::{Document, Watch, score_documents};
use lathe_measure::tokens::{Frequencies, PredictedToken, TargetKind, TokenReport, token_losses};
use lathe_model::reference::ModelReference;
use serde::{Deserialize, Serialize};

use super::COMPUTE_TYPE;
use crate::documents::{read_texts, tokenise};
use crate::{Context, Error, Loaded, Texts, load};

/// What to score.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensSpec {
    /// The model.
    pub model: ModelReference,
    /// The texts.
    pub texts: Texts,
    /// Tokens of one forward pass, at most the model's context; longer documents are cut.
    pub window: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Losses of a model.
#[derive(Clone, Debug, Serialize)]
pub struct TokensResult {
    /// The model.
    pub model: String,
    /// Tokens of one forward pass.
    pub window: usize,
    /// Type of the computation.
    pub compute_type: &'static str,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// The losses.
    pub report: TokenReport,
    /// Seconds that the model ran.
    pub forward_seconds: f64,
}

/// Scores texts.
///
/// # Errors
/// The model or a text cannot be read; no text has a token to predict.
pub fn measure_tokens(spec: &TokensSpec, context: &Context<'_>) -> Result<TokensResult, Error> {
    let texts = read_texts(&spec.texts, context)?;
    if spec.window < 2 {
        return Err(Error::Spec {
            field: "--window",
            problem: format!("{} tokens leave nothing to predict", spec.window),
            hint: Some("at least 2; more than the model's context means its context".into()),
        });
    }
    let loaded = load(&spec.model, context)?;
    let window = spec.window.min(loaded.decoder.spec().context_length);
    let tokenizer = loaded.tokenizer()?;
    let documents = texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<Vec<_>, _>>()?;
    let (report, forward_seconds) = losses(&loaded, &documents, window, spec.seed, context)?;
    Ok(TokensResult {
        model: spec.model.to_string(),
        window,
        compute_type: COMPUTE_TYPE,
        seed: spec.seed,
        report,
        forward_seconds,
    })
}

/// Losses of a loaded model on documents, and the seconds that it ran.
///
/// # Errors
/// The model fails; no document has a token to predict.
pub(crate) fn losses(
    loaded: &Loaded,
    documents: &[Document],
    window: usize,
    seed: u64,
    context: &Context<'_>,
) -> Result<(TokenReport, f64), Error> {
    let tokens: usize = documents.iter().map(|document| document.ids.len()).sum();
    let watch = Watch { seconds: context.seconds, advance: &|by| context.progress.advance(by) };
    let (scored, forward_seconds) = context.stage("scoring", tokens as u64, "tokens", || {
        context.timed(|| score_documents(&loaded.decoder, documents, window, watch))
    });
    let predicted: Vec<PredictedToken> = scored?.iter().map(|token| token.predicted(documents)).collect();
    if predicted.is_empty() {
        return Err(Error::Spec {
            field: "DATA",
            problem: "no token to predict: every text has fewer than two tokens".into(),
            hint: None,
        });
    }
    let mut bytes = vec![0; documents.len()];
    for (document, bytes) in documents.iter().zip(&mut bytes) {
        // A first token without a start token before it is not predicted, and its bytes don't count.
        let text = document.kinds.iter().zip(&document.bytes).skip(document.added.max(1));
        *bytes = text.filter(|(kind, _)| **kind != TargetKind::Special).map(|(_, bytes)| bytes).sum();
    }
    let report = token_losses(&predicted, &bytes, Frequencies::Targets, seed)?;
    Ok((report, forward_seconds))
}
