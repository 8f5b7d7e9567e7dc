//! Byte-level BPE from a GGUF vocabulary of 270 tokens.

use crate::tiny;
use lathe_tokenizer::{BosEos, ControlTokens, Markup, TokenBytes, Tokenizer};
use proptest::prelude::*;

const TEXTS: [&str; 9] = [
    "",
    " ",
    "hello world",
    "  two leading spaces\tand a tab",
    "one\r\ntwo\n\n\nthree\n",
    "naïve café — ½",
    "数学 は 楽しい 한국어 العربية",
    "👩\u{200d}🚀🚀 ok",
    "don't 1234567890 <tool>x</tool> <|im_end|>",
];

fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf_vocabulary(tiny::byte_level("smollm")).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str, markup: Markup) -> Vec<u32> {
    tokenizer.encode(text, BosEos::Omit, markup).unwrap()
}

#[test]
fn merges_in_order_within_pieces() {
    let tokenizer = tokenizer();
    // he 256, ll 257, hell 258, Ġw 259, or 260, Ġwor 261, é 262, 12 263, ĊĊ 264, hello 265.
    assert_eq!(encode(&tokenizer, "hello wor", Markup::Text), [265, 261]);
    assert_eq!(encode(&tokenizer, "é", Markup::Text), [262]);
    assert_eq!(encode(&tokenizer, "\n\n", Markup::Text), [264]);
    // smollm makes every digit a piece of its own, gpt-2 does not.
    assert_eq!(encode(&tokenizer, "12", Markup::Text), [u32::from(b'1'), u32::from(b'2')]);
    let gpt2 = Tokenizer::from_gguf_vocabulary(tiny::byte_level("gpt-2")).unwrap();
    assert_eq!(encode(&gpt2, "12", Markup::Text), [263]);
}

#[test]
fn every_known_pre_tokenizer_builds_and_keeps_the_text() {
    let unknown = Tokenizer::from_gguf_vocabulary(tiny::byte_level("no-such-pre")).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "tiny.gguf: tokenizer.ggml.pre is 'no-such-pre', which is not a known pre-tokeniser"
    );
    let hint = unknown.hint().unwrap();
    let names: Vec<_> = hint.strip_prefix("known: ").unwrap().split(", ").collect();
    assert!(names.len() > 40);
    for name in names {
        let tokenizer = Tokenizer::from_gguf_vocabulary(tiny::byte_level(name)).unwrap();
        for text in TEXTS {
            let ids = encode(&tokenizer, text, Markup::Text);
            assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), text, "{name}");
        }
    }
}

#[test]
fn pieces_of_the_pre_tokenizers_that_differ() {
    // A merge shows whether two characters share a piece.
    let pieces = |pre: &str, text: &str| {
        let mut vocabulary = tiny::byte_level(pre);
        vocabulary.merges = Some(vec!["1 2".into(), "Ċ Ċ".into(), "Ġ w".into()]);
        encode(&Tokenizer::from_gguf_vocabulary(vocabulary).unwrap(), text, Markup::Text).len()
    };
    assert_eq!(pieces("llama-bpe", "1212"), 3, "digits in threes: 12 1|2");
    assert_eq!(pieces("qwen2", "12"), 2, "single digits");
    assert_eq!(pieces("deepseek-coder", "\n\n"), 2, "each newline alone");
    assert_eq!(pieces("qwen2", "\n\n"), 1);
    assert_eq!(pieces("gpt-2", " w"), 1);
    assert_eq!(pieces("bloom", " w,"), 2);
}

#[test]
fn qwen_composes_accents_and_says_where_they_were() {
    let tokenizer = Tokenizer::from_gguf_vocabulary(tiny::byte_level("qwen2")).unwrap();
    assert_eq!(tokenizer.kind().normalizer.as_deref(), Some("NFC"));
    let text = "he\u{301}!";
    let tokens = tokenizer.encode_with_offsets(text, BosEos::Omit, Markup::Text).unwrap();
    let ids: Vec<_> = tokens.iter().map(|token| token.id).collect();
    assert_eq!(ids, [u32::from(b'h'), 262, u32::from(b'!')]);
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), "h\u{e9}!");
    let ranges: Vec<_> = tokens.into_iter().map(|token| token.bytes.unwrap()).collect();
    assert_eq!(ranges, [0..1, 1..4, 4..5]);
}

#[test]
fn control_tokens_are_text_unless_parsed_and_user_defined_ones_never() {
    let tokenizer = tokenizer();
    let text = "<|im_start|>he<tool><|im_end|>";
    assert_eq!(encode(&tokenizer, text, Markup::Parse), [268, 256, 266, 269]);
    let as_text = encode(&tokenizer, text, Markup::Text);
    assert!(as_text.contains(&266) && !as_text.contains(&268) && !as_text.contains(&269));
    assert_eq!(tokenizer.decode(&as_text, ControlTokens::Hide), text);
    assert_eq!(tokenizer.decode(&[268, 256, 266, 269], ControlTokens::Hide), "he<tool>");
    assert_eq!(tokenizer.decode(&[268, 256, 266, 269], ControlTokens::Show), text);
    assert_eq!(tokenizer.special().eos, [269]);
}

