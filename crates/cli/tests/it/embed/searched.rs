//! `lathe embed search`.

use std::fs;

use serde_json::Value;

use crate::bench::{Bench, assert_same};

use super::{moe, texts, write_records};

#[test]
fn a_text_finds_itself_by_the_settings_of_its_file() {
    let bench = Bench::new();
    moe(&bench, "moe");
    let texts = texts();
    write_records(&bench, "texts.jsonl", &texts);
    let settings = ["--kind", "sum", "--alpha", "auto", "--standardise", "corpus", "--prompt", "style", "--layer", "2"];
    for out in ["a.jsonl", "a.npy", "a.parquet"] {
        bench.succeed(&[&["embed", "moe", "--input", "texts.jsonl", "--out", out], &settings[..]].concat());
        let found =
            bench.json(&["embed", "search", out, "--query", &texts[5], "--query", &texts[8], "--top", "3", "--json"]);
        for (query, row) in [(0, 5), (1, 8)] {
            let query = &found["queries"][query];
            assert_eq!(query["found"].as_array().unwrap().len(), 3);
            assert_eq!(query["found"][0]["index"], row, "{out}: {query}");
            assert!((query["found"][0]["cosine"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{out}: {query}");
            assert!(query["found"][1]["cosine"].as_f64().unwrap() < 0.9999, "{out}: {query}");
            assert_eq!(query["found"][0]["text"].is_null(), out == "a.npy");
        }
        // A row looks for others.
        let of_row = bench.json(&["embed", "search", out, "--row", "5", "--top", "2", "--json"]);
        let (rows, texts) = (&of_row["queries"][0]["found"], &found["queries"][0]["found"]);
        assert_eq!((&rows[0]["index"], &rows[1]["index"]), (&texts[1]["index"], &texts[2]["index"]));
        // Vectors of a file, which are its own here.
        let of_file = bench.json(&["embed", "search", out, "--vectors", out, "--top", "1", "--json"]);
        for (row, query) in of_file["queries"].as_array().unwrap().iter().enumerate() {
            assert_eq!(query["found"][0]["index"], row, "{out}");
        }
    }
    // Files that were moved together, and vectors that no query can be scaled like.
    for file in ["a.npy", "a.npy.manifest.json", "a.npy.statistics.json"] {
        bench.write(&format!("moved/{file}"), fs::read(bench.path(file)).unwrap());
        fs::remove_file(bench.path(file)).unwrap();
    }
    let shown = bench.succeed(&["embed", "search", "moved/a.npy", "--query", &texts[5], "--top", "1"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((lines[1], lines[3]), ("cosine  row", "1.0000    5"), "{shown}");
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--standardise", "batch:20", "--out", "b.npy"]);
    let refused = bench.refuse(&["embed", "search", "b.npy", "--query", "a"]);
    assert!(refused.contains("scaled by their batch"), "{refused}");
    // Queries are rounded as the vectors were: a text that is there is found as itself, and a rounded file is another one.
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--out", "rounded.jsonl", "--compute", "bf16"]);
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--out", "exact.jsonl"]);
    let nearest = |file: &str, query: &[&str]| {
        let found = bench.json(&[&["embed", "search", file, "--top", "1", "--json"], query].concat());
        found["queries"][0]["found"][0].clone()
    };
    let (again, exact) =
        (nearest("rounded.jsonl", &["--query", &texts[5]]), nearest("exact.jsonl", &["--vectors", "rounded.jsonl"]));
    assert_eq!((&again["index"], &exact["index"]), (&5.into(), &0.into()));
    let cosine = |of: &Value| of["cosine"].as_f64().unwrap();
    assert!((cosine(&again) - 1.0).abs() < 1e-6, "{again}");
    assert!(cosine(&exact) < 1.0 - 1e-6 && cosine(&exact) > 0.99, "{exact}");
    // Fewer bits change little.
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--out", "small.npy", "--dtype", "int8"]);
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--out", "half.jsonl", "--dtype", "f16"]);
    for out in ["small.npy", "half.jsonl"] {
        let found = bench.json(&["embed", "search", out, "--query", &texts[5], "--top", "1", "--json"]);
        assert_eq!(found["queries"][0]["found"][0]["index"], 5, "{found}");
    }
}

#[test]
fn search_refused() {
    let bench = Bench::new();
    moe(&bench, "moe");
    write_records(&bench, "texts.jsonl", &["a".to_owned(), "b c".to_owned()]);
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--out", "a.jsonl"]);
    bench.succeed(&["embed", "moe", "--input", "texts.jsonl", "--out", "rw.npy", "--kind", "rw"]);
    fs::copy(bench.path("a.jsonl"), bench.path("bare.jsonl")).unwrap();
    bench.write("no.npy", "x");
    let mut said = bench.refuse_all(&[
        &["embed", "search", "a.jsonl"],
        &["embed", "search", "a.jsonl", "--query", "a", "--top", "0"],
        &["embed", "search", "a.jsonl", "--row", "2"],
        &["embed", "search", "a.jsonl", "--vectors", "rw.npy"],
        &["embed", "search", "a.jsonl", "--row", "0", "--instruction", "Find: "],
        &["embed", "search", "bare.jsonl", "--query", "a"],
        &["embed", "search", "no.npy", "--row", "0"],
        &["embed", "search", "missing.npy", "--row", "0"],
    ]);
    // Another model under the same name.
    crate::models::edit_tensors(&bench, "moe", |tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        *norm = crate::tensors::Stored::f32(
            &norm.shape.clone(),
            &norm.values().iter().map(|x| 2.0 * x).collect::<Vec<_>>(),
        );
    });
    said += "\n";
    said += &bench.refuse(&["embed", "search", "a.jsonl", "--query", "a"]);
    assert_same("embed_search_refused", &said);
}
