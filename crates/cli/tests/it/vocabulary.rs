//! `lathe inspect --vocab`: vocabularies as bytes.

use lathe_tokenizer::byte_alphabet;
use serde_json::{Map, Value, json};

use crate::bench::{Bench, assert_same};
use crate::models::{Start, copy, edit_config, edit_tensors, reading};
use crate::shape::shape;
use crate::tensors::Stored;

/// Rows of the embeddings: more than either tokenizer has ids.
const ROWS: usize = 300;

/// Ids that both tokenizers have, and more than bytes.
const TOKENS: usize = 264;

/// The bytes from id 0, the results of these joins, and `</s>`.
const BYTE_LEVEL: [&str; 8] = ["Ġ t", "Ã ©", "c a", "ca f", "caf Ã©", "Ġ cafÃ©", "t h", "Ċ Ċ"];

/// `<unk>`, `<s>`, `</s>`, the bytes from id 3, these characters, and the results of the joins.
const PIECES: [&str; 6] = ["▁", "a", "c", "f", "t", "é"];
const JOINS: [&str; 5] = ["c a", "ca f", "caf é", "▁ café", "▁ t"];

fn byte_level() -> Value {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_alphabet::character_of(byte).to_string()).collect();
    tokens.extend(BYTE_LEVEL.iter().map(|join| join.replace(' ', "")));
    let step = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let end = tokens.len();
    tokenizer(&tokens, &BYTE_LEVEL, &[(end, "</s>")], &json!({"pre_tokenizer": step, "decoder": step}))
}

fn sentencepiece() -> Value {
    let names = ["<unk>", "<s>", "</s>"];
    let mut tokens: Vec<String> = names.map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte: u8| format!("<0x{byte:02X}>")));
    tokens.extend(PIECES.map(str::to_owned));
    tokens.extend(JOINS.map(|join| join.replace(' ', "")));
    let decoders = json!([
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]);
    let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let parts = json!({"normalizer": normalizer, "decoder": {"type": "Sequence", "decoders": decoders}});
    let special: Vec<(usize, &str)> = names.into_iter().enumerate().collect();
    let mut whole = tokenizer(&tokens, &JOINS, &special, &parts);
    for (key, value) in [("byte_fallback", true.into()), ("fuse_unk", true.into()), ("unk_token", "<unk>".into())] {
        whole["model"][key] = value;
    }
    whole
}

fn tokenizer(tokens: &[String], joins: &[&str], special: &[(usize, &str)], parts: &Value) -> Value {
    let ids: Map<String, Value> = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added = special.iter().map(|(id, name)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    });
    let joins = joins.iter().map(|join| join.split(' ').collect::<Vec<_>>());
    let mut whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": ids,
                  "merges": joins.collect::<Vec<_>>()},
    });
    for (key, value) in parts.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

/// A model of all bytes and a few joins of them.
pub(crate) fn bytes(bench: &Bench, to: &str) {
    model(bench, to, &byte_level());
}

/// A model of the same bytes in the other spelling, with other joins.
pub(crate) fn pieces(bench: &Bench, to: &str) {
    model(bench, to, &sentencepiece());
}

/// The llama fixture with this tokenizer and room for its ids.
fn model(bench: &Bench, to: &str, tokenizer: &Value) {
    copy(bench, "llama", to);
    edit_config(bench, to, |config| {
        config.insert("vocab_size".into(), ROWS.into());
        // Ids of the fixture's own vocabulary.
        ["bos_token_id", "eos_token_id", "pad_token_id"].iter().for_each(|field| drop(config.remove(*field)));
    });
    edit_tensors(bench, to, |tensors| {
        for name in ["model.embed_tokens.weight", "lm_head.weight"] {
            let tensor = tensors.get_mut(name).unwrap();
            let width = tensor.shape[1];
            let mut values = tensor.values();
            // Rows without a token are never the most probable.
            let more = (values.len()..ROWS * width)
                .map(|at| if at < TOKENS * width { (at as f32 * 0.7).sin() * 0.3 } else { 0.0 });
            values.extend(more.collect::<Vec<f32>>());
            *tensor = Stored::f32(&[ROWS, width], &values);
        }
    });
    bench.write(&format!("{to}/tokenizer.json"), tokenizer.to_string());
    bench.write(&format!("{to}/tokenizer_config.json"), json!({"eos_token": "</s>"}).to_string());
}

fn bench() -> Bench {
    let bench = Bench::new();
    bytes(&bench, "bytes");
    pieces(&bench, "pieces");
    reading(&bench, "changes", 64, Start::Nothing);
    copy(&bench, "llama", "silent");
    bench
}

