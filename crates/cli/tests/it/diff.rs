//! `lathe diff`, on copies of the fixtures that were changed on purpose.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{copy, edit_config, edit_tensors, with_tensors};
use crate::shape::shape;
use crate::tensors::Stored;

const UP: &str = "model.layers.1.mlp.up_proj.weight";
const QUERY: &str = "model.layers.2.self_attn.q_proj.weight";

/// Changes the numbers of a tensor; the function gets each with its place.
fn change(tensors: &mut BTreeMap<String, Stored>, name: &str, of: impl Fn(usize, f32) -> f32) {
    let stored = &tensors[name];
    let values: Vec<f32> = stored.values().into_iter().enumerate().map(|(i, value)| of(i, value)).collect();
    let changed = Stored::f32(&stored.shape, &values);
    tensors.insert(name.into(), changed);
}

/// The llama fixture as `base`, and two children: in `a` one matrix is 1.5 times as long, in `b` another one has something of
/// rank 1 added.
fn children() -> Bench {
    let bench = Bench::new();
    copy(&bench, "llama", "base");
    with_tensors(&bench, "a", |tensors| change(tensors, UP, |_, value| 1.5 * value));
    with_tensors(&bench, "b", |tensors| {
        change(tensors, QUERY, |i, value| value + 0.125 * (i / 32 + 1) as f32 / (i % 32 + 1) as f32);
    });
    bench
}

fn number(of: &Value) -> f64 {
    of["value"].as_f64().unwrap_or_else(|| panic!("{of} is no number"))
}

fn tensor<'a>(result: &'a Value, name: &str) -> &'a Value {
    result["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == name).unwrap()
}

#[test]
fn what_was_changed_is_found() {
    let bench = children();
    let result = bench.json(&["diff", "base", "a", "--json"]);
    let changed = tensor(&result, "layers.1.feed_forward.up.weight");
    assert!((number(&changed["distance"]["relative"]) - 0.5).abs() < 1e-7);
    assert!((number(&changed["distance"]["cosine"]) - 1.0).abs() < 1e-12);
    assert_eq!(number(&changed["distance"]["sign_agreement"]), 1.0);
    let tensors = result["tensors"].as_array().unwrap();
    let differing = tensors.iter().filter(|tensor| tensor["distance"]["differing"] != 0);
    assert_eq!(differing.count(), 1);
    assert_eq!(result["whole"]["tensors"].as_u64().unwrap(), tensors.len() as u64);
    assert_eq!(result["whole"]["equal"].as_u64().unwrap(), tensors.len() as u64 - 1);
    // A difference that is half of a trained matrix has its rank, one of rank 1 is told from noise.
    let rank = |of: &Value| number(&of["rank"]["effective"]);
    assert!(rank(changed) > 10.0, "{changed}");
    let result = bench.json(&["diff", "base", "b", "--json"]);
    let changed = tensor(&result, "layers.2.attention.query.weight");
    assert!((rank(changed) - 1.0).abs() < 0.01, "{changed}");
    assert_eq!(tensor(&result, "layers.0.attention.query.weight")["rank"]["effective"]["reason"], "all_zero");
    assert_eq!(tensor(&result, "embedding.weight")["rank"]["most"], 32);
    assert!(tensor(&result, "final_norm.weight")["rank"].is_null());
}

#[test]
fn rows_of_kinds_layers_and_cells_add_up() {
    let bench = children();
    let result = bench.json(&["diff", "a", "b", "--json"]);
    let squared = |row: &Value| number(&row["distance"]["norm"]).powi(2);
    let rows = |field: &str| -> Vec<Value> { result[field].as_array().unwrap().clone() };
    let whole = squared(&result["whole"]);
    for field in ["kinds", "layers", "cells", "tensors"] {
        // Only layers were changed, so they have all of it.
        let sum: f64 = rows(field).iter().map(squared).sum();
        assert!((sum - whole).abs() < 1e-12 * whole, "{field}: {sum} {whole}");
    }
    let kinds: Vec<String> = rows("kinds").iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect();
    let expected = ["embedding", "query", "key", "value", "output", "gate", "up", "down", "norm", "head"];
    assert_eq!(kinds, expected);
    assert_eq!(rows("layers").len(), 3);
    assert_eq!(rows("cells").len(), 3 * 8);
}

