//! The whole collector on models of a few thousand parameters, one with a tokenizer and one without.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Mutex;

use lathe_model::Weights;
use lathe_model::reference::Home;
use serde_json::{Map, Value, json};

use super::*;
use crate::Progress;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity/llama")
}

/// The fixture beside a byte-level tokenizer of its 128 ids: ASCII, one merge, and a token for everything else.
fn with_tokenizer(folder: &Path) -> PathBuf {
    let folder = folder.join("tiny-with-tokenizer");
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture().join(file), folder.join(file)).unwrap();
    }
    let special = ["<unk>", "<s>", "</s>"];
    let characters = (b'!'..=b'~').map(|byte| char::from(byte).to_string());
    let tokens = special.map(str::to_owned).into_iter().chain(characters).chain(["Ġ", "Ċ", "th"].map(str::to_owned));
    let vocabulary: Map<String, Value> = tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let added = special.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                  "merges": [["t", "h"]]},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn spec(models: &[PathBuf]) -> ReportSpec {
    ReportSpec {
        models: models.iter().cloned().map(ModelReference::Path).collect(),
        window: 32,
        spectrum_windows: 4,
        attention_windows: 3,
        new_tokens: 8,
        seed: 7,
        ..ReportSpec::default()
    }
}

/// Remembers the names of the stages.
#[derive(Default)]
struct Stages(Mutex<Vec<(String, u64, u64)>>);

impl Progress for Stages {
    fn start(&self, what: &str, total: u64, _: &str) {
        self.0.lock().unwrap().push((what.to_owned(), total, 0));
    }

    fn advance(&self, by: u64) {
        self.0.lock().unwrap().last_mut().unwrap().2 += by;
    }

    fn finish(&self) {}
}

fn run(spec: &ReportSpec, progress: &dyn Progress) -> Result<Report, Error> {
    let ticks = Mutex::new(0.0);
    let seconds = || {
        let mut ticks = ticks.lock().unwrap();
        *ticks += 0.25;
        *ticks
    };
    let home = Home::new("/nowhere".into(), "/nowhere".into());
    let environment = Environment {
        created: "today".to_owned(),
        lathe_version: "0.0.0".to_owned(),
        machine: Machine::default(),
        threads: 2,
    };
    let context = Context { home: &home, progress, seconds: &seconds, peak_memory: &|| None, weights: Weights::Frozen };
    collect(spec, &environment, &context)
}

