//! `lathe measure tokens` over checkpoints of runs: numbers computed a second time, interruption, what is refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::measure::losses;
use crate::models::{Start, edit_tensors, reading, reading_less};
use crate::tensors;

const TEXT: &str = "the sea is old, and the sand is white; one heron stands in it";

/// Two weight decays, two seeds, three steps each: the fixture with its weights scaled.
const RUNS: [(&str, f64, u64); 4] = [("0", 0.0, 1), ("0", 0.0, 2), ("1", 1.0, 1), ("1", 1.0, 2)];
const STEPS: [u64; 3] = [0, 100, 400];

fn bench() -> Bench {
    let bench = Bench::new();
    let mut lines = String::new();
    for (label, weight_decay, seed) in RUNS {
        for (place, step) in STEPS.into_iter().enumerate() {
            let name = format!("m{label}-{seed}-{step}");
            reading(&bench, &name, 64, Start::Token);
            let factor = 0.2 + place as f64 * (0.4 - 0.15 * weight_decay) + 0.02 * seed as f64;
            edit_tensors(&bench, &name, |stored| {
                let scaled = |(name, stored): (String, tensors::Stored)| {
                    let values: Vec<f32> =
                        stored.values().iter().map(|value| (f64::from(*value) * factor) as f32).collect();
                    (name, tensors::Stored::f32(&stored.shape, &values))
                };
                *stored = std::mem::take(stored).into_iter().map(scaled).collect();
            });
            let line = json!({"model": name, "weight_decay": weight_decay, "seed": seed, "step": step});
            lines += &format!("{line}\n");
        }
    }
    bench.write("runs.jsonl", lines);
    bench.write(
        "train.jsonl",
        format!("{{\"text\": \"{TEXT}\"}}\n{{\"text\": \"the tide and the wind are in the land\"}}\n"),
    );
    bench.write("test.jsonl", "{\"text\": \"a heron in the wind\"}\n{\"text\": \"one old land, and a sea\"}\n");
    bench
}

const USUAL: [&str; 9] =
    ["measure", "tokens", "--runs", "runs.jsonl", "--training", "train.jsonl", "--held-out", "test.jsonl", "--json"];

fn number(value: &Value) -> f64 {
    value["value"].as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} instead of {expected}");
}

#[test]
fn runs_are_what_single_models_are() {
    let bench = bench();
    let result = bench.json(&USUAL);
    let runs = result["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    for (run, (label, weight_decay, seed)) in runs.iter().zip(RUNS) {
        assert_eq!(run["name"], format!("weight decay {weight_decay}, seed {seed}"));
        assert_eq!((run["weight_decay"].as_f64(), run["step"].as_u64()), (Some(weight_decay), Some(400)));
        let model = format!("m{label}-{seed}-400");
        for (side, file) in [("training", "train.jsonl"), ("held_out", "test.jsonl")] {
            let alone = bench.json(&["measure", "tokens", &model, file, "--counts", "train.jsonl", "--json"]);
            assert_eq!(run[side]["report"], alone["report"], "{model} on {file}");
            let last = run[side]["curve"].as_array().unwrap().last().unwrap();
            assert_eq!(last["step"].as_u64(), Some(400));
            assert_close(number(&last["macro_nll"]), number(&alone["report"]["types"]["macro_nll"]["value"]), 1e-12);
            assert_eq!(last["low"]["types"], alone["report"]["types"]["split"]["low_types"]);
        }
    }
    // Over seeds.
    let decays = result["decays"].as_array().unwrap();
    assert_eq!(decays.iter().map(|decay| decay["name"].as_str().unwrap()).collect::<Vec<_>>(), ["0", "1"]);
    let of = |run: usize| number(&runs[run]["training"]["report"]["types"]["macro_nll"]["value"]);
    let spread = &decays[1]["training"]["macro_nll"];
    assert_close(number(&spread["mean"]), (of(2) + of(3)) / 2.0, 1e-12);
    assert_close(number(&spread["sd"]), (of(2) - of(3)).abs() / 2f64.sqrt(), 1e-12);
    assert_close(number(&spread["least"]), of(2).min(of(3)), 0.0);
    // Counts are of the training targets, whatever is scored.
    let counted: u64 = result["counts"]["tokens"].as_u64().unwrap();
    assert_eq!(counted, runs[0]["training"]["report"]["types"]["tokens"].as_u64().unwrap());
    assert!(!result["theory"].as_array().unwrap().is_empty());
}

