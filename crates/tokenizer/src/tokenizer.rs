use std::ops::Range;
use std::path::Path;

use lathe_formats::GgufMetadata;
use serde::Serialize;

use crate::error::Error;
use crate::gguf::GgufVocabulary;
use crate::library::Library;
use crate::sentencepiece::{Located, SentencePiece};
use crate::stream::StreamDecoder;
use crate::vocabulary::{Role, Spelling, TokenBytes, Vocabulary};
use crate::{folder, gguf};

/// A model's tokenizer: text to ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) engine: Engine,
    pub(crate) special: SpecialTokens,
    pub(crate) kind: TokenizerKind,
    /// Put before a text with [`BosEos::Add`].
    pub(crate) before: Vec<u32>,
    /// Put after it.
    pub(crate) after: Vec<u32>,
    pub(crate) leading_space: LeadingSpace,
}

/// What turns text into ids.
#[derive(Debug)]
pub(crate) enum Engine {
    Library(Box<Library>),
    SentencePiece(Box<SentencePiece>),
}

/// What decoding does with a space at the very start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadingSpace {
    Keep,
    /// The tokenizer put it there, so it is taken away again.
    Drop,
}

/// The tokens with a meaning for the model rather than the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SpecialTokens {
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// Every token that ends a text or a turn, without repeats; the one that the file names comes first.
    pub eos: Vec<u32>,
    /// Padding of batches.
    pub pad: Option<u32>,
    /// Stands for text that has no token.
    pub unk: Option<u32>,
}

/// What `inspect` says about a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerKind {
    /// Such as `byte-level BPE`, `SentencePiece BPE`, `Unigram`.
    pub model: String,
    /// How the text is cut first; none where it is taken whole.
    pub pre_tokenizer: Option<String>,
    /// What is done to the text before that; none where it is taken as it is.
    pub normalizer: Option<String>,
    /// Number of merges; none where the model has no list of them.
    pub merges: Option<usize>,
    /// Number of control tokens.
    pub control_tokens: usize,
    /// Whether [`BosEos::Add`] puts BOS before a text.
    pub adds_bos: bool,
    /// Whether [`BosEos::Add`] puts EOS after a text.
    pub adds_eos: bool,
    /// Whether characters without a token become bytes.
    pub byte_fallback: bool,
}

/// Whether a text gets the begin and end tokens that the tokenizer puts around one by default (Gemma: `<bos>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BosEos {
    /// For a text that stands alone.
    Add,
    /// For a piece of one, or for the output of a chat template, which has them already.
    Omit,
}

/// What the name of a control token in a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// For itself: the text is data. User-defined tokens that are no control tokens are found all the same.
    Text,
    /// For the control token: the text is a prompt from a trusted source, such as a chat template.
    Parse,
}

/// Whether decoding writes the names of control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlTokens {
    /// They are left out.
    Hide,
    /// They appear as `<|im_end|>`.
    Show,
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The bytes of the text that it stands for, which may begin or end inside a character; none for a token that was
    /// added around the text.
    pub bytes: Option<Range<usize>>,
}

