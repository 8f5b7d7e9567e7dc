//! Inputs that cannot be merged: one sentence, a hint, exit code 2, and nothing left behind.

use std::fs;

use serde_json::json;

use super::{moved, weights};
use crate::bench::{Bench, assert_same};
use crate::models::{copy, edit_config, edit_tensors};
use crate::tensors::Stored;

fn bench() -> Bench {
    let bench = Bench::new();
    copy(&bench, "llama", "base");
    moved(&bench, "a", 1, 0.1);
    moved(&bench, "b", 2, 0.1);
    bench
}

/// What is said of each configuration.
fn refused(bench: &Bench, configurations: &[(&str, &str)]) -> String {
    let files: Vec<String> = configurations
        .iter()
        .map(|(name, yaml)| {
            let file = format!("{name}.yaml");
            bench.write(&file, yaml);
            file
        })
        .collect();
    let commands: Vec<[&str; 4]> = files.iter().map(|file| ["merge", file, "--out", "out"]).collect();
    let commands: Vec<&[&str]> = commands.iter().map(<[&str; 4]>::as_slice).collect();
    bench.refuse_all(&commands)
}

#[test]
fn configurations() {
    let bench = bench();
    let ties = |parameters: &str| {
        format!("merge_method: ties\nbase_model: base\nmodels:\n  - model: a\n    parameters: {{{parameters}}}\n")
    };
    let slices = |range: &str| {
        format!("merge_method: passthrough\nslices:\n  - sources: [{{model: a, layer_range: {range}}}]\n")
    };
    let said = refused(
        &bench,
        &[
            (
                "name-for-filter",
                "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters:\n  t:\n    \
                 - name: self_attn\n      value: 0.9\n    - value: 0.1\n",
            ),
            ("misspelt-key", "merge_method: linear\nmodel: [{model: a}]\n"),
            ("method", "merge_method: dare-ties\nmodels: [{model: a}]\n"),
            (
                "sum-of-weights",
                "merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: 1}}\n  - {model: b, parameters: \
                 {weight: -1}}\n",
            ),
            ("no-density", &ties("weight: 1, density: 0")),
            ("much-density", &ties("weight: 1, density: 1.5")),
            ("no-weight", &ties("density: 0.5")),
            ("no-base", "merge_method: ties\nmodels: [{model: a}]\nparameters: {weight: 1}\n"),
            ("layers", &slices("[1, 4]")),
            ("no-layers", &slices("[2, 2]")),
            ("two-revisions", "merge_method: linear\nmodels: [{model: a@b@c}]\nparameters: {weight: 1}\n"),
            ("missing-model", "merge_method: linear\nmodels: [{model: a}, {model: ./none}]\nparameters: {weight: 1}\n"),
            ("integers", "merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: 1}\ndtype: int64\n"),
            ("not-yaml", "merge_method: [linear\n"),
        ],
    );
    assert_same("merge_configurations", &said);
}

#[test]
fn flags() {
    let bench = bench();
    bench.write("merge.yaml", "{merge_method: linear, models: [{model: a}, {model: b}], parameters: {weight: 1}}");
    assert_same(
        "merge_flags",
        &bench.refuse_all(&[
            &["merge", "merge.yaml", "--out", "a"],
            &["merge", "none.yaml", "--out", "out"],
            &["merge", "merge.yaml", "--out", "out", "--dtype", "q8_0"],
            &["merge", "merge.yaml", "--out", "out", "--dtype", "float64"],
            &["merge", "merge.yaml", "--out", "none/out"],
            &["merge", "linear", "a", "b", "--weights", "1,2,3", "--out", "out"],
            &["merge", "lora", "a", "none", "--out", "out"],
        ]),
    );
    for wrong in [
        &["merge", "merge.yaml"][..],
        &["merge", "--out", "out"],
        &["merge", "linear", "a", "--out", "out"],
        &["merge", "merge.yaml", "--out", "out", "--shard-size", "0"],
        &["merge", "merge.yaml", "--out", "out", "--shard-size", "5XB"],
    ] {
        bench.refuse(wrong);
    }
}

