//! Llama-like decoders with experts: Mixtral, OLMoE, Qwen 2 and 3 MoE, Granite MoE.

use serde_json::Value;

use super::activation;
use super::llama::{build, granite_multipliers, qwen_windows, rms, window};
use crate::Error;
use crate::config::Config;
use crate::layout::{Layout, Name, name, part};
use crate::spec::{
    Bias, DecoderSpec, ExpertWeights, ExpertsSpec, FeedForwardSpec, MlpSpec, QkNorm, SharedExpert, SharedGate,
};

/// Experts one by one, or stacked as newer files have them.
pub(super) const NAMES: &[Name] = &[
    name("layers.{l}.experts.router.weight", "model.layers.{l}.mlp.gate.weight"),
    name("layers.{l}.experts.{e}.gate.weight", "model.layers.{l}.mlp.experts.{e}.gate_proj.weight"),
    name("layers.{l}.experts.{e}.up.weight", "model.layers.{l}.mlp.experts.{e}.up_proj.weight"),
    name("layers.{l}.experts.{e}.down.weight", "model.layers.{l}.mlp.experts.{e}.down_proj.weight"),
    part("layers.{l}.experts.{e}.gate.weight", "model.layers.{l}.mlp.experts.gate_up_proj", Layout::StackedGateUp(0)),
    part("layers.{l}.experts.{e}.up.weight", "model.layers.{l}.mlp.experts.gate_up_proj", Layout::StackedGateUp(1)),
    part("layers.{l}.experts.{e}.down.weight", "model.layers.{l}.mlp.experts.down_proj", Layout::Stacked),
    name("layers.{l}.experts.shared.gate.weight", "model.layers.{l}.mlp.shared_expert.gate_proj.weight"),
    name("layers.{l}.experts.shared.up.weight", "model.layers.{l}.mlp.shared_expert.up_proj.weight"),
    name("layers.{l}.experts.shared.down.weight", "model.layers.{l}.mlp.shared_expert.down_proj.weight"),
    name("layers.{l}.experts.shared_gate.weight", "model.layers.{l}.mlp.shared_expert_gate.weight"),
];

/// Mixtral's own words.
pub(super) const MIXTRAL_NAMES: &[Name] = &[
    name("layers.{l}.experts.router.weight", "model.layers.{l}.block_sparse_moe.gate.weight"),
    name("layers.{l}.experts.{e}.gate.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight"),
    name("layers.{l}.experts.{e}.up.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight"),
    name("layers.{l}.experts.{e}.down.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight"),
];

const GRANITE_IN: &str = "model.layers.{l}.block_sparse_moe.input_linear.weight";
/// The name that transformers gives the same tensor in memory.
const GRANITE_STACK: &str = "model.layers.{l}.block_sparse_moe.experts.gate_up_proj";
const GRANITE_SHARED_IN: &str = "model.layers.{l}.shared_mlp.input_linear.weight";

/// Granite stacks its experts.
pub(super) const GRANITE_NAMES: &[Name] = &[
    name("layers.{l}.experts.router.weight", "model.layers.{l}.block_sparse_moe.router.layer.weight"),
    name("layers.{l}.experts.router.weight", "model.layers.{l}.block_sparse_moe.router.weight"),
    part("layers.{l}.experts.{e}.gate.weight", GRANITE_IN, Layout::StackedGateUp(0)),
    part("layers.{l}.experts.{e}.up.weight", GRANITE_IN, Layout::StackedGateUp(1)),
    part(
        "layers.{l}.experts.{e}.down.weight",
        "model.layers.{l}.block_sparse_moe.output_linear.weight",
        Layout::Stacked,
    ),
    part("layers.{l}.experts.{e}.gate.weight", GRANITE_STACK, Layout::StackedGateUp(0)),
    part("layers.{l}.experts.{e}.up.weight", GRANITE_STACK, Layout::StackedGateUp(1)),
    part("layers.{l}.experts.{e}.down.weight", "model.layers.{l}.block_sparse_moe.experts.down_proj", Layout::Stacked),
    part("layers.{l}.experts.shared.gate.weight", GRANITE_SHARED_IN, Layout::GateUp(0)),
    part("layers.{l}.experts.shared.up.weight", GRANITE_SHARED_IN, Layout::GateUp(1)),
    name("layers.{l}.experts.shared.down.weight", "model.layers.{l}.shared_mlp.output_linear.weight"),
];

/// Mixtral: weights of the chosen experts sum to 1.
pub(super) fn mixtral(config: &Config) -> Result<DecoderSpec, Error> {
    let window = window(config)?;
    let experts = routed(config, "intermediate_size", ExpertWeights::Renormalised)?;
    build(config, |_, layer| {
        layer.attention.window = window;
        layer.feed_forward = FeedForwardSpec::Experts(experts.clone());
    })
}

/// OLMoE: queries and keys normalised over all heads.
pub(super) fn olmoe(config: &Config) -> Result<DecoderSpec, Error> {
    let norm = rms(config)?;
    let experts = routed(config, "intermediate_size", weights(config)?)?;
    let clip = config.opt_f64("clip_qkv")?.map(|clip| clip as f32);
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    build(config, |_, layer| {
        layer.attention.qk_norm = QkNorm::Whole(norm);
        layer.attention.clip = clip;
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
        layer.feed_forward = FeedForwardSpec::Experts(experts.clone());
    })
}

