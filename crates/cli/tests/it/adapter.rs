//! Folders of adapters as models: the base that they name, with the adapter added to its weights.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bench::Bench;
use crate::models::copy;

/// Copies an adapter that PEFT wrote, and names its base.
fn adapter(bench: &Bench, name: &str, base: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/tests/data/peft").join(name);
    fs::create_dir_all(bench.path("adapter")).unwrap();
    fs::copy(from.join("adapter_model.safetensors"), bench.path("adapter/adapter_model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("adapter_config.json")).unwrap()).unwrap();
    config["base_model_name_or_path"] = base.into();
    bench.write("adapter/adapter_config.json", config.to_string());
}

fn traced(bench: &Bench, model: &str, more: &[&str]) -> Vec<u8> {
    let take = ["trace", model, "--ids", "5,9,77,3,127,64,31,8,100", "--take", "logits", "--out", "t.safetensors"];
    bench.succeed(&[&take[..], more].concat());
    fs::read(bench.path("t.safetensors")).unwrap()
}

/// Opened, merged into files and exported: the same weights, so the same bits.
#[test]
fn a_folder_of_an_adapter_is_a_model() {
    for name in ["llama", "qwen2", "phi3", "gpt2", "gpt_neox"] {
        let bench = Bench::new();
        copy(&bench, name, "model");
        adapter(&bench, name, "../model");
        let added = traced(&bench, "adapter", &[]);
        assert!(added != traced(&bench, "model", &[]), "{name}");
        assert!(added == traced(&bench, "adapter", &["--low-memory"]), "{name}, weights in their files");
        bench.succeed(&["merge", "lora", "model", "adapter", "--out", "merged"]);
        assert!(added == traced(&bench, "merged", &[]), "{name}, merged");
        bench.succeed(&["export", "adapter", "--to", "safetensors", "--out", "exported"]);
        assert!(added == traced(&bench, "exported", &[]), "{name}, exported");
        bench.succeed(&["export", "model", "--to", "gguf", "--out", "model.gguf"]);
        adapter(&bench, name, "../model.gguf");
        assert!(added == traced(&bench, "adapter", &[]), "{name}, beside a GGUF file");
        bench.succeed(&["export", "adapter", "--to", "gguf", "--out", "again.gguf"]);
        assert!(added == traced(&bench, "again.gguf", &[]), "{name}, from GGUF to GGUF");
    }
}

#[test]
fn an_adapter_needs_its_base() {
    let bench = Bench::new();
    adapter(&bench, "llama", "../gone");
    let said = bench.refuse(&["inspect", "adapter"]);
    assert!(said.contains("its base cannot be used") && said.contains("base_model_name_or_path"), "{said}");
    copy(&bench, "gpt2", "gone");
    let said = bench.refuse(&["trace", "adapter", "--ids", "1,2", "--out", "t.safetensors"]);
    assert!(said.contains("q_proj"), "{said}");
    bench.write("adapter/adapter_config.json", "{");
    let said = bench.refuse(&["inspect", "adapter"]);
    assert!(said.contains("no valid JSON"), "{said}");
}