#[test]
fn learning_speed_is_that_of_the_formula() {
    let bench = bench();
    bench.write("one.txt", TEXT);
    let labels = |step: u64| format!("weight_decay=0,seed=1,step={step},model=m0-1-{step}");
    let labels = STEPS.map(labels);
    let result = bench.json(&[
        "measure",
        "tokens",
        "--checkpoint",
        &labels[2],
        "--checkpoint",
        &labels[0],
        "--checkpoint",
        &labels[1],
        "--training",
        "one.txt",
        "--json",
    ]);
    let mut curves = BTreeMap::<i64, Vec<f64>>::new();
    for step in STEPS {
        let model = format!("m0-1-{step}");
        bench.succeed(&["trace", &model, "--text", TEXT, "--take", "logits", "--out", "t.safetensors"]);
        let trace = tensors::read(&bench.path("t.safetensors"));
        std::fs::remove_file(bench.path("t.safetensors")).unwrap();
        let mut of_type = BTreeMap::<i64, Vec<f64>>::new();
        for (target, loss) in trace["input_ids"].ids()[1..].iter().zip(losses(&trace)) {
            of_type.entry(*target).or_default().push(loss);
        }
        for (id, losses) in of_type {
            curves.entry(id).or_default().push(losses.iter().sum::<f64>() / losses.len() as f64);
        }
    }
    let speed = |curve: &Vec<f64>| {
        let (low, high) =
            (curve.iter().copied().fold(f64::MAX, f64::min), curve.iter().copied().fold(f64::MIN, f64::max));
        let q: Vec<f64> = curve.iter().map(|loss| (loss - low) / (high - low)).collect();
        1.0 - (0.25 * (q[0] + q[1]) / 2.0 + 0.75 * (q[1] + q[2]) / 2.0)
    };
    let expected = curves.values().map(speed).sum::<f64>() / curves.len() as f64;
    let all = &result["runs"][0]["training"]["speed"]["all"];
    assert_eq!(all["types"].as_u64(), Some(curves.len() as u64));
    assert_close(number(&all["speed"]), expected, 1e-4);
    let last = curves.values().map(|curve| curve[2]).sum::<f64>() / curves.len() as f64;
    assert_close(number(&all["final_nll"]), last, 1e-6);
    // No step 0, no speed, and it says so.
    let late = bench.json(&[
        "measure",
        "tokens",
        "--checkpoint",
        &labels[1],
        "--checkpoint",
        &labels[2],
        "--training",
        "one.txt",
        "--json",
    ]);
    assert_eq!(late["runs"][0]["training"]["speed"], Value::Null);
    assert!(late["notes"][0].as_str().unwrap().contains("step 0"), "{late}");
}

#[test]
fn the_table_and_the_page() {
    let bench = bench();
    let table = bench.succeed(&[&USUAL[..8], &["--page", "fair.html"]].concat());
    let without_time: String =
        table.lines().filter(|line| !line.starts_with("Forward passes")).map(|line| format!("{line}\n")).collect();
    assert_same("fairness", &without_time);
    let page = std::fs::read_to_string(bench.path("fair.html")).unwrap();
    for id in ["decay", "bins", "speed", "theory", "counts", "runs"] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    assert!(page.contains("class=\"band"), "bands over seeds");
    assert!(page.contains("balanced / average") && !page.contains("NaN"), "{page}");
    assert!(!page.contains("http://") && !page.contains("<script"), "self-contained");
}

#[test]
fn threads_and_interruptions_change_nothing() {
    let bench = bench();
    let arguments = |out: &'static str| [&USUAL[..], &["--out", out]].concat();
    let result = |mut value: Value| {
        value.as_object_mut().unwrap().remove("forward_seconds");
        value
    };
    let whole = result(bench.json(&[&arguments("whole.jsonl")[..], &["--threads", "1"]].concat()));
    bench.kill_after(&arguments("killed.jsonl"), "killed.jsonl.partial", 3);
    if bench.path("killed.jsonl.partial").exists() {
        let refused = bench.refuse(&[&arguments("killed.jsonl")[..], &["--seed", "9"]].concat());
        assert!(refused.contains("belongs to a run with other options"), "{refused}");
        assert_eq!(result(bench.json(&arguments("killed.jsonl"))), whole);
    }
    let read = |file: &str| std::fs::read_to_string(bench.path(file)).unwrap();
    assert_eq!(read("whole.jsonl"), read("killed.jsonl"));
    assert_eq!(read("whole.jsonl").lines().count(), 12);
    let refused = bench.refuse(&arguments("whole.jsonl"));
    assert!(refused.contains("whole.jsonl is there already"), "{refused}");
}

