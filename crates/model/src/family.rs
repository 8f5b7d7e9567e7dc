//! The architectures that lathe knows: for each a translation of its configuration and a table of tensor names.
//!
//! To add one: a function from [`Config`] to [`DecoderSpec`], its rows in [`FAMILIES`], a fixture in the conformance
//! test. A GGUF header is first put into the words of `config.json` ([`crate::gguf`]), so a translation is written once.

mod gemma;
mod llama;

use crate::config::Config;
use crate::spec::DecoderSpec;
use crate::Error;

/// An architecture.
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// `general.architecture` of GGUF files, where llama.cpp defines one.
    pub gguf: Option<&'static str>,
    /// From configuration to specification.
    pub translate: fn(&Config) -> Result<DecoderSpec, Error>,
    /// Names of its tensors in safetensors files.
    pub names: &'static [Name],
    /// How its GGUF files differ from its safetensors files.
    pub gguf_layout: GgufLayout,
}

/// A tensor of a checkpoint: lathe's name and the checkpoint's. `{l}` stands for the layer.
pub struct Name {
    /// lathe's name ([`DecoderSpec::parameters`]).
    pub ours: &'static str,
    /// The checkpoint's name.
    pub theirs: &'static str,
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

/// Every architecture, by `model_type`.
pub const FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        gguf: Some("llama"),
        translate: llama::llama,
        names: llama::NAMES,
        gguf_layout: GgufLayout::PairedRotary,
    },
    Family {
        model_type: "mistral",
        gguf: None,
        translate: llama::mistral,
        names: llama::NAMES,
        gguf_layout: GgufLayout::PairedRotary,
    },
    Family {
        model_type: "qwen2",
        gguf: Some("qwen2"),
        translate: llama::qwen2,
        names: llama::NAMES,
        gguf_layout: GgufLayout::Plain,
    },
    Family {
        model_type: "gemma3_text",
        gguf: Some("gemma3"),
        translate: gemma::gemma3,
        names: gemma::GEMMA3_NAMES,
        gguf_layout: GgufLayout::NormsPlusOne,
    },
];

/// Finds the family of a configuration.
///
/// # Errors
/// `model_type` is missing or not in the table.
pub fn of(config: &Config) -> Result<&'static Family, Error> {
    let model_type = config.str("model_type")?;
    FAMILIES
        .iter()
        .find(|family| family.model_type == model_type)
        .ok_or_else(|| unknown(config.file(), model_type, FAMILIES.iter().map(|family| family.model_type)))
}

/// The error of an architecture that is not in the table, with the most similar names.
pub(crate) fn unknown(file: &std::path::Path, found: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let mut names: Vec<_> = known.map(|name| (distance(found, name), name)).collect();
    names.sort_unstable();
    Error::UnknownFamily {
        file: file.into(),
        found: found.into(),
        nearest: names.iter().take(3).map(|(_, name)| format!("`{name}`")).collect(),
    }
}

/// Edit distance of two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The activation of a configuration's name for it.
fn activation(config: &Config, field: &str) -> Result<lathe_kernels::activation::Activation, Error> {
    use lathe_kernels::activation::Activation;
    Ok(match config.opt_str(field)?.unwrap_or("silu") {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::GeluErf,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluSigmoid,
        "relu" => Activation::Relu,
        other => {
            return Err(config.bad(field, &other.into(), "silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu or relu"));
        }
    })
}
