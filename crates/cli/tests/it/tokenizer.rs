//! `lathe tune tokenizer`.

use serde_json::Value;

use crate::bench::{Bench, assert_same};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write(
        "a.txt",
        "the hen and the ten men then went there; the men were in the tent, and the hen was with them\n",
    );
    bench.write("b.jsonl", "{\"text\": \"low lower lowest\"}\n{\"text\": \"new newer newest, wide wider widest\"}\n{\"text\": \"low lower lowest new newer newest, wide wider widest\"}\n");
    bench
}

const USUAL: [&str; 8] = ["tune", "tokenizer", "--data", "a.txt", "b.jsonl", "--vocab-size", "280", "--out"];

#[test]
fn a_folder_that_a_tokenizer_is_read_from() {
    let bench = bench();
    let result = bench.json(&[&USUAL[..], &["t", "--json"]].concat());
    assert_eq!((result["vocab_size"].as_u64(), result["texts"].as_u64()), (Some(280), Some(4)));
    let read = |file: &str| std::fs::read(bench.path(file)).unwrap();
    let json: Value = serde_json::from_slice(&read("t/tokenizer.json")).unwrap();
    assert_eq!(json["model"]["vocab"].as_object().unwrap().len(), 280);
    assert_eq!(json["model"]["vocab"]["<|endoftext|>"], 0);
    assert_eq!(json["added_tokens"].as_array().unwrap().len(), 1);
    let config: Value = serde_json::from_slice(&read("t/tokenizer_config.json")).unwrap();
    assert_eq!((&config["eos_token"], &config["add_bos_token"]), (&"<|endoftext|>".into(), &false.into()));
    // The texts alone decide: other order, other threads, other sizes beside it.
    let order = ["tune", "tokenizer", "--data", "b.jsonl", "a.txt", "--vocab-size", "280", "--study", "285,257"];
    bench.succeed(&[&order[..], &["--threads", "1", "--out", "again"]].concat());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(read(&format!("t/{file}")), read(&format!("again/{file}")), "{file}");
    }
}

#[test]
fn a_study_of_sizes() {
    let bench = bench();
    let arguments = [&USUAL[..], &["t", "--study", "280,257,270"]].concat();
    assert_same("tokenizer_study", &bench.succeed(&arguments));
    std::fs::remove_dir_all(bench.path("t")).unwrap();
    let result = bench.json(&[&arguments[..], &["--json"]].concat());
    let study = result["study"].as_array().unwrap();
    let all = |field: &str| study.iter().map(|row| row[field].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("vocab_size"), [257, 270, 280]);
    assert_eq!(all("tokens")[0], result["bytes"].as_u64().unwrap(), "bytes alone");
    assert!(all("tokens").is_sorted_by(|a, b| a > b), "{study:?}");
    assert_eq!(study[2], result["counts"]);
}

#[test]
fn what_cannot_be_learnt_is_refused() {
    let bench = bench();
    bench.write("empty.txt", " \n");
    bench.write("bad.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n");
    bench.write("there/x", "");
    let with = |data: &'static str, size: &'static str, out: &'static str| {
        ["tune", "tokenizer", "--data", data, "--vocab-size", size, "--out", out]
    };
    let commands = [
        with("empty.txt", "300", "t"),
        with("bad.jsonl", "300", "t"),
        with("gone.txt", "300", "t"),
        with("a.txt", "256", "t"),
        with("a.txt", "100000", "t"),
        with("a.txt", "99999999", "t"),
        with("a.txt", "270", "there"),
        with("a.txt", "270", "no/such/t"),
    ];
    let study = [&with("a.txt", "270", "t")[..], &["--study", "300,3"]].concat();
    let far = [&with("a.txt", "270", "t")[..], &["--study", "5000"]].concat();
    let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).chain([&study[..], &far[..]]).collect();
    assert_same("tokenizer_refused", &bench.refuse_all(&commands));
}
