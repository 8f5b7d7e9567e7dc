//! The architectures that lathe knows: for each a translation of its configuration and a table of tensor names.
//!
//! To add one: a function from [`Config`] to [`DecoderSpec`], its row in [`FAMILIES`], a checkpoint to compare it on. A
//! GGUF header is first put into the words of `config.json` (`gguf.rs`), so a translation is written once.

mod bert;
mod bias;
mod deepseek;
mod defaults;
mod experts;
mod gemma;
mod gguf;
mod llama;
mod openelm;
mod table;

use lathe_kernels::activation::Activation;
use serde_json::Value;

use crate::Error;
use crate::catalog::edit_distance;
use crate::config::Config;
use crate::layout::Name;
use crate::rotary::Rotary;
use crate::spec::{DecoderSpec, EmbeddingSpec, HeadSpec, LayerSpec, NormSpec};

pub use gguf::Gguf;
pub(crate) use gguf::TiedHead;
pub use table::FAMILIES;

/// An architecture.
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Its class in transformers, as `architectures` of `config.json` names it.
    pub class: &'static str,
    /// From configuration to specification.
    pub translate: fn(&Config) -> Result<DecoderSpec, Error>,
    /// Names of its tensors in safetensors files. The first row of a parameter is written.
    pub names: &'static [&'static [Name]],
    /// How the names of tensors begin that files hold and the forward pass has no use for (heads of pre-training).
    pub left_out: &'static [&'static str],
    /// Its GGUF files, where llama.cpp knows it.
    pub gguf: Option<Gguf>,
    /// Well-known models of it.
    pub models: &'static str,
    /// What is different from Llama.
    pub differs: &'static str,
    /// Checkpoints of `tests/fixtures/parity` on which it is compared with the reference implementation.
    pub compared: &'static [&'static str],
}

/// What llama.cpp's converter does to an architecture's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufLayout {
    /// Nothing but renaming.
    Plain,
    /// Rows of query and key are reordered so that rotary pairs lie side by side.
    PairedRotary,
    /// The one that norms add is already in their weights.
    NormsPlusOne,
}

/// How GGUF files of an architecture say which layers have a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    /// There are none.
    None,
    /// All have one.
    Everywhere,
    /// Those in a list.
    Listed,
    /// All but every `every`-th, where there is no list; `usual` is the window where no key names one.
    Alternating {
        /// Period.
        every: usize,
        /// Window.
        usual: Option<u64>,
    },
}

/// Finds the family of a configuration.
///
/// # Errors
/// `model_type` is missing or not in the table; code of its own beside the weights is never run.
pub fn of(config: &Config) -> Result<&'static Family, Error> {
    let model_type = config.str("model_type")?;
    // The multimodal wrapper and its language model have names of their own.
    let model_type = if model_type == "gemma3" { "gemma3_text" } else { model_type };
    FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
        let known = FAMILIES.iter().map(|family| family.model_type);
        match (config.get("auto_map"), unknown(config.file(), model_type, known)) {
            (Some(_), Error::UnknownFamily { file, found, nearest }) => Error::RemoteCode { file, found, nearest },
            (_, error) => error,
        }
    })
}

/// A `config.json` completed with what its architecture assumes of fields that it leaves out.
#[must_use]
pub fn with_defaults(config: Config, family: &Family) -> Config {
    config.map(|fields| defaults::fill(family.model_type, fields))
}

/// The error of an architecture that is not in the table, with the most similar names.
pub(crate) fn unknown(file: &std::path::Path, found: &str, known: impl Iterator<Item = &'static str>) -> Error {
    // The distance is quadratic, and a hostile file may name an architecture of a megabyte.
    let start: String = found.chars().take(64).collect();
    let mut names: Vec<_> = known.map(|name| (edit_distance(&start, name), name)).collect();
    names.sort_unstable();
    Error::UnknownFamily {
        file: file.into(),
        found: found.into(),
        nearest: names.iter().take(3).map(|(_, name)| format!("`{name}`")).collect(),
    }
}

/// The activation of a configuration's name for it.
fn activation(config: &Config, field: &str) -> Result<Activation, Error> {
    let name = config.opt_str(field)?.unwrap_or("silu");
    activation_of(name).ok_or_else(|| config.unknown_activation(field, name))
}

/// Names of activations in configurations.
pub const ACTIVATIONS: &[(&str, Activation)] = &[
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::GeluErf),
    ("gelu_python", Activation::GeluErf),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("quick_gelu", Activation::GeluSigmoid),
    ("relu", Activation::Relu),
];

/// The activation of a name.
pub(crate) fn activation_of(name: &str) -> Option<Activation> {
    ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
}

/// A name of an activation.
pub(crate) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "silu",
        Activation::GeluErf => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::GeluSigmoid => "quick_gelu",
        Activation::Relu => "relu",
    }
}

/// The parts that every architecture's configuration names alike.
struct Common {
    hidden_size: usize,
    layers: usize,
    /// Query heads, key heads, width of a head.
    heads: (usize, usize, usize),
}

impl Common {
    fn read(config: &Config) -> Result<Self, Error> {
        let hidden_size = config.size("hidden_size")?;
        let layers = config.size("num_hidden_layers")?;
        Ok(Self { hidden_size, layers, heads: head_sizes(config, hidden_size)? })
    }

    /// A decoder with one rotary table, an unscaled embedding and a head that is tied when the configuration says so.
    fn decoder(
        &self,
        config: &Config,
        layers: Vec<LayerSpec>,
        final_norm: NormSpec,
        head: HeadSpec,
    ) -> Result<DecoderSpec, Error> {
        let rotary = Rotary::read(config, self.heads.2, None, "rope_theta")?;
        Ok(DecoderSpec {
            family: config.str("model_type")?.into(),
            vocab_size: config.size("vocab_size")?,
            hidden_size: self.hidden_size,
            context_length: rotary.context(config.size("max_position_embeddings")?),
            embedding: EmbeddingSpec::PLAIN,
            rotary: vec![rotary],
            layers,
            final_norm: Some(final_norm),
            head,
            initializer_range: config.opt_f64("initializer_range")?.unwrap_or(0.02) as f32,
        })
    }
}

/// The list `layer_types`, checked.
fn layer_types(config: &Config) -> Result<Option<Vec<&str>>, Error> {
    let Some(types) = config.opt_strs("layer_types")? else { return Ok(None) };
    let layers = config.size("num_hidden_layers")?;
    if types.len() != layers {
        let expected = format!("one entry for each of {layers} layers");
        return Err(config.bad("layer_types", &Value::from(types.len()), &expected));
    }
    if let Some(other) = types.iter().find(|t| !["full_attention", "sliding_attention"].contains(t)) {
        return Err(config.bad("layer_types", &Value::from(*other), "full_attention or sliding_attention"));
    }
    Ok(Some(types))
}

/// Sizes of heads: (query heads, key heads, width), checked.
fn head_sizes(config: &Config, hidden_size: usize) -> Result<(usize, usize, usize), Error> {
    let heads = config.size("num_attention_heads")?;
    let kv_heads = match config.opt_usize("num_key_value_heads")? {
        None => heads,
        Some(n) if n > 0 && heads.is_multiple_of(n) => n,
        Some(n) => return Err(config.bad("num_key_value_heads", &n.into(), &format!("a divisor of {heads} heads"))),
    };
    let head_dim = match config.opt_usize("head_dim")? {
        Some(_) => config.size("head_dim")?,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => return Err(config.bad("num_attention_heads", &heads.into(), &format!("a divisor of {hidden_size}"))),
    };
    Ok((heads, kv_heads, head_dim))
}
