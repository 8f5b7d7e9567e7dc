//! `lathe upcycle`: a mixture of experts that is the dense model as long as nothing tells its experts apart.

use std::fs;

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, copy, edit_config, reading};
use crate::tensors::{self, Stored};

/// Text for some hundred tokens of the fixtures' tokenizer.
const TEXT: &str = "The sea and the land are one. In the north, a river of stone; in the south, sand. Nothing ends here!\n\
                    Who reads this? 1, 2, 3 and 4: there are four of them (or five). They went on, and on, and on.";

/// A fixture with a tokenizer, and a text beside it.
fn dense(bench: &Bench, name: &str) {
    // The tokenizer is made for the llama fixture; all have as many ids.
    reading(bench, "with_tokenizer", 64, Start::Token);
    copy(bench, name, "dense");
    let tokenizer = fs::read(bench.path("with_tokenizer/tokenizer.json")).unwrap();
    bench.write("dense/tokenizer.json", tokenizer);
    bench.write("text.txt", TEXT);
}

/// Upcycles the model `dense` into four experts.
fn upcycled(bench: &Bench, out: &str, more: &[&str]) -> Value {
    let usual = ["upcycle", "dense", "--experts", "4", "--data", "text.txt", "--out", out, "--json"];
    bench.json(&[&usual[..], more].concat())
}

fn logits(bench: &Bench, model: &str) -> Stored {
    let ids = "5,9,77,3,127,64,31,8,100,12,13,90";
    bench.succeed(&["trace", model, "--ids", ids, "--take", "logits", "--out", "t.safetensors"]);
    tensors::read(&bench.path("t.safetensors")).remove("logits").unwrap()
}

#[test]
fn without_noise_it_computes_what_the_dense_model_computes() {
    for (name, layout, more) in [
        ("llama", "qwen2_moe", &["--top-k", "2"][..]),
        ("llama", "mixtral", &["--top-k", "3", "--layout", "mixtral"]),
        ("llama_tied_scaled", "qwen2_moe", &["--top-k", "1"]),
        ("mistral_window", "qwen2_moe", &["--top-k", "2"]),
        ("mistral_window", "mixtral", &["--top-k", "2", "--layout", "mixtral"]),
        ("qwen2", "qwen2_moe", &["--top-k", "4"]),
        ("qwen2_windows", "qwen2_moe", &["--top-k", "2"]),
        ("qwen3", "qwen3_moe", &["--top-k", "2"]),
    ] {
        let bench = Bench::new();
        dense(&bench, name);
        let result = upcycled(&bench, "moe", &[&["--noise", "0", "--dtype", "f32"], more].concat());
        assert_eq!(result["layout"], layout, "{name}");
        assert_eq!(bench.json(&["inspect", "moe", "--json"])["family"], layout, "{name}");
        let error = logits(&bench, "moe").relative_error(&logits(&bench, "dense"));
        assert!(error < 1e-5, "{name} as {layout}: {error}");
    }
}

#[test]
fn clusters_are_balanced_and_routers_use_every_expert() {
    let bench = Bench::new();
    dense(&bench, "llama");
    let result = upcycled(&bench, "moe", &["--top-k", "2", "--tokens", "90"]);
    assert_eq!(result["tokens"], 90);
    let layers = result["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for layer in layers {
        let counts = |field: &str| -> Vec<u64> {
            layer[field].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect()
        };
        let clusters = counts("clusters");
        assert!(clusters.iter().sum::<u64>() == 90 && clusters.iter().all(|size| [22, 23].contains(size)), "{layer}");
        assert_eq!((counts("first").iter().sum::<u64>(), counts("used").iter().sum::<u64>()), (90, 180));
        assert!(counts("first").iter().all(|tokens| *tokens >= 5), "{layer}");
        // By chance a quarter would be.
        assert!(layer["as_clustered"].as_f64().unwrap() > 0.6, "{layer}");
    }
    // The logits of the router are as large as was asked for, over the tokens that it was made from.
    let spread = |folder: &str| {
        let text = ["trace", folder, "--text", TEXT.lines().next().unwrap(), "--take", "router_logits"];
        bench.succeed(&[&text[..], &["--out", "t.safetensors"]].concat());
        let logits = tensors::read(&bench.path("t.safetensors")).remove("router_logits.1").unwrap().values();
        (logits.iter().map(|logit| f64::from(*logit).powi(2)).sum::<f64>() / logits.len() as f64).sqrt()
    };
    upcycled(&bench, "large", &["--top-k", "2", "--tokens", "90", "--router-scale", "5"]);
    let (one, five) = (spread("moe"), spread("large"));
    assert!((0.7..1.4).contains(&one) && (five / one - 5.0).abs() < 0.1, "{one} {five}");
}

#[test]
fn noise_is_as_large_as_asked_for_and_differs_between_experts() {
    let bench = Bench::new();
    dense(&bench, "llama");
    upcycled(&bench, "moe", &["--top-k", "1", "--noise", "0.1", "--dtype", "f32"]);
    let [dense, moe] = ["dense", "moe"].map(|folder| tensors::read(&bench.path(folder).join("model.safetensors")));
    let mut seen = Vec::new();
    for (theirs, matrix) in [("gate_proj", 0), ("up_proj", 1), ("down_proj", 2)] {
        let source = dense[&format!("model.layers.1.mlp.{theirs}.weight")].values();
        let square = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        for expert in 0..4 {
            let values = moe[&format!("model.layers.1.mlp.experts.{expert}.{theirs}.weight")].values();
            let noise: Vec<f32> = values.iter().zip(&source).map(|(copy, source)| copy - source).collect();
            let ratio = (square(&noise) / square(&source)).sqrt();
            assert!((ratio - 0.1).abs() < 0.01, "{ratio}: expert {expert}, {matrix}");
            assert!(!seen.contains(&noise[0].to_bits()), "expert {expert}, {matrix}");
            seen.push(noise[0].to_bits());
        }
    }
    // What is no part of an expert is as it was.
    for kept in ["model.embed_tokens.weight", "model.layers.2.self_attn.o_proj.weight", "model.norm.weight"] {
        assert_eq!(dense[kept], moe[kept]);
    }
}

