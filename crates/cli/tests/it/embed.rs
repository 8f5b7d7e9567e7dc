//! `lathe embed`: vectors of texts, in files and out of them, found again, and analysed.

mod analysed;
mod refused;
mod searched;

use std::fs;

use serde_json::Value;

use crate::bench::Bench;
use crate::models::{Start, copy, edit_config, learn_to_read, reading};

/// Different texts of many lengths.
fn texts() -> Vec<String> {
    let words = ["the", "cat", "is", "on", "a", "mat", "and", "it", "was", "raining", "over", "there", "(1984)"];
    let text =
        |n: usize| (0..1 + n * 7 % 23).map(|i| words[(n * n + 3 * i) % words.len()]).collect::<Vec<_>>().join(" ");
    (0..40).map(|n| format!("{n} {}", text(n))).collect()
}

/// A model with experts that reads text: olmoe's fixture with room for 512 tokens.
fn moe(bench: &Bench, to: &str) {
    copy(bench, "olmoe", to);
    edit_config(bench, to, |config| {
        config.insert("max_position_embeddings".into(), 512.into());
    });
    learn_to_read(bench, to, Start::Nothing);
}

/// Writes texts as records.
fn write_records(bench: &Bench, file: &str, texts: &[String]) {
    let line = |text: &String| serde_json::json!({"text": text}).to_string() + "\n";
    bench.write(file, texts.iter().map(line).collect::<String>());
}

/// The vectors of JSON lines, by their bits.
fn vectors(bench: &Bench, file: &str) -> Vec<Vec<u32>> {
    let text = fs::read_to_string(bench.path(file)).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| bits(&record["vector"])).collect()
}

fn bits(vector: &Value) -> Vec<u32> {
    vector.as_array().unwrap().iter().map(|x| (x.as_f64().unwrap() as f32).to_bits()).collect()
}

fn json_of(bench: &Bench, file: &str) -> Value {
    serde_json::from_slice(&fs::read(bench.path(file)).unwrap()).unwrap()
}

#[test]
fn several_texts_have_a_table_of_cosines() {
    let bench = Bench::new();
    moe(&bench, "moe");
    let arguments = ["embed", "moe", "--text", "the cat", "--text", "a mat", "--text", "the cat"];
    let shown = bench.succeed(&arguments);
    let table: Vec<&str> = shown.lines().skip_while(|line| !line.trim_start().starts_with("cosine")).collect();
    let cosines = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (first, second, third) = (cosines(table[2]), cosines(table[3]), cosines(table[4]));
    assert_eq!((first[0].as_str(), second[1].as_str(), first[2].as_str()), ("1.0000", "1.0000", "1.0000"), "{shown}");
    assert_eq!(first, third, "{shown}");
    assert_ne!(first, second, "{shown}");
    assert!(shown.contains("32 of hidden states (last token)"), "{shown}");

    // A sum without the router's part is what there was.
    let sum = bench.succeed(&[&arguments[..], &["--kind", "sum", "--alpha", "0"]].concat());
    let of_sum: Vec<&str> = sum.lines().skip_while(|line| !line.trim_start().starts_with("cosine")).take(5).collect();
    assert_eq!(of_sum, table[..5]);

    let json = bench.json(&[&arguments[..], &["--kind", "rw", "--json"]].concat());
    assert_eq!((json["width"].as_u64(), json["router_width"].as_u64()), (Some(24), Some(24)), "{json}");
    let vector = bits(&json["vectors"][0]["vector"]);
    assert_eq!(vector, bits(&json["vectors"][2]["vector"]));
    let of_layer: f32 = vector[..8].iter().map(|bits| f32::from_bits(*bits)).sum();
    assert!((of_layer - 1.0).abs() < 1e-6, "{of_layer}");
    assert_eq!(json["templates"][0], "This sentence : \"{text}\" means in one word:\"");
}

