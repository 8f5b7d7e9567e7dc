//! Flags of `lathe upcycle`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lathe_lab::ExpertLayout;
use lathe_model::reference::ModelReference;

use super::model;

#[derive(Debug, Args)]
pub(crate) struct UpcycleArgs {
    /// The dense model: llama, mistral, qwen2 or qwen3
    #[arg(value_name = "MODEL", value_parser = model)]
    pub(crate) model: ModelReference,
    /// Experts of every layer
    #[arg(long, value_name = "E")]
    pub(crate) experts: usize,
    /// Experts that a token uses; their weights sum to 1
    #[arg(long, value_name = "K")]
    pub(crate) top_k: usize,
    /// The folder to write; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Architecture of what is written
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) layout: LayoutArg,
    /// Standard deviation of the noise that tells experts apart, as a share of each matrix's own; 0 keeps them equal
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    pub(crate) noise: f64,
    /// Size of the router's logits: their root mean square over the tokens that it is made from
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) router_scale: f64,
    /// Texts that the routers are made from: plain files, JSON lines, Parquet, `sample` or `sample:NAME`
    #[arg(long, value_name = "DATA", default_value = "sample")]
    pub(crate) data: Vec<String>,
    /// Field of records that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) field: String,
    /// Tokens of these texts to read at most; the states of all layers are held in memory
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub(crate) tokens: usize,
    /// Element type of what is written: f32, bf16 or f16 [default: as the model is stored; quantised ones become f32]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<String>,
    /// Seed of noise and clusters
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LayoutArg {
    /// qwen3-moe for qwen3, qwen2-moe for the others
    Auto,
    /// Qwen 2 MoE, with a shared expert that adds nothing: for llama, mistral and qwen2
    #[value(name = "qwen2-moe")]
    Qwen2Moe,
    /// Qwen 3 MoE: for qwen3
    #[value(name = "qwen3-moe")]
    Qwen3Moe,
    /// Mixtral: for llama and mistral
    Mixtral,
}

impl LayoutArg {
    /// None stands for the one that suits the model.
    pub(crate) fn layout(self) -> Option<ExpertLayout> {
        match self {
            Self::Auto => None,
            Self::Qwen2Moe => Some(ExpertLayout::Qwen2Moe),
            Self::Qwen3Moe => Some(ExpertLayout::Qwen3Moe),
            Self::Mixtral => Some(ExpertLayout::Mixtral),
        }
    }
}