#[test]
fn changes_of_a_base_are_compared() {
    let bench = children();
    let result = bench.json(&["diff", "a", "b", "--base", "base", "--json"]);
    // The children changed different tensors.
    let changes = &result["whole"]["changes"];
    assert_eq!(number(&changes["cosine"]), 0.0);
    assert_eq!(changes["sign_conflict"]["reason"], "all_zero");
    // A third child that changed the same as A, the other way.
    with_tensors(&bench, "c", |tensors| change(tensors, UP, |_, value| 0.75 * value));
    let result = bench.json(&["diff", "a", "c", "--base", "base", "--json"]);
    let changes = &tensor(&result, "layers.1.feed_forward.up.weight")["changes"];
    assert!((number(&changes["cosine"]) + 1.0).abs() < 1e-12);
    assert_eq!(number(&changes["sign_conflict"]), 1.0);
    assert!(number(&changes["large_overlap"]) > 0.99 && number(&changes["large_conflict"]) == 1.0, "{changes}");
    let said = bench.succeed(&["diff", "a", "c", "--base", "base"]);
    assert!(said.contains("The sum of both changes has 50.0 % of A's along A's direction"), "{said}");
    // A child that is the base has nothing to interfere with.
    let said = bench.succeed(&["diff", "base", "b", "--base", "base"]);
    assert!(
        said.contains("A is the base (base) in every weight, so all changes are B's: nothing interferes."),
        "{said}"
    );
}

#[test]
fn equal_models_have_nothing_to_merge() {
    let bench = Bench::new();
    for fixture in ["llama", "gpt2", "gpt_neox", "mixtral", "gemma3", "phi3", "qwen2_moe", "opt_350m", "olmo2"] {
        copy(&bench, fixture, fixture);
        let said = bench.succeed(&["diff", fixture, fixture]);
        assert!(said.contains("are equal, bit for bit as f32: there is nothing to merge."), "{said}");
    }
    // A GGUF file beside a folder: query and key rows lie in another order there.
    bench.succeed(&["export", "llama", "--to", "gguf", "--out", "llama.gguf"]);
    assert!(bench.succeed(&["diff", "llama", "llama.gguf"]).contains("there is nothing to merge"));
}

#[test]
fn rounding_is_noise() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    bench.succeed(&["export", "model", "--to", "gguf", "--dtype", "q8_0", "--out", "small.gguf"]);
    let result = bench.json(&["diff", "model", "small.gguf", "--json"]);
    let relative = number(&result["whole"]["distance"]["relative"]);
    assert!(relative > 1e-4 && relative < 0.01, "{relative}");
    let of_noise = number(&result["whole"]["rank_of_noise"]);
    assert!(of_noise > 0.9 && of_noise < 1.1, "{of_noise}");
    let notes = result["notes"].to_string();
    assert!(notes.contains("Most bytes are stored as (A: F32, B: Q8_0)"), "{notes}");
}

#[test]
fn threads_change_nothing() {
    let bench = children();
    let run =
        |threads: &str| bench.succeed(&["diff", "a", "b", "--base", "base", "--full", "--json", "--threads", threads]);
    assert_eq!(run("1"), run("3"));
}

#[test]
fn other_vocabularies_and_heads_are_said() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    // Eight more tokens, and a head that is tied.
    copy(&bench, "llama", "larger");
    edit_config(&bench, "larger", |config| {
        config.insert("vocab_size".into(), 136.into());
        config.insert("tie_word_embeddings".into(), true.into());
    });
    edit_tensors(&bench, "larger", |tensors| {
        tensors.remove("lm_head.weight");
        let embedding = tensors["model.embed_tokens.weight"].values();
        let more = [&embedding[..], &[1.0; 8 * 32]].concat();
        tensors.insert("model.embed_tokens.weight".into(), Stored::f32(&[136, 32], &more));
    });
    let result = bench.json(&["diff", "model", "larger", "--json"]);
    let notes = result["notes"].to_string();
    assert!(notes.contains("Heads (A: its own, B: tied)"), "{notes}");
    assert!(notes.contains("Rows of the embedding (A: 128, B: 136)"), "{notes}");
    let embedding = tensor(&result, "embedding.weight");
    assert_eq!((&embedding["shape"][0], &embedding["distance"]["differing"]), (&128.into(), &0.into()));
    assert!(tensor(&result, "head.weight")["distance"]["differing"].as_u64().unwrap() > 0);
}

