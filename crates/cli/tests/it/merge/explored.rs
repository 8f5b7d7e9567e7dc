//! `lathe merge explore`: what candidates cost, without writing them.

use serde_json::{Value, json};

use super::moved_reading;
use crate::bench::Bench;

fn bench() -> Bench {
    let bench = Bench::new();
    moved_reading(&bench, "base", 1, 0.05);
    for (model, seed) in [("a", 2), ("b", 3)] {
        moved_reading(&bench, model, 1, 0.05);
        super::move_numbers(&bench, model, seed, 0.1);
    }
    bench.write("sea.txt", "the sea is in the sand and the land is over there\n".repeat(4));
    bench.write("code.txt", "for (int i = 0; i < 10; i += 1) { sum += list[i]; }\n".repeat(4));
    let yaml = "{merge_method: linear, models: [{model: a}, {model: b}], parameters: {weight: 1}}";
    bench.write("merge.yaml", yaml);
    bench
}

const TEXTS: [&str; 4] = ["--text", "sea=sea.txt", "--text", "code=code.txt"];

fn explored(bench: &Bench, out: &str, more: &[&str]) -> Value {
    let start = ["merge", "explore", "merge.yaml", "--out", out, "--json"];
    bench.json(&[&start[..], &TEXTS, more].concat())
}

