//! Flags of `lathe tune tokenizer`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct TokenizerArgs {
    /// Texts: plain files, JSON lines (.jsonl), Parquet, `sample` or `sample:NAME` for the built-in ones
    #[arg(long, value_name = "TEXT", required = true, num_args = 1..)]
    pub(crate) data: Vec<String>,
    /// Field of JSON records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// Tokens of the vocabulary: the 256 bytes, <|endoftext|>, and joined tokens
    #[arg(long, value_name = "N")]
    pub(crate) vocab_size: usize,
    /// Also count rare types under vocabularies of these sizes
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    pub(crate) study: Vec<usize>,
    /// Folder to write; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