#[test]
fn a_model_without_a_tokenizer_says_what_it_lacks() {
    let report = run(&spec(&[fixture()]), &crate::Silent).unwrap();
    assert_eq!(report.comparison, None);
    let model = &report.models[0];
    let empty: Vec<Panel> = model.not_measured.iter().map(|missing| missing.panel).collect();
    assert_eq!(empty, [Panel::Fertility, Panel::Texts, Panel::Frequency, Panel::Generations]);
    assert!(model.not_measured.iter().all(|missing| missing.reason == NO_TOKENIZER));

    let what = &model.what;
    assert_eq!((what.layers, what.heads, what.kv_heads, what.context, what.vocabulary), (3, 4, 2, 64, 128));
    assert_eq!(what.parameters, what.element_types.iter().map(|kind| kind.values).sum::<u64>());
    assert_eq!(what.parts.iter().map(|part| part.parameters).sum::<u64>(), what.parameters);
    assert_eq!(what.parts.last().unwrap(), &ParameterPart { part: "head".to_owned(), parameters: 128 * 32 });
    let weights = what.files.iter().find(|file| file.name == "model.safetensors").unwrap();
    assert_eq!(weights.sha256.as_ref().unwrap().len(), 64);

    let spectrum = model.spectrum.as_ref().unwrap();
    assert_eq!((spectrum.tokens, spectrum.windows, spectrum.hidden_size), (32, 4, 32));
    assert_eq!((spectrum.layers.len(), spectrum.cap), (4, 1.0));
    assert!(spectrum.input.contains("random"));
    for layer in &spectrum.layers {
        let [low, high] = layer.mnn.interval.unwrap();
        let value = layer.mnn.value.unwrap();
        assert!(low <= value && value <= high && value <= spectrum.cap);
        assert!(layer.mnn.null.is_some() && layer.matrix_entropy.null.is_some());
        let (rank, null) = (layer.effective_rank.value.unwrap(), layer.effective_rank.null.unwrap());
        assert!((1.0..=31.0).contains(&rank) && (1.0..=31.0).contains(&null));
    }
    let attention = model.attention.as_ref().unwrap();
    assert_eq!((attention.windows, attention.sink_share.n), (3, 96));
    // Query i sees i + 1 keys evenly: the harmonic number of 32, over 32.
    let uniform = (1..=32).map(|seen| 1.0 / f64::from(seen)).sum::<f64>() / 32.0;
    assert!((attention.sink_share.null.unwrap() - uniform).abs() < 1e-12);
    for (heads, mean) in attention.sink_share.values.iter().zip(&attention.sink_by_layer) {
        let shares: Vec<f64> = heads.iter().map(|share| share.unwrap()).collect();
        assert!((shares.iter().sum::<f64>() / 4.0 - mean.value.unwrap()).abs() < 1e-12);
        assert!(mean.interval.is_some() && mean.null.is_some());
    }
    let speed = model.speed.as_ref().unwrap();
    // The test's clock moves by a quarter of a second whenever it is read.
    assert_eq!(speed.prefill.value, Some(64.0 / 0.25));
    assert_eq!(speed.decode.value, Some(48.0 / 0.25));
    assert!(speed.peak_memory.reason.is_some());
}

#[test]
fn a_model_with_a_tokenizer_fills_every_panel() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = with_tokenizer(folder.path());
    let stages = Stages::default();
    let report = run(&spec(&[tiny, fixture()]), &stages).unwrap();
    let model = &report.models[0];
    assert!(model.not_measured.is_empty(), "{:?}", model.not_measured);

    let languages = sample::texts().iter().filter(|text| text.kind == TextKind::Language);
    assert_eq!(model.fertility.len(), languages.count());
    let russian = model.fertility.iter().find(|row| row.language == "Russian").unwrap();
    assert!(russian.tokens_per_character.value.unwrap() > model.fertility[0].tokens_per_character.value.unwrap());

    assert_eq!(model.texts.len(), sample::texts().len());
    let overall = model.overall.as_ref().unwrap();
    assert_eq!(overall.tokens, model.texts.iter().map(|text| text.tokens).sum::<u64>());
    assert_eq!(overall.bytes, model.texts.iter().map(|text| text.bytes).sum::<u64>());
    let bits = |text: &TextLoss| text.bits_per_byte.value.unwrap_or(0.0) * text.bytes as f64;
    let total: f64 = model.texts.iter().map(bits).sum();
    assert!((total / overall.bytes as f64 - overall.bits_per_byte.value.unwrap()).abs() < 1e-9);
    // One of 128 ids costs 4.85 nats by chance, and an ASCII letter is one byte.
    let english = &model.texts[0];
    assert!((english.nll.value.unwrap() - 128f64.ln()).abs() < 1.5, "{english:?}");
    let [low, high] = english.bits_per_byte.interval.unwrap();
    assert!(low < english.bits_per_byte.value.unwrap() && english.bits_per_byte.value.unwrap() < high);
    assert_eq!(model.bins.iter().map(|bin| bin.tokens).sum::<u64>(), overall.tokens);
    assert!(model.bins.windows(2).all(|pair| pair[0].high <= pair[1].low));

    assert!(model.spectrum.as_ref().unwrap().input.contains("sample"));
    assert_eq!(model.generations.len(), 3);
    for generation in &model.generations {
        assert!(generation.tokens.len() <= 8);
        assert!(generation.tokens.iter().all(|token| token.surprisal.unwrap() >= 0.0));
    }
    let pair = &report.comparison.as_ref().unwrap().pairs[0];
    assert_eq!((pair.left, pair.right), (0, 1));
    assert!(!pair.merge.possible && !pair.ensemble.possible);
    assert_eq!(pair.vocabulary.left, 97);

    let stages = stages.0.into_inner().unwrap();
    assert!(stages.iter().any(|(name, ..)| name == "tiny-with-tokenizer: loss by text"), "{stages:?}");
    for (name, total, done) in stages.iter().filter(|(name, ..)| !name.starts_with("loading")) {
        assert_eq!(total, done, "{name}");
    }
}

