//! Loss per token, per byte and per token type (arXiv 2410.11985, whose definitions are known from its
//! reviews; what they leave open is a choice of ours and marked as such in the docs of each item).
//!
//! Every predicted position has a target id v and a loss −ln p(v | prefix). The ordinary (micro) loss
//! averages over positions and is ruled by frequent types; the token-balanced (macro) loss averages L_v, the
//! mean loss of a type, over types. Damage to rare types shows in the second only.
//!
//! The caller leaves out padding, ignored positions and positions without a target, and does not let a
//! prediction cross a document boundary. Type-level results of models with different tokenizers are not
//! comparable.

mod concentration;
mod fairness;
mod learning_speed;
#[cfg(test)]
mod tests;
mod types;
mod unconstrained_features;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Estimate, Number, Reason};
use crate::statistics::bootstrap;

pub use concentration::{Concentration, MassOfTop, TypesForMass, TypesUnder, concentration};
pub use fairness::{
    BinLevel, BinSpeed, FrequencyLevels, GroupLevel, GroupSpeed, SpeedByFrequency, TypeMean, frequency_levels,
    speed_by_frequency, type_means,
};
pub use learning_speed::{LearningSpeed, learning_speed};
pub use types::{FrequencyBin, FrequencySplit, OutsideTable, SPLIT_PERCENTILE, TypeLoss, power_of_three, split_count};
pub use unconstrained_features::{
    ClassLoss, TheoryBin, TheoryPoint, theory_by_frequency, unconstrained_features_losses,
};

/// Losses this far below 0 are rounding of a log-softmax; further below is a wrong sign.
const NEGATIVE_ROUNDING: f64 = -1e-3;

/// One predicted position.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictedToken {
    /// Index of its document.
    pub document: usize,
    /// Target id.
    pub target: u32,
    /// What the target stands for.
    pub kind: TargetKind,
    /// −ln p(target | prefix), nats.
    pub nll: f64,
    /// Whether the target had the highest probability, where the caller knows.
    pub hit: Option<bool>,
    /// Entropy of the predicted distribution in nats, where the caller knows.
    pub entropy: Option<f64>,
}

/// What a target id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A piece of text.
    Ordinary,
    /// One byte of a character that the vocabulary lacks: text, but not a type of its own.
    ByteFallback,
    /// A marker that stands for no text (end of text, turn markers).
    Special,
}

/// The counts n_v that sort types into frequency bins.
#[derive(Clone, Copy, Debug)]
pub enum Frequencies<'a> {
    /// Counted on the ordinary targets given.
    Targets,
    /// Counted elsewhere, on the training targets for example, and kept fixed for all checkpoints and models
    /// that share a tokenizer. Ordinary ids only.
    Table(&'a BTreeMap<u32, u64>),
}

/// Losses of one model on a set of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenReport {
    /// Documents with at least one predicted token that is not special.
    pub documents: usize,
    /// Over all text: ordinary and byte-fallback targets.
    pub text: TextLoss,
    /// Per token type, ordinary targets only.
    pub types: TypeLoss,
    /// Byte-fallback targets, which `text` includes.
    pub byte_fallback: KindLoss,
    /// Special targets, which nothing else includes.
    pub special: KindLoss,
}

/// Micro averages; intervals resample documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextLoss {
    /// Predicted tokens, T.
    pub tokens: usize,
    /// Bytes of text that they stand for.
    pub bytes: u64,
    /// Loss in nats per token.
    pub nll: Estimate,
    /// exp of the loss, per token.
    pub perplexity: Estimate,
    /// Loss in bits per byte of text: comparable across tokenizers.
    pub bits_per_byte: Estimate,
    /// Share of targets with the highest probability (0 to 1).
    pub accuracy: Estimate,
    /// Mean entropy of the predicted distributions in nats; equal to the loss when the model is calibrated.
    pub entropy: Estimate,
}

/// Targets of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindLoss {
    /// Predicted tokens of this kind.
    pub tokens: usize,
    /// Different ids among them.
    pub types: usize,
    /// Mean loss over tokens, nats.
    pub nll: Number,
    /// Mean over types of their mean loss, nats.
    pub macro_nll: Number,
    /// Share of targets with the highest probability (0 to 1).
    pub accuracy: Number,
}

/// Sums over a set of predicted tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    tokens: f64,
    nll: f64,
    hits: Option<f64>,
    entropy: Option<f64>,
}

/// Averages the losses in every way above. `document_bytes`, `[documents]`, are the bytes of text that the
/// ordinary and byte-fallback targets of each document stand for; `seed` is that of the bootstrap. Documents
/// without such a target take no part in it; with one document there are no intervals.
///
/// # Errors
/// A loss or entropy that is NaN, infinite or negative (naming document and position), or a document that
/// `document_bytes` lacks.
pub fn token_losses(
    tokens: &[PredictedToken],
    document_bytes: &[u64],
    frequencies: Frequencies<'_>,
    seed: u64,
) -> Result<TokenReport, MeasureError> {
    check(tokens, document_bytes.len())?;
    let text: Vec<PredictedToken> = tokens.iter().filter(|token| token.kind != TargetKind::Special).copied().collect();
    let units = DocumentUnits::new(&text, document_bytes.len());
    let bytes: Vec<u64> = units.documents.iter().map(|&document| document_bytes[document]).collect();
    let of_kind = |kind| -> Vec<PredictedToken> { tokens.iter().filter(|token| token.kind == kind).copied().collect() };
    Ok(TokenReport {
        documents: units.len(),
        text: text_loss(&text, &units, &bytes, seed),
        types: types::type_loss(&of_kind(TargetKind::Ordinary), &units, frequencies, seed),
        byte_fallback: kind_loss(&of_kind(TargetKind::ByteFallback)),
        special: kind_loss(&of_kind(TargetKind::Special)),
    })
}

