//! Flags of `lathe measure context`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lathe_lab::measure::{KnownBy, PromptForm};
use lathe_measure::context::Matching;
use lathe_model::reference::ModelReference;

use super::model;

#[derive(Debug, Args)]
pub(crate) struct ContextArgs {
    /// The models, side by side
    #[arg(value_name = "MODEL", value_parser = model, required = true)]
    pub(crate) models: Vec<ModelReference>,
    /// Records with context, question, answer (of the context) and memorised, as `lathe data conflicts` writes them
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// How the two answers are looked for in what a model writes
    #[arg(long = "match", value_name = "HOW", default_value = "safe")]
    pub(crate) matching: MatchArg,
    /// How a model is asked
    #[arg(long, value_name = "FORM", default_value = "auto")]
    pub(crate) template: TemplateArg,
    /// A sentence before every prompt, such as "Answer from the background only."
    #[arg(long, value_name = "TEXT")]
    pub(crate) instruction: Option<String>,
    /// Tokens of an answer at most; it ends with its line
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_tokens: usize,
    /// Who says which memorised answers are known: those that a question without its context is answered with
    #[arg(long, value_name = "WHO", default_value = "each")]
    pub(crate) known_by: KnownArg,
    /// Leave out attention on the context, which takes one more reading of each prompt
    #[arg(long)]
    pub(crate) no_attention: bool,
    /// Take the first N records
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Questions that are asked at once [default: as many as have room in 1 GiB, at most 64]; no answer depends on it
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Seed of the intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// File for every answer, as JSON lines; a run that was killed goes on there
    #[arg(long, value_name = "FILE", visible_alias = "items")]
    pub(crate) out: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MatchArg {
    /// Whole words without accents and case; where one answer is a part of the other, the longer one is taken away first
    Safe,
    /// Whole words without accents and case
    Words,
    /// Parts of the text in lower case, as in the paper
    Substring,
}

impl From<MatchArg> for Matching {
    fn from(arg: MatchArg) -> Self {
        match arg {
            MatchArg::Safe => Self::Safe,
            MatchArg::Words => Self::Words,
            MatchArg::Substring => Self::Substring,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TemplateArg {
    /// In the chat template of a model that has one, else plain
    Auto,
    /// As a user's turn in the chat template
    Chat,
    /// As a text that ends in `Answer:`
    Plain,
    /// Under the headings of Alpaca
    Alpaca,
}

impl From<TemplateArg> for PromptForm {
    fn from(arg: TemplateArg) -> Self {
        match arg {
            TemplateArg::Auto => Self::Auto,
            TemplateArg::Chat => Self::Chat,
            TemplateArg::Plain => Self::Plain,
            TemplateArg::Alpaca => Self::Alpaca,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KnownArg {
    /// Each model for itself
    Each,
    /// The first model for all
    First,
    /// The field `known` of the records
    Data,
    /// Nobody: no question is asked without its context
    Skip,
}

impl From<KnownArg> for KnownBy {
    fn from(arg: KnownArg) -> Self {
        match arg {
            KnownArg::Each => Self::Each,
            KnownArg::First => Self::First,
            KnownArg::Data => Self::Data,
            KnownArg::Skip => Self::Skip,
        }
    }
}