#[test]
fn a_vector_depends_on_its_text_alone() {
    let bench = Bench::new();
    moe(&bench, "moe");
    reading(&bench, "dense", 512, Start::Token);
    let texts = texts();
    let reversed: Vec<String> = texts.iter().rev().cloned().collect();
    write_records(&bench, "texts.jsonl", &texts);
    write_records(&bench, "reversed.jsonl", &reversed);
    bench.write("lines.txt", texts.join("\n"));
    for (model, kind) in [("moe", "concat"), ("dense", "hs")] {
        let embed = |input: &str, out: &str| {
            bench.succeed(&["embed", model, "--input", input, "--kind", kind, "--out", out]);
            vectors(&bench, out)
        };
        let found = embed("texts.jsonl", &format!("{model}.jsonl"));
        let mut backwards = embed("reversed.jsonl", &format!("{model}-reversed.jsonl"));
        backwards.reverse();
        assert_eq!(found, backwards, "{model}");
        assert_eq!(found, embed("lines.txt", &format!("{model}-lines.jsonl")), "{model}");
        for index in [0, 7, 39] {
            let alone = bench.json(&["embed", model, "--text", &texts[index], "--kind", kind, "--json"]);
            assert_eq!(bits(&alone["vectors"][0]["vector"]), found[index], "{model} {index}");
        }
    }
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_vectors() {
    let bench = Bench::new();
    moe(&bench, "moe");
    let texts: Vec<String> = (0..20).flat_map(|_| texts()).collect();
    write_records(&bench, "texts.jsonl", &texts);
    let arguments = |out: &'static str| ["embed", "moe", "--input", "texts.jsonl", "--kind", "concat", "--out", out];
    bench.succeed(&arguments("whole.parquet"));
    bench.kill_after(&arguments("killed.parquet"), "killed.parquet.partial", 10);
    let partial = bench.path("killed.parquet.partial");
    if partial.exists() {
        // As if it had been killed in the middle of a line.
        let mut lines = fs::read(&partial).unwrap();
        lines.extend(b"{\"item\":7,\"hid");
        fs::write(&partial, lines).unwrap();
        let other =
            bench.refuse(&["embed", "moe", "--input", "texts.jsonl", "--prompt", "tone", "--out", "killed.parquet"]);
        assert!(other.contains("belongs to a run with other options"), "{other}");
        let outcome = bench.json(&[&arguments("killed.parquet")[..], &["--json"]].concat());
        assert!(outcome["resumed"].as_u64().unwrap() >= 10, "{outcome}");
        assert!(!partial.exists());
    }
    let read = |file: &str| fs::read(bench.path(file)).unwrap();
    assert_eq!(read("killed.parquet"), read("whole.parquet"));
    // What is there is never written over.
    let refused = bench.refuse(&arguments("whole.parquet"));
    assert!(refused.contains("is there already"), "{refused}");
}

#[test]
fn statistics_of_one_run_scale_another() {
    let bench = Bench::new();
    moe(&bench, "moe");
    let texts = texts();
    write_records(&bench, "texts.jsonl", &texts);
    write_records(&bench, "few.jsonl", &texts[3..5]);
    let embed = |input: &str, out: &str, more: &[&str]| {
        bench.succeed(&[&["embed", "moe", "--input", input, "--kind", "concat", "--out", out], more].concat());
        vectors(&bench, out)
    };
    let corpus = embed("texts.jsonl", "corpus.jsonl", &["--standardise", "corpus"]);
    let statistics = "corpus.jsonl.statistics.json";
    assert_eq!(json_of(&bench, "corpus.jsonl.manifest.json")["statistics"], statistics);
    for feature in 0..corpus[0].len() {
        let values: Vec<f64> = corpus.iter().map(|row| f64::from(f32::from_bits(row[feature]))).collect();
        let mean = values.iter().sum::<f64>() / 40.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 39.0;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{feature}: {mean} {variance}");
    }
    // Two texts by themselves get what they got among all.
    let few = embed("few.jsonl", "few-out.jsonl", &["--statistics", statistics]);
    assert_eq!(few, corpus[3..5]);
    // By batches they do not, and the batch of all is the corpus.
    assert_eq!(embed("texts.jsonl", "batch.jsonl", &["--standardise", "batch:40"]), corpus);
    assert_ne!(embed("texts.jsonl", "batches.jsonl", &["--standardise", "batch:20"]), corpus);
    let of_others = ["embed", "moe", "--text", "x", "--prompt", "tone", "--statistics", statistics];
    let refused = bench.refuse(&of_others);
    assert!(refused.contains("prompt prompteol instead of tone"), "{refused}");
    let rounded = bench.refuse(&["embed", "moe", "--text", "x", "--compute", "bf16", "--statistics", statistics]);
    assert!(rounded.contains("they are of other features: computed in f32 instead of bf16"), "{rounded}");
}

#[test]
fn long_texts_are_cut_and_what_stands_around_them_is_not() {
    let bench = Bench::new();
    moe(&bench, "moe");
    let long = "the cat ".repeat(300);
    let arguments = ["embed", "moe", "--max-tokens", "60", "--json", "--text"];
    let outcome = bench.run(&[&arguments[..], &[&long]].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, "note: 1 text was cut to prompts of 60 tokens\n"));
    let cut: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((cut["truncated"].as_u64(), cut["most_tokens"].as_u64()), (Some(1), Some(60)));
    assert!((55..=60).contains(&cut["tokens"].as_u64().unwrap()), "{cut}");
    // Another text with the same beginning is cut to the same.
    let other = bench.run(&[&arguments[..], &[&format!("{long} and a mat")]].concat());
    let other: Value = serde_json::from_str(&other.stdout).unwrap();
    assert_eq!(bits(&cut["vectors"][0]["vector"]), bits(&other["vectors"][0]["vector"]));
}

#[test]
fn a_sentence_encoder() {
    let bench = Bench::new();
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ] {
        bench.write(&format!("bert/{file}"), fs::read(crate::models::fixture("bert").join(file)).unwrap());
    }
    copy(&bench, "bert", "bert");
    let json = bench.json(&["embed", "bert", "--text", "The cat sat on the mat.", "--json"]);
    assert_eq!(
        (&json["features"]["prompt"], &json["features"]["hidden"]["pooling"]),
        (&"plain".into(), &"mean".into())
    );
    assert_eq!(json["vectors"]["length"], Value::Null);
    let golden: Value =
        serde_json::from_slice(&fs::read(crate::models::fixture("bert").join("sentences.json")).unwrap()).unwrap();
    let numbers = |vector: &Value| vector.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    for (found, expected) in numbers(&json["vectors"][0]["vector"]).iter().zip(numbers(&golden["vectors"][0])) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    let refused = bench.refuse(&["embed", "bert", "--text", "a", "--filter", "2"]);
    assert!(refused.contains("has no language-model head"), "{refused}");
}
