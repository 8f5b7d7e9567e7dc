//! What the program says about itself.

use crate::bench::{Bench, assert_same};

/// Every subcommand, nested ones included.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["report"],
    &["fetch"],
    &["models"],
    &["inspect"],
    &["trace"],
    &["generate"],
    &["ensemble"],
    &["ensemble", "determine"],
    &["chat"],
    &["eval"],
    &["eval", "compare"],
    &["embed"],
    &["embed", "search"],
    &["embed", "analyse"],
    &["eval-embed"],
    &["data"],
    &["data", "conflicts"],
    &["data", "instructions"],
    &["data", "context-critical"],
    &["diff"],
    &["export"],
    &["merge"],
    &["merge", "linear"],
    &["merge", "slerp"],
    &["merge", "residual"],
    &["merge", "protect"],
    &["merge", "lora"],
    &["merge", "extract"],
    &["merge", "explore"],
    &["tune"],
    &["tune", "full"],
    &["tune", "lora"],
    &["tune", "tokenizer"],
    &["upcycle"],
    &["bench"],
    &["measure"],
    &["measure", "spectrum"],
    &["measure", "tokens"],
    &["measure", "attention"],
    &["measure", "samples"],
    &["measure", "context"],
    &["run"],
    &["completions"],
];

#[test]
fn help() {
    let bench = Bench::new();
    for &command in COMMANDS {
        let help = bench.succeed(&[command, &["--help"]].concat());
        assert_same(&format!("help_{}", [&["lathe"], command].concat().join("_")), &help);
    }
}

#[test]
fn help_names_every_subcommand() {
    let bench = Bench::new();
    for (parent, first) in [
        (&[][..], 1),
        (&["measure"][..], 2),
        (&["data"][..], 2),
        (&["merge"][..], 2),
        (&["embed"][..], 2),
        (&["tune"][..], 2),
    ] {
        let help = bench.succeed(&[parent, &["--help"]].concat());
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let listed: Vec<&str> = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
        let listed: Vec<&str> = listed.into_iter().filter(|name| !name.is_empty() && *name != "help").collect();
        let known: Vec<&str> =
            COMMANDS.iter().filter(|c| c.len() == first && c.starts_with(parent)).map(|c| c[first - 1]).collect();
        assert_eq!(listed, known, "lathe {}", parent.join(" "));
    }
}

#[test]
fn version() {
    let bench = Bench::new();
    assert_eq!(bench.succeed(&["--version"]), concat!("lathe ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn no_command_is_answered_with_help() {
    let outcome = Bench::new().run(&[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    assert!(outcome.stderr.contains("Usage: lathe [OPTIONS] <COMMAND>"), "{}", outcome.stderr);
}

#[test]
fn completions_know_the_commands() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.succeed(&["completions", shell]);
        for word in ["report", "spectrum", "last-token"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
}

#[test]
fn a_flag_that_does_not_exist_is_a_wrong_input() {
    let bench = Bench::new();
    assert_same(
        "wrong_flags",
        &bench.refuse_all(&[
            &["reprot"],
            &["report", "--layers", "1"],
            &["inspect"],
            &["trace", "m", "--out", "t.safetensors"],
            &["trace", "m", "--ids", "1", "--text", "a", "--out", "t.safetensors"],
            &["measure", "tokens", "m"],
            &["measure", "attention", "m"],
            &["measure", "attention", "m", "--text", "a"],
            &["measure", "attention", "m", "--spans", "s.jsonl", "--text", "a", "--span", "a"],
            &["measure", "spectrum", "m", "a.txt", "--metrics", "norm"],
            &["completions", "sh"],
        ]),
    );
}
