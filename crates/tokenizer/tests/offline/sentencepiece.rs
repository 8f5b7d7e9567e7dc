//! SentencePiece BPE from a GGUF vocabulary of 277 tokens.

use crate::tiny::{self, piece};
use lathe_tokenizer::{BosEos, ControlTokens, Error, GgufVocabulary, Markup, TokenBytes, Tokenizer};
use proptest::prelude::*;

const BYTES: u32 = 6;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf_vocabulary(tiny::sentencepiece()).unwrap()
}

fn with_prefix() -> Tokenizer {
    let vocabulary = GgufVocabulary { add_space_prefix: None, ..tiny::sentencepiece() };
    Tokenizer::from_gguf_vocabulary(vocabulary).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, BosEos::Omit, Markup::Text).unwrap()
}

#[test]
fn the_highest_score_is_joined_first() {
    let tokenizer = tokenizer();
    // ab (-1) goes before bc (-2), then ab+c.
    assert_eq!(encode(&tokenizer, "abc"), [piece("abc")]);
    // bc (-2) before ca (-9): c+ab (-10) is out of reach of "ca".
    assert_eq!(encode(&tokenizer, "cab"), [piece("cab")]);
    assert_eq!(encode(&tokenizer, "bca"), [piece("bc"), piece("a")]);
    // ▁a (-3) is later than ab (-1), so ▁+ab.
    assert_eq!(encode(&tokenizer, " ab"), [piece("▁ab")]);
    assert_eq!(encode(&tokenizer, " aa"), [piece("▁a"), piece("a")]);
    // Equal scores from left to right.
    assert_eq!(encode(&tokenizer, "aaa"), [piece("aa"), piece("a")]);
    assert_eq!(encode(&tokenizer, ""), [0u32; 0]);
}

#[test]
fn characters_without_a_token_become_bytes() {
    let tokenizer = tokenizer();
    assert_eq!(encode(&tokenizer, "é"), [piece("é")]);
    assert_eq!(encode(&tokenizer, "\r"), [BYTES + 0x0D]);
    assert_eq!(encode(&tokenizer, "a€"), [piece("a"), BYTES + 0xE2, BYTES + 0x82, BYTES + 0xAC]);
    assert_eq!(tokenizer.token_bytes(BYTES + 0x0D), TokenBytes::Byte(0x0D));
    assert_eq!(tokenizer.token_bytes(piece("▁ab")), TokenBytes::Bytes(b" ab".to_vec()));
    assert_eq!(tokenizer.token_bytes(1), TokenBytes::Control("<s>".into()));
}

#[test]
fn without_bytes_an_unknown_token_stands_for_a_run() {
    let mut vocabulary = tiny::sentencepiece();
    for id in BYTES..BYTES + 256 {
        vocabulary.token_types.as_mut().unwrap()[id as usize] = 5;
    }
    let tokenizer = Tokenizer::from_gguf_vocabulary(vocabulary.clone()).unwrap();
    assert_eq!(encode(&tokenizer, "a€€b"), [piece("a"), 0, piece("b")]);
    let tokens = tokenizer.encode_with_offsets("a€€b", BosEos::Omit, Markup::Text).unwrap();
    assert_eq!(tokens[1].bytes, Some(1..7));
    vocabulary.unknown = None;
    let tokenizer = Tokenizer::from_gguf_vocabulary(vocabulary).unwrap();
    let error = tokenizer.encode("ab€", BosEos::Omit, Markup::Text).unwrap_err();
    assert!(matches!(error, Error::NoToken { character: '€', at: 2 }), "{error}");
}

#[test]
fn user_defined_tokens_come_first_and_never_join() {
    let tokenizer = tokenizer();
    assert_eq!(encode(&tokenizer, "\n\n\na"), [4, 3, piece("a")]);
    assert_eq!(encode(&tokenizer, "a<b>c"), [piece("a"), 5, piece("c")]);
    assert_eq!(encode(&tokenizer, "\r\n\n"), [BYTES + 0x0D, 4]);
}

#[test]
fn control_tokens_only_in_markup() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.encode("a</s>b", BosEos::Omit, Markup::Parse).unwrap(), [piece("a"), 2, piece("b")]);
    assert!(!encode(&tokenizer, "a</s>b").contains(&2));
    assert_eq!(tokenizer.encode("ab", BosEos::Add, Markup::Text).unwrap(), [1, piece("ab")]);
}