#[test]
fn part_of_the_texts() {
    let bench = bench();
    let few = bench.json(&[&USUAL[..], &["--tokens", "5"]].concat());
    assert_eq!((few["training"]["texts"].as_u64(), few["held_out"]["texts"].as_u64()), (Some(1), Some(1)));
    let all = bench.json(&USUAL);
    assert_eq!(few["counts"], all["counts"], "all training targets are counted");
    assert_eq!(all["training"]["texts"].as_u64(), Some(2));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let bench = bench();
    reading_less(&bench, "other", 64, 20);
    bench.write(
        "bad.jsonl",
        "{\"model\": \"m0-1-0\", \"weight_decay\": 0.1}\n{\"model\": \"m0-1-0\", \"decay\": 0.1}\n",
    );
    bench.write("none.jsonl", "\n");
    let all: Vec<Vec<&str>> = [
        &["weight_decay=0,model=m0-1-0", "weight_decay=0,seed=2,model=other"][..],
        &["weight_decay=0,model=m0-1-0", "weight_decay=-0,model=m0-1-100"],
        &["weight_decay=0,step=0,model=m0-1-0", "weight_decay=0,model=m0-1-100"],
        &["weight_decay=-1,model=m0-1-0"],
        &["seed=1,model=m0-1-0"],
        &["weight_decay=0.1,decay=2,model=m0-1-0"],
        &["weight_decay=much,model=m0-1-0"],
        &["weight_decay=0.1,m0-1-0"],
    ]
    .iter()
    .map(|labels| {
        let labels = labels.iter().flat_map(|labels| ["--checkpoint", labels]);
        ["measure", "tokens"].into_iter().chain(labels).chain(["--training", "train.jsonl"]).collect()
    })
    .collect();
    let files = [
        &["measure", "tokens", "--runs", "bad.jsonl", "--training", "train.jsonl"][..],
        &["measure", "tokens", "--runs", "none.jsonl", "--training", "train.jsonl"],
        &["measure", "tokens", "--runs", "gone.jsonl", "--training", "train.jsonl"],
        &["measure", "tokens", "--runs", "runs.jsonl", "--training", "gone.txt"],
        &["measure", "tokens", "--runs", "runs.jsonl", "--training", "train.jsonl", "--tokens", "0"],
        &["measure", "tokens", "--runs", "runs.jsonl", "--training", "train.jsonl", "--window", "1"],
        &["measure", "tokens", "--runs", "runs.jsonl"],
        &["measure", "tokens", "m0-1-0", "train.jsonl", "--held-out", "test.jsonl"],
        &["measure", "tokens", "m0-1-0", "test.jsonl", "--training", "train.jsonl"],
        &["measure", "tokens", "m0-1-0", "test.jsonl", "--runs", "runs.jsonl", "--training", "train.jsonl"],
    ];
    let commands: Vec<&[&str]> = all.iter().map(Vec::as_slice).chain(files).collect();
    assert_same("fairness_refused", &bench.refuse_all(&commands));
}

#[test]
fn held_out_texts_that_are_training_texts_are_said_so() {
    let bench = bench();
    let result = bench.json(&[
        "measure",
        "tokens",
        "--checkpoint",
        "weight_decay=0,model=m0-1-400",
        "--training",
        "train.jsonl",
        "--held-out",
        "train.jsonl",
        "--json",
    ]);
    assert!(result["notes"][0].as_str().unwrap().starts_with("2 of the held-out texts"), "{result}");
}

const EXPERIMENT: &str = r#"
title = "Decay"
about = "What does it do?"

[[step]]
name = "tokens"
[step.tune_tokenizer]
texts = { data = ["../train.jsonl"] }
vocab_size = 262
study = [258, 260]

[[step]]
name = "fairness"
[step.fairness]
training = { data = ["train.jsonl"] }
held_out = { data = ["test.jsonl"] }
checkpoints = [
  { model = "m0-1-0", variant = "tiny", weight_decay = 0, seed = 1, step = 0 },
  { model = "m0-1-400", variant = "tiny", weight_decay = 0, seed = 1, step = 400 },
  { model = "m0-2-0", variant = "tiny", weight_decay = 0, seed = 2, step = 0 },
  { model = "m0-2-400", variant = "tiny", weight_decay = 0, seed = 2, step = 400 },
  { model = "m1-1-0", variant = "tiny", weight_decay = 1, seed = 1, step = 0 },
  { model = "m1-1-400", variant = "tiny", weight_decay = 1, seed = 1, step = 400 },
  { for = { step = [0, 400] }, each = { model = "m1-2-{step}", variant = "tiny", weight_decay = 1, seed = 2, step = "{step}" } },
]

[[step]]
name = "alone {decay} {seed}"
for = { decay = ["0", "1"], seed = ["1", "2"] }
[step.measure_tokens]
model = "m{decay}-{seed}-400"
texts = { data = ["train.jsonl"] }
window = 64
seed = 0

[[figure]]
name = "balanced"
title = "Balanced"
fairness = "fairness"
panel = "balanced"

[[figure]]
name = "speed"
title = "Speed"
fairness = "fairness"
panel = "speed"
variant = "tiny"
side = "held_out"

