//! Methods that act on whole tensors, and layers of several models one after the other.

use std::fs;

use serde_json::{Value, json};

use super::{
    Weights, assert_follows, assert_near, combination, cosine, depth, difference, json_of, merged, moved,
    moved_reading, numbers, weights,
};
use crate::bench::Bench;
use crate::models::{copy, edit_config, edit_tensors, fixture};
use crate::tensors::Stored;

/// Two models that differ much, and their weights.
fn two() -> (Bench, [Weights; 2]) {
    let bench = Bench::new();
    moved(&bench, "a", 1, 0.3);
    moved(&bench, "b", 2, 0.3);
    let both = ["a", "b"].map(|folder| weights(&bench, folder));
    (bench, both)
}

#[test]
fn linear_is_the_weighted_mean() {
    let (bench, [a, b]) = two();
    let yaml = "
merge_method: linear
models:
  - model: a
    parameters: {weight: [{filter: mlp, value: [3, 0.5]}, {value: 1}]}
  - model: b
    parameters: {weight: 0.25}
";
    let out = merged(&bench, yaml, "out", &[]);
    let weight = |name: &str| if name.contains("mlp") { 3.0 + depth(name) * (0.5 - 3.0) } else { 1.0 };
    assert_follows(&out, &[&a, &b], |name, inputs| {
        let weight = weight(name);
        combination(&[weight / (weight + 0.25), 0.25 / (weight + 0.25)], inputs)
    });
    // A parameter of other methods has no effect, which is said.
    let carried = format!("{yaml}parameters: {{density: 0.5}}\n");
    assert_eq!(merged(&bench, &carried, "carried", &[]), out);
    let notes = json_of(&bench, "carried/merge.json")["result"]["notes"].to_string();
    assert!(notes.contains("density has no effect: linear has no such parameter"), "{notes}");
    let raw = merged(&bench, &format!("{yaml}parameters: {{normalize: false}}\n"), "raw", &[]);
    assert_follows(&raw, &[&a, &b], |name, inputs| combination(&[weight(name), 0.25], inputs));

    bench.succeed(&["merge", "linear", "a", "b", "--weights", "0.7,0.3", "--out", "flags"]);
    assert_follows(&weights(&bench, "flags"), &[&a, &b], |_, inputs| combination(&[0.7, 0.3], inputs));
}

