//! Prompts, and contexts that do not fit.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use lathe_model::Weights;
use lathe_model::reference::{Home, ModelReference};
use serde_json::{Value, json};

use super::prompt::{fit, located};
use super::*;
use crate::Silent;

/// The llama fixture with a tokenizer of a golden file and a window of so many tokens.
fn with_tiny(window: usize, work: impl FnOnce(&Loaded, &Path, &Context<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fixture = repository.join("tests/fixtures/parity/llama");
    let mut config: Value = serde_json::from_slice(&std::fs::read(fixture.join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = window.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixture.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let tokenizer = std::fs::read_dir(repository.join("tests/goldens/likelihoods")).unwrap();
    let mut names: Vec<PathBuf> = tokenizer.map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.to_string_lossy().ends_with(".tokenizer.json"));
    names.sort();
    std::fs::copy(&names[0], folder.path().join("tokenizer.json")).unwrap();
    let names = json!({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"});
    std::fs::write(folder.path().join("tokenizer_config.json"), names.to_string()).unwrap();
    let home = Home::new(folder.path().to_owned(), folder.path().to_owned());
    let context =
        Context { home: &home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    let loaded = load(&ModelReference::Path(folder.path().to_owned()), &context).unwrap();
    work(&loaded, folder.path(), &context);
}

#[test]
fn forms_of_a_prompt() {
    let plain = PromptForm::Plain;
    assert_eq!(plain.prompt(None, Some("It is Oran."), "Which?"), "Background: It is Oran.\nQuestion: Which?\nAnswer:");
    assert_eq!(plain.prompt(Some("Be short."), None, "Which?"), "Be short.\nQuestion: Which?\nAnswer:");
    assert_eq!(PromptForm::Chat.prompt(None, Some("So."), "Why?"), "Background: So.\nQuestion: Why?");
    assert_eq!(
        PromptForm::Alpaca.prompt(None, Some("So."), "Why?"),
        "### Instruction:\nWhy?\n\n### Input:\nSo.\n\n### Response:\n"
    );
    assert_eq!(
        PromptForm::Alpaca.prompt(Some("Be short."), None, "Why?"),
        "### Instruction:\nBe short. Why?\n\n### Response:\n"
    );
}

#[test]
fn the_context_is_cut_and_never_the_question() {
    with_tiny(60, |loaded, _, _| {
        let turn = PromptForm::Plain.turn();
        let build = |context: &str| PromptForm::Plain.prompt(None, Some(context), "on what?");
        let length = |prompt: &str| located(loaded, &turn, prompt).unwrap().1.len();
        let short = "the hat";
        let all = fit(loaded, &turn, short, 4, &build).unwrap().unwrap();
        assert_eq!((all.context.as_str(), all.is_cut), (short, false));
        let long = "the cat sat on the mat ".repeat(20);
        let fitted = fit(loaded, &turn, long.trim(), 4, &build).unwrap().unwrap();
        assert!(fitted.is_cut && long.starts_with(&fitted.context), "{fitted:?}");
        assert!(fitted.prompt.ends_with("\nQuestion: on what?\nAnswer:"), "{fitted:?}");
        let tokens = length(&fitted.prompt);
        assert!(tokens <= 56 && tokens > 48, "{tokens}");
        let problem = fit(loaded, &turn, long.trim(), 56, &build).unwrap().unwrap_err();
        assert!(problem.starts_with("without any context it needs "), "{problem}");
    });
}

#[test]
fn attention_is_a_share_and_the_same_in_every_batch() {
    with_tiny(200, |loaded, folder, context| {
        let data = folder.join("conflicts.jsonl");
        let record = |n: usize| {
            json!({"context": format!("{} the hat is in the den", "on and on ".repeat(n)), "question": "where is the hat?",
                   "answer": "the den", "memorised": "a hall", "known": n != 1})
            .to_string()
                + "\n"
        };
        std::fs::write(&data, (0..4).map(record).collect::<String>()).unwrap();
        let spec = |batch| ContextSpec {
            models: Vec::new(),
            data: data.clone(),
            matching: Matching::Safe,
            template: PromptForm::Auto,
            instruction: None,
            max_tokens: 4,
            known_by: KnownBy::Data,
            attention: AttentionDetail::Layers,
            limit: None,
            batch,
            seed: 0,
            out: None,
        };
        let result = measure_context_loaded(loaded, &spec(None), context).unwrap();
        let model = &result.models[0];
        assert_eq!((model.template, model.all.items, model.all.questions), (PromptForm::Plain, 4, 1));
        assert_eq!(model.known.as_ref().map(|of| of.items), Some(3));
        assert_eq!(model.layers.len(), loaded.decoder.spec().layers.len());
        let shares: Vec<f64> = model.layers.iter().map(|layer| layer.share.value.value().unwrap()).collect();
        assert!(shares.iter().all(|share| *share > 0.0 && *share < 1.0), "{shares:?}");
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((model.attention.value.value().unwrap() - mean).abs() < 1e-12);
        // Both answers are tokens of this vocabulary, and differ from the first one on.
        assert!(model.all.preference.value.value().is_some_and(|of| of > 0.0 && of < 1.0));
        let one = measure_context_loaded(loaded, &spec(Some(1)), context).unwrap();
        let [all, one] = [&result, &one].map(|result| serde_json::to_value(&result.models).unwrap());
        assert_eq!(all, one);
    });
}

#[test]
fn equal_questions_have_one_number() {
    let texts = ["Where is it?", "Who?", "where IS it", "What?", "who"];
    assert_eq!(numbered(texts.into_iter()), [0, 1, 0, 2, 1]);
}
