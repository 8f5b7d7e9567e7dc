//! Real GGUF vocabularies against the ids of other implementations (`tests/goldens/*.json` at the workspace root).
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests; a skipped test says so")]

mod bytes;
mod corpus;
mod export;

use std::path::{Path, PathBuf};

use lathe_formats::{Checkpoint, GgufMetadata};
use lathe_tokenizer::{
    BosEos, ChatTemplate, ControlTokens, GenerationPrompt, Markup, Message, TemplateVariables, Tokenizer,
};
use serde_json::Value;

#[test]
fn smollm2_is_byte_level_with_single_digits() {
    let Some((tokenizer, _)) = check("smollm2", BosEos::Omit) else {
        return;
    };
    assert_eq!(tokenizer.kind().model, "byte-level BPE");
    assert_eq!(tokenizer.kind().pre_tokenizer.as_deref(), Some("smollm"));
    assert_eq!(tokenizer.kind().merges, Some(48_900));
    assert_eq!(tokenizer.vocab_size(), 49_152);
    let special = tokenizer.special();
    assert_eq!((special.bos, special.pad, special.unk), (Some(1), Some(2), Some(0)));
    assert_eq!(special.eos, [2, 0]);
}

#[test]
fn gemma3_is_sentencepiece_with_bos() {
    let Some((tokenizer, _)) = check("gemma3-270m", BosEos::Add) else {
        return;
    };
    assert_eq!(tokenizer.kind().model, "SentencePiece BPE");
    assert!(tokenizer.kind().adds_bos && !tokenizer.kind().adds_eos && tokenizer.kind().byte_fallback);
    assert_eq!(tokenizer.vocab_size(), 262_144);
    let special = tokenizer.special();
    assert_eq!((special.bos, special.pad, special.unk), (Some(2), Some(0), Some(3)));
    assert_eq!(special.eos, [1, 106]);
}

#[test]
fn qwen_is_byte_level_with_unused_rows() {
    let Some((tokenizer, templates)) = check("qwen2.5-coder-0.5b", BosEos::Omit) else {
        return;
    };
    assert_eq!(tokenizer.vocab_size(), 151_936);
    assert_eq!(tokenizer.special().eos, [151_645, 151_643]);
    assert_eq!(tokenizer.token_bytes(151_935), lathe_tokenizer::TokenBytes::Unused);
    let chat = templates[0]
        .render(&[Message::new("user", "hi")], GenerationPrompt::Add, &TemplateVariables::of(&tokenizer))
        .unwrap();
    let system = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n";
    assert_eq!(chat, format!("{system}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"));
    let ids = tokenizer.encode(&chat, BosEos::Omit, Markup::Parse).unwrap();
    assert_eq!((ids[0], ids.iter().filter(|&&id| id == 151_645).count()), (151_644, 2));
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), chat);
    // Data that happens to hold the name of a control token stays data.
    let ids = tokenizer.encode(&chat, BosEos::Omit, Markup::Text).unwrap();
    assert!(ids.iter().all(|&id| id < 151_643));
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), chat);
}

/// Checks all ids of a model's golden file; none where the model is not on this machine.
fn check(alias: &str, bos_eos_of_texts: BosEos) -> Option<(Tokenizer, Vec<ChatTemplate>)> {
    let metadata = &metadata_of(alias)?;
    let tokenizer = Tokenizer::from_gguf(metadata).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(format!("{alias}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let mut checked = 0;
    for item in golden["tokenizer"].as_array().unwrap() {
        let text = item["text"].as_str().unwrap();
        if item["agree"] == true {
            assert_eq!(encode(&tokenizer, text, BosEos::Omit), ids(&item["ids"]), "{alias}: {text:?}");
            checked += 1;
        }
        check_there_and_back(&tokenizer, text);
    }
    assert!(checked >= 14, "{alias}: the golden file has fewer items than it had");
    for (name, item) in golden["texts"].as_object().unwrap() {
        let text = item["text"].as_str().unwrap();
        assert_eq!(encode(&tokenizer, text, bos_eos_of_texts), ids(&item["ids"]), "{alias}: {name}");
        check_there_and_back(&tokenizer, text);
    }
    Some((tokenizer, ChatTemplate::from_gguf(metadata).unwrap()))
}

/// The header of a model's file; none where the model is not on this machine.
pub(crate) fn metadata_of(alias: &str) -> Option<GgufMetadata> {
    let path = models().map(|models| models.join(alias).join("model.gguf"));
    let Some(path) = path.filter(|path| path.exists()) else {
        eprintln!("skipped: {alias} is not in the cache folder");
        return None;
    };
    Some(Checkpoint::open(&path).unwrap().gguf().unwrap().clone())
}

/// None of the golden texts has accents to compose, so decoding gives back the text, and offsets are exact.
fn check_there_and_back(tokenizer: &Tokenizer, text: &str) {
    let ids = encode(tokenizer, text, BosEos::Omit);
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), text);
    let mut at = 0;
    for (token, id) in tokenizer.encode_with_offsets(text, BosEos::Omit, Markup::Text).unwrap().into_iter().zip(ids) {
        let range = token.bytes.unwrap();
        assert_eq!((token.id, range.start), (id, at));
        assert_eq!(tokenizer.token_bytes(id).as_slice(), &text.as_bytes()[range.clone()]);
        at = range.end;
    }
    assert_eq!(at, text.len());
}

fn encode(tokenizer: &Tokenizer, text: &str, bos_eos: BosEos) -> Vec<u32> {
    tokenizer.encode(text, bos_eos, Markup::Text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// `models` in the cache folder.
fn models() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("LATHE_HOME")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("lathe")))
        .or_else(|| Some(folder("HOME")?.join(".cache/lathe")))
        .map(|home| home.join("models"))
}