fn slerp(t: f64, a: &[f64], b: &[f64]) -> [f64; 2] {
    let cosine = cosine(a, b);
    if cosine.abs() > 0.9995 {
        return [1.0 - t, t];
    }
    let angle = cosine.acos();
    [((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()]
}

#[test]
fn slerp_goes_along_the_arc_of_each_tensor() {
    let bench = Bench::new();
    // Norms, which are about 1, are nearly parallel and take the straight line; matrices do not.
    moved(&bench, "a", 1, 0.02);
    moved(&bench, "b", 2, 0.02);
    let [a, b] = ["a", "b"].map(|folder| weights(&bench, folder));
    let yaml = "
merge_method: slerp
base_model: a
models: [{model: b}, {model: a}]
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3]
    - filter: mlp
      value: [1, 0]
    - value: 0.4
";
    let t = |name: &str| match depth(name) {
        depth if name.contains("self_attn") => [0.0, 0.5, 0.3][(2.0 * depth) as usize],
        depth if name.contains("mlp") => 1.0 - depth,
        _ => 0.4,
    };
    let out = merged(&bench, yaml, "out", &[]);
    assert_follows(&out, &[&a, &b], |name, inputs| combination(&slerp(t(name), &inputs[0], &inputs[1]), inputs));
    // Ends are the models themselves, whatever their order in the list.
    assert_eq!(out["model.layers.0.self_attn.q_proj.weight"], a["model.layers.0.self_attn.q_proj.weight"]);
    assert_eq!(out["model.layers.0.mlp.up_proj.weight"], b["model.layers.0.mlp.up_proj.weight"]);

    let lines = json_of(&bench, "out/merge.json")["remarks"].to_string();
    assert!(lines.contains("straight line instead of an arc"), "{lines}");
    bench.succeed(&["merge", "slerp", "a", "b", "--t", "0.4", "--out", "flags"]);
    assert_follows(&weights(&bench, "flags"), &[&a, &b], |_, inputs| {
        combination(&slerp(0.4, &inputs[0], &inputs[1]), inputs)
    });
}

#[test]
fn nearswap_moves_by_at_most_t() {
    let (bench, [a, b]) = two();
    let yaml = "{merge_method: nearswap, base_model: a, models: [{model: b}], parameters: {t: 0.05}}";
    let out = merged(&bench, yaml, "out", &[]);
    assert_follows(&out, &[&a, &b], |_, inputs| {
        let moved = |(a, b): (&f64, &f64)| match (b - a).abs() {
            0.0 => *a,
            distance => a + (0.05 / distance).min(1.0) * (b - a),
        };
        inputs[0].iter().zip(&inputs[1]).map(moved).collect()
    });
}

#[test]
fn model_stock_follows_the_angle_of_differences() {
    let bench = Bench::new();
    copy(&bench, "llama", "base");
    moved(&bench, "a", 1, 0.1);
    moved(&bench, "b", 3, 0.1);
    // Differences at an angle: c goes some of a's way.
    let yaml = "
merge_method: task_arithmetic
base_model: base
models:
  - {model: a, parameters: {weight: 0.7}}
  - {model: b, parameters: {weight: 0.5}}
";
    merged(&bench, yaml, "c", &[]);
    let [base, a, c] = ["base", "a", "c"].map(|folder| weights(&bench, folder));
    let yaml = "{merge_method: model_stock, base_model: base, models: [{model: a}, {model: c}]}";
    let out = merged(&bench, yaml, "out", &[]);
    assert_follows(&out, &[&base, &a, &c], |_, inputs| {
        let [a, c] = [1, 2].map(|i| difference(&inputs[i], &inputs[0]));
        let cosine = cosine(&a, &c);
        let t = (2.0 * cosine / (1.0 + cosine)).clamp(0.0, 1.0);
        combination(&[1.0 - t, t / 2.0, t / 2.0], inputs)
    });
}

#[test]
fn layers_of_two_models_are_stacked() {
    let bench = Bench::new();
    moved_reading(&bench, "a", 1, 0.02);
    moved_reading(&bench, "b", 2, 0.02);
    let [a, b] = ["a", "b"].map(|folder| weights(&bench, folder));
    let yaml = "
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources:
      - model: b
        layer_range: [1, 3]
        parameters: {scale: [{filter: o_proj, value: 0}, {filter: down_proj, value: [1, 0.5]}, {value: 1}]}
";
    let out = merged(&bench, yaml, "out", &[]);
    assert_eq!(out.len(), 3 + 4 * 9);
    for (name, tensor) in &out {
        let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
            // The embedding of the first slice; norm and head of the last one.
            let donor = if name.contains("embed") { &a } else { &b };
            assert_eq!(tensor, &donor[name], "{name}");
            continue;
        };
        match layer.parse::<usize>().unwrap() {
            layer @ (0 | 1) => assert_eq!(tensor, &a[&format!("model.layers.{layer}.{part}")], "{name}"),
            layer => {
                let scale = match part {
                    "self_attn.o_proj.weight" => 0.0,
                    "mlp.down_proj.weight" if layer == 3 => 0.5,
                    _ => 1.0,
                };
                let theirs = numbers(&b[&format!("model.layers.{}.{part}", layer - 1)]);
                assert_near(name, tensor, &theirs.iter().map(|x| scale * x).collect::<Vec<_>>());
            }
        }
    }
    assert_eq!(json_of(&bench, "out/config.json")["num_hidden_layers"], 4);
    let facts = bench.json(&["inspect", "out", "--load", "--json"]);
    assert_eq!(facts["layers"], 4, "{facts}");
    bench.succeed(&["generate", "out", "--prompt", "the sea", "--max-tokens", "4"]);
}

#[test]
fn what_a_configuration_lists_by_layer_follows_the_layers() {
    let bench = Bench::new();
    copy(&bench, "qwen2_windows", "a");
    copy(&bench, "qwen2_windows", "b");
    edit_config(&bench, "b", |config| {
        config.insert("layer_types".into(), json!(["sliding_attention", "sliding_attention", "full_attention"]));
    });
    let yaml = "
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [1, 3]}]
  - sources: [{model: a, layer_range: [2, 3]}]
";
    merged(&bench, yaml, "out", &[]);
    let config = json_of(&bench, "out/config.json");
    let [full, sliding] = ["full_attention", "sliding_attention"];
    assert_eq!(config["layer_types"], json!([full, sliding, sliding, full, sliding]));
    assert_eq!(config["num_hidden_layers"], 5);
    bench.succeed(&["inspect", "out", "--load"]);
}