/// Qwen 1.5 and 2 MoE: a shared expert behind a sigmoid gate.
pub(super) fn qwen2_moe(config: &Config) -> Result<DecoderSpec, Error> {
    // Not the rule of the dense models: every second layer up to this one.
    let last = config.opt_usize("max_window_layers")?.unwrap_or(28);
    let window = qwen_windows(config, |l| l.is_multiple_of(2) && l < last)?;
    let width = config.size("shared_expert_intermediate_size")?;
    let mlp = MlpSpec::gated(width, activation(config, "hidden_act")?);
    let experts = ExpertsSpec {
        shared: Some(SharedExpert { mlp, gate: SharedGate::Sigmoid }),
        ..routed(config, "moe_intermediate_size", weights(config)?)?
    };
    let sparse = qwen_sparse_layers(config)?;
    let bias = Bias::when(config.bool_or("qkv_bias", true)?);
    build(config, |l, layer| {
        layer.attention.qkv_bias = bias;
        layer.attention.window = window(l);
        if sparse(l) {
            layer.feed_forward = FeedForwardSpec::Experts(experts.clone());
        }
    })
}

/// Qwen 3 MoE: norms of heads, no shared expert; a window is on all layers.
pub(super) fn qwen3_moe(config: &Config) -> Result<DecoderSpec, Error> {
    let window = if config.bool_or("use_sliding_window", false)? { window(config)? } else { None };
    let norm = rms(config)?;
    let experts = routed(config, "moe_intermediate_size", weights(config)?)?;
    let sparse = qwen_sparse_layers(config)?;
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    build(config, |l, layer| {
        layer.attention.qk_norm = QkNorm::PerHead(norm);
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
        layer.attention.window = window;
        if sparse(l) {
            layer.feed_forward = FeedForwardSpec::Experts(experts.clone());
        }
    })
}

/// Granite MoE: multipliers, a softmax over the chosen logits (which equals renormalised probabilities), and in the
/// `shared` variant an expert for all tokens.
pub(super) fn granitemoe(config: &Config) -> Result<DecoderSpec, Error> {
    let width = config.opt_usize("shared_intermediate_size")?.filter(|width| *width > 0);
    let activation = activation(config, "hidden_act")?;
    let shared = width.map(|width| SharedExpert { mlp: MlpSpec::gated(width, activation), gate: SharedGate::Open });
    let experts = ExpertsSpec { shared, ..routed(config, "intermediate_size", ExpertWeights::Renormalised)? };
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    let mut spec = build(config, |_, layer| {
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
        layer.feed_forward = FeedForwardSpec::Experts(experts.clone());
    })?;
    granite_multipliers(config, &mut spec)?;
    Ok(spec)
}

/// Layers with experts: every `decoder_sparse_step`-th that `mlp_only_layers` does not name.
fn qwen_sparse_layers(config: &Config) -> Result<impl Fn(usize) -> bool, Error> {
    let step = config.opt_usize("decoder_sparse_step")?.unwrap_or(1).max(1);
    let dense = config.opt_f64s("mlp_only_layers")?.unwrap_or_default();
    let layers = config.size("num_hidden_layers")?;
    if let Some(layer) = dense.iter().find(|layer| **layer < 0.0 || **layer >= layers as f64) {
        return Err(config.bad("mlp_only_layers", &Value::from(*layer), &format!("layers 0 to {}", layers - 1)));
    }
    Ok(move |l: usize| !dense.contains(&(l as f64)) && (l + 1).is_multiple_of(step))
}

/// What `norm_topk_prob` says.
pub(super) fn weights(config: &Config) -> Result<ExpertWeights, Error> {
    Ok(match config.bool_or("norm_topk_prob", false)? {
        true => ExpertWeights::Renormalised,
        false => ExpertWeights::AsTheyAre,
    })
}

/// More experts in a layer than any model has: bounds what a hostile configuration can make lathe prepare.
const MOST_EXPERTS: usize = 4096;

/// Routed experts, whose number goes by three names.
pub(super) fn routed(config: &Config, width: &str, weights: ExpertWeights) -> Result<ExpertsSpec, Error> {
    let names = ["num_experts", "num_local_experts", "n_routed_experts"];
    let field = names.into_iter().find(|field| config.get(field).is_some()).unwrap_or(names[0]);
    let count = config.size(field)?;
    if count > MOST_EXPERTS {
        return Err(config.bad(field, &count.into(), &format!("at most {MOST_EXPERTS}")));
    }
    let top_k = config.size("num_experts_per_tok")?;
    if top_k > count {
        return Err(config.bad("num_experts_per_tok", &top_k.into(), &format!("at most {count} experts")));
    }
    let expert = MlpSpec::gated(config.size(width)?, activation(config, "hidden_act")?);
    Ok(ExpertsSpec { count, top_k, expert, weights, shared: None })
}
