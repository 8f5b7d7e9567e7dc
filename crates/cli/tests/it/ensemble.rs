//! `lathe ensemble`, and ensembles in `generate`, `chat` and `eval`, with tiny models of different vocabularies.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::edit_tensors;
use crate::vocabulary::{bytes, pieces};

/// A byte-level model, a copy of it, and one with pieces.
fn bench() -> Bench {
    let bench = Bench::new();
    bytes(&bench, "tiny");
    bytes(&bench, "copy");
    pieces(&bench, "other");
    bench.write("prompts.jsonl", "{\"prompt\": \"the sea\"}\n{\"prompt\": \"and the sand is\"}\n{\"prompt\": \"a\"}\n");
    bench
}

/// Standard output of a run that succeeds; what it did is on standard error.
fn write(bench: &Bench, arguments: &[&str]) -> (String, String) {
    let outcome = bench.run(arguments);
    assert_eq!(outcome.code, 0, "lathe {}: {}", arguments.join(" "), outcome.stderr);
    (outcome.stdout, outcome.stderr)
}

fn record(bench: &Bench, arguments: &[&str]) -> Value {
    serde_json::from_str(&write(bench, &[arguments, &["--json"]].concat()).0).unwrap()
}

const METHODS: [&[&str]; 7] = [
    &["--method", "unite"],
    &["--method", "unite", "--k", "3", "--exact-strings"],
    &["--method", "unite", "--duplicates", "repo-zero", "--append", "primary-first-subtoken"],
    &["--method", "gac"],
    &["--method", "bytes", "--mixture", "posterior"],
    &["--method", "bytes", "--canonical"],
    &["--method", "chared"],
];

#[test]
fn every_method_writes_and_says_who_voted() {
    let bench = bench();
    for method in METHODS {
        let arguments =
            [&["ensemble", "tiny", "other", "--prompt", "the sea", "--max-tokens", "8", "--explain", "3"], method]
                .concat();
        let of = record(&bench, &arguments);
        assert!(of["tokens"].as_u64().unwrap() >= 1, "{method:?}");
        let steps = of["steps"].as_array().unwrap();
        let is_text = steps.iter().all(|step| step["hex"].is_null());
        let chosen: String = steps.iter().filter_map(|step| step["text"].as_str()).collect();
        assert!(!is_text || chosen == of["text"].as_str().unwrap(), "{method:?}");
        for step in steps {
            let votes = step["votes"].as_array().unwrap();
            assert!(!votes.is_empty() && votes.len() <= 3 && votes[0]["members"].as_array().unwrap().len() == 2);
        }
        // The same text streams to the output, and what was done goes to standard error.
        let (streamed, said) = write(&bench, &arguments);
        assert!(!is_text || streamed == format!("{}\n", of["text"].as_str().unwrap()));
        assert!(said.contains("chosen by all members together") && said.contains("ms per token"), "{said}");
    }
}

#[test]
fn equal_models_and_a_weight_of_one_write_what_the_model_writes_alone() {
    let bench = bench();
    let alone = bench.succeed(&[
        "generate",
        "tiny",
        "--prompt",
        "the sea",
        "--temperature",
        "0",
        "--max-tokens",
        "10",
        "--ignore-end",
    ]);
    let common = ["--prompt", "the sea", "--max-tokens", "10", "--ignore-end"];
    for (models, more) in [
        (["tiny", "copy"], &["--method", "unite"][..]),
        (["tiny", "copy"], &["--method", "gac", "--weights", "1,3"]),
        (["tiny", "copy"], &["--gate", "on"]),
        (["tiny", "other"], &["--weights", "1,0"]),
        (["tiny", "other"], &["--weights", "1,0", "--method", "gac"]),
    ] {
        let arguments = [&["ensemble"], &models[..], &common, more].concat();
        assert_eq!(write(&bench, &arguments).0, alone, "{models:?} {more:?}");
    }
    // MODEL+MODEL is the same wherever it stands.
    let joined = [&["generate", "tiny+other"], &common[..]].concat();
    let apart = [&["ensemble", "tiny", "other"], &common[..]].concat();
    assert_eq!(write(&bench, &joined).0, write(&bench, &apart).0);
}

