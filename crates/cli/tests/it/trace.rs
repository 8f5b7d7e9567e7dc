//! `lathe trace` against what transformers computes from the same checkpoints, and against itself.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, copy, fixture, reading};
use crate::tensors::{self, Stored};

const FIXTURES: [&str; 5] = ["llama", "llama_tied_scaled", "qwen2", "gemma3", "mistral_window"];
const TAKE: [&str; 2] = ["--take", "logits,hidden_states,attentions"];
/// Largest difference, as a share of the largest absolute value of the tensor.
const TOLERANCE: f64 = 2e-4;

#[test]
fn every_tensor_agrees_with_transformers() {
    for name in FIXTURES {
        agrees(name, TAKE[1]);
    }
}

#[test]
fn router_logits_agree_with_transformers() {
    for name in ["mixtral", "olmoe", "qwen3_moe"] {
        agrees(name, "logits,hidden_states,attentions,router_logits");
    }
}

fn agrees(name: &str, take: &str) {
    let bench = Bench::new();
    copy(&bench, name, "model");
    let expected = tensors::read(&fixture(name).join("expected.safetensors"));
    for sequence in ["seq0.", "seq1.", "seq2."] {
        let ids = expected[&format!("{sequence}input_ids")].ids();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        bench.succeed(&["trace", "model", "--ids", &ids.join(","), "--take", take, "--out", "t.safetensors"]);
        let traced = tensors::read(&bench.path("t.safetensors"));
        let wanted: BTreeMap<&str, &Stored> = expected
            .iter()
            .filter_map(|(key, tensor)| Some((key.strip_prefix(sequence)?, tensor)))
            .filter(|(key, _)| !["cross_entropy", "greedy"].contains(key))
            .collect();
        let names: Vec<&str> = traced.keys().map(String::as_str).collect();
        assert_eq!(names, wanted.keys().copied().collect::<Vec<_>>(), "{name}, {sequence}");
        for (key, wanted) in wanted {
            assert_eq!(traced[key].dtype, if key == "input_ids" { "I64" } else { "F32" }, "{key}");
            if key == "input_ids" {
                assert_eq!(traced[key], *wanted);
            } else {
                let error = traced[key].relative_error(wanted);
                assert!(error <= TOLERANCE, "{name}, {sequence}{key}: {error}");
            }
        }
    }
}

#[test]
fn the_same_run_writes_the_same_file() {
    for name in FIXTURES {
        let bench = Bench::new();
        copy(&bench, name, "model");
        bench.write("a.ids", "5, 9\n77\t3 127,64,31\n");
        let run = |input: [&str; 2], more: &[&str]| {
            bench.succeed(&[&["trace", "model"], &input[..], &TAKE[..], &["--out", "t.safetensors"], more].concat());
            std::fs::read(bench.path("t.safetensors")).unwrap()
        };
        let ids = ["--ids", "5,9,77,3,127,64,31"];
        let first = run(ids, &[]);
        assert!(first == run(ids, &[]), "{name}: a second run");
        assert!(first == run(ids, &["--threads", "1"]), "{name}: one thread");
        assert!(first == run(ids, &["--threads", "2", "--quiet"]), "{name}: two threads");
        assert!(first == run(["--ids-file", "a.ids"], &[]), "{name}: ids from a file");
        assert!(first != run(["--ids", "5,9,77,3,127,64,32"], &[]), "{name}: other ids");
    }
}

#[test]
fn layers_are_those_of_the_full_trace() {
    let bench = Bench::new();
    copy(&bench, "gemma3", "model");
    let run = |more: &[&str]| {
        let arguments = ["trace", "model", "--ids", "5,9,77,3,127,64,31,8,100", "--out", "t.safetensors"];
        bench.succeed(&[&arguments[..], more].concat());
        tensors::read(&bench.path("t.safetensors"))
    };
    let full = run(&TAKE);
    let some = run(&[&TAKE[..], &["--layers", "0,3,4"]].concat());
    let names: Vec<&str> = some.keys().map(String::as_str).collect();
    let expected = [
        "attentions.0",
        "attentions.3",
        "hidden_states.0",
        "hidden_states.3",
        "hidden_states.4",
        "input_ids",
        "logits",
    ];
    assert_eq!(names, expected);
    for (name, tensor) in &some {
        assert_eq!(*tensor, full[name], "{name}");
    }
    let by_default = run(&[]);
    assert!(by_default.keys().all(|name| !name.starts_with("attentions")));
    assert_eq!(by_default.len(), 1 + 1 + 5);
    let only = run(&["--take", "attentions", "--layers", "1"]);
    assert_eq!(only.into_keys().collect::<Vec<_>>(), ["attentions.1", "input_ids"]);
}

#[test]
fn the_last_token_is_the_last_row_of_the_full_trace() {
    for name in FIXTURES {
        let bench = Bench::new();
        copy(&bench, name, "model");
        let run = |more: &[&str]| {
            let arguments = ["trace", "model", "--ids", "5,9,77,3,127,64,31,8,100", "--out", "t.safetensors"];
            bench.succeed(&[&arguments[..], &TAKE[..], more].concat());
            tensors::read(&bench.path("t.safetensors"))
        };
        let (full, last) = (run(&[]), run(&["--last-token"]));
        assert_eq!(full.keys().collect::<Vec<_>>(), last.keys().collect::<Vec<_>>());
        for (key, last) in &last {
            let full = &full[key];
            match (key.as_str(), &full.shape[..]) {
                ("input_ids", _) => assert_eq!(last, full),
                (_, [9, width]) => {
                    assert_eq!(last.shape, [1, *width], "{key}");
                    assert_eq!(last.values(), full.values()[8 * width..], "{name}: {key}");
                }
                (_, [heads, 9, 9]) => {
                    assert_eq!(last.shape, [*heads, 1, 9], "{key}");
                    let rows: Vec<Vec<f64>> = full.rows().into_iter().skip(8).step_by(9).collect();
                    assert_eq!(last.rows(), rows, "{name}: {key}");
                }
                (key, shape) => panic!("{key} has shape {shape:?}"),
            }
        }
    }
}

