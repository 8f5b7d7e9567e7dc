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

const TRAINED: &str = r#"
title = "Two children"
about = "Does training help?"

[[step]]
name = "child {text}"
for = { text = ["a", "b"] }
[step.tune]
model = "tiny"
sources = [{ texts = { data = ["{text}.jsonl"], part = "training" } }]
window = 24
tokens = 48
steps = 12
learning_rate = 0.01
seed = 1

[[step]]
name = "grandchild"
[step.tune]
model = "@child a"
sources = [{ texts = { data = ["a.jsonl"] } }, { texts = { data = ["b.jsonl"] }, share = 0.5 }]
window = 24
tokens = 48
steps = 2
learning_rate = 0.01
warm_up = 2
seed = 1
dtype = "bf16"

[[step]]
name = "{model} on {text}"
for = { model = { tiny = "tiny", a = "@child a", b = "@child b", mixed = "@grandchild" }, text = ["a", "b"] }
measure_tokens = { model = "{model}", texts = { data = ["{text}.jsonl"], part = "held_out" }, window = 24, seed = 0 }

[[table]]
title = "Losses"
steps = "tiny on"
columns = [["bits per byte", "report/text/bits_per_byte"]]
"#;

/// Sixty short texts of few words.
fn records(words: [&str; 4]) -> String {
    let record = |i: usize| {
        let word = |shift: u32| words[i >> shift & 3];
        serde_json::json!({"text": format!("{} {} {} {}", word(0), word(2), word(4), words[(i + 1) % 4])}).to_string()
    };
    (0..60).map(record).collect::<Vec<_>>().join("\n")
}

#[test]
fn children_are_trained_once_and_measured() {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    bench.write("a.jsonl", records(["the", "in", "and", "of"]));
    bench.write("b.jsonl", records(["QX", "7Z", "JK!", "#V"]));
    bench.write("e/small.toml", TRAINED);
    assert!(cached(&bench).iter().all(|(_, cached)| !cached));
    assert!(cached(&bench).iter().all(|(_, cached)| *cached));
    let results = std::fs::read_dir(bench.path("e/out")).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = results.partition(|path| path.is_dir());
    let kept: Vec<Value> =
        files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()).collect();
    let of = |name: &str| &kept.iter().find(|kept| kept["name"] == name).unwrap()["result"];
    let bits = |name: &str| of(name)["report"]["text"]["bits_per_byte"]["value"]["value"].as_f64().unwrap();
    for (own, other) in [("a", "b"), ("b", "a")] {
        let (before, after) = (bits(&format!("tiny on {own}")), bits(&format!("{own} on {own}")));
        assert!(after < 0.9 * before, "{own}: from {before} to {after}");
        assert!(after < bits(&format!("{other} on {own}")), "{own}");
    }
    assert_ne!(bits("mixed on a"), bits("a on a"));
    assert_eq!(of("child a")["losses"].as_array().unwrap().len(), 12);

    // A model that was removed is trained again, to the same bytes; what was measured of it stays.
    let out = of("child a")["out"].as_str().unwrap().to_owned();
    let weights = bench.path(&out).join("model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    assert_eq!(folders.len(), 3);
    std::fs::remove_dir_all(bench.path(&out)).unwrap();
    let again: Vec<String> = cached(&bench).into_iter().filter(|(_, cached)| !cached).map(|(name, _)| name).collect();
    assert_eq!(again, ["child a"]);
    assert!(before == std::fs::read(&weights).unwrap());

    // Other settings of a child: what was made of it is made again.
    bench.write("e/small.toml", TRAINED.replacen("seed = 1", "seed = 2", 1));
    assert!(cached(&bench).iter().all(|(name, cached)| *cached == name.starts_with("tiny")));
}

#[test]
fn training_that_makes_no_sense_is_refused() {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    bench.write("a.jsonl", records(["the", "in", "and", "of"]));
    bench.write("b.jsonl", records(["QX", "7Z", "JK!", "#V"]));
    for (from, to, said) in [
        ("steps = 12", "steps = 0", "steps: no step is nothing to do"),
        ("window = 24", "window = 65", "tokens: a window of 65 does not fit a step of 48 tokens"),
        ("learning_rate = 0.01", "learning_rate = 0.0", "learning_rate: 0 is no learning rate"),
        ("learning_rate = 0.01", "learning_rat = 0.01", "unknown field `learning_rat`"),
        ("seed = 1", "seed = 1\ndtype = \"q4_0\"", "weights of a safetensors folder are not stored as Q4_0"),
        ("seed = 1", "seed = 1\nlearning_rate = 1e30", "duplicate key"),
        ("learning_rate = 0.01", "learning_rate = 1e30", "is not finite"),
        ("@child a", "@child c", "no step before it is called `child c`"),
    ] {
        bench.write("e/small.toml", TRAINED.replacen(from, to, 1));
        let outcome = bench.run(&["run", "e/small.toml"]);
        assert_eq!(outcome.code, 2, "{to}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{to}: {}", outcome.stderr);
    }
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
