//! BERT: an encoder. Every token sees the whole text, norms come after the parts, positions are learned, and there is no head:
//! the pooler and the heads of pre-training that a file may hold are not read.

use lathe_kernels::attention::Reach;
use serde_json::Value;

use super::{Common, activation};
use crate::Error;
use crate::config::Config;
use crate::layout::{Name, name};
use crate::spec::{
    AttentionSpec, Bias, DecoderSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, LayerNorms, LayerSpec,
    LearnedPositions, MlpSpec, NormSpec, Residual,
};

/// Names of a bare encoder; inside a model for pre-training they stand behind `bert.`.
pub(super) const NAMES: &[Name] = &[
    name("embedding.weight", "embeddings.word_embeddings.weight"),
    name("positions.weight", "embeddings.position_embeddings.weight"),
    name("token_types.weight", "embeddings.token_type_embeddings.weight"),
    name("embedding_norm.weight", "embeddings.LayerNorm.weight"),
    name("embedding_norm.bias", "embeddings.LayerNorm.bias"),
    name("layers.{l}.attention.query.weight", "encoder.layer.{l}.attention.self.query.weight"),
    name("layers.{l}.attention.query.bias", "encoder.layer.{l}.attention.self.query.bias"),
    name("layers.{l}.attention.key.weight", "encoder.layer.{l}.attention.self.key.weight"),
    name("layers.{l}.attention.key.bias", "encoder.layer.{l}.attention.self.key.bias"),
    name("layers.{l}.attention.value.weight", "encoder.layer.{l}.attention.self.value.weight"),
    name("layers.{l}.attention.value.bias", "encoder.layer.{l}.attention.self.value.bias"),
    name("layers.{l}.attention.output.weight", "encoder.layer.{l}.attention.output.dense.weight"),
    name("layers.{l}.attention.output.bias", "encoder.layer.{l}.attention.output.dense.bias"),
    name("layers.{l}.after_attention.weight", "encoder.layer.{l}.attention.output.LayerNorm.weight"),
    name("layers.{l}.after_attention.bias", "encoder.layer.{l}.attention.output.LayerNorm.bias"),
    name("layers.{l}.feed_forward.up.weight", "encoder.layer.{l}.intermediate.dense.weight"),
    name("layers.{l}.feed_forward.up.bias", "encoder.layer.{l}.intermediate.dense.bias"),
    name("layers.{l}.feed_forward.down.weight", "encoder.layer.{l}.output.dense.weight"),
    name("layers.{l}.feed_forward.down.bias", "encoder.layer.{l}.output.dense.bias"),
    name("layers.{l}.after_feed_forward.weight", "encoder.layer.{l}.output.LayerNorm.weight"),
    name("layers.{l}.after_feed_forward.bias", "encoder.layer.{l}.output.LayerNorm.bias"),
];

/// Norms as the first checkpoints call their parameters.
pub(super) const OLD_NAMES: &[Name] = &[
    name("embedding_norm.weight", "embeddings.LayerNorm.gamma"),
    name("embedding_norm.bias", "embeddings.LayerNorm.beta"),
    name("layers.{l}.after_attention.weight", "encoder.layer.{l}.attention.output.LayerNorm.gamma"),
    name("layers.{l}.after_attention.bias", "encoder.layer.{l}.attention.output.LayerNorm.beta"),
    name("layers.{l}.after_feed_forward.weight", "encoder.layer.{l}.output.LayerNorm.gamma"),
    name("layers.{l}.after_feed_forward.bias", "encoder.layer.{l}.output.LayerNorm.beta"),
];

/// What comes after the last hidden state in pre-training, and a table of numbers from 0 on.
pub(super) const LEFT_OUT: &[&str] = &["pooler.", "cls.", "embeddings.position_ids"];

/// BERT and its smaller relatives.
pub(super) fn bert(config: &Config) -> Result<DecoderSpec, Error> {
    if let Some(kind) = config.opt_str("position_embedding_type")?.filter(|kind| *kind != "absolute") {
        return Err(config.bad("position_embedding_type", &kind.into(), "absolute"));
    }
    for field in ["is_decoder", "add_cross_attention"] {
        if config.bool_or(field, false)? {
            return Err(config.bad(field, &Value::from(true), "false (an encoder by itself)"));
        }
    }
    let Common { hidden_size, layers, heads: (heads, kv_heads, head_dim) } = Common::read(config)?;
    let context_length = config.size("max_position_embeddings")?;
    let norm = NormSpec::layer(config.opt_f64("layer_norm_eps")?.unwrap_or(1e-12));
    let layer = LayerSpec {
        attention: AttentionSpec {
            reach: Reach::Both,
            rotary: None,
            qkv_bias: Bias::With,
            output_bias: Bias::With,
            ..AttentionSpec::plain(heads, kv_heads, head_dim)
        },
        feed_forward: FeedForwardSpec::Dense(MlpSpec::plain(
            config.size("intermediate_size")?,
            activation(config, "hidden_act")?,
        )),
        norms: LayerNorms::after(norm),
        residual: Residual::PostNorm,
        residual_scale: 1.0,
    };
    Ok(DecoderSpec {
        family: config.str("model_type")?.into(),
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        context_length,
        embedding: EmbeddingSpec {
            positions: Some(LearnedPositions { rows: context_length, offset: 0 }),
            token_types: Some(config.size("type_vocab_size")?),
            norm: Some(norm),
            ..EmbeddingSpec::PLAIN
        },
        rotary: Vec::new(),
        layers: vec![layer; layers],
        final_norm: None,
        head: HeadSpec::NONE,
        initializer_range: config.opt_f64("initializer_range")?.unwrap_or(0.02) as f32,
    })
}
