//! Flags of `lathe merge` and `lathe diff`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lathe_model::reference::ModelReference;

use super::Target;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct MergeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<MergeCommand>,
    /// The configuration, a YAML file as mergekit reads it; paths of models count from its folder
    #[arg(value_name = "CONFIG", required = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) write: MergeWriteArgs,
}

/// What is written, and how: the same for all recipes.
#[derive(Debug, Args)]
pub(crate) struct MergeWriteArgs {
    /// The folder to write; it must not exist
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// Say what would be done, from the headers of the models, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on with a merge that was interrupted, at the tensor where it stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "safetensors")]
    pub(crate) to: Target,
    /// Element type of what is written: float32, float16, bfloat16; for gguf also its block types [default: out_dtype or
    /// dtype of the configuration, else as the base or first model is stored; quantised ones become float32]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
    /// Largest file of weights, as 5GB or 500MB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = bytes)]
    pub(crate) shard_size: u64,
    /// Where random masks (DARE, DELLA) begin [default: seed of the configuration, else 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Merge NaN and infinity like other numbers, instead of refusing them
    #[arg(long)]
    pub(crate) allow_nonfinite: bool,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MergeCommand {
    /// A weighted sum of models
    #[command(after_help = "Example:\n  lathe merge linear ./one ./two --weights 0.7,0.3 --out blend")]
    Linear(LinearArgs),
    /// Spherical interpolation between two models
    #[command(after_help = "Example:\n  lathe merge slerp ./one ./two --t 0.5 --out between")]
    Slerp(SlerpArgs),
    /// Give an updated base the instruction following of its instruct model: updated + (instruct - base)
    #[command(
        after_help = "Example:\n  lathe merge residual --base ./base --instruct ./instruct --updated ./base-continued --out restored\n\nConfiguration and tokenizer come from the updated base, the chat template from the instruct model."
    )]
    Residual(ResidualArgs),
    /// TIES of two models where the first one's largest changes are not outvoted by slightly larger ones
    #[command(
        after_help = "Example:\n  lathe merge protect --base ./base --keep ./task --other ./language --slack 0.3 --out both"
    )]
    Protect(ProtectArgs),
    /// Add a LoRA adapter (PEFT's layout) to the weights of its model
    #[command(after_help = "Example:\n  lathe merge lora smollm2 ./adapter --out adapted")]
    Lora(LoraArgs),
    /// Take a LoRA adapter out of the difference of two models, by truncated SVD
    #[command(after_help = "Example:\n  lathe merge extract ./base ./tuned --rank 32 --out adapter")]
    Extract(ExtractArgs),
    /// Try many parameters without writing a model: a table and a picture of what each costs on two or more texts or tasks
    #[command(
        after_help = "Examples:\n  lathe merge explore ties.yaml --vary density=0.2,0.5,1 --vary lambda=0.5,1 --text code=code.txt --text prose=prose.txt --out tried\n  lathe merge explore slerp.yaml --vary t=0..1 --draws 20 --text prose=prose.txt --task boolq --limit 100 --out tried --write 1"
    )]
    Explore(Box<ExploreArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct LinearArgs {
    /// The models, two or more
    #[arg(value_name = "MODEL", required = true, num_args = 2..)]
    pub(crate) models: Vec<String>,
    /// A weight for each model; they are divided by their sum [default: equal]
    #[arg(long, value_name = "W,W", value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) weights: Vec<f64>,
    #[command(flatten)]
    pub(crate) write: MergeWriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SlerpArgs {
    /// The model at t = 0; configuration and tokenizer are its
    #[arg(value_name = "BASE")]
    pub(crate) base: String,
    /// The model at t = 1
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Where between the two
    #[arg(long, value_name = "T", default_value_t = 0.5, allow_negative_numbers = true)]
    pub(crate) t: f64,
    #[command(flatten)]
    pub(crate) write: MergeWriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResidualArgs {
    /// The base that the instruct model was tuned from
    #[arg(long, value_name = "MODEL")]
    pub(crate) base: String,
    /// The instruct model
    #[arg(long, value_name = "MODEL")]
    pub(crate) instruct: String,
    /// The base after continued pre-training
    #[arg(long, value_name = "MODEL")]
    pub(crate) updated: String,
    /// Factor of the residual
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) scale: f64,
    #[command(flatten)]
    pub(crate) write: MergeWriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// The model that both were tuned from
    #[arg(long, value_name = "MODEL")]
    pub(crate) base: String,
    /// The model whose changes are protected
    #[arg(long, value_name = "MODEL")]
    pub(crate) keep: String,
    /// The model whose changes are larger
    #[arg(long, value_name = "MODEL")]
    pub(crate) other: String,
    /// How much larger a change of the other sign may be without outvoting a protected one, as a share
    #[arg(long, value_name = "X", default_value_t = 0.3)]
    pub(crate) slack: f64,
    /// Share of each model's changes that is kept, the largest
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub(crate) density: f64,
    /// Weights of the two models
    #[arg(long, value_name = "W,W", value_delimiter = ',', default_values_t = [1.0, 1.0])]
    pub(crate) weights: Vec<f64>,
    /// Factor of the combined changes
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) lambda: f64,
    #[command(flatten)]
    pub(crate) write: MergeWriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoraArgs {
    /// The model
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The adapter, a folder with adapter_config.json
    #[arg(value_name = "ADAPTER")]
    pub(crate) adapter: String,
    #[command(flatten)]
    pub(crate) write: MergeWriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    /// The model that the adapter is for
    #[arg(value_name = "BASE", value_parser = super::model)]
    pub(crate) base: ModelReference,
    /// The model that it makes of it, as well as its rank allows
    #[arg(value_name = "TUNED", value_parser = super::model)]
    pub(crate) tuned: ModelReference,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 32)]
    pub(crate) rank: usize,
    /// The folder to write; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExploreArgs {
    /// The configuration in which parameters are varied
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// A parameter and its values: t=0,0.5,1, or t=0..1 with --draws. A name alone is global; models.1.weight is that of
    /// the second model
    #[arg(long, value_name = "NAME=VALUES", required = true)]
    pub(crate) vary: Vec<String>,
    /// Other methods to try with the same models, beside the configuration's own
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    pub(crate) methods: Vec<String>,
    /// Draw this many candidates at random instead of trying all combinations
    #[arg(long, value_name = "N")]
    pub(crate) draws: Option<usize>,
    /// Bits per byte on a text, lower is better: NAME=FILE
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) text: Vec<String>,
    /// Share of right answers in a task, higher is better: a built-in name or a task file
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Vec<String>,
    /// Questions of each task: the first N
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Tokens of each text that are read
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(crate) tokens: usize,
    /// Models to measure beside the candidates, such as one trained on both
    #[arg(long, value_name = "MODEL", value_parser = super::model)]
    pub(crate) beside: Vec<ModelReference>,
    /// Write the best N candidates as models: of those that none beats on all measures, the ones nearest to the best values
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) write: usize,
    /// Seed of draws and of random masks
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder for the table, the picture and models; a run that was killed goes on where it stopped
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print the table as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A size as `5GB`, `500MB`, `1GiB` or a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "not a size; write it as 5GB or 500MB".to_owned())?;
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        other => return Err(format!("`{other}` is no unit of size; write KB, MB or GB")),
    };
    let size = number * factor;
    // Smaller files would be more numerous than tensors; larger numbers are no size.
    if (1.0..1e18).contains(&size) { Ok(size as u64) } else { Err("a size is at least one byte".to_owned()) }
}