#[test]
fn a_head_is_written_where_one_model_has_its_own() {
    let bench = Bench::new();
    copy(&bench, "llama", "untied");
    for tied in ["tied", "tied2"] {
        moved(&bench, tied, tied.len() as u64, 0.1);
        edit_config(&bench, tied, |config| {
            config.insert("tie_word_embeddings".into(), true.into());
        });
        edit_tensors(&bench, tied, |tensors| {
            tensors.remove("lm_head.weight").unwrap();
        });
    }
    let [untied, tied] = ["untied", "tied"].map(|folder| weights(&bench, folder));
    // Whichever comes first.
    for (order, out) in [(["tied", "untied"], "one"), (["untied", "tied"], "two")] {
        bench.succeed(&["merge", "linear", order[0], order[1], "--out", out]);
        let merged = weights(&bench, out);
        let half = [numbers(&untied["lm_head.weight"]), numbers(&tied["model.embed_tokens.weight"])];
        assert_near("lm_head.weight", &merged["lm_head.weight"], &combination(&[0.5, 0.5], &half));
        assert_eq!(json_of(&bench, &format!("{out}/config.json"))["tie_word_embeddings"], false);
        bench.succeed(&["inspect", out, "--load"]);
    }
    bench.succeed(&["merge", "linear", "tied", "tied2", "--out", "both"]);
    assert!(!weights(&bench, "both").contains_key("lm_head.weight"));
    assert_eq!(json_of(&bench, "both/config.json")["tie_word_embeddings"], true);
}