impl Tokenizer {
    /// Reads a model folder: `tokenizer.json`, and for the special tokens `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json` and `config.json` where they exist.
    ///
    /// # Errors
    /// There is no `tokenizer.json`, a file is malformed, or a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        folder::tokenizer(folder)
    }

    /// Builds the tokenizer that the `tokenizer.ggml.*` keys of a GGUF file describe.
    ///
    /// # Errors
    /// Keys are missing, of the wrong type or inconsistent, or name a tokenizer that is not supported.
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Self, Error> {
        gguf::tokenizer(GgufVocabulary::from_metadata(metadata)?)
    }

    /// Like [`Self::from_gguf`], from the values of the keys.
    ///
    /// # Errors
    /// As for [`Self::from_gguf`].
    pub fn from_gguf_vocabulary(vocabulary: GgufVocabulary) -> Result<Self, Error> {
        gguf::tokenizer(vocabulary)
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// A character has no token and the vocabulary has neither bytes nor an unknown token; byte-level vocabularies
    /// and those with byte fallback never fail.
    pub fn encode(&self, text: &str, bos_eos: BosEos, markup: Markup) -> Result<Vec<u32>, Error> {
        let ids = match &self.engine {
            Engine::Library(library) => library.encode(text, markup)?,
            Engine::SentencePiece(model) => located(model, text, markup)?.into_iter().map(|(id, _)| id).collect(),
        };
        Ok(match bos_eos {
            BosEos::Omit => ids,
            BosEos::Add => [&self.before[..], &ids, &self.after].concat(),
        })
    }

    /// The ids of `text` with the bytes that each stands for. The ranges follow each other and cover the whole text. They
    /// are exact to the byte, unless the tokenizer changed the text (composed accents, unknown tokens): then a
    /// character that is split over several tokens is the first one's, and the others' ranges are empty.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn encode_with_offsets(&self, text: &str, bos_eos: BosEos, markup: Markup) -> Result<Vec<Token>, Error> {
        let located = match &self.engine {
            Engine::SentencePiece(model) => located(model, text, markup)?,
            Engine::Library(library) => {
                let aligned = library.encode_aligned(text, markup)?;
                self.exact_to_the_byte(text, &aligned).unwrap_or_else(|| tiled(aligned, text.len()))
            }
        };
        let tokens = located.into_iter().map(|(id, range)| Token { id, bytes: Some(range) });
        let (before, after) = match bos_eos {
            BosEos::Add => (&self.before[..], &self.after[..]),
            BosEos::Omit => (&[][..], &[][..]),
        };
        let added = |&id: &u32| Token { id, bytes: None };
        Ok(before.iter().map(added).chain(tokens).chain(after.iter().map(added)).collect())
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids without a token contribute nothing.
    pub fn decode(&self, ids: &[u32], control: ControlTokens) -> String {
        let mut stream = self.stream(control);
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(id));
        }
        text.push_str(&stream.finish());
        text
    }

    /// A decoder that takes one id at a time.
    pub fn stream(&self, control: ControlTokens) -> StreamDecoder<'_> {
        StreamDecoder::new(self, control)
    }

    /// What `id` contributes to a text. Concatenated over the ids of a text they are the bytes of the text, except
    /// that the tokenizer may have put a space before it, composed its accents, or replaced what it does not know.
    pub fn token_bytes(&self, id: u32) -> TokenBytes {
        self.vocabulary.token_bytes(id)
    }

    /// The token as the file spells it (`Ġthe`, `▁the`); none for an id without a token.
    pub fn token_str(&self, id: u32) -> Option<&str> {
        self.vocabulary.entry(id).map(|(token, _)| token).filter(|token| !token.is_empty())
    }

    /// The id of a token as the file spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        if token.is_empty() {
            return None;
        }
        self.vocabulary.tokens.iter().position(|other| other == token).map(|id| id as u32)
    }

    /// Number of ids, unused ones among them. The model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.tokens.len()
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// What it is, in words.
    pub fn kind(&self) -> &TokenizerKind {
        &self.kind
    }

    /// The ranges of tokens that spell the text byte for byte; none where they do not.
    fn exact_to_the_byte(&self, text: &str, aligned: &[Located]) -> Option<Vec<Located>> {
        let mut rest = text.as_bytes();
        let mut at = 0;
        let mut exact = Vec::with_capacity(aligned.len());
        for (index, (id, _)) in aligned.iter().enumerate() {
            let written = match self.token_bytes(*id) {
                TokenBytes::Control(name) => name.into_bytes(),
                other => other.as_slice().to_vec(),
            };
            let written = match written.strip_prefix(b" ") {
                Some(unspaced)
                    if index == 0 && self.leading_space == LeadingSpace::Drop && !rest.starts_with(&written) =>
                {
                    unspaced
                }
                _ => &written,
            };
            rest = rest.strip_prefix(written)?;
            exact.push((*id, at..at + written.len()));
            at += written.len();
        }
        rest.is_empty().then_some(exact)
    }
}

/// Names under which models end a text or a turn. A file names one of them; a chat model stops at others too.
const END_NAMES: [&str; 13] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
];

/// `named`, then the control tokens that end a text or a turn by their names, without repeats.
pub(crate) fn all_end_tokens(vocabulary: &Vocabulary, named: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let control: Vec<_> = vocabulary.with_role(Role::Control).collect();
    // In the harmony format `<|end|>` ends a message, and the same turn goes on; `<|return|>` ends the turn.
    let is_harmony = control.iter().any(|(_, name)| *name == "<|return|>");
    let by_name = control.into_iter().filter_map(|(id, name)| {
        let ends = END_NAMES.contains(&name) && !(is_harmony && name == "<|end|>");
        ends.then_some(id)
    });
    let mut ends: Vec<u32> = Vec::new();
    for id in named.into_iter().chain(by_name) {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    ends
}

/// The words for a spelling in [`TokenizerKind::model`].
pub(crate) fn model_name(algorithm: &str, spelling: Spelling) -> String {
    match spelling {
        Spelling::ByteLevel => format!("byte-level {algorithm}"),
        Spelling::SentencePiece => format!("SentencePiece {algorithm}"),
        Spelling::Plain => algorithm.to_owned(),
    }
}

fn located(model: &SentencePiece, text: &str, markup: Markup) -> Result<Vec<Located>, Error> {
    match markup {
        Markup::Text => model.encode(text),
        Markup::Parse => model.encode_markup(text),
    }
}

/// Makes ranges that follow each other out of ranges that overlap or leave gaps: what two tokens share is the earlier
/// one's, and what none covers is the one's before it, or the first one's.
fn tiled(mut aligned: Vec<Located>, length: usize) -> Vec<Located> {
    let mut start = 0;
    for index in 0..aligned.len() {
        let next = aligned.get(index + 1).map_or(length, |(_, range)| range.start);
        let end = aligned[index].1.end.max(next).clamp(start, length);
        aligned[index].1 = start..end;
        start = end;
    }
    aligned
}