#[test]
fn a_file_of_texts_is_complete_or_goes_on() {
    let bench = bench();
    let arguments = |out: &'static str| {
        ["ensemble", "tiny", "other", "--prompts", "prompts.jsonl", "--max-tokens", "6", "--explain", "--out", out]
    };
    let said = bench.succeed(&arguments("a.jsonl"));
    assert!(said.contains("3 texts") && said.contains("saved in a.jsonl"), "{said}");
    let whole = fs::read_to_string(bench.path("a.jsonl")).unwrap();
    assert_eq!(whole.lines().count(), 3);
    // What a killed run leaves: the head, one text, and half a line.
    bench.succeed(&[&arguments("b.jsonl")[..], &["--seed", "0"]].concat());
    let first: Value = serde_json::from_str(whole.lines().next().unwrap()).unwrap();
    assert_eq!((first["prompt"].as_u64(), first["ended"]["reason"].as_str()), (Some(0), Some("length")));
    assert_eq!(fs::read_to_string(bench.path("b.jsonl")).unwrap(), whole);
    assert!(!bench.path("a.jsonl.partial").exists());
    let refused = bench.refuse(&arguments("a.jsonl"));
    assert!(refused.contains("a.jsonl is there already"), "{refused}");
}

#[test]
fn a_page_shows_the_votes() {
    let bench = bench();
    write(&bench, &["ensemble", "tiny", "other", "--prompt", "the", "--max-tokens", "5", "--page", "votes.html"]);
    let page = fs::read_to_string(bench.path("votes.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("tiny") && page.contains("other"));
}

#[test]
fn a_conversation_needs_a_template_of_every_member() {
    let bench = bench();
    let refused = bench.refuse(&["chat", "tiny+other"]);
    assert!(refused.contains("tiny has no chat template"), "{refused}");
}

const SUMS: &str = r#"
name = "sums"
description = "Sums."
data = { file = "sums.jsonl" }
answer = "answer"
prompt = "{{ question }} ="

[score]
by = "generation"
max_tokens = 4
stop = ["\n"]
scorers = [{ kind = "contains" }]
"#;

const COLOURS: &str = r#"
name = "colours"
description = "Which colour a thing has."
data = { file = "colours.jsonl" }
options = "lettered(options)"
answer = "answer"
answer_is = "labelled"
prompt = "the {{ thing }} is"

[score]
by = "likelihood"
headline = "sum"
"#;

fn with_tasks() -> Bench {
    let bench = bench();
    bench.write("sums.toml", SUMS);
    bench.write("colours.toml", COLOURS);
    let lines = |of: &dyn Fn(usize) -> Value| (0..6).map(|i| of(i).to_string() + "\n").collect::<String>();
    // Each model is sometimes right: answers are letters that texts often hold.
    bench.write(
        "sums.jsonl",
        lines(&|i| json!({"question": format!("{i} and {i}"), "answer": (["e", "t", "a"][i % 3])})),
    );
    let colour = |i: usize| json!({"thing": (["sea", "sand"][i % 2]), "options": "A. red\nB. sea green", "answer": (["A. red", "B. sea green"][i / 3])});
    bench.write("colours.jsonl", lines(&colour));
    bench
}

#[test]
fn ensembles_are_evaluated_beside_their_members_and_again() {
    let bench = with_tasks();
    let arguments =
        ["eval", "tiny", "other", "tiny+other", "--task", "sums.toml,colours.toml", "--out", "out", "--json"];
    let of = bench.json(&arguments);
    let runs = of["runs"].as_array().unwrap();
    let names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names[4..], ["tiny+other unite k=10 sums", "tiny+other unite k=10 colours"]);
    assert_eq!(runs[4]["ensembled_share"], 1.0);
    assert!(runs[5]["ensembled_share"].is_null());
    let pairs: Vec<&str> =
        of["comparisons"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(
        pairs[..3],
        ["tiny against other", "tiny against tiny+other unite k=10", "other against tiny+other unite k=10"]
    );
    // Everything is there the second time.
    let again = bench.json(&arguments);
    assert!(again["runs"].as_array().unwrap().iter().all(|run| run["resumed"] == 6));
    let scores =
        |of: &Value| of["runs"].as_array().unwrap().iter().map(|run| run["scores"].clone()).collect::<Vec<_>>();
    assert_eq!(scores(&again), scores(&of));
    // An ensemble of one model's copies answers like the model.
    let of = bench.json(&["eval", "tiny", "tiny+copy", "--task", "sums.toml,colours.toml", "--json"]);
    let scores = scores(&of);
    assert_eq!((&scores[0], &scores[1]), (&scores[2], &scores[3]));
}

#[test]
fn determine_says_what_it_decided_and_why() {
    let bench = with_tasks();
    let arguments =
        ["ensemble", "determine", "tiny", "other", "copy", "--task", "sums.toml", "--max-gap", "100", "--json"];
    let of = bench.json(&arguments);
    let decisions = of["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 3);
    assert_eq!(decisions[0]["verdict"], "first");
    for decision in &decisions[1..] {
        let gain = decision["gain_points"].as_f64();
        match decision["verdict"].as_str().unwrap() {
            "kept" => assert!(gain.unwrap() > 0.0),
            "dropped" => assert!(gain.unwrap() <= 0.0),
            "refused" => assert!(gain.is_none() && decision["length_ratio"].as_f64().unwrap() > 2.0),
            other => panic!("{other}"),
        }
        assert!(!decision["reason"].as_str().unwrap().is_empty());
    }
    let text = bench.succeed(&arguments[..arguments.len() - 1]);
    assert!(text.contains("first") && text.contains("measure it on others"), "{text}");
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let bench = with_tasks();
    bytes(&bench, "spoilt");
    edit_tensors(&bench, "spoilt", |tensors| {
        let head = tensors.values_mut().next().unwrap();
        head.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let ask = ["--prompt", "the", "--max-tokens", "4"];
    let mut text = String::new();
    for more in [
        &["ensemble", "tiny", "other", "--weights", "1"][..],
        &["ensemble", "tiny", "other", "--weights=-1,1"],
        &["ensemble", "tiny", "other", "--weights", "0,0"],
        &["ensemble", "tiny", "other", "--k", "0"],
        &["ensemble", "tiny", "other", "--gate", "on", "--temperature", "1"],
        &["ensemble", "tiny", "other", "--gate", "on", "--draft", "0"],
        &["ensemble", "tiny", "other", "--method", "bytes", "--beam", "0"],
        &["ensemble", "tiny", "other", "--samples", "3"],
        &["generate", "tiny+other", "--top-k", "5"],
        &["generate", "tiny+other", "--alternatives", "5"],
        &["generate", "tiny+other", "--normalise", "global"],
        &["generate", "tiny+nowhere"],
    ] {
        text += &(bench.refuse(&[more, &ask].concat()) + "\n");
    }
    for arguments in [
        &["ensemble", "determine", "tiny", "--task", "sums.toml"][..],
        &["ensemble", "determine", "tiny", "other", "--task", "sums.toml", "--weights", "1,2"],
        &["ensemble", "tiny", "other", "--prompt-ids", "5,6"],
        &["eval", "tiny+other", "tiny+other", "--task", "sums.toml"],
        &["eval", "tiny+other", "--task", "sums.toml", "--explain"],
    ] {
        text += &(bench.refuse(arguments) + "\n");
    }
    assert_same("ensemble_refused", &text);
    let long = "the sea and the sand ".repeat(8);
    let refused = bench.refuse(&["ensemble", "tiny", "other", "--prompt", &long]);
    assert!(refused.contains("context is 64"), "{refused}");
    let outcome = bench.run(&[&["ensemble", "tiny", "spoilt"][..], &ask].concat());
    assert!(outcome.code == 1 && outcome.stderr.contains("not finite"), "{}", outcome.stderr);
}
