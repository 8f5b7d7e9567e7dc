use std::path::PathBuf;

use crate::pre_tokenizer;

/// What can be wrong with a tokenizer's files, with a text, or with a chat template.
///
/// `origin` is the file that the vocabulary was read from, as the caller named it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder has no tokenizer file that this crate reads.
    #[error("{}: no {file} in this folder", folder.display())]
    NoTokenizerFile {
        /// The folder that was searched.
        folder: PathBuf,
        /// The file that is missing.
        file: &'static str,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file is malformed, or a field has the wrong type or value.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the field or the line.
        reason: String,
    },
    /// The metadata of a GGUF file cannot be read.
    #[error(transparent)]
    Metadata(#[from] lathe_formats::Error),
    /// A GGUF file lacks a key that its tokenizer needs.
    #[error("{origin}: key '{key}' is missing")]
    MissingKey {
        /// The file.
        origin: String,
        /// The metadata key.
        key: &'static str,
    },
    /// The value of a GGUF key cannot be used.
    #[error("{origin}: key '{key}': {reason}")]
    Key {
        /// The file.
        origin: String,
        /// The metadata key.
        key: &'static str,
        /// What is wrong with the value.
        reason: String,
    },
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    #[error("{origin}: tokenizer.ggml.model is '{model}', which is not supported")]
    UnknownModel {
        /// The file.
        origin: String,
        /// The name in the file.
        model: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokeniser that is not implemented.
    #[error("{origin}: tokenizer.ggml.pre is '{name}', which is not a known pre-tokeniser")]
    UnknownPreTokenizer {
        /// The file.
        origin: String,
        /// The name in the file.
        name: String,
    },
    /// Two arrays of a GGUF file that describe the same tokens differ in length.
    #[error("{origin}: key '{key}' has {found} entries for {expected} tokens")]
    LengthMismatch {
        /// The file.
        origin: String,
        /// The metadata key of the wrong length.
        key: &'static str,
        /// Its number of entries.
        found: usize,
        /// The number of tokens.
        expected: usize,
    },
    /// Two ids spell the same token.
    #[error("{origin}: token '{token}' appears twice, as ids {first} and {second}")]
    DuplicateToken {
        /// The file.
        origin: String,
        /// The token as the file spells it.
        token: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// A merge does not join two tokens to a third.
    #[error("{origin}: merge {index} ('{merge}'): {reason}")]
    Merge {
        /// The file.
        origin: String,
        /// Position in the list of merges, from 0.
        index: usize,
        /// The merge as the file spells it.
        merge: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A special token's id is outside the vocabulary.
    #[error("{origin}: '{field}' is {id}, but the vocabulary has {tokens} tokens")]
    IdOutOfRange {
        /// The file.
        origin: String,
        /// The metadata key or the JSON field.
        field: String,
        /// The id in the file.
        id: u64,
        /// Number of tokens.
        tokens: usize,
    },
    /// A tokenizer that GGUF files have no words for.
    #[error("{}: this tokenizer cannot be written to a GGUF file: {reason}", path.display())]
    NotForGguf {
        /// Its `tokenizer.json`.
        path: PathBuf,
        /// What cannot be said.
        reason: String,
    },
    /// A pre-tokeniser that GGUF files, which only name them, have no name for.
    #[error("{}: no pre-tokeniser that a GGUF file can name does this: {description}", path.display())]
    UnnamedPreTokenizer {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// Its normalizer, its steps, and whether whole words are taken.
        description: String,
    },
    /// A token has an id beyond the last row of the embedding.
    #[error("{}: token '{token}' has id {id}, but the embedding has {rows} rows", path.display())]
    TooFewRows {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// The token as the file spells it.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A text holds a character that no token spells, and the vocabulary has neither bytes nor an unknown token.
    #[error("no token spells {character:?} (byte {at} of the text)")]
    NoToken {
        /// The character.
        character: char,
        /// Where it starts in the text, in bytes.
        at: usize,
    },
    /// The tokenizer failed on a text.
    #[error("cannot tokenize the text: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// What a tokenizer's tokens spell is not the text that it was given, so bytes do not say what the model reads.
    #[error("the tokenizer changes texts: {written:?} is read as {read:?}")]
    ChangesText {
        /// The part of the probe that differs.
        written: String,
        /// What its tokens spell instead.
        read: String,
    },
    /// A chat template does not parse, fails while it runs, or refuses the conversation.
    #[error("chat template '{name}', line {line}: {reason}")]
    Template {
        /// The template's name; `default` unless the model has several.
        name: String,
        /// Line of the template, from 1; 0 where it is not known.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// What the reader can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Metadata(error) => error.hint(),
            Self::NoTokenizerFile { .. } => {
                Some("convert the model's tokenizer to tokenizer.json with its own library, or use a GGUF file".into())
            }
            Self::UnknownModel { .. } => Some("supported: gpt2 (byte-level BPE), llama (SentencePiece)".into()),
            Self::UnknownPreTokenizer { .. } | Self::UnnamedPreTokenizer { .. } => {
                let names: Vec<_> = pre_tokenizer::known_names().collect();
                Some(format!("known: {}", names.join(", ")))
            }
            Self::ChangesText { .. } => {
                Some("models are combined on bytes, which needs tokenizers that keep a text as it is".into())
            }
            Self::NotForGguf { .. } => Some("a folder with safetensors and tokenizer.json can hold it".into()),
            Self::DuplicateToken { .. } | Self::Merge { .. } | Self::LengthMismatch { .. } => {
                Some("the file is damaged or was written by a faulty converter; fetch or convert it again".into())
            }
            _ => None,
        }
    }
}
