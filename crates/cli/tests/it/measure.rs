//! `lathe measure` on a tiny model that reads text: the form of its JSON, and its numbers computed a second time from
//! what `lathe trace` saves.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, edit_tensors, reading, token_texts};
use crate::shape::shape;
use crate::tensors::{self, Stored};

const TEXT: &str = "the sea is old, and the sand is white; one heron stands in it";

fn bench() -> Bench {
    let bench = Bench::new();
    reading(&bench, "tiny", 64, Start::Token);
    bench.write("a.txt", TEXT);
    bench.write("b.txt", "then the wind went away. All was still on the water, and we waited for the other boats.");
    bench.write("c.jsonl", "{\"body\": \"one\\ntwo\"}\n{\"body\": \"three, four and five\"}\n");
    bench
}

fn trace(bench: &Bench, model: &str, text: &str) -> BTreeMap<String, Stored> {
    let take = "logits,hidden_states,attentions";
    bench.succeed(&["trace", model, "--text", text, "--take", take, "--out", "t.safetensors"]);
    tensors::read(&bench.path("t.safetensors"))
}

fn number(value: &Value) -> f64 {
    value["value"].as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} instead of {expected}");
}

/// NLL of each token after the first, from the logits.
pub(crate) fn losses(trace: &BTreeMap<String, Stored>) -> Vec<f64> {
    let targets = trace["input_ids"].ids();
    let logits = trace["logits"].rows();
    let loss = |(row, target): (&Vec<f64>, &i64)| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|logit| (logit - largest).exp()).sum();
        largest + sum.ln() - row[*target as usize]
    };
    logits.iter().zip(&targets[1..]).map(loss).collect()
}

#[test]
fn tokens_agree_with_the_logits() {
    let bench = bench();
    let result = bench.json(&["measure", "tokens", "tiny", "a.txt", "--json"]);
    let report = &result["report"];
    let losses = losses(&trace(&bench, "tiny", TEXT));
    let (tokens, sum) = (losses.len() as f64, losses.iter().sum::<f64>());
    let text = &report["text"];
    assert_eq!((report["documents"].as_u64(), text["tokens"].as_u64()), (Some(1), Some(losses.len() as u64)));
    assert_eq!(text["bytes"].as_u64(), Some(TEXT.len() as u64), "the start token is predicted from, never predicted");
    assert_close(number(&text["nll"]["value"]), sum / tokens, 1e-6);
    assert_close(number(&text["perplexity"]["value"]).ln(), sum / tokens, 1e-6);
    assert_close(number(&text["bits_per_byte"]["value"]), sum / 2f64.ln() / TEXT.len() as f64, 1e-6);
    assert_eq!(text["nll"]["interval"]["reason"], "one_unit");
}

#[test]
fn types_are_averaged_over_types() {
    let bench = bench();
    let report = &bench.json(&["measure", "tokens", "tiny", "a.txt", "--json"])["report"];
    let trace = trace(&bench, "tiny", TEXT);
    let mut of_type: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (target, loss) in trace["input_ids"].ids()[1..].iter().zip(losses(&trace)) {
        of_type.entry(*target).or_default().push(loss);
    }
    let mean = |losses: &Vec<f64>| losses.iter().sum::<f64>() / losses.len() as f64;
    let macro_nll = of_type.values().map(mean).sum::<f64>() / of_type.len() as f64;
    let types = &report["types"];
    assert_eq!(types["types"].as_u64(), Some(of_type.len() as u64));
    assert_close(number(&types["macro_nll"]["value"]), macro_nll, 1e-6);
    let bins = types["bins"].as_array().unwrap();
    let in_bin = |low: usize, high: usize| of_type.values().filter(move |losses| (low..=high).contains(&losses.len()));
    // Powers of 3: once or twice, then 3 to 8 times.
    for (bin, (low, high)) in bins.iter().zip([(1, 2), (3, 8)]) {
        let losses: Vec<f64> = in_bin(low, high).map(mean).collect();
        assert_eq!(bin["types"].as_u64(), Some(losses.len() as u64), "{bin}");
        assert_close(number(&bin["nll"]["value"]), mean(&losses), 1e-6);
    }
    assert_eq!(bins.iter().map(|bin| bin["types"].as_u64().unwrap()).sum::<u64>(), of_type.len() as u64);
}

