//! `lathe measure context` and `lathe data` with tiny models.

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::{Start, edit_config, edit_tensors, reading, reading_less};

/// Two models that read text, and `n` conflicts of `n / 2` questions.
fn bench(n: usize) -> Bench {
    let bench = Bench::new();
    reading(&bench, "tiny", 256, Start::Token);
    reading_less(&bench, "other", 256, 5);
    bench.write("conflicts.jsonl", conflicts(n));
    bench
}

fn conflicts(n: usize) -> String {
    // Of these, the first tokens differ from that of the memorised one in the larger vocabulary.
    let colours = ["sea green", "white", "orange", "the one of sand"];
    let record = |i: usize| {
        let (thing, colour) = (i / 2, colours[i % 4]);
        json!({"context": format!("the hat {thing} is {colour} and the sand is not"), "question": format!("what is hat {thing}?"),
               "answer": colour, "memorised": "ashen", "from": i})
        .to_string()
            + "\n"
    };
    (0..n).map(record).collect()
}

fn lines(bench: &Bench, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(bench.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const MEASURE: [&str; 4] = ["measure", "context", "tiny", "--data"];

#[test]
fn every_answer_is_a_line_and_rates_count_them() {
    let bench = bench(12);
    let both = ["measure", "context", "tiny", "other", "--data", "conflicts.jsonl"];
    let result = bench.json(&[&both[..], &["--out", "answers.jsonl", "--json"]].concat());
    let models = result["models"].as_array().unwrap();
    assert_eq!((&models[0]["model"], &models[1]["model"]), (&json!("tiny"), &json!("other")));
    assert_eq!((&result["data"]["items"], &result["data"]["questions"]), (&json!(12), &json!(6)));
    let items = lines(&bench, "answers.jsonl");
    assert_eq!(items.len(), 24);
    for (at, item) in items.iter().enumerate() {
        assert_eq!(item["model"], if at < 12 { "tiny" } else { "other" });
        assert_eq!(item["record"], at % 12 + 1);
        assert!(item["closed_book"].is_string() && item["known"].is_boolean(), "{item}");
        assert!(item["tokens"].as_u64().unwrap() <= 32 && !item["output"].as_str().unwrap().contains('\n'), "{item}");
        let [context, memorised] = [&item["log_p_context"], &item["log_p_memorised"]]
            .map(|of| of[0].as_f64().unwrap() / of[1].as_f64().unwrap());
        assert!((item["margin"]["value"].as_f64().unwrap() - (context - memorised)).abs() < 1e-12);
        match item["preference"]["value"].as_f64() {
            Some(preference) => assert!(preference > 0.0 && preference < 1.0, "{item}"),
            // The other model's answers all begin with a space of their own.
            None => assert_eq!((&item["preference"]["reason"], at >= 12), (&json!("same_token"), true), "{item}"),
        }
        let attention = item["attention"].as_array().unwrap();
        assert!(attention.iter().all(|share| (0.0..=1.0).contains(&share.as_f64().unwrap())), "{item}");
    }
    let classes = &models[0]["classes"];
    let count = |class: &str| items[..12].iter().filter(|item| item["class"] == class).count();
    for class in ["context_only", "parametric_only", "both", "neither"] {
        assert_eq!(classes[class], count(class), "{class}");
    }
    let mean = items[..12].iter().map(|item| item["preference"]["value"].as_f64().unwrap()).sum::<f64>() / 12.0;
    assert!((models[0]["preference"]["value"]["value"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert_eq!(models[0]["preference"]["n"], 6);
    let of = &result["comparisons"][0];
    assert_eq!((&of["first"], &of["second"]), (&json!("other"), &json!("tiny")));
    let rate = |model: usize| models[model]["context_rate"]["value"]["value"].as_f64().unwrap();
    assert!((of["context_rate"]["value"]["value"].as_f64().unwrap() - (rate(1) - rate(0))).abs() < 1e-12);

    // Answers are the data of another run, which is told what the first one found.
    let again =
        bench.json(&[&MEASURE[..], &["answers.jsonl", "--known-by", "data", "--limit", "12", "--json"]].concat());
    let (found, known) = (&again["models"][0], &models[0]);
    assert_eq!((&found["context_rate"], &found["known"]), (&known["context_rate"], &known["known"]));

    // No number depends on the batch, on threads, or on the other models.
    for more in [&["--batch", "1"][..], &["--batch", "5", "--threads", "1"]] {
        let alone = bench.json(&[&MEASURE[..], &["conflicts.jsonl", "--json"], more].concat());
        for field in ["context_rate", "preference", "margin", "layers", "known"] {
            assert_eq!(alone["models"][0][field], models[0][field], "{field}");
        }
    }
}

#[test]
fn the_table_says_what_was_measured() {
    let bench = bench(8);
    let mut records = conflicts(8);
    records += "{\"context\": \"it moved from ashen to white\", \"question\": \"the colour?\", \"answer\": \"white\", \"memory_answer\": \"ashen\"}\n";
    records += "{\"context\": \"it is pink\", \"question\": \"the colour?\", \"answer\": \"grey\", \"parametric_answer\": \"black\"}\n";
    records += "{\"context\": \"it is pink\", \"question\": \"the colour?\", \"answer\": \"pink\", \"memorised\": \"Pink!\"}\n";
    records += records.clone().lines().next().unwrap();
    bench.write("doubtful.jsonl", records);
    let text = bench.succeed(&["measure", "context", "tiny", "other", "--data", "doubtful.jsonl", "--out", "a.jsonl"]);
    // Seconds differ from run to run.
    let text: Vec<String> =
        text.lines().map(|line| line.split_once(" items in ").map_or(line, |(line, _)| line).to_owned()).collect();
    assert_same("measure_context", &(text.join("\n") + "\n"));
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_answers() {
    let bench = bench(400);
    let arguments =
        |out: &'static str| [&MEASURE[..], &["conflicts.jsonl", "--max-tokens", "8", "--out", out]].concat();
    bench.succeed(&arguments("whole.jsonl"));
    bench.kill_after(&arguments("killed.jsonl"), "killed.jsonl.partial", 10);
    let partial = bench.path("killed.jsonl.partial");
    if partial.exists() {
        let mut text = std::fs::read(&partial).unwrap();
        text.extend_from_slice(b"{\"item\":7,\"mod");
        std::fs::write(&partial, text).unwrap();
        let refused = bench.refuse(&[&arguments("killed.jsonl")[..], &["--match", "words"]].concat());
        assert!(refused.contains("belongs to a run with other options"), "{refused}");
        let result = bench.json(&[&arguments("killed.jsonl")[..], &["--json"]].concat());
        assert!(result["models"][0]["resumed"].as_u64().unwrap() >= 10, "{result}");
        assert!(!partial.exists());
    }
    let read = |file: &str| std::fs::read(bench.path(file)).unwrap();
    assert_eq!(read("killed.jsonl"), read("whole.jsonl"));
}

#[test]
fn contexts_that_do_not_fit_are_cut() {
    let bench = bench(2);
    let filler = "and the sand is on the sea ".repeat(40);
    let record = |context: String| {
        json!({"context": context, "question": "what is the hat?", "answer": "red", "memorised": "black"}).to_string()
            + "\n"
    };
    let first = record(format!("the hat is red {filler}"));
    bench.write("long.jsonl", first + &record(format!("{filler} the hat is red")));
    let result = bench.json(&[&MEASURE[..], &["long.jsonl", "--out", "long-answers.jsonl", "--json"]].concat());
    assert_eq!((&result["models"][0]["cut"], &result["models"][0]["lost"]), (&json!(2), &json!(1)));
    let items = lines(&bench, "long-answers.jsonl");
    assert_eq!((&items[0].get("is_lost"), &items[1]["is_lost"]), (&None, &json!(true)));
    edit_config(&bench, "tiny", |config| {
        config.insert("max_position_embeddings".into(), 40.into());
    });
    let refused = bench.refuse(&[&MEASURE[..], &["long.jsonl"]].concat());
    assert!(refused.contains("long.jsonl, record 1: without any context it needs"), "{refused}");
}

#[test]
fn measurements_that_make_no_sense_are_refused() {
    let bench = bench(4);
    let row = |name: &str, row: &str| bench.write(name, format!("{}{row}\n", conflicts(1)));
    row("missing.jsonl", r#"{"context": "a", "question": "b", "answer": "c"}"#);
    row("number.jsonl", r#"{"context": "a", "question": "b", "answer": 3, "memorised": "d"}"#);
    row("empty.jsonl", r#"{"context": " ", "question": "b", "answer": "a", "memorised": "d"}"#);
    bench.write("equal.jsonl", r#"{"context": "a", "question": "b", "answer": "Male", "memorised": "Malé"}"#);
    bench.write("array.json", r#"{"context": "a"}"#);
    let of = |data: &'static str| [&MEASURE[..], &[data]].concat();
    let with = |more: &[&'static str]| [&MEASURE[..], &["conflicts.jsonl"], more].concat();
    let refused = bench.refuse_all(&[
        &["measure", "context", "tiny"],
        &of("gone.jsonl"),
        &of("missing.jsonl"),
        &of("number.jsonl"),
        &of("empty.jsonl"),
        &of("equal.jsonl"),
        &of("array.json"),
        &with(&["--known-by", "data"]),
        &with(&["--template", "chat"]),
        &with(&["--max-tokens", "0"]),
        &with(&["--limit", "0"]),
        &with(&["--batch", "0"]),
        &with(&["--out", "conflicts.jsonl"]),
        &with(&["--match", "any"]),
    ]);
    assert_same("measure_context_refused", &refused);
}

#[test]
fn logits_that_are_not_finite_are_the_models_fault() {
    let bench = bench(2);
    edit_tensors(&bench, "tiny", |tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        norm.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let outcome = bench.run(&[&MEASURE[..], &["conflicts.jsonl"]].concat());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
    assert_eq!(outcome.stderr, "error: context, record 1: the logits of tiny are not finite\n");
}

#[test]
fn sets_made_by_rules() {
    let bench = Bench::new();
    let text = bench.succeed(&["data", "conflicts", "--out", "conflicts.jsonl"]);
    let more = bench.succeed(&["data", "instructions", "--counterfactual", "0.1", "--out", "instructions.jsonl"]);
    assert_same("data_made", &format!("{text}\n{more}"));
    let records = lines(&bench, "conflicts.jsonl");
    let first: Vec<&str> = records[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(first, ["relation", "subject", "context", "question", "answer", "memorised", "position"]);
    bench.succeed(&["data", "conflicts", "--out", "again.jsonl"]);
    assert_eq!(lines(&bench, "again.jsonl"), records);
    let result = bench.json(&[
        "data",
        "conflicts",
        "--relation",
        "capital,currency",
        "--variants",
        "2",
        "--seed",
        "5",
        "--out",
        "few.jsonl",
        "--json",
    ]);
    assert_eq!((&result["records"], &result["questions"], &result["short"]), (&json!(128), &json!(64), &json!(0)));
    bench.write("bad.toml", "[[relation]]\nname = 3\n");
    let refused = bench.refuse_all(&[
        &["data", "conflicts"],
        &["data", "conflicts", "--out", "x.jsonl", "--relation", "capitals"],
        &["data", "conflicts", "--out", "x.jsonl", "--variants", "0"],
        &["data", "conflicts", "--out", "x.jsonl", "--limit", "0"],
        &["data", "conflicts", "--out", "x.jsonl", "--facts", "gone.toml"],
        &["data", "conflicts", "--out", "x.jsonl", "--facts", "bad.toml"],
        &["data", "instructions", "--out", "x.jsonl", "--records", "5"],
        &["data", "instructions", "--out", "x.jsonl", "--records", "100000"],
        &["data", "instructions", "--out", "x.jsonl", "--counterfactual", "2"],
    ]);
    assert_same("data_refused", &refused);
}

#[test]
fn records_that_need_their_context() {
    let bench = bench(0);
    let record = |i: usize| match i % 4 {
        0 => json!({"instruction": format!("say {i}"), "input": "", "output": "it is on"}),
        1 => {
            json!({"instruction": "what is it?", "input": format!("the hat {i} is red"), "output": format!("hat {i}"), "more": [i]})
        }
        2 => json!({"prompt": "what is it?", "context": format!("the sea {i}"), "completion": "the sea"}),
        _ => json!({"messages": [{"role": "user", "content": format!("Background: the den {i}\nQuestion: where?")},
                    {"role": "assistant", "content": format!("in the den {i}")}], "context": format!("the den {i}")}),
    };
    let records: Vec<Value> = (0..40).map(record).collect();
    bench.write("records.jsonl", records.iter().map(|record| record.to_string() + "\n").collect::<String>());
    let arguments = ["data", "context-critical", "tiny", "--data", "records.jsonl", "--out"];
    let result = bench.json(&[&arguments[..], &["kept.jsonl", "--scores", "scores.jsonl", "--json"]].concat());
    let numbers = ["records", "without_context", "kept", "dropped"].map(|name| result[name].as_u64().unwrap());
    assert_eq!(numbers, [40, 10, 23, 7]);
    let scores = lines(&bench, "scores.jsonl");
    assert_eq!(scores.len(), 30);
    let nll = |score: &Value| score["nll_without_context"].as_f64().unwrap();
    let threshold = result["threshold"]["value"].as_f64().unwrap();
    for score in &scores {
        // Equal ones may be on both sides.
        let is_kept = score["is_kept"].as_bool().unwrap();
        assert!(if is_kept { nll(score) >= threshold } else { nll(score) <= threshold }, "{score}");
        let gap = nll(score) - score["nll_with_context"].as_f64().unwrap();
        assert_eq!(score["gap"].as_f64().unwrap(), gap);
        assert!((score["perplexity_without_context"].as_f64().unwrap().ln() - nll(score)).abs() < 1e-9);
    }
    // What is kept is the record with its scores.
    let kept = lines(&bench, "kept.jsonl");
    for mut record in kept {
        let score = record.as_object_mut().unwrap().remove("context_critical").unwrap();
        assert_eq!(record, records[score["record"].as_u64().unwrap() as usize - 1]);
    }
    // A batch changes nothing, the gap is another selection.
    bench.succeed(&[&arguments[..], &["one.jsonl", "--batch", "1", "--threads", "1"]].concat());
    let read = |file: &str| std::fs::read(bench.path(file)).unwrap();
    assert_eq!(read("one.jsonl"), read("kept.jsonl"));
    let text = bench.succeed(&[&arguments[..], &["gap.jsonl", "--by", "gap"]].concat());
    assert!(text.contains("the lowest by gap, up to ") && text.contains("loss without context are"), "{text}");
    assert_ne!(read("gap.jsonl"), read("kept.jsonl"));
    bench.kill_after(&[&arguments[..], &["killed.jsonl", "--batch", "1"]].concat(), "killed.jsonl.partial", 1);
    if bench.path("killed.jsonl.partial").exists() {
        bench.succeed(&[&arguments[..], &["killed.jsonl"]].concat());
        assert_eq!(read("killed.jsonl"), read("kept.jsonl"));
    }
    bench.write("none.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n");
    bench.write("bad.jsonl", "{\"instruction\": \"a\", \"input\": \"c\"}\n");
    let refused = bench.refuse_all(&[
        &["data", "context-critical", "tiny", "--data", "none.jsonl", "--out", "x.jsonl"],
        &["data", "context-critical", "tiny", "--data", "bad.jsonl", "--out", "x.jsonl"],
        &["data", "context-critical", "tiny", "--data", "records.jsonl", "--out", "x.jsonl", "--drop", "1"],
        &["data", "context-critical", "tiny", "--data", "records.jsonl", "--out", "kept.jsonl"],
    ]);
    assert_same("data_critical_refused", &refused);
}

#[test]
fn steps_of_an_experiment() {
    let bench = bench(2);
    let experiment = r#"
        title = "Reliance"
        about = "Who follows the context?"
        [[step]]
        name = "conflicts"
        data_conflicts = { relations = ["capital"], limit = 4 }
        [[step]]
        name = "instructions"
        data_instructions = { records = 40, counterfactual = 0.1 }
        [[step]]
        name = "critical"
        data_context_critical = { model = "tiny", data = "@instructions" }
        [[step]]
        name = "base"
        measure_context = { models = ["tiny"], data = "@conflicts", max_tokens = 4 }
        [[step]]
        name = "again"
        measure_context = { models = ["tiny"], data = "@base", known_by = "data", max_tokens = 4, attention = "skip" }
        [[table]]
        title = "Rates"
        steps = ""
        columns = [["context", "models/0/context_rate"], ["M_C", "models/0/preference"], ["records", "records"]]
    "#;
    bench.write("small.toml", experiment);
    let run = || bench.json(&["run", "small.toml", "--json"])["steps"].as_array().unwrap().clone();
    assert!(run().iter().all(|step| step["cached"] == false));
    assert!(run().iter().all(|step| step["cached"] == true));
    let page = std::fs::read_to_string(bench.path("RESULTS.md")).unwrap();
    let row = |name: &str| page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap().to_owned();
    assert_eq!(row("base").replace("base", ""), row("again").replace("again", ""));
    assert!(row("instructions").ends_with("| 44 |"), "{page}");
}

#[test]
fn reliance_is_watched_while_a_model_is_tuned() {
    let bench = bench(4);
    bench.write(
        "watch.toml",
        r#"
        [[step]]
        name = "reliance"
        measure_context = { data = "conflicts.jsonl", known_by = "skip", max_tokens = 4 }
        watch = { M_C = "models/0/preference", attention = "models/0/attention" }
        [[step]]
        name = "again"
        measure_context = { data = "conflicts.jsonl", known_by = "skip", max_tokens = 4, attention = "skip" }
        watch = { margin = "models/0/margin" }
    "#,
    );
    let record =
        |i: usize| json!({"prompt": format!("what is hat {i}?"), "completion": " the one of sand"}).to_string() + "\n";
    bench.write("train.jsonl", (0..4).map(record).collect::<String>());
    let experiment = r#"
        title = "Watched"
        about = "While it is tuned."
        [[step]]
        name = "tuned"
        tune = { model = "tiny", data = ["train.jsonl"], batch = 2, steps = 4, learning_rate = 0.01, eval = ["watch.toml"], eval_every = 2 }
        [[figure]]
        name = "path"
        title = "M_C against attention"
        x = "attention"
        y = "M_C"
        series = [{ name = "tiny", step = "tuned", each = "looks", at = ["watched/watch/reliance attention"], path = "watched/watch/reliance M_C" }]
    "#;
    bench.write("small.toml", experiment);
    bench.succeed(&["run", "small.toml"]);
    let figure = std::fs::read_to_string(bench.path("small-figures/path.svg")).unwrap();
    for step in ["tiny, step 0: 0.", "tiny, step 2: 0.", "tiny, step 4: 0."] {
        assert!(figure.contains(step), "{step}: {figure}");
    }
}
