//! The same weights as safetensors and as GGUF give the same numbers.

use std::collections::BTreeMap;
use std::path::Path;

use lathe_formats::ElementType;
use lathe_formats::GgufValue;
use lathe_formats::write::TensorSpec;
use serde_json::Value;

use crate::bench::Bench;
use crate::models::{copy, edit_config, edit_tensors, fixture};
use crate::tensors::{self, Stored};

#[test]
fn llama() {
    same_numbers("llama", |_| {});
}

#[test]
fn llama_with_a_tied_head() {
    // Its rotary scaling has no place in a GGUF header but as a tensor of divisors; the tied head is what is new here.
    same_numbers("llama_tied_scaled", |bench| {
        edit_config(bench, "model", |config| {
            config.insert("rope_parameters".into(), serde_json::json!({"rope_type": "default", "rope_theta": 5e5}));
        });
    });
}

#[test]
fn qwen2() {
    same_numbers("qwen2", |_| {});
}

/// A GGUF header cannot list the layers without a window: every sixth is one. So the model gets six layers.
#[test]
fn gemma3() {
    same_numbers("gemma3", |bench| {
        edit_config(bench, "model", |config| {
            let types = ["sliding_attention"; 5].into_iter().chain(["full_attention"]).collect::<Vec<_>>();
            config.insert("layer_types".into(), types.into());
            config.insert("num_hidden_layers".into(), 6.into());
        });
        edit_tensors(bench, "model", |tensors| {
            for (from, to) in [(1, 4), (0, 5)] {
                let of_layer = format!("model.layers.{from}.");
                let copies: Vec<(String, Stored)> = tensors
                    .iter()
                    .filter_map(|(name, tensor)| {
                        let rest = name.strip_prefix(&of_layer)?;
                        Some((format!("model.layers.{to}.{rest}"), tensor.clone()))
                    })
                    .collect();
                tensors.extend(copies);
            }
        });
    });
}

fn same_numbers(name: &str, change: impl FnOnce(&Bench)) {
    let bench = Bench::new();
    copy(&bench, name, "model");
    change(&bench);
    write(&bench, &bench.path("model"), "model.gguf");
    let ids = "5,9,77,3,127,64,31,8,100,12,13,90";
    let take = "logits,hidden_states,attentions";
    for (model, out) in [("model", "a.safetensors"), ("model.gguf", "b.safetensors")] {
        bench.succeed(&["trace", model, "--ids", ids, "--take", take, "--out", out]);
    }
    let [folder, gguf] = ["a.safetensors", "b.safetensors"].map(|file| tensors::read(&bench.path(file)));
    assert_eq!(folder.keys().collect::<Vec<_>>(), gguf.keys().collect::<Vec<_>>());
    for (tensor, expected) in folder.iter().filter(|(_, tensor)| tensor.dtype == "F32") {
        let error = gguf[tensor].relative_error(expected);
        assert!(error <= 1e-5, "{name}, {tensor}: {error}");
    }

    let [folder, gguf] = ["model", "model.gguf"].map(|model| bench.json(&["inspect", model, "--json"]));
    assert_eq!((&folder["format"], &gguf["format"]), (&"safetensors".into(), &"gguf".into()));
    assert_eq!((&folder["licence"], &gguf["licence"]), (&Value::Null, &"mit".into()));
    for fact in [
        "family",
        "parameters",
        "parts",
        "layers",
        "hidden_size",
        "heads",
        "kv_heads",
        "head_dim",
        "feed_forward_width",
        "windows",
        "rotary_bases",
        "context",
        "vocab_size",
        "tied_head",
    ] {
        assert_eq!(folder[fact], gguf[fact], "{name}: {fact}");
    }
}

