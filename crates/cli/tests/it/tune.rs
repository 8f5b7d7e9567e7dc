//! `lathe tune`: models that are trained, adapters, runs that are killed and go on.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::{Start, copy, reading};
use crate::tensors;

/// Turns with names of roles as words, and the end token.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role + '\\n' + m.content + eos_token }}{% endfor %}\
                        {% if add_generation_prompt %}{{ 'assistant\\n' }}{% endif %}";

/// A model that reads text and talks.
fn talking(bench: &Bench, to: &str) {
    reading(bench, to, 64, Start::Nothing);
    bench.write(&format!("{to}/chat_template.jinja"), TEMPLATE);
}

fn chats(bench: &Bench, name: &str, shift: usize) {
    let words = ["the sea", "a stone", "an end", "sand", "of it"];
    let record = |i: usize| {
        let (ask, answer) = (words[(i + shift) % 5], words[(i * 2 + shift + 1) % 5]);
        json!({"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}).to_string()
    };
    bench.write(name, (0..10).map(record).collect::<Vec<_>>().join("\n"));
}

fn ids(bench: &Bench, name: &str) {
    let record = |i: u32| {
        let ids: Vec<u32> = (0..6 + i % 5).map(|t| (i * 17 + t * t * 3 + t) % 120 + 3).collect();
        json!({ "input_ids": ids }).to_string()
    };
    bench.write(name, (0..9).map(record).collect::<Vec<_>>().join("\n"));
}

fn metrics(bench: &Bench, out: &str) -> Vec<Value> {
    let text = fs::read_to_string(bench.path(out).join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn weights(bench: &Bench, out: &str) -> Vec<u8> {
    fs::read(bench.path(out).join("model.safetensors")).unwrap()
}

/// torch's AdamW on the same records, as tests/goldens/make_training.py ran it. Under autocast torch rounds logits and states
/// too, so that losses in bf16 agree to their rounding only.
#[test]
fn losses_are_those_of_torch() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/goldens/training.json")).unwrap();
    let bench = Bench::new();
    copy(&bench, "llama", "tiny");
    let records: Vec<String> = golden["records"].as_array().unwrap().iter().map(Value::to_string).collect();
    bench.write("ids.jsonl", records.join("\n"));
    for (index, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
        let out = format!("out{index}");
        let clip = case["clip"].as_f64().map_or("none".to_owned(), |clip| clip.to_string());
        let (lr, decay) = (case["lr"].to_string(), case["weight_decay"].to_string());
        let usual = ["tune", "full", "tiny", "--data", "ids.jsonl", "--steps", "8", "--batch", "2", "--quiet"];
        let control = ["--schedule", "constant", "--order", "file", "--clip", &clip, "--lr", &lr, "--out", &out];
        let decay = ["--weight-decay", &decay, "--decay-embeddings", "--decay-vectors"];
        let compute = case["compute"].as_str().unwrap();
        let tolerance = if compute == "f32" { 1e-4 } else { 2e-2 };
        bench.succeed(&[&usual[..], &control, &decay, &["--compute", compute]].concat());
        let lines = metrics(&bench, &out);
        let expected = case["losses"].as_array().unwrap();
        assert_eq!(lines.len(), expected.len());
        for (i, (line, expected)) in lines.iter().zip(expected).enumerate() {
            assert_eq!(line["step"], i + 1);
            let (found, expected) = (line["loss"].as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() < tolerance, "case {index}, step {}: {found} and {expected}", i + 1);
        }
    }
}

#[test]
fn a_chat_is_audited_and_learnt() {
    let bench = Bench::new();
    talking(&bench, "tiny");
    chats(&bench, "chats.jsonl", 0);
    chats(&bench, "held.jsonl", 0);
    let only = ["tune", "full", "tiny", "--data", "chats.jsonl", "--audit-only"];
    assert_same("tune_audit", &bench.succeed(&only));
    let audit = bench.json(&[&only[..], &["--json", "--out", "tuned"]].concat());
    assert_eq!((&audit["examples"], &audit["without_end"]), (&json!(10), &json!(0)));
    let result = bench.json(&[
        "tune",
        "full",
        "tiny",
        "--data",
        "chats.jsonl",
        "--steps",
        "30",
        "--batch",
        "5",
        "--lr",
        "0.01",
        "--warm-up",
        "2",
        "--schedule",
        "cosine",
        "--eval",
        "held.jsonl",
        "--eval-every",
        "10",
        "--out",
        "tuned",
        "--json",
    ]);
    let losses: Vec<f64> = result["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert!(losses.len() == 30 && losses[29] < 0.3 * losses[0], "{losses:?}");
    assert_eq!(result["looks"].as_array().unwrap().len(), 4);
    let lines = metrics(&bench, "tuned");
    assert_eq!((lines.len(), &lines[0]["step"], &lines[30]["step"]), (31, &json!(0), &json!(30)));
    assert!(
        lines[30]["watched"]["held"]["loss"].as_f64().unwrap() < lines[0]["watched"]["held"]["loss"].as_f64().unwrap()
    );
    let page = fs::read_to_string(bench.path("tuned/report.html")).unwrap();
    assert!(page.contains("30 steps, done") && page.contains("held: loss") && !page.contains("http-equiv=\"refresh\""));
    let saved: Value = serde_json::from_slice(&fs::read(bench.path("tuned/audit.json")).unwrap()).unwrap();
    assert_eq!(saved, audit);
    // It is a model like any other, and answers what it has learnt, end token included.
    let answer = bench.succeed(&[
        "generate",
        "tuned",
        "--prompt",
        "the sea",
        "--chat",
        "--temperature",
        "0",
        "--max-tokens",
        "20",
        "--quiet",
    ]);
    assert_eq!(answer.trim(), "a stone");
    // Nothing half done is left.
    assert!(bench.files().iter().all(|file| !file.display().to_string().contains(".partial")));
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let bench = Bench::new();
    copy(&bench, "llama", "tiny");
    ids(&bench, "ids.jsonl");
    let run = |out: &'static str| {
        vec![
            "tune",
            "full",
            "tiny",
            "--data",
            "ids.jsonl",
            "--steps",
            "400",
            "--batch",
            "2",
            "--lr",
            "1e-3",
            "--schedule",
            "cosine",
            "--weight-decay",
            "0.1",
            "--checkpoint-every",
            "7",
            "--quiet",
            "--out",
            out,
        ]
    };
    bench.succeed(&run("whole"));
    bench.kill_after(&run("killed"), "killed/metrics.jsonl", 30);
    assert!(!bench.path("killed/model.safetensors").exists(), "the run was over before it was killed");
    let again = [&run("killed")[..], &["--resume", "--threads", "1"]].concat();
    bench.succeed(&again);
    assert!(weights(&bench, "whole") == weights(&bench, "killed"));
    let losses = |out: &str| metrics(&bench, out).iter().map(|line| line["loss"].clone()).collect::<Vec<_>>();
    assert!(losses("whole") == losses("killed"));
    let kept: Vec<_> = fs::read_dir(bench.path("killed/checkpoints")).unwrap().collect();
    assert_eq!(kept.len(), 2);
    // A checkpoint opens like any other model.
    bench.succeed(&["inspect", "killed/checkpoints/step-400", "--quiet"]);
}

#[test]
fn an_adapter_is_trained_beside_frozen_weights_and_opens_with_them() {
    let bench = Bench::new();
    talking(&bench, "tiny");
    chats(&bench, "chats.jsonl", 0);
    let before = weights(&bench, "tiny");
    let run = |steps: &'static str, out: &'static str| {
        vec![
            "tune",
            "lora",
            "tiny",
            "--data",
            "chats.jsonl",
            "--steps",
            steps,
            "--batch",
            "5",
            "--lr",
            "0.02",
            "--rank",
            "4",
            "--dropout",
            "0.1",
            "--targets",
            "q_proj,v_proj,down_proj",
            "--out",
            out,
            "--json",
        ]
    };
    let result = bench.json(&run("40", "adapter"));
    let losses: Vec<f64> = result["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert!(losses[39] < 0.7 * losses[0], "{losses:?}");
    assert!(before == weights(&bench, "tiny"));
    let files: Vec<&str> = result["files"].as_array().unwrap().iter().map(|f| f["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors"]);
    bench.succeed(&["generate", "adapter", "--prompt", "the sea", "--chat", "--max-tokens", "5", "--quiet"]);
    // In two halves the same, factors and dropout included.
    bench.json(&run("15", "halves"));
    bench.json(&[&run("40", "halves")[..], &["--resume"]].concat());
    let factors = |out: &str| fs::read(bench.path(out).join("adapter_model.safetensors")).unwrap();
    assert!(factors("adapter") == factors("halves"));
    // Trained further it stays the adapter that it was, of the same base.
    let further = ["tune", "lora", "adapter", "--data", "chats.jsonl", "--steps", "10", "--lr", "0.01", "--json"];
    let result = bench.json(&[&further[..], &["--out", "further"]].concat());
    assert!(result["losses"][0].as_f64().unwrap() < 0.8 * losses[0], "{result}");
    bench.succeed(&["generate", "further", "--prompt", "the sea", "--max-tokens", "5", "--quiet"]);
    let said = bench.refuse(&[&further[..9], &["--rank", "8", "--out", "new"]].concat());
    assert!(said.contains("error: --rank: the adapter has 4, not 8"), "{said}");
    // In bf16 it is nearly the same, and says so.
    let arguments = run("15", "rounded");
    let said = bench.succeed(&[&arguments[..arguments.len() - 1], &["--compute", "bf16", "--quiet"]].concat());
    assert!(said.contains("computed in bf16"), "{said}");
    for (exact, rounded) in metrics(&bench, "halves").iter().zip(metrics(&bench, "rounded")) {
        let loss = |line: &Value| line["loss"].as_f64().unwrap();
        let difference = (loss(exact) - loss(&rounded)).abs();
        assert!(difference > 0.0 && difference < 0.1, "{difference} {exact} {rounded}");
    }
    assert!(factors("halves") != factors("rounded"));
    // Beside a quantised base too.
    bench.succeed(&["export", "tiny", "--to", "gguf", "--dtype", "q8_0", "--out", "tiny.gguf", "--quiet"]);
    let of_gguf = bench.json(&[
        "tune",
        "lora",
        "tiny.gguf",
        "--data",
        "chats.jsonl",
        "--steps",
        "3",
        "--lr",
        "0.01",
        "--out",
        "other",
        "--json",
    ]);
    assert_eq!(of_gguf["losses"].as_array().unwrap().len(), 3);
}

#[test]
fn a_model_from_random_weights() {
    let bench = Bench::new();
    reading(&bench, "words", 64, Start::Nothing);
    bench.write("config.json", fs::read(bench.path("words/config.json")).unwrap());
    bench.write("text.txt", "the sea and the land are one and the sand is of the sea ".repeat(12));
    let run = |out: &'static str, seed: &'static str| {
        vec![
            "tune",
            "full",
            "--from-scratch",
            "config.json",
            "--tokenizer",
            "words",
            "--data",
            "text.txt",
            "--overlong",
            "split",
            "--max-length",
            "32",
            "--steps",
            "25",
            "--batch",
            "4",
            "--lr",
            "0.01",
            "--seed",
            seed,
            "--keep",
            "0",
            "--save-at",
            "10",
            "--out",
            out,
            "--json",
        ]
    };
    let result = bench.json(&run("one", "1"));
    let losses: Vec<f64> = result["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    // Nothing is known of 128 tokens at first.
    assert!((losses[0] - 128f64.ln()).abs() < 0.2 && losses[24] < 0.6 * losses[0], "{losses:?}");
    assert!(!bench.path("one/checkpoints").exists());
    bench.json(&run("same", "1"));
    bench.json(&run("other", "2"));
    assert!(weights(&bench, "one") == weights(&bench, "same") && weights(&bench, "one") != weights(&bench, "other"));
    for model in ["one", "one/step-10"] {
        bench.succeed(&["generate", model, "--prompt", "the", "--max-tokens", "3", "--quiet"]);
    }
}

#[test]
fn tasks_of_an_experiment_are_watched() {
    let bench = Bench::new();
    talking(&bench, "tiny");
    chats(&bench, "chats.jsonl", 0);
    bench.write("text.txt", "the sea and a stone in the sand of it");
    bench.write(
        "watch.toml",
        "[[step]]\nname = \"text\"\nmeasure_tokens = { texts = { data = [\"text.txt\"] }, window = 32, seed = 0 }\n\
         [[step]]\nname = \"bits\"\nwatch = { \"a byte\" = \"report/text/bits_per_byte\" }\n\
         measure_tokens = { texts = { data = [\"text.txt\"] }, window = 32, seed = 0 }\n",
    );
    let run = ["tune", "full", "tiny", "--data", "chats.jsonl", "--steps", "4", "--lr", "0.003", "--quiet", "--out"];
    bench.succeed(&[&run[..], &["tuned", "--eval", "watch.toml", "--eval-every", "2"]].concat());
    let lines = metrics(&bench, "tuned");
    let at = |line: usize, name: &str| lines[line]["watched"]["watch"][name].as_f64().unwrap();
    assert_eq!(lines.len(), 5);
    assert!(at(0, "text loss") != at(4, "text loss") && at(4, "bits a byte") > 0.0);
    assert!(lines[1].get("watched").is_none());
    let results = fs::read_to_string(bench.path("tuned/evaluations.jsonl")).unwrap();
    assert_eq!(results.lines().count(), 6);
    // The numbers are those that the command itself finds.
    let measured = bench.json(&["measure", "tokens", "tuned", "text.txt", "--window", "32", "--json"]);
    let nll = measured["report"]["text"]["nll"]["value"]["value"]
        .as_f64()
        .unwrap_or_else(|| measured["report"]["text"]["nll"]["value"].as_f64().unwrap());
    assert!((nll - at(4, "text loss")).abs() < 1e-6, "{nll}");
    bench.write("bad.toml", "[[step]]\nname = \"text\"\nmeasure_token = {}\n");
    let said = bench.refuse(&[&run[..], &["other", "--eval", "bad.toml"]].concat());
    assert!(said.contains("--eval: bad.toml: `text`: unknown variant `measure_token`"), "{said}");
}

#[test]
fn a_step_of_an_experiment_has_everything() {
    let bench = Bench::new();
    talking(&bench, "tiny");
    chats(&bench, "chats.jsonl", 0);
    chats(&bench, "held.jsonl", 1);
    bench.write(
        "e/small.toml",
        r#"
title = "Tuned"
about = "Does it learn?"

[[step]]
name = "tuned {method}"
for = { method = { full = "full", lora = { lora = { rank = 2, alpha = 4.0, targets = ["q_proj"] } } } }
[step.tune]
model = "tiny"
method = "{method}"
data = ["chats.jsonl"]
steps = 6
batch = 4
learning_rate = 0.01
clip = "none"
schedule = "cosine"
eval = ["held.jsonl"]
save_at = [3]

[[step]]
name = "{model}"
for = { model = { half = "@tuned full/step-3", full = "@tuned full", lora = "@tuned lora" } }
measure_tokens = { model = "{model}", texts = { data = ["held.jsonl"], field = "messages" }, window = 24, seed = 0 }
"#
        .replace("field = \"messages\"", "field = \"text\"")
        .replace("texts = { data = [\"held.jsonl\"]", "texts = { data = [\"texts.jsonl\"]"),
    );
    bench.write("texts.jsonl", "{\"text\": \"the sea and the sand\"}\n{\"text\": \"a stone\"}");
    let result = bench.json(&["run", "e/small.toml", "--json"]);
    assert_eq!(result["steps"].as_array().unwrap().len(), 5);
    let again = bench.json(&["run", "e/small.toml", "--json"]);
    assert!(again["steps"].as_array().unwrap().iter().all(|step| step["cached"] == true));
}

#[test]
fn a_full_disk_stops_a_run_with_its_last_checkpoint() {
    let bench = Bench::new();
    copy(&bench, "llama", "tiny");
    ids(&bench, "ids.jsonl");
    let size = fs::metadata(bench.path("tiny/model.safetensors")).unwrap().len();
    let run = |out: &str, steps: &str| {
        format!("tune full tiny --data ids.jsonl --steps {steps} --batch 2 --lr 1e-3 --quiet --out {out}")
    };
    bench.succeed(&run("out", "3").split(' ').collect::<Vec<_>>());
    // A limit on the size of files stands for the end of the disk: the optimiser's is twice the model.
    let blocks = size / 1024 + 8;
    let script =
        format!("trap '' XFSZ; ulimit -f {blocks}; exec {} {} --resume", env!("CARGO_BIN_EXE_lathe"), run("out", "6"));
    let Ok(output) = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(bench.path(""))
        .env("LATHE_HOME", bench.path("no-such-home"))
        .output()
    else {
        println!("skipped: there is no bash");
        return;
    };
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("training stopped in step 6: ") && said.contains("the last checkpoint is out/checkpoints/step-3"),
        "{said}"
    );
    let kept: Vec<_> =
        fs::read_dir(bench.path("out/checkpoints")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["step-3"]);
    // With room again it goes on.
    bench.succeed(&[run("out", "6").split(' ').collect::<Vec<_>>(), vec!["--resume"]].concat());
    bench.succeed(&run("whole", "6").split(' ').collect::<Vec<_>>());
    assert!(weights(&bench, "out") == weights(&bench, "whole"));
}

#[test]
fn runs_that_make_no_sense() {
    let bench = Bench::new();
    talking(&bench, "tiny");
    copy(&bench, "llama", "mute");
    chats(&bench, "chats.jsonl", 0);
    ids(&bench, "ids.jsonl");
    bench.write("bad.jsonl", "{\"text\": \"a b\"}\n{\"messages\": [{\"role\": \"user\"}]}");
    bench.write("masked.jsonl", "{\"input_ids\": [5, 6], \"labels\": [-100, -100]}");
    bench.write("taken/file", "x");
    let refused = |more: &[&str]| bench.refuse(&[&["tune"], more].concat());
    let data = |data: &'static str, more: &[&'static str]| {
        refused(&[&["full", "tiny", "--data", data, "--out", "new"], more].concat())
    };
    let said = [
        data("bad.jsonl", &[]),
        data("masked.jsonl", &[]),
        data("none.jsonl", &[]),
        data("chats.jsonl", &["--max-length", "65"]),
        data("chats.jsonl", &["--max-length", "1"]),
        data("chats.jsonl", &["--lr", "0"]),
        data("chats.jsonl", &["--clip", "0"]),
        data("chats.jsonl", &["--clip", "much"]),
        data("chats.jsonl", &["--betas", "0.9"]),
        data("chats.jsonl", &["--betas", "0.9,1"]),
        data("chats.jsonl", &["--steps", "0"]),
        data("chats.jsonl", &["--batch", "0"]),
        data("chats.jsonl", &["--steps", "3", "--save-at", "4"]),
        data("chats.jsonl", &["--dtype", "q4_0"]),
        data("chats.jsonl", &["--resume"]),
        data("chats.jsonl", &["--only", "no_such_module"]),
        refused(&["full", "tiny", "--data", "chats.jsonl", "--out", "taken"]),
        refused(&["full", "mute", "--data", "chats.jsonl", "--out", "new"]),
        refused(&["lora", "tiny", "--data", "chats.jsonl", "--rank", "0", "--out", "new"]),
        refused(&["lora", "tiny", "--data", "chats.jsonl", "--low-memory", "--out", "new"]),
        refused(&["lora", "tiny", "--data", "chats.jsonl", "--targets", "no_such_module", "--out", "new"]),
        refused(&["full", "--from-scratch", "bad.jsonl", "--data", "ids.jsonl", "--out", "new"]),
    ];
    assert_same("tune_refused", &said.join("\n"));
    // The same data, with what is bad left out.
    let audit = bench.json(&["tune", "full", "tiny", "--data", "bad.jsonl", "--skip-bad", "--audit-only", "--json"]);
    assert_eq!((&audit["records"], &audit["examples"], &audit["bad"][0]["line"]), (&json!(2), &json!(1), &json!(2)));
    // A rate at which every model breaks.
    let broken = bench.run(&[
        "tune",
        "full",
        "mute",
        "--data",
        "ids.jsonl",
        "--steps",
        "9",
        "--lr",
        "1e30",
        "--out",
        "broken",
        "--quiet",
        "--checkpoint-every",
        "1",
    ]);
    assert_eq!(broken.code, 2, "{}", broken.stderr);
    assert!(
        broken.stderr.contains("is not finite; the last checkpoint is broken/checkpoints/step-"),
        "{}",
        broken.stderr
    );
    assert!(!bench.path("broken/model.safetensors").exists());
}

#[test]
fn what_is_trained_is_all_that_changes() {
    let bench = Bench::new();
    copy(&bench, "qwen2", "tiny");
    ids(&bench, "ids.jsonl");
    bench.succeed(&[
        "tune",
        "full",
        "tiny",
        "--data",
        "ids.jsonl",
        "--steps",
        "3",
        "--lr",
        "0.01",
        "--only",
        "q_proj,k_proj",
        "--quiet",
        "--recompute",
        "--out",
        "some",
    ]);
    let read = |folder: &str| tensors::read(&bench.path(folder).join("model.safetensors"));
    let (before, after) = (read("tiny"), read("some"));
    for (name, tensor) in &before {
        let is_trained = name.contains("q_proj.weight") || name.contains("k_proj.weight");
        let same = tensor.values().iter().zip(after[name].values()).all(|(a, b)| a.to_bits() == b.to_bits());
        if name.ends_with(".weight") {
            assert_eq!(!same, is_trained, "{name}");
        }
    }
}
