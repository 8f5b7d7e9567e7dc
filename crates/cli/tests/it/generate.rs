//! `lathe generate`, `lathe chat` and `lathe measure samples` on a tiny model that reads text.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, reading};

fn bench() -> Bench {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    bench.write("prompts.jsonl", "{\"prompt\": \"the sea\"}\n{\"prompt\": \"and the sand is\"}\n{\"prompt\": \"a\"}\n");
    bench
}

fn lines(bench: &Bench, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(bench.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_text_is_written_to_the_output_and_nothing_else() {
    let bench = bench();
    let arguments = ["generate", "tiny", "--prompt", "the sea", "--max-tokens", "12", "--temperature", "0"];
    let streamed = bench.succeed(&arguments);
    let record: Value = serde_json::from_str(&bench.succeed(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!(streamed, format!("{}\n", record["text"].as_str().unwrap()));
    assert_eq!(record["tokens"], 12);
    assert_eq!(record["ended"]["reason"], "length");
    assert_eq!(record["steps"].as_array().unwrap().len(), 12);
    assert!(record["steps"][0]["log_q"].as_f64() == Some(0.0), "greedy decoding is certain");
}

#[test]
fn a_file_does_not_depend_on_the_batch_or_on_being_killed() {
    let bench = bench();
    let run = |out: &str, more: &[&str]| {
        let common = [
            "generate",
            "tiny",
            "--prompts",
            "prompts.jsonl",
            "--samples",
            "4",
            "--max-tokens",
            "9",
            "--top-k",
            "12",
            "--alternatives",
            "2",
            "--seed",
            "3",
            "--out",
            out,
        ];
        bench.succeed(&[&common[..], more].concat());
        std::fs::read_to_string(bench.path(out)).unwrap()
    };
    let whole = run("a.jsonl", &["--batch", "1"]);
    assert_eq!(run("b.jsonl", &["--batch", "5"]), whole);
    assert_eq!(run("c.jsonl", &[]), whole);
    assert!(!bench.path("a.jsonl.partial").exists());
    let records = lines(&bench, "a.jsonl");
    let places: Vec<_> =
        records.iter().map(|r| (r["prompt"].as_u64().unwrap(), r["sample"].as_u64().unwrap())).collect();
    assert_eq!(places, (0..3).flat_map(|prompt| (0..4).map(move |sample| (prompt, sample))).collect::<Vec<_>>());

    // Complete files are not overwritten.
    assert_same("generate_in_the_way", &bench.refuse(&["generate", "tiny", "--prompt", "a", "--out", "a.jsonl"]));
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_file() {
    let bench = bench();
    let arguments = |out: &'static str, seed: &'static str| {
        [
            "generate",
            "tiny",
            "--prompt",
            "the",
            "--samples",
            "300",
            "--max-tokens",
            "40",
            "--batch",
            "2",
            "--top-p",
            "0.9",
            "--seed",
            seed,
            "--out",
            out,
        ]
    };
    bench.succeed(&arguments("whole.jsonl", "1"));
    bench.kill_after(&arguments("killed.jsonl", "1"), "killed.jsonl.partial", 10);
    let partial = bench.path("killed.jsonl.partial");
    if partial.exists() {
        // A string that was being appended, too.
        let mut text = std::fs::read(&partial).unwrap();
        text.extend_from_slice(b"{\"item\":7,\"pro");
        std::fs::write(&partial, text).unwrap();
        let refused = bench.refuse(&arguments("killed.jsonl", "2"));
        assert!(refused.contains("belongs to a run with other options"), "{refused}");
        let result: Value =
            serde_json::from_str(&bench.succeed(&[&arguments("killed.jsonl", "1")[..], &["--json"]].concat())).unwrap();
        let resumed = result["resumed"].as_u64().unwrap();
        assert!((9..=300).contains(&resumed), "{resumed}");
    }
    assert_eq!(
        std::fs::read_to_string(bench.path("killed.jsonl")).unwrap(),
        std::fs::read_to_string(bench.path("whole.jsonl")).unwrap()
    );
}

#[test]
fn every_sampler_writes_and_says_how_far_to_trust_it() {
    let bench = bench();
    let global = "generate tiny --prompt the --samples 6 --max-tokens 4 --normalise global --json";
    let global: Vec<&str> = global.split(' ').collect();
    for (sampler, more) in [
        ("imh", &["--proposals", "5"][..]),
        ("imh", &["--proposals", "5", "--burn-in", "2", "--bootstrap", "2", "--prune"]),
        ("sir", &["--proposals", "40"]),
        ("rejection", &["--max-draws", "5000"]),
        ("smc", &[]),
    ] {
        let out = format!("{sampler}-{}.jsonl", more.len());
        let outcome = bench.run(&[&global[..], &["--top-k", "60", "--sampler", sampler, "--out", &out], more].concat());
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let of = &result["diagnostics"][0];
        let expected = if more.contains(&"--burn-in") { 2 * 6 * 3 } else { 6 };
        assert_eq!(of["samples"], expected, "{sampler}");
        assert!(of["log_z"]["value"].as_f64().unwrap() < 0.0, "{sampler}");
        assert_eq!(lines(&bench, &out).len(), expected, "{sampler}");
        assert!(lines(&bench, &out)[0]["proposal"].is_u64(), "{sampler}");
    }
    // Rules that cut nothing: everything is accepted, in order.
    let whole = ["--top-p", "1", "--sampler", "rejection", "--out", "all.jsonl"];
    let json = bench.run(&[&global[..], &whole].concat());
    let of: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(of["diagnostics"][0]["acceptance"]["value"], 1.0);
    assert_eq!(of["diagnostics"][0]["sd_log_w"]["value"], 0.0);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let bench = bench();
    let tiny = |more: &[&'static str]| [&["generate", "tiny", "--prompt", "a"][..], more].concat();
    let global =
        |more: &[&'static str]| tiny(&[&["--normalise", "global", "--top-k", "4", "--sampler"][..], more].concat());
    let commands = [
        tiny(&["--top-k", "0"]),
        tiny(&["--top-p", "0"]),
        tiny(&["--top-p", "1.5"]),
        tiny(&["--temperature", "-1"]),
        tiny(&["--max-tokens", "0"]),
        tiny(&["--min-tokens", "9", "--max-tokens", "5"]),
        tiny(&["--samples", "0"]),
        tiny(&["--batch", "0"]),
        tiny(&["--stop", ""]),
        tiny(&["--normalise", "global"]),
        global(&["imh", "--proposals", "0"]),
        global(&["imh", "--proposals", "4", "--burn-in", "4"]),
        global(&["sir", "--proposals", "0"]),
        global(&["rejection", "--max-draws", "0"]),
        global(&["smc", "--resample-below", "2"]),
        tiny(&["--chat"]),
        vec!["generate", "tiny", "--prompt-ids", "5,9999"],
        vec!["generate", "tiny", "--prompts", "none.jsonl"],
        vec!["generate", "tiny", "--prompts", "prompts.jsonl", "--field", "body"],
        vec!["chat", "tiny"],
    ];
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    assert_same("generate_refused", &bench.refuse_all(&commands));
}

/// A template of one line for each turn.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}a:";

#[test]
fn a_conversation_has_a_history_commands_and_an_end() {
    let bench = bench();
    let names = serde_json::json!({
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE
    });
    bench.write("tiny/tokenizer_config.json", names.to_string());
    let talk = |typed: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lathe"))
            .args(["chat", "tiny", "--system", "s", "--temperature", "0", "--max-tokens", "3"])
            .current_dir(bench.path("."))
            .env("LATHE_HOME", bench.path("no-such-home"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (said, told) = talk("hi\n/nonsense\n\n/save talk.jsonl\n/reset\nhi\n/quit\nnever read\n");
    let replies: Vec<&str> = said.lines().collect();
    assert_eq!(replies.len(), 2, "{said}");
    assert_eq!(replies[0], replies[1], "after /reset the conversation is as it was");
    assert!(told.contains("/nonsense is no command") && told.contains("3 turns in talk.jsonl"), "{told}");
    let saved = lines(&bench, "talk.jsonl");
    let roles: Vec<&str> = saved.iter().map(|turn| turn["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(saved[2]["content"].as_str().unwrap(), replies[0].trim());

    // Too long for 64 positions: said, and the conversation goes on.
    let (said, told) = talk(&format!("{}\nhi\n", "long ".repeat(60)));
    assert!(told.contains("error: conversation:") && told.contains("/reset"), "{told}");
    assert_eq!(said.lines().next(), Some(replies[0]));

    // The same text as one prompt of `generate --chat`.
    let one = bench.succeed(&[
        "generate",
        "tiny",
        "--chat",
        "--system",
        "s",
        "--prompt",
        "hi",
        "--temperature",
        "0",
        "--max-tokens",
        "3",
    ]);
    assert_eq!(one.trim_end(), replies[0].trim_end());
}

#[test]
fn sets_of_texts_are_measured_and_compared() {
    let bench = bench();
    for (out, k) in [("narrow.jsonl", "2"), ("wide.jsonl", "100")] {
        bench.succeed(&[
            "generate",
            "tiny",
            "--prompt",
            "the sea",
            "--samples",
            "24",
            "--max-tokens",
            "16",
            "--top-k",
            k,
            "--out",
            out,
        ]);
    }
    let result = bench.json(&["measure", "samples", "narrow.jsonl", "wide.jsonl", "--model", "tiny", "--json"]);
    let number = |of: &Value, name: &str| {
        let list = of.as_array().unwrap();
        let found = list.iter().find(|number| number["name"] == name).unwrap_or_else(|| panic!("{name} in {of}"));
        found["value"]["value"].as_f64().unwrap()
    };
    let [narrow, wide] = [0, 1].map(|set: usize| &result["sets"][set]);
    assert!(number(&narrow["of_set"], "distinct-2") < number(&wide["of_set"], "distinct-2"));
    assert!(number(&narrow["means"], "log p as generated") > number(&wide["means"], "log p as generated"));
    assert!(number(&narrow["means"], "log w") < number(&wide["means"], "log w"));
    let records = lines(&bench, "wide.jsonl");
    let mean = records.iter().map(|record| record["log_p"].as_f64().unwrap()).sum::<f64>() / 24.0;
    assert!((number(&wide["means"], "log p as generated") - mean).abs() < 1e-9);
    let paired = result["paired"].as_array().unwrap();
    let log_p = paired.iter().find(|number| number["name"] == "log p as generated").unwrap();
    assert!(log_p["difference"]["value"]["value"].as_f64().unwrap() < 0.0);
    assert!(log_p["p_value"]["value"].as_f64().unwrap() < 0.01);
    let area = result["between"]["area"]["value"]["value"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&area));
    let same =
        bench.json(&["measure", "samples", "wide.jsonl", "--reference", "wide.jsonl", "--model", "tiny", "--json"]);
    assert!((same["sets"][0]["mauve"]["area"]["value"]["value"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    let text = bench.succeed(&["measure", "samples", "narrow.jsonl", "wide.jsonl", "--model", "tiny"]);
    assert!(text.contains("self-BLEU, against all others") && text.contains("second minus first"), "{text}");
    bench.write("bad.jsonl", "{\"text\": \"a\"}\n{\"body\": 1}\n");
    bench.write("empty.jsonl", "\n");
    assert_same(
        "measure_samples_refused",
        &bench.refuse_all(&[
            &["measure", "samples", "bad.jsonl"],
            &["measure", "samples", "empty.jsonl"],
            &["measure", "samples", "none.jsonl"],
            &["measure", "samples", "wide.jsonl", "--model", "tiny", "--max-tokens", "1"],
        ]),
    );
}
