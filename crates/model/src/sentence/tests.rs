//! Folders in both dialects, and those that would give other vectors.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::open::{Opened, open};

/// A copy of the fixture of an encoder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/bert");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(from.join(file), folder.path().join(file)).expect("copied");
        }
        Self(folder)
    }

    fn with(self, file: &str, content: &Value) -> Self {
        let path = self.0.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content.to_string()).expect("written");
        self
    }

    fn modules(self, kinds: &[&str]) -> Self {
        let list = kinds.iter().enumerate().map(|(index, kind)| {
            let name = kind.rsplit('.').next().unwrap_or_default();
            let path = if index == 0 { String::new() } else { format!("{index}_{name}") };
            json!({"idx": index, "name": index.to_string(), "path": path, "type": kind})
        });
        let list = Value::Array(list.collect());
        self.with("modules.json", &list)
    }

    /// In the words of version 2.
    fn older(pooling: &Value) -> Self {
        let kinds = ["Transformer", "Pooling", "Normalize"].map(|kind| format!("sentence_transformers.models.{kind}"));
        Self::new().modules(&kinds.each_ref().map(String::as_str)).with("1_Pooling/config.json", pooling)
    }

    fn open(&self) -> Result<Opened, Error> {
        open(self.0.path())
    }

    fn spec(&self) -> SentenceSpec {
        self.open().expect("opened").sentence().expect("a sentence folder").clone()
    }

    fn refused(&self) -> String {
        self.open().err().expect("refused").to_string()
    }
}

fn mean() -> Value {
    json!({"word_embedding_dimension": 32, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true,
           "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false})
}

#[test]
fn both_dialects_are_read() {
    let unit = |pooling, max_tokens| SentenceSpec { pooling, normalise: Normalise::UnitLength, max_tokens };
    assert_eq!(Folder::older(&mean()).spec(), unit(Pooling::Mean, None));
    for (flag, word, pooling) in POOLINGS {
        let mut flags = mean();
        flags["pooling_mode_mean_tokens"] = false.into();
        flags[flag] = true.into();
        assert_eq!(Folder::older(&flags).spec(), unit(pooling, None));
        let newer = json!({"embedding_dimension": 32, "pooling_mode": word, "include_prompt": true});
        let folder = Folder::new()
            .modules(&[
                "sentence_transformers.base.modules.transformer.Transformer",
                "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            ])
            .with("1_Pooling/config.json", &newer);
        assert_eq!(folder.spec(), SentenceSpec { pooling, normalise: Normalise::AsItIs, max_tokens: None });
    }
    assert!(Folder::new().open().expect("opened").sentence().is_none());
}

#[test]
fn the_limit_is_the_model_s_then_the_tokenizer_s_and_never_more_than_the_context() {
    let limit = |own: Value, tokenizer: Value| {
        let folder = Folder::older(&mean())
            .with("sentence_bert_config.json", &json!({"max_seq_length": own, "do_lower_case": false}))
            .with("tokenizer_config.json", &json!({"model_max_length": tokenizer}));
        folder.spec().max_tokens
    };
    assert_eq!(limit(16.into(), 12.into()), Some(16));
    assert_eq!(limit(Value::Null, 12.into()), Some(12));
    assert_eq!(limit(Value::Null, json!(1e30)), None);
    assert_eq!(limit(512.into(), 12.into()), None, "the fixture reads 64");
    assert_eq!(limit(Value::Null, Value::Null), None);
}

#[test]
fn what_would_give_other_vectors_is_refused() {
    let kind = |name: &str| format!("sentence_transformers.models.{name}");
    let modules = |names: &[&str]| {
        let kinds: Vec<String> = names.iter().map(|name| kind(name)).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        Folder::new().modules(&kinds).with("1_Pooling/config.json", &mean()).refused()
    };
    let dense = modules(&["Transformer", "Pooling", "Dense", "Normalize"]);
    assert!(
        dense.ends_with("module 2 is `sentence_transformers.models.Dense`, which lathe does not compute"),
        "{dense}"
    );
    assert!(modules(&["Transformer", "Pooling", "Normalize", "Normalize"]).contains("module 3 is"));
    assert!(modules(&["Transformer", "Normalize"]).contains("module 1 is"));
    assert!(modules(&["Transformer"]).contains("expected a model and a pooling"));
    assert!(modules(&[]).contains("expected a model and a pooling"));
    assert!(Folder::new().modules(&["mine.Transformer"]).refused().contains("module 0 is `mine.Transformer`"));

    let pooling = |change: fn(&mut Value)| {
        let mut config = mean();
        change(&mut config);
        Folder::older(&config).refused()
    };
    assert!(pooling(|c| c["pooling_mode_cls_token"] = true.into()).contains("one pooling, and another is set"));
    assert!(
        pooling(|c| c["pooling_mode_mean_tokens"] = false.into()).contains("`pooling_mode_mean_tokens` is missing")
    );
    assert!(pooling(|c| c["word_embedding_dimension"] = 31.into()).contains("expected 32, the model's hidden size"));
    assert!(pooling(|c| c["pooling_mode_median"] = true.into()).contains("a field that is not known"));
    assert!(pooling(|c| *c = json!({"pooling_mode": ["cls", "mean"]})).contains("expected one of cls, max, mean"));
    assert!(pooling(|c| *c = json!([])).contains("expected an object"));

    let with = |file: &str, content: Value| Folder::older(&mean()).with(file, &content).refused();
    assert!(with("sentence_bert_config.json", json!({"do_lower_case": true})).contains("`do_lower_case` is true"));
    assert!(with("sentence_bert_config.json", json!({"max_seq_length": 0})).contains("expected at least 1"));
    assert!(with("config_sentence_transformers.json", json!({"default_prompt_name": "query"})).contains("\"query\""));
    assert!(with("modules.json", json!({})).contains("expected a list"));
    assert!(with("modules.json", json!([3])).contains("expected a list of objects"));
    let outside = json!([
        {"idx": 0, "path": "", "type": kind("Transformer")}, {"idx": 1, "path": "../p", "type": kind("Pooling")},
    ]);
    assert!(with("modules.json", outside).contains("field `1.path` is \"../p\", expected the name of a folder"));
    let deeper = json!([{"idx": 0, "path": "0_Transformer", "type": kind("Transformer")}]);
    assert!(with("modules.json", deeper).contains("the weights beside this file"));
    assert!(Folder::new().modules(&[&kind("Transformer"), &kind("Pooling")]).refused().contains("1_Pooling"));
}