#[test]
fn the_same_bits_whatever_the_number_of_threads() {
    let bench = Bench::new();
    dense(&bench, "llama");
    let folder = |out: &str, more: &[&str]| {
        upcycled(&bench, out, &[&["--top-k", "2"], more].concat());
        fs::read(bench.path(out).join("model.safetensors")).unwrap()
    };
    let one = folder("one", &["--threads", "1"]);
    assert!(one == folder("four", &["--threads", "4"]));
    assert!(one == folder("streamed", &["--low-memory"]));
    assert!(one != folder("other", &["--seed", "1"]));
}

#[test]
fn it_says_what_it_is_and_goes_on_from_there() {
    let bench = Bench::new();
    dense(&bench, "llama");
    bench.write("dense/README.md", "another model");
    bench.write("dense/LICENSE", "terms");
    let printed = bench.succeed(&[
        "upcycle",
        "dense",
        "--experts",
        "4",
        "--top-k",
        "2",
        "--data",
        "text.txt",
        "--dtype",
        "bf16",
        "--out",
        "moe",
    ]);
    assert_same("upcycle_text", &printed);
    let read = |file: &str| fs::read_to_string(bench.path("moe").join(file)).unwrap();
    assert_same("upcycle_card", &read("README.md"));
    assert_same("upcycle_config", &read("config.json"));
    let manifest: Value = serde_json::from_str(&read("upcycle.json")).unwrap();
    assert_eq!(manifest["settings"]["experts"], 4);
    assert_eq!(manifest["source"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    assert_eq!(read("LICENSE"), "terms");
    // It is a model like any other, also as a GGUF file.
    bench.succeed(&["export", "moe", "--to", "gguf", "--out", "moe.gguf"]);
    assert_eq!(logits(&bench, "moe.gguf"), logits(&bench, "moe"));
    // And cannot be upcycled again.
    let again = bench.refuse(&["upcycle", "moe", "--experts", "4", "--top-k", "2", "--out", "again"]);
    assert!(again.contains("error: MODEL: a qwen2_moe model has experts already"), "{again}");
}

#[test]
fn a_quantised_model_and_one_without_a_tokenizer() {
    let bench = Bench::new();
    dense(&bench, "llama");
    bench.succeed(&["export", "dense", "--to", "gguf", "--dtype", "q8_0", "--out", "dense.gguf"]);
    let usual = ["--experts", "2", "--top-k", "1", "--noise", "0", "--data", "text.txt"];
    bench.succeed(&[&["upcycle", "dense.gguf", "--out", "moe"], &usual[..]].concat());
    let error = logits(&bench, "moe").relative_error(&logits(&bench, "dense.gguf"));
    assert!(error < 1e-5, "{error}");
    fs::remove_file(bench.path("dense/tokenizer.json")).unwrap();
    let said = bench.refuse(&[&["upcycle", "dense", "--out", "none"], &usual[..]].concat());
    assert!(said.contains("tokenizer"), "{said}");
}

#[test]
fn what_cannot_be_upcycled() {
    let bench = Bench::new();
    dense(&bench, "llama");
    for name in ["gemma2", "mixtral", "llama_biases_yarn", "gpt2"] {
        copy(&bench, name, name);
        bench.write(&format!("{name}/tokenizer.json"), fs::read(bench.path("dense/tokenizer.json")).unwrap());
    }
    copy(&bench, "qwen3", "windows");
    edit_config(&bench, "windows", |config| {
        config.insert("use_sliding_window".into(), true.into());
        config.insert("sliding_window".into(), 5.into());
        config
            .insert("layer_types".into(), ["full_attention", "sliding_attention", "full_attention"].as_slice().into());
    });
    bench.write("short.txt", "a");
    bench.write("taken/file", "x");
    let refused = |model: &str, experts: &str, top_k: &str, more: &[&str]| {
        let usual = ["upcycle", model, "--experts", experts, "--top-k", top_k, "--out", "moe"];
        bench.refuse(&[&usual[..], more].concat())
    };
    let said = [
        refused("mixtral", "4", "2", &[]),
        refused("gemma2", "4", "2", &[]),
        refused("gpt2", "4", "2", &[]),
        refused("llama_biases_yarn", "4", "2", &[]),
        refused("windows", "4", "2", &[]),
        refused("dense", "4", "2", &["--layout", "qwen3-moe"]),
        refused("dense", "1", "1", &[]),
        refused("dense", "4", "5", &[]),
        refused("dense", "4", "0", &[]),
        refused("dense", "5000", "2", &["--data", "text.txt"]),
        refused("dense", "4", "2", &["--noise=-1"]),
        refused("dense", "4", "2", &["--noise", "nan"]),
        refused("dense", "4", "2", &["--router-scale", "0"]),
        refused("dense", "4", "2", &["--tokens", "0"]),
        refused("dense", "4", "2", &["--tokens", "3"]),
        refused("dense", "4", "2", &["--data", "short.txt"]),
        refused("dense", "4", "2", &["--data", "nowhere.txt"]),
        refused("dense", "4", "2", &["--dtype", "q4_0"]),
        bench.refuse(&["upcycle", "dense", "--experts", "4", "--top-k", "2", "--out", "taken"]),
    ];
    assert_same("upcycle_refused", &said.join("\n"));
}
