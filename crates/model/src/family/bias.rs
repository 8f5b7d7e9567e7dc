//! Older shapes with biases and layer norms: GPT-2 (and Cerebras-GPT), GPT-NeoX (Pythia), OPT, Phi 1 and 2.

use lathe_kernels::activation::Activation;
use serde_json::Value;

use super::{Common, activation, head_sizes};
use crate::Error;
use crate::config::Config;
use crate::layout::{Layout, Name, name, part};
use crate::rotary::Rotary;
use crate::spec::{
    AttentionSpec, Bias, DecoderSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadWeight, LayerNorms, LayerSpec,
    LearnedPositions, MlpSpec, NormSpec, QkNorm, Residual,
};

pub(super) const GPT2_NAMES: &[Name] = &[
    name("embedding.weight", "transformer.wte.weight"),
    name("positions.weight", "transformer.wpe.weight"),
    name("layers.{l}.before_attention.weight", "transformer.h.{l}.ln_1.weight"),
    name("layers.{l}.before_attention.bias", "transformer.h.{l}.ln_1.bias"),
    part("layers.{l}.attention.query.weight", "transformer.h.{l}.attn.c_attn.weight", Layout::QkvTransposed(0)),
    part("layers.{l}.attention.query.bias", "transformer.h.{l}.attn.c_attn.bias", Layout::Qkv(0)),
    part("layers.{l}.attention.key.weight", "transformer.h.{l}.attn.c_attn.weight", Layout::QkvTransposed(1)),
    part("layers.{l}.attention.key.bias", "transformer.h.{l}.attn.c_attn.bias", Layout::Qkv(1)),
    part("layers.{l}.attention.value.weight", "transformer.h.{l}.attn.c_attn.weight", Layout::QkvTransposed(2)),
    part("layers.{l}.attention.value.bias", "transformer.h.{l}.attn.c_attn.bias", Layout::Qkv(2)),
    part("layers.{l}.attention.output.weight", "transformer.h.{l}.attn.c_proj.weight", Layout::Transposed),
    name("layers.{l}.attention.output.bias", "transformer.h.{l}.attn.c_proj.bias"),
    name("layers.{l}.before_feed_forward.weight", "transformer.h.{l}.ln_2.weight"),
    name("layers.{l}.before_feed_forward.bias", "transformer.h.{l}.ln_2.bias"),
    part("layers.{l}.feed_forward.up.weight", "transformer.h.{l}.mlp.c_fc.weight", Layout::Transposed),
    name("layers.{l}.feed_forward.up.bias", "transformer.h.{l}.mlp.c_fc.bias"),
    part("layers.{l}.feed_forward.down.weight", "transformer.h.{l}.mlp.c_proj.weight", Layout::Transposed),
    name("layers.{l}.feed_forward.down.bias", "transformer.h.{l}.mlp.c_proj.bias"),
    name("final_norm.weight", "transformer.ln_f.weight"),
    name("final_norm.bias", "transformer.ln_f.bias"),
    name("head.weight", "lm_head.weight"),
];

const NEOX_QKV: &str = "gpt_neox.layers.{l}.attention.query_key_value.weight";
const NEOX_QKV_BIAS: &str = "gpt_neox.layers.{l}.attention.query_key_value.bias";

pub(super) const GPT_NEOX_NAMES: &[Name] = &[
    name("embedding.weight", "gpt_neox.embed_in.weight"),
    name("layers.{l}.before_attention.weight", "gpt_neox.layers.{l}.input_layernorm.weight"),
    name("layers.{l}.before_attention.bias", "gpt_neox.layers.{l}.input_layernorm.bias"),
    part("layers.{l}.attention.query.weight", NEOX_QKV, Layout::QkvByHead(0)),
    part("layers.{l}.attention.query.bias", NEOX_QKV_BIAS, Layout::QkvByHead(0)),
    part("layers.{l}.attention.key.weight", NEOX_QKV, Layout::QkvByHead(1)),
    part("layers.{l}.attention.key.bias", NEOX_QKV_BIAS, Layout::QkvByHead(1)),
    part("layers.{l}.attention.value.weight", NEOX_QKV, Layout::QkvByHead(2)),
    part("layers.{l}.attention.value.bias", NEOX_QKV_BIAS, Layout::QkvByHead(2)),
    name("layers.{l}.attention.output.weight", "gpt_neox.layers.{l}.attention.dense.weight"),
    name("layers.{l}.attention.output.bias", "gpt_neox.layers.{l}.attention.dense.bias"),
    name("layers.{l}.before_feed_forward.weight", "gpt_neox.layers.{l}.post_attention_layernorm.weight"),
    name("layers.{l}.before_feed_forward.bias", "gpt_neox.layers.{l}.post_attention_layernorm.bias"),
    name("layers.{l}.feed_forward.up.weight", "gpt_neox.layers.{l}.mlp.dense_h_to_4h.weight"),
    name("layers.{l}.feed_forward.up.bias", "gpt_neox.layers.{l}.mlp.dense_h_to_4h.bias"),
    name("layers.{l}.feed_forward.down.weight", "gpt_neox.layers.{l}.mlp.dense_4h_to_h.weight"),
    name("layers.{l}.feed_forward.down.bias", "gpt_neox.layers.{l}.mlp.dense_4h_to_h.bias"),
    name("final_norm.weight", "gpt_neox.final_layer_norm.weight"),
    name("final_norm.bias", "gpt_neox.final_layer_norm.bias"),
    name("head.weight", "embed_out.weight"),
];

