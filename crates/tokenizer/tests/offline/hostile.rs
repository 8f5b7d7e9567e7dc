//! Files that are wrong get an error that names the file and the key; nothing panics.

use crate::tiny;
use lathe_tokenizer::{ChatTemplate, GgufVocabulary, Tokenizer};

/// The message of the error that a change to the tiny byte-level vocabulary causes.
fn byte_level_error(change: impl FnOnce(&mut GgufVocabulary)) -> String {
    let mut vocabulary = tiny::byte_level("gpt-2");
    change(&mut vocabulary);
    Tokenizer::from_gguf_vocabulary(vocabulary).unwrap_err().to_string()
}

fn sentencepiece_error(change: impl FnOnce(&mut GgufVocabulary)) -> String {
    let mut vocabulary = tiny::sentencepiece();
    change(&mut vocabulary);
    Tokenizer::from_gguf_vocabulary(vocabulary).unwrap_err().to_string()
}

#[test]
fn gguf_vocabularies() {
    assert_eq!(
        byte_level_error(|file| file.model = "rwkv".into()),
        "tiny.gguf: tokenizer.ggml.model is 'rwkv', which is not supported"
    );
    assert_eq!(
        byte_level_error(|file| {
            file.tokens.clear();
            file.token_types = None;
        }),
        "tiny.gguf: key 'tokenizer.ggml.tokens': the list is empty"
    );
    assert_eq!(
        byte_level_error(|file| file.tokens[250] = "!".into()),
        "tiny.gguf: token '!' appears twice, as ids 33 and 250"
    );
    assert_eq!(
        byte_level_error(|file| file.token_types = Some(vec![1; 3])),
        "tiny.gguf: key 'tokenizer.ggml.token_type' has 3 entries for 270 tokens"
    );
    assert_eq!(
        byte_level_error(|file| file.token_types.as_mut().unwrap()[7] = 9),
        "tiny.gguf: key 'tokenizer.ggml.token_type': token 7 has type 9; types go from 1 to 6"
    );
    assert_eq!(byte_level_error(|file| file.merges = None), "tiny.gguf: key 'tokenizer.ggml.merges' is missing");
    assert_eq!(
        byte_level_error(|file| file.eos = Some(270)),
        "tiny.gguf: 'tokenizer.ggml.eos_token_id' is 270, but the vocabulary has 270 tokens"
    );
    assert_eq!(
        byte_level_error(|file| file.padding = Some(u64::MAX)),
        "tiny.gguf: 'tokenizer.ggml.padding_token_id' is 18446744073709551615, but the vocabulary has 270 tokens"
    );
    assert_eq!(
        byte_level_error(|file| (file.add_bos, file.bos) = (Some(true), None)),
        "tiny.gguf: key 'tokenizer.ggml.bos_token_id' is missing"
    );
}

#[test]
fn merges() {
    let with_merge = |merge: &str| byte_level_error(|file| file.merges.as_mut().unwrap()[3] = merge.into());
    assert_eq!(with_merge("h xyz"), "tiny.gguf: merge 3 ('h xyz'): 'xyz' is not in the vocabulary");
    assert_eq!(with_merge("h h"), "tiny.gguf: merge 3 ('h h'): 'hh' is not in the vocabulary");
    assert_eq!(with_merge("h "), "tiny.gguf: merge 3 ('h '): '' is not in the vocabulary");
    assert_eq!(with_merge("h"), "tiny.gguf: merge 3 ('h'): two tokens with a space between are expected");
    assert_eq!(with_merge(""), "tiny.gguf: merge 3 (''): two tokens with a space between are expected");
}

#[test]
fn scores() {
    assert_eq!(sentencepiece_error(|file| file.scores = None), "tiny.gguf: key 'tokenizer.ggml.scores' is missing");
    assert_eq!(
        sentencepiece_error(|file| file.scores.as_mut().unwrap().truncate(4)),
        "tiny.gguf: key 'tokenizer.ggml.scores' has 4 entries for 277 tokens"
    );
    assert_eq!(
        sentencepiece_error(|file| file.scores.as_mut().unwrap()[270] = f32::NAN),
        "tiny.gguf: key 'tokenizer.ggml.scores': the score of token 270 is not a number"
    );
    assert_eq!(
        sentencepiece_error(|file| file.tokens[6] = "<0xZZ>".into()),
        "tiny.gguf: key 'tokenizer.ggml.tokens': token 6 ('<0xZZ>') is of type byte, but not of the form <0x0A>"
    );
}

