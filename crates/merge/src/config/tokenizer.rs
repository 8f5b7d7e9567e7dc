//! What a file says of tokenizer, chat template and element type of the result.

use super::reference::ModelRef;

/// Which tokens the result has and where their rows come from.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerChoice {
    /// The vocabulary.
    pub source: TokenizerSource,
    /// Tokens with a rule of their own, in the order of the file.
    pub tokens: Vec<(String, TokenRule)>,
    /// Rows are added until their number is a multiple of this.
    pub pad_to_multiple_of: Option<usize>,
}

/// Whose tokens the result has.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    /// The base model's.
    Base,
    /// Every model's: the base's first, then what the others have in addition.
    Union,
    /// One model's.
    Model(ModelRef),
}

/// Where the rows of one token come from.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRule {
    /// Its row.
    pub source: TokenSource,
    /// Whether models that have the token take this row too.
    pub force: bool,
}

/// A row of an embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenSource {
    /// The row that this model has for the token.
    Model(ModelRef),
    /// The row that a model has for some token.
    ModelToken {
        /// The model.
        model: ModelRef,
        /// The token there.
        token: TokenName,
    },
    /// Zeros.
    Zero,
}

/// A token of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// By its text in the vocabulary.
    Text(String),
    /// By its id.
    Id(u32),
}

/// Which chat template the result has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatTemplate {
    /// The one that most of the models have.
    Auto,
    /// A known one.
    Named(NamedTemplate),
    /// This text, in Jinja.
    Jinja(String),
}

/// Chat templates that have a name in configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of families")]
pub enum NamedTemplate {
    Alpaca,
    Chatml,
    Llama3,
    Mistral,
    Exaone,
}

impl NamedTemplate {
    /// All, with their names.
    pub const ALL: &[(&'static str, Self)] = &[
        ("alpaca", Self::Alpaca),
        ("chatml", Self::Chatml),
        ("llama3", Self::Llama3),
        ("mistral", Self::Mistral),
        ("exaone", Self::Exaone),
    ];

    /// As files name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// How numbers of the result are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of types")]
pub enum Dtype {
    Float32,
    Float16,
    Bfloat16,
}

impl Dtype {
    /// All, with their names.
    pub const ALL: &[(&'static str, Self)] =
        &[("float32", Self::Float32), ("float16", Self::Float16), ("bfloat16", Self::Bfloat16)];

    /// As files name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}
