//! Real vocabularies as model folders and back.

use lathe_formats::{Checkpoint, Format, GgufMetadata, GgufValue, write};
use lathe_tokenizer::export::{folder_files, gguf_metadata};
use lathe_tokenizer::{BosEos, ChatTemplate, GgufVocabulary, Markup, TokenBytes, Tokenizer};

use crate::{corpus, metadata_of};

#[test]
fn smollm2_goes_to_a_folder_and_back() {
    there_and_back("smollm2");
}

#[test]
fn gemma3_goes_to_a_folder_and_back() {
    there_and_back("gemma3-270m");
}

#[test]
fn qwen_goes_to_a_folder_and_back() {
    there_and_back("qwen2.5-coder-0.5b");
}

fn there_and_back(alias: &str) {
    let Some(metadata) = metadata_of(alias) else {
        return;
    };
    let vocabulary = GgufVocabulary::from_metadata(&metadata).unwrap();
    let templates = ChatTemplate::from_gguf(&metadata).unwrap();
    let original = Tokenizer::from_gguf_vocabulary(vocabulary.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = folder_files(&vocabulary, &templates, Some(2048)).unwrap();
    for (name, bytes) in &files.files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::fs::write(folder.path().join("generation_config.json"), serde_json::to_vec(&files.generation).unwrap())
        .unwrap();
    let from_folder = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap(), templates);
    check_same(alias, &original, &from_folder);

    let rows = vocabulary.tokens.len();
    let back = written(gguf_metadata(folder.path(), rows).unwrap());
    assert_eq!(ChatTemplate::from_gguf(&back).unwrap(), templates);
    let returned = GgufVocabulary::from_metadata(&back).unwrap();
    assert_eq!(returned.tokens, vocabulary.tokens);
    // The unknown token of a SentencePiece model may be called a control token or an unknown one.
    let types = |vocabulary: &GgufVocabulary| -> Vec<i64> {
        vocabulary.token_types.iter().flatten().map(|&kind| if kind == 2 { 3 } else { kind }).collect()
    };
    assert_eq!(types(&returned), types(&vocabulary));
    assert_eq!((&returned.merges, &returned.pre), (&vocabulary.merges, &vocabulary.pre));
    let ids = |v: &GgufVocabulary| (v.bos, v.eos, v.unknown, v.padding);
    assert_eq!(ids(&returned), ids(&vocabulary));
    let from_back = Tokenizer::from_gguf_vocabulary(returned).unwrap();
    assert_eq!(from_back.kind(), original.kind());
    check_same(alias, &original, &from_back);
}

/// The same ids, bytes and special tokens, for texts and for prompts.
fn check_same(alias: &str, expected: &Tokenizer, found: &Tokenizer) {
    assert_eq!(found.special(), expected.special());
    for id in 0..expected.vocab_size() as u32 {
        let bytes = expected.token_bytes(id);
        assert_eq!(found.token_bytes(id), bytes, "{alias}: {id}");
        if bytes != TokenBytes::Unused {
            assert_eq!(
                found.token_str(id).map(|token| token.replace('▁', " ")),
                expected.token_str(id).map(|token| token.replace('▁', " "))
            );
        }
    }
    for text in corpus::texts(expected) {
        for (bos_eos, markup) in [(BosEos::Add, Markup::Text), (BosEos::Omit, Markup::Parse)] {
            let ids = expected.encode(&text, bos_eos, markup).unwrap();
            assert_eq!(found.encode(&text, bos_eos, markup).unwrap(), ids, "{alias}: {text:?} {markup:?}");
        }
    }
}

/// The keys as a GGUF reader sees them.
fn written(keys: Vec<(String, GgufValue)>) -> GgufMetadata {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.gguf");
    write::gguf(&path, &keys, &[]).unwrap().finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    Checkpoint::from_bytes(path, Format::Gguf, bytes).unwrap().gguf().unwrap().clone()
}
