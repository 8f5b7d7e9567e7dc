//! Every supported architecture against the reference implementation (transformers, eager attention, f32), on tiny
//! generated checkpoints: logits, hidden states, attention, greedy decoding through the cache, gradients. Of encoders, which
//! have no logits and read no text a piece at a time: hidden states, attention, poolings, gradients.
//!
//! The fixtures are folders of `tests/fixtures/parity` that a row of [`FAMILIES`] names. `make_parity.py` wrote the first
//! twenty, `make_more.py` the others and any number of variants for
//! `every_checkpoint_of_a_folder_agrees_with_the_reference`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::Tensor;
use lathe_formats::Checkpoint;
use lathe_model::family::FAMILIES;
use lathe_model::{Batch, Decoder, Error, KvCache, NoTap, Opened, Pattern, Site, Tap, Weights, open};

/// Fixtures whose rotary frequencies depend on the length of the text so far.
const LENGTH_DEPENDENT: &[&str] = &["llama_dynamic", "phi3_longrope"];

/// Largest deviation of a tensor, as a share of its largest absolute value.
const TOLERANCE: f64 = 2e-4;
/// Relative deviation of gradient norms and sums.
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// Every fixture, after the family that it belongs to.
fn fixtures() -> impl Iterator<Item = (&'static str, &'static str)> {
    FAMILIES.iter().flat_map(|family| family.compared.iter().map(|name| (family.model_type, *name)))
}

#[test]
fn every_family_is_compared_and_every_fixture_belongs_to_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity");
    let mut there = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        there.insert(name, config["model_type"].as_str().unwrap().to_owned());
    }
    let named: BTreeMap<String, String> =
        fixtures().map(|(family, name)| (name.to_owned(), family.to_owned())).collect();
    assert_eq!(named, there);
    for family in FAMILIES {
        assert!(!family.compared.is_empty(), "{} is compared with nothing", family.model_type);
    }
}

#[test]
fn every_fixture_agrees_with_the_reference() {
    println!("{TABLE_HEAD}");
    for (_, name) in fixtures() {
        let fixture = Fixture::open(name);
        let worst = fixture.compare();
        println!("{name:<24}{}", worst.row());
        assert!(worst.is_within_tolerance(), "{name}");
        fixture.compare_dialects(name);
    }
}

