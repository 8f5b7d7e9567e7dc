//! Flags of `lathe data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lathe_lab::data::{CriticalBy, Split};
use lathe_model::reference::ModelReference;

use super::context::TemplateArg;
use super::model;

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Write contexts that contradict known facts, by exchanging answers: what `lathe measure context` asks
    #[command(
        after_help = "Examples:\n  lathe data conflicts --out conflicts.jsonl\n  lathe data conflicts --relation capital --variants 3 --seed 1 --out capitals.jsonl\n  lathe data conflicts --facts my-facts.toml --split all --out mine.jsonl"
    )]
    Conflicts(ConflictsArgs),
    /// Write a small set of instructions made by rules, with or without counterfactual contexts
    #[command(
        after_help = "Examples:\n  lathe data instructions --out plain.jsonl\n  lathe data instructions --counterfactual 0.1 --out augmented.jsonl"
    )]
    Instructions(InstructionsArgs),
    /// Keep the records whose responses need their context: those that a model finds unlikely without it
    #[command(
        after_help = "Examples:\n  lathe data context-critical smollm2 --data alpaca.jsonl --out critical.jsonl\n  lathe data context-critical smollm2 --data alpaca.jsonl --by gap --drop 0.5 --scores scores.jsonl --out critical.jsonl"
    )]
    ContextCritical(CriticalArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SplitArg {
    /// Relations that models are asked about
    Test,
    /// Relations that models are trained on
    Train,
    /// Both
    All,
}

impl From<SplitArg> for Split {
    fn from(arg: SplitArg) -> Self {
        match arg {
            SplitArg::Test => Self::Test,
            SplitArg::Train => Self::Train,
            SplitArg::All => Self::All,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    /// A table of facts (TOML) in the place of the built-in one
    #[arg(long, value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// Which relations of the table
    #[arg(long, value_name = "SIDE", default_value = "test")]
    pub(crate) split: SplitArg,
    /// Only these relations
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub(crate) relation: Vec<String>,
    /// Contexts for each fact, each with another answer
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) variants: usize,
    /// At most N facts, drawn with the seed
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Seed of the answers that are put in
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// The file to write, JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InstructionsArgs {
    /// A table of facts (TOML) in the place of the built-in one
    #[arg(long, value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// Which relations of the table
    #[arg(long, value_name = "SIDE", default_value = "train")]
    pub(crate) split: SplitArg,
    /// Records, before counterfactual ones are added
    #[arg(long, value_name = "N", default_value_t = 800)]
    pub(crate) records: usize,
    /// Counterfactual records to add, as a share of the others, which stay the same
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) counterfactual: f64,
    /// Seed of all draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// The file to write, JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ByArg {
    /// Negative log-likelihood per token of the response without its context
    NoContext,
    /// The same less that with the context
    Gap,
}

impl From<ByArg> for CriticalBy {
    fn from(arg: ByArg) -> Self {
        match arg {
            ByArg::NoContext => Self::NoContext,
            ByArg::Gap => Self::Gap,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CriticalArgs {
    /// The model that is to be tuned, before it is
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    /// Records with instruction, input, output; or prompt, context, completion; or messages and context
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Share of the records with a context that is left out, rounded down
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    pub(crate) drop: f64,
    /// The lowest of what is left out
    #[arg(long, value_name = "WHAT", default_value = "no-context")]
    pub(crate) by: ByArg,
    /// How the model is asked
    #[arg(long, value_name = "FORM", default_value = "auto")]
    pub(crate) template: TemplateArg,
    /// Texts at once [default: as many as have room in 1 GiB, at most 64]; no score depends on it
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// File for the records that are kept, each with its scores; a run that was killed goes on there
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// File for the scores of every record with a context
    #[arg(long, value_name = "FILE")]
    pub(crate) scores: Option<PathBuf>,
    /// Print what was chosen as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
