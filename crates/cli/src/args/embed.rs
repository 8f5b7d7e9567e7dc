//! Flags of `lathe embed`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use lathe_lab::embed::{Alpha, Kind, Pooling, Prompt, RouterPooling, RouterSource, StoredAs};
use lathe_model::reference::ModelReference;

use super::{ComputeArg, model};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EmbedArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EmbedCommand>,
    /// The model
    #[arg(value_name = "MODEL", value_parser = model, required = true)]
    pub(crate) model: Option<ModelReference>,
    /// A text; several for a table of their cosines
    #[arg(long, value_name = "TEXT", required_unless_present = "input")]
    pub(crate) text: Vec<String>,
    /// A file of texts: records of .jsonl or .parquet, or the lines of a .txt
    #[arg(long, value_name = "FILE", conflicts_with = "text", requires = "out")]
    pub(crate) input: Option<PathBuf>,
    /// Field of the records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// What a vector is made of
    #[arg(long, value_enum, value_name = "KIND", default_value = "hs")]
    pub(crate) kind: KindArg,
    #[command(flatten)]
    pub(crate) features: FeatureArgs,
    /// Scale every feature to mean 0 and deviation 1: corpus (over these texts; the numbers are kept beside --out), batch:N
    /// (over every N texts in order: vectors then depend on their neighbours), none
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) standardise: StandardiseArg,
    /// Where --standardise corpus keeps its numbers; without that, the numbers of another run to scale by
    #[arg(long, value_name = "FILE.json")]
    pub(crate) statistics: Option<PathBuf>,
    /// Weight of the router part of --kind sum: a number; auto (deviation of the cosines of hs / that of rw, over pairs of
    /// these texts); search (the best of a grid around it)
    #[arg(long, value_name = "A", default_value = "1", value_parser = alpha, allow_negative_numbers = true)]
    pub(crate) alpha: Alpha,
    /// Make every vector as long as 1
    #[arg(long)]
    pub(crate) normalise: bool,
    /// How numbers are stored: int8 has a scale for each vector
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    pub(crate) dtype: DtypeArg,
    /// The file to write: .jsonl, .npy or .parquet; FILE.manifest.json beside it says what the vectors are. A run that was
    /// killed goes on
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print everything as JSON, vectors included where no file was asked for
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is read from a model.
#[derive(Debug, Args)]
pub(crate) struct FeatureArgs {
    /// What stands around a text: plain, none (quotes), prompteol, style, sentiment, tone, intent, complexity, subjectivity,
    /// language_style, grammar_structure, metaeol (mean of eight), echo (the text twice) [default: prompteol; plain for a
    /// sentence encoder]
    #[arg(long, value_name = "NAME", value_parser = Prompt::from_str)]
    pub(crate) prompt: Option<Prompt>,
    /// The same in your own words, with {text} where the text goes
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt")]
    pub(crate) template: Option<String>,
    /// Clean texts for --template as the named prompts do: a full stop where nothing ends them, " becomes ', _ a blank
    #[arg(long, requires = "template")]
    pub(crate) clean: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Layers whose routers are read, counted from 0 over all layers [default: all that have one]
    #[arg(long, value_name = "I,J", value_delimiter = ',')]
    pub(crate) router_layers: Option<Vec<usize>>,
    /// Tokens whose routers are read: the last, or the mean of all
    #[arg(long, value_enum, value_name = "HOW", default_value = "last")]
    pub(crate) router_pooling: RouterPoolingArg,
}

