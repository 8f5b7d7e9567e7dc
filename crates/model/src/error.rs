//! What can be wrong with a model, in one sentence each.

use std::path::PathBuf;

use lathe_formats::is_about_path;

use crate::family::ACTIVATIONS;

/// An error of opening or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint file cannot be read.
    #[error(transparent)]
    Format(#[from] lathe_formats::Error),
    /// A tokenizer or template cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] lathe_tokenizer::Error),
    /// A reference does not resolve.
    #[error(transparent)]
    Reference(#[from] crate::reference::ReferenceError),
    /// A file of the model cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A JSON file is not JSON.
    #[error("{}: not valid JSON: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A configuration lacks a field.
    #[error("{}: field `{field}` is missing", file.display())]
    MissingField {
        /// The configuration.
        file: PathBuf,
        /// The field.
        field: String,
    },
    /// A field of a configuration has a value that cannot be used.
    #[error("{}: field `{field}` is {found}, expected {expected}", file.display())]
    BadField {
        /// The configuration.
        file: PathBuf,
        /// The field.
        field: String,
        /// The value as written.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The architecture is not in the table.
    #[error("{}: architecture `{found}` is not supported", file.display())]
    UnknownFamily {
        /// The configuration.
        file: PathBuf,
        /// The architecture as written.
        found: String,
        /// The most similar names of the table.
        nearest: Vec<String>,
    },
    /// The architecture is not in the table, and the checkpoint brings code for it.
    #[error(
        "{}: architecture `{found}` is code beside the weights (field `auto_map`), which lathe does not run",
        file.display()
    )]
    RemoteCode {
        /// The configuration.
        file: PathBuf,
        /// The architecture as written.
        found: String,
        /// The most similar names of the table.
        nearest: Vec<String>,
    },
    /// The weights are quantised in a way that is not read.
    #[error("{}: field `quantization_config`: weights quantised by {method} are not read", file.display())]
    Quantised {
        /// The configuration.
        file: PathBuf,
        /// `quant_method`, in quotes, or words for the lack of one.
        method: String,
    },
    /// An activation that lathe does not compute.
    #[error("{}: field `{field}`: activation `{found}` is not known", file.display())]
    UnknownActivation {
        /// The configuration.
        file: PathBuf,
        /// The field.
        field: String,
        /// The activation as written.
        found: String,
    },
    /// Tensors that the architecture needs are not in the checkpoint.
    #[error("{}: {} tensor(s) missing: {}", file.display(), names.len(), list(names))]
    MissingTensors {
        /// The checkpoint.
        file: PathBuf,
        /// The names looked for.
        names: Vec<String>,
    },
    /// Tensors of the checkpoint that no rule of its architecture claims.
    #[error("{}: {} tensor(s) unknown to architecture `{family}`: {}", file.display(), names.len(), list(names))]
    UnclaimedTensors {
        /// The checkpoint.
        file: PathBuf,
        /// The architecture.
        family: String,
        /// The names found.
        names: Vec<String>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{tensor}` has shape {found:?}, the configuration says {expected:?}", file.display())]
    WrongShape {
        /// The checkpoint.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration gives.
        expected: Vec<usize>,
    },
    /// A model that a GGUF file has no words for.
    #[error("`{family}` cannot be written as GGUF: the format cannot say its {}", missing.join(", "))]
    NotInGguf {
        /// The architecture.
        family: String,
        /// What the header cannot say.
        missing: Vec<&'static str>,
    },
    /// Parameters that have no tensor in a format.
    #[error("`{family}`: no tensor is named for {} parameter(s): {}", names.len(), list(names))]
    UnnamedParameters {
        /// The architecture.
        family: String,
        /// The parameters.
        names: Vec<String>,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} at position {position} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Its place in the input.
        position: usize,
        /// Ids of the model.
        vocab_size: usize,
    },
    /// A text is longer than the model's context.
    #[error("{tokens} tokens do not fit the model's context of {context}")]
    ContextExceeded {
        /// Tokens of the sequence.
        tokens: usize,
        /// Positions of the model.
        context: usize,
    },
    /// A forward pass of no tokens.
    #[error("nothing to run: the input has no tokens")]
    NoTokens,
    /// A row of a padded batch has padding between its tokens.
    #[error("row {row} of the batch has padding at {position} and tokens again at {tokens_again}")]
    PaddingInside {
        /// The row.
        row: usize,
        /// Where the padding begins.
        position: usize,
        /// Where tokens follow.
        tokens_again: usize,
    },
    /// A cached sequence and its next tokens do not join.
    #[error("sequence {slot} of the cache holds {cached} positions, the next tokens start at {position}")]
    CacheMismatch {
        /// Sequence of the cache.
        slot: usize,
        /// Positions stored.
        cached: usize,
        /// Position asked for.
        position: usize,
    },
    /// A batch continues a cached sequence in two places.
    #[error("sequence {slot} of the cache is twice in one batch")]
    SlotTwice {
        /// Sequence of the cache.
        slot: usize,
    },
    /// A model that reads a text as a whole is asked for the next token.
    #[error("`{family}` is an encoder: it has no language-model head")]
    Encoder {
        /// The architecture.
        family: String,
    },
    /// A rollback to positions that a sliding window has dropped.
    #[error("cannot roll back to {position}: the sliding window has dropped positions before {stored_from}")]
    RolledPastWindow {
        /// Position asked for.
        position: usize,
        /// First position stored.
        stored_from: usize,
    },
    /// The model has no tokenizer, or its tokenizer cannot be used.
    #[error("{}: no tokenizer beside the weights", file.display())]
    NoTokenizer {
        /// The model.
        file: PathBuf,
    },
    /// A sentence-transformers folder whose vectors go through something else than pooling.
    #[error("{}: module {index} is `{found}`, which lathe does not compute", file.display())]
    Module {
        /// `modules.json`.
        file: PathBuf,
        /// Its place in the list.
        index: usize,
        /// Its class.
        found: String,
    },
    /// An adapter cannot be added.
    #[error(transparent)]
    Change(Box<dyn std::error::Error + Send + Sync>),
    /// What is to be trained cannot be.
    #[error("{field}: {problem}")]
    Training {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Format(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Reference(error) => error.hint(),
            Self::UnknownFamily { nearest, .. } if !nearest.is_empty() => {
                Some(format!("the nearest supported architectures are {}", nearest.join(", ")))
            }
            Self::RemoteCode { nearest, .. } if !nearest.is_empty() => Some(format!(
                "if it has the shape of a supported architecture, set `model_type` to its name; the nearest names are {}",
                nearest.join(", ")
            )),
            Self::Quantised { .. } => {
                Some("take the unquantised checkpoint of the model, or a GGUF file of it: both open".into())
            }
            Self::UnknownActivation { .. } => {
                let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
                Some(format!("the activations are {}", names.join(", ")))
            }
            Self::MissingTensors { .. } => {
                Some("the file may be a shard of a larger checkpoint; give the folder instead".into())
            }
            Self::Encoder { .. } => Some("`lathe embed` makes vectors of texts with it".into()),
            Self::Module { .. } => {
                Some("what is computed is a Transformer, then a Pooling, then at most a Normalize".into())
            }
            Self::Training { hint, .. } => hint.clone(),
            Self::NotInGguf { .. } => Some("export it as safetensors".into()),
            Self::ContextExceeded { .. } => Some("shorten the text".into()),
            Self::NoTokenizer { .. } => {
                Some("put `tokenizer.json` in the folder; `lathe trace` also takes token ids, with `--ids`".into())
            }
            _ => None,
        }
    }

    /// Whether the user's input is wrong, as opposed to the machine, or lathe itself, failing.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Format(error) => error.is_bad_input(),
            Self::Read { source, .. } => is_about_path(source),
            Self::Tensor(_) => false,
            _ => true,
        }
    }
}
