//! The default model, where it has been fetched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lathe_model::reference::{Home, ModelReference, resolve};
use serde_json::Value;

use crate::bench::Bench;
use crate::measure::losses;
use crate::tensors;

const TEXT: &str =
    "Once upon a time there was a little girl who lived in a small house in the woods with her mother and father";

/// The cache folder that holds `smollm2`.
fn home() -> Option<PathBuf> {
    let found = Home::from_environment().and_then(|home| {
        let resolved = resolve(&"smollm2".parse::<ModelReference>()?, &home)?;
        // <home>/models/smollm2/model.gguf
        Ok(resolved.path.ancestors().nth(3).unwrap().to_owned())
    });
    match found {
        Ok(home) => Some(home),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn succeed(bench: &Bench, home: &Path, arguments: &[&str]) -> String {
    let outcome = bench.run_with(home, arguments);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "lathe {}", arguments.join(" "));
    outcome.stdout
}

#[test]
fn inspect() {
    let Some(home) = home() else { return };
    let facts: Value = serde_json::from_str(&succeed(&Bench::new(), &home, &["inspect", "smollm2", "--json"])).unwrap();
    assert_eq!(facts["parameters"], 134_515_008);
    assert_eq!(facts["tied_head"], true);
    let sizes = ["layers", "hidden_size", "feed_forward_width", "heads", "kv_heads", "context", "vocab_size"];
    assert_eq!(sizes.map(|size| facts[size].as_u64().unwrap()), [30, 576, 1536, 9, 3, 8192, 49_152]);
    let types = facts["element_types"].as_array().unwrap().iter();
    let types: BTreeMap<&str, u64> =
        types.map(|kind| (kind["element"].as_str().unwrap(), kind["tensors"].as_u64().unwrap())).collect();
    assert_eq!(types, BTreeMap::from([("Q4_1", 210), ("Q8_0", 1), ("F32", 61)]));
    assert_eq!((&facts["format"], &facts["family"]), (&"gguf".into(), &"llama".into()));
    assert!(facts["chat_template"].as_str().unwrap().contains("<|im_start|>"));
}

#[test]
fn losses_of_a_known_sentence() {
    let Some(home) = home() else { return };
    let bench = Bench::new();
    succeed(&bench, &home, &["trace", "smollm2", "--text", TEXT, "--take", "logits", "--out", "t.safetensors"]);
    let losses = losses(&tensors::read(&bench.path("t.safetensors")));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    // The first predicted token is left out, as in the reference value.
    assert!((mean(&losses[1..]) - 2.156).abs() <= 0.02, "{}", mean(&losses[1..]));

    bench.write("a.txt", TEXT);
    let result = succeed(&bench, &home, &["measure", "tokens", "smollm2", "a.txt", "--json"]);
    let result: Value = serde_json::from_str(&result).unwrap();
    let text = &result["report"]["text"];
    assert_eq!(text["tokens"].as_u64(), Some(losses.len() as u64));
    let nll = text["nll"]["value"]["value"].as_f64().unwrap();
    assert!((nll - mean(&losses)).abs() <= 1e-5, "{nll} instead of {}", mean(&losses));
}

#[test]
fn an_exported_folder_reads_and_predicts_the_same() {
    let Some(home) = home() else { return };
    let bench = Bench::new();
    let said = succeed(&bench, &home, &["export", "smollm2", "--to", "safetensors", "--out", "folder", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["elements"], serde_json::json!([{"element": "F32", "tensors": 272, "bytes": 538_060_032}]));
    let text = format!("{TEXT}: naïve 12345 日本語 🙂 <|im_start|>\n\n\tdef f(x):\n    return x\n");
    let [file, folder] = ["smollm2", "./folder"].map(|model| {
        succeed(&bench, &home, &["trace", model, "--text", &text, "--take", "logits", "--out", "t.safetensors"]);
        tensors::read(&bench.path("t.safetensors"))
    });
    assert_eq!(file["input_ids"], folder["input_ids"]);
    for (one, other) in losses(&file).into_iter().zip(losses(&folder)) {
        assert!((one - other).abs() <= 1e-4, "{one} and {other}");
    }
    let template = |model: &str| -> Value {
        let facts: Value = serde_json::from_str(&succeed(&bench, &home, &["inspect", model, "--json"])).unwrap();
        facts["chat_template"].clone()
    };
    assert_eq!(template("smollm2"), template("./folder"));
    assert!(bench.path("folder/LICENSE").exists());
}

/// The program runs with an empty PATH here ([`Bench::run_with`]), so it can't even find what it fetches with.
#[test]
fn a_second_fetch_touches_no_network() {
    let Some(home) = home() else { return };
    let said = succeed(&Bench::new(), &home, &["fetch", "smollm2"]);
    assert!(said.starts_with("smollm2 is here already; no network was used: "), "{said}");
    let bench = Bench::new();
    let first = bench.run(&["fetch", "smollm2"]);
    assert_eq!((first.code, first.stdout.as_str()), (1, ""), "a first one needs Python");
    assert!(first.stderr.contains("hint: install Python 3 with pip"), "{}", first.stderr);
}
