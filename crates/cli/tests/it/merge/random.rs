//! Random masks, threads, sizes of files, and runs that were interrupted.

use std::collections::BTreeMap;
use std::fs;

use super::{Weights, json_of, merged, moved, weights};
use crate::bench::Bench;
use crate::models::{copy, edit_tensors};
use crate::tensors::{self, Stored};

const DARE: &str = "
merge_method: dare_ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.6, density: 0.5}}
  - {model: b, parameters: {weight: 0.4, density: 0.3}}
";

const DELLA: &str = "
merge_method: della
base_model: base
models:
  - {model: a, parameters: {weight: 0.6, density: 0.5, epsilon: 0.2}}
  - {model: b, parameters: {weight: 0.4, density: 0.4}}
";

fn bench() -> Bench {
    let bench = Bench::new();
    copy(&bench, "llama", "base");
    moved(&bench, "a", 1, 0.1);
    moved(&bench, "b", 2, 0.1);
    bench
}

#[test]
fn a_result_depends_on_its_seed_and_on_nothing_else() {
    let bench = bench();
    for (method, yaml) in [("dare", DARE), ("della", DELLA)] {
        let out = |run: &str| format!("{method}-{run}");
        let whole = merged(&bench, yaml, &out("1"), &["--threads", "1"]);
        assert_eq!(merged(&bench, yaml, &out("2"), &["--threads", "2"]), whole);
        for size in ["1KB", "20KB", "60000"] {
            let folder = out(size);
            assert_eq!(merged(&bench, yaml, &folder, &["--shard-size", size]), whole, "{method} {size}");
            assert_indexed(&bench, &folder, &whole);
        }
        let seeded = merged(&bench, yaml, &out("seed"), &["--seed", "7"]);
        assert_ne!(seeded, whole);
        assert_eq!(merged(&bench, &format!("{yaml}seed: 7\n"), &out("yaml"), &[]), seeded);
        assert_eq!(merged(&bench, &format!("{yaml}seed: 7\n"), &out("flag"), &["--seed", "0"]), whole);
    }
}

/// Every tensor is in the file that the index names, and in no other; no file is larger than its only tensor needs.
fn assert_indexed(bench: &Bench, folder: &str, whole: &Weights) {
    let index = json_of(bench, &format!("{folder}/model.safetensors.index.json"));
    let files: BTreeMap<String, String> = serde_json::from_value(index["weight_map"].clone()).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    let bytes: usize = whole.values().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], bytes);
    let mut found = 0;
    for file in files.values().collect::<std::collections::BTreeSet<_>>() {
        for name in tensors::read(&bench.path(folder).join(file)).keys() {
            assert_eq!(&files[name], file);
            found += 1;
        }
    }
    assert_eq!(found, whole.len());
    bench.succeed(&["inspect", folder]);
}

#[test]
fn density_keeps_its_share_and_makes_up_for_the_rest() {
    let bench = bench();
    let yaml =
        "{merge_method: dare_linear, base_model: base, models: [{model: a, parameters: {weight: 1, density: 0.25}}]}";
    let out = merged(&bench, yaml, "out", &[]);
    let [base, a] = ["base", "a"].map(|folder| weights(&bench, folder));
    let (mut kept, mut all) = (0, 0);
    for (name, tensor) in &out {
        for ((out, base), a) in tensor.values().into_iter().zip(base[name].values()).zip(a[name].values()) {
            all += 1;
            if out.to_bits() != base.to_bits() {
                kept += 1;
                let expected = f64::from(base) + 4.0 * (f64::from(a) - f64::from(base));
                assert!((f64::from(out) - expected).abs() < 2e-6, "{name}: {out} instead of {expected}");
            }
        }
    }
    // Eight standard deviations of 36,000 draws.
    assert!((f64::from(kept) / f64::from(all) - 0.25).abs() < 0.02, "{kept} of {all}");
}

/// Adds a number to the last layer's last norm that no merge accepts.
fn spoil(bench: &Bench, folder: &str) {
    edit_tensors(bench, folder, |tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        let mut values = norm.values();
        values[5] = f32::INFINITY;
        *norm = Stored::f32(&norm.shape, &values);
    });
}

