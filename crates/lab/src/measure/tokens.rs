//! `lathe measure tokens`: loss per token, byte and token type.

use std::collections::BTreeMap;

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
    /// Texts whose targets sort types by frequency, the training texts for example; none for the texts that are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Texts>,
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
    let counted = spec.counts.as_ref().map(|counts| read_texts(counts, context)).transpose()?;
    check_window(spec.window)?;
    let loaded = load(&spec.model, context)?;
    let window = spec.window.min(loaded.decoder.spec().context_length);
    let tokenizer = loaded.tokenizer()?;
    let documents = texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<Vec<_>, _>>()?;
    let table = counted.map(|texts| {
        let documents = texts.iter().map(|text| tokenise(tokenizer, &text.text)).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, Error>(target_counts(&documents))
    });
    let table = table.transpose()?;
    let frequencies = table.as_ref().map_or(Frequencies::Targets, Frequencies::Table);
    let (report, forward_seconds) = losses(&loaded, &documents, window, frequencies, spec.seed, context)?;
    Ok(TokensResult {
        model: spec.model.to_string(),
        window,
        compute_type: COMPUTE_TYPE,
        seed: spec.seed,
        report,
        forward_seconds,
    })
}

pub(super) fn check_window(window: usize) -> Result<(), Error> {
    if window >= 2 {
        return Ok(());
    }
    Err(Error::Spec {
        field: "--window",
        problem: format!("{window} tokens leave nothing to predict"),
        hint: Some("at least 2; more than the model's context means its context".into()),
    })
}

/// How often each ordinary type is a target: n_v of the documents.
pub(super) fn target_counts(documents: &[Document]) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for document in documents {
        let targets = document.ids.iter().zip(&document.kinds).skip(document.added.max(1));
        for (id, _) in targets.filter(|(_, kind)| **kind == TargetKind::Ordinary) {
            *counts.entry(*id).or_default() += 1;
        }
    }
    counts
}

/// Losses of a loaded model on documents, and the seconds that it ran.
///
/// # Errors
/// The model fails; no document has a token to predict.
pub(crate) fn losses(
    loaded: &Loaded,
    documents: &[Document],
    window: usize,
    frequencies: Frequencies<'_>,
    seed: u64,
    context: &Context<'_>,
) -> Result<(TokenReport, f64), Error> {
    let Predicted { tokens, bytes, seconds } = predicted("scoring", loaded, documents, window, context)?;
    Ok((token_losses(&tokens, &bytes, frequencies, seed)?, seconds))
}

/// What a model says of every token of documents.
pub(super) struct Predicted {
    pub(super) tokens: Vec<PredictedToken>,
    /// Bytes of text that the targets of each document stand for.
    pub(super) bytes: Vec<u64>,
    /// Seconds that the model ran.
    pub(super) seconds: f64,
}

/// Runs a loaded model over documents, as a stage of that name.
///
/// # Errors
/// The model fails; no document has a token to predict.
pub(super) fn predicted(
    what: &str,
    loaded: &Loaded,
    documents: &[Document],
    window: usize,
    context: &Context<'_>,
) -> Result<Predicted, Error> {
    let all: usize = documents.iter().map(|document| document.ids.len()).sum();
    let watch = Watch { seconds: context.seconds, advance: &|by| context.progress.advance(by) };
    let (scored, seconds) = context.stage(what, all as u64, "tokens", || {
        context.timed(|| score_documents(&loaded.decoder, documents, window, watch))
    });
    let tokens: Vec<PredictedToken> = scored?.iter().map(|token| token.predicted(documents)).collect();
    if tokens.is_empty() {
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
    Ok(Predicted { tokens, bytes, seconds })
}
