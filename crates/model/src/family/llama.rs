//! Llama and its close relatives: Mistral (a window), Qwen 2 (biases of query, key and value).

use lathe_kernels::norm::Kind;
use serde_json::Value;

use super::{Name, activation};
use crate::config::Config;
use crate::rotary::Rotary;
use crate::spec::{
    AttentionSpec, Bias, DecoderSpec, FeedForwardSpec, HeadSpec, HeadWeight, LayerNorms, LayerSpec, NormSpec,
};
use crate::Error;

/// Tensor names of Llama checkpoints.
pub(super) const NAMES: &[Name] = &[
    Name { ours: "embedding.weight", theirs: "model.embed_tokens.weight" },
    Name { ours: "layers.{l}.before_attention.weight", theirs: "model.layers.{l}.input_layernorm.weight" },
    Name { ours: "layers.{l}.attention.query.weight", theirs: "model.layers.{l}.self_attn.q_proj.weight" },
    Name { ours: "layers.{l}.attention.query.bias", theirs: "model.layers.{l}.self_attn.q_proj.bias" },
    Name { ours: "layers.{l}.attention.key.weight", theirs: "model.layers.{l}.self_attn.k_proj.weight" },
    Name { ours: "layers.{l}.attention.key.bias", theirs: "model.layers.{l}.self_attn.k_proj.bias" },
    Name { ours: "layers.{l}.attention.value.weight", theirs: "model.layers.{l}.self_attn.v_proj.weight" },
    Name { ours: "layers.{l}.attention.value.bias", theirs: "model.layers.{l}.self_attn.v_proj.bias" },
    Name { ours: "layers.{l}.attention.output.weight", theirs: "model.layers.{l}.self_attn.o_proj.weight" },
    Name { ours: "layers.{l}.attention.output.bias", theirs: "model.layers.{l}.self_attn.o_proj.bias" },
    Name { ours: "layers.{l}.before_feed_forward.weight", theirs: "model.layers.{l}.post_attention_layernorm.weight" },
    Name { ours: "layers.{l}.feed_forward.gate.weight", theirs: "model.layers.{l}.mlp.gate_proj.weight" },
    Name { ours: "layers.{l}.feed_forward.gate.bias", theirs: "model.layers.{l}.mlp.gate_proj.bias" },
    Name { ours: "layers.{l}.feed_forward.up.weight", theirs: "model.layers.{l}.mlp.up_proj.weight" },
    Name { ours: "layers.{l}.feed_forward.up.bias", theirs: "model.layers.{l}.mlp.up_proj.bias" },
    Name { ours: "layers.{l}.feed_forward.down.weight", theirs: "model.layers.{l}.mlp.down_proj.weight" },
    Name { ours: "layers.{l}.feed_forward.down.bias", theirs: "model.layers.{l}.mlp.down_proj.bias" },
    Name { ours: "final_norm.weight", theirs: "model.norm.weight" },
    Name { ours: "head.weight", theirs: "lm_head.weight" },
];

/// Llama 1–3, SmolLM2 and the many checkpoints of their shape.
pub(super) fn llama(config: &Config) -> Result<DecoderSpec, Error> {
    let attention = Bias::when(config.bool_or("attention_bias", false)?);
    let mlp = Bias::when(config.bool_or("mlp_bias", false)?);
    build(config, attention, attention, mlp, |_| None)
}

/// Mistral: every layer sees `sliding_window` keys, where the field is set.
pub(super) fn mistral(config: &Config) -> Result<DecoderSpec, Error> {
    let window = config.opt_usize("sliding_window")?;
    build(config, Bias::Without, Bias::Without, Bias::Without, |_| window)
}

/// Qwen 2 and 2.5: biases of query, key and value; a window on the layers that `layer_types` or `max_window_layers`
/// names, when `use_sliding_window` is set.
pub(super) fn qwen2(config: &Config) -> Result<DecoderSpec, Error> {
    let window = match config.bool_or("use_sliding_window", false)? {
        true => config.opt_usize("sliding_window")?,
        false => None,
    };
    let full_layers = config.opt_usize("max_window_layers")?.unwrap_or(28);
    let types = layer_types(config)?;
    build(config, Bias::With, Bias::Without, Bias::Without, |l| match &types {
        Some(types) => window.filter(|_| types.get(l).is_some_and(|t| *t == "sliding_attention")),
        None => window.filter(|_| l >= full_layers),
    })
}

/// The list `layer_types`, checked.
pub(super) fn layer_types(config: &Config) -> Result<Option<Vec<&str>>, Error> {
    let Some(types) = config.opt_strs("layer_types")? else { return Ok(None) };
    let layers = config.size("num_hidden_layers")?;
    if types.len() != layers {
        return Err(config.bad("layer_types", &Value::from(types.len()), &format!("one entry for each of {layers} layers")));
    }
    if let Some(other) = types.iter().find(|t| !["full_attention", "sliding_attention"].contains(t)) {
        return Err(config.bad("layer_types", &Value::from(*other), "full_attention or sliding_attention"));
    }
    Ok(Some(types))
}

/// Sizes of heads: (query heads, key heads, width), checked.
pub(super) fn head_sizes(config: &Config, hidden_size: usize) -> Result<(usize, usize, usize), Error> {
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

fn build(
    config: &Config,
    qkv_bias: Bias,
    output_bias: Bias,
    mlp_bias: Bias,
    window: impl Fn(usize) -> Option<usize>,
) -> Result<DecoderSpec, Error> {
    let hidden_size = config.size("hidden_size")?;
    let (heads, kv_heads, head_dim) = head_sizes(config, hidden_size)?;
    let norm =
        NormSpec { kind: Kind::Rms, eps: config.opt_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32, offset: 0.0 };
    let feed_forward = FeedForwardSpec {
        width: config.size("intermediate_size")?,
        activation: activation(config, "hidden_act")?,
        bias: mlp_bias,
    };
    let layer = |l: usize| LayerSpec {
        attention: AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: window(l),
            soft_cap: None,
            rotary: Some(0),
            qkv_bias,
            output_bias,
            qk_norm: None,
        },
        feed_forward: feed_forward.clone(),
        norms: LayerNorms {
            before_attention: Some(norm),
            after_attention: None,
            before_feed_forward: Some(norm),
            after_feed_forward: None,
        },
    };
    Ok(DecoderSpec {
        family: config.str("model_type")?.into(),
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        context_length: config.size("max_position_embeddings")?,
        embedding_scale: 1.0,
        rotary: vec![Rotary::read(config, head_dim, None, "rope_theta")?],
        layers: (0..config.size("num_hidden_layers")?).map(layer).collect(),
        final_norm: norm,
        head: HeadSpec {
            weight: if config.bool_or("tie_word_embeddings", false)? { HeadWeight::Tied } else { HeadWeight::Own },
            soft_cap: None,
        },
        initializer_range: config.opt_f64("initializer_range")?.unwrap_or(0.02) as f32,
    })
}
