//! Llama and its relatives: gated feed-forward parts, RMS norms, rotary positions.
//!
//! Mistral (a window), Qwen 2 (biases) and 3 (norms of heads), Phi-3 (fused projections), OLMo 1 (norms without
//! parameters) and 2 (norms after the parts), SmolLM3 (layers without positions), Granite (multipliers), StableLM.

use lathe_kernels::norm::Kind;
use serde_json::Value;

use super::{Common, activation, layer_types};
use crate::Error;
use crate::config::Config;
use crate::layout::{Layout, Name, name, part};
use crate::rotary::{Outgrown, Scaling};
use crate::spec::{
    AttentionSpec, Bias, DecoderSpec, FeedForwardSpec, HeadSpec, HeadWeight, LayerNorms, LayerSpec, MlpSpec,
    NormParameters, NormSpec, QkNorm, Residual,
};

/// Tensor names of Llama checkpoints, which most others share.
pub(super) const NAMES: &[Name] = &[
    name("embedding.weight", "model.embed_tokens.weight"),
    name("layers.{l}.before_attention.weight", "model.layers.{l}.input_layernorm.weight"),
    name("layers.{l}.before_attention.bias", "model.layers.{l}.input_layernorm.bias"),
    name("layers.{l}.attention.query.weight", "model.layers.{l}.self_attn.q_proj.weight"),
    name("layers.{l}.attention.query.bias", "model.layers.{l}.self_attn.q_proj.bias"),
    name("layers.{l}.attention.key.weight", "model.layers.{l}.self_attn.k_proj.weight"),
    name("layers.{l}.attention.key.bias", "model.layers.{l}.self_attn.k_proj.bias"),
    name("layers.{l}.attention.value.weight", "model.layers.{l}.self_attn.v_proj.weight"),
    name("layers.{l}.attention.value.bias", "model.layers.{l}.self_attn.v_proj.bias"),
    name("layers.{l}.attention.output.weight", "model.layers.{l}.self_attn.o_proj.weight"),
    name("layers.{l}.attention.output.bias", "model.layers.{l}.self_attn.o_proj.bias"),
    name("layers.{l}.attention.query_norm.weight", "model.layers.{l}.self_attn.q_norm.weight"),
    name("layers.{l}.attention.key_norm.weight", "model.layers.{l}.self_attn.k_norm.weight"),
    name("layers.{l}.before_feed_forward.weight", "model.layers.{l}.post_attention_layernorm.weight"),
    name("layers.{l}.before_feed_forward.bias", "model.layers.{l}.post_attention_layernorm.bias"),
    name("layers.{l}.feed_forward.gate.weight", "model.layers.{l}.mlp.gate_proj.weight"),
    name("layers.{l}.feed_forward.gate.bias", "model.layers.{l}.mlp.gate_proj.bias"),
    name("layers.{l}.feed_forward.up.weight", "model.layers.{l}.mlp.up_proj.weight"),
    name("layers.{l}.feed_forward.up.bias", "model.layers.{l}.mlp.up_proj.bias"),
    name("layers.{l}.feed_forward.down.weight", "model.layers.{l}.mlp.down_proj.weight"),
    name("layers.{l}.feed_forward.down.bias", "model.layers.{l}.mlp.down_proj.bias"),
    name("final_norm.weight", "model.norm.weight"),
    name("final_norm.bias", "model.norm.bias"),
    name("head.weight", "lm_head.weight"),
];

/// Phi-3 fuses query, key and value, and gate and up projection.
pub(super) const PHI3_NAMES: &[Name] = &[
    part("layers.{l}.attention.query.weight", "model.layers.{l}.self_attn.qkv_proj.weight", Layout::Qkv(0)),
    part("layers.{l}.attention.key.weight", "model.layers.{l}.self_attn.qkv_proj.weight", Layout::Qkv(1)),
    part("layers.{l}.attention.value.weight", "model.layers.{l}.self_attn.qkv_proj.weight", Layout::Qkv(2)),
    part("layers.{l}.feed_forward.gate.weight", "model.layers.{l}.mlp.gate_up_proj.weight", Layout::GateUp(0)),
    part("layers.{l}.feed_forward.up.weight", "model.layers.{l}.mlp.gate_up_proj.weight", Layout::GateUp(1)),
];

/// StableLM may have a norm for each head.
pub(super) const STABLELM_NAMES: &[Name] = &[
    name("layers.{l}.attention.query_norm.{h}.weight", "model.layers.{l}.self_attn.q_layernorm.norms.{h}.weight"),
    name("layers.{l}.attention.key_norm.{h}.weight", "model.layers.{l}.self_attn.k_layernorm.norms.{h}.weight"),
];

