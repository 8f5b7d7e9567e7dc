use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lathe_formats::write::{TensorSpec, safetensors};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::inputs::{InputError, Inputs};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn claims(adapter: Adapter, base: &Checkpoint) -> Result<Claims, AdapterError> {
    adapter.claims(base.tensors().iter().map(|info| (info.name.as_str(), info.shape.as_slice())))
}

#[test]
fn merged_weights_are_those_of_peft() {
    let base = Checkpoint::open(data("adapter_base.safetensors")).expect("base");
    let merged = Checkpoint::open(data("adapter_merged.safetensors")).expect("merged");
    let adapter = Adapter::open(data("adapter")).expect("adapter");
    assert_eq!(adapter.base_model(), Some("tiny"));
    let claims = claims(adapter, &base).expect("claims");
    assert_eq!(claims.tensors().count(), 6, "{:?}", claims.tensors().collect::<Vec<_>>());
    for expected in merged.views() {
        let name = &expected.info().name;
        let mut values = base.require(name).expect("base").to_f32().expect("f32");
        claims.add(name, 0..values.len(), &mut values).expect("add");
        let expected = expected.to_f32().expect("f32");
        for (value, expected) in values.iter().zip(&expected) {
            assert!((value - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{name}: {value} {expected}");
        }
        let untouched = base.require(name).expect("base").to_f32().expect("f32") == values;
        assert_eq!(untouched, name == "model.norm.weight", "{name}");
    }
}

proptest! {
    #[test]
    fn any_piece_of_a_tensor_has_the_bits_of_the_whole(cuts in proptest::collection::vec(0usize..66, 0..5)) {
        let base = Checkpoint::open(data("adapter_base.safetensors")).expect("base");
        let claims = claims(Adapter::open(data("adapter")).expect("adapter"), &base).expect("claims");
        for view in base.views() {
            let name = &view.info().name;
            let mut whole = view.to_f32().expect("f32");
            let mut pieces = whole.clone();
            claims.add(name, 0..whole.len(), &mut whole).expect("add");
            let mut cuts = cuts.iter().map(|cut| *cut.min(&pieces.len())).collect::<Vec<_>>();
            cuts.extend([0, pieces.len()]);
            cuts.sort_unstable();
            for cut in cuts.windows(2) {
                claims.add(name, cut[0]..cut[1], &mut pieces[cut[0]..cut[1]]).expect("add");
            }
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&whole), bits(&pieces), "{}", name);
        }
    }
}

/// An adapter's folder with these tensors of zeros, or of one value.
fn folder(config: &str, tensors: &[(&str, &[usize], f32)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join(CONFIG_FILE), config).expect("config");
    let spec = |(name, shape, _): &(&str, &[usize], f32)| TensorSpec {
        name: (*name).to_owned(),
        shape: shape.to_vec(),
        element: ElementType::F32,
    };
    let specs = tensors.iter().map(spec).collect::<Vec<_>>();
    let mut file = safetensors(&folder.path().join(WEIGHTS_FILE), &BTreeMap::new(), &specs).expect("begin");
    for (name, shape, value) in tensors {
        file.append_f32(name, &vec![*value; shape.iter().product()]).expect("append");
    }
    file.finish().expect("finish");
    folder
}

const A: &str = "base_model.model.h.0.attn.lora_A.weight";
const B: &str = "base_model.model.h.0.attn.lora_B.weight";

/// A good configuration with some fields changed; null takes one out.
fn config_with(changes: Value) -> String {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    for (field, value) in changes.as_object().expect("object") {
        config[field] = value.clone();
    }
    config.as_object_mut().expect("object").retain(|_, value| !value.is_null());
    config.to_string()
}

