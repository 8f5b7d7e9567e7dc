//! DeepSeek LLM and DeepSeek-MoE (version 1): dense first layers, experts with ungated shared ones.

use serde_json::Value;

use super::activation;
use super::experts::{routed, weights};
use super::llama::build;
use crate::Error;
use crate::config::Config;
use crate::layout::{Name, name};
use crate::spec::{Bias, DecoderSpec, ExpertWeights, ExpertsSpec, FeedForwardSpec, MlpSpec, SharedExpert, SharedGate};

/// The shared experts are one network; the rest is named as elsewhere.
pub(super) const NAMES: &[Name] = &[
    name("layers.{l}.experts.shared.gate.weight", "model.layers.{l}.mlp.shared_experts.gate_proj.weight"),
    name("layers.{l}.experts.shared.up.weight", "model.layers.{l}.mlp.shared_experts.up_proj.weight"),
    name("layers.{l}.experts.shared.down.weight", "model.layers.{l}.mlp.shared_experts.down_proj.weight"),
];

/// DeepSeek, version 1. Without `n_routed_experts` it is a dense model.
pub(super) fn deepseek(config: &Config) -> Result<DecoderSpec, Error> {
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    let experts = if config.get("n_routed_experts").is_some() { Some(experts(config)?) } else { None };
    let first = config.opt_usize("first_k_dense_replace")?.unwrap_or(0);
    let step = config.opt_usize("moe_layer_freq")?.unwrap_or(1).max(1);
    build(config, |l, layer| {
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
        if let Some(experts) = experts.as_ref().filter(|_| l >= first && l.is_multiple_of(step)) {
            layer.feed_forward = FeedForwardSpec::Experts(experts.clone());
        }
    })
}

fn experts(config: &Config) -> Result<ExpertsSpec, Error> {
    if let Some(other) = config.opt_str("scoring_func")?.filter(|scoring| *scoring != "softmax") {
        return Err(config.bad("scoring_func", &Value::from(other), "softmax"));
    }
    let mut routed = routed(config, "moe_intermediate_size", weights(config)?)?;
    if routed.top_k == 1 {
        // The published code leaves a single expert's weight as it is, whatever `norm_topk_prob` says.
        routed.weights = ExpertWeights::AsTheyAre;
    }
    let shared = config.opt_usize("n_shared_experts")?.filter(|count| *count > 0);
    let activation = activation(config, "hidden_act")?;
    let shared = shared.map(|count| SharedExpert {
        mlp: MlpSpec::gated(count * routed.expert.width, activation),
        gate: SharedGate::Open,
    });
    Ok(ExpertsSpec { shared, ..routed })
}