[[figure]]
name = "by hand"
title = "By hand"
x = "λ"
y = "nats"
draw = "lines"
points = { 0 = 0, 1 = 1 }
seeds = ["1", "2"]
series = [{ name = "macro", step = "alone {point} {seed}", path = "report/types/macro_nll" }]

[[table]]
title = "Balanced"
steps = "fairness"
items = "decays"
columns = [["balanced", "training/macro_nll"], ["held-out", "held_out/macro_nll"]]
"#;

#[test]
fn steps_of_an_experiment() {
    let bench = bench();
    bench.write("e/small.toml", EXPERIMENT.replace("../train", "train"));
    let result = bench.json(&["run", "e/small.toml", "--json"]);
    assert_eq!(result["steps"].as_array().unwrap().len(), 6);
    let page = std::fs::read_to_string(bench.path("e/RESULTS.md")).unwrap();
    assert!(page.contains("| tiny 0 | ") && page.contains(" ["), "{page}");
    for (name, word) in [("balanced", "held-out"), ("speed", "λ = 1"), ("by hand", "macro")] {
        let figure = std::fs::read_to_string(bench.path(&format!("e/small-figures/{name}.svg"))).unwrap();
        assert!(figure.contains(word), "{name}: {figure}");
        assert!(figure.contains("class=\"band"), "{name} has no band: {figure}");
    }
    let again = bench.json(&["run", "e/small.toml", "--json"]);
    assert!(again["steps"].as_array().unwrap().iter().all(|step| step["cached"] == true), "{again}");
    // A tokenizer that was removed is learnt again.
    let files = bench.files();
    let folder = files.iter().find(|path| path.ends_with("tokenizer.json") && path.starts_with("e/out")).unwrap();
    std::fs::remove_dir_all(bench.path(folder.parent().unwrap().to_str().unwrap())).unwrap();
    let again = bench.json(&["run", "e/small.toml", "--json"]);
    assert_eq!(again["steps"][0]["cached"], false, "{again}");
}

/// A vocabulary, models from random weights, and what weight decay does to them: the whole way.
#[test]
fn from_texts_to_a_comparison() {
    let bench = Bench::new();
    let texts: String = (0..40)
        .map(|index| {
            let noun = ["hen", "tent", "river", "stone", "heron", "boat"][index % 6];
            format!("{{\"text\": \"the {noun} was in the sand, and the {noun} was old; number {index}\"}}\n")
        })
        .collect();
    bench.write("train.jsonl", texts);
    bench.write("test.jsonl", "{\"text\": \"the boat was in the river\"}\n{\"text\": \"and the hen was old\"}\n");
    bench.succeed(&["tune", "tokenizer", "--data", "train.jsonl", "--vocab-size", "280", "--out", "bpe"]);
    let config = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 280, "hidden_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "tie_word_embeddings": true,
    });
    bench.write("qwen2.json", config.to_string());
    let tune = |decay: &'static str, out: &'static str| {
        [
            "tune",
            "full",
            "--from-scratch",
            "qwen2.json",
            "--tokenizer",
            "bpe",
            "--data",
            "train.jsonl",
            "--steps",
            "6",
            "--lr",
            "1e-2",
            "--weight-decay",
            decay,
            "--save-at",
            "0,3",
            "--seed",
            "4",
            "--quiet",
            "--json",
            "--out",
            out,
        ]
    };
    for (decay, out) in [("0", "none"), ("2", "much")] {
        assert_eq!(bench.run(&tune(decay, out)).code, 0);
    }
    let arguments = [
        "measure",
        "tokens",
        "--tuned",
        "none",
        "--tuned",
        "much",
        "--training",
        "train.jsonl",
        "--held-out",
        "test.jsonl",
    ];
    let result = bench.json(&[&arguments[..], &["--json"]].concat());
    let runs = result["runs"].as_array().unwrap();
    let named: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["qwen2, weight decay 0, seed 4", "qwen2, weight decay 2, seed 4"]);
    for run in runs {
        let curve = run["training"]["curve"].as_array().unwrap();
        let steps: Vec<u64> = curve.iter().map(|point| point["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [0, 3, 6]);
        assert!(number(&curve[2]["micro_nll"]) < number(&curve[0]["micro_nll"]), "it learns");
        assert!(run["training"]["speed"]["all"]["speed"]["value"].as_f64().is_some());
    }
    // The same random weights, so the same first checkpoint.
    assert_eq!(runs[0]["training"]["curve"][0], runs[1]["training"]["curve"][0]);
    assert_ne!(runs[0]["training"]["curve"][2], runs[1]["training"]["curve"][2]);
    let refused = bench.refuse(&["measure", "tokens", "--tuned", "bpe", "--training", "train.jsonl"]);
    assert!(refused.contains("bpe is no folder of a training run"), "{refused}");
}