#[test]
fn what_two_vocabularies_share() {
    let bench = bench();
    let found = bench.json(&["inspect", "bytes", "pieces", "--vocab", "--json"]);
    let facts = |at: usize| {
        let names = ["ids", "text_tokens", "strings", "strings_with_several_ids", "control_tokens", "padding_rows"];
        names.map(|name| found["models"][at][name].as_u64().unwrap())
    };
    assert_eq!(facts(0), [265, 264, 264, 0, 1, 35]);
    // A space, a, c, f and t are pieces and bytes.
    assert_eq!(facts(1), [270, 267, 262, 5, 3, 30]);
    assert_eq!(found["models"][1]["end_tokens"], json!([{"id": 2, "token": "</s>"}]));
    let pair = &found["pairs"][0];
    // By spelling: a, c, f, t, ca, caf, and é, which is the byte E9 in one of them and C3 A9 in the other.
    let overlap = json!({"left": 264, "right": 262, "shared_bytes": 262, "shared_strings": 7});
    assert_eq!(pair["overlap"], overlap);
    assert_eq!((&pair["share_of_left"], &pair["share_of_right"]), (&json!(262.0 / 264.0), &json!(1.0)));
    let same = |bytes: &str, left: &str, right: &str| json!({"bytes": bytes, "left": left, "right": right});
    let expected = [
        same("2074", "Ġt", "▁t"),
        same("c3a9", "Ã©", "é"),
        same("20636166c3a9", "ĠcafÃ©", "▁café"),
        same("0a", "Ċ", "<0x0A>"),
    ];
    assert_eq!(pair["same_bytes"], json!(expected));
    assert_same("vocabulary_json", &shape(&found));
    assert_same("vocabulary_text", &bench.succeed(&["inspect", "bytes", "pieces", "--vocab"]));
}

#[test]
fn names_of_tokens_do_not_reach_the_terminal_as_they_are() {
    let bench = bench();
    let mut named = byte_level();
    named["added_tokens"][0]["content"] = "<\u{1b}[2J>".into();
    let names = named["model"]["vocab"].as_object_mut().unwrap();
    names.remove("</s>");
    names.insert("<\u{1b}[2J>".into(), 264.into());
    model(&bench, "odd", &named);
    bench.write("odd/tokenizer_config.json", json!({"eos_token": "<\u{1b}[2J>"}).to_string());
    let said = bench.succeed(&["inspect", "odd", "pieces", "--vocab"]);
    assert!(said.contains("264 <\\u{1b}[2J>") && !said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_vocabulary_shares_everything_with_itself() {
    let bench = bench();
    let found = bench.json(&["inspect", "bytes", "bytes", "--vocab", "--json"]);
    let pair = &found["pairs"][0];
    assert_eq!(pair["overlap"], json!({"left": 264, "right": 264, "shared_bytes": 264, "shared_strings": 264}));
    assert_eq!(pair["same_bytes"], json!([]));
    assert_eq!(pair["boundaries"].as_array().unwrap().len(), 5);
    for place in pair["boundaries"].as_array().unwrap() {
        assert!(place["common"].as_u64().unwrap() > 100, "{place}");
        assert_eq!([&place["share"], &place["share_of_left"], &place["share_of_right"]], [&json!(1.0); 3]);
    }
}

#[test]
fn who_cannot_be_compared_is_named() {
    let bench = bench();
    let found = bench.json(&["inspect", "bytes", "changes", "silent", "pieces", "--vocab", "--json"]);
    let places: Vec<_> =
        found["pairs"].as_array().unwrap().iter().map(|pair| [&pair["left"], &pair["right"]]).collect();
    assert_eq!(places, [[&json!(0), &json!(3)]]);
    assert!(found["models"][1]["refused"].as_str().unwrap().starts_with("the tokenizer changes texts: "));
    assert_eq!(found["models"][2]["refused"], "the model has no tokenizer");
    assert_eq!((&found["models"][1]["strings"], &found["models"][0]["refused"]), (&Value::Null, &Value::Null));

    // One model alone is looked at, whatever comes of it.
    let alone = bench.succeed(&["inspect", "changes", "--vocab"]);
    assert!(alone.contains("no: the tokenizer changes texts: "), "{alone}");
    assert_same("vocabulary_of_one", &bench.succeed(&["inspect", "pieces", "--vocab"]));

    assert_same(
        "vocabulary_refused",
        &bench.refuse_all(&[
            &["inspect", "bytes", "changes", "--vocab"],
            &["inspect", "silent", "changes", "--vocab", "--json"],
            &["inspect", "bytes", "pieces"],
            &["inspect", "bytes", "pieces", "--tensors", "--vocab"],
        ]),
    );
}