#[test]
#[ignore = "reads the folder of checkpoints that LATHE_PARITY names, written by tests/fixtures/make_more.py"]
fn every_checkpoint_of_a_folder_agrees_with_the_reference() {
    let folder = std::env::var("LATHE_PARITY").expect("LATHE_PARITY names a folder");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    println!("{TABLE_HEAD}");
    let mut failed = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let compared = std::panic::catch_unwind(|| {
            let fixture = Fixture::at(&folder);
            let worst = fixture.compare();
            println!("{name:<24}{}", worst.row());
            assert!(worst.is_within_tolerance(), "{name}");
            fixture.compare_dialects(&name);
        });
        if compared.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

const TABLE_HEAD: &str = "fixture                     logits     hidden  attention     router       loss   gradient";

#[derive(Default)]
struct Worst {
    logits: f64,
    hidden: f64,
    attention: f64,
    router: f64,
    loss: f64,
    gradient: f64,
}

impl Worst {
    fn row(&self) -> String {
        let all = [self.logits, self.hidden, self.attention, self.router, self.loss, self.gradient];
        all.map(|x| format!("{x:>11.1e}")).concat()
    }

    fn is_within_tolerance(&self) -> bool {
        let values = [self.logits, self.hidden, self.attention, self.router];
        values.into_iter().all(|x| x < TOLERANCE) && self.loss < 1e-5 && self.gradient < GRADIENT_TOLERANCE
    }
}

struct Fixture {
    folder: PathBuf,
    opened: Opened,
    expected: Checkpoint,
}

impl Fixture {
    fn open(name: &str) -> Self {
        Self::at(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name))
    }

    fn at(folder: &Path) -> Self {
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        Self { folder: folder.into(), opened: open(folder).unwrap(), expected }
    }

    fn compare(&self) -> Worst {
        let frozen = self.opened.decoder(Weights::Frozen).unwrap();
        let trainable = self.opened.decoder(Weights::Trainable).unwrap();
        let mut worst = Worst::default();
        for decoder in [&frozen, &trainable] {
            for sequence in 0..3 {
                self.compare_sequence(decoder, sequence, &mut worst);
            }
        }
        if frozen.spec().has_head() {
            self.compare_greedy(&frozen);
        }
        self.compare_gradients(&trainable, &mut worst);
        worst
    }

    /// The same settings in older words, and without the fields that have their default, are the same decoder.
    fn compare_dialects(&self, name: &str) {
        for dialect in ["older", "terse"] {
            let Ok(file) = std::fs::read(self.folder.join(format!("config.{dialect}.json"))) else { continue };
            let folder = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(&self.folder).unwrap() {
                let path = entry.unwrap().path();
                let file_name = path.file_name().unwrap().to_string_lossy().into_owned();
                if file_name.starts_with("model") {
                    std::fs::copy(&path, folder.path().join(file_name)).unwrap();
                }
            }
            std::fs::write(folder.path().join("config.json"), file).unwrap();
            assert_eq!(open(folder.path()).unwrap().spec, self.opened.spec, "{name}: config.{dialect}.json");
        }
    }

    fn get(&self, name: &str) -> Option<Vec<f32>> {
        self.expected.tensor(name).map(|view| view.to_f32().unwrap())
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.get(name).unwrap().iter().map(|x| *x as u32).collect()
    }

    fn f64s(&self, name: &str) -> Option<Vec<f64>> {
        let bytes = self.expected.tensor(name)?.bytes();
        Some(bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect())
    }

    fn compare_sequence(&self, decoder: &Decoder, sequence: usize, worst: &mut Worst) {
        let ids = self.ids(&format!("seq{sequence}.input_ids"));
        let mut tap = Keep::new(decoder, ids.len());
        let hidden = decoder.forward(&Batch::single(&ids), None, &mut tap).unwrap();
        let expected = |what: &str| self.get(&format!("seq{sequence}.{what}")).unwrap_or_else(|| panic!("{what}"));
        if decoder.spec().has_head() {
            let logits = decoder.logits(&hidden).unwrap();
            worst.logits = worst.logits.max(deviation(&flat(&logits), &expected("logits")));
        }
        for (l, hidden) in &tap.hidden {
            worst.hidden = worst.hidden.max(deviation(hidden, &expected(&format!("hidden_states.{l}"))));
        }
        assert_eq!(tap.hidden.len(), decoder.spec().layers.len() + 1);
        for (l, heads) in tap.patterns.iter().enumerate() {
            let pattern: Vec<f32> = heads.iter().flat_map(|head| head.lock().unwrap().clone()).collect();
            worst.attention = worst.attention.max(deviation(&pattern, &expected(&format!("attentions.{l}"))));
        }
        let experts = decoder.spec().layers.iter().filter(|layer| layer.feed_forward.experts().is_some()).count();
        assert_eq!(tap.router.len(), experts);
        for (j, logits) in tap.router.iter().enumerate() {
            worst.router = worst.router.max(deviation(logits, &expected(&format!("router_logits.{j}"))));
        }
        if let Some(loss) = self.f64s(&format!("seq{sequence}.cross_entropy")) {
            let scores = decoder.score(&hidden.narrow(0, 0, ids.len() - 1).unwrap(), &ids[1..]).unwrap();
            let mean = scores.iter().map(|s| s.nll).sum::<f64>() / scores.len() as f64;
            worst.loss = worst.loss.max((mean - loss[0]).abs());
        }
    }

    fn compare_greedy(&self, decoder: &Decoder) {
        let ids = self.ids("seq1.input_ids");
        let expected = self.ids("seq1.greedy");
        let mut cache = KvCache::new(decoder.spec(), 1);
        let (mut next, mut position, mut greedy) = (ids, 0, Vec::new());
        while greedy.len() < expected.len() {
            let mut batch = Batch::default();
            batch.push(&next, 0, position);
            position += next.len();
            let hidden = decoder.forward(&batch, Some(&mut cache), &mut NoTap).unwrap();
            let logits = flat(&decoder.logits(&hidden.narrow(0, next.len() - 1, 1).unwrap()).unwrap());
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            greedy.push(best as u32);
            next = vec![best as u32];
        }
        assert_eq!(greedy, expected, "{}", decoder.spec().family);
    }

    /// The mean loss of a text's tokens; of an encoder a weighted sum of its hidden states.
    fn loss(&self, decoder: &Decoder) -> Tensor {
        let ids = self.ids("seq0.input_ids");
        let hidden = decoder.forward(&Batch::single(&ids), None, &mut NoTap).unwrap();
        if !decoder.spec().has_head() {
            let direction = Tensor::from_vec(self.get("seq0.direction").unwrap(), hidden.shape(), hidden.device());
            return (hidden * direction.unwrap()).unwrap().sum_all().unwrap();
        }
        let hidden = hidden.narrow(0, 0, ids.len() - 1).unwrap();
        decoder.negative_log_likelihood(&hidden, ids[1..].to_vec()).unwrap().mean_all().unwrap()
    }

    fn compare_gradients(&self, decoder: &Decoder, worst: &mut Worst) {
        let loss = self.loss(decoder);
        let gradients = loss.backward().unwrap();
        let mut compared = 0;
        for (name, var) in decoder.trainable() {
            let gradient = gradients.get(var);
            // An expert that no token chose has no gradient.
            let routed = name.contains(".experts.") && gradient.is_none();
            assert!(routed || gradient.is_some(), "{name} receives no gradient");
            let Some(gradient) = gradient else { continue };
            let values = flat(gradient);
            let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let sum: f64 = values.iter().map(|x| f64::from(*x)).sum();
            assert!(norm > 0.0, "{name}: the gradient is zero");
            // Of fused tensors the reference knows the whole only; openelm and deepseek have none.
            let theirs = self.opened.tensor_name(name).unwrap();
            let whole = self
                .opened
                .spec
                .parameters()
                .iter()
                .filter(|p| self.opened.tensor_name(&p.name) == Some(theirs))
                .count()
                == 1;
            let Some(expected) = self.f64s(&format!("grad.{theirs}")).filter(|_| whole) else { continue };
            compared += 1;
            // A key bias has no effect on the softmax: its gradient is rounding noise.
            if expected[0] < 1e-6 {
                assert!(norm < 1e-5, "{name}: {norm}");
                continue;
            }
            worst.gradient = worst.gradient.max((norm - expected[0]).abs() / expected[0]);
            // The sum cancels; its scale is the norm times the root of the number of values.
            let scale = expected[0] * (values.len() as f64).sqrt();
            worst.gradient = worst.gradient.max((sum - expected[1]).abs() / scale);
        }
        let with_reference = self.expected.tensors().iter().any(|info| info.name.starts_with("grad."));
        assert!(compared > 5 || !with_reference, "{compared} gradients compared");
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn deviation(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let largest = actual.iter().zip(expected).fold(0.0f32, |max, (a, b)| {
        assert!(a.is_finite());
        max.max((a - b).abs())
    });
    f64::from(largest) / f64::from(scale.max(f32::MIN_POSITIVE))
}

/// Keeps hidden states as transformers numbers them, and attention patterns.
struct Keep {
    layers: usize,
    tokens: usize,
    hidden: BTreeMap<usize, Vec<f32>>,
    patterns: Vec<Vec<Mutex<Vec<f32>>>>,
    router: Vec<Vec<f32>>,
}

impl Keep {
    fn new(decoder: &Decoder, tokens: usize) -> Self {
        let head = || Mutex::new(vec![0.0; tokens * tokens]);
        let layers = &decoder.spec().layers;
        let patterns = layers.iter().map(|layer| (0..layer.attention.heads).map(|_| head()).collect()).collect();
        Self { layers: layers.len(), tokens, hidden: BTreeMap::new(), patterns, router: Vec::new() }
    }
}

impl Tap for Keep {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::ResidualPre(_) | Site::FinalNorm | Site::Pattern(_) | Site::RouterLogits(_))
    }

    fn tensor(&mut self, site: Site, value: &Tensor) -> Result<(), Error> {
        match site {
            Site::RouterLogits(_) => self.router.push(flat(value)),
            Site::ResidualPre(l) => drop(self.hidden.insert(l, flat(value))),
            _ => drop(self.hidden.insert(self.layers, flat(value))),
        }
        Ok(())
    }

    fn pattern(&self, layer: usize, p: &Pattern<'_>) {
        let mut kept = self.patterns[layer][p.head].lock().unwrap();
        for (r, row) in p.probabilities.chunks_exact(p.keys).enumerate() {
            let start = (p.first_query + r) * self.tokens + p.first_key;
            kept[start..start + p.keys].copy_from_slice(row);
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_in_a_batch_and_through_the_cache() {
    for (_, name) in fixtures() {
        let fixture = Fixture::open(name);
        let decoder = fixture.opened.decoder(Weights::Frozen).unwrap();
        let (a, b) = (fixture.ids("seq0.input_ids"), fixture.ids("seq1.input_ids"));
        let alone = flat(&decoder.forward(&Batch::single(&a), None, &mut NoTap).unwrap());
        let both = flat(&decoder.forward(&Batch::of([&b[..], &a[..]]), None, &mut NoTap).unwrap());
        // OPT 350M projects its last hidden state to the width of the embedding.
        let width = alone.len() / a.len();
        assert_eq!(alone, both[b.len() * width..], "{name}: in a batch");
        if LENGTH_DEPENDENT.contains(&name) {
            continue;
        }
        if decoder.spec().looks_ahead() {
            let mut cache = KvCache::new(decoder.spec(), 1);
            let refused = decoder.forward(&Batch::single(&a), Some(&mut cache), &mut NoTap).unwrap_err();
            assert!(matches!(refused, Error::Encoder { .. }), "{refused}");
            continue;
        }

        let mut cache = KvCache::new(decoder.spec(), 2);
        let mut pieces = Vec::new();
        let mut position = 0;
        for len in [5, 1, 1, 9, 7] {
            let mut batch = Batch::default();
            batch.push(&a[position..position + len], 1, position);
            let hidden = decoder.forward(&batch, Some(&mut cache), &mut NoTap).unwrap();
            pieces.extend(flat(&hidden));
            position += len;
        }
        assert_eq!(pieces, alone, "{name}: through the cache");

        // Back to 18 positions and once more.
        cache.rollback(1, 18, decoder.spec()).unwrap();
        let mut batch = Batch::default();
        batch.push(&a[18..], 1, 18);
        let again = flat(&decoder.forward(&batch, Some(&mut cache), &mut NoTap).unwrap());
        assert_eq!(again, alone[18 * width..], "{name}: after a rollback");
    }
}

#[test]
fn a_text_that_outgrows_its_frequencies_is_run_again() {
    // 16 positions of the original training; a window of 15, which has dropped keys by then.
    let fixture = Fixture::open("phi3_longrope");
    let decoder = fixture.opened.decoder(Weights::Frozen).unwrap();
    let ids = fixture.ids("seq0.input_ids");
    let alone = |ids: &[u32]| flat(&decoder.forward(&Batch::single(ids), None, &mut NoTap).unwrap());
    let width = decoder.spec().hidden_size;
    let mut cache = KvCache::new(decoder.spec(), 2);
    let continue_to = |slot: usize, from: usize, to: usize, cache: &mut KvCache| {
        let mut batch = Batch::default();
        // The other sequence stays within the original context.
        batch.push(&ids[..3], 1 - slot, 0);
        batch.push(&ids[from..to], slot, from);
        cache.clear(1 - slot);
        let hidden = flat(&decoder.forward(&batch, Some(cache), &mut NoTap).unwrap());
        assert_eq!(hidden[..3 * width], alone(&ids[..3]), "the other sequence");
        assert_eq!(hidden[3 * width..], alone(&ids[..to])[from * width..], "{from} to {to}");
        assert_eq!(cache.len(slot), to);
    };
    continue_to(0, 0, 14, &mut cache);
    continue_to(0, 14, 15, &mut cache);
    continue_to(0, 15, 18, &mut cache);
    continue_to(0, 18, 19, &mut cache);
    // Back among the short texts, with keys of a long one.
    cache.rollback(0, 13, decoder.spec()).unwrap();
    continue_to(0, 13, 15, &mut cache);
    continue_to(0, 15, 23, &mut cache);
}

#[test]
fn bad_input_is_refused() {
    let fixture = Fixture::open("llama");
    let decoder = fixture.opened.decoder(Weights::Frozen).unwrap();
    let run =
        |batch: &Batch, cache: Option<&mut KvCache>| decoder.forward(batch, cache, &mut NoTap).unwrap_err().to_string();
    assert_eq!(run(&Batch::single(&[]), None), "nothing to run: the input has no tokens");
    assert_eq!(run(&Batch::single(&[3, 128]), None), "token id 128 at position 1 is outside the vocabulary of 128");
    assert_eq!(run(&Batch::single(&[3; 65]), None), "65 tokens do not fit the model's context of 64");
    let mut cache = KvCache::new(decoder.spec(), 1);
    let mut batch = Batch::default();
    batch.push(&[3], 0, 4);
    assert_eq!(run(&batch, Some(&mut cache)), "sequence 0 of the cache holds 0 positions, the next tokens start at 4");
}

#[test]
fn random_weights_are_a_function_of_the_seed() {
    let opened = Fixture::open("gemma3").opened;
    let run = |seed| {
        let decoder = opened.random_decoder(seed, Weights::Frozen).unwrap();
        flat(&decoder.forward(&Batch::single(&[3, 4, 5]), None, &mut NoTap).unwrap())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!(run(1).iter().all(|x| x.is_finite()));
}
