//! Flags of `lathe ensemble`, and of ensembles wherever a model can stand.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use lathe_decode::ensemble::unite::{Append, Duplicates, Missing, TOP_K, Unite};
use lathe_decode::ensemble::{Covers, DRAFT, Method, Mixture, Safe, Sharpen, Tokenisations};
use lathe_lab::ensemble::{EnsembleSpec, Gate, MAX_GAP_POINTS, MAX_LENGTH_RATIO};
use lathe_model::reference::ModelReference;

use super::ComputeArg;
use super::decode::{AskArgs, DrawArgs};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EnsembleArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EnsembleCommand>,
    /// The models; the first one drafts, and its tokens are counted
    #[arg(value_name = "MODEL", value_parser = super::model, required = true)]
    pub(crate) models: Vec<ModelReference>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    #[command(flatten)]
    pub(crate) draw: DrawArgs,
    #[command(flatten)]
    pub(crate) how: TogetherArgs,
    /// Arithmetic of the models; what is not f32 is faster, and rounds
    #[arg(long, value_name = "NAME", value_enum, default_value = "f32")]
    pub(crate) compute: ComputeArg,
    /// Write JSON lines to this file; a run that was killed goes on where it stopped
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print JSON lines to standard output, or with --out what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnsembleCommand {
    /// Say which of several models are worth combining for a task, and why
    #[command(
        after_help = "Example:\n  lathe ensemble determine smollm2 qwen2.5-coder-0.5b gemma3-270m --task piqa-letters --limit 100"
    )]
    Determine(Box<DetermineArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct DetermineArgs {
    /// The models, two or more
    #[arg(value_name = "MODEL", value_parser = super::model, required = true)]
    pub(crate) models: Vec<ModelReference>,
    /// The task: a built-in name or a task file
    #[arg(long, value_name = "TASK")]
    pub(crate) task: String,
    /// Data of the task, in the place of its own
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Questions to decide on: the first N
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Draw these questions with a seed instead of taking the first
    #[arg(long, value_name = "SEED")]
    pub(crate) shuffle: Option<u64>,
    /// Ask in each model's chat template, as a user's turn
    #[arg(long)]
    pub(crate) chat: bool,
    /// Percentage points by which a model may trail the best one
    #[arg(long, value_name = "POINTS", default_value_t = MAX_GAP_POINTS)]
    pub(crate) max_gap: f64,
    /// How many times as long as the best model's answers a model's may be, or as short
    #[arg(long, value_name = "RATIO", default_value_t = MAX_LENGTH_RATIO)]
    pub(crate) max_length_ratio: f64,
    /// Percentage points that a model has to add to be kept
    #[arg(long, value_name = "POINTS", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) min_gain: f64,
    #[command(flatten)]
    pub(crate) how: TogetherArgs,
    /// Arithmetic of the models
    #[arg(long, value_name = "NAME", value_enum, default_value = "f32")]
    pub(crate) compute: ComputeArg,
    /// Folder for every answer and the decisions; a run that was killed goes on there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How several models write one text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ensemble (several models, or MODEL+MODEL)")]
pub(crate) struct TogetherArgs {
    /// How the models' distributions become one
    #[arg(long, value_name = "NAME", value_enum, default_value = "unite")]
    pub(crate) method: MethodArg,
    /// Weights of the models [default: all alike]
    #[arg(long, value_name = "W,W", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) weights: Option<Vec<f64>>,
    /// The first model writes alone where the others agree [auto: in texts that may have more than 32 tokens]
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(crate) gate: GateArg,
    /// Behind the gate: tokens that the first model writes before the others look
    #[arg(long, value_name = "N", default_value_t = DRAFT)]
    pub(crate) draft: usize,
    /// Behind the gate: what is done where nothing has half of the probability
    #[arg(long, value_name = "HOW", value_enum, default_value = "prefix")]
    pub(crate) sharpen: SharpenArg,
    /// unite: tokens of each model in the union
    #[arg(long = "k", value_name = "K", default_value_t = TOP_K)]
    pub(crate) k: usize,
    /// unite: a string whose first token counts already
    #[arg(long, value_name = "HOW", value_enum, default_value = "exclude")]
    pub(crate) duplicates: DuplicatesArg,
    /// unite: what is appended to the text
    #[arg(long, value_name = "WHAT", value_enum, default_value = "string")]
    pub(crate) append: AppendArg,
    /// unite: score strings that are no token by all their tokens, with one more pass
    #[arg(long)]
    pub(crate) exact_strings: bool,
    /// bytes: mean of the models' distributions
    #[arg(long, value_name = "MEAN", value_enum, default_value = "arithmetic")]
    pub(crate) mixture: MixtureArg,
    /// bytes: spellings of the text that are followed, of each model
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) beam: usize,
    /// bytes: share of the best spelling's probability below which one is not followed
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub(crate) beam_share: f64,
    /// bytes: count only spellings that the tokenizer would write; slow
    #[arg(long)]
    pub(crate) canonical: bool,
    /// Record what each model thought of the N likeliest symbols, at every step [without N: 5]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "5")]
    pub(crate) explain: Option<usize>,
    /// Write a page that shows who voted for what
    #[arg(long, value_name = "FILE.html")]
    pub(crate) page: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodArg {
    /// The union of every model's most probable strings (UniTE)
    Unite,
    /// The union of all vocabularies (GaC)
    Gac,
    /// Next-byte distributions over all spellings of the text
    Bytes,
    /// Next-byte distributions of one spelling, with a vote on token ends (CharED)
    Chared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GateArg {
    Auto,
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SharpenArg {
    /// Nothing
    Nothing,
    /// A string of the first model gathers the probability of those that begin with it
    Prefix,
    /// The geometric mean instead of the arithmetic one
    Geometric,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DuplicatesArg {
    /// It gets nothing from that model
    Exclude,
    /// It gets the same logit (released code)
    Keep,
    /// Its logit is the number 0 (released code)
    RepoZero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AppendArg {
    /// The string that won
    String,
    /// The first token that the first model spells it with (released code)
    PrimaryFirstSubtoken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MixtureArg {
    /// Weighted mean
    Arithmetic,
    /// Weighted geometric mean
    Geometric,
    /// Weights that follow how well each model predicts the text: the exact mixture over texts
    Posterior,
}

/// A model, or several joined by `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voices(pub(crate) Vec<ModelReference>);

impl FromStr for Voices {
    type Err = String;

    /// A `+` in the name of a file that exists joins nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = match std::path::Path::new(text).exists() {
            true => vec![text],
            false => text.split('+').collect(),
        };
        parts.into_iter().map(super::model).collect::<Result<_, _>>().map(Self).map_err(|error| error.to_string())
    }
}

impl TogetherArgs {
    /// The ensemble of these models.
    pub(crate) fn spec(&self, members: Vec<ModelReference>) -> EnsembleSpec {
        let method = match self.method {
            MethodArg::Unite => Method::Unite(Unite {
                k: self.k,
                duplicates: match self.duplicates {
                    DuplicatesArg::Exclude => Duplicates::Exclude,
                    DuplicatesArg::Keep => Duplicates::Keep,
                    DuplicatesArg::RepoZero => Duplicates::RepoZero,
                },
                missing: if self.exact_strings { Missing::WholeString } else { Missing::FirstToken },
                append: match self.append {
                    AppendArg::String => Append::String,
                    AppendArg::PrimaryFirstSubtoken => Append::PrimaryFirstToken,
                },
            }),
            MethodArg::Gac => Method::Gac,
            MethodArg::Chared => Method::Chared,
            MethodArg::Bytes => Method::Bytes(Covers {
                mixture: match self.mixture {
                    MixtureArg::Arithmetic => Mixture::Arithmetic,
                    MixtureArg::Geometric => Mixture::Geometric,
                    MixtureArg::Posterior => Mixture::Posterior,
                },
                tokenisations: if self.canonical { Tokenisations::Canonical } else { Tokenisations::All },
                beam: self.beam,
                prune: self.beam_share,
            }),
        };
        let sharpen = match self.sharpen {
            SharpenArg::Nothing => Sharpen::Nothing,
            SharpenArg::Prefix => Sharpen::Prefix,
            SharpenArg::Geometric => Sharpen::Geometric,
        };
        let safe = Safe { draft: self.draft, sharpen };
        let gate = match self.gate {
            GateArg::Auto => Gate::Auto(safe),
            GateArg::Off => Gate::Off,
            GateArg::On => Gate::On(safe),
        };
        EnsembleSpec { members, method, weights: self.weights.clone(), gate }
    }
}
