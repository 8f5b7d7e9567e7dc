//! Vocabularies as byte strings: byte-level and SentencePiece spellings of the same bytes meet.

use crate::tiny::{self, piece};
use lathe_tokenizer::{BosEos, ByteVocabulary, Error, GgufVocabulary, Markup, PROBE, Tokenizer, encode_continuation};
use proptest::prelude::*;

fn byte_level() -> Tokenizer {
    Tokenizer::from_gguf_vocabulary(tiny::byte_level("gpt-2")).unwrap()
}

fn sentencepiece() -> Tokenizer {
    Tokenizer::from_gguf_vocabulary(tiny::sentencepiece()).unwrap()
}

fn with_prefix() -> Tokenizer {
    let vocabulary = GgufVocabulary { add_space_prefix: None, ..tiny::sentencepiece() };
    Tokenizer::from_gguf_vocabulary(vocabulary).unwrap()
}

/// The bytes of a token as the file spells it.
fn bytes_of<'v>(tokenizer: &Tokenizer, vocabulary: &'v ByteVocabulary, token: &str) -> Option<&'v [u8]> {
    vocabulary.string_of(tokenizer.token_id(token).unwrap()).map(|string| vocabulary.string(string))
}

#[test]
fn spellings_of_the_same_bytes_meet() {
    let (bpe, sp) = (byte_level(), sentencepiece());
    let (of_bpe, of_sp) = (ByteVocabulary::new(&bpe).unwrap(), ByteVocabulary::new(&sp).unwrap());
    assert_eq!(bytes_of(&bpe, &of_bpe, "Ã©"), Some(&[0xC3, 0xA9][..]));
    assert_eq!(bytes_of(&sp, &of_sp, "é"), Some(&[0xC3, 0xA9][..]));
    assert_eq!(bytes_of(&bpe, &of_bpe, "Ċ"), Some(&b"\n"[..]));
    assert_eq!(bytes_of(&sp, &of_sp, "<0x0A>"), Some(&b"\n"[..]));
    assert_eq!(bytes_of(&bpe, &of_bpe, "Ġwor"), Some(&b" wor"[..]));
    assert_eq!(bytes_of(&sp, &of_sp, "▁ab"), Some(&b" ab"[..]));
    // Half a character: no piece is that, only the byte.
    assert_eq!(bytes_of(&bpe, &of_bpe, "Ã"), Some(&[0xC3][..]));
    assert_eq!(of_sp.ids(of_sp.find(&[0xC3]).unwrap()), [sp.token_id("<0xC3>").unwrap()]);
    // "/n" is two characters and no newline.
    assert_eq!(of_sp.find(b"/n"), None);
}

#[test]
fn control_tokens_have_no_bytes_and_their_names_are_text() {
    let (bpe, sp) = (byte_level(), sentencepiece());
    let (of_bpe, of_sp) = (ByteVocabulary::new(&bpe).unwrap(), ByteVocabulary::new(&sp).unwrap());
    for (tokenizer, vocabulary, names) in [(&bpe, &of_bpe, ["<|im_end|>", "[PAD0]"]), (&sp, &of_sp, ["</s>", "<s>"])] {
        names.iter().for_each(|name| assert_eq!(bytes_of(tokenizer, vocabulary, name), None, "{name}"));
    }
    assert_eq!(bytes_of(&bpe, &of_bpe, "<tool>"), Some(&b"<tool>"[..]));
    assert_eq!((of_bpe.ends(), of_sp.ends()), (&[269][..], &[2][..]));
    let typed = encode_continuation(&sp, &of_sp, b"</s>").unwrap();
    assert_eq!(typed, b"</s>".map(|byte| 6 + u32::from(byte)));
}

#[test]
fn a_piece_goes_before_the_byte_of_the_same_text() {
    let sp = sentencepiece();
    let vocabulary = ByteVocabulary::new(&sp).unwrap();
    // The byte has the lower id; the tokenizer writes the piece.
    let a = vocabulary.find(b"a").unwrap();
    assert_eq!(vocabulary.ids(a), [piece("a"), 6 + u32::from(b'a')]);
    assert!(vocabulary.shared().contains(&a));
    // A newline is user-defined here, which is found before any byte.
    assert_eq!(vocabulary.ids(vocabulary.find(b"\n").unwrap())[0], 3);
}

#[test]
fn a_continuation_has_no_added_space() {
    let tokenizer = with_prefix();
    let vocabulary = ByteVocabulary::new(&tokenizer).unwrap();
    assert_eq!(tokenizer.encode("ab", BosEos::Omit, Markup::Text).unwrap(), [piece("▁ab")]);
    assert_eq!(encode_continuation(&tokenizer, &vocabulary, b"ab").unwrap(), [piece("ab")]);
    assert_eq!(encode_continuation(&tokenizer, &vocabulary, b" ab").unwrap(), [piece("▁ab")]);
    assert_eq!(encode_continuation(&tokenizer, &vocabulary, b"\nab").unwrap(), [3, piece("ab")]);
    assert_eq!(encode_continuation(&tokenizer, &vocabulary, b"").unwrap(), [0u32; 0]);
}

#[test]
fn tokenizers_that_change_texts_are_refused() {
    // Without bytes, what has no piece is unknown.
    let mut vocabulary = tiny::sentencepiece();
    for token_type in &mut vocabulary.token_types.as_mut().unwrap()[6..262] {
        *token_type = 5;
    }
    let tokenizer = Tokenizer::from_gguf_vocabulary(vocabulary).unwrap();
    let error = ByteVocabulary::new(&tokenizer).unwrap_err();
    assert!(matches!(error, Error::ChangesText { .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(PROBE.contains("\r\n") && PROBE.contains('\t') && PROBE.contains("  "));
}

proptest! {
    #[test]
    fn any_bytes_are_spelt(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        for tokenizer in [byte_level(), sentencepiece(), with_prefix()] {
            let vocabulary = ByteVocabulary::new(&tokenizer).unwrap();
            let ids = encode_continuation(&tokenizer, &vocabulary, &bytes).unwrap();
            let spelt: Vec<u8> = ids
                .iter()
                .flat_map(|id| vocabulary.string(vocabulary.string_of(*id).unwrap()).to_vec())
                .collect();
            prop_assert_eq!(&spelt, &bytes);
        }
    }
}
