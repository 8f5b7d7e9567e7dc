//! WordPiece from a folder, as encoders have it: lower case, `[CLS]` and `[SEP]` around a text.

use lathe_tokenizer::{BosEos, Markup, Tokenizer};
use serde_json::json;

const TOKENS: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "!", "a", "cafe", "##s", "[MASK]"];

/// A tokenizer whose file asks for texts of exactly 8 tokens.
fn tokenizer() -> Tokenizer {
    let vocabulary: serde_json::Map<_, _> =
        TOKENS.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let added = TOKENS.iter().enumerate().filter(|(_, token)| token.starts_with('[')).map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    });
    let special = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let ids = |name: &str, id: u32| json!({"id": name, "ids": [id], "tokens": [name]});
    let file = json!({
        "version": "1.0",
        "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                       "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": ids("[CLS]", 2), "[SEP]": ids("[SEP]", 3)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

#[test]
fn a_text_stands_between_its_marks_and_is_neither_padded_nor_cut() {
    let tokenizer = tokenizer();
    let encode = |text: &str, bos_eos| tokenizer.encode(text, bos_eos, Markup::Text).unwrap();
    assert_eq!(encode("Unaffable!", BosEos::Add), [2, 4, 5, 6, 7, 3]);
    assert_eq!(encode("Unaffable!", BosEos::Omit), [4, 5, 6, 7]);
    assert_eq!(encode("", BosEos::Add), [2, 3]);
    // Accents go, characters of another script are unknown words.
    assert_eq!(encode("Cafés a 猫", BosEos::Omit), [9, 10, 8, 1]);
    assert_eq!(encode(&"a ".repeat(20), BosEos::Add).len(), 22);
    // The name of a mark is text.
    assert_eq!(encode("[SEP]", BosEos::Omit), [1, 1, 1]);
    assert_eq!((tokenizer.special().bos, &tokenizer.special().eos[..]), (Some(2), &[3][..]));
    assert!(tokenizer.kind().adds_bos && tokenizer.kind().adds_eos);
    assert_eq!(tokenizer.kind().model, "WordPiece");
}

#[test]
fn tokens_cover_a_text_that_was_changed() {
    let text = "Cafés  unaffable";
    let tokens = tokenizer().encode_with_offsets(text, BosEos::Add, Markup::Text).unwrap();
    let pieces: Vec<_> = tokens.iter().map(|token| token.bytes.clone().map(|range| &text.as_bytes()[range])).collect();
    assert_eq!((pieces.first(), pieces.last()), (Some(&None), Some(&None)));
    assert_eq!(pieces.into_iter().flatten().collect::<Vec<_>>().concat(), text.as_bytes());
}