#[test]
fn what_each_id_contributes() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.token_bytes(261), TokenBytes::Bytes(b" wor".to_vec()));
    assert_eq!(tokenizer.token_bytes(0xE9), TokenBytes::Bytes(vec![0xE9]));
    assert_eq!(tokenizer.token_bytes(266), TokenBytes::Bytes(b"<tool>".to_vec()));
    assert_eq!(tokenizer.token_bytes(267), TokenBytes::Unused);
    assert_eq!(tokenizer.token_bytes(269), TokenBytes::Control("<|im_end|>".into()));
    assert_eq!(tokenizer.token_bytes(270), TokenBytes::Unused);
    assert_eq!(tokenizer.token_bytes(u32::MAX), TokenBytes::Unused);
    assert_eq!((tokenizer.token_str(261), tokenizer.token_str(270)), (Some("Ġwor"), None));
    assert_eq!((tokenizer.token_id("Ġwor"), tokenizer.token_id("wor")), (Some(261), None));
    assert_eq!(tokenizer.vocab_size(), 270);
}

#[test]
fn bos_and_eos_are_added_where_the_file_says_so() {
    let mut vocabulary = tiny::byte_level("gpt-2");
    (vocabulary.add_bos, vocabulary.add_eos) = (Some(true), Some(true));
    let tokenizer = Tokenizer::from_gguf_vocabulary(vocabulary).unwrap();
    assert_eq!(tokenizer.encode("he", BosEos::Add, Markup::Text).unwrap(), [268, 256, 269]);
    assert_eq!(tokenizer.encode("", BosEos::Add, Markup::Text).unwrap(), [268, 269]);
    let tokens = tokenizer.encode_with_offsets("he", BosEos::Add, Markup::Text).unwrap();
    let ranges: Vec<_> = tokens.into_iter().map(|token| token.bytes).collect();
    assert_eq!(ranges, [None, Some(0..2), None]);
    // Llama 3's files need not say it.
    let llama3 = Tokenizer::from_gguf_vocabulary(tiny::byte_level("llama-bpe")).unwrap();
    assert!(llama3.kind().adds_bos && !llama3.kind().adds_eos);
    assert_eq!(llama3.encode("he", BosEos::Add, Markup::Text).unwrap(), [268, 256]);
}

#[test]
fn a_stream_holds_back_what_is_no_character_yet() {
    let tokenizer = tokenizer();
    let mut stream = tokenizer.stream(ControlTokens::Hide);
    let rocket: Vec<String> = [0xF0, 0x9F, 0x9A, 0x80].map(|byte| stream.push(byte)).to_vec();
    assert_eq!(rocket, ["", "", "", "🚀"]);
    assert_eq!((stream.push(0xC3), stream.push(u32::from(b'a'))), (String::new(), "\u{FFFD}a".into()));
    assert_eq!(
        (stream.push(0xC3), stream.finish(), stream.finish()),
        (String::new(), "\u{FFFD}".into(), String::new())
    );
    // A control token in the middle of a character is no part of the text.
    assert_eq!((stream.push(0xC3), stream.push(269), stream.push(0xA9)), (String::new(), String::new(), "é".into()));
}

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in any::<String>(), pre in prop::sample::select(&["smollm", "gpt-2", "llama-bpe", "deepseek-v3"])) {
        let tokenizer = Tokenizer::from_gguf_vocabulary(tiny::byte_level(pre)).unwrap();
        for markup in [Markup::Text, Markup::Parse] {
            let ids = encode(&tokenizer, &text, markup);
            prop_assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), text.clone());
        }
    }

    #[test]
    fn offsets_tile_the_text_and_hold_the_tokens_bytes(text in "(hello| wor|é|한|🚀|\r\n|<tool>|<\\|im_end\\|>|\\PC){0,12}") {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode_with_offsets(&text, BosEos::Add, Markup::Text).unwrap();
        let ids: Vec<_> = tokens.iter().map(|token| token.id).collect();
        prop_assert_eq!(ids, encode(&tokenizer, &text, Markup::Text));
        let mut at = 0;
        for token in tokens {
            let range = token.bytes.unwrap();
            prop_assert_eq!(range.start, at);
            let bytes = tokenizer.token_bytes(token.id);
            prop_assert_eq!(bytes.as_slice(), &text.as_bytes()[range.clone()]);
            at = range.end;
        }
        prop_assert_eq!(at, text.len());
    }

    #[test]
    fn a_stream_writes_what_decoding_writes(ids in prop::collection::vec(0u32..280, 0..40)) {
        let tokenizer = tokenizer();
        let mut stream = tokenizer.stream(ControlTokens::Hide);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).as_slice().to_vec()).collect();
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(text, tokenizer.decode(&ids, ControlTokens::Hide));
    }
}