#[test]
fn the_same_spec_gives_the_same_numbers_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(&[with_tokenizer(folder.path())]);
    let on = |threads: usize, spec: &ReportSpec| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut report = pool.install(|| run(spec, &crate::Silent)).unwrap();
        report.seconds = 0.0;
        for model in &mut report.models {
            model.speed = None;
            let spectrum = model.spectrum.as_mut().unwrap();
            (spectrum.forward, spectrum.metric) = (Quantity::default(), Quantity::default());
        }
        report
    };
    let one = on(1, &spec);
    assert_eq!(one, on(3, &spec));
    spec.seed = 8;
    let other = on(2, &spec);
    assert_eq!(other.models[0].texts[0].nll.value, one.models[0].texts[0].nll.value);
    assert_ne!(other.models[0].texts[0].nll.interval, one.models[0].texts[0].nll.interval);
}

#[test]
fn a_context_that_is_too_short_is_a_reason() {
    let report = run(&ReportSpec { window: 65, ..spec(&[fixture()]) }, &crate::Silent).unwrap();
    let model = &report.models[0];
    assert!(model.spectrum.is_none() && model.attention.is_none() && model.speed.is_some());
    assert_eq!(model.reason(Panel::Spectrum), "windows of 65 tokens do not fit the model's context of 64");
}

#[test]
fn wrong_specs_are_refused_before_anything_runs() {
    let stages = Stages::default();
    let missing = spec(&[fixture(), "./no-such-model".into()]);
    assert!(matches!(run(&missing, &stages), Err(Error::Reference(_))));
    let wrong = |change: fn(&mut ReportSpec)| {
        let mut spec = spec(&[fixture()]);
        change(&mut spec);
        run(&spec, &stages).unwrap_err().to_string()
    };
    assert_eq!(wrong(|spec| spec.models.clear()), "models: no model is named");
    assert_eq!(wrong(|spec| spec.window = 1), "window: a window needs at least 2 tokens");
    assert_eq!(wrong(|spec| spec.text_window = 0), "text_window: a window needs at least 2 tokens");
    assert!(stages.0.into_inner().unwrap().is_empty());
}

#[test]
fn a_spec_has_defaults_and_reads_back() {
    let empty: ReportSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, ReportSpec::default());
    assert_eq!(empty.models[0].to_string(), DEFAULT_ALIAS);
    let written = serde_json::to_string(&ReportSpec { seed: 3, extent: Extent::Full, ..empty }).unwrap();
    let read: ReportSpec = serde_json::from_str(&written).unwrap();
    assert_eq!((read.seed, read.extent), (3, Extent::Full));
    assert!(serde_json::from_str::<ReportSpec>(r#"{"model": []}"#).is_err());
}

#[test]
fn both_files_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/report");
    let report = run(&spec(&[fixture()]), &crate::Silent).unwrap();
    for _ in 0..2 {
        let [html, json] = write_report(&report, &out).unwrap();
        assert_eq!(std::fs::read_to_string(&html).unwrap(), page(&report));
        let read: Report = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!(read, report);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2, "nothing else is left");
    }
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    assert!(matches!(write_report(&report, &blocked), Err(Error::Write { .. })));
}
