//! The architectures that lathe knows: for each a translation of its configuration and a table of tensor names.
//!
//! To add one: a function from [`Config`] to [`DecoderSpec`], its row in [`FAMILIES`], a fixture in the conformance
//! test. A GGUF header is first put into the words of `config.json` (`gguf.rs`), so a translation is written once.

mod bias;
mod deepseek;
mod defaults;
mod experts;
mod gemma;
mod gguf;
mod llama;
mod openelm;

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
    /// Its GGUF files, where llama.cpp knows it.
    pub gguf: Option<Gguf>,
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

const fn family(
    model_type: &'static str,
    class: &'static str,
    translate: fn(&Config) -> Result<DecoderSpec, Error>,
    names: &'static [&'static [Name]],
    gguf: Option<Gguf>,
) -> Family {
    Family { model_type, class, translate, names, gguf }
}

/// Every architecture, by `model_type`.
pub const FAMILIES: &[Family] = &[
    family("llama", "LlamaForCausalLM", llama::llama, &[llama::NAMES], Some(gguf::LLAMA)),
    family("mistral", "MistralForCausalLM", llama::mistral, &[llama::NAMES], Some(gguf::MISTRAL)),
    family("qwen2", "Qwen2ForCausalLM", llama::qwen2, &[llama::NAMES], Some(gguf::QWEN2)),
    family("qwen3", "Qwen3ForCausalLM", llama::qwen3, &[llama::NAMES], Some(gguf::QWEN3)),
    family("phi3", "Phi3ForCausalLM", llama::phi3, &[llama::PHI3_NAMES, llama::NAMES], Some(gguf::PHI3)),
    family("olmo", "OlmoForCausalLM", llama::olmo, &[llama::NAMES], Some(gguf::OLMO)),
    family("olmo2", "Olmo2ForCausalLM", llama::olmo2, &[llama::OLMO2_NAMES, llama::NAMES], Some(gguf::OLMO2)),
    family("smollm3", "SmolLM3ForCausalLM", llama::smollm3, &[llama::NAMES], Some(gguf::SMOLLM3)),
    family("granite", "GraniteForCausalLM", llama::granite, &[llama::NAMES], Some(gguf::GRANITE)),
    family(
        "stablelm",
        "StableLmForCausalLM",
        llama::stablelm,
        &[llama::STABLELM_NAMES, llama::NAMES],
        Some(gguf::STABLELM),
    ),
    family("gemma", "GemmaForCausalLM", gemma::gemma, &[llama::NAMES], Some(gguf::GEMMA)),
    family("gemma2", "Gemma2ForCausalLM", gemma::gemma2, &[gemma::NAMES, llama::NAMES], Some(gguf::GEMMA2)),
    family("gemma3_text", "Gemma3ForCausalLM", gemma::gemma3, &[gemma::NAMES, llama::NAMES], Some(gguf::GEMMA3)),
    family("gpt2", "GPT2LMHeadModel", bias::gpt2, &[bias::GPT2_NAMES], Some(gguf::GPT2)),
    family("gpt_neox", "GPTNeoXForCausalLM", bias::gpt_neox, &[bias::GPT_NEOX_NAMES], Some(gguf::GPT_NEOX)),
    family("opt", "OPTForCausalLM", bias::opt, &[bias::OPT_NAMES], None),
    family("phi", "PhiForCausalLM", bias::phi, &[bias::PHI_NAMES, llama::NAMES], Some(gguf::PHI)),
    family("openelm", "OpenELMForCausalLM", openelm::openelm, &[openelm::NAMES], Some(gguf::OPENELM)),
    family(
        "mixtral",
        "MixtralForCausalLM",
        experts::mixtral,
        &[experts::MIXTRAL_NAMES, experts::NAMES, llama::NAMES],
        Some(gguf::MIXTRAL),
    ),
    family("olmoe", "OlmoeForCausalLM", experts::olmoe, &[experts::NAMES, llama::NAMES], Some(gguf::OLMOE)),
    family(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        experts::qwen2_moe,
        &[experts::NAMES, llama::NAMES],
        Some(gguf::QWEN2_MOE),
    ),
    family(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        experts::qwen3_moe,
        &[experts::NAMES, llama::NAMES],
        Some(gguf::QWEN3_MOE),
    ),
    family(
        "granitemoe",
        "GraniteMoeForCausalLM",
        experts::granitemoe,
        &[experts::GRANITE_NAMES, llama::NAMES],
        Some(gguf::GRANITE_MOE),
    ),
    family(
        "granitemoeshared",
        "GraniteMoeSharedForCausalLM",
        experts::granitemoe,
        &[experts::GRANITE_NAMES, llama::NAMES],
        Some(gguf::GRANITE_MOE_SHARED),
    ),
    family(
        "deepseek",
        "DeepseekForCausalLM",
        deepseek::deepseek,
        &[deepseek::NAMES, experts::NAMES, llama::NAMES],
        Some(gguf::DEEPSEEK),
    ),
];

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

/// The activation of a name.
pub(crate) fn activation_of(name: &str) -> Option<Activation> {
    Some(match name {
        "silu" | "swish" => Activation::Silu,
        "gelu" | "gelu_python" => Activation::GeluErf,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluSigmoid,
        "relu" => Activation::Relu,
        _ => return None,
    })
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
