//! OpenELM: heads and widths that grow with depth, fused projections.

use serde_json::Value;

use super::activation;
use crate::Error;
use crate::config::Config;
use crate::layout::{Layout, Name, name, part};
use crate::rotary::{Rotary, Scaling};
use crate::spec::{
    AttentionSpec, DecoderSpec, EmbeddingSpec, FeedForwardSpec, HeadSpec, HeadWeight, LayerNorms, LayerSpec, MlpShape,
    MlpSpec, NormSpec, QkNorm, Residual,
};

pub(super) const NAMES: &[Name] = &[
    name("embedding.weight", "transformer.token_embeddings.weight"),
    name("layers.{l}.before_attention.weight", "transformer.layers.{l}.attn_norm.weight"),
    part("layers.{l}.attention.query.weight", "transformer.layers.{l}.attn.qkv_proj.weight", Layout::Qkv(0)),
    part("layers.{l}.attention.key.weight", "transformer.layers.{l}.attn.qkv_proj.weight", Layout::Qkv(1)),
    part("layers.{l}.attention.value.weight", "transformer.layers.{l}.attn.qkv_proj.weight", Layout::Qkv(2)),
    name("layers.{l}.attention.output.weight", "transformer.layers.{l}.attn.out_proj.weight"),
    name("layers.{l}.attention.query_norm.weight", "transformer.layers.{l}.attn.q_norm.weight"),
    name("layers.{l}.attention.key_norm.weight", "transformer.layers.{l}.attn.k_norm.weight"),
    name("layers.{l}.before_feed_forward.weight", "transformer.layers.{l}.ffn_norm.weight"),
    part("layers.{l}.feed_forward.gate.weight", "transformer.layers.{l}.ffn.proj_1.weight", Layout::GateUp(0)),
    part("layers.{l}.feed_forward.up.weight", "transformer.layers.{l}.ffn.proj_1.weight", Layout::GateUp(1)),
    name("layers.{l}.feed_forward.down.weight", "transformer.layers.{l}.ffn.proj_2.weight"),
    name("final_norm.weight", "transformer.norm.weight"),
    name("head.weight", "lm_head.weight"),
];

/// OpenELM.
pub(super) fn openelm(config: &Config) -> Result<DecoderSpec, Error> {
    let hidden_size = config.size("model_dim")?;
    let layers = config.size("num_transformer_layers")?;
    let head_dim = config.size("head_dim")?;
    let list = |field: &str| {
        let values = config.opt_f64s(field)?.ok_or_else(|| config.missing(field))?;
        match values.len() == layers && values.iter().all(|x| *x > 0.0 && *x < 65_536.0) {
            true => Ok(values),
            false => Err(config.bad(field, &Value::from(values.len()), &format!("{layers} positive numbers"))),
        }
    };
    let (heads, kv_heads) = (list("num_query_heads")?, list("num_kv_heads")?);
    let multipliers = list("ffn_multipliers")?;
    let divisor = config.size("ffn_dim_divisor")?;
    let shape = if config.bool_or("ffn_with_glu", true)? { MlpShape::Gated } else { MlpShape::Plain };
    let activation = activation(config, "activation_fn_name")?;
    let norm = NormSpec::rms(1e-6);
    let qk_norm = if config.bool_or("normalize_qk_projections", true)? { QkNorm::PerHead(norm) } else { QkNorm::None };
    let layer = |l: usize| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small and positive")]
        let (heads, kv_heads) = (heads[l] as usize, kv_heads[l] as usize);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(config.bad("num_kv_heads", &kv_heads.into(), &format!("a divisor of {heads} heads")));
        }
        let width = divisible(multipliers[l] * hidden_size as f64, divisor);
        Ok(LayerSpec {
            attention: AttentionSpec { qk_norm, ..AttentionSpec::plain(heads, kv_heads, head_dim) },
            feed_forward: FeedForwardSpec::Dense(MlpSpec { shape, ..MlpSpec::gated(width, activation) }),
            norms: LayerNorms::before(norm),
            residual: Residual::Serial,
            residual_scale: 1.0,
        })
    };
    let tied = config.bool_or("share_input_output_layers", true)?;
    Ok(DecoderSpec {
        family: config.str("model_type")?.into(),
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        context_length: config.size("max_context_length")?,
        embedding: EmbeddingSpec::PLAIN,
        rotary: vec![Rotary {
            dim: head_dim / 2 * 2,
            base: config.opt_f64("rope_freq_constant")?.unwrap_or(10_000.0),
            scaling: Scaling::None,
        }],
        layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
        final_norm: Some(norm),
        head: HeadSpec::plain(HeadWeight::tied_when(tied)),
        initializer_range: config.opt_f64("initializer_range")?.unwrap_or(0.02) as f32,
    })
}

/// The multiple of `divisor` nearest to `width`, at least `divisor`, and never more than a tenth below `width`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width of a layer")]
fn divisible(width: f64, divisor: usize) -> usize {
    let nearest = ((width + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (nearest as f64) < 0.9 * width { nearest + divisor } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::divisible;

    #[test]
    fn widths_are_multiples() {
        assert_eq!(divisible(16.0, 16), 16);
        assert_eq!(divisible(70.4, 16), 64);
        assert_eq!(divisible(3.0, 16), 16);
        assert_eq!(divisible(23.0, 16), 32);
    }
}
