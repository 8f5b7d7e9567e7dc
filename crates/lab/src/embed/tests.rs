#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use lathe_formats::Checkpoint;
use lathe_model::Weights;
use lathe_model::reference::Home;
use proptest::prelude::*;

use super::embedder::Encoded;
use super::*;
use crate::{Compute, Silent};

/// Every fixture with experts: layers that have them, and experts of each.
const EXPERTS: [(&str, &[usize], usize); 8] = [
    ("olmoe", &[0, 1, 2], 8),
    ("qwen2_moe", &[0, 1, 2], 6),
    ("qwen2_moe_sparse", &[1], 4),
    ("deepseek", &[1, 2], 6),
    ("mixtral", &[0, 1, 2], 4),
    ("qwen3_moe", &[0, 2], 6),
    ("granitemoe", &[0, 1, 2], 4),
    ("granitemoeshared", &[0, 1], 4),
];

/// Largest difference, as a share of the largest absolute value.
const TOLERANCE: f64 = 2e-4;

struct Fixture {
    folder: PathBuf,
    expected: Checkpoint,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/parity")).join(name);
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        Self { folder, expected }
    }

    fn embedder(&self) -> Embedder {
        with_context(|context| {
            Embedder::open(&ModelReference::Path(self.folder.clone()), Compute::F32, context).unwrap()
        })
    }

    fn ids(&self, sequence: usize) -> Vec<u32> {
        let view = self.expected.tensor(&format!("seq{sequence}.input_ids")).unwrap();
        let bytes = view.bytes();
        bytes.as_chunks::<8>().0.iter().map(|id| i64::from_le_bytes(*id) as u32).collect()
    }

    /// The rows of a tensor of a sequence.
    fn rows(&self, sequence: usize, name: &str) -> Vec<Vec<f32>> {
        let view = self.expected.tensor(&format!("seq{sequence}.{name}")).unwrap();
        let width = view.info().shape[1];
        let values: Vec<f32> = view.bytes().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        values.chunks_exact(width).map(<[f32]>::to_vec).collect()
    }

    /// Sequences as they come from the tokenizer.
    fn encoded(&self) -> Vec<(usize, usize, Vec<Encoded>)> {
        let of = |sequence| {
            let ids = self.ids(sequence);
            (sequence, ids.len(), vec![Encoded { span: 0..ids.len(), ids, cut: false }])
        };
        (0..3).map(of).collect()
    }
}

fn with_context<T>(f: impl FnOnce(&Context<'_>) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().to_owned(), folder.path().to_owned());
    let context =
        Context { home: &home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    f(&context)
}

fn spec() -> FeatureSpec {
    FeatureSpec { prompt: Prompt::Plain, ..FeatureSpec::default() }
}

/// What each of the three sequences gives, alone.
fn of_each(fixture: &Fixture, embedder: &Embedder, spec: &FeatureSpec) -> Vec<OfText> {
    let reader = with_context(|context| embedder.reader(spec, context)).unwrap();
    fixture.encoded().iter().map(|text| reader.run(std::slice::from_ref(text)).unwrap().remove(0).1).collect()
}

fn assert_near(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(f64::from(x.abs())));
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - f64::from(*expected)).abs() <= TOLERANCE * largest, "{name}: {found} {expected}");
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().fold(f64::NEG_INFINITY, |most, x| most.max(f64::from(*x)));
    let exps: Vec<f64> = logits.iter().map(|x| (f64::from(*x) - most).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|x| (x / sum) as f32).collect()
}