#[test]
fn inputs_first_weights_get_the_transpose() {
    let config = config_with(json!({"fan_in_fan_out": true}));
    let folder = folder(&config, &[(A, &[2, 3], 1.0), (B, &[5, 2], 0.5)]);
    let adapter = Adapter::open(folder.path()).expect("adapter");
    let error = adapter.claims([("attn.weight", &[3usize, 5][..])]).expect_err("no such tensor");
    assert!(
        error.to_string().ends_with("belongs to \"h.0.attn.weight\", which the base model does not have"),
        "{error}"
    );
    // GPT-2's files leave out the first part of the name.
    let adapter = Adapter::open(folder.path()).expect("adapter");
    let claims = adapter.claims([("0.attn.weight", &[3usize, 5][..])]).expect("claims");
    let mut out = [1.0f32; 4];
    claims.add("0.attn.weight", 3..7, &mut out).expect("add");
    assert_eq!(out, [3.0; 4]);
    let adapter = Adapter::open(folder.path()).expect("adapter");
    let error = adapter.claims([("h.0.attn.weight", &[5usize, 3][..])]).expect_err("turned");
    assert!(
        error.to_string().ends_with(
            "tensor \"base_model.model.h.0.attn.lora_B.weight\" is for weights of the shape [3, 5], \
             but \"h.0.attn.weight\" of the base model has [5, 3]"
        ),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn configurations_that_mean_something_else_are_refused() {
    let refused = |config: &str| {
        let folder = folder(config, &[(A, &[2, 3], 1.0), (B, &[5, 2], 0.5)]);
        let error = Adapter::open(folder.path()).expect_err(config);
        error.to_string().rsplit_once("adapter_config.json: ").expect("file").1.to_owned()
    };
    let changed = |changes: Value| refused(&config_with(changes));
    assert_eq!(changed(json!({"use_dora": true})), "use_dora is true, which lathe cannot merge");
    assert_eq!(changed(json!({"peft_type": "IA3"})), r#"peft_type is "IA3", which lathe cannot merge"#);
    assert_eq!(changed(json!({"peft_type": null})), "peft_type is missing");
    assert_eq!(
        changed(json!({"init_lora_weights": "pissa_niter_4"})),
        r#"init_lora_weights is "pissa_niter_4", which lathe cannot merge"#
    );
    assert_eq!(changed(json!({"something_new": {"x": 1}})), r#"something_new is {"x":1}, which lathe cannot merge"#);
    assert_eq!(
        changed(json!({"layers_to_transform": "first"})),
        "layers_to_transform is no layer and no list of layers"
    );
    assert_eq!(changed(json!({"r": 0})), "r is missing or no whole number of 1 or more");
    assert_eq!(changed(json!({"r": 1.5})), "r is missing or no whole number of 1 or more");
    assert_eq!(changed(json!({"lora_alpha": null})), "lora_alpha is missing or no number");
    assert_eq!(changed(json!({"bias": "some"})), "bias is none of none, all, lora_only");
    assert_eq!(changed(json!({"use_rslora": "yes"})), "use_rslora is neither true nor false");
    assert_eq!(changed(json!({"modules_to_save": "lm_head"})), "modules_to_save is no list of names");
    assert_eq!(changed(json!({"rank_pattern": {"q": 0}})), r#"rank_pattern has the value 0 for "q""#);
    assert_eq!(
        changed(json!({"rank_pattern": {"(?=q)": 1}})),
        r#"rank_pattern has the pattern "(?=q)", which lathe cannot read as a regular expression"#
    );
    // Python writes what is no JSON.
    let text = config_with(json!({})).replace("\"lora_alpha\":4", "\"lora_alpha\":NaN");
    assert!(refused(&text).starts_with("the JSON is invalid"), "{text}");
    let off = config_with(json!({"use_dora": false, "new": [], "newer": {}, "layers_to_transform": [0, 1]}));
    let folder = folder(&off, &[(A, &[2, 3], 1.0), (B, &[5, 2], 0.5)]);
    Adapter::open(folder.path()).expect("what is off changes nothing");
}

#[test]
fn tensors_that_do_not_belong_together_are_refused() {
    let refused = |tensors: &[(&str, &[usize], f32)]| {
        let folder = folder(&config_with(json!({})), tensors);
        let error = Adapter::open(folder.path()).expect_err("tensors");
        error.to_string().rsplit_once("safetensors: ").expect("file").1.to_owned()
    };
    assert_eq!(refused(&[]), "the adapter has no tensors");
    assert_eq!(refused(&[(A, &[2, 3], 1.0)]), format!("tensor {A:?} is there, but {B:?} is missing"));
    assert_eq!(refused(&[(B, &[5, 2], 1.0)]), format!("tensor {B:?} is there, but {A:?} is missing"));
    let shape = |shape: &str, asks: &str| format!("has the shape {shape}, but the configuration asks for {asks}");
    let wrong = refused(&[(A, &[3, 3], 1.0), (B, &[5, 3], 1.0)]);
    assert_eq!(wrong, format!("tensor {A:?} {}", shape("[3, 3]", "[2, in]")));
    let wrong = refused(&[(A, &[2, 3, 1, 1], 1.0), (B, &[5, 2, 1, 1], 1.0)]);
    assert_eq!(wrong, format!("tensor {A:?} {}", shape("[2, 3, 1, 1]", "[2, in]")));
    let wrong = refused(&[(A, &[2, 3], 1.0), (B, &[2, 5], 1.0)]);
    assert_eq!(wrong, format!("tensor {B:?} {}", shape("[2, 5]", "[out, 2]")));
    for name in ["other.weight", "base_model.model.h.0.attn.lora_magnitude_vector.weight"] {
        let wrong = refused(&[(A, &[2, 3], 1.0), (B, &[5, 2], 1.0), (name, &[5], 1.0)]);
        assert_eq!(wrong, format!("tensor {name:?} is no part of a LoRA adapter that lathe knows"));
    }
    let twice =
        [("base_model.model.x.weight", &[1usize][..], 1.0), ("base_model.model.x.base_layer.weight", &[1], 1.0)];
    assert!(refused(&twice).ends_with("changes \"x.weight\", and so does another one"));

    let saves = config_with(json!({"modules_to_save": ["lm_head"]}));
    let incomplete = folder(&saves, &[(A, &[2, 3], 1.0), (B, &[5, 2], 0.5)]);
    assert!(matches!(Adapter::open(incomplete.path()), Err(AdapterError::NoSavedModules { .. })));

    let infinite = folder(&config_with(json!({})), &[(A, &[2, 3], 1.0), (B, &[5, 2], f32::NAN)]);
    let adapter = Adapter::open(infinite.path()).expect("adapter");
    let claims = adapter.claims([("h.0.attn.weight", &[5usize, 3][..])]).expect("claims");
    let error = claims.add("h.0.attn.weight", 0..1, &mut [0.0]).expect_err("NaN");
    assert!(matches!(error, AdapterError::NotFinite { .. }), "{error}");
}

#[test]
fn an_adapter_that_is_cut_short_is_refused() {
    let whole = fs::read(data("adapter/adapter_model.safetensors")).expect("weights");
    let config = fs::read(data("adapter/adapter_config.json")).expect("config");
    let folder = tempfile::tempdir().expect("folder");
    let open = |weights: &[u8], config: &[u8]| {
        fs::write(folder.path().join(WEIGHTS_FILE), weights).expect("weights");
        fs::write(folder.path().join(CONFIG_FILE), config).expect("config");
        Adapter::open(folder.path())
    };
    open(&whole, &config).expect("whole");
    for end in (0..whole.len()).step_by(97) {
        open(&whole[..end], &config).expect_err("weights");
    }
    for end in 0..config.len() - 2 {
        open(&whole, &config[..end]).expect_err("config");
    }
    fs::remove_file(folder.path().join(CONFIG_FILE)).expect("remove");
    assert!(matches!(Adapter::open(folder.path()), Err(AdapterError::Io { .. })));
}

/// A base and a tuned matrix.
struct Pair {
    shape: Vec<usize>,
    values: [Vec<f32>; 2],
}

impl Inputs for Pair {
    fn count(&self) -> usize {
        2
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError> {
        out.copy_from_slice(&self.values[model][range]);
        Ok(())
    }
}

/// Whole numbers from -3 to 3 that look random.
fn number(seed: usize, index: usize) -> f32 {
    let mixed = (seed as u64 * 0x1_0000_0001 + index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 % 7.0 - 3.0
}

/// A base of whole numbers, and the same plus a product of rank `rank` of whole numbers: the difference is exact.
fn pair(rows: usize, columns: usize, rank: usize) -> Pair {
    let base = (0..rows * columns).map(|index| number(0, index)).collect::<Vec<_>>();
    let product = |row: usize, column: usize| {
        (0..rank).map(|k| number(1, row * rank + k) * number(2, k * columns + column)).sum::<f32>()
    };
    let tuned = (0..rows * columns).map(|index| base[index] + product(index / columns, index % columns)).collect();
    Pair { shape: vec![rows, columns], values: [base, tuned] }
}

/// The largest difference between the tuned matrix and the base with the factors.
fn error_of(pair: &Pair, extracted: &Extracted, layout: WeightLayout) -> f32 {
    let (rows, columns, rank) = (pair.shape[0], pair.shape[1], extracted.rank);
    let mut largest = 0.0f32;
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let (output, input, inputs) = match layout {
            WeightLayout::OutputsFirst => (row, column, columns),
            WeightLayout::InputsFirst => (column, row, rows),
        };
        let products = (0..rank).map(|k| extracted.b[output * rank + k] * extracted.a[k * inputs + input]);
        let at = row * columns + column;
        largest = largest.max((pair.values[0][at] + products.sum::<f32>() - pair.values[1][at]).abs());
    }
    largest
}

#[test]
fn all_singular_vectors_give_the_tuned_matrix_back() {
    for (rows, columns) in [(1, 1), (1, 7), (9, 4), (12, 31)] {
        let mut pair = pair(rows, columns, 1);
        pair.values[1] = (0..rows * columns).map(|index| number(5, index) / 7.0).collect();
        for layout in [WeightLayout::OutputsFirst, WeightLayout::InputsFirst] {
            let extracted = extract(&pair, usize::MAX, layout).expect("extract");
            assert_eq!(extracted.rank, rows.min(columns));
            assert!(extracted.residual < 1e-6, "{}", extracted.residual);
            assert!(error_of(&pair, &extracted, layout) < 1e-5);
        }
    }
}

#[test]
fn a_difference_of_low_rank_is_found_whole() {
    // The larger matrix is not decomposed but iterated upon.
    for (rows, columns, rank) in [(40, 30, 3), (700, 650, 4)] {
        let pair = pair(rows, columns, rank);
        let extracted = extract(&pair, rank, WeightLayout::OutputsFirst).expect("extract");
        assert!(extracted.residual < 1e-6, "{rows} x {columns}: {}", extracted.residual);
        assert!(error_of(&pair, &extracted, WeightLayout::OutputsFirst) < 1e-4);
        let less = extract(&pair, rank - 1, WeightLayout::OutputsFirst).expect("extract");
        assert!(less.residual > 0.05 && less.residual < 1.0, "{}", less.residual);
        let squares = pair.values[1].iter().zip(&pair.values[0]).map(|(tuned, base)| f64::from(tuned - base).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        assert!((extracted.norm / norm - 1.0).abs() < 1e-12);
    }
}

#[test]
fn iteration_comes_near_the_best_approximation() {
    // Singular values 1/√1, 1/√2, 1/√3 …: none of them much larger than the next one.
    let (side, rank) = (600, 8);
    let mut pair = Pair { shape: vec![side, side], values: [vec![0.0; side * side], vec![0.0; side * side]] };
    (0..side).for_each(|k| pair.values[1][k * side + (k * 7) % side] = 1.0 / (k as f32 + 1.0).sqrt());
    let extracted = extract(&pair, rank, WeightLayout::OutputsFirst).expect("extract");
    let squares = |from: usize| (from..side).map(|k| 1.0 / (k as f64 + 1.0)).sum::<f64>();
    let best = (squares(rank) / squares(0)).sqrt();
    assert!((best * (1.0 - 1e-6)..best * 1.001).contains(&extracted.residual), "{} {best}", extracted.residual);
}

#[test]
fn extraction_of_nothing_and_of_no_matrix() {
    let mut same = pair(3, 4, 1);
    same.values[1] = same.values[0].clone();
    let extracted = extract(&same, 2, WeightLayout::OutputsFirst).expect("extract");
    assert_eq!((extracted.norm, extracted.residual, extracted.rank), (0.0, 0.0, 2));
    assert!(extracted.a == [0.0; 8] && extracted.b == [0.0; 6]);
    assert!(matches!(extract(&same, 0, WeightLayout::OutputsFirst), Err(AdapterError::ZeroRank)));
    same.shape = vec![12];
    assert!(matches!(extract(&same, 1, WeightLayout::OutputsFirst), Err(AdapterError::NotAMatrix { .. })));
}

#[test]
fn a_singular_value_by_hand() {
    // diag(4, 1): the factors of rank 1 are 2 and 2 in one place, and what is lost is 1 of sqrt(17).
    let pair = Pair { shape: vec![2, 2], values: [vec![0.0; 4], vec![4.0, 0.0, 0.0, 1.0]] };
    let extracted = extract(&pair, 1, WeightLayout::OutputsFirst).expect("extract");
    let expected = [2.0, 0.0];
    for factor in [&extracted.a, &extracted.b] {
        assert!(factor.iter().zip(expected).all(|(value, expected)| (value.abs() - expected).abs() < 1e-6));
    }
    assert!((extracted.residual - 1.0 / 17f64.sqrt()).abs() < 1e-9);
}

#[test]
fn the_factors_do_not_depend_on_threads() {
    let pair = pair(700, 650, 30);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        pool.install(|| extract(&pair, 5, WeightLayout::OutputsFirst).expect("extract"))
    };
    assert!(with(1) == with(3));
}

#[test]
fn what_is_written_can_be_opened_and_gives_the_tuned_model() {
    let matrices = [("h.0.a.weight", pair(12, 9, 2)), ("h.0.b.weight", pair(1, 9, 1))];
    let norm = [1.5f32, 2.5];
    let products = matrices
        .iter()
        .map(|(name, pair)| ((*name).to_owned(), extract(pair, 2, WeightLayout::OutputsFirst).expect("extract")));
    let adapter = NewAdapter {
        base_model: Some("tiny".to_owned()),
        layout: WeightLayout::OutputsFirst,
        products: products.collect(),
        saved: vec![("norm.weight".to_owned(), vec![2])],
        settings: None,
    };
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), &adapter, |_, range, out| {
        out.copy_from_slice(&norm[range]);
        Ok(())
    })
    .expect("write");
    let read = Adapter::open(folder.path()).expect("adapter");
    assert_eq!(read.base_model(), Some("tiny"));
    let shapes = matrices.iter().map(|(name, pair)| (*name, pair.shape.as_slice()));
    let claims = read.claims(shapes.chain([("norm.weight", &[2usize][..])])).expect("claims");
    for (name, pair) in &matrices {
        let mut values = pair.values[0].clone();
        claims.add(name, 0..values.len(), &mut values).expect("add");
        let largest =
            values.iter().zip(&pair.values[1]).map(|(value, tuned)| (value - tuned).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-5, "{name}: {largest}");
    }
    let mut values = [0.0; 2];
    claims.add("norm.weight", 0..2, &mut values).expect("add");
    assert_eq!(values, norm);

    let config = fs::read(folder.path().join(CONFIG_FILE)).expect("config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(2), &json!(2)));
    assert_eq!(config["rank_pattern"], json!({r"h\.0\.b": 1}));
    assert_eq!(config["target_modules"], json!(["h.0.a", "h.0.b"]));
    assert_eq!(config["modules_to_save"], json!(["norm"]));

    let nothing = NewAdapter { products: Vec::new(), ..adapter };
    let error = write(folder.path(), &nothing, |_, _, _| Ok(())).expect_err("nothing");
    assert!(matches!(error, AdapterError::NothingToWrite { .. }), "{error}");
}

#[test]
fn every_tensor_of_a_model_has_its_place() {
    let tensors: [(&str, &[usize]); 9] = [
        ("model.embed_tokens.weight", &[9, 4]),
        ("model.layers.0.self_attn.q_proj.weight", &[4, 4]),
        ("model.layers.0.self_attn.q_proj.bias", &[4]),
        ("model.layers.0.input_layernorm.weight", &[4]),
        ("model.layers.0.input_layernorm.bias", &[4]),
        ("model.layers.0.mlp.experts.gate_up_proj", &[2, 4, 4]),
        ("model.layers.0.conv.weight", &[4, 4, 3]),
        ("model.norm.weight", &[4]),
        ("lm_head.weight", &[9, 4]),
    ];
    use Place::{LeftOut, LowRank, Saved};
    assert_eq!(places(&tensors), [Saved, LowRank, LeftOut, Saved, Saved, LeftOut, LeftOut, Saved, Saved]);
}