#[test]
fn a_long_text_is_predicted_to_its_end() {
    let bench = bench();
    let long = format!("{TEXT} ").repeat(9);
    bench.write("long.txt", &long);
    let text = &bench.json(&["measure", "tokens", "tiny", "long.txt", "--json"])["report"]["text"];
    assert_eq!(text["bytes"].as_u64(), Some(long.len() as u64));
    let narrow = &bench.json(&["measure", "tokens", "tiny", "long.txt", "--window", "16", "--json"])["report"]["text"];
    assert_eq!(narrow["tokens"], text["tokens"]);
    assert_ne!(narrow["nll"]["value"], text["nll"]["value"], "less context, other losses");
}

#[test]
fn spectrum_agrees_with_the_hidden_states() {
    let bench = bench();
    let trace = trace(&bench, "tiny", TEXT);
    let tokens = trace["input_ids"].shape[0].to_string();
    let result = bench.json(&["measure", "spectrum", "tiny", "a.txt", "--window", &tokens, "--every-layer", "--json"]);
    assert_eq!((result["windows"].as_u64(), result["hidden_size"].as_u64()), (Some(1), Some(32)));
    let layers = result["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    for (index, layer) in layers.iter().enumerate() {
        assert_eq!(layer["layer"].as_u64(), Some(index as u64));
        let (expected, cap) = matrix_nuclear_norm(&trace[&format!("hidden_states.{index}")].rows());
        let summary = &layer["summary"];
        assert_close(number(&summary["mnn"]["mean"]["value"]), expected, 1e-6);
        assert_close(number(&summary["mnn_cap"]["mean"]["value"]), cap, 1e-12);
        let null = number(&summary["mnn_null"]["mean"]["value"]);
        assert!(null > 0.0 && null <= cap, "{null} against {cap}");
        assert_close(number(&summary["mnn_corrected"]["mean"]["value"]), expected / null, 1e-6);
    }
    // Without --every-layer: the last of them and nothing else.
    let last = bench.json(&["measure", "spectrum", "tiny", "a.txt", "--window", &tokens, "--json"]);
    assert_eq!(last["layers"].as_array().unwrap()[..], layers[3..]);
}

/// Rows centred on their mean and scaled to length 1; the sum of the D largest column norms over N, and sqrt(D / N), with
/// D = min(N, d).
fn matrix_nuclear_norm(rows: &[Vec<f64>]) -> (f64, f64) {
    let (n, d) = (rows.len(), rows[0].len());
    let means: Vec<f64> = (0..d).map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n as f64).collect();
    let mut squares = vec![0.0; d];
    for row in rows {
        let centred: Vec<f64> = row.iter().zip(&means).map(|(value, mean)| value - mean).collect();
        let length: f64 = centred.iter().map(|value| value * value).sum();
        centred.iter().zip(&mut squares).for_each(|(value, square)| *square += value * value / length);
    }
    let mut norms: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
    norms.sort_by(|a, b| b.total_cmp(a));
    let kept = n.min(d);
    (norms[..kept].iter().sum::<f64>() / n as f64, (kept as f64 / n as f64).sqrt())
}

