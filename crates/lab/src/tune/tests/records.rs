//! Records and conversations to examples, with a tokenizer of single characters.

use std::path::PathBuf;

use lathe_tokenizer::{ChatTemplate, Markup, Tokenizer};
use lathe_tune::Example;
use serde_json::{Value, json};

use super::super::records::{Encoder, read};
use super::*;

const END: u32 = 97;

/// Characters from space to tilde, the line break, and two control tokens.
fn tokenizer(folder: &Path) -> Tokenizer {
    let characters = (b' '..=b'~').map(char::from).chain(['\n']);
    let vocabulary: Map<String, Value> =
        characters.enumerate().map(|(id, character)| (character.to_string(), id.into())).collect();
    let special = ["<|im_start|>", "<|im_end|>"].iter().enumerate().map(|(i, content)| {
        json!({"id": 96 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                  "merges": []},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).expect("written");
    Tokenizer::from_folder(folder).expect("a tokenizer")
}

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Thoughts of all but the last turn are left out, as several models for reasoning do it.
const THOUGHTS: &str = "{% for m in messages %}{% set text = m.content if loop.last else m.content.split('</t>')[-1] %}\
                        {{ '<|im_start|>' + m.role + '\\n' + text + '<|im_end|>' + '\\n' }}{% endfor %}\
                        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<t>' }}{% endif %}";

/// The answer is written twice: no part of the text is the answer.
const TWICE: &str = "{{ messages | length }}{% for m in messages %}{{ m.content + '|' + m.content + ';' }}{% endfor %}";

fn encoder<'a>(tokenizer: &'a Tokenizer, template: Option<&'a ChatTemplate>, loss_on: LossOn) -> Encoder<'a> {
    Encoder { tokenizer: Some(tokenizer), template, vocab_size: 98, loss_on, markup: Markup::Text }
}

/// Examples of records, or what is wrong with the first bad one.
fn examples(records: &[Value], template: Option<&str>, loss_on: LossOn) -> Result<(Vec<Example>, Tokenizer), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = tokenizer(folder.path());
    let file = folder.path().join("a.jsonl");
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    fs::write(&file, lines.join("\n")).expect("written");
    let template = template.map(|source| ChatTemplate::new("default", source).expect("a template"));
    let encoder = encoder(&tokenizer, template.as_ref(), loss_on);
    let said = |error: Error| error.to_string().replace(&format!("{}/", folder.path().display()), "");
    let read = read(&[file], &encoder, BadRecords::Refuse).map_err(said)?;
    Ok((read.examples, tokenizer))
}

/// What is to be predicted of an example, as text; runs are parted by `|`.
fn targets(example: &Example, tokenizer: &Tokenizer) -> String {
    let mut text = String::new();
    let mut before = None;
    for (row, id) in example.targets() {
        if before.is_some_and(|before: usize| before + 1 != row) {
            text.push('|');
        }
        before = Some(row);
        text.push_str(&tokenizer.decode(&[id], lathe_tokenizer::ControlTokens::Show));
    }
    text
}

fn chat(turns: &[(&str, &str)]) -> Value {
    let messages: Vec<Value> = turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    json!({ "messages": messages })
}

#[test]
fn what_the_assistant_says_is_predicted_with_its_end_tokens() {
    let two = chat(&[("system", "be kind"), ("user", "hi"), ("assistant", "yes"), ("user", "so"), ("assistant", "no")]);
    let (found, tokenizer) =
        examples(std::slice::from_ref(&two), Some(CHATML), LossOn::Completion).expect("an example");
    assert_eq!(targets(&found[0], &tokenizer), "yes<|im_end|>|no<|im_end|>");
    let (whole, _) = examples(&[two], Some(CHATML), LossOn::All).expect("an example");
    assert_eq!(whole[0].ids, found[0].ids);
    assert_eq!(whole[0].target_count(), whole[0].ids.len() - 1);
    // A prompt of messages: only what the completion says counts.
    let record = json!({
        "prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "so"}],
        "completion": [{"role": "assistant", "content": "no"}],
    });
    let (found, tokenizer) = examples(&[record], Some(CHATML), LossOn::Completion).expect("an example");
    assert_eq!(targets(&found[0], &tokenizer), "no<|im_end|>");
}

#[test]
fn a_template_that_writes_turns_differently_is_understood_or_refused() {
    let thoughts = chat(&[("user", "a"), ("assistant", "<t>x</t>yes"), ("user", "b"), ("assistant", "<t>y</t>no")]);
    let (found, tokenizer) = examples(&[thoughts], Some(THOUGHTS), LossOn::Completion).expect("an example");
    // The generation prompt has written the beginning of the last thought; where it cannot be told apart, all of it counts.
    let text = targets(&found[0], &tokenizer);
    assert!(text.starts_with("yes<|im_end|>|") && text.ends_with("y</t>no<|im_end|>"), "{text}");
    let simple = chat(&[("user", "a"), ("assistant", "yes")]);
    let error = examples(&[simple], Some(TWICE), LossOn::Completion).expect_err("refused");
    assert_eq!(
        error,
        "a.jsonl, line 1: turn 2: the chat template writes the conversation in a way in which the assistant's part cannot be found"
    );
}

#[test]
fn completions_go_on_from_prompts_and_end() {
    let records = [
        json!({"prompt": "2+2=", "completion": "4"}),
        json!({"prompt": "", "completion": "x<|im_end|>"}),
        json!({"text": "abc", "more": 1}),
    ];
    let (found, tokenizer) = examples(&records, None, LossOn::Completion).expect("examples");
    assert_eq!(targets(&found[0], &tokenizer), "4<|im_end|>");
    // The name of a control token in a text is a text; its first character has nothing before it.
    assert_eq!(found[1].ids.len(), 12);
    assert_eq!(targets(&found[2], &tokenizer), "bc<|im_end|>");
    let (all, tokenizer) = examples(&records, None, LossOn::All).expect("examples");
    assert_eq!(targets(&all[0], &tokenizer), "+2=4<|im_end|>");
    assert!(found.iter().all(|example| example.ids.last() == Some(&END)));
}

#[test]
fn ready_ids_and_labels() {
    let records = [json!({"input_ids": [5, 6, 7]}), json!({"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 9]})];
    let (found, _) = examples(&records, None, LossOn::All).expect("examples");
    assert_eq!(found[0], Example::whole(vec![5, 6, 7]));
    assert_eq!(found[1].targets().collect::<Vec<_>>(), [(0, 6), (2, 9)]);
}

#[test]
fn bad_records_say_line_and_field() {
    let problem = |record: Value| {
        examples(&[json!({"text": "ok"}), record], Some(CHATML), LossOn::Completion).expect_err("refused")
    };
    for (record, said) in [
        (json!({"body": "x"}), "none of the fields `messages`, `prompt`, `text` and `input_ids` is there"),
        (json!({"prompt": "x"}), "field `completion` is missing"),
        (json!({"completion": "x"}), "field `prompt` is missing"),
        (json!({"text": 3}), "field `text` is not a string"),
        (json!({"text": ""}), "field `text` is empty"),
        (json!({"messages": "x"}), "field `messages` is no list of messages"),
        (json!({"messages": []}), "field `messages` is empty"),
        (json!({"messages": [{"role": "user"}]}), "messages[0]: missing field `content`"),
        (json!({"input_ids": []}), "there is no token in it"),
        (json!({"input_ids": [1, 98]}), "token 98 is outside of the vocabulary of 98"),
        (json!({"input_ids": [1, -1]}), "input_ids[1] is -1, expected a token"),
        (json!({"input_ids": [1, "a"]}), "input_ids[1] is \"a\", expected a whole number"),
        (json!({"input_ids": [1, 2], "labels": [1]}), "labels has 1 entries for 2 of input_ids"),
        (json!({"input_ids": [1, 2], "labels": [1, -7]}), "labels[1] is -7, expected a token or -100"),
        (
            json!({"input_ids": [1, 2], "attention_mask": [1, 0]}),
            "attention_mask has zeros: leave padding out, lathe needs none",
        ),
        (json!([1]), "the record is no JSON object"),
    ] {
        assert_eq!(problem(record), format!("a.jsonl, line 2: {said}"));
    }
}

#[test]
fn bad_records_are_left_out_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = tokenizer(folder.path());
    let file: PathBuf = folder.path().join("a.jsonl");
    fs::write(&file, "{\"text\": \"ab\"}\n{x}\n\n{\"text\": 3}\n{\"text\": \"cd\"}").expect("written");
    let read = read(&[file], &encoder(&tokenizer, None, LossOn::Completion), BadRecords::Skip).expect("records");
    assert_eq!((read.count, read.examples.len()), (4, 2));
    assert_eq!(read.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(read.bad[1].problem, "field `text` is not a string");
}
