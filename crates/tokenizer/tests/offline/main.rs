//! Tests that need no model: vocabularies of a few hundred tokens, damaged files, chat templates.
#![expect(clippy::unwrap_used, reason = "tests")]

mod byte_level;
mod byte_vocabulary;
mod chat_template;
mod export;
mod hostile;
mod sentencepiece;
mod tiny;
mod wordpiece;
