//! `lathe run` with a tiny model.

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, reading};

const EXPERIMENT: &str = r#"
title = "Two rules"
about = "What do they do?"

[[step]]
name = "local {rule}"
for = { rule = { k4 = { top_k = 4 }, k40 = { top_k = 40 } } }
[step.generate]
model = "tiny"
prompts = { text = "the" }
samples = 24
decoding = { max_tokens = 5, sampling = "{rule}" }

[[step]]
name = "rejection {rule}"
for = { rule = ["k4", "k40"] }
select = { pool = "@local {rule}", samples = 6, normalise = { over = "rejection", draws = 24 } }

[[step]]
name = "imh {rule}"
for = { rule = ["k4", "k40"] }
select = { pool = "@local {rule}", samples = 6, normalise = { over = "imh", proposals = 4, keep = "last", supply = "fresh", filter = "nothing" } }

[[step]]
name = "compared {rule}"
for = { rule = ["k4", "k40"] }
measure_samples = { sets = ["@local {rule}", "@imh {rule}"] }

[[figure]]
name = "spread"
title = "Spread"
x = "k"
scale = "log"
y = "sd of log w"
points = { k4 = 4, k40 = 40 }
series = [{ name = "tiny", step = "imh {point}", path = "diagnostics/0/sd_log_w" }]

[[table]]
title = "Chains"
steps = "imh "
columns = [["acceptance", "diagnostics/0/acceptance"], ["sd", "diagnostics/0/sd_log_w"]]
"#;

fn bench() -> Bench {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    bench.write("e/small.toml", EXPERIMENT);
    bench
}

fn cached(bench: &Bench) -> Vec<(String, bool)> {
    let result = bench.json(&["run", "e/small.toml", "--json"]);
    let steps = result["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["name"].as_str().unwrap().to_owned(), step["cached"] == true)).collect()
}

#[test]
fn steps_are_done_once() {
    let bench = bench();
    let first = cached(&bench);
    assert_eq!(first.len(), 8);
    assert!(first.iter().all(|(_, cached)| !cached));
    let page = std::fs::read_to_string(bench.path("e/RESULTS.md")).unwrap();
    assert!(page.starts_with("# Two rules\n\nWhat do they do?\n") && page.contains("| imh k40 | "), "{page}");
    let figure = std::fs::read_to_string(bench.path("e/small-figures/spread.svg")).unwrap();
    assert!(figure.starts_with("<svg xmlns=") && figure.contains("<style>"), "{figure}");
    assert!(cached(&bench).iter().all(|(_, cached)| *cached));
    assert_eq!(std::fs::read_to_string(bench.path("e/RESULTS.md")).unwrap(), page);

    // Another seed of one rule: what depends on it is done again, and nothing else.
    bench.write("e/small.toml", EXPERIMENT.replace("{ top_k = 4 }", "{ top_k = 5 }"));
    let again: Vec<String> = cached(&bench).into_iter().filter(|(_, cached)| !cached).map(|(name, _)| name).collect();
    assert_eq!(again, ["local k4", "rejection k4", "imh k4", "compared k4"]);
}

#[test]
fn a_step_that_chance_did_not_favour_is_said_so() {
    let bench = bench();
    let result = bench.json(&["run", "e/small.toml", "--json"]);
    let failed = |name: &str| {
        let steps = result["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap()["failed"].clone()
    };
    // The mass of four tokens of 128, five times: hardly one of 24 texts is accepted.
    assert!(failed("rejection k4").as_str().is_some_and(|why| why.contains("of 6 strings")), "{result}");
    assert_eq!(failed("imh k4"), Value::Null);
    let page = std::fs::read_to_string(bench.path("e/RESULTS.md")).unwrap();
    assert!(page.contains("## Steps without a result") && page.contains("| rejection k4 | 24 draws gave"), "{page}");
}

#[test]
fn experiments_that_make_no_sense_are_refused() {
    let bench = bench();
    bench.write("no.toml", "title = 3");
    bench.write("unknown.toml", EXPERIMENT.replace("@imh {rule}", "@gone"));
    bench.write("twice.toml", EXPERIMENT.replace("local {rule}", "local"));
    let refused = bench.refuse_all(&[
        &["run", "none.toml"],
        &["run", "no.toml"],
        &["run", "unknown.toml"],
        &["run", "twice.toml"],
    ]);
    assert_same("run_refused", &refused);
    bench.write("task.toml", EXPERIMENT.replace("select = {", "chose = {"));
    let outcome = bench.run(&["run", "task.toml"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`rejection k4`"), "{}", outcome.stderr);
}
