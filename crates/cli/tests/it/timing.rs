//! `lathe bench`: what it counts and what it says; never how fast anything is.

use serde_json::json;

use crate::bench::Bench;
use crate::models::copy;

#[test]
fn every_run_is_counted() {
    let bench = Bench::new();
    copy(&bench, "qwen2_moe", "model");
    let arguments = ["bench", "model", "--prompt", "8", "--decode", "4", "--batch", "1,3", "--runs", "2"];
    let result = bench.json(&[&arguments[..], &["--json", "--threads", "1"]].concat());
    assert_eq!(result["threads"], 1);
    assert!(result["ceiling"]["gflops"].as_f64().unwrap() > 0.0);
    assert!(result["ceiling"]["read_gbytes"].as_f64().unwrap() > 0.0);
    let model = &result["models"][0];
    assert!(model["weight_bytes"].as_u64().unwrap() > 10_000);
    let rows = model["rows"].as_array().unwrap();
    let of = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    let whats = [
        "reading 8 tokens, logits of all",
        "reading 8 tokens, logits of the last",
        "writing 4 tokens, 1 at once",
        "writing 4 tokens, 3 at once",
    ];
    assert_eq!(of("what"), whats);
    assert_eq!(of("tokens"), [8, 8, 4, 12]);
    for row in rows {
        let seconds: Vec<f64> = row["seconds"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
        assert_eq!(seconds.len(), 2);
        let (rate, tokens) = (row["rate"].as_f64().unwrap(), row["tokens"].as_f64().unwrap());
        assert!((rate - tokens / f64::midpoint(seconds[0], seconds[1])).abs() < 1e-6 * rate);
        assert!(row["range"][0].as_f64() <= Some(rate) && Some(rate) <= row["range"][1].as_f64());
    }
    let text = bench.succeed(&arguments);
    assert!(whats.iter().all(|what| text.contains(what)), "{text}");
}

#[test]
fn coarse_arithmetic_is_timed_where_it_is_asked_for_and_named() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    bench.succeed(&["export", "model", "--to", "gguf", "--dtype", "q8_0", "--out", "small.gguf"]);
    let arguments = ["bench", "small.gguf", "--prompt", "8", "--decode", "2", "--batch", "2", "--runs", "1"];
    let coarse = [&arguments[..], &["--compute", "f32,bf16,native"]].concat();
    let result = bench.json(&[&coarse[..], &["--json"]].concat());
    let models = result["models"].as_array().unwrap();
    let of = |key: &str| models.iter().map(|model| model[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("compute"), ["f32", "bf16", "native"]);
    // bf16 takes two bytes of what the file keeps in a little more than one.
    assert!(models[1]["weight_bytes"].as_u64() > models[0]["weight_bytes"].as_u64());
    assert_eq!(models[2]["weight_bytes"], models[0]["weight_bytes"]);
    assert!(models.iter().all(|model| model["rows"].as_array().unwrap().len() == 3), "{result}");
    for rate in ["gflops", "bf16_gflops", "int8_gops"] {
        assert!(result["ceiling"][rate].as_f64().unwrap() > 0.0, "{rate}");
    }
    let text = bench.succeed(&coarse);
    for name in ["computed in f32", "computed in bf16 (", "computed in the file's precision ("] {
        assert!(text.contains(&format!("small.gguf, {name}")), "{text}");
    }
    let refusal = bench.refuse(&[&coarse[..], &["--low-memory"]].concat());
    assert!(refusal.contains("--compute: weights that stay in their files are multiplied in f32"), "{refusal}");
    let training = ["bench", "small.gguf", "--training", "lora", "--runs", "1", "--compute"];
    let result = bench.json(&[&training[..], &["f32,bf16", "--json"]].concat());
    let of_each =
        |i: usize| (result["models"][i]["compute"].clone(), result["models"][i]["methods"][0]["what"].clone());
    let step = "lora step of 4 x 256 tokens";
    assert_eq!([of_each(0), of_each(1)], [("f32".into(), step.into()), ("bf16".into(), step.into())]);
    let refusal = bench.refuse(&[&training[..], &["native"]].concat());
    assert!(refusal.contains("--compute: training multiplies floats"), "{refusal}");
}

#[test]
fn a_profile_says_where_the_time_goes() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    let arguments = ["bench", "model", "--prompt", "8", "--decode", "4", "--batch", "1,3", "--runs", "2"];
    assert_eq!(bench.json(&[&arguments[..], &["--json"]].concat())["models"][0]["profiles"], json!([]));
    let result = bench.json(&[&arguments[..], &["--json", "--profile"]].concat());
    let profiles = result["models"][0]["profiles"].as_array().unwrap();
    let whats = ["reading 8 tokens, logits of all", "a step of writing, 1 at once", "a step of writing, 3 at once"];
    assert_eq!(profiles.iter().map(|pass| pass["what"].clone()).collect::<Vec<_>>(), whats);
    for pass in profiles {
        let phases = pass["phases"].as_array().unwrap();
        let names = [
            "embedding",
            "norm",
            "query_key_value",
            "rotary",
            "attention",
            "output",
            "feed_forward",
            "residual",
            "head",
            "other",
        ];
        assert_eq!(phases.iter().map(|phase| phase["phase"].clone()).collect::<Vec<_>>(), names);
        let sum: f64 = phases.iter().map(|phase| phase["share"].as_f64().unwrap()).sum();
        assert!(0.0 < sum && sum <= 1.0 + 1e-9, "{pass}");
        assert!(phases[0]["gflops"].is_null() && phases[2]["gflops"].as_f64() > Some(0.0), "{pass}");
    }
    let text = bench.succeed(&[&arguments[..], &["--profile"]].concat());
    assert!(whats.iter().all(|what| text.contains(&format!("\n{what}, the average of "))), "{text}");
    assert!(text.contains("query, key, value") && !text.contains("experts"), "{text}");
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let bench = Bench::new();
    copy(&bench, "llama", "model");
    let refused = |more: &[&str]| bench.refuse(&[&["bench", "model"], more].concat());
    assert!(refused(&["--runs", "0"]).contains("--runs: 0 runs say nothing"));
    assert!(refused(&["--batch", "1,0"]).contains("0 tokens take no time"));
    let error = refused(&["--prompt", "65"]);
    assert!(error.contains("80 tokens do not fit the context of 64 of model"), "{error}");
}