#[test]
fn what_was_saved_is_said() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    let arguments = ["trace", "model", "--ids", "5,6,7", "--out", "t.safetensors"];
    assert_same("trace_summary", &bench.succeed(&arguments));
    assert_eq!(
        bench.json(&[&arguments[..], &["--take", "logits", "--json"]].concat()),
        json!({"out": "t.safetensors", "tokens": 3, "tensors": [["input_ids", [3]], ["logits", [3, 128]]]})
    );
}

#[test]
fn text_is_tokenised_with_the_start_token() {
    let bench = Bench::new();
    reading(&bench, "with", 64, Start::Token);
    reading(&bench, "without", 64, Start::Nothing);
    let ids = |model: &str| {
        bench.succeed(&["trace", model, "--text", "the then", "--take", "logits", "--out", "t.safetensors"]);
        tensors::read(&bench.path("t.safetensors"))["input_ids"].ids()
    };
    let texts = crate::models::token_texts();
    let id = |text: &str| texts.iter().position(|t| t.as_deref() == Some(text)).unwrap() as i64;
    let expected = [id("the"), id(" the"), id("n")];
    assert_eq!(ids("without"), expected);
    assert_eq!(ids("with"), [&[1], &expected[..]].concat());
}

#[test]
fn routers_are_three_things_and_can_be_saved_of_the_last_token() {
    let take = ["--take", "router_logits,router_probabilities,router_weights"];
    // How many experts a token uses, and whether their weights are made to sum to 1.
    for (name, used, renormalised) in [("mixtral", 2, true), ("olmoe", 3, false), ("granitemoe", 2, true)] {
        let bench = Bench::new();
        copy(&bench, name, "model");
        let run = |more: &[&str]| {
            let arguments = ["trace", "model", "--ids", "5,9,77,3,127", "--out", "t.safetensors"];
            bench.succeed(&[&arguments[..], &take[..], more].concat());
            tensors::read(&bench.path("t.safetensors"))
        };
        let (full, last) = (run(&[]), run(&["--last-token"]));
        let layers = full.keys().filter(|key| key.starts_with("router_logits")).count();
        assert_eq!((full.len(), layers), (1 + 3 * layers, 3), "{name}");
        for j in 0..layers {
            let rows = |what: &str| full[&format!("{what}.{j}")].rows();
            for ((logits, probabilities), weights) in
                rows("router_logits").iter().zip(rows("router_probabilities")).zip(rows("router_weights"))
            {
                let total: f64 = logits.iter().map(|z| z.exp()).sum();
                for (z, p) in logits.iter().zip(&probabilities) {
                    assert!((z.exp() / total - p).abs() < 1e-6, "{name}");
                }
                let chosen: Vec<usize> = (0..weights.len()).filter(|e| weights[*e] != 0.0).collect();
                assert_eq!(chosen.len(), used, "{name}");
                let least = chosen.iter().map(|e| probabilities[*e]).fold(f64::INFINITY, f64::min);
                assert!((0..weights.len()).all(|e| chosen.contains(&e) || probabilities[e] <= least), "{name}");
                let sum: f64 = chosen.iter().map(|e| probabilities[*e]).sum();
                for e in chosen {
                    let expected = if renormalised { probabilities[e] / sum } else { probabilities[e] };
                    assert!((weights[e] - expected).abs() < 1e-6, "{name}");
                }
            }
        }
        for (key, last) in last.iter().filter(|(key, _)| *key != "input_ids") {
            assert_eq!(last.shape[0], 1, "{key}");
            let whole = full[key].values();
            assert_eq!(last.values(), whole[whole.len() - last.values().len()..], "{name}: {key}");
        }
    }
}

#[test]
fn little_memory_gives_the_same_file() {
    for name in ["llama", "gpt2", "mixtral"] {
        let bench = Bench::new();
        copy(&bench, name, "model");
        let run = |more: &[&str]| {
            let arguments = ["trace", "model", "--ids", "5,9,77,3,127,64", "--out", "t.safetensors"];
            bench.succeed(&[&arguments[..], &TAKE[..], more].concat());
            std::fs::read(bench.path("t.safetensors")).unwrap()
        };
        assert!(run(&[]) == run(&["--low-memory"]), "{name}");
    }
}

#[test]
fn inspect_loads_on_request() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    assert!(bench.json(&["inspect", "model", "--json"])["load"].is_null());
    let load = |more: &[&str]| bench.json(&[&["inspect", "model", "--load", "--json"], more].concat())["load"].clone();
    let (packed, streamed) = (load(&[]), load(&["--low-memory"]));
    assert_eq!(packed["prompt_tokens"], 64, "the context of the model");
    // Three layers of two heads of 8: keys, and values in rows of 32.
    assert_eq!(packed["cache_bytes_per_token"], 3 * 2 * (8 + 32) * 4);
    let bytes = |load: &serde_json::Value| load["weight_bytes"].as_u64().unwrap();
    assert!(bytes(&streamed) < 4096 && bytes(&packed) > 64 * 1024, "{streamed}, {packed}");
    if cfg!(target_os = "linux") {
        assert!(packed["peak_memory"].as_u64() >= packed["peak_memory_loaded"].as_u64());
        assert!(packed["peak_memory_loaded"].as_u64().is_some());
    }
    bench.succeed(&["inspect", "model", "--load"]);
}
