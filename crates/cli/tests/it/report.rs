//! `lathe report`: the files it writes and what it says.

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, reading, reading_less};
use crate::shape::shape;

/// Enough for the windows of the report.
const CONTEXT: usize = 512;

#[test]
fn of_one_model() {
    let bench = Bench::new();
    reading(&bench, "tiny", CONTEXT, Start::Token);
    let summary = bench.succeed(&["report", "tiny", "--out", "a/page"]);
    assert!(summary.ends_with("The page is a/page/index.html\n"), "{summary}");
    assert!(summary.lines().count() <= 40, "one screen:\n{summary}");
    assert!(summary.lines().all(|line| line.chars().count() <= 120), "{summary}");
    let names: Vec<_> =
        std::fs::read_dir(bench.path("a/page")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");

    assert_self_contained(&std::fs::read_to_string(bench.path("a/page/index.html")).unwrap());
    let report: Value = serde_json::from_slice(&std::fs::read(bench.path("a/page/report.json")).unwrap()).unwrap();
    assert_same("report_json", &shape(&report));
    assert_eq!(report["models"][0]["reference"], "tiny");
    assert_eq!(report["models"][0]["not_measured"], Value::Array(Vec::new()));
}

#[test]
fn of_two_models() {
    let bench = Bench::new();
    reading(&bench, "tiny", CONTEXT, Start::Nothing);
    reading_less(&bench, "other", CONTEXT, 9);
    let printed = bench.json(&["report", "tiny", "other", "--out", "page", "--json"]);
    let report: Value = serde_json::from_slice(&std::fs::read(bench.path("page/report.json")).unwrap()).unwrap();
    assert_eq!(printed, report);
    assert_same("report_of_two_json", &shape(&report));
    let pair = &report["comparison"]["pairs"][0];
    assert_eq!((&pair["left"], &pair["right"]), (&0.into(), &1.into()));
    assert_eq!(pair["merge"]["possible"], false, "the tokenizers differ");
    // The 20 joins that the second one lacks.
    assert_eq!(pair["vocabulary"]["left"].as_u64().unwrap() - pair["vocabulary"]["right"].as_u64().unwrap(), 20);
    assert_eq!(pair["vocabulary"]["shared_bytes"], pair["vocabulary"]["right"]);
    assert_self_contained(&std::fs::read_to_string(bench.path("page/index.html")).unwrap());
}

#[test]
fn a_report_replaces_the_one_before_and_repeats_its_numbers() {
    let bench = Bench::new();
    reading(&bench, "tiny", CONTEXT, Start::Token);
    bench.write("page/notes.txt", "mine");
    let run = |threads: &str| {
        bench.succeed(&["report", "tiny", "--out", "page", "--quiet", "--threads", threads]);
        let mut report: Value =
            serde_json::from_slice(&std::fs::read(bench.path("page/report.json")).unwrap()).unwrap();
        let model = &mut report["models"][0];
        model["speed"].take();
        for field in ["forward", "metric"] {
            model["spectrum"][field].take();
        }
        (report["models"].take(), report["comparison"].take())
    };
    assert_eq!(run("1"), run("2"));
    let mut files: Vec<_> = bench.files().into_iter().filter(|path| path.starts_with("page")).collect();
    files.sort();
    let expected = ["page", "page/index.html", "page/notes.txt", "page/report.json"];
    assert_eq!(files.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), expected);
}

/// No script, nothing loaded from anywhere, and at least four figures.
fn assert_self_contained(html: &str) {
    assert!(html.matches("<svg").count() >= 4, "{} figures", html.matches("<svg").count());
    let lower = html.to_lowercase();
    for loads in ["<script", "<link", "<iframe", "<img", "@import", "url(", " src=", "javascript:"] {
        assert!(!lower.contains(loads), "the page has {loads}");
    }
    // Namespaces and links that a reader may follow load nothing.
    let addresses = lower
        .match_indices("http")
        .filter(|(at, _)| lower[*at..].starts_with("http://") || lower[*at..].starts_with("https://"));
    for (at, _) in addresses {
        let before = &lower[..at];
        assert!(before.ends_with("xmlns=\"") || before.ends_with("<a href=\""), "{}", &lower[at - 40..at + 40]);
    }
}
