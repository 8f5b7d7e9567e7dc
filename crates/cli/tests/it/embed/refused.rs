//! What cannot be embedded, and what cannot be asked for.

use crate::bench::{Bench, assert_same};
use crate::models::{Start, reading};

use super::{moe, write_records};

#[test]
fn embed_refused() {
    let bench = Bench::new();
    moe(&bench, "moe");
    reading(&bench, "dense", 64, Start::Token);
    write_records(&bench, "texts.jsonl", &["a".to_owned(), "b c".to_owned(), "d".to_owned()]);
    bench.write("numbers.jsonl", "{\"text\": \"a\"}\n{\"text\": 7}\n");
    bench.write("empty.txt", "\n \n");
    bench.write("torn.json", "{");
    let dense = ["embed", "dense", "--text", "a"];
    let with = |more: &[&'static str]| [&["embed", "moe", "--text", "a"], more].concat();
    let from = |more: &[&'static str]| [&["embed", "moe", "--input", "texts.jsonl"], more].concat();
    let commands = [
        [&dense[..], &["--kind", "rw"]].concat(),
        [&dense[..], &["--kind", "sum"]].concat(),
        [&dense[..], &["--router-layers", "1"]].concat(),
        [&dense[..], &["--template", "no place"]].concat(),
        [&dense[..], &["--prompt", "eol"]].concat(),
        [&dense[..], &["--layer", "3,9"]].concat(),
        [&dense[..], &["--max-tokens", "5"]].concat(),
        vec!["embed", "moe", "--prompt", "plain", "--text", ""],
        vec!["embed", "moe", "--prompt", "echo", "--text", ""],
        with(&["--alpha", "-1"]),
        with(&["--alpha", "nan"]),
        with(&["--alpha", "much"]),
        with(&["--kind", "sum", "--alpha", "auto"]),
        with(&["--standardise", "batch:1"]),
        with(&["--standardise", "batch:0"]),
        with(&["--standardise", "batch:2"]),
        with(&["--standardise", "corpus"]),
        with(&["--standardise", "often"]),
        with(&["--statistics", "torn.json"]),
        with(&["--statistics", "missing.json"]),
        with(&["--filter", "0.5"]),
        with(&["--dtype", "f16", "--out", "a.parquet"]),
        with(&["--out", "a.csv"]),
        from(&["--out", "a.npy", "--field", "title"]),
        from(&["--out", "a.npy", "--standardise", "batch:2"]),
        from(&["--out", "a.npy", "--router-layers", "7"]),
        from(&[]),
        vec!["embed", "moe", "--input", "numbers.jsonl", "--out", "a.npy"],
        vec!["embed", "moe", "--input", "empty.txt", "--out", "a.npy"],
        vec!["embed", "moe", "--input", "missing.jsonl", "--out", "a.npy"],
        vec!["embed", "moe"],
    ];
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    assert_same("embed_refused", &bench.refuse_all(&commands));
}
