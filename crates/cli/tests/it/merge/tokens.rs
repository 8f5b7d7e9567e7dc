//! Vocabularies of models that have different ones.

use std::fs;

use serde_json::{Map, Value, json};

use super::{assert_near, json_of, merged, moved_reading, numbers, weights};
use crate::bench::Bench;
use crate::models::{edit_config, reading_less, with_tensors};
use crate::tensors::{self, Stored};

/// A model of few words, whose rows are full of one number each.
fn of_words(bench: &Bench, to: &str, words: &[&str], rows: &[f32]) {
    with_tensors(bench, to, |tensors| {
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            let values: Vec<f32> = rows.iter().flat_map(|row| [*row; 32]).collect();
            tensors.insert(name.into(), Stored::f32(&[rows.len(), 32], &values));
        }
    });
    edit_config(bench, to, |config| {
        for (key, value) in [("vocab_size", rows.len()), ("bos_token_id", 0), ("eos_token_id", 0)] {
            config.insert(key.into(), value.into());
        }
    });
    let vocabulary: Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).into(), id.into())).collect();
    let special = json!({"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                         "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<s>"},
    });
    bench.write(&format!("{to}/tokenizer.json"), tokenizer.to_string());
}

fn bench() -> Bench {
    let bench = Bench::new();
    of_words(&bench, "one", &["<s>", "a", "b"], &[1.0, 2.0, 3.0]);
    of_words(&bench, "two", &["<s>", "b", "c"], &[5.0, 7.0, 9.0]);
    bench
}

/// The number of each row of the merged embedding, which are those of the head.
fn rows(bench: &Bench, tokenizer: &str, out: &str) -> Vec<f32> {
    let yaml = format!(
        "merge_method: linear\nmodels: [{{model: one}}, {{model: two}}]\nparameters: {{weight: 1}}\ntokenizer: {tokenizer}\n"
    );
    let weights = merged(bench, &yaml, out, &[]);
    let numbers = |name: &str| -> Vec<f32> {
        let rows = weights[name].rows();
        assert!(rows.iter().all(|row| row.iter().all(|x| *x == row[0])), "{name}");
        rows.iter().map(|row| row[0] as f32).collect()
    };
    let embedding = numbers("model.embed_tokens.weight");
    assert_eq!(numbers("lm_head.weight"), embedding);
    assert_eq!(json_of(bench, &format!("{out}/config.json"))["vocab_size"], embedding.len());
    embedding
}

/// The ids that a model reads in a text.
fn ids(bench: &Bench, model: &str, text: &str) -> Vec<i64> {
    bench.succeed(&["trace", model, "--text", text, "--take", "logits", "--out", "ids.safetensors"]);
    tensors::read(&bench.path("ids.safetensors"))["input_ids"].ids()
}

#[test]
fn a_union_has_the_tokens_of_both() {
    let bench = bench();
    assert_eq!(rows(&bench, "{source: union}", "union"), [3.0, 2.0, 5.0, 9.0]);
    assert_eq!(ids(&bench, "union", "c b a"), [3, 2, 1]);
    assert_eq!(rows(&bench, "{source: one}", "first"), [3.0, 2.0, 5.0]);
    assert_eq!(ids(&bench, "first", "b a"), [2, 1]);
    assert_eq!(rows(&bench, "{source: two}", "second"), [3.0, 5.0, 9.0]);
    assert_eq!(ids(&bench, "second", "c b"), [2, 1]);
    // The older key says the same.
    let yaml = "
merge_method: linear
models: [{model: one}, {model: two}]
parameters: {weight: 1}
tokenizer_source: union
";
    assert_eq!(merged(&bench, yaml, "legacy", &[]), weights(&bench, "union"));
}

#[test]
fn rows_can_be_chosen() {
    let bench = bench();
    for (rule, expected, out) in [
        ("b: {source: one, force: true}", [3.0, 2.0, 3.0, 9.0], "of-one"),
        ("a: {source: {kind: zero}, force: true}", [3.0, 0.0, 5.0, 9.0], "zero"),
        // Where it is not forced, only models without the token get the row.
        ("a: {source: {kind: zero}}", [3.0, 1.0, 5.0, 9.0], "not-forced"),
        ("c: {source: {kind: model_token, model: one, token: b}, force: true}", [3.0, 2.0, 5.0, 3.0], "other-token"),
        ("c: {source: {kind: model_token, model: two, token_id: 0}}", [3.0, 2.0, 5.0, 7.0], "by-id"),
    ] {
        assert_eq!(rows(&bench, &format!("{{source: union, tokens: {{{rule}}}}}"), out), expected, "{rule}");
    }
}