#[test]
fn attention_agrees_with_the_matrices() {
    let bench = bench();
    let span = "sand is white";
    let result = bench.json(&["measure", "attention", "tiny", "--text", TEXT, "--span", span, "--json"]);
    let trace = trace(&bench, "tiny", TEXT);
    let ids = trace["input_ids"].ids();
    let (positions, excluded) = span_positions(&ids, TEXT.find(span).unwrap()..TEXT.find(span).unwrap() + span.len());
    let found = &result["spans"][0];
    assert_eq!(found["positions"], Value::from(positions.clone()));
    assert_eq!(found["excluded"], Value::from(excluded.clone()));
    let heads = found["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 3 * 4);
    for head in heads {
        let (layer, index) = (head["layer"].as_u64().unwrap(), head["head"].as_u64().unwrap() as usize);
        let rows = trace[&format!("attentions.{layer}")].rows();
        let rows = &rows[index * ids.len()..][..ids.len()];
        let share = shares(rows, &positions, &excluded);
        assert_close(number(&head["share"]), share.summed, 1e-6);
        assert_close(number(&head["raw_share"]), share.raw, 1e-6);
        assert_close(number(&head["renormalised_share"]), share.renormalised, 1e-6);
        assert_close(number(&head["sink_share"]), share.sink, 1e-6);
        // The same under attention that is even over what each query sees.
        let even: Vec<Vec<f64>> = (0..ids.len())
            .map(|query| (0..ids.len()).map(|key| if key <= query { 1.0 / (query + 1) as f64 } else { 0.0 }).collect())
            .collect();
        let uniform = shares(&even, &positions, &excluded);
        assert_close(number(&head["lift"]), share.summed / uniform.summed, 1e-5);
        assert_eq!(head["controls"].as_u64(), Some(100));
    }
}

struct Shares {
    summed: f64,
    raw: f64,
    renormalised: f64,
    sink: f64,
}

fn shares(rows: &[Vec<f64>], span: &[usize], excluded: &[usize]) -> Shares {
    let on = |row: &Vec<f64>, keys: &[usize]| keys.iter().map(|key| row[*key]).sum::<f64>();
    let kept: Vec<usize> = (0..rows.len()).filter(|key| !excluded.contains(key)).collect();
    let everything: Vec<usize> = (0..rows.len()).collect();
    let total = |keys: &[usize]| rows.iter().map(|row| on(row, keys)).sum::<f64>();
    let usable: Vec<&Vec<f64>> = rows.iter().filter(|row| on(row, &kept) > 0.0).collect();
    Shares {
        summed: total(span) / total(&kept),
        raw: total(span) / total(&everything),
        renormalised: usable.iter().map(|row| on(row, span) / on(row, &kept)).sum::<f64>() / usable.len() as f64,
        sink: total(&[0]) / total(&everything),
    }
}

/// Tokens that share a byte with the span, and those that are left out, from the texts of the tokens.
fn span_positions(ids: &[i64], span: std::ops::Range<usize>) -> (Vec<usize>, Vec<usize>) {
    let texts = token_texts();
    let (mut inside, mut excluded, mut byte) = (Vec::new(), Vec::new(), 0);
    for (position, id) in ids.iter().enumerate() {
        let Some(text) = &texts[*id as usize] else {
            excluded.push(position);
            continue;
        };
        let end = byte + text.len();
        if ["'", "(", ")", ",", "-", ".", ":", " "].contains(&text.as_str()) {
            excluded.push(position);
        } else if byte < span.end && end > span.start {
            inside.push(position);
        }
        byte = end;
    }
    (inside, excluded)
}

#[test]
fn a_model_compared_with_itself_and_with_another() {
    let bench = bench();
    reading(&bench, "tuned", 64, Start::Token);
    edit_tensors(&bench, "tuned", |tensors| {
        let query = tensors.get_mut("model.layers.1.self_attn.q_proj.weight").unwrap();
        *query = Stored::f32(&query.shape, &query.values().iter().map(|value| value * 1.5).collect::<Vec<_>>());
    });
    let compare = |second: &str| {
        let text = ["--text", TEXT, "--span", "sand"];
        bench.json(&[&["measure", "attention", "tiny", "--against", second, "--json"], &text[..]].concat())
    };
    let [same, other] = ["tiny", "tuned"].map(compare);
    let share = |result: &Value| result["spans"][0]["comparison"]["share"].clone();
    assert_close(number(&share(&same)["distribution"]["mean"]), 0.0, 0.0);
    let layers: Vec<f64> =
        share(&other)["layers"].as_array().unwrap().iter().map(|layer| number(&layer["mean"])).collect();
    assert_close(layers[0], 0.0, 0.0);
    assert!(layers[1] != 0.0 && layers[2] != 0.0, "{layers:?}");
}

#[test]
fn spans_from_a_file_count_characters() {
    let bench = bench();
    let start = TEXT.find("heron").unwrap();
    let line = |name: &str, prefix: &str| {
        let offset = prefix.chars().count() + start;
        let record = serde_json::json!({
            "name": name, "text": format!("{prefix}{TEXT}"), "start": offset, "end": offset + 5,
        });
        format!("{record}\n")
    };
    bench.write("spans.jsonl", line("plain", "") + &line("accented", "été: "));
    let from_file = bench.json(&["measure", "attention", "tiny", "--spans", "spans.jsonl", "--json"]);
    let quoted = bench.json(&["measure", "attention", "tiny", "--text", TEXT, "--span", "heron", "--json"]);
    let spans = from_file["spans"].as_array().unwrap();
    assert_eq!((spans.len(), &spans[0]["name"], &spans[1]["name"]), (2, &"plain".into(), &"accented".into()));
    assert_eq!(spans[0]["heads"], quoted["spans"][0]["heads"]);
    let width = |span: &Value| span["positions"].as_array().unwrap().len();
    assert_eq!(width(&spans[1]), width(&spans[0]), "the same word, further back");
}

#[test]
fn the_form_of_the_json() {
    let bench = bench();
    let run = |arguments: &[&str]| shape(&bench.json(&[&["measure"], arguments, &["--json"]].concat()));
    let data = ["a.txt", "b.txt", "c.jsonl", "--field", "body"];
    assert_same("measure_tokens_json", &run(&[&["tokens", "tiny"], &data[..]].concat()));
    let options = ["--window", "16", "--untrained", "1", "--metrics", "mnn,entropy,nuclear"];
    assert_same("measure_spectrum_json", &run(&[&["spectrum", "tiny"], &data[..], &options[..]].concat()));
    let text = ["--text", TEXT, "--span", "sand"];
    assert_same("measure_attention_json", &run(&[&["attention", "tiny", "--against", "tiny"], &text[..]].concat()));
}

#[test]
fn the_form_of_the_text() {
    let bench = bench();
    // The numbers are tested elsewhere; here a digit stands for any digit.
    let form = |arguments: &[&str]| {
        let mut text = String::new();
        for line in
            bench.succeed(arguments).lines().map(|line| if line.contains(" took ") { "[SECONDS]" } else { line })
        {
            text.extend(line.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }));
            text.push('\n');
        }
        text
    };
    assert_same("measure_tokens_text", &form(&["measure", "tokens", "tiny", "a.txt", "b.txt"]));
    let spectrum = ["measure", "spectrum", "tiny", "a.txt", "b.txt", "--window", "16", "--untrained", "1"];
    assert_same("measure_spectrum_text", &form(&spectrum));
    let attention = ["measure", "attention", "tiny", "--text", TEXT, "--span", "sand", "--against", "tiny"];
    assert_same("measure_attention_text", &form(&attention));
}