pub(super) const OPT_NAMES: &[Name] = &[
    name("embedding.weight", "model.decoder.embed_tokens.weight"),
    name("positions.weight", "model.decoder.embed_positions.weight"),
    name("embedding_in.weight", "model.decoder.project_in.weight"),
    name("embedding_out.weight", "model.decoder.project_out.weight"),
    name("layers.{l}.before_attention.weight", "model.decoder.layers.{l}.self_attn_layer_norm.weight"),
    name("layers.{l}.before_attention.bias", "model.decoder.layers.{l}.self_attn_layer_norm.bias"),
    name("layers.{l}.after_attention.weight", "model.decoder.layers.{l}.self_attn_layer_norm.weight"),
    name("layers.{l}.after_attention.bias", "model.decoder.layers.{l}.self_attn_layer_norm.bias"),
    name("layers.{l}.attention.query.weight", "model.decoder.layers.{l}.self_attn.q_proj.weight"),
    name("layers.{l}.attention.query.bias", "model.decoder.layers.{l}.self_attn.q_proj.bias"),
    name("layers.{l}.attention.key.weight", "model.decoder.layers.{l}.self_attn.k_proj.weight"),
    name("layers.{l}.attention.key.bias", "model.decoder.layers.{l}.self_attn.k_proj.bias"),
    name("layers.{l}.attention.value.weight", "model.decoder.layers.{l}.self_attn.v_proj.weight"),
    name("layers.{l}.attention.value.bias", "model.decoder.layers.{l}.self_attn.v_proj.bias"),
    name("layers.{l}.attention.output.weight", "model.decoder.layers.{l}.self_attn.out_proj.weight"),
    name("layers.{l}.attention.output.bias", "model.decoder.layers.{l}.self_attn.out_proj.bias"),
    name("layers.{l}.before_feed_forward.weight", "model.decoder.layers.{l}.final_layer_norm.weight"),
    name("layers.{l}.before_feed_forward.bias", "model.decoder.layers.{l}.final_layer_norm.bias"),
    name("layers.{l}.after_feed_forward.weight", "model.decoder.layers.{l}.final_layer_norm.weight"),
    name("layers.{l}.after_feed_forward.bias", "model.decoder.layers.{l}.final_layer_norm.bias"),
    name("layers.{l}.feed_forward.up.weight", "model.decoder.layers.{l}.fc1.weight"),
    name("layers.{l}.feed_forward.up.bias", "model.decoder.layers.{l}.fc1.bias"),
    name("layers.{l}.feed_forward.down.weight", "model.decoder.layers.{l}.fc2.weight"),
    name("layers.{l}.feed_forward.down.bias", "model.decoder.layers.{l}.fc2.bias"),
    name("final_norm.weight", "model.decoder.final_layer_norm.weight"),
    name("final_norm.bias", "model.decoder.final_layer_norm.bias"),
    name("head.weight", "lm_head.weight"),
];