/// OLMo 2 normalises after its parts.
pub(super) const OLMO2_NAMES: &[Name] = &[
    name("layers.{l}.after_attention.weight", "model.layers.{l}.post_attention_layernorm.weight"),
    name("layers.{l}.after_feed_forward.weight", "model.layers.{l}.post_feedforward_layernorm.weight"),
];

/// Llama 1–3, SmolLM2 and the many checkpoints of their shape.
pub(super) fn llama(config: &Config) -> Result<DecoderSpec, Error> {
    let attention = Bias::when(config.bool_or("attention_bias", false)?);
    let mlp = Bias::when(config.bool_or("mlp_bias", false)?);
    build(config, |_, layer| {
        layer.attention.qkv_bias = attention;
        layer.attention.output_bias = attention;
        set_mlp_bias(layer, mlp);
    })
}

/// Mistral: every layer sees `sliding_window` keys, where the field is set.
pub(super) fn mistral(config: &Config) -> Result<DecoderSpec, Error> {
    let window = window(config)?;
    build(config, |_, layer| layer.attention.window = window)
}

/// Keys that a query sees; 0 stands for all of them.
pub(super) fn window(config: &Config) -> Result<Option<usize>, Error> {
    Ok(config.opt_usize("sliding_window")?.filter(|window| *window > 0))
}

/// Qwen 2 and 2.5: biases of query, key and value.
pub(super) fn qwen2(config: &Config) -> Result<DecoderSpec, Error> {
    let full_layers = config.opt_usize("max_window_layers")?.unwrap_or(28);
    let window = qwen_windows(config, |l| l >= full_layers)?;
    build(config, |l, layer| {
        layer.attention.qkv_bias = Bias::With;
        layer.attention.window = window(l);
    })
}

/// Qwen 3: no biases, norms of query and key heads.
pub(super) fn qwen3(config: &Config) -> Result<DecoderSpec, Error> {
    let full_layers = config.opt_usize("max_window_layers")?.unwrap_or(28);
    let window = qwen_windows(config, |l| l >= full_layers)?;
    let norm = rms(config)?;
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    build(config, |l, layer| {
        layer.attention.qk_norm = QkNorm::PerHead(norm);
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
        layer.attention.window = window(l);
    })
}

/// A window on the layers that `layer_types` names, else on those that `otherwise` picks, when `use_sliding_window` is
/// set.
pub(super) fn qwen_windows(
    config: &Config,
    otherwise: impl Fn(usize) -> bool,
) -> Result<impl Fn(usize) -> Option<usize>, Error> {
    let window = if config.bool_or("use_sliding_window", false)? { window(config)? } else { None };
    let types = layer_types(config)?;
    Ok(move |l: usize| match &types {
        Some(types) => window.filter(|_| types.get(l).is_some_and(|t| *t == "sliding_attention")),
        None => window.filter(|_| otherwise(l)),
    })
}

/// Phi-3: Llama with fused tensors and often LongRoPE.
pub(super) fn phi3(config: &Config) -> Result<DecoderSpec, Error> {
    let window = window(config)?;
    let mut spec = build(config, |_, layer| layer.attention.window = window)?;
    if let Scaling::LongRope { outgrown, .. } = &mut spec.rotary[0].scaling {
        *outgrown = Outgrown::RunAgain;
    }
    Ok(spec)
}

/// OLMo 1: layer norms without parameters, optionally clamped queries, keys and values.
pub(super) fn olmo(config: &Config) -> Result<DecoderSpec, Error> {
    let norm = NormSpec { kind: Kind::Layer, eps: 1e-5, offset: 0.0, parameters: NormParameters::None };
    let clip = config.opt_f64("clip_qkv")?.map(|clip| clip as f32);
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    let mut spec = build(config, |_, layer| {
        layer.norms = LayerNorms::before(norm);
        layer.attention.clip = clip;
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
    })?;
    spec.final_norm = Some(norm);
    Ok(spec)
}

/// OLMo 2: norms after the parts, queries and keys normalised over all heads.
pub(super) fn olmo2(config: &Config) -> Result<DecoderSpec, Error> {
    let norm = rms(config)?;
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    build(config, |_, layer| {
        layer.norms = LayerNorms::after(norm);
        layer.attention.qk_norm = QkNorm::Whole(norm);
        layer.attention.qkv_bias = bias;
        layer.attention.output_bias = bias;
    })
}

