//! Gemma 3 (text): norms on both sides of each part, normalised queries and keys, alternating windows with their own
//! rotary base, an embedding scaled by `sqrt(hidden_size)`.

use lathe_kernels::norm::Kind;

use super::llama::{head_sizes, layer_types};
use super::{Name, activation};
use crate::config::Config;
use crate::rotary::Rotary;
use crate::spec::{
    AttentionSpec, Bias, DecoderSpec, FeedForwardSpec, HeadSpec, HeadWeight, LayerNorms, LayerSpec, NormSpec,
};
use crate::Error;

/// Tensor names of Gemma 3 checkpoints.
pub(super) const GEMMA3_NAMES: &[Name] = &[
    Name { ours: "embedding.weight", theirs: "model.embed_tokens.weight" },
    Name { ours: "layers.{l}.before_attention.weight", theirs: "model.layers.{l}.input_layernorm.weight" },
    Name { ours: "layers.{l}.attention.query.weight", theirs: "model.layers.{l}.self_attn.q_proj.weight" },
    Name { ours: "layers.{l}.attention.key.weight", theirs: "model.layers.{l}.self_attn.k_proj.weight" },
    Name { ours: "layers.{l}.attention.value.weight", theirs: "model.layers.{l}.self_attn.v_proj.weight" },
    Name { ours: "layers.{l}.attention.output.weight", theirs: "model.layers.{l}.self_attn.o_proj.weight" },
    Name { ours: "layers.{l}.attention.query_norm.weight", theirs: "model.layers.{l}.self_attn.q_norm.weight" },
    Name { ours: "layers.{l}.attention.key_norm.weight", theirs: "model.layers.{l}.self_attn.k_norm.weight" },
    Name { ours: "layers.{l}.after_attention.weight", theirs: "model.layers.{l}.post_attention_layernorm.weight" },
    Name { ours: "layers.{l}.before_feed_forward.weight", theirs: "model.layers.{l}.pre_feedforward_layernorm.weight" },
    Name { ours: "layers.{l}.after_feed_forward.weight", theirs: "model.layers.{l}.post_feedforward_layernorm.weight" },
    Name { ours: "layers.{l}.feed_forward.gate.weight", theirs: "model.layers.{l}.mlp.gate_proj.weight" },
    Name { ours: "layers.{l}.feed_forward.up.weight", theirs: "model.layers.{l}.mlp.up_proj.weight" },
    Name { ours: "layers.{l}.feed_forward.down.weight", theirs: "model.layers.{l}.mlp.down_proj.weight" },
    Name { ours: "final_norm.weight", theirs: "model.norm.weight" },
    Name { ours: "head.weight", theirs: "lm_head.weight" },
];

/// Every sixth layer sees the whole text (Gemma 3 report, section 2) unless `layer_types` says otherwise.
const WINDOW_PATTERN: usize = 6;

/// Gemma 3, text part.
pub(super) fn gemma3(config: &Config) -> Result<DecoderSpec, Error> {
    let hidden_size = config.size("hidden_size")?;
    let (heads, kv_heads, head_dim) = head_sizes(config, hidden_size)?;
    let norm =
        NormSpec { kind: Kind::Rms, eps: config.opt_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32, offset: 1.0 };
    let scalar = config.opt_f64("query_pre_attn_scalar")?.unwrap_or(head_dim as f64);
    let soft_cap = config.opt_f64("attn_logit_softcapping")?.map(|cap| cap as f32);
    let window = config.opt_usize("sliding_window")?;
    let types = layer_types(config)?;
    let pattern = config.opt_usize("sliding_window_pattern")?.unwrap_or(WINDOW_PATTERN).max(1);
    let local = |l: usize| match &types {
        Some(types) => types[l] == "sliding_attention",
        None => !(l + 1).is_multiple_of(pattern),
    };
    let feed_forward = FeedForwardSpec {
        width: config.size("intermediate_size")?,
        activation: activation(config, "hidden_activation")?,
        bias: Bias::Without,
    };
    let bias = Bias::when(config.bool_or("attention_bias", false)?);
    let layer = |l: usize| LayerSpec {
        attention: AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            scale: scalar.powf(-0.5) as f32,
            window: window.filter(|_| local(l)),
            soft_cap,
            rotary: Some(usize::from(local(l))),
            qkv_bias: bias,
            output_bias: bias,
            qk_norm: Some(norm),
        },
        feed_forward: feed_forward.clone(),
        norms: LayerNorms {
            before_attention: Some(norm),
            after_attention: Some(norm),
            before_feed_forward: Some(norm),
            after_feed_forward: Some(norm),
        },
    };
    let global = Rotary::read(config, head_dim, Some("full_attention"), "rope_theta")?;
    let mut local_rotary = Rotary::read(config, head_dim, Some("sliding_attention"), "rope_local_base_freq")?;
    if config.object("rope_parameters")?.is_none() {
        // In the older dialect `rope_scaling` speaks of the global layers only.
        local_rotary.scaling = crate::rotary::Scaling::None;
    }
    Ok(DecoderSpec {
        family: config.str("model_type")?.into(),
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        context_length: config.size("max_position_embeddings")?,
        embedding_scale: (hidden_size as f32).sqrt(),
        rotary: vec![global, local_rotary],
        layers: (0..config.size("num_hidden_layers")?).map(layer).collect(),
        final_norm: norm,
        head: HeadSpec {
            weight: if config.bool_or("tie_word_embeddings", true)? { HeadWeight::Tied } else { HeadWeight::Own },
            soft_cap: config.opt_f64("final_logit_softcapping")?.map(|cap| cap as f32),
        },
        initializer_range: config.opt_f64("initializer_range")?.unwrap_or(0.02) as f32,
    })
}
