//! Prompts, and contexts that do not fit.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use lathe_model::reference::{Home, ModelReference};
use lathe_model::{Batch, NoTap, Pattern, Site, Tap, Weights};
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

/// Everything that the last position looks at, `[layers][heads]` of `[keys]`.
struct LastRows(Vec<Mutex<BTreeMap<usize, Vec<f32>>>>);

impl Tap for LastRows {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Pattern(_))
    }

    fn pattern(&self, layer: usize, pattern: &Pattern<'_>) {
        // Blocks come in order: the last one stays.
        let row = pattern.probabilities.chunks_exact(pattern.keys).next_back().unwrap();
        let row = [vec![0.0; pattern.first_key], row.to_vec()].concat();
        self.0[layer].lock().unwrap().insert(pattern.head, row);
    }
}

#[test]
fn numbers_are_those_of_a_forward_pass() {
    with_tiny(200, |loaded, folder, context| {
        let data = folder.join("conflicts.jsonl");
        let record = json!({"context": "on the mat is the hat", "question": "what is on it?", "answer": "the hat", "memorised": "a den"});
        std::fs::write(&data, record.to_string()).unwrap();
        let spec: ContextSpec =
            serde_json::from_value(json!({"data": data, "known_by": "skip", "max_tokens": 3})).unwrap();
        let out = folder.join("items.jsonl");
        let spec =
            ContextSpec { models: vec![ModelReference::Path(folder.to_owned())], out: Some(out.clone()), ..spec };
        measure_context(&spec, context).unwrap();
        let item: ContextItem = serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap();

        let prompt = "Background: on the mat is the hat\nQuestion: what is on it?\nAnswer:";
        let turn = PromptForm::Plain.turn();
        let (before, answer) = continued(loaded, &turn, prompt, " the hat").unwrap();
        let (_, memorised) = continued(loaded, &turn, prompt, " a den").unwrap();
        let whole = located(loaded, &turn, &format!("{prompt} the hat")).unwrap().1;
        assert_eq!([&before[..], &answer].concat(), whole.iter().map(|token| token.id).collect::<Vec<_>>());
        // Every token of both answers, from a pass over the whole text.
        let log_ps = |target: &[u32]| -> Vec<f64> {
            let ids = [&before[..], target].concat();
            let hidden = loaded.decoder.forward(&Batch::single(&ids), None, &mut NoTap).unwrap();
            let hidden = hidden.narrow(0, before.len() - 1, target.len()).unwrap();
            loaded.decoder.score(&hidden, target).unwrap().iter().map(|score| -score.nll).collect()
        };
        let (of_answer, of_memorised) = (log_ps(&answer), log_ps(&memorised));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(item.log_p_context.0, of_answer.iter().sum()) && item.log_p_context.1 == answer.len());
        assert!(close(item.log_p_memorised.0, of_memorised.iter().sum()) && item.log_p_memorised.1 == memorised.len());
        assert_ne!(answer[0], memorised[0]);
        let [c, m] = [of_answer[0].exp(), of_memorised[0].exp()];
        assert!(close(item.preference.value().unwrap(), c / (c + m)), "{item:?}");

        let mut rows = LastRows(loaded.decoder.spec().layers.iter().map(|_| Mutex::default()).collect());
        loaded.decoder.forward(&Batch::single(&before), None, &mut rows).unwrap();
        let tokens = located(loaded, &turn, prompt).unwrap().1;
        let first = prompt.find("on the mat").unwrap();
        let span = first..first + "on the mat is the hat".len();
        let is_inside =
            |at: &usize| tokens[*at].bytes.as_ref().is_some_and(|of| of.start < span.end && of.end > span.start);
        for (share, heads) in item.attention.unwrap().iter().zip(&rows.0) {
            let heads = heads.lock().unwrap();
            let of_head =
                |row: &Vec<f32>| (0..tokens.len()).filter(is_inside).map(|at| f64::from(row[at])).sum::<f64>();
            let mean = heads.values().map(of_head).sum::<f64>() / heads.len() as f64;
            assert!(close(*share, mean), "{share} {mean}");
        }
    });
}

#[test]
fn a_spec_names_one_model_or_several() {
    let read = |text: Value| serde_json::from_value::<ContextSpec>(text).map(|spec| spec.models.len());
    assert_eq!(read(json!({"data": "a"})).unwrap(), 0);
    assert_eq!(read(json!({"data": "a", "model": "smollm2"})).unwrap(), 1);
    assert_eq!(read(json!({"data": "a", "models": ["smollm2", "gemma3-270m"]})).unwrap(), 2);
    assert!(read(json!({"data": "a", "modell": "smollm2"})).is_err());
}

#[test]
fn equal_questions_have_one_number() {
    let texts = ["Where is it?", "Who?", "where IS it", "What?", "who"];
    assert_eq!(numbered(texts.into_iter()), [0, 1, 0, 2, 1]);
}
