//! What can be wrong with tokenizers that are merged.

use crate::inputs::InputError;

/// Why tokens cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A field of a tokenizer that is missing or of another form.
    #[error("{model}: {file}: {field} {reason}")]
    BadField {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Two tokens with one id.
    #[error("{model}: tokenizer.json: the tokens {first:?} and {second:?} have the same id {id}")]
    DuplicateId {
        /// The model.
        model: String,
        /// The id.
        id: u32,
        /// One token.
        first: String,
        /// The other one.
        second: String,
    },

    /// A tokenizer without a token that its model uses.
    #[error("{model}: tokenizer.json: no token has a row in the embedding")]
    NoTokens {
        /// The model.
        model: String,
    },

    /// More tokens than ids.
    #[error("the vocabulary would have {tokens} tokens, more than ids of 32 bits")]
    TooManyTokens {
        /// How many.
        tokens: usize,
    },

    /// Tokenizers that spell the same text in different ways.
    #[error("no union of these tokenizers: {first} is {first_family}, {second} is {second_family}")]
    Incompatible {
        /// The model whose ids come first.
        first: String,
        /// What its tokenizer is.
        first_family: String,
        /// The other model.
        second: String,
        /// What its tokenizer is.
        second_family: String,
    },

    /// A rule for a token that the result does not have.
    #[error("tokenizer.tokens: the token {token:?} is not in the merged vocabulary")]
    UnknownToken {
        /// The token.
        token: String,
    },

    /// A rule that names a row that does not exist.
    #[error("tokenizer.tokens: the source of {token:?}: {model} has no {named}")]
    RuleWithoutRow {
        /// The token with the rule.
        token: String,
        /// The model that should have the row.
        model: String,
        /// The token or row.
        named: String,
    },

    /// An index of a model that is not merged.
    #[error("model {model} is asked for its tokens, but {models} models are merged")]
    NoSuchModel {
        /// The index.
        model: usize,
        /// How many models there are.
        models: usize,
    },

    /// A padding that makes no sense.
    #[error("tokenizer.pad_to_multiple_of is {multiple}, but should be from 1 to {largest}")]
    BadMultiple {
        /// The value.
        multiple: usize,
        /// The largest one.
        largest: usize,
    },

    /// The merged tokenizer would not load with the ids that were chosen.
    #[error("the merged tokenizer.json would be wrong: {reason}")]
    Unloadable {
        /// What is wrong.
        reason: String,
    },

    /// A row cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
}

impl VocabularyError {
    /// What to do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Incompatible { .. } => {
                "take the tokenizer of one model (tokenizer.source: base, or a model); tokens with the same text share \
                 rows"
            }
            Self::UnknownToken { .. } => {
                "tokens are spelled as in tokenizer.json (Ġ or ▁ for a space); one that only another model has needs \
                 tokenizer.source: union"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