#[test]
fn biases_that_one_lacks_are_left_out() {
    let bench = Bench::new();
    copy(&bench, "qwen2", "a");
    copy(&bench, "qwen2", "b");
    edit_config(&bench, "b", |config| {
        config.insert("model_type".into(), "llama".into());
        config.insert("architectures".into(), serde_json::json!(["LlamaForCausalLM"]));
    });
    edit_tensors(&bench, "b", |tensors| tensors.retain(|name, _| !name.ends_with("proj.bias")));
    let result = bench.json(&["diff", "a", "b", "--json"]);
    let notes = result["notes"].to_string();
    assert!(notes.contains("Left out, because B has none: `attention.query.bias` ("), "{notes}");
    assert!(notes.contains("Architectures (A: qwen2, B: llama)"), "{notes}");
    assert!(result["whole"]["distance"]["differing"] == 0);
}

#[test]
fn the_page_and_the_json_have_their_shape() {
    let bench = children();
    // It has something of what both children changed.
    with_tensors(&bench, "c", |tensors| {
        change(tensors, UP, |i, value| if i % 3 == 0 { 0.5 * value } else { 1.25 * value });
        change(tensors, QUERY, |i, value| value + 0.125 * (i / 32 + 1) as f32 / (i % 32 + 1) as f32);
    });
    let said = bench.succeed(&["diff", "a", "c", "--base", "base", "--out", "diff.html"]);
    assert_same("diff_text", &said);
    let page = fs::read_to_string(bench.path("diff.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    // Seven maps, each for a wide column and for a phone.
    assert_eq!(page.matches("<svg").count(), 14);
    for outside in ["http:", "https:", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "the page needs {outside}");
    }
    assert!(page.contains("layers.1.feed_forward.up.weight"));
    assert_same("diff_json", &shape(&bench.json(&["diff", "a", "c", "--base", "base", "--json"])));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    copy(&bench, "qwen2", "qwen2");
    copy(&bench, "mixtral", "mixtral");
    with_tensors(&bench, "nan", |tensors| {
        change(tensors, UP, |i, value| if i == 32 * 5 + 3 { f32::NAN } else { value });
    });
    with_tensors(&bench, "infinite", |tensors| {
        change(tensors, "model.norm.weight", |i, value| if i == 7 { f32::INFINITY } else { value });
    });
    copy(&bench, "llama", "shallow");
    edit_config(&bench, "shallow", |config| {
        config.insert("num_hidden_layers".into(), 2.into());
    });
    edit_tensors(&bench, "shallow", |tensors| tensors.retain(|name, _| !name.starts_with("model.layers.2.")));
    copy(&bench, "llama", "narrow");
    edit_config(&bench, "narrow", |config| {
        config.insert("intermediate_size".into(), 32.into());
    });
    edit_tensors(&bench, "narrow", |tensors| {
        for layer in 0..3 {
            for (projection, shape) in [("gate", [32, 32]), ("up", [32, 32]), ("down", [32, 32])] {
                let name = format!("model.layers.{layer}.mlp.{projection}_proj.weight");
                let values = tensors[&name].values()[..32 * 32].to_vec();
                tensors.insert(name, Stored::f32(&shape, &values));
            }
        }
    });
    assert_same(
        "diff_refused",
        &bench.refuse_all(&[
            &["diff", "model"],
            &["diff", "model", "no-such-model"],
            &["diff", "model", "shallow"],
            &["diff", "model", "narrow"],
            &["diff", "model", "mixtral"],
            &["diff", "mixtral", "model"],
            &["diff", "model", "model", "--base", "shallow"],
            &["diff", "model", "nan"],
            &["diff", "nan", "model", "--out", "nan.html"],
            &["diff", "model", "model", "--base", "infinite"],
            &["diff", "model", "model", "--out", "no-such-folder/diff.html"],
        ]),
    );
}
