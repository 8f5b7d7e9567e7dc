//! Tokenizers from one kind of file to the other: a GGUF vocabulary as the files of a model folder, and a model folder
//! as the `tokenizer.*` keys of a GGUF file.
//!
//! Both directions keep the ids of every token and the ids of every text. Where the other kind of file has no words
//! for what a tokenizer does, the answer is an error, not something close.

mod folder;
mod gguf;
mod joins;

pub use folder::{FolderFiles, GenerationIds, folder_files};
pub use gguf::gguf_metadata;