pub(super) const PHI_NAMES: &[Name] = &[
    name("layers.{l}.attention.output.weight", "model.layers.{l}.self_attn.dense.weight"),
    name("layers.{l}.attention.output.bias", "model.layers.{l}.self_attn.dense.bias"),
    name("layers.{l}.attention.query_norm.weight", "model.layers.{l}.self_attn.q_layernorm.weight"),
    name("layers.{l}.attention.query_norm.bias", "model.layers.{l}.self_attn.q_layernorm.bias"),
    name("layers.{l}.attention.key_norm.weight", "model.layers.{l}.self_attn.k_layernorm.weight"),
    name("layers.{l}.attention.key_norm.bias", "model.layers.{l}.self_attn.k_layernorm.bias"),
    name("layers.{l}.feed_forward.up.weight", "model.layers.{l}.mlp.fc1.weight"),
    name("layers.{l}.feed_forward.up.bias", "model.layers.{l}.mlp.fc1.bias"),
    name("layers.{l}.feed_forward.down.weight", "model.layers.{l}.mlp.fc2.weight"),
    name("layers.{l}.feed_forward.down.bias", "model.layers.{l}.mlp.fc2.bias"),
    name("final_norm.weight", "model.final_layernorm.weight"),
    name("final_norm.bias", "model.final_layernorm.bias"),
    name("head.bias", "lm_head.bias"),
];

/// GPT-2 and Cerebras-GPT: learned positions, plain feed-forward parts.
pub(super) fn gpt2(config: &Config) -> Result<DecoderSpec, Error> {
    if config.bool_or("add_cross_attention", false)? {
        return Err(config.bad("add_cross_attention", &Value::from(true), "false (a decoder by itself)"));
    }
    // Each size goes by two names.
    let either = |own: &'static str, general: &'static str| {
        if config.get(own).is_none() && config.get(general).is_some() { general } else { own }
    };
    let heads_field = either("n_head", "num_attention_heads");
    let (hidden_size, heads) = (config.size(either("n_embd", "hidden_size"))?, config.size(heads_field)?);
    if !hidden_size.is_multiple_of(heads) {
        return Err(config.bad(heads_field, &heads.into(), &format!("a divisor of {hidden_size}")));
    }
    let norm = NormSpec::layer(config.opt_f64("layer_norm_epsilon")?.unwrap_or(1e-5));
    let width = config.opt_usize("n_inner")?.unwrap_or(4 * hidden_size);
    let activation = match config.get("activation_function") {
        Some(_) => activation(config, "activation_function")?,
        None => Activation::GeluTanh,
    };
    let context_length = config.size(either("n_positions", "max_position_embeddings"))?;
    let scaled = config.bool_or("scale_attn_weights", true)?;
    let by_layer = config.bool_or("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |l: usize| {
        let mut attention = with_biases(AttentionSpec::plain(heads, heads, hidden_size / heads));
        attention.rotary = None;
        if !scaled {
            attention.scale = 1.0;
        }
        if by_layer {
            attention.scale /= (l + 1) as f32;
        }
        LayerSpec {
            attention,
            feed_forward: FeedForwardSpec::Dense(MlpSpec::plain(width, activation)),
            norms: LayerNorms::before(norm),
            residual: Residual::Serial,
            residual_scale: 1.0,
        }
    };
    Ok(DecoderSpec {
        family: config.str("model_type")?.into(),
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        context_length,
        embedding: EmbeddingSpec {
            positions: Some(LearnedPositions { rows: context_length, offset: 0 }),
            ..EmbeddingSpec::PLAIN
        },
        rotary: Vec::new(),
        layers: (0..config.size(either("n_layer", "num_hidden_layers"))?).map(layer).collect(),
        final_norm: Some(norm),
        head: HeadSpec::plain(HeadWeight::tied_when(config.bool_or("tie_word_embeddings", true)?)),
        initializer_range: config.opt_f64("initializer_range")?.unwrap_or(0.02) as f32,
    })
}

fn with_biases(attention: AttentionSpec) -> AttentionSpec {
    AttentionSpec { qkv_bias: Bias::With, output_bias: Bias::With, ..attention }
}

/// GPT-NeoX and Pythia: partly rotated heads, usually parallel parts with a norm each.
pub(super) fn gpt_neox(config: &Config) -> Result<DecoderSpec, Error> {
    let common = Common::read(config)?;
    let (heads, _, head_dim) = common.heads;
    let norm = NormSpec::layer(config.opt_f64("layer_norm_eps")?.unwrap_or(1e-5));
    let mlp = MlpSpec::plain(config.size("intermediate_size")?, activation(config, "hidden_act")?);
    let bias = Bias::when(config.bool_or("attention_bias", true)?);
    let parallel = config.bool_or("use_parallel_residual", true)?;
    let layer = LayerSpec {
        attention: AttentionSpec { qkv_bias: bias, output_bias: bias, ..AttentionSpec::plain(heads, heads, head_dim) },
        feed_forward: FeedForwardSpec::Dense(mlp),
        norms: LayerNorms::before(norm),
        residual: if parallel { Residual::Parallel } else { Residual::Serial },
        residual_scale: 1.0,
    };
    let head = HeadSpec::plain(HeadWeight::tied_when(config.bool_or("tie_word_embeddings", false)?));
    let mut spec = common.decoder(config, vec![layer; common.layers], norm, head)?;
    if config.get("rotary_emb_base").is_some() {
        spec.rotary = vec![Rotary::read(config, head_dim, None, "rotary_emb_base")?];
    }
    Ok(spec)
}