#[test]
fn hidden_states_and_routers_are_those_of_the_reference() {
    for (name, layers, experts) in EXPERTS {
        let fixture = Fixture::new(name);
        let embedder = fixture.embedder();
        assert!(embedder.has_router(), "{name}");
        let last = embedder.loaded.decoder.spec().layers.len();
        let logits_spec =
            FeatureSpec { router: RouterSpec { source: RouterSource::Logits, ..RouterSpec::default() }, ..spec() };
        let probabilities = of_each(&fixture, &embedder, &spec());
        let logits = of_each(&fixture, &embedder, &logits_spec);
        for (sequence, (found, with_logits)) in probabilities.iter().zip(&logits).enumerate() {
            let hidden = fixture.rows(sequence, &format!("hidden_states.{last}"));
            assert_near(name, &found.hidden, hidden.last().unwrap());
            // The layers' own numbers, one after another: a dense layer contributes nothing.
            let expected: Vec<Vec<f32>> = (0..layers.len())
                .map(|index| fixture.rows(sequence, &format!("router_logits.{index}")).pop().unwrap())
                .collect();
            assert_eq!(found.router.len(), layers.len() * experts, "{name}");
            assert_near(name, &with_logits.router, &expected.concat());
            let expected: Vec<Vec<f32>> = expected.iter().map(|logits| softmax(logits)).collect();
            assert_near(name, &found.router, &expected.concat());
            for layer in found.router.chunks_exact(experts) {
                assert!((layer.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{name}");
            }
        }
    }
}

#[test]
fn a_vector_depends_on_its_text_alone() {
    for name in ["olmoe", "deepseek", "gemma3", "qwen2_moe", "bert"] {
        let fixture = Fixture::new(name);
        let embedder = fixture.embedder();
        let reader = with_context(|context| embedder.reader(&spec(), context)).unwrap();
        let alone = of_each(&fixture, &embedder, &spec());
        let mut texts = fixture.encoded();
        for _ in 0..3 {
            texts.rotate_left(1);
            for (index, of) in reader.run(&texts).unwrap() {
                assert_eq!(of, alone[index], "{name}");
            }
        }
    }
}

#[test]
fn a_sentence_encoder_s_folder_says_how_it_is_read() {
    let fixture = Fixture::new("bert");
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture.folder.join("sentences.json")).unwrap()).unwrap();
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
    let expected: Vec<Vec<f32>> = serde_json::from_value(golden["vectors"].clone()).unwrap();
    let embedder = fixture.embedder();
    let features = with_context(|context| embedder.features(&texts, &FeatureSpec::default(), context)).unwrap();
    // The last two texts are longer than the folder lets the model read.
    assert_eq!((features.truncated, features.router.is_none()), (2, true));
    assert_eq!(embedder.length(Length::AsItIs), Length::AsItIs);
    let vectors = with_length(features.hidden, embedder.length(Length::Usual));
    for ((text, found), expected) in texts.iter().zip(vectors.rows()).zip(&expected) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{text}");
    }
}

#[test]
fn layers_and_poolings() {
    let fixture = Fixture::new("qwen3_moe");
    let embedder = fixture.embedder();
    let with = |layers: HiddenLayers, pooling: Pooling| {
        let hidden = HiddenSpec { layers, pooling, filter: None };
        of_each(&fixture, &embedder, &FeatureSpec { hidden, ..spec() }).remove(0).hidden
    };
    let states: Vec<Vec<Vec<f32>>> = (0..4).map(|layer| fixture.rows(0, &format!("hidden_states.{layer}"))).collect();
    let mean = |rows: &[Vec<f32>]| -> Vec<f32> {
        (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32).collect()
    };
    let one = |layer| HiddenLayers::Mean(vec![layer]);
    assert_near("embedding", &with(one(0), Pooling::Last), states[0].last().unwrap());
    assert_near("first", &with(one(2), Pooling::First), &states[2][0]);
    assert_near("mean", &with(HiddenLayers::Last, Pooling::Mean), &mean(&states[3]));
    let lasts: Vec<Vec<f32>> = [0, 1, 3].map(|layer: usize| states[layer].last().unwrap().clone()).to_vec();
    assert_near("layers", &with(HiddenLayers::Mean(vec![3, 0, 1, 3]), Pooling::Last), &mean(&lasts));
    let most: Vec<f32> =
        (0..32).map(|i| states[3].iter().map(|row| row[i]).fold(f32::NEG_INFINITY, f32::max)).collect();
    assert_near("max", &with(HiddenLayers::Last, Pooling::Max), &most);
    // Routers of one layer, over all tokens.
    let router =
        RouterSpec { layers: RouterLayers::These(vec![2]), pooling: RouterPooling::Mean, ..RouterSpec::default() };
    let found = of_each(&fixture, &embedder, &FeatureSpec { router, ..spec() }).remove(0).router;
    let logits = fixture.rows(0, "router_logits.1");
    assert_near("routers", &found, &mean(&logits.iter().map(|row| softmax(row)).collect::<Vec<_>>()));
}

