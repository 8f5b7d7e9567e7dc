//! Recipes without a configuration file: residuals and adapters.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{assert_follows, assert_near, combination, json_of, moved_reading, numbers, weights};
use crate::bench::Bench;
use crate::models::{edit_config, edit_tensors};
use crate::tensors::{self, Stored};

/// What was printed.
fn residual(bench: &Bench, [base, instruct, updated]: [&str; 3], out: &str, more: &[&str]) -> String {
    let arguments = ["merge", "residual", "--base", base, "--instruct", instruct, "--updated", updated, "--out", out];
    bench.succeed(&[&arguments[..], more].concat())
}

#[test]
fn a_residual_restores_what_an_update_lost() {
    let bench = Bench::new();
    for (model, seed) in [("base", 1), ("instruct", 2), ("updated", 3)] {
        moved_reading(&bench, model, seed, 0.1);
    }
    edit_config(&bench, "updated", |config| {
        config.insert("max_position_embeddings".into(), 99.into());
    });
    let template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}";
    let mut tokenizer = json_of(&bench, "instruct/tokenizer_config.json");
    tokenizer["chat_template"] = template.into();
    bench.write("instruct/tokenizer_config.json", tokenizer.to_string());

    let said = residual(&bench, ["base", "instruct", "updated"], "out", &[]);
    // How long residual and update are, and their angle: all layers, and each.
    let table: Vec<&str> = said.lines().skip_while(|line| !line.trim_start().starts_with("layer ")).skip(2).collect();
    assert!(
        ["all", "0", "1", "2"].iter().all(|layer| table.iter().any(|row| row.trim_start().starts_with(layer))),
        "{said}"
    );
    let said = residual(&bench, ["base", "instruct", "updated"], "half", &["--scale", "0.5", "--json"]);
    let said: Value = serde_json::from_str(&said).expect("one JSON object");
    let layers = said["residual"].as_array().expect("a list of layers");
    assert_eq!(layers.len(), 4, "{said}");
    assert!(layers.iter().all(|layer| layer["cosine"]["value"].is_f64() && layer["residual"]["value"].is_f64()));
    assert_eq!(said["method"], "task_arithmetic");
    let [base, instruct, updated] = ["base", "instruct", "updated"].map(|model| weights(&bench, model));
    for (out, scale) in [("out", 1.0), ("half", 0.5)] {
        assert_follows(&weights(&bench, out), &[&base, &instruct, &updated], |_, inputs| {
            combination(&[-scale, scale, 1.0], inputs)
        });
    }
    assert_eq!(json_of(&bench, "out/config.json")["max_position_embeddings"], 99);
    assert_eq!(fs::read_to_string(bench.path("out/chat_template.jinja")).unwrap(), template);
    bench.succeed(&["generate", "out", "--prompt", "the sea", "--chat", "--max-tokens", "2"]);

    let manifest = json_of(&bench, "half/merge.json");
    assert_eq!(manifest["recipe"], json!({"config": 0, "template": 1, "missing": "zero"}));
    let card = fs::read_to_string(bench.path("out/README.md")).unwrap();
    assert!(card.contains("- config comes from updated\n- the chat template comes from instruct\n"), "{card}");

    // Nothing was learnt, or nothing was tuned: exactly one of the models.
    moved_reading(&bench, "copy", 1, 0.1);
    residual(&bench, ["base", "instruct", "copy"], "instruct-again", &[]);
    assert_eq!(weights(&bench, "instruct-again"), instruct);
    residual(&bench, ["base", "copy", "updated"], "updated-again", &[]);
    assert_eq!(weights(&bench, "updated-again"), updated);
}

#[test]
fn tokens_that_only_the_instruct_model_has_are_carried_over() {
    let bench = Bench::new();
    for (model, seed) in [("base", 1), ("instruct", 2), ("updated", 3)] {
        moved_reading(&bench, model, seed, 0.1);
    }
    let mut tokenizer = json_of(&bench, "instruct/tokenizer.json");
    let added = json!({"id": 128, "content": "<|turn|>", "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
    bench.write("instruct/tokenizer.json", tokenizer.to_string());
    edit_config(&bench, "instruct", |config| {
        config.insert("vocab_size".into(), 129.into());
    });
    let new_row: Vec<f32> = (0..32).map(|i| i as f32 / 8.0).collect();
    edit_tensors(&bench, "instruct", |tensors| {
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            let tensor = tensors.get_mut(name).unwrap();
            *tensor = Stored::f32(&[129, 32], &[tensor.values(), new_row.clone()].concat());
        }
    });
    residual(&bench, ["base", "instruct", "updated"], "out", &[]);
    let [base, instruct, updated, out] = ["base", "instruct", "updated", "out"].map(|model| weights(&bench, model));
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (kept, last) = (128 * 32, numbers(&out[name]).split_off(128 * 32));
        assert_eq!(last, new_row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), "{name}");
        let first = |tensor: &Stored| numbers(tensor)[..kept].to_vec();
        let expected = combination(&[-1.0, 1.0, 1.0], &[&base, &instruct, &updated].map(|model| first(&model[name])));
        assert_near(name, &Stored::f32(&[128, 32], &out[name].values()[..kept]), &expected);
    }
    assert_eq!(json_of(&bench, "out/config.json")["vocab_size"], 129);
    let added = json_of(&bench, "out/tokenizer.json")["added_tokens"].to_string();
    assert!(added.contains("<|turn|>"), "{added}");
    bench.succeed(&["inspect", "out", "--load"]);
}