#[test]
fn a_space_goes_before_the_text_and_comes_off_again() {
    let tokenizer = with_prefix();
    assert_eq!(encode(&tokenizer, "abc"), [piece("▁abc")]);
    assert_eq!(encode(&tokenizer, " abc"), [piece("▁"), piece("▁abc")]);
    assert_eq!(encode(&tokenizer, ""), [0u32; 0]);
    for text in ["abc", " abc", "  a", "\n", "é€", ""] {
        assert_eq!(tokenizer.decode(&encode(&tokenizer, text), ControlTokens::Hide), text);
    }
    // Behind a control token the text begins anew.
    assert_eq!(tokenizer.encode("<s>ab", BosEos::Omit, Markup::Parse).unwrap(), [1, piece("▁ab")]);
    let tokens = tokenizer.encode_with_offsets("€ ab", BosEos::Add, Markup::Text).unwrap();
    let ranges: Vec<_> = tokens.into_iter().map(|token| token.bytes).collect();
    assert_eq!(ranges, [None, Some(0..0), Some(0..1), Some(1..2), Some(2..3), Some(3..6)]);
}

#[test]
fn the_mark_for_a_space_is_a_space() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode_with_offsets("c▁ab", BosEos::Omit, Markup::Text).unwrap();
    let tokens: Vec<_> = tokens.into_iter().map(|token| (token.id, token.bytes.unwrap())).collect();
    assert_eq!(tokens, [(piece("c"), 0..1), (piece("▁ab"), 1..6)]);
}

/// The same vocabulary as a tokenizer.json, with merges in the order of the scores: the library's BPE must agree.
fn as_tokenizer_json(folder: &std::path::Path) -> Tokenizer {
    let vocabulary = tiny::sentencepiece();
    let ids: serde_json::Map<_, _> =
        vocabulary.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let mut merges = Vec::new();
    let mut by_score = tiny::PIECES;
    by_score.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (token, _) in by_score {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push(serde_json::json!([left, right]));
            }
        }
    }
    let added = |id: u32, special: bool| {
        serde_json::json!({
            "id": id, "content": vocabulary.tokens[id as usize], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        })
    };
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, true), added(1, true), added(2, true), added(3, false), added(4, false), added(5, false)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": ids, "merges": merges,
        },
    });
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "pad_token": null}"#;
    std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    Tokenizer::from_folder(folder).unwrap()
}

#[test]
fn a_folder_gives_the_same_tokenizer_as_the_gguf_file() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, gguf) = (as_tokenizer_json(folder.path()), tokenizer());
    assert_eq!(folder.special().bos, gguf.special().bos);
    assert_eq!(folder.special().eos, gguf.special().eos);
    assert_eq!(folder.kind().model, gguf.kind().model);
    assert!(folder.kind().adds_bos && folder.kind().byte_fallback);
    assert_eq!(folder.vocab_size(), gguf.vocab_size());
    for id in 0..gguf.vocab_size() as u32 + 1 {
        assert_eq!(folder.token_bytes(id), gguf.token_bytes(id), "{id}");
    }
}

proptest! {
    #[test]
    fn agrees_with_an_independent_implementation(texts in prop::collection::vec("[abcé \r\n€🚀<>/s]{0,24}", 8)) {
        let folder = tempfile::tempdir().unwrap();
        let (folder, gguf) = (as_tokenizer_json(folder.path()), tokenizer());
        for text in texts {
            for (bos_eos, markup) in [(BosEos::Add, Markup::Text), (BosEos::Omit, Markup::Parse)] {
                let tokens = gguf.encode_with_offsets(&text, bos_eos, markup).unwrap();
                prop_assert_eq!(&folder.encode_with_offsets(&text, bos_eos, markup).unwrap(), &tokens);
                let ids: Vec<_> = tokens.iter().map(|token| token.id).collect();
                prop_assert_eq!(&gguf.encode(&text, bos_eos, markup).unwrap(), &ids);
                prop_assert_eq!(&folder.encode(&text, bos_eos, markup).unwrap(), &ids);
            }
        }
    }

    #[test]
    fn offsets_tile_the_text(text in "[abcé \n▁€🚀]{0,24}", prefix in any::<bool>()) {
        let tokenizer = if prefix { with_prefix() } else { tokenizer() };
        let tokens = tokenizer.encode_with_offsets(&text, BosEos::Omit, Markup::Text).unwrap();
        let mut at = 0;
        for token in &tokens {
            let range = token.bytes.clone().unwrap();
            prop_assert_eq!(range.start, at);
            at = range.end;
        }
        prop_assert_eq!(at, text.len());
        let ids: Vec<_> = tokens.iter().map(|token| token.id).collect();
        prop_assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), text.replace('▁', " "));
    }
}
