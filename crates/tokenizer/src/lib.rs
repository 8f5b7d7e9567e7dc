//! Tokenizers and chat templates of open-weight models, from `tokenizer.json` and from GGUF metadata.
//!
//! A [`Tokenizer`] turns text into ids, says which bytes of the text each id stands for, and turns ids back into
//! text, all at once or as they come ([`StreamDecoder`]). [`TokenBytes`] is what one token contributes to a text: the
//! common ground on which two models with different vocabularies are compared. A [`ChatTemplate`] writes a conversation
//! the way that a model was trained to read it.
//!
//! Text from outside is text: the name of a control token in it (`<|im_end|>`) becomes that token only where the caller
//! asks for [`Markup::Parse`], as one does with the output of a chat template.

pub mod byte_alphabet;
mod byte_vocabulary;
mod chat_template;
mod error;
pub mod export;
mod folder;
mod gguf;
mod library;
mod literal;
mod moment;
mod pre_tokenizer;
mod python_json;
mod sentencepiece;
mod stream;
mod tokenizer;
mod train;
mod vocabulary;

pub use byte_vocabulary::{ByteVocabulary, PROBE, encode_continuation, splits_before};
pub use chat_template::{ChatTemplate, GenerationPrompt, Message, TemplateVariables};
pub use error::Error;
pub use gguf::GgufVocabulary;
pub use moment::Moment;
pub use stream::StreamDecoder;
pub use tokenizer::{BosEos, ControlTokens, Markup, SpecialTokens, Token, Tokenizer, TokenizerKind};
pub use train::{END_OF_TEXT, LEAST_VOCABULARY, LearntVocabulary, SizeCounts, learn_byte_level_bpe};
pub use vocabulary::TokenBytes;
