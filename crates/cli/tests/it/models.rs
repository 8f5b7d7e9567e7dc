//! Models of a few thousand parameters: the committed fixtures, damaged copies of them, and one that reads text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::bench::Bench;
use crate::tensors::{self, Stored};

/// A committed checkpoint with what transformers computes from it.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name)
}

/// Copies configuration and weights of a fixture into the folder `to`.
pub(crate) fn copy(bench: &Bench, name: &str, to: &str) {
    for file in ["config.json", "model.safetensors"] {
        bench.write(&format!("{to}/{file}"), std::fs::read(fixture(name).join(file)).unwrap());
    }
}

/// Copies the llama fixture with another configuration.
pub(crate) fn with_config(bench: &Bench, to: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    copy(bench, "llama", to);
    edit_config(bench, to, change);
}

/// Changes the configuration in a folder.
pub(crate) fn edit_config(bench: &Bench, folder: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let file = format!("{folder}/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(bench.path(&file)).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    bench.write(&file, config.to_string());
}

/// Copies the llama fixture with other tensors.
pub(crate) fn with_tensors(bench: &Bench, to: &str, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    copy(bench, "llama", to);
    edit_tensors(bench, to, change);
}

/// Changes the tensors in a folder.
pub(crate) fn edit_tensors(bench: &Bench, folder: &str, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let file = bench.path(&format!("{folder}/model.safetensors"));
    let mut stored = tensors::read(&file);
    change(&mut stored);
    tensors::write(&file, &stored);
}

/// Whether a tokenizer puts `<s>` before a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It does.
    Token,
    /// It does not.
    Nothing,
}

/// Joins of [`MERGES`] two characters each, and of three where the first part is a join itself.
const MERGES: [&str; 29] = [
    "t h", "th e", "h e", "i n", "a n", "Ġ t", "Ġ the", "Ġ a", "an d", "o n", "e r", "r e", "e n", "o u", "Ġ s", "o r",
    "e s", "i s", "i t", "a r", "s t", "n g", "in g", "Ġ w", "l l", "o f", "Ġ of", "e d", "v e",
];

/// A folder with the llama fixture, room for `context` tokens, and a byte-level tokenizer of its 128 ids: three special
/// tokens, the printable ASCII characters, space, line break, and 29 joins. Everything else is `<unk>`.
pub(crate) fn reading(bench: &Bench, to: &str, context: usize, start: Start) {
    with_config(bench, to, |config| {
        config.insert("max_position_embeddings".into(), context.into());
    });
    learn_to_read(bench, to, start);
}

/// Puts [`reading`]'s tokenizer into the folder of a model of 128 ids.
pub(crate) fn learn_to_read(bench: &Bench, to: &str, start: Start) {
    bench.write(&format!("{to}/tokenizer.json"), tokenizer(start, &MERGES).to_string());
    let names = json!({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"});
    bench.write(&format!("{to}/tokenizer_config.json"), names.to_string());
}

/// The same with only the first `merges` joins, so another vocabulary.
pub(crate) fn reading_less(bench: &Bench, to: &str, context: usize, merges: usize) {
    reading(bench, to, context, Start::Nothing);
    bench.write(&format!("{to}/tokenizer.json"), tokenizer(Start::Nothing, &MERGES[..merges]).to_string());
}

/// Text of each id of [`reading`]'s tokenizer; none for special tokens.
pub(crate) fn token_texts() -> Vec<Option<String>> {
    let text = |token: &String| token.replace('Ġ', " ").replace('Ċ', "\n");
    let texts = vocabulary(&MERGES);
    texts.iter().enumerate().map(|(id, token)| (id >= SPECIAL.len()).then(|| text(token))).collect()
}

const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

fn vocabulary(merges: &[&str]) -> Vec<String> {
    let characters = (b'!'..=b'~').map(|byte| char::from(byte).to_string());
    let special = SPECIAL.iter().map(|token| (*token).to_owned());
    let joins = merges.iter().map(|merge| merge.replace(' ', ""));
    special.chain(characters).chain(["Ġ".to_owned(), "Ċ".to_owned()]).chain(joins).collect()
}

fn tokenizer(start: Start, merges: &[&str]) -> Value {
    let vocabulary: Map<String, Value> =
        vocabulary(merges).into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let added = SPECIAL.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    });
    let pairs = merges.iter().map(|merge| merge.split(' ').collect::<Vec<_>>());
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level,
        "post_processor": if start == Start::Token { template } else { Value::Null },
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                  "merges": pairs.collect::<Vec<_>>()},
    })
}