#[test]
fn an_interrupted_merge_goes_on_at_its_tensor() {
    let bench = bench();
    spoil(&bench, "b");
    bench.write("merge.yaml", DARE);
    let run = |out: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        [&["merge", "merge.yaml", "--shard-size", "20KB", "--out", out], more].concat()
    };
    bench.succeed(&run("whole", &["--allow-nonfinite"]));
    // A run that may go on keeps what it has when it ends at the infinite number.
    let outcome = bench.run(&run("out", &["--resume"]));
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("b: tensor `model.norm.weight` has inf at [5]"), "{}", outcome.stderr);
    assert!(bench.path("out.partial").exists() && !bench.path("out").exists());
    for folder in ["out", "out.partial"] {
        bench.refuse(&["inspect", folder]);
    }

    let refused = bench.refuse(&run("out", &["--allow-nonfinite"]));
    assert!(refused.contains("a merge was interrupted") && refused.contains("hint: go on with --resume"), "{refused}");
    for other in [["--seed", "3"], ["--dtype", "float16"], ["--shard-size", "60KB"]] {
        let more = [&["--allow-nonfinite", "--resume"][..], &other].concat();
        let arguments: Vec<&str> = match other {
            ["--shard-size", size] => {
                ["merge", "merge.yaml", "--shard-size", size, "--out", "out", "--allow-nonfinite", "--resume"].into()
            }
            _ => run("out", &more),
        };
        let refused = bench.refuse(&arguments);
        assert!(refused.contains("belongs to a run with other options"), "{refused}");
    }
    // Half a line of the record and a file that had only just been made.
    let record = bench.path("out.partial/merge-tensors.jsonl.partial");
    let mut bytes = fs::read(&record).unwrap();
    let done = bytes.iter().filter(|byte| **byte == b'\n').count() - 1;
    assert!(done > 5, "{done}");
    bytes.extend_from_slice(b"{\"item\":2");
    fs::write(&record, bytes).unwrap();
    let result = bench.json(&run("out", &["--allow-nonfinite", "--resume", "--json"]));
    assert_eq!(result["resumed"], done);
    assert!(!bench.path("out.partial").exists());
    assert_same_files(&bench, "whole", "out");
}

/// All files of two folders, but for names of folders and what was resumed.
fn assert_same_files(bench: &Bench, one: &str, two: &str) {
    let files = |folder: &str| -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(bench.path(folder)).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    };
    let (one, two) = (files(one), files(two));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(bytes == &two[name], "{name}");
    }
}

#[test]
fn a_killed_merge_leaves_nothing_that_opens_and_goes_on() {
    let bench = bench();
    // Layers enough that a kill comes before the end.
    let slices = "  - sources: [{model: FROM, layer_range: [0, 3]}]\n".repeat(40);
    for model in ["base", "a", "b"] {
        let yaml = format!("merge_method: passthrough\nslices:\n{}", slices.replace("FROM", model));
        merged(&bench, &yaml, &format!("{model}-tall"), &[]);
    }
    let yaml = ["base", "a", "b"].iter().fold(DARE.to_owned(), |yaml, model| {
        yaml.replace(&format!("model: {model}\n"), &format!("model: {model}-tall\n"))
            .replace(&format!("model: {model},"), &format!("model: {model}-tall,"))
    });
    let whole = merged(&bench, &yaml, "whole", &[]);
    assert_eq!(whole.len(), 3 + 120 * 9);
    let arguments = ["merge", "merge.yaml", "--shard-size", "2MB", "--out", "out"];
    bench.kill_after(&arguments, "out.partial/merge-tensors.jsonl.partial", 20);
    if bench.path("out.partial").exists() {
        assert!(!bench.path("out").exists());
        bench.refuse(&["inspect", "out.partial"]);
        let result = bench.json(&[&arguments[..], &["--resume", "--json"]].concat());
        assert!(result["resumed"].as_u64().unwrap() >= 20, "{}", result["resumed"]);
    }
    assert_eq!(weights(&bench, "out"), whole);
    bench.succeed(&["inspect", "out", "--load"]);
}
