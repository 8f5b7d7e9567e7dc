//! Texts of ensembles as records: who chose what, and what the members thought.

use lathe_decode::ensemble::{Counts, EnsembleEnd, EnsembleStep, EnsembleText, Origin, Symbol, Vote};
use serde::{Deserialize, Serialize};

/// A text of an ensemble: a JSON line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnsembleString {
    /// Index of its prompt, from 0.
    pub prompt: usize,
    /// Which text of the prompt, from 0.
    pub sample: usize,
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Tokens of the first member.
    pub tokens: usize,
    /// Why it ended.
    pub ended: EnsembleEnd,
    /// What happened.
    pub counts: Counts,
    /// Every symbol with its votes, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRecord>,
}

/// One symbol of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// What was chosen.
    #[serde(flatten)]
    pub symbol: SymbolRecord,
    /// Who chose it.
    pub origin: Origin,
    /// Its probability.
    pub p: f64,
    /// The most probable symbols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<VoteRecord>,
}

/// A symbol: bytes or the end of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolRecord {
    /// The bytes as text, bytes that are no UTF-8 replaced; null at the end of the text.
    pub text: Option<String>,
    /// The bytes in hexadecimal, where they are no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
}

/// What the members think of a symbol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteRecord {
    /// The symbol.
    #[serde(flatten)]
    pub symbol: SymbolRecord,
    /// Its combined probability.
    pub p: f64,
    /// Its probability under each member.
    pub members: Vec<f64>,
}

impl From<&Symbol> for SymbolRecord {
    fn from(symbol: &Symbol) -> Self {
        match symbol {
            Symbol::End => Self { text: None, hex: None },
            Symbol::Text(bytes) => {
                let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let text = String::from_utf8_lossy(bytes).into_owned();
                Self { text: Some(text), hex: std::str::from_utf8(bytes).is_err().then(hex) }
            }
        }
    }
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self { symbol: (&vote.symbol).into(), p: vote.p, members: vote.members.clone() }
    }
}

impl From<&EnsembleStep> for StepRecord {
    fn from(step: &EnsembleStep) -> Self {
        let votes = step.votes.iter().map(VoteRecord::from).collect();
        Self { symbol: (&step.symbol).into(), origin: step.origin, p: step.p, votes }
    }
}

impl EnsembleString {
    /// The record of a text.
    pub(super) fn of(prompt: usize, sample: usize, text: &EnsembleText) -> Self {
        Self {
            prompt,
            sample,
            text: String::from_utf8_lossy(&text.text).into_owned(),
            tokens: text.tokens,
            ended: text.ended.clone(),
            counts: text.counts,
            steps: text.steps.iter().map(StepRecord::from).collect(),
        }
    }
}
