//! `lathe eval-embed` with tiny models that read text, one of them a mixture of experts.

use serde_json::{Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::{Start, copy, edit_config, reading};

const PAIRS: &str = r#"
name = "pairs"
description = "How similar two texts are."
[task]
type = "sts"
data = [{ file = "pairs.tsv" }]
"#;

const TOPICS: &str = r#"
name = "topics"
description = "What a text is about."
[task]
type = "classification"
train = [{ file = "topics.tsv", rows = { first = 1, every = 2 } }]
test = [{ file = "topics.tsv", rows = { first = 2, every = 2 } }]
samples_per_label = 3
draws = 4
"#;

const GROUPS: &str = r#"
name = "groups"
description = "Whether texts about one thing are near each other."
[task]
type = "clustering"
data = [{ file = "topics.tsv" }]
text = "text"
label = "label"
"#;

const THINGS: [&str; 4] = ["the sea", "sand and stones", "a hat", "one of the others"];

/// A dense model and one with experts, and three tasks.
fn bench() -> Bench {
    let bench = Bench::new();
    reading(&bench, "tiny", 128, Start::Token);
    reading(&bench, "moe", 128, Start::Token);
    copy(&bench, "olmoe", "moe");
    edit_config(&bench, "moe", |config| {
        config.insert("max_position_embeddings".into(), 128.into());
    });
    bench.write("tasks/pairs.toml", PAIRS);
    bench.write("tasks/topics.toml", TOPICS);
    bench.write("tasks/groups.toml", GROUPS);
    let pairs = (0..12).map(|i| format!("{} {i}\t{}\t{}\n", THINGS[i % 4], THINGS[(i * 5 + 1) % 4], i % 5));
    bench.write("tasks/pairs.tsv", "sentence1\tsentence2\tscore\n".to_owned() + &pairs.collect::<String>());
    let topics = (0..16).map(|i| format!("{}\t{} {i}\n", ["water", "clothes"][i / 2 % 2], THINGS[i / 2 % 2 * 2]));
    bench.write("tasks/topics.tsv", "label\ttext\n".to_owned() + &topics.collect::<String>());
    bench
}

fn names(run: &Value) -> Vec<&str> {
    run["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

const ALL: &str = "tasks/pairs.toml,tasks/topics.toml,tasks/groups.toml";

#[test]
fn every_kind_of_vector_stands_beside_its_controls() {
    let bench = bench();
    let result = bench.json(&["eval-embed", "moe", "tiny", "--task", ALL, "--prompt", "plain", "--json"]);
    let runs = result["runs"].as_array().unwrap();
    let run_names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(
        run_names,
        [
            "moe plain pairs",
            "moe plain topics",
            "moe plain groups",
            "tiny plain pairs",
            "tiny plain topics",
            "tiny plain groups"
        ]
    );
    let all = [
        "hs",
        "hs_standardised",
        "hs_projected",
        "rw",
        "rw_standardised",
        "concat",
        "concat_standardised",
        "sum",
        "sum_standardised",
    ];
    assert_eq!(names(&runs[0]), all);
    assert_eq!(names(&runs[1])[..9], all);
    assert_eq!(names(&runs[1])[9..], ["sum_of_probabilities", "sum_of_probabilities_standardised"]);
    // 8 experts in 3 layers beside 32 features.
    let widths: Vec<u64> =
        runs[0]["rows"].as_array().unwrap().iter().map(|row| row["width"].as_u64().unwrap()).collect();
    assert_eq!(widths, [32, 32, 24, 24, 24, 56, 56, 56, 56]);
    assert_eq!(names(&runs[3]), all[..3]);
    assert!(runs[3]["missing"].as_str().unwrap().contains("llama models have no routers"));
    assert_eq!((&runs[0]["units"], &runs[0]["texts"]), (&json!(12), &json!(16)));
    let topics = &runs[1]["rows"][0];
    assert_eq!((&topics["scores"][0]["name"], &topics["scores"][0]["n"]), (&json!("accuracy"), &json!(8)));
    assert!(topics["not_converged"].is_u64() && topics["deviation"]["value"].is_f64());
    assert_eq!(runs[2]["rows"][0]["scores"][1]["name"], "ami");

    // α of 0 is HS, to the last bit.
    let nothing =
        bench.json(&["eval-embed", "moe", "--task", "tasks/pairs.toml", "--prompt", "plain", "--alpha", "0", "--json"]);
    let rows = nothing["runs"][0]["rows"].as_array().unwrap();
    assert_eq!((&rows[7]["scores"], rows[7]["alpha"]["value"].as_f64()), (&rows[0]["scores"], Some(0.0)));
}

#[test]
fn the_same_with_any_number_of_threads() {
    let bench = bench();
    let with = |threads| {
        let mut result = bench.json(&["eval-embed", "moe", "--task", ALL, "--threads", threads, "--json"]);
        for run in result["runs"].as_array_mut().unwrap() {
            run["seconds"].take();
        }
        result
    };
    assert_eq!(with("1"), with("3"));
}

#[test]
fn what_is_there_is_not_computed_again() {
    let bench = bench();
    let base = ["eval-embed", "moe", "--task", "tasks/pairs.toml", "--prompt", "none", "--out", "out", "--json"];
    let first = bench.json(&base);
    let lines = std::fs::read_to_string(bench.path("out/moe.none.pairs.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    assert_eq!((&lines[3]["record"], &lines[3]["gold"]), (&json!(4), &json!(3.0)));
    assert!(lines.iter().all(|line| line["of"]["sum_standardised"].is_f64()));
    let page = std::fs::read_to_string(bench.path("out/results.html")).unwrap();
    assert!(page.contains("HS, projected at random") && page.contains("<svg"));

    let second = bench.json(&[&base[..], &["--prompt", "plain"]].concat());
    assert_eq!((&second["runs"][0]["resumed"], &second["runs"][1]["resumed"]), (&json!(true), &json!(false)));
    assert_eq!(second["runs"][0]["rows"], first["runs"][0]["rows"]);
    let refused = bench.refuse(&[&base[..], &["--alpha", "1"]].concat());
    assert!(refused.contains("is of a run with other settings"), "{refused}");
}

#[test]
fn a_table_for_people() {
    let bench = bench();
    let text =
        bench.succeed(&["eval-embed", "tiny", "--task", "tasks/topics.toml", "--limit", "6", "--max-tokens", "34"]);
    assert!(text.starts_with("topics · tiny · prompteol: 6 test texts of 8, "), "{text}");
    for part in ["HS, projected at random", "accuracy", "f1_macro", "sd", "texts were cut", "have no routers"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let list = bench.succeed(&["eval-embed", "--list"]);
    assert!(list.contains("bbc-topics-clusters") && list.contains("--data FILE"), "{list}");
}

#[test]
fn tasks_that_make_no_sense_are_refused() {
    let bench = bench();
    let task = |name: &str, text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        bench.write(&format!("tasks/{name}.toml"), text.replace(from, to));
    };
    task("key", PAIRS, "data =", "dat =");
    task("protocol", PAIRS, "\"sts\"", "\"similarity\"");
    task("gone", PAIRS, "pairs.tsv", "gone.tsv");
    task("field", PAIRS, "data =", "score = \"rating\"\ndata =");
    task("number", PAIRS, "data =", "score = \"sentence1\"\ndata =");
    task("package", PAIRS, "{ file = \"pairs.tsv\" }", "{ package = \"gensim\", file = \"simlex999.txt\" }");
    task("member", PAIRS, "{ file = \"pairs.tsv\" }", "{ package = \"gensim\", file = \"other.txt\" }");
    task("no-data", PAIRS, "{ file = \"pairs.tsv\" }", "{}");
    task("lists", PAIRS, "{ file = \"pairs.tsv\" }", "{ file = \"uneven.jsonl\" }");
    bench.write("tasks/uneven.jsonl", json!({"sentence1": ["a", "b"], "sentence2": ["a"], "score": 1}).to_string());
    let of = |task: &'static str| ["eval-embed", "tiny", "--task", task];
    let refused = bench.refuse_all(&[
        &["eval-embed", "tiny"],
        &["eval-embed", "--task", "tasks/pairs.toml"],
        &of("nothing"),
        &of("tasks/key.toml"),
        &of("tasks/protocol.toml"),
        &of("tasks/gone.toml"),
        &of("tasks/field.toml"),
        &of("tasks/number.toml"),
        &of("tasks/package.toml"),
        &of("tasks/member.toml"),
        &of("tasks/no-data.toml"),
        &of("tasks/lists.toml"),
        &of("tasks/pairs.toml,tasks/pairs.toml"),
        &of("lee"),
        &["eval-embed", "tiny", "--task", "tasks/pairs.toml", "--data", "tasks/pairs.tsv"],
        &["eval-embed", "tiny", "--task", "tasks/pairs.toml", "--alpha", "-1"],
        &["eval-embed", "tiny", "--task", "tasks/pairs.toml", "--alpha", "some"],
        &["eval-embed", "tiny", "--task", "tasks/pairs.toml", "--limit", "1"],
        &["eval-embed", "tiny", "--task", "tasks/pairs.toml", "--clusterings", "0"],
        &["eval-embed", "tiny", "--task", "tasks/pairs.toml", "--prompt", "eol"],
    ]);
    assert_same("eval_embed_refused", &refused);
}

#[test]
fn a_step_of_an_experiment_is_an_evaluation() {
    let bench = bench();
    let experiment = r#"
        title = "Two models"
        about = "Which vectors are better?"
        [[step]]
        name = "pairs {model}"
        for = { model = ["tiny", "moe"] }
        embed_eval = { models = ["{model}"], prompts = ["plain"], tasks = ["tasks/pairs.toml"] }
        [[figure]]
        name = "pairs"
        title = "Pairs"
        x = "rank correlation"
        rows = [["HS", "runs/0/rows/hs/scores/cosine_spearman"], ["sum", "runs/0/rows/sum/scores/cosine_spearman"]]
        series = [{ name = "dense", step = "pairs tiny" }, { name = "experts", step = "pairs moe" }]
        [[table]]
        title = "Pairs"
        steps = "pairs"
        columns = [["HS", "runs/0/rows/hs/scores/cosine_spearman"], ["sum", "runs/0/rows/sum/scores/cosine_spearman"]]
    "#;
    bench.write("small.toml", experiment);
    let result = bench.json(&["run", "small.toml", "--json"]);
    assert_eq!(result["steps"].as_array().unwrap().len(), 2);
    let page = std::fs::read_to_string(bench.path("RESULTS.md")).unwrap();
    let line = |name: &str| page.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    // A dense model has no sum.
    assert!(line("| pairs tiny").ends_with("| – |") && line("| pairs moe").matches('[').count() == 2, "{page}");
    let figure = std::fs::read_to_string(bench.path("small-figures/pairs.svg")).unwrap();
    let drawn = |mark: &str| figure.contains(mark);
    assert!(drawn("dense, HS: ") && drawn("experts, HS: ") && drawn("experts, sum: "), "{figure}");
    assert!(!drawn("dense, sum: "), "a dense model has no sum: {figure}");
    let again = bench.json(&["run", "small.toml", "--json"]);
    assert!(again["steps"].as_array().unwrap().iter().all(|step| step["cached"] == true));
}