/// Writes the checkpoint of a folder as llama.cpp's converter would, in F32 and without a tokenizer.
pub(crate) fn write(bench: &Bench, folder: &Path, name: &str) {
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let stored = tensors::read(&folder.join("model.safetensors"));
    let architecture = match config["model_type"].as_str().unwrap() {
        "gemma3_text" => "gemma3",
        other => other,
    };
    let converted: BTreeMap<String, Stored> = stored
        .iter()
        .map(|(name, tensor)| (gguf_name(architecture, name), converted(architecture, name, tensor, &config)))
        .collect();
    let specs: Vec<TensorSpec> = converted
        .iter()
        .map(|(name, tensor)| TensorSpec { name: name.clone(), shape: tensor.shape.clone(), element: ElementType::F32 })
        .collect();
    let header = header(architecture, &config);
    let mut writer = lathe_formats::write::gguf(&bench.path(name), &header, &specs).unwrap();
    for (name, tensor) in &converted {
        writer.append(name, &tensor.bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn header(architecture: &str, config: &Value) -> Vec<(String, GgufValue)> {
    let text = |key: &str, value: &str| (key.to_owned(), GgufValue::Str(value.into()));
    let mut header = vec![text("general.architecture", architecture), text("general.license", "mit")];
    let mut set = |key: &str, value: GgufValue| header.push((format!("{architecture}.{key}"), value));
    for (key, field) in [
        ("block_count", "num_hidden_layers"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("attention.sliding_window", "sliding_window"),
        ("context_length", "max_position_embeddings"),
    ] {
        if let Some(n) = config[field].as_u64() {
            set(key, GgufValue::U32(n as u32));
        }
    }
    set("attention.layer_norm_rms_epsilon", GgufValue::F32(config["rms_norm_eps"].as_f64().unwrap() as f32));
    let rope = &config["rope_parameters"];
    let base = |parameters: &Value| GgufValue::F32(parameters["rope_theta"].as_f64().unwrap() as f32);
    if architecture == "gemma3" {
        set("rope.freq_base", base(&rope["full_attention"]));
        set("rope.local.freq_base", base(&rope["sliding_attention"]));
    } else {
        set("rope.freq_base", base(rope));
    }
    header
}

fn gguf_name(architecture: &str, name: &str) -> String {
    // What follows attention and what precedes the feed-forward part are named differently where norms are on both sides.
    let norm = if architecture == "gemma3" { "post_attention_norm" } else { "ffn_norm" };
    let parts = [
        ("model.embed_tokens.", "token_embd."),
        ("model.norm.", "output_norm."),
        ("lm_head.", "output."),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", norm),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    parts.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// llama: rows of query and key in the order of rotary pairs. gemma3: 1 added to the norms, which apply `1 + weight`.
fn converted(architecture: &str, name: &str, tensor: &Stored, config: &Value) -> Stored {
    let values = tensor.values();
    if architecture == "llama" && (name.contains("q_proj") || name.contains("k_proj")) {
        let heads = config["num_attention_heads"].as_u64().unwrap();
        let head_dim = (config["hidden_size"].as_u64().unwrap() / heads) as usize;
        let rows: Vec<&[f32]> = values.chunks_exact(tensor.shape[1]).collect();
        // Row i of the first half of a head, then row i of its second half, for each i.
        let paired = rows.chunks_exact(head_dim).flat_map(|head| {
            let (first, second) = head.split_at(head_dim / 2);
            first.iter().zip(second).flat_map(|(a, b)| [*a, *b])
        });
        return Stored::f32(&tensor.shape, &paired.collect::<Vec<_>>().concat());
    }
    if architecture == "gemma3" && name.contains("norm") {
        return Stored::f32(&tensor.shape, &values.iter().map(|value| value + 1.0).collect::<Vec<_>>());
    }
    tensor.clone()
}

#[test]
fn names_follow_the_converter() {
    let first = tensors::read(&fixture("gemma3").join("model.safetensors"));
    let names: Vec<String> = first.keys().map(|name| gguf_name("gemma3", name)).collect();
    assert!(names.contains(&"blk.3.post_attention_norm.weight".to_owned()));
    assert!(names.iter().all(|name| !name.contains("model") && !name.contains("self_attn")));
}