/// `W + s · B · A`
fn adapted(weights: &[f64], a: &[f64], b: &[f64], rank: usize, scale: f64) -> Vec<f64> {
    let (outputs, inputs) = (b.len() / rank, a.len() / rank);
    let product = |o: usize, i: usize| (0..rank).map(|r| b[o * rank + r] * a[r * inputs + i]).sum::<f64>();
    (0..outputs * inputs).map(|at| weights[at] + scale * product(at / inputs, at % inputs)).collect()
}

#[test]
fn an_adapter_is_added_to_its_matrices() {
    let bench = Bench::new();
    moved_reading(&bench, "model", 1, 0.1);
    let changed = ["model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"];
    let mut adapter = BTreeMap::new();
    for (number, (module, [outputs, inputs])) in changed.into_iter().zip([[32, 32], [32, 64]]).enumerate() {
        let matrix = |seed: u64, shape: [usize; 2]| {
            let count = (shape[0] * shape[1]) as u64;
            let values: Vec<f32> = (0..count).map(|i| 0.1 * super::noise(seed, i)).collect();
            Stored::f32(&shape, &values)
        };
        let name = |factor: &str| format!("base_model.model.{module}.lora_{factor}.weight");
        adapter.insert(name("A"), matrix(10 + number as u64, [4, inputs]));
        adapter.insert(name("B"), matrix(20 + number as u64, [outputs, 4]));
    }
    fs::create_dir(bench.path("adapter")).unwrap();
    tensors::write(&bench.path("adapter/adapter_model.safetensors"), &adapter);
    let config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"],
                        "base_model_name_or_path": "model", "bias": "none", "task_type": "CAUSAL_LM"});
    bench.write("adapter/adapter_config.json", config.to_string());

    bench.succeed(&["merge", "lora", "model", "adapter", "--out", "out"]);
    let [model, out] = ["model", "out"].map(|folder| weights(&bench, folder));
    for (name, tensor) in &out {
        match changed.iter().find(|module| name.starts_with(**module)) {
            Some(module) => {
                let factor =
                    |factor: &str| numbers(&adapter[&format!("base_model.model.{module}.lora_{factor}.weight")]);
                assert_near(name, tensor, &adapted(&numbers(&model[name]), &factor("A"), &factor("B"), 4, 1.5));
            }
            None => assert_eq!(tensor, &model[name], "{name}"),
        }
    }
    let inputs = json_of(&bench, "out/merge.json")["inputs"][0]["files"].to_string();
    assert!(inputs.contains("adapter_model.safetensors"), "{inputs}");

    // The same where a configuration names the adapter behind the model.
    let yaml = "{merge_method: linear, models: [{model: model+adapter, parameters: {weight: 1}}]}";
    assert_eq!(super::merged(&bench, yaml, "yaml", &[]), out);
}

#[test]
fn an_adapter_of_full_rank_is_the_whole_difference() {
    let bench = Bench::new();
    moved_reading(&bench, "base", 1, 0.1);
    moved_reading(&bench, "tuned", 1, 0.1);
    super::move_numbers(&bench, "tuned", 5, 0.05);
    let result = bench.json(&["merge", "extract", "base", "tuned", "--rank", "64", "--out", "adapter", "--json"]);
    assert_eq!(result["matrices"], 3 * 7);
    let kept = result["kept"].as_f64().unwrap();
    assert!((kept - 1.0).abs() < 1e-9, "{kept}");
    bench.succeed(&["merge", "lora", "base", "adapter", "--out", "again"]);
    let [tuned, again] = ["tuned", "again"].map(|folder| weights(&bench, folder));
    assert_follows(&again, &[&tuned], |_, inputs| inputs[0].clone());

    // A smaller one holds less, and says how much.
    let less: Value = bench.json(&["merge", "extract", "base", "tuned", "--rank", "4", "--out", "small", "--json"]);
    let kept = less["kept"].as_f64().unwrap();
    assert!(kept > 0.2 && kept < 0.9, "{kept}");
    bench.refuse(&["merge", "extract", "base", "base", "--out", "none"]);
    bench.refuse(&["merge", "extract", "base", "tuned", "--rank", "0", "--out", "none"]);
}
