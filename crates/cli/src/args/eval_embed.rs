//! Flags of `lathe eval-embed`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use lathe_lab::embed::{Alpha, Prompt};
use lathe_model::reference::ModelReference;

use super::embed::{ReadingArgs, alpha};
use super::model;

#[derive(Debug, Args)]
pub(crate) struct EvalEmbedArgs {
    /// The models: decoders, with experts or without, and sentence encoders
    #[arg(value_name = "MODEL", value_parser = model, required_unless_present = "list")]
    pub(crate) models: Vec<ModelReference>,
    /// Tasks: built-in names or task files (.toml, .json)
    #[arg(long, value_name = "TASK,TASK", value_delimiter = ',', required_unless_present = "list")]
    pub(crate) task: Vec<String>,
    /// What stands around a text, repeatable: plain, none (quotes), prompteol, style, sentiment, tone, intent, complexity,
    /// subjectivity, language_style, grammar_structure, metaeol, echo [default: prompteol, and plain for an encoder]
    #[arg(long, value_name = "NAME", value_parser = Prompt::from_str)]
    pub(crate) prompt: Vec<Prompt>,
    /// Data of the one task, where it has none of its own
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Ask N units of each task at most, drawn: pairs, queries, texts
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Weight of RW in the sum: a number; auto (deviation of the cosines of HS / that of RW, over the pairs of the task);
    /// search (the best of a grid around it). None of them sees a label
    #[arg(long, value_name = "A", default_value = "auto", value_parser = alpha, allow_negative_numbers = true)]
    pub(crate) alpha: Alpha,
    /// Clusterings of each set: scores are means over them
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) clusterings: usize,
    /// Also train classifiers until they converge, for a second number beside that of MTEB's 100 steps
    #[arg(long)]
    pub(crate) to_convergence: bool,
    /// Seed of intervals, clusterings, the random projection and what --limit draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder for results.json, results.html and what came of every unit; what is there is not computed again
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// List the built-in tasks
    #[arg(long, conflicts_with_all = ["models", "task"])]
    pub(crate) list: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
