//! The data of a report, as `report.json` holds them.

use serde::{Deserialize, Serialize};

/// The version of this data model; a reader refuses a major number that it does not know.
pub const SCHEMA: &str = "lathe.report/1";

/// A number that says what it is: value, unit, how many items it rests on, its interval and its control.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantity {
    /// The value; `None` where it is undefined or was not measured, and then `reason` says why.
    pub value: Option<f64>,
    /// Unit of value, interval and null: `nats per token`, `tokens/s`, `1` for a plain ratio.
    pub unit: String,
    /// How many items the value rests on; the field that holds the quantity says which.
    pub n: Option<u64>,
    /// 95 % interval, low and high.
    pub interval: Option<[f64; 2]>,
    /// What the same computation gives on a control, such as Gaussian noise of the same shape.
    pub null: Option<f64>,
    /// Why the value is missing.
    pub reason: Option<String>,
}

impl Quantity {
    /// A value with its unit. One that is not finite becomes a missing value with that reason.
    #[must_use]
    pub fn new(value: f64, unit: &str) -> Self {
        if !value.is_finite() {
            return Self::missing(unit, "the computation gave a value that is not a finite number");
        }
        Self { value: Some(value), unit: unit.to_owned(), ..Self::default() }
    }

    /// A missing value and why.
    #[must_use]
    pub fn missing(unit: &str, reason: &str) -> Self {
        Self { unit: unit.to_owned(), reason: Some(reason.to_owned()), ..Self::default() }
    }

    /// The same with the number of items that it rests on.
    #[must_use]
    pub fn over(self, n: u64) -> Self {
        Self { n: Some(n), ..self }
    }

    /// The same with its 95 % interval; one that is not finite is dropped.
    #[must_use]
    pub fn within(self, [low, high]: [f64; 2]) -> Self {
        let interval = (low.is_finite() && high.is_finite()).then_some([low, high]);
        Self { interval, ..self }
    }

    /// The same with its control value; one that is not finite is dropped.
    #[must_use]
    pub fn against(self, null: f64) -> Self {
        Self { null: Some(null).filter(|null| null.is_finite()), ..self }
    }

    /// The value where it can be drawn or compared.
    #[must_use]
    pub fn finite(&self) -> Option<f64> {
        self.value.filter(|value| value.is_finite())
    }

    /// The interval where the value and both ends can be drawn or compared.
    #[must_use]
    pub fn finite_interval(&self) -> Option<[f64; 2]> {
        self.finite()?;
        self.interval.filter(|[low, high]| low.is_finite() && high.is_finite())
    }
}

/// Everything that one run of `lathe report` found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`] in a report that this version writes.
    pub schema: String,
    /// Version of lathe that wrote it.
    pub lathe_version: String,
    /// When it was written, as the caller words it; rendering knows no clock.
    pub created: String,
    /// What was asked.
    pub settings: Settings,
    /// Where it ran.
    pub machine: Machine,
    /// The models, in the order of the command line.
    pub models: Vec<ModelReport>,
    /// How the models relate; `None` for a single model.
    pub comparison: Option<Comparison>,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
}

/// What was asked of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the text sample.
    pub sample: String,
    /// How much of the sample was read.
    pub extent: Extent,
    /// At most so many tokens were read per model; `None` for no limit.
    pub token_limit: Option<u64>,
    /// Tokens of context at most when texts are scored.
    pub text_window: u64,
    /// Tokens per block of the bootstrap over a single text.
    pub interval_block: u64,
    /// Tokens per window of the spectrum and of the attention map.
    pub window: u64,
    /// Seed of every draw: control values, bootstrap, generation.
    pub seed: u64,
    /// Threads that computed. Results do not depend on it, speeds do.
    pub threads: u64,
    /// Type that the forward pass computed in: `f32`.
    pub compute_type: String,
}

/// How much of the sample was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// A fixed part of every text.
    Default,
    /// All of it.
    Full,
}

/// The machine that a report was made on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Cores that the process could use.
    pub cores: u64,
    /// Memory in bytes, where the system says it.
    pub memory_bytes: Option<u64>,
}

/// The parts of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Panel {
    /// What the model is.
    What,
    /// Tokenizer fertility by language.
    Fertility,
    /// Bits per byte by text.
    Texts,
    /// Loss by frequency of the token type.
    Frequency,
    /// Spectrum of the hidden states by layer.
    Spectrum,
    /// Attention sinks by layer and head.
    Attention,
    /// Speed and memory.
    Speed,
    /// Sample generations.
    Generations,
    /// Merging and ensembling.
    Comparison,
}

/// Why a panel of one model is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMeasured {
    /// The panel.
    pub panel: Panel,
    /// One sentence.
    pub reason: String,
}