/// SmolLM3: Llama, where some layers have no rotary positions; those may have a window instead.
pub(super) fn smollm3(config: &Config) -> Result<DecoderSpec, Error> {
    let interval = config.opt_usize("no_rope_layer_interval")?.unwrap_or(4).max(1);
    let listed = config.opt_f64s("no_rope_layers")?;
    // The list says 1 where a layer has rotary positions.
    let is_rotary = |l: usize| match &listed {
        Some(list) => list.get(l).is_none_or(|flag| *flag != 0.0),
        None => !(l + 1).is_multiple_of(interval),
    };
    let window = qwen_windows(config, |l| !is_rotary(l))?;
    let attention = Bias::when(config.bool_or("attention_bias", false)?);
    let mlp = Bias::when(config.bool_or("mlp_bias", false)?);
    build(config, |l, layer| {
        layer.attention.rotary = is_rotary(l).then_some(0);
        layer.attention.window = window(l);
        layer.attention.qkv_bias = attention;
        layer.attention.output_bias = attention;
        set_mlp_bias(layer, mlp);
    })
}

/// Granite: Llama with four multipliers.
pub(super) fn granite(config: &Config) -> Result<DecoderSpec, Error> {
    let mut spec = llama(config)?;
    granite_multipliers(config, &mut spec)?;
    Ok(spec)
}

/// Multipliers of embedding, residual parts, attention scores, and the divisor of logits.
pub(super) fn granite_multipliers(config: &Config, spec: &mut DecoderSpec) -> Result<(), Error> {
    let factor = |field: &str| config.opt_f64(field).map(|x| x.unwrap_or(1.0));
    let divisor = factor("logits_scaling")?;
    if divisor == 0.0 {
        return Err(config.bad("logits_scaling", &Value::from(divisor), "not 0"));
    }
    spec.embedding.scale = factor("embedding_multiplier")? as f32;
    spec.head.scale = (1.0 / divisor) as f32;
    let (residual, attention) = (factor("residual_multiplier")? as f32, factor("attention_multiplier")? as f32);
    for layer in &mut spec.layers {
        layer.residual_scale = residual;
        layer.attention.scale = attention;
    }
    Ok(())
}

/// More heads in a layer than any model has: bounds what a hostile configuration can make lathe prepare.
const MOST_HEADS: usize = 4096;

/// StableLM: layer norms, partly rotated heads, optionally parallel parts and norms of heads.
pub(super) fn stablelm(config: &Config) -> Result<DecoderSpec, Error> {
    let heads = config.size("num_attention_heads")?;
    if heads > MOST_HEADS {
        return Err(config.bad("num_attention_heads", &heads.into(), &format!("at most {MOST_HEADS}")));
    }
    let norm = NormSpec::layer(config.opt_f64("layer_norm_eps")?.unwrap_or(1e-5));
    let bias = Bias::when(config.bool_or("use_qkv_bias", false)?);
    let parallel = config.bool_or("use_parallel_residual", false)?;
    let qk_norm = match config.bool_or("qk_layernorm", false)? {
        true => QkNorm::EachHead(NormSpec { parameters: NormParameters::Weight, ..norm }),
        false => QkNorm::None,
    };
    let mut spec = build(config, |_, layer| {
        layer.norms = LayerNorms::before(norm);
        layer.attention.qk_norm = qk_norm;
        layer.attention.qkv_bias = bias;
        if parallel {
            layer.residual = Residual::Parallel;
            layer.norms.before_feed_forward = None;
        }
    })?;
    spec.final_norm = Some(norm);
    Ok(spec)
}

/// The RMS norm that the configuration speaks of.
pub(super) fn rms(config: &Config) -> Result<NormSpec, Error> {
    Ok(NormSpec::rms(config.opt_f64("rms_norm_eps")?.unwrap_or(1e-6)))
}

fn set_mlp_bias(layer: &mut LayerSpec, bias: Bias) {
    if let FeedForwardSpec::Dense(mlp) = &mut layer.feed_forward {
        mlp.bias = bias;
    }
}

/// A Llama, each layer of which `adapt` may change.
pub(super) fn build(config: &Config, adapt: impl Fn(usize, &mut LayerSpec)) -> Result<DecoderSpec, Error> {
    let common = Common::read(config)?;
    let (heads, kv_heads, head_dim) = common.heads;
    let norm = rms(config)?;
    let mlp = MlpSpec::gated(config.size("intermediate_size")?, activation(config, "hidden_act")?);
    let layers = (0..common.layers).map(|l| {
        let mut layer = LayerSpec {
            attention: AttentionSpec::plain(heads, kv_heads, head_dim),
            feed_forward: FeedForwardSpec::Dense(mlp.clone()),
            norms: LayerNorms::before(norm),
            residual: Residual::Serial,
            residual_scale: 1.0,
        };
        adapt(l, &mut layer);
        layer
    });
    let layers = layers.collect();
    let tied = HeadWeight::tied_when(config.bool_or("tie_word_embeddings", false)?);
    common.decoder(config, layers, norm, HeadSpec::plain(tied))
}
