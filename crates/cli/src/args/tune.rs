//! Flags of `lathe tune`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lathe_lab::{Clip, Compute, LossOn};
use lathe_model::reference::ModelReference;
use lathe_tune::{Overlong, Reading, Schedule};

use super::model;
pub(crate) use super::tokenizer::TokenizerArgs;

#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    #[command(subcommand)]
    pub(crate) command: TuneCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TuneCommand {
    /// Train all parameters of a model, or some by name, or a new model from random weights
    #[command(
        after_help = "Examples:\n  lathe tune full smollm2 --data chats.jsonl --epochs 2 --out tuned\n  lathe tune full smollm2 --data chats.jsonl --audit-only\n  lathe tune full ./tiny --data ids.jsonl --steps 6 --batch 2 --lr 1e-3 --clip none --order file --out control\n  lathe tune full --from-scratch config.json --tokenizer ./bpe --data book.txt --overlong split --steps 500 --lr 1e-3 --out small"
    )]
    Full(Box<TuneFullArgs>),
    /// Train an adapter of low rank beside the frozen weights of a model, in PEFT's layout
    #[command(
        after_help = "Examples:\n  lathe tune lora smollm2 --data chats.jsonl --steps 100 --out adapter\n  lathe tune lora smollm2 --data chats.jsonl --targets q_proj,k_proj --rank 16 --eval held-out.jsonl --eval-every 20 --out adapter\n  lathe generate ./adapter --prompt \"The sea\""
    )]
    Lora(Box<TuneLoraArgs>),
    /// Learn a byte-level BPE tokenizer from texts, or see what the size of a vocabulary does to rare types
    #[command(
        after_help = "Examples:\n  lathe tune tokenizer --data corpus.jsonl --vocab-size 4000 --out tokenizer\n  lathe tune tokenizer --data sample --vocab-size 2000 --study 500,1000,2000,4000 --out tokenizer\n\n\
                      The texts alone decide the result: there is no random draw. The folder has tokenizer.json and\n\
                      tokenizer_config.json; <|endoftext|> is token 0 and is added to no text by itself."
    )]
    Tokenizer(TokenizerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TuneFullArgs {
    /// The model to begin with
    #[arg(value_name = "MODEL", value_parser = model, required_unless_present = "from_scratch")]
    pub(crate) model: Option<ModelReference>,
    /// Begin with random weights of this configuration instead
    #[arg(long, value_name = "CONFIG", conflicts_with = "model")]
    pub(crate) from_scratch: Option<PathBuf>,
    /// Of --from-scratch: a folder with a tokenizer, or a model whose tokenizer is taken
    #[arg(long, value_name = "DIR|MODEL", requires = "from_scratch")]
    pub(crate) tokenizer: Option<String>,
    /// Train only these parameters: modules by the last parts of their names (q_proj,k_proj), or lathe's names with *
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', conflicts_with = "from_scratch")]
    pub(crate) only: Vec<String>,
    /// Learning rate after the warm-up
    #[arg(long = "lr", value_name = "X", default_value_t = 2e-5)]
    pub(crate) learning_rate: f64,
    #[command(flatten)]
    pub(crate) run: TuneRunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TuneLoraArgs {
    /// The model, also a quantised one, whose weights stay as they are; or an adapter to train further
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    /// Rank of the factors [default: 8, or the adapter's own]
    #[arg(long, value_name = "R")]
    pub(crate) rank: Option<usize>,
    /// What their product is multiplied by, over the rank [default: the rank, or the adapter's own]
    #[arg(long, value_name = "X")]
    pub(crate) alpha: Option<f64>,
    /// Divide by the root of the rank instead (rsLoRA)
    #[arg(long)]
    pub(crate) rslora: bool,
    /// Share of each module's input that is dropped in training
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) dropout: f32,
    /// Modules that get factors, by the last parts of their names, as q_proj,k_proj [default: all-linear, or the adapter's]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub(crate) targets: Vec<String>,
    /// Learning rate after the warm-up
    #[arg(long = "lr", value_name = "X", default_value_t = 2e-4)]
    pub(crate) learning_rate: f64,
    #[command(flatten)]
    pub(crate) run: TuneRunArgs,
}

/// What all ways to train have.
#[derive(Debug, Args)]
pub(crate) struct TuneRunArgs {
    /// JSON lines or Parquet with `messages`, `prompt` and `completion`, `text`, or `input_ids` (and `labels`); or a plain
    /// text; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// The folder to write; it must not exist
    #[arg(long, value_name = "DIR", required_unless_present = "audit_only")]
    pub(crate) out: Option<PathBuf>,
    /// Stop after the audit of labels
    #[arg(long, conflicts_with = "resume")]
    pub(crate) audit_only: bool,
    /// Go on with a run that was interrupted, from its last checkpoint
    #[arg(long)]
    pub(crate) resume: bool,
    /// Tokens that are to be predicted
    #[arg(long, value_name = "WHAT", default_value = "completion")]
    pub(crate) loss_on: LossOnArg,
    /// Tokens of an example at most [default: 1024, or the model's context where that is less]
    #[arg(long, value_name = "N")]
    pub(crate) max_length: Option<usize>,
    /// What becomes of longer examples
    #[arg(long, value_name = "HOW", default_value = "truncate")]
    pub(crate) overlong: OverlongArg,
    /// Count bins of --max-length tokens as units of a batch, not examples (best-fit decreasing)
    #[arg(long)]
    pub(crate) pack: bool,
    /// Leave records out that cannot be used; the audit names them
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Read names of control tokens in prompts, completions and texts as the tokens
    #[arg(long)]
    pub(crate) markup: bool,
    /// Steps
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub(crate) steps: Option<usize>,
    /// How often all data are read, instead of --steps [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Examples (or bins) that are read at once
    #[arg(long, value_name = "B", default_value_t = 8)]
    pub(crate) batch: usize,
    /// Batches of one step; every target of all of them weighs the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) accumulate: usize,
    /// Order of the data
    #[arg(long, value_name = "HOW", default_value = "shuffle")]
    pub(crate) order: OrderArg,
    /// What the learning rate does after the warm-up
    #[arg(long, value_name = "HOW", default_value = "constant")]
    pub(crate) schedule: ScheduleArg,
    /// Steps over which the learning rate rises
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) warm_up: usize,
    /// Decay of AdamW's two means
    #[arg(long, value_name = "B1,B2", value_delimiter = ',', default_values_t = [0.9, 0.999])]
    pub(crate) betas: Vec<f64>,
    /// AdamW's epsilon
    #[arg(long, value_name = "X", default_value_t = 1e-8)]
    pub(crate) eps: f64,
    /// Decoupled weight decay of matrices, in units of the learning rate
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub(crate) weight_decay: f64,
    /// Let embeddings decay too
    #[arg(long)]
    pub(crate) decay_embeddings: bool,
    /// Let norms and biases decay too
    #[arg(long)]
    pub(crate) decay_vectors: bool,
    /// Length that a longer gradient is cut to, or none
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = clip)]
    pub(crate) clip: Clip,
    /// Arithmetic of the products, on the way back too; what is trained, its gradients and AdamW stay in f32
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub(crate) compute: TrainingComputeArg,
    /// Compute layers twice instead of keeping what they made: less memory, the same numbers
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Seed of the order, of random weights, and of dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Element type of the model that is written: f32, bf16 or f16; adapters are f32 [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
    /// Watch the loss of held-out records or texts, or steps as an experiment file has them, without a model (.toml); may
    /// be repeated
    #[arg(long, value_name = "WHAT")]
    pub(crate) eval: Vec<PathBuf>,
    /// Steps between two looks [default: before the first and after the last]
    #[arg(long, value_name = "N", requires = "eval")]
    pub(crate) eval_every: Option<usize>,
    /// Steps between two checkpoints [default: one at the end]
    #[arg(long, value_name = "N")]
    pub(crate) checkpoint_every: Option<usize>,
    /// Checkpoints to keep, the last ones, beside the best by the first watched loss; 0 makes none
    #[arg(long, value_name = "K", default_value_t = 2)]
    pub(crate) keep: usize,
    /// Also write the model after these steps, as OUT/step-N; 0 is what the run begins with
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub(crate) save_at: Vec<usize>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LossOnArg {
    /// What the assistant says, or the completion, end tokens included; all of a text
    Completion,
    /// Everything
    All,
}

impl From<LossOnArg> for LossOn {
    fn from(arg: LossOnArg) -> Self {
        match arg {
            LossOnArg::Completion => Self::Completion,
            LossOnArg::All => Self::All,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OverlongArg {
    /// Their end is cut off
    Truncate,
    /// They become several
    Split,
    /// They are left out
    Drop,
}

impl From<OverlongArg> for Overlong {
    fn from(arg: OverlongArg) -> Self {
        match arg {
            OverlongArg::Truncate => Self::Truncate,
            OverlongArg::Split => Self::Split,
            OverlongArg::Drop => Self::Drop,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OrderArg {
    /// Another random one in each epoch
    Shuffle,
    /// As in the files
    File,
}

impl From<OrderArg> for Reading {
    fn from(arg: OrderArg) -> Self {
        match arg {
            OrderArg::Shuffle => Self::Shuffle,
            OrderArg::File => Self::File,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScheduleArg {
    /// It stays
    Constant,
    /// It falls to 0 along a line
    Linear,
    /// It falls to 0 along half a cosine
    Cosine,
}

impl From<ScheduleArg> for Schedule {
    fn from(arg: ScheduleArg) -> Self {
        match arg {
            ScheduleArg::Constant => Self::Constant,
            ScheduleArg::Linear => Self::Linear,
            ScheduleArg::Cosine => Self::Cosine,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TrainingComputeArg {
    /// Single precision
    F32,
    /// Weights, states and gradients rounded to bf16 where they are multiplied, sums in f32: faster where the processor has
    /// instructions for it
    Bf16,
}

impl From<TrainingComputeArg> for Compute {
    fn from(arg: TrainingComputeArg) -> Self {
        match arg {
            TrainingComputeArg::F32 => Self::F32,
            TrainingComputeArg::Bf16 => Self::Bf16,
        }
    }
}

fn clip(text: &str) -> Result<Clip, String> {
    if text == "none" {
        return Ok(Clip::None);
    }
    text.parse().map(Clip::To).map_err(|_| "expected a number or none".into())
}