fn check(tokens: &[PredictedToken], documents: usize) -> Result<(), MeasureError> {
    let wrong = |value: f64| !value.is_finite() || value < NEGATIVE_ROUNDING;
    for (index, token) in tokens.iter().enumerate() {
        let document = token.document;
        if document >= documents {
            return Err(MeasureError::NoSuchDocument { token: index, document, documents });
        }
        let position = || tokens[..index].iter().filter(|earlier| earlier.document == document).count();
        if wrong(token.nll) {
            return Err(MeasureError::Loss { document, position: position(), nll: token.nll });
        }
        if let Some(entropy) = token.entropy.filter(|&entropy| wrong(entropy)) {
            return Err(MeasureError::Entropy { document, position: position(), entropy });
        }
    }
    Ok(())
}

/// The documents that the bootstrap resamples: those with text targets, renumbered without gaps.
struct DocumentUnits {
    /// Document of each unit.
    documents: Vec<usize>,
    /// Unit of each document; meaningful for documents with text targets only.
    unit_of: Vec<usize>,
}

impl DocumentUnits {
    fn new(text: &[PredictedToken], documents: usize) -> Self {
        let mut predicted = vec![false; documents];
        for token in text {
            predicted[token.document] = true;
        }
        let documents: Vec<usize> = (0..documents).filter(|&document| predicted[document]).collect();
        let mut unit_of = vec![0; predicted.len()];
        for (unit, &document) in documents.iter().enumerate() {
            unit_of[document] = unit;
        }
        Self { documents, unit_of }
    }

    fn len(&self) -> usize {
        self.documents.len()
    }

    fn of(&self, token: &PredictedToken) -> usize {
        self.unit_of[token.document]
    }
}

fn text_loss(text: &[PredictedToken], units: &DocumentUnits, bytes: &[u64], seed: u64) -> TextLoss {
    let mut per_unit = vec![Sums::none(); units.len()];
    for token in text {
        per_unit[units.of(token)].add(token);
    }
    let [nll, perplexity, bits_per_byte, accuracy, entropy] = bootstrap(units.len(), seed, |times| {
        let mut sums = Sums::none();
        let mut text_bytes = 0.0;
        for ((unit, &bytes), &times) in per_unit.iter().zip(bytes).zip(times) {
            sums.add_times(unit, times);
            text_bytes += bytes as f64 * f64::from(times);
        }
        let bits = sums.nll / std::f64::consts::LN_2;
        let bits_per_byte = if text.is_empty() {
            Number::Undefined(Reason::NoTokens)
        } else {
            Number::ratio(bits, text_bytes, Reason::NoBytes)
        };
        [sums.mean_nll(), sums.mean_nll().map(f64::exp), bits_per_byte, sums.accuracy(), sums.mean_entropy()]
    });
    TextLoss { tokens: text.len(), bytes: bytes.iter().sum(), nll, perplexity, bits_per_byte, accuracy, entropy }
}

fn kind_loss(tokens: &[PredictedToken]) -> KindLoss {
    let mut per_type = BTreeMap::<u32, Sums>::new();
    let mut all = Sums::none();
    for token in tokens {
        per_type.entry(token.target).or_insert_with(Sums::none).add(token);
        all.add(token);
    }
    let type_means: f64 = per_type.values().map(|sums| sums.nll / sums.tokens).sum();
    KindLoss {
        tokens: tokens.len(),
        types: per_type.len(),
        nll: all.mean_nll(),
        macro_nll: Number::ratio(type_means, per_type.len() as f64, Reason::NoTokens),
        accuracy: all.accuracy(),
    }
}

impl Sums {
    /// Over no tokens.
    fn none() -> Self {
        Self { tokens: 0.0, nll: 0.0, hits: Some(0.0), entropy: Some(0.0) }
    }

    fn add(&mut self, token: &PredictedToken) {
        let hits = token.hit.map(|hit| if hit { 1.0 } else { 0.0 });
        self.add_times(&Self { tokens: 1.0, nll: token.nll, hits, entropy: token.entropy }, 1);
    }

    /// Adds `other`, drawn `times` times. One token without a hit or entropy leaves the sum without one.
    fn add_times(&mut self, other: &Self, times: u32) {
        let times = f64::from(times);
        let add = |sum: Option<f64>, value: Option<f64>| Some(sum? + value? * times);
        self.tokens += other.tokens * times;
        self.nll += other.nll * times;
        self.hits = add(self.hits, other.hits);
        self.entropy = add(self.entropy, other.entropy);
    }

    fn mean_nll(&self) -> Number {
        Number::ratio(self.nll, self.tokens, Reason::NoTokens)
    }

    fn accuracy(&self) -> Number {
        self.mean_of(self.hits)
    }

    fn mean_entropy(&self) -> Number {
        self.mean_of(self.entropy)
    }

    fn mean_of(&self, sum: Option<f64>) -> Number {
        match sum {
            Some(sum) => Number::ratio(sum, self.tokens, Reason::NoTokens),
            None => Number::Undefined(Reason::NotGiven),
        }
    }
}