/// OPT: learned positions from row 2 on; the 350M model normalises after its parts and has a narrower embedding.
pub(super) fn opt(config: &Config) -> Result<DecoderSpec, Error> {
    /// Row of position 0 in OPT's table.
    const OFFSET: usize = 2;
    let hidden_size = config.size("hidden_size")?;
    let (heads, _, head_dim) = head_sizes(config, hidden_size)?;
    let context_length = config.size("max_position_embeddings")?;
    let norm = NormSpec::layer(1e-5);
    let norm = match config.bool_or("layer_norm_elementwise_affine", true)? {
        true => norm,
        false => NormSpec { parameters: crate::spec::NormParameters::None, ..norm },
    };
    let before = config.bool_or("do_layer_norm_before", true)?;
    let bias = Bias::when(config.bool_or("enable_bias", true)?);
    let activation = match config.get("activation_function") {
        Some(_) => activation(config, "activation_function")?,
        None => Activation::Relu,
    };
    let mut attention =
        AttentionSpec { qkv_bias: bias, output_bias: bias, ..AttentionSpec::plain(heads, heads, head_dim) };
    attention.rotary = None;
    let layer = LayerSpec {
        attention,
        feed_forward: FeedForwardSpec::Dense(MlpSpec { bias, ..MlpSpec::plain(config.size("ffn_dim")?, activation) }),
        norms: if before { LayerNorms::before(norm) } else { LayerNorms::after(norm) },
        residual: if before { Residual::Serial } else { Residual::PostNorm },
        residual_scale: 1.0,
    };
    let embedded = config.opt_usize("word_embed_proj_dim")?.unwrap_or(hidden_size);
    let final_norm = before && !config.bool_or("_remove_final_layer_norm", false)?;
    Ok(DecoderSpec {
        family: config.str("model_type")?.into(),
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        context_length,
        embedding: EmbeddingSpec {
            positions: Some(LearnedPositions { rows: context_length + OFFSET, offset: OFFSET }),
            projected_from: (embedded != hidden_size).then_some(embedded),
            ..EmbeddingSpec::PLAIN
        },
        rotary: Vec::new(),
        layers: vec![layer; config.size("num_hidden_layers")?],
        final_norm: final_norm.then_some(norm),
        head: HeadSpec::plain(HeadWeight::tied_when(config.bool_or("tie_word_embeddings", true)?)),
        initializer_range: config.opt_f64("init_std")?.unwrap_or(0.02) as f32,
    })
}

/// Phi 1 and 2: partly rotated heads, both parts read one norm, a head with a bias.
pub(super) fn phi(config: &Config) -> Result<DecoderSpec, Error> {
    let common = Common::read(config)?;
    let (heads, kv_heads, head_dim) = common.heads;
    let norm = NormSpec::layer(config.opt_f64("layer_norm_eps")?.unwrap_or(1e-5));
    let activation = match config.get("hidden_act") {
        Some(_) => activation(config, "hidden_act")?,
        None => Activation::GeluTanh,
    };
    let mut attention = with_biases(AttentionSpec::plain(heads, kv_heads, head_dim));
    if config.bool_or("qk_layernorm", false)? {
        attention.qk_norm = QkNorm::PerHead(norm);
    }
    let layer = LayerSpec {
        attention,
        feed_forward: FeedForwardSpec::Dense(MlpSpec::plain(config.size("intermediate_size")?, activation)),
        norms: LayerNorms { before_feed_forward: None, ..LayerNorms::before(norm) },
        residual: Residual::Parallel,
        residual_scale: 1.0,
    };
    let weight = HeadWeight::tied_when(config.bool_or("tie_word_embeddings", false)?);
    let head = HeadSpec { bias: Bias::With, ..HeadSpec::plain(weight) };
    common.decoder(config, vec![layer; common.layers], norm, head)
}