/// What was found of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The reference as the caller gave it.
    pub reference: String,
    /// What the model is.
    pub what: What,
    /// Tokenizer fertility, one row per language; the texts are translations of one document.
    pub fertility: Vec<FertilityRow>,
    /// Loss of each text.
    pub texts: Vec<TextLoss>,
    /// Loss over all texts.
    pub overall: Option<Overall>,
    /// Loss by frequency of the token type in the sample, rarest first; empty bins are left out.
    pub bins: Vec<FrequencyBin>,
    /// Spectrum of the hidden states.
    pub spectrum: Option<Spectrum>,
    /// Attention sinks.
    pub attention: Option<Attention>,
    /// Speed and memory.
    pub speed: Option<Speed>,
    /// Sample generations.
    pub generations: Vec<Generation>,
    /// Panels that are empty, and why.
    pub not_measured: Vec<NotMeasured>,
}

/// What a model is: read from its files, nothing is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct What {
    /// Architecture family: `llama`.
    pub family: String,
    /// Parameters, shared ones counted once.
    pub parameters: u64,
    /// Parameters by part: embedding, attention, feed-forward, norms, head. Their sum is `parameters`.
    pub parts: Vec<ParameterPart>,
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Positions that the model was built for.
    pub context: u64,
    /// Entries of the vocabulary.
    pub vocabulary: u64,
    /// Bytes of all its weight files.
    pub file_bytes: u64,
    /// Element types of the tensors.
    pub element_types: Vec<ElementType>,
    /// Kind of tokenizer: `byte-level BPE`.
    pub tokenizer: String,
    /// Whether the model brings a chat template.
    pub chat_template: bool,
    /// Licence as its files state it.
    pub licence: Option<String>,
    /// The files and their hashes.
    pub files: Vec<FileRecord>,
}

/// Parameters of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterPart {
    /// `embedding`, `attention`, `feed-forward`, `norms`, `head` or a family's own.
    pub part: String,
    /// Parameters.
    pub parameters: u64,
}

/// Tensors of one element type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementType {
    /// `F32`, `BF16`, `Q8_0`.
    pub name: String,
    /// Tensors of this type.
    pub tensors: u64,
    /// Values in them.
    pub values: u64,
    /// Bytes that they take in the file.
    pub bytes: u64,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name inside the model.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal; `None` where it was not computed.
    pub sha256: Option<String>,
}

/// How a tokenizer cuts the text of one language. The counts are of the whole text, so there is no interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FertilityRow {
    /// Language of the text.
    pub language: String,
    /// Script that it is written in.
    pub script: String,
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Unicode scalar values.
    pub characters: u64,
    /// Words, where the script separates them.
    pub words: Option<u64>,
    /// Tokens.
    pub tokens: u64,
    /// Tokens per character; n counts characters.
    pub tokens_per_character: Quantity,
    /// Bytes per token; n counts tokens.
    pub bytes_per_token: Quantity,
    /// Tokens per word; n counts words.
    pub tokens_per_word: Quantity,
}

/// What kind of text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextKind {
    /// One of the texts that differ in language.
    Language,
    /// Law.
    Legal,
    /// Literature.
    Prose,
    /// Source code.
    Code,
}

/// Loss on one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextLoss {
    /// Name of the text.
    pub name: String,
    /// Its kind.
    pub kind: TextKind,
    /// UTF-8 bytes read.
    pub bytes: u64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Bits per byte; n counts bytes; comparable between tokenizers. The interval is over blocks of
    /// [`Settings::interval_block`] tokens of this text: it says how much the number depends on the passage.
    pub bits_per_byte: Quantity,
    /// Negative log-likelihood in nats per token; n counts tokens; not comparable between tokenizers.
    pub nll: Quantity,
}

/// Loss over all texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overall {
    /// Texts; the intervals below are over them, where they are measured.
    pub documents: u64,
    /// UTF-8 bytes read.
    pub bytes: u64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Bits per byte; n counts bytes.
    pub bits_per_byte: Quantity,
    /// Mean over tokens, nats per token; n counts tokens.
    pub nll_micro: Quantity,
    /// Mean over token types of each type's mean, nats; n counts types.
    pub nll_macro: Quantity,
    /// exp of `nll_micro`; n counts tokens.
    pub perplexity: Quantity,
}

/// Token types of similar frequency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrequencyBin {
    /// A type belongs here when it occurs at least so often in the sample …
    pub low: u64,
    /// … and less often than this.
    pub high: u64,
    /// Types in the bin.
    pub types: u64,
    /// Their occurrences.
    pub tokens: u64,
    /// Mean over types of each type's mean negative log-likelihood, nats; n counts types.
    pub nll: Quantity,
}

/// Spectrum of the hidden states, layer by layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// What the windows are of.
    pub input: String,
    /// N, tokens per window.
    pub tokens: u64,
    /// d, width of the hidden states.
    pub hidden_size: u64,
    /// Windows; every mean below is over them.
    pub windows: u64,
    /// sqrt(min(N, d) / N): no Matrix Nuclear-Norm can be larger.
    pub cap: f64,
    /// From the embeddings (0) to the states after the final norm.
    pub layers: Vec<LayerSpectrum>,
    /// Seconds of the forward passes.
    pub forward: Quantity,
    /// Seconds of the metrics alone.
    pub metric: Quantity,
}

