//! What each architecture's configuration class assumes where `config.json` says nothing.
//!
//! Files in the wild leave fields out: Gemma 3 omits even its number of heads. The values are those of transformers 5.23,
//! and of the code beside the checkpoints for OpenELM and DeepSeek. A field that is there and null is not left out.

use serde_json::{Map, Value, json};

/// Two names of one field; either one counts as given.
const SAME: &[(&str, &str)] = &[
    ("num_experts", "num_local_experts"),
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
];

/// `fields`, completed with the defaults of `model_type`.
pub(super) fn fill(model_type: &str, mut fields: Map<String, Value>) -> Map<String, Value> {
    let Value::Object(defaults) = of(model_type) else { return fields };
    for (field, value) in defaults {
        let same = SAME.iter().find(|(one, _)| *one == field).map(|(_, other)| *other);
        if !same.is_some_and(|same| fields.contains_key(same)) {
            fields.entry(field).or_insert(value);
        }
    }
    fields
}

/// Defaults that a model cannot be translated without, or that differ from what an absent field means elsewhere.
fn of(model_type: &str) -> Value {
    match model_type {
        "llama" | "granite" => json!({
            "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 11008, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        }),
        "mistral" => json!({
            "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096,
        }),
        "qwen2" => json!({
            "vocab_size": 151_936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "intermediate_size": 22016, "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096, "max_window_layers": 28,
        }),
        "qwen3" => json!({
            "vocab_size": 151_936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "head_dim": 128, "intermediate_size": 22016,
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096,
            "max_window_layers": 28,
        }),
        "phi3" => json!({
            "vocab_size": 32064, "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 8192, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "hidden_act": "silu",
        }),
        "olmo" | "olmo2" => json!({
            "vocab_size": 50304, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 11008, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        }),
        "smollm3" => json!({
            "vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 4, "intermediate_size": 11008, "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 2_000_000.0, "no_rope_layer_interval": 4,
            "tie_word_embeddings": true,
        }),
        "stablelm" => json!({
            "vocab_size": 50304, "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "intermediate_size": 6912, "max_position_embeddings": 4096,
            "layer_norm_eps": 1e-5, "hidden_act": "silu", "partial_rotary_factor": 0.25,
        }),
        "gemma" => json!({
            "vocab_size": 256_000, "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 16, "head_dim": 256, "intermediate_size": 24576, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true,
        }),
        "gemma2" => json!({
            "vocab_size": 256_000, "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            "sliding_window": 4096, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        }),
        "gemma3_text" => json!({
            "vocab_size": 262_208, "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
            "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216,
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": true, "sliding_window": 4096, "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256, "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0,
        }),
        "gpt2" => json!({
            "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
            "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": true,
        }),
        "gpt_neox" => json!({
            "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
            "intermediate_size": 24576, "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
            "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 10_000.0,
        }),
        "opt" => json!({
            "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "ffn_dim": 3072, "max_position_embeddings": 2048, "activation_function": "relu",
            "tie_word_embeddings": true,
        }),
        "phi" => json!({
            "vocab_size": 51200, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
            "intermediate_size": 8192, "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
            "hidden_act": "gelu_new", "partial_rotary_factor": 0.5,
        }),
        "openelm" => json!({
            "vocab_size": 32000, "model_dim": 2048, "num_transformer_layers": 12, "head_dim": 128,
            "max_context_length": 2048, "ffn_dim_divisor": 256, "ffn_with_glu": true, "activation_fn_name": "swish",
            "normalize_qk_projections": false, "share_input_output_layers": false,
        }),
        "mixtral" => json!({
            "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 1_000_000.0, "num_experts": 8,
            "num_experts_per_tok": 2,
        }),
        "olmoe" => json!({
            "vocab_size": 50304, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
            "intermediate_size": 2048, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "num_experts": 64, "num_experts_per_tok": 8,
        }),
        "qwen2_moe" => json!({
            "vocab_size": 151_936, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
            "num_key_value_heads": 16, "intermediate_size": 5632, "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "hidden_act": "silu", "sliding_window": 4096, "max_window_layers": 28, "num_experts": 60,
            "num_experts_per_tok": 4,
        }),
        "qwen3_moe" => json!({
            "vocab_size": 151_936, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
            "num_key_value_heads": 4, "intermediate_size": 6144, "moe_intermediate_size": 768,
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 4096,
            "num_experts": 128, "num_experts_per_tok": 8,
        }),
        "granitemoe" | "granitemoeshared" => json!({
            "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 11008, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "num_experts": 8, "num_experts_per_tok": 2,
        }),
        "deepseek" => json!({
            "vocab_size": 102_400, "hidden_size": 4096, "num_hidden_layers": 30, "num_attention_heads": 32,
            "intermediate_size": 11008, "moe_intermediate_size": 1407, "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6, "hidden_act": "silu",
        }),
        "bert" => json!({
            "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
        }),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::family::FAMILIES;
    use std::path::Path;

    /// Configurations of every class without arguments, as transformers writes them out in full.
    const CLASSES: &str = include_str!("../../tests/data/config_classes.json");

    #[test]
    fn an_empty_configuration_means_what_the_class_says() {
        let classes: Map<String, Value> = serde_json::from_str(CLASSES).expect("JSON");
        let mut compared = 0;
        for family in FAMILIES {
            let Some(Value::Object(written)) = classes.get(family.model_type) else { continue };
            let spec = |fields: Map<String, Value>| {
                let config = Config::new(Path::new("config.json"), fields);
                (family.translate)(&config).unwrap_or_else(|error| panic!("{}: {error}", family.model_type))
            };
            let mut empty = Map::new();
            empty.insert("model_type".into(), family.model_type.into());
            assert_eq!(spec(fill(family.model_type, empty)), spec(written.clone()), "{}", family.model_type);
            compared += 1;
        }
        // OpenELM and DeepSeek have no class.
        assert_eq!(compared, FAMILIES.len() - 2);
    }

    #[test]
    fn null_is_not_left_out_and_another_name_is_given() {
        let Value::Object(given) = json!({"sliding_window": null, "num_local_experts": 3}) else { panic!() };
        assert_eq!(fill("mistral", given.clone())["sliding_window"], Value::Null);
        assert!(!fill("qwen3_moe", given).contains_key("num_experts"));
    }
}
