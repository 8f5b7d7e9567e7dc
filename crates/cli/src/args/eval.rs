//! Flags of `lathe eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ComputeArg;
use super::ensemble::{TogetherArgs, Voices};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// The models; MODEL+MODEL is an ensemble of several
    #[arg(value_name = "MODEL", required_unless_present = "list")]
    pub(crate) models: Vec<Voices>,
    /// Tasks: built-in names or task files (.toml, .json)
    #[arg(long, value_name = "TASK,TASK", value_delimiter = ',', required_unless_present = "list")]
    pub(crate) task: Vec<String>,
    /// Data of the one task, in the place of its own: JSON lines or Parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Ask the first N questions of each task
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Draw these questions with a seed instead of taking the first
    #[arg(long, value_name = "SEED", requires = "limit")]
    pub(crate) shuffle: Option<u64>,
    /// Ask in the model's chat template, as a user's turn
    #[arg(long)]
    pub(crate) chat: bool,
    /// System prompt
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    /// Drop the beginning of texts that are longer than a model's context; otherwise they are an error
    #[arg(long)]
    pub(crate) truncate_left: bool,
    /// Arithmetic of the models; what is not f32 is faster, and rounds
    #[arg(long, value_name = "NAME", value_enum, default_value = "f32")]
    pub(crate) compute: ComputeArg,
    /// Questions that are asked at once [default: as many as have room in 1 GiB, at most 64]; no answer depends on it
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Folder for every answer (MODEL.TASK.jsonl) and results.json, .md and .html; a run that was killed goes on there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// List the built-in tasks
    #[arg(long, conflicts_with_all = ["models", "task"])]
    pub(crate) list: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) how: TogetherArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Compare two files of answers question by question: McNemar's test, and the difference with its interval
    #[command(after_help = "Example:\n  lathe eval compare out/smollm2.piqa.jsonl out/gemma3-270m.piqa.jsonl")]
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Answers of the first model
    #[arg(value_name = "A.jsonl")]
    pub(crate) first: PathBuf,
    /// Answers of the second model
    #[arg(value_name = "B.jsonl")]
    pub(crate) second: PathBuf,
    /// Seed of the interval
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
