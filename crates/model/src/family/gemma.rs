//! Gemma 1 to 3 (text): norms that store `g - 1`, an embedding scaled by `sqrt(hidden_size)`, a tied head.

use lathe_kernels::activation::Activation;

use super::llama::{self, build};
use super::{activation, layer_types};
use crate::Error;
use crate::config::Config;
use crate::layout::{Name, name};
use crate::rotary::{Rotary, Scaling};
use crate::spec::{Bias, DecoderSpec, FeedForwardSpec, HeadWeight, LayerNorms, LayerSpec, NormSpec, QkNorm};

/// Gemma 2 and 3 normalise both the input and the output of each part.
pub(super) const NAMES: &[Name] = &[
    name("layers.{l}.after_attention.weight", "model.layers.{l}.post_attention_layernorm.weight"),
    name("layers.{l}.before_feed_forward.weight", "model.layers.{l}.pre_feedforward_layernorm.weight"),
    name("layers.{l}.after_feed_forward.weight", "model.layers.{l}.post_feedforward_layernorm.weight"),
];

/// Every sixth layer sees the whole text (Gemma 3 report, section 2) unless `layer_types` says otherwise.
const GEMMA3_PATTERN: usize = 6;

/// Every second layer does in Gemma 2.
const GEMMA2_PATTERN: usize = 2;

/// Gemma 1. Its first files said `gelu` for the tanh approximation that the checkpoints were trained with.
pub(super) fn gemma(config: &Config) -> Result<DecoderSpec, Error> {
    let activation = match config.opt_str("hidden_act")? {
        None | Some("gelu") => Activation::GeluTanh,
        Some(_) => activation(config, "hidden_act")?,
    };
    common(config, activation, |_, _| {})
}

/// Gemma 2: windows on every second layer, soft caps.
pub(super) fn gemma2(config: &Config) -> Result<DecoderSpec, Error> {
    alternating(config, GEMMA2_PATTERN, |_, _| {})
}

/// Gemma 3: windows with a rotary base of their own, norms of heads.
pub(super) fn gemma3(config: &Config) -> Result<DecoderSpec, Error> {
    let norm = norm(config)?;
    let mut spec = alternating(config, GEMMA3_PATTERN, |local, layer| {
        layer.attention.rotary = Some(usize::from(local));
        // The field is inherited from Gemma 2, and the reference implementation does not read it.
        layer.attention.soft_cap = None;
        layer.attention.qk_norm = QkNorm::PerHead(norm);
    })?;
    let head_dim = spec.layers[0].attention.head_dim;
    let global = Rotary::read(config, head_dim, Some("full_attention"), "rope_theta")?;
    let mut local = Rotary::read(config, head_dim, Some("sliding_attention"), "rope_local_base_freq")?;
    if config.get("rope_scaling").is_some() || config.get("rope_parameters").is_none() {
        // In the older dialect `rope_scaling` speaks of the global layers only.
        local.scaling = Scaling::None;
    }
    spec.rotary = vec![global, local];
    Ok(spec)
}

fn norm(config: &Config) -> Result<NormSpec, Error> {
    Ok(NormSpec { offset: 1.0, ..llama::rms(config)? })
}

/// Gemma 2 and 3: four norms, and layers with a window among layers without; `adapt` is told which a layer is.
fn alternating(config: &Config, pattern: usize, adapt: impl Fn(bool, &mut LayerSpec)) -> Result<DecoderSpec, Error> {
    let norm = norm(config)?;
    let window = llama::window(config)?;
    let activation = match config.get("hidden_activation") {
        Some(_) => activation(config, "hidden_activation")?,
        None => Activation::GeluTanh,
    };
    let types = layer_types(config)?;
    let pattern = config.opt_usize("sliding_window_pattern")?.unwrap_or(pattern).max(1);
    let soft_cap = config.opt_f64("attn_logit_softcapping")?.map(|cap| cap as f32);
    let scalar = config.opt_f64("query_pre_attn_scalar")?;
    let mut spec = common(config, activation, |l, layer| {
        let local = match &types {
            Some(types) => types[l] == "sliding_attention",
            None => !(l + 1).is_multiple_of(pattern),
        };
        layer.norms = LayerNorms {
            before_attention: Some(norm),
            after_attention: Some(norm),
            before_feed_forward: Some(norm),
            after_feed_forward: Some(norm),
        };
        layer.attention.window = window.filter(|_| local);
        layer.attention.soft_cap = soft_cap;
        if let Some(scalar) = scalar {
            layer.attention.scale = scalar.powf(-0.5) as f32;
        }
        adapt(local, layer);
    })?;
    spec.head.soft_cap = config.opt_f64("final_logit_softcapping")?.map(|cap| cap as f32);
    Ok(spec)
}

fn common(
    config: &Config,
    activation: Activation,
    adapt: impl Fn(usize, &mut LayerSpec),
) -> Result<DecoderSpec, Error> {
    if config.bool_or("use_bidirectional_attention", false)? {
        return Err(config.bad("use_bidirectional_attention", &true.into(), "false (a decoder sees no later tokens)"));
    }
    let norm = norm(config)?;
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    let mut spec = build(config, |l, layer| {
        layer.norms = LayerNorms::before(norm);
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
        if let FeedForwardSpec::Dense(mlp) = &mut layer.feed_forward {
            mlp.activation = activation;
        }
        adapt(l, layer);
    })?;
    spec.final_norm = Some(norm);
    spec.embedding.scale = (spec.hidden_size as f32).sqrt();
    spec.head.weight = HeadWeight::tied_when(config.bool_or("tie_word_embeddings", true)?);
    Ok(spec)
}