/// A context too short for a method is a note in its row, and the rest is timed.
#[test]
fn methods_are_timed_where_the_context_is_long_enough() {
    let bench = Bench::new();
    copy(&bench, "llama", "short");
    let config = std::fs::read_to_string(bench.path("short/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["max_position_embeddings"] = 600.into();
    copy(&bench, "llama", "model");
    bench.write("model/config.json", config.to_string());
    let arguments =
        ["bench", "model", "short", "--prompt", "8", "--decode", "1", "--batch", "1", "--runs", "1", "--methods"];
    let result = bench.json(&[&arguments[..], &["--json"]].concat());
    let whats = [
        "scoring a text of 512 tokens",
        "spectrum: matrix nuclear norm of 512 tokens",
        "spectrum: matrix entropy of 512 tokens",
        "attention column sums of 2048 tokens",
        "training step of 4 x 256 tokens",
        "lora step of 4 x 256 tokens",
    ];
    for (model, timed) in [(0, [true, true, true, false, true, true]), (1, [false; 6])] {
        let rows = result["models"][model]["methods"].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["what"].as_str().unwrap()).collect::<Vec<_>>(), whats);
        for (row, timed) in rows.iter().zip(timed) {
            assert_eq!((row["timing"].is_object(), row["note"].is_null()), (timed, timed), "{row}");
            if timed {
                let timing = &row["timing"];
                assert_eq!(timing["seconds"].as_array().unwrap().len(), 1);
                let (rate, median) = (timing["rate"].as_f64().unwrap(), timing["median"].as_f64().unwrap());
                assert!((rate * median - row["tokens"].as_f64().unwrap()).abs() < 1e-6 * rate * median);
            } else {
                assert!(row["note"].as_str().unwrap().contains("tokens do not fit the context of"), "{row}");
            }
        }
    }
    let compared: Vec<_> = result["models"][0]["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["beside"]["comparison"].as_str())
        .collect();
    assert_eq!(compared, [Some("speed"), Some("time"), Some("time"), None, None, None]);
    let without_model = &result["methods"][0];
    assert_eq!(without_model["what"], "matrix nuclear norm of 512 x 2048");
    assert!(without_model["timing"]["median"].as_f64() > Some(0.0));
    let text = bench.succeed(&arguments);
    assert!(whats.iter().all(|what| text.contains(what)), "{text}");
    assert!(text.contains("2048 tokens do not fit the context of 600"), "{text}");
}