/// The values of a candidate or model.
fn values(result: &Value, name: &str) -> Vec<f64> {
    let tried = result["tried"].as_array().unwrap().iter().find(|tried| tried["name"] == name);
    let tried = tried.unwrap_or_else(|| panic!("no {name} in {result}"));
    tried["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn ends_are_the_models_and_what_is_written_has_the_candidates_values() {
    let bench = bench();
    let more = ["--vary", "share=0,0.5,1", "--methods", "slerp", "--beside", "./a", "--beside", "./b", "--write", "1"];
    let result = explored(&bench, "tried", &more);
    assert_eq!(result["tried"].as_array().unwrap().len(), 2 * 3 + 2);
    for method in ["linear", "slerp"] {
        assert_eq!(values(&result, &format!("{method}, share 1")), values(&result, "./a"), "{method}");
        assert_eq!(values(&result, &format!("{method}, share 0")), values(&result, "./b"), "{method}");
        assert_ne!(values(&result, &format!("{method}, share 0.5")), values(&result, "./a"), "{method}");
    }

    // Nobody on the front is beaten, and everybody else is.
    let of = |i: usize| -> Vec<f64> {
        result["tried"][i]["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let beats = |i: usize, j: usize| {
        let (a, b) = (of(i), of(j));
        a.iter().zip(&b).all(|(a, b)| a <= b) && a.iter().zip(&b).any(|(a, b)| a < b)
    };
    let front: Vec<usize> = result["front"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect();
    for i in 0..6 {
        assert_eq!(front.contains(&i), !(0..6).any(|j| beats(j, i)), "{i} of {result}");
    }
    assert!(!front.is_empty() && front.iter().all(|i| *i < 6));

    // The best one, written, costs what it cost in memory.
    assert!(bench.path("tried/index.html").exists() && bench.path("tried/explore.json").exists());
    let again = explored(&bench, "again", &["--vary", "share=0.5", "--beside", "./tried/best-1"]);
    let written = values(&again, "./tried/best-1");
    assert!(front.iter().any(|i| of(*i) == written), "{written:?} of {result}");
}

#[test]
fn differences_are_explored_with_their_base() {
    let bench = bench();
    let yaml = "
merge_method: ties
base_model: base
models: [{model: a}, {model: b}]
parameters: {weight: 1}
";
    bench.write("merge.yaml", yaml);
    let more = ["--vary", "density=0.3,1", "--vary", "lambda=0,1", "--methods", "dare_ties,task_arithmetic"];
    let result = explored(&bench, "tried", &[&more[..], &["--beside", "./base"]].concat());
    // Task arithmetic has no density: each of its candidates once.
    assert_eq!(result["tried"].as_array().unwrap().len(), 4 + 4 + 2 + 1);
    for candidate in ["ties, density 0.3, lambda 0", "dare_ties, density 1, lambda 0", "task_arithmetic, lambda 0"] {
        assert_eq!(values(&result, candidate), values(&result, "./base"), "{candidate}");
    }
    // Interpolation between the two models needs no base, and has fewer inputs than the rest.
    let more = ["--vary", "share=0,1", "--methods", "slerp,linear"];
    let between = explored(&bench, "between", &[&more[..], &["--beside", "./a", "--beside", "./b"]].concat());
    for method in ["slerp", "linear"] {
        assert_eq!(values(&between, &format!("{method}, share 1")), values(&between, "./a"), "{method}");
        assert_eq!(values(&between, &format!("{method}, share 0")), values(&between, "./b"), "{method}");
    }
    // Draws are a function of the seed.
    let draw = |out: &str, seed: &str| {
        let more = ["--vary", "lambda=0..1", "--draws", "3", "--seed", seed];
        let result = explored(&bench, out, &more);
        let tried = result["tried"].as_array().unwrap();
        tried.iter().map(|tried| (tried["name"].clone(), tried["values"].clone())).collect::<Vec<_>>()
    };
    let first = draw("draws-1", "1");
    assert_eq!(first.len(), 3);
    assert_eq!(draw("draws-1-again", "1"), first);
    assert_ne!(draw("draws-2", "2"), first);
}

#[test]
fn tasks_are_measures_of_which_more_is_better() {
    let bench = bench();
    let task = r#"
name = "colours"
description = "Which colour a thing has."
data = { file = "colours.jsonl" }
options = "lettered(options)"
answer = "answer"
answer_is = "labelled"
prompt = "the {{ thing }} is"

[score]
by = "likelihood"
headline = "per_character"
"#;
    bench.write("colours.toml", task);
    let colours = (0..24).map(|i| {
        let options = [format!("A. red {i}"), "B. blue".into(), "C. green".into()];
        json!({"thing": format!("thing {i}"), "options": options.join("\n"), "answer": options[i % 3]}).to_string()
            + "\n"
    });
    bench.write("colours.jsonl", colours.collect::<String>());
    let more = ["--task", "colours.toml", "--limit", "20", "--vary", "share=0,0.3,1", "--beside", "./a"];
    let result = explored(&bench, "tried", &more);
    let measures = result["measures"].as_array().unwrap();
    assert_eq!(measures.len(), 3);
    assert_eq!((&measures[2]["name"], &measures[2]["lower_is_better"]), (&"colours".into(), &false.into()));
    assert_eq!(values(&result, "linear, share 1"), values(&result, "./a"));
    let own = bench.json(&["eval", "./a", "--task", "colours.toml", "--limit", "20", "--json"]);
    assert_eq!(own["runs"][0]["scores"][0]["value"]["value"], values(&result, "./a")[2]);
}

#[test]
fn a_killed_exploration_goes_on() {
    let bench = bench();
    let start = ["merge", "explore", "merge.yaml", "--out", "tried"];
    let vary =
        ["--vary", "models.0.weight=0.1,0.2,0.3,0.4,0.5,0.6,0.7", "--vary", "models.1.weight=0.1,0.3,0.5,0.7,0.9"];
    let arguments = [&start[..], &TEXTS, &vary].concat();
    bench.kill_after(&arguments, "tried/candidates.jsonl.partial", 4);
    let partial = bench.path("tried/candidates.jsonl.partial");
    let whole = explored(&bench, "whole", &vary);
    if partial.exists() {
        let result: Value = bench.json(&[&arguments[..], &["--json"]].concat());
        assert!(result["resumed"].as_u64().unwrap() >= 4, "{}", result["resumed"]);
        let of = |result: &Value| {
            let tried = result["tried"].as_array().unwrap().clone();
            tried.into_iter().map(|tried| (tried["name"].clone(), tried["values"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(of(&result), of(&whole));
        assert_eq!(result["front"], whole["front"]);
    }
}

#[test]
fn what_cannot_be_explored_is_refused() {
    let bench = bench();
    let explore = |more: &[&'static str]| [&["merge", "explore", "merge.yaml", "--out", "tried"][..], more].concat();
    let with_texts = |more: &[&'static str]| [&explore(&TEXTS)[..], more].concat();
    let commands = [
        with_texts(&["--vary", "density=0.5"]),
        with_texts(&["--vary", "density=0..1"]),
        with_texts(&["--vary", "weight=0..1"]),
        with_texts(&["--vary", "weigth=1"]),
        with_texts(&["--vary", "weight=one"]),
        with_texts(&["--vary", "models.2.weight=1"]),
        with_texts(&["--vary", "share=0.5", "--methods", "lerp"]),
        explore(&["--vary", "share=0.5", "--text", "sea=sea.txt"]),
        explore(&["--vary", "share=0.5", "--text", "sea.txt", "--text", "code=code.txt"]),
    ];
    let mut commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    // Before a candidate is made.
    let no_text = explore(&["--vary", "share=0.5", "--text", "sea=none.txt", "--text", "code=code.txt"]);
    commands.push(&no_text);
    crate::models::copy(&bench, "llama", "silent");
    bench
        .write("silent.yaml", "{merge_method: linear, models: [{model: silent}, {model: a}], parameters: {weight: 1}}");
    let start = ["merge", "explore", "silent.yaml", "--out", "tried", "--vary", "share=0.5"];
    let silent = [&start[..], &TEXTS].concat();
    commands.push(&silent);
    crate::bench::assert_same("merge_explore_refused", &bench.refuse_all(&commands));
}
