//! Real vocabularies as byte strings: what models are combined on.

use lathe_tokenizer::{BosEos, ByteVocabulary, Markup, Tokenizer, encode_continuation, splits_before};

use crate::{corpus, metadata_of};

/// The built-in models that are on this machine.
fn tokenizers() -> Vec<(Tokenizer, ByteVocabulary)> {
    let aliases = ["smollm2", "gemma3-270m", "qwen2.5-coder-0.5b"];
    let found = aliases.into_iter().filter_map(metadata_of);
    found
        .map(|metadata| {
            let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
            let vocabulary = ByteVocabulary::new(&tokenizer).unwrap();
            (tokenizer, vocabulary)
        })
        .collect()
}

fn spelt(vocabulary: &ByteVocabulary, ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| vocabulary.string(vocabulary.string_of(*id).unwrap()).to_vec()).collect()
}

#[test]
fn texts_survive_byte_for_byte() {
    for (tokenizer, vocabulary) in tokenizers() {
        for text in corpus::texts(&tokenizer) {
            let ids = encode_continuation(&tokenizer, &vocabulary, text.as_bytes()).unwrap();
            let composes = tokenizer.kind().normalizer.is_some();
            let has_marks = tokenizer.kind().model.starts_with("SentencePiece") && text.contains('▁');
            // NFC composes accents, and SentencePiece takes its mark for a space: the two changes that a member may make.
            if !(composes || has_marks) || tokenizer.decode(&ids, lathe_tokenizer::ControlTokens::Hide) == text {
                assert_eq!(spelt(&vocabulary, &ids), text.as_bytes(), "{text:?}");
            }
        }
        for bytes in ["👩‍👩‍👧 naïve\r\n\tlet x = 3; // 漢字\n".as_bytes(), b"half \xC3", b"odd \x80 bytes", b"</s><eos>"]
        {
            let ids = encode_continuation(&tokenizer, &vocabulary, bytes).unwrap();
            assert_eq!(spelt(&vocabulary, &ids), bytes);
        }
        // Bytes that no text in UTF-8 has may be missing.
        let never = encode_continuation(&tokenizer, &vocabulary, b"\xFF");
        assert!(never.is_none_or(|ids| spelt(&vocabulary, &ids) == b"\xFF"));
    }
}

/// What a member has read up to such a place is not read again, whatever comes behind it.
#[test]
fn before_a_word_all_tokenizers_split() {
    for (tokenizer, _) in tokenizers() {
        let encode = |text: &str| tokenizer.encode(text, BosEos::Omit, Markup::Text).unwrap();
        let mut places = 0;
        for text in corpus::texts(&tokenizer).iter().filter(|text| text.is_ascii()) {
            let whole = encode(text);
            for at in (1..text.len()).filter(|at| splits_before(text.as_bytes(), *at)).step_by(7) {
                assert_eq!([encode(&text[..at]), encode(&text[at..])].concat(), whole, "{text:?} at {at}");
                places += 1;
            }
        }
        assert!(places > 20, "{places} places");
    }
}

#[test]
fn words_have_the_same_bytes_in_all() {
    let found = tokenizers();
    for (_, vocabulary) in &found {
        for word in [" the", " and", "ing", "\n", " café"] {
            assert!(vocabulary.find(word.as_bytes()).is_some() || word == " café", "{word:?}");
        }
        assert!(!vocabulary.ends().is_empty());
    }
    if let [(_, smollm2), (_, gemma), (_, qwen)] = &found[..] {
        // Sets of byte strings made from the same headers with the `gguf` package.
        assert_eq!([smollm2.len(), gemma.len(), qwen.len()], [49_135, 255_785, 151_645]);
        let common = [smollm2.common_with(gemma), smollm2.common_with(qwen), gemma.common_with(qwen)];
        assert_eq!(common, [46_145, 39_234, 95_968]);
    }
}
