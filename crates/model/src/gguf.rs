//! A GGUF header in the words of `config.json`, and the names that llama.cpp gives to tensors.

use lathe_formats::{Checkpoint, Error as FormatError, GgufMetadata};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::config::Config;
use crate::family::{self, FAMILIES, Family};
use crate::layout::{Name, name};

/// Tensor names of every architecture.
pub(crate) const NAMES: &[Name] = &[
    name("embedding.weight", "token_embd.weight"),
    name("layers.{l}.before_attention.weight", "blk.{l}.attn_norm.weight"),
    name("layers.{l}.attention.query.weight", "blk.{l}.attn_q.weight"),
    name("layers.{l}.attention.query.bias", "blk.{l}.attn_q.bias"),
    name("layers.{l}.attention.key.weight", "blk.{l}.attn_k.weight"),
    name("layers.{l}.attention.key.bias", "blk.{l}.attn_k.bias"),
    name("layers.{l}.attention.value.weight", "blk.{l}.attn_v.weight"),
    name("layers.{l}.attention.value.bias", "blk.{l}.attn_v.bias"),
    name("layers.{l}.attention.output.weight", "blk.{l}.attn_output.weight"),
    name("layers.{l}.attention.output.bias", "blk.{l}.attn_output.bias"),
    name("layers.{l}.attention.query_norm.weight", "blk.{l}.attn_q_norm.weight"),
    name("layers.{l}.attention.key_norm.weight", "blk.{l}.attn_k_norm.weight"),
    name("layers.{l}.after_attention.weight", "blk.{l}.post_attention_norm.weight"),
    name("layers.{l}.before_feed_forward.weight", "blk.{l}.ffn_norm.weight"),
    name("layers.{l}.after_feed_forward.weight", "blk.{l}.post_ffw_norm.weight"),
    name("layers.{l}.feed_forward.gate.weight", "blk.{l}.ffn_gate.weight"),
    name("layers.{l}.feed_forward.up.weight", "blk.{l}.ffn_up.weight"),
    name("layers.{l}.feed_forward.down.weight", "blk.{l}.ffn_down.weight"),
    name("final_norm.weight", "output_norm.weight"),
    name("head.weight", "output.weight"),
];

/// Divisors of rotary frequencies that some converters store as a tensor.
pub(crate) const ROTARY_DIVISORS: &str = "rope_freqs.weight";

/// Header key (after the architecture's prefix) and field of `config.json`, whole numbers.
const WHOLE: &[(&str, &str)] = &[
    ("block_count", "num_hidden_layers"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.sliding_window", "sliding_window"),
    ("context_length", "max_position_embeddings"),
];

/// The same for real numbers.
const REAL: &[(&str, &str)] = &[
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("rope.local.freq_base", "rope_local_base_freq"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

/// Translates a header.
///
/// # Errors
/// The architecture is unknown, or a key has a wrong type.
pub(crate) fn config(checkpoint: &Checkpoint, header: &GgufMetadata) -> Result<(Config, &'static Family), Error> {
    let file = header.file();
    let architecture = header.str("general.architecture")?;
    let family = FAMILIES
        .iter()
        .find(|family| family.gguf == Some(architecture))
        .ok_or_else(|| family::unknown(file, architecture, FAMILIES.iter().filter_map(|family| family.gguf)))?;
    let mut fields = Map::new();
    fields.insert("model_type".into(), family.model_type.into());
    let key = |name: &str| format!("{architecture}.{name}");
    for (theirs, ours) in WHOLE {
        if let Some(n) = optional(header.u64(&key(theirs)))? {
            fields.insert((*ours).into(), n.into());
        }
    }
    for (theirs, ours) in REAL {
        if let Some(x) = optional(header.f64(&key(theirs)))? {
            // Shortest decimal of the stored f32: 1e-5 stays 1e-5.
            fields.insert((*ours).into(), short(x));
        }
    }
    if let Some(kind) = optional(header.str(&key("rope.scaling.type")))?.filter(|kind| *kind != "none") {
        let factor = optional(header.f64(&key("rope.scaling.factor")))?.unwrap_or(1.0);
        let original = optional(header.u64(&key("rope.scaling.original_context_length")))?;
        let scaling = json!({"rope_type": kind, "factor": factor, "original_max_position_embeddings": original});
        fields.insert("rope_scaling".into(), scaling);
    }
    if let Some(embedding) = checkpoint.tensor("token_embd.weight") {
        fields.insert("vocab_size".into(), embedding.info().rows().into());
    }
    fields.insert("tie_word_embeddings".into(), checkpoint.tensor("output.weight").is_none().into());
    let head_dim = fields.get("head_dim").and_then(Value::as_u64);
    let rotated = optional(header.u64(&key("rope.dimension_count")))?;
    if let (Some(rotated), Some(head_dim)) = (rotated, head_dim)
        && rotated < head_dim
    {
        fields.insert("partial_rotary_factor".into(), json!(rotated as f64 / head_dim as f64));
    }
    match family.model_type {
        "gemma3_text" => {
            fields.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
        }
        // The converter writes biases only where the model has them.
        "llama" => {
            let biased = checkpoint.tensor("blk.0.attn_q.bias").is_some();
            fields.insert("attention_bias".into(), biased.into());
        }
        _ => {}
    }
    Ok((Config::new(file, fields), family))
}

fn short(x: f64) -> Value {
    let narrow = x as f32;
    if f64::from(narrow) == x { narrow.to_string().parse::<f64>().map_or(Value::Null, Value::from) } else { x.into() }
}

fn optional<T>(value: Result<T, FormatError>) -> Result<Option<T>, Error> {
    Ok(lathe_formats::optional(value)?)
}

/// Row of the checkpoint's tensor that holds row `row` of ours, for query and key rows that llama.cpp's converter
/// reordered: pair `i` of a head (rows `i` and `i + d/2`) was moved to rows `2i` and `2i + 1`.
#[must_use]
pub(crate) fn paired_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + if within < half { 2 * within } else { 2 * (within - half) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paired_rows_undo_the_converter() {
        // The converter: reshape (heads, 2, d/2) and swap the last two axes.
        let (heads, d) = (3, 8);
        let converted: Vec<usize> = (0..heads * d).map(|row| row / d * d + (row % 2) * (d / 2) + row % d / 2).collect();
        for row in 0..heads * d {
            assert_eq!(converted[paired_row(row, d)], row);
        }
    }

    #[test]
    fn decimals_stay_short() {
        assert_eq!(short(f64::from(1e-5f32)), json!(1e-5));
        assert_eq!(short(100_000.0), json!(100_000.0));
    }
}