#[test]
fn damaged_models() {
    let bench = bench();
    let whole = fs::read(bench.path("a/model.safetensors")).unwrap();
    copy(&bench, "llama", "cut");
    bench.write("cut/model.safetensors", &whole[..whole.len() - 100]);

    bench.succeed(&["merge", "linear", "a", "b", "--shard-size", "60KB", "--out", "sharded"]);
    for folder in ["lost", "wrong-index"] {
        fs::create_dir(bench.path(folder)).unwrap();
        for entry in fs::read_dir(bench.path("sharded")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), bench.path(folder).join(entry.file_name())).unwrap();
        }
    }
    fs::remove_file(bench.path("lost/model-00002-of-00003.safetensors")).unwrap();
    let index = fs::read_to_string(bench.path("wrong-index/model.safetensors.index.json")).unwrap();
    let norm = "\"model.norm.weight\": \"model-0000";
    let place = index.find(norm).unwrap() + norm.len();
    let other = if &index[place..=place] == "3" { "1" } else { "3" };
    let wrong = format!("{}{other}{}", &index[..place], &index[place + 1..]);
    bench.write("wrong-index/model.safetensors.index.json", wrong);

    copy(&bench, "llama", "not-a-number");
    edit_tensors(&bench, "not-a-number", |tensors| {
        let up = tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap();
        let mut values = up.values();
        values[3 * 32 + 7] = f32::NAN;
        *up = Stored::f32(&up.shape, &values);
    });
    copy(&bench, "llama", "more-tokens");
    edit_config(&bench, "more-tokens", |config| {
        config.insert("vocab_size".into(), 130.into());
    });
    edit_tensors(&bench, "more-tokens", |tensors| {
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            let values = [tensors[name].values(), vec![0.5; 64]].concat();
            tensors.insert(name.into(), Stored::f32(&[130, 32], &values));
        }
    });
    copy(&bench, "qwen2", "other-architecture");
    for folder in ["counted", "counted-otherwise"] {
        mystery(&bench, folder, if folder == "counted" { 4 } else { 5 });
    }
    let merge = |model: &'static str| ["merge", "linear", "a", model, "--out", "out"];
    let commands = ["cut", "lost", "wrong-index", "not-a-number", "more-tokens", "other-architecture"].map(merge);
    let mut commands: Vec<&[&str]> = commands.iter().map(<[&str; 6]>::as_slice).collect();
    let counted = ["merge", "linear", "counted", "counted-otherwise", "--out", "out"];
    let tokens = ["merge", "linear", "a", "b", "--out", "out"];
    commands.push(&counted);
    assert_same("merge_damaged_models", &bench.refuse_all(&commands));
    bench.succeed(&tokens);

    // Where they are allowed, numbers that are none are merged like others.
    bench.succeed(&["merge", "linear", "a", "not-a-number", "--allow-nonfinite", "--out", "allowed"]);
    let values = weights(&bench, "allowed")["model.layers.1.mlp.up_proj.weight"].values();
    let places: Vec<usize> = (0..values.len()).filter(|i| values[*i].is_nan()).collect();
    assert_eq!(places, [3 * 32 + 7]);

    // Buffers that are equal are copied.
    bench.succeed(&["merge", "linear", "counted", "counted", "--out", "counted-twice"]);
    assert_eq!(weights(&bench, "counted-twice")["positions"].ids(), [0, 1, 2, 3, 4]);
}

/// A model of an architecture that lathe does not run, with a buffer of integers, the last of them `last`.
fn mystery(bench: &Bench, folder: &str, last: i64) {
    let header = json!({
        "positions": {"dtype": "I64", "shape": [5], "data_offsets": [0, 40]},
        "layers.0.weight": {"dtype": "F32", "shape": [2], "data_offsets": [40, 48]},
    });
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    [0, 1, 2, 3, last].iter().for_each(|x: &i64| file.extend_from_slice(&x.to_le_bytes()));
    [0.5f32, 1.5].iter().for_each(|x| file.extend_from_slice(&x.to_le_bytes()));
    bench.write(&format!("{folder}/model.safetensors"), file);
    let config = json!({"model_type": "mystery", "architectures": ["MysteryForCausalLM"], "num_hidden_layers": 1});
    bench.write(&format!("{folder}/config.json"), config.to_string());
}

#[test]
fn results_that_nothing_could_open_are_refused_before_they_are_made() {
    let bench = bench();
    // Which layers have experts is a rule of the configuration, and layers were moved.
    copy(&bench, "qwen2_moe_sparse", "sparse");
    let stacked = "
merge_method: passthrough
slices:
  - sources: [{model: sparse, layer_range: [0, 2]}]
  - sources: [{model: sparse, layer_range: [1, 3]}]
";
    bench.write("stacked.yaml", stacked);
    // Frequencies that follow the length of the text have no place in a GGUF file.
    copy(&bench, "llama_dynamic", "dynamic");
    let said = bench.refuse_all(&[
        &["merge", "stacked.yaml", "--out", "out"],
        &["merge", "stacked.yaml", "--out", "out", "--resume"],
        &["merge", "linear", "dynamic", "dynamic", "--to", "gguf", "--out", "out"],
        &["merge", "linear", "a", "b", "--to", "gguf", "--dtype", "f64", "--out", "out"],
    ]);
    assert_same("merge_unloadable", &said);
    bench.succeed(&["merge", "linear", "dynamic", "dynamic", "--out", "out"]);
}