#[test]
fn what_a_model_does_not_have() {
    let refused = |name: &str, spec: FeatureSpec| {
        let embedder = Fixture::new(name).embedder();
        let error = with_context(|context| embedder.reader(&spec, context).err()).unwrap();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let hidden = |layers| HiddenSpec { layers: HiddenLayers::Mean(layers), ..HiddenSpec::default() };
    let (error, hint) = refused("olmoe", FeatureSpec { hidden: hidden(vec![4]), ..spec() });
    assert_eq!(error, "--layer: there is no hidden state 4");
    assert!(hint.contains("0 (the embedding) to 3"), "{hint}");
    let router = |layers| RouterSpec { layers: RouterLayers::These(layers), ..RouterSpec::default() };
    let (error, hint) = refused("deepseek", FeatureSpec { router: router(vec![0]), ..spec() });
    assert_eq!(
        (error.as_str(), hint.as_str()),
        ("--router-layers: layer 0 has no router", "layers with experts: 1, 2")
    );
    let (error, hint) = refused("llama", FeatureSpec { router: router(vec![1]), ..spec() });
    assert!(error.contains("no router") && hint.contains("(llama)"), "{error} {hint}");
    let (error, _) =
        refused("olmoe", FeatureSpec { hidden: HiddenSpec { filter: Some(2.0), ..hidden(vec![1]) }, ..spec() });
    assert!(error.starts_with("--filter: the head reads hidden state 3"), "{error}");
    let (error, _) = refused("olmoe", FeatureSpec { max_tokens: Some(0), ..spec() });
    assert!(error.starts_with("--max-tokens"), "{error}");
}

#[test]
fn a_filter_keeps_a_part_of_the_width() {
    let fixture = Fixture::new("olmoe");
    let embedder = fixture.embedder();
    let with = |tau| {
        let hidden = HiddenSpec { filter: Some(tau), ..HiddenSpec::default() };
        let spec = FeatureSpec { hidden, ..spec() };
        let reader = with_context(|context| embedder.reader(&spec, context)).unwrap();
        let texts = fixture.encoded();
        let read: Vec<OfText> = reader.run(&texts).unwrap().into_iter().map(|(_, of)| of).collect();
        reader.features(read.iter()).unwrap().hidden
    };
    assert_eq!(with(2.0).width(), 16);
    // The whole band is a rotation: lengths stay.
    let plain = of_each(&fixture, &embedder, &spec());
    let rotated = with(1.0);
    assert_eq!(rotated.width(), 32);
    for (row, plain) in rotated.rows().zip(plain) {
        let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((length(row) - length(&plain.hidden)).abs() < 1e-4 * length(row));
    }
}

proptest! {
    #[test]
    fn floats_are_kept_by_their_bits(bits in prop::collection::vec(any::<u32>(), 0..20)) {
        let values: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
        let of = OfText { hidden: values, router: vec![0.1], tokens: 3, truncated: true };
        let line = serde_json::to_string(&Kept::from(&of)).unwrap();
        let kept: Kept = serde_json::from_str(&line).unwrap();
        let back = kept.to_text().unwrap();
        prop_assert_eq!(back.hidden.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits);
        prop_assert_eq!((back.router, back.tokens, back.truncated), (vec![0.1], 3, true));
    }
}