/// What is read from a model, whatever stands around the texts.
#[derive(Debug, Args)]
pub(crate) struct ReadingArgs {
    /// What stands before every text, inside of the prompt
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) instruction: String,
    /// Hidden states: 0 is the embedding, the last one follows the final norm; the mean of several [default: the last]
    #[arg(long, value_name = "I,J", value_delimiter = ',')]
    pub(crate) layer: Option<Vec<usize>>,
    /// How tokens become one vector [default: last; mean for echo; a sentence encoder's own]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) pooling: Option<PoolingArg>,
    /// EmbedFilter: keep 1/TAU of the hidden width, without the directions that the head weighs most and least
    #[arg(long, value_name = "TAU")]
    pub(crate) filter: Option<f64>,
    /// What is read from routers: probs (softmax over all experts), logits (before it), weights (of the experts in use)
    #[arg(long, value_enum, value_name = "WHAT", default_value = "probs")]
    pub(crate) router_source: RouterSourceArg,
    /// Tokens of a prompt at most: the text is cut, never what stands around it [default: as many as the model reads]
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Arithmetic of the model; what is not f32 is faster, and rounds
    #[arg(long, value_name = "NAME", value_enum, default_value = "f32")]
    pub(crate) compute: ComputeArg,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EmbedCommand {
    /// Find the texts of an embedded file that are nearest to a query
    #[command(
        after_help = "Examples:\n  lathe embed search news.parquet --query \"rates rise\"\n  lathe embed search news.parquet --queries questions.jsonl --field question --top 3 --json\n  lathe embed search news.npy --row 17"
    )]
    Search(SearchArgs),
    /// Say what a model's routers know of texts that its hidden states do not: clusters, prompts, failures, experts
    #[command(
        after_help = "Examples:\n  lathe embed analyse ./olmoe --input news.jsonl --field title --label topic --out olmoe.html\n  lathe embed analyse ./olmoe --input sts12.jsonl --pairs sentence1,sentence2 --score score --out sts12.html"
    )]
    Analyse(Box<AnalyseArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct AnalyseArgs {
    /// The model, with layers of experts
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    /// The texts: records of .jsonl or .parquet, or the lines of a .txt
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Field of the records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// Field that holds what the text is about: failures and experts by label
    #[arg(long, value_name = "NAME", conflicts_with = "pairs")]
    pub(crate) label: Option<String>,
    /// Fields of two texts whose similarity people scored
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "field", requires = "score")]
    pub(crate) pairs: Option<Vec<String>>,
    /// Field of that score
    #[arg(long, value_name = "NAME", requires = "pairs")]
    pub(crate) score: Option<String>,
    /// Clusters [default: as many as there are labels; else a tenth of the texts, from 2 to 20]
    #[arg(long, value_name = "K")]
    pub(crate) clusters: Option<usize>,
    /// Seeds that clusters are looked for with
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) seeds: usize,
    #[command(flatten)]
    pub(crate) features: FeatureArgs,
    /// Write a page with maps
    #[arg(long, value_name = "FILE.html")]
    pub(crate) out: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What `lathe embed --out` has written
    #[arg(value_name = "EMBEDDED")]
    pub(crate) embedded: PathBuf,
    #[command(flatten)]
    pub(crate) queries: SearchQueries,
    /// Field of the records of --queries that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// What stands before a query, in the place of the manifest's instruction
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["vectors", "row"])]
    pub(crate) instruction: Option<String>,
    /// Texts to find
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SearchQueries {
    /// A query, which gets a vector as the file's manifest says
    #[arg(long, value_name = "TEXT")]
    pub(crate) query: Vec<String>,
    /// A file of queries: records of .jsonl or .parquet, or the lines of a .txt
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: Option<PathBuf>,
    /// A file of vectors of the same width, each a query
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: Option<PathBuf>,
    /// A row of the file itself, from 0; it is not among the texts found
    #[arg(long, value_name = "N")]
    pub(crate) row: Vec<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KindArg {
    /// Hidden states
    Hs,
    /// Router outputs of a mixture of experts
    Rw,
    /// Both, one after the other
    Concat,
    /// One vector whose cosine follows cos(hs) + A cos(rw)
    Sum,
}

impl From<KindArg> for Kind {
    fn from(arg: KindArg) -> Self {
        match arg {
            KindArg::Hs => Self::Hs,
            KindArg::Rw => Self::Rw,
            KindArg::Concat => Self::Concat,
            KindArg::Sum => Self::Sum,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PoolingArg {
    Last,
    First,
    Mean,
    MeanSqrtLength,
    WeightedMean,
    Max,
}

impl From<PoolingArg> for Pooling {
    fn from(arg: PoolingArg) -> Self {
        match arg {
            PoolingArg::Last => Self::Last,
            PoolingArg::First => Self::First,
            PoolingArg::Mean => Self::Mean,
            PoolingArg::MeanSqrtLength => Self::MeanSqrtLength,
            PoolingArg::WeightedMean => Self::WeightedMean,
            PoolingArg::Max => Self::Max,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RouterSourceArg {
    Probs,
    Logits,
    Weights,
}

impl From<RouterSourceArg> for RouterSource {
    fn from(arg: RouterSourceArg) -> Self {
        match arg {
            RouterSourceArg::Probs => Self::Probabilities,
            RouterSourceArg::Logits => Self::Logits,
            RouterSourceArg::Weights => Self::Weights,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RouterPoolingArg {
    Last,
    Mean,
}

impl From<RouterPoolingArg> for RouterPooling {
    fn from(arg: RouterPoolingArg) -> Self {
        match arg {
            RouterPoolingArg::Last => Self::Last,
            RouterPoolingArg::Mean => Self::Mean,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DtypeArg {
    F32,
    F16,
    Int8,
}

impl From<DtypeArg> for StoredAs {
    fn from(arg: DtypeArg) -> Self {
        match arg {
            DtypeArg::F32 => Self::F32,
            DtypeArg::F16 => Self::F16,
            DtypeArg::Int8 => Self::Int8,
        }
    }
}

/// How features are scaled, without the file of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandardiseArg {
    No,
    Corpus,
    Batch(usize),
}

impl FromStr for StandardiseArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("batch:").map(str::parse)) {
            ("none", _) => Ok(Self::No),
            ("corpus", _) => Ok(Self::Corpus),
            (_, Some(Ok(size))) => Ok(Self::Batch(size)),
            _ => Err("expected none, corpus, or batch:N with a number of texts".into()),
        }
    }
}

pub(super) fn alpha(text: &str) -> Result<Alpha, String> {
    match text {
        "auto" => Ok(Alpha::Auto),
        "search" => Ok(Alpha::Search),
        _ => text.parse().map(Alpha::Fixed).map_err(|_| "expected a number, auto, or search".into()),
    }
}