#[test]
fn gguf_goes_in_and_out() {
    let bench = Bench::new();
    moved_reading(&bench, "a", 1, 0.1);
    moved_reading(&bench, "b", 2, 0.1);
    bench.succeed(&["export", "a", "--to", "gguf", "--out", "a.gguf"]);
    bench.succeed(&["merge", "linear", "a", "b", "--weights", "0.7,0.3", "--out", "folders"]);
    bench.succeed(&["merge", "linear", "a.gguf", "b", "--weights", "0.7,0.3", "--out", "mixed"]);
    assert_eq!(weights(&bench, "folders"), weights(&bench, "mixed"));
    bench.succeed(&["merge", "linear", "a", "b", "--weights", "0.7,0.3", "--to", "gguf", "--out", "file"]);
    let read = |model: &str, out: &str| {
        bench.succeed(&["trace", model, "--ids", "5,9,77,3", "--take", "logits", "--out", out]);
        fs::read(bench.path(out)).unwrap()
    };
    assert!(read("folders", "folders.st") == read("file/model.gguf", "file.st"));
    assert!(bench.path("file/merge.yaml").exists() && !bench.path("file.partial").exists());
    let written = bench.json(&["inspect", "mixed", "--json"]);
    assert!(!written["tokenizer"].is_null(), "{written}");

    // What quantisation lost is said.
    bench.succeed(&["export", "a", "--to", "gguf", "--dtype", "q8_0", "--out", "q.gguf"]);
    bench.succeed(&["merge", "linear", "q.gguf", "b", "--out", "quantised"]);
    let manifest = json_of(&bench, "quantised/merge.json");
    let notes = manifest["result"]["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains("q.gguf is quantised")), "{notes:?}");
}

#[test]
fn a_merge_says_what_it_is_made_of_and_can_be_repeated() {
    let bench = Bench::new();
    moved_reading(&bench, "a", 1, 0.1);
    moved_reading(&bench, "b", 2, 0.1);
    let yaml = "
merge_method: dare_linear
base_model: a
models: [{model: b, parameters: {weight: 0.5, density: 0.5}}]
dtype: bfloat16
seed: 9
";
    bench.write("merge.yaml", yaml);
    let before = bench.files();
    let plan = bench.succeed(&["merge", "merge.yaml", "--dry-run"]);
    assert!(plan.contains("this is a dry run"), "{plan}");
    let summary = bench.json(&["merge", "merge.yaml", "--dry-run", "--json"]);
    assert_eq!(bench.files(), before);
    assert_eq!((&summary["method"], &summary["layers"]), (&json!("dare_linear"), &json!(3)));

    let result = bench.json(&["merge", "merge.yaml", "--out", "out", "--json"]);
    assert_eq!(result["tensors"], summary["tensors"]);
    let files: Vec<&str> =
        result["files"].as_array().unwrap().iter().map(|file| file["file"].as_str().unwrap()).collect();
    for file in ["README.md", "config.json", "merge.json", "merge.yaml", "model.safetensors", "tokenizer.json"] {
        assert!(files.contains(&file) && bench.path(&format!("out/{file}")).exists(), "{file} of {files:?}");
    }
    let out = weights(&bench, "out");
    assert!(out.values().all(|tensor| tensor.dtype == "BF16"));
    assert_eq!(json_of(&bench, "out/config.json")["torch_dtype"], "bfloat16");

    // The manifest has the hashes of what was read; the card has the configuration.
    let manifest = json_of(&bench, "out/merge.json");
    let inputs = manifest["inputs"].as_array().unwrap();
    let hash = |input: &Value| {
        let files = input["files"].as_array().unwrap();
        let of_weights = files.iter().find(|file| file["file"] == "model.safetensors").unwrap();
        assert_eq!(of_weights["bytes"], fs::metadata(bench.path("a/model.safetensors")).unwrap().len());
        of_weights["blake3"].as_str().unwrap().to_owned()
    };
    assert!(hash(&inputs[0]).len() == 64 && hash(&inputs[0]) != hash(&inputs[1]));
    assert_eq!(manifest["seed"], 9);
    let card = fs::read_to_string(bench.path("out/README.md")).unwrap();
    let config = fs::read_to_string(bench.path("out/merge.yaml")).unwrap();
    assert!(card.starts_with("---\n") && card.contains(&config) && card.contains("merge_method: dare_linear"));

    bench.succeed(&["merge", "out/merge.yaml", "--out", "again"]);
    assert_eq!(weights(&bench, "again"), out);
    for file in ["merge.yaml", "config.json"] {
        let [one, two] = ["out", "again"].map(|folder| fs::read(bench.path(&format!("{folder}/{file}"))).unwrap());
        assert!(one == two, "{file}");
    }
}

#[test]
fn results_are_rounded_once() {
    let (bench, [a, b]) = two();
    for (model, half) in [("a", "a-half"), ("b", "b-half")] {
        bench.succeed(&["merge", "linear", model, model, "--dtype", "bfloat16", "--out", half]);
    }
    let halves = ["a-half", "b-half"].map(|folder| weights(&bench, folder));
    let rounded = |x: f64| {
        let bits = (x as f32).to_bits();
        f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    };
    let widened = |tensor: &Stored| -> Vec<f64> {
        let halves = tensor.bytes.chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap()));
        halves.map(|half| f64::from(f32::from_bits(u32::from(half) << 16))).collect()
    };
    for (whole, half) in [(&a, &halves[0]), (&b, &halves[1])] {
        for (name, tensor) in half {
            let expected: Vec<f64> = numbers(&whole[name]).into_iter().map(rounded).collect();
            assert!(widened(tensor) == expected, "{name}");
        }
    }
    // Stored as the first model is; the sum is rounded, not what goes into it.
    bench.succeed(&["merge", "linear", "a-half", "b-half", "--weights", "3,1", "--out", "out"]);
    for (name, tensor) in &weights(&bench, "out") {
        assert_eq!(tensor.dtype, "BF16");
        // Both products are exact: 3/4 and 1/4 of numbers with eight digits.
        let exact = combination(&[0.75, 0.25], &[widened(&halves[0][name]), widened(&halves[1][name])]);
        assert!(widened(tensor) == exact.into_iter().map(rounded).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn paths_count_from_the_configuration() {
    let bench = Bench::new();
    moved(&bench, "models/a", 1, 0.1);
    moved(&bench, "b", 2, 0.1);
    // A model of the same name where the program runs is another one.
    moved(&bench, "a", 3, 0.1);
    let yaml =
        "{merge_method: linear, models: [{model: a}, {model: ../b}, {model: models/a}], parameters: {weight: 1}}";
    bench.write("models/merge.yaml", yaml);
    // A name that a shell has completed.
    bench.succeed(&["merge", "models/merge.yaml", "--shard-size", "60KB", "--out", "out/"]);
    assert!(!bench.path("out/.partial").exists() && !bench.path("out.partial").exists());
    let [a, b] = ["models/a", "b"].map(|folder| weights(&bench, folder));
    assert_follows(&weights(&bench, "out"), &[&a, &b], |_, inputs| combination(&[2.0 / 3.0, 1.0 / 3.0], inputs));
    // Files of several shards are read like one.
    bench.succeed(&["merge", "linear", "out", "b", "--weights", "1,0", "--out", "same"]);
    assert_eq!(weights(&bench, "same"), weights(&bench, "out"));
}

#[test]
fn every_architecture_merges_with_itself() {
    let mut names: Vec<String> =
        fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| fixture(name).join("config.json").exists());
    assert!(names.len() > 30);
    for name in &names {
        let bench = Bench::new();
        copy(&bench, name, "model");
        bench.succeed(&["merge", "linear", "model", "model", "--out", "out"]);
        assert_eq!(weights(&bench, "model"), weights(&bench, "out"), "{name}");
    }
}