/// The error, file name first, of a folder whose tokenizer.json and second file are these.
fn folder_error(tokenizer: &str, other: Option<(&str, &str)>) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    if let Some((name, content)) = other {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let message = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    message.strip_prefix(&format!("{}/", folder.path().display())).unwrap().to_owned()
}

/// A tokenizer.json of two letters, with `extra` before its model and `model` at the model's end.
fn tokenizer_json(extra: &str, model: &str) -> String {
    format!(
        r#"{{"added_tokens": [], {extra} "model": {{"type": "BPE", "vocab": {{"a": 0, "b": 1, "ab": 2}}, {model}}}}}"#
    )
}

#[test]
fn folders() {
    let empty = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_folder(empty.path()).unwrap_err();
    assert!(error.to_string().ends_with("no tokenizer.json in this folder") && error.hint().is_some());
    assert!(folder_error("{", None).starts_with("tokenizer.json: EOF"));
    assert!(folder_error(r#"{"model": {"vocab": 3}}"#, None).contains("a vocabulary: an object or a list"));
    let fine = tokenizer_json("", r#""merges": ["a b"]"#);
    assert_eq!(
        folder_error(&fine, Some(("tokenizer_config.json", r#"{"eos_token": "</s>"}"#))),
        "tokenizer_config.json: 'eos_token' is '</s>', which is not in the vocabulary"
    );
    assert_eq!(
        folder_error(&fine, Some(("generation_config.json", r#"{"eos_token_id": [1, 3]}"#))),
        "generation_config.json: 'eos_token_id' is 3, but the vocabulary has 3 tokens"
    );
    assert_eq!(
        folder_error(&fine, Some(("tokenizer_config.json", r#"{"add_bos_token": true}"#))),
        "tokenizer_config.json: 'add_bos_token' or 'add_eos_token' is true, but no such token is named"
    );
    assert!(folder_error(&fine, Some(("special_tokens_map.json", "[}"))).starts_with("special_tokens_map.json: "));
    assert!(folder_error(&fine, Some(("generation_config.json", r#"{"eos_token_id": "x"}"#))).contains("line 1"));
}

#[test]
fn tokenizer_json_models() {
    let with_merges = |merges: &str| folder_error(&tokenizer_json("", &format!(r#""merges": {merges}"#)), None);
    let reason = "the two tokens and their joined text must all be in the vocabulary";
    // The library reads past a buffer's end on this one.
    assert_eq!(with_merges(r#"["a b", "ab ab"]"#), format!("tokenizer.json: merge 1 ('ab ab'): {reason}"));
    assert_eq!(with_merges(r#"[["b", "x"]]"#), format!("tokenizer.json: merge 0 ('b x'): {reason}"));
    let prefixed = tokenizer_json("", r#""continuing_subword_prefix": "zz", "merges": ["a b"]"#);
    assert_eq!(folder_error(&prefixed, None), format!("tokenizer.json: merge 0 ('a b'): {reason}"));
    let regex =
        r#""pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated", "invert": false},"#;
    assert!(folder_error(&tokenizer_json(regex, r#""merges": []"#), None).starts_with("tokenizer.json: "));
    let far = r#"{"model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}"#;
    assert_eq!(folder_error(far, None), "tokenizer.json: the highest token id is 4294967295, with only 1 tokens");
    let shared = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}"#;
    assert_eq!(folder_error(shared, None), "tokenizer.json: tokens 'a' and 'b' have the same id 0");
    let none = r#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#;
    assert_eq!(folder_error(none, None), "tokenizer.json: the vocabulary is empty");
}

#[test]
fn templates() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), [0xFF]).unwrap();
    assert!(ChatTemplate::from_folder(folder.path()).unwrap_err().to_string().contains("chat_template.jinja: "));
    std::fs::write(folder.path().join("chat_template.jinja"), "ok\n{% if %}").unwrap();
    let error = ChatTemplate::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("chat template 'default', line 2: syntax error"), "{error}");
}
