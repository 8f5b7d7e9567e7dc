//! `lathe embed analyse`.

use std::fs;

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::models::{Start, reading};

use super::{moe, texts};

#[test]
fn routers_beside_hidden_states() {
    let bench = Bench::new();
    moe(&bench, "moe");
    reading(&bench, "dense", 64, Start::Token);
    let label = |n: usize| ["cats", "weather", "numbers"][n % 3];
    let record = |(n, text): (usize, &String)| json!({"title": text, "topic": label(n)}).to_string() + "\n";
    bench.write("texts.jsonl", texts().iter().enumerate().map(record).collect::<String>());
    let arguments = ["embed", "analyse", "moe", "--input", "texts.jsonl", "--field", "title", "--label", "topic"];
    let found = bench.json(&[&arguments[..], &["--seeds", "2", "--out", "page.html", "--json"]].concat());
    let rows = found["clusters"]["rows"].as_array().unwrap();
    assert_eq!((found["clusters"]["clusters"].as_u64(), rows.len()), (Some(3), 6));
    for row in rows {
        let matched = row["matched"]["mean"]["value"].as_f64().unwrap();
        assert!((0.3..=1.0).contains(&matched), "{row}");
    }
    let correlations = found["prompts"]["correlations"].as_array().unwrap();
    assert_eq!(correlations.len(), 18);
    for (a, row) in correlations.iter().enumerate() {
        assert!((row[a]["value"].as_f64().unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(row.as_array().unwrap().len(), 18);
        assert!((0..18).all(|b| row[b] == correlations[b][a]));
    }
    let failures = &found["failures"];
    let sum: u64 =
        ["both", "only_hidden", "only_router", "neither"].iter().map(|part| failures[*part].as_u64().unwrap()).sum();
    assert_eq!((sum, failures["items"].as_u64()), (40, Some(40)));
    assert_eq!(found["usage"]["groups"], json!(["cats", "numbers", "weather"]));
    for layer in found["usage"]["layers"].as_array().unwrap() {
        let of_group = |shares: &Value| shares.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum::<f64>();
        for shares in layer["shares"].as_array().unwrap() {
            assert!((of_group(shares) - layer["top_k"].as_f64().unwrap()).abs() < 1e-9, "{layer}");
        }
    }
    let page = fs::read_to_string(bench.path("page.html")).unwrap();
    for panel in ["clusters", "prompts", "failures", "experts"] {
        assert!(page.contains(&format!("id=\"{panel}\"")), "{panel}");
    }
    assert!(!page.contains("NaN") && page.trim_end().ends_with("</html>"));
    // The same numbers again, whatever else the machine does.
    let again = bench.json(&[&arguments[..], &["--seeds", "2", "--json"]].concat());
    assert_eq!(
        (&again["clusters"], &again["prompts"], &again["usage"]),
        (&found["clusters"], &found["prompts"], &found["usage"])
    );

    let refused = bench.refuse(&["embed", "analyse", "dense", "--input", "texts.jsonl", "--field", "title"]);
    assert!(refused.contains("without expert layers (llama)"), "{refused}");
    let refused = bench.refuse(&[&arguments[..], &["--clusters", "50"]].concat());
    assert!(refused.contains("50 clusters of 40 texts"), "{refused}");
}

#[test]
fn pairs_that_people_scored() {
    let bench = Bench::new();
    moe(&bench, "moe");
    let texts = texts();
    let record = |n: usize| json!({"a": texts[n], "b": texts[(n * 3 + 1) % 40], "score": (n * 7 % 11) as f64 / 2.0});
    bench.write("pairs.jsonl", (0..30).map(|n| record(n).to_string() + "\n").collect::<String>());
    let arguments = ["embed", "analyse", "moe", "--input", "pairs.jsonl", "--pairs", "a,b", "--score"];
    let found = bench.json(&[&arguments[..], &["score", "--seeds", "1", "--clusters", "4", "--json"]].concat());
    assert_eq!((found["texts"].as_u64(), found["prompts"]["pairs"].as_u64()), (Some(60), Some(30)));
    assert_eq!(found["failures"]["items"], 30);
    let shown = bench.succeed(&[&arguments[..], &["score", "--seeds", "1", "--clusters", "4"]].concat());
    assert!(shown.contains("failing on 30 items") && shown.contains("control: HS and HS, another seed"), "{shown}");
    let one = bench.refuse(&["embed", "analyse", "moe", "--input", "pairs.jsonl", "--pairs", "a", "--score", "score"]);
    assert!(one.contains("--pairs: expected two fields"), "{one}");
    let refused = bench.refuse(&[&arguments[..], &["a"]].concat());
    assert!(refused.contains("field `a` is missing or no number"), "{refused}");
}