#[test]
fn inspect() {
    let bench = bench();
    assert_same("inspect_text", &bench.succeed(&["inspect", "tiny"]));
    assert_same("inspect_tensors", &bench.succeed(&["inspect", "tiny", "--tensors"]));
    assert_same("inspect_json", &shape(&bench.json(&["inspect", "tiny", "--json"])));
}

#[test]
fn numbers_do_not_depend_on_threads() {
    let bench = bench();
    let measures: [&[&str]; 3] = [
        &["tokens", "tiny", "a.txt", "b.txt"],
        &["spectrum", "tiny", "a.txt", "b.txt", "--window", "16", "--every-layer", "--untrained", "3"],
        &["attention", "tiny", "--text", TEXT, "--span", "sand"],
    ];
    for measure in measures {
        let run = |more: &[&str]| {
            let mut result = bench.json(&[&["measure"], measure, &["--json"], more].concat());
            for seconds in ["forward_seconds", "metric_seconds"] {
                result.as_object_mut().unwrap().remove(seconds);
            }
            result
        };
        let one = run(&["--threads", "1"]);
        assert_eq!(one, run(&["--threads", "2", "--quiet"]), "{}", measure[0]);
        assert_eq!(one, run(&["--seed", "0"]), "{}", measure[0]);
        assert_ne!(one, run(&["--seed", "1"]), "{}: the seed is said", measure[0]);
    }
}