/// Spectrum of one layer's hidden states; n counts windows everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSpectrum {
    /// 0 for the embeddings.
    pub layer: u64,
    /// Matrix Nuclear-Norm; its null is that of Gaussian states of the same N and d.
    pub mnn: Quantity,
    /// Matrix Nuclear-Norm divided by its null.
    pub mnn_corrected: Quantity,
    /// Matrix entropy divided by ln d; with its Gaussian null.
    pub matrix_entropy: Quantity,
    /// exp of the matrix entropy before the division: effective rank; its null is that of the null entropy.
    pub effective_rank: Quantity,
}

/// Attention by layer and head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// What the windows are of.
    pub input: String,
    /// Tokens per window; attention is summed over all queries of a window.
    pub tokens: u64,
    /// Windows that were averaged.
    pub windows: u64,
    /// Share of attention mass on the first token; its null is the share under uniform causal attention.
    pub sink_share: HeadMatrix,
    /// Mean over heads of `sink_share`, with its value under uniform attention; n counts windows, which the interval
    /// is over; from the first layer on.
    pub sink_by_layer: Vec<Quantity>,
    /// Mean entropy of the attention rows.
    pub entropy: Option<HeadMatrix>,
}

/// One number for each layer and head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadMatrix {
    /// Unit of the values and the null.
    pub unit: String,
    /// Query positions that each value rests on.
    pub n: u64,
    /// Control value.
    pub null: Option<f64>,
    /// `[layers][heads]`; `null` where attention is undefined.
    pub values: Vec<Vec<Option<f64>>>,
}

/// Speed and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// From opening the files to being ready, seconds.
    pub load: Quantity,
    /// Reading a prompt of `prefill_tokens` tokens, tokens/s, median of the runs; n counts tokens of all runs.
    pub prefill: Quantity,
    /// Writing `decode_tokens` tokens one after the other, tokens/s, median of the runs; n counts tokens of all runs.
    pub decode: Quantity,
    /// Slowest and fastest run of reading, tokens/s.
    pub prefill_range: Option<[f64; 2]>,
    /// Slowest and fastest run of writing, tokens/s.
    pub decode_range: Option<[f64; 2]>,
    /// Tokens of the prompt that was read.
    pub prefill_tokens: u64,
    /// Tokens that were written in one run.
    pub decode_tokens: u64,
    /// Runs that were timed.
    pub runs: u64,
    /// Largest resident memory of the process, bytes.
    pub peak_memory: Quantity,
}

/// One text that the model wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// What it was given.
    pub prompt: String,
    /// How it was decoded: `greedy`, `temperature 0.8, top-p 0.95, seed 7`.
    pub decoding: String,
    /// What it wrote.
    pub tokens: Vec<GeneratedToken>,
}

/// One written token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratedToken {
    /// Its text; bytes that are no complete character are shown as the replacement character.
    pub text: String,
    /// −log₂ of the probability that the unmodified model gave it, bits.
    pub surprisal: Option<f64>,
}

/// How the models relate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Every pair of models, left index below the right one.
    pub pairs: Vec<ModelPair>,
}

/// How two models relate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelPair {
    /// Index of the one into the models of the report.
    pub left: usize,
    /// Index of the other.
    pub right: usize,
    /// Whether their weights could be merged: same shapes, same tokenizer.
    pub merge: Feasibility,
    /// Whether their predictions could be combined token by token.
    pub ensemble: Feasibility,
    /// How much vocabulary they share.
    pub vocabulary: VocabularyOverlap,
}

/// Whether something can be done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feasibility {
    /// Whether it can be done.
    pub possible: bool,
    /// What speaks for it where it is possible, and what prevents it where it is not.
    pub reasons: Vec<String>,
}

/// Shared entries of two vocabularies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VocabularyOverlap {
    /// Distinct byte strings that the left vocabulary can emit.
    pub left: u64,
    /// The same of the right one.
    pub right: u64,
    /// Byte strings in both, after undoing each tokenizer's own spelling of spaces and bytes.
    pub shared_bytes: u64,
    /// Entries whose spelling is equal as it stands in the two files.
    pub shared_strings: u64,
}

impl VocabularyOverlap {
    /// Shared byte strings as a share of the smaller vocabulary; n counts that vocabulary's entries.
    #[must_use]
    pub fn share_by_bytes(&self) -> Quantity {
        self.share(self.shared_bytes)
    }

    /// Shared spellings as a share of the smaller vocabulary; n counts that vocabulary's entries.
    #[must_use]
    pub fn share_by_strings(&self) -> Quantity {
        self.share(self.shared_strings)
    }

    fn share(&self, shared: u64) -> Quantity {
        let smaller = self.left.min(self.right);
        if smaller == 0 {
            return Quantity::missing("1", "a vocabulary is empty");
        }
        Quantity::new(shared as f64 / smaller as f64, "1").over(smaller)
    }
}

impl ModelReport {
    /// Why a panel of this model is empty.
    #[must_use]
    pub fn reason(&self, panel: Panel) -> &str {
        let reason = self.not_measured.iter().find(|missing| missing.panel == panel);
        reason.map_or("not measured", |missing| missing.reason.as_str())
    }
}