#[test]
fn rows_are_padded_with_their_mean() {
    let bench = bench();
    let mean = (3.0 + 2.0 + 5.0 + 9.0) / 4.0;
    let padded = rows(&bench, "{source: union, pad_to_multiple_of: 7}", "padded");
    assert_eq!(padded, [3.0, 2.0, 5.0, 9.0, mean, mean, mean]);
    assert_eq!(ids(&bench, "padded", "c a"), [3, 1]);
    bench.succeed(&["inspect", "padded", "--load"]);
}

#[test]
fn a_chat_template_is_chosen_by_name_or_by_text() {
    let bench = bench();
    let own = "{% for message in messages %}{{ message.content }}{% endfor %}";
    for (choice, expected) in [("chatml", "<|im_start|>"), (&format!("\"{own}\""), own)] {
        let out = format!("out-{}", choice.len());
        let yaml = format!(
            "merge_method: linear\nmodels: [{{model: one}}, {{model: two}}]\nparameters: {{weight: 1}}\n\
             tokenizer_source: union\nchat_template: {choice}\n"
        );
        merged(&bench, &yaml, &out, &[]);
        let template = fs::read_to_string(bench.path(&format!("{out}/chat_template.jinja"))).unwrap();
        assert!(template.contains(expected), "{template}");
        assert_eq!(ids(&bench, &out, "c"), [3]);
    }
}

#[test]
fn the_most_common_chat_template_is_automatic() {
    let bench = bench();
    of_words(&bench, "three", &["<s>", "b", "c"], &[5.0, 7.0, 9.0]);
    for (model, template) in [("one", "{{ 1 }}"), ("two", "{{ 2 }}"), ("three", "{{ 2 }}")] {
        bench.write(&format!("{model}/chat_template.jinja"), template);
    }
    let yaml = "
merge_method: linear
models: [{model: one}, {model: two}, {model: three}]
parameters: {weight: 1}
chat_template: auto
";
    merged(&bench, yaml, "out", &[]);
    assert_eq!(fs::read_to_string(bench.path("out/chat_template.jinja")).unwrap(), "{{ 2 }}");
    // Rows of different words were added: that is said.
    let notes = json_of(&bench, "out/merge.json")["result"]["notes"].to_string();
    assert!(notes.contains("two, three has another vocabulary than one"), "{notes}");
}

#[test]
fn a_union_joins_what_either_joined() {
    let bench = Bench::new();
    reading_less(&bench, "less", 64, 20);
    moved_reading(&bench, "full", 1, 0.1);
    let yaml = "
merge_method: linear
models: [{model: less}, {model: full}]
parameters: {weight: 1}
tokenizer: {source: union}
";
    let out = merged(&bench, yaml, "out", &[]);
    let [less, full] = ["less", "full"].map(|model| weights(&bench, model));
    // The joins of `less` are the first ones of `full`, so the union has the ids of `full`.
    for (name, own) in [("model.embed_tokens.weight", 119 * 32), ("lm_head.weight", 119 * 32)] {
        let [less, full] = [&less, &full].map(|model| numbers(&model[name]));
        let mean = less.iter().zip(&full).map(|(less, full)| (less + full) / 2.0);
        let expected: Vec<f64> = mean.take(own).chain(full[own..].iter().copied()).collect();
        assert_near(name, &out[name], &expected);
    }
    let text = "and the rest of the sea is over there, sand and all";
    assert_eq!(ids(&bench, "out", text), ids(&bench, "full", text));
    assert_ne!(ids(&bench, "less", text), ids(&bench, "full", text));
    let notes = json_of(&bench, "out/merge.json")["result"]["notes"].to_string();
    assert!(notes.contains("less: 9 rows of the embedding lie beyond the last token"), "{notes}");
    // The base alone: its tokens and no more rows than these.
    let based = merged(&bench, &yaml.replace("union", "less"), "based", &[]);
    assert_eq!(based["model.embed_tokens.weight"].shape, [119, 32]);
    assert_eq!(ids(&bench, "based", text), ids(&bench, "less", text));
    bench.succeed(&["inspect", "based", "--load"]);
}
