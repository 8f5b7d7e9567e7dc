//! Adapters of tiny models: written, added when they are opened, merged into files, trained further.

use std::fs;
use std::path::{Path, PathBuf};

use lathe_model::reference::Home;
use lathe_model::{Batch, NoTap, Recompute, TrainingPass, Weights, open};
use serde_json::Value;

use super::*;
use crate::{Context, Silent, open_model};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name)
}

fn spec(targets: &[&str], scaling: LoraScaling) -> LoraSpec {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    LoraSpec { rank: 4, alpha: 6.0, scaling, dropout: 0.1, targets, seed: 3 }
}

fn states(decoder: &Decoder) -> Vec<f32> {
    let hidden = decoder.forward(&Batch::single(&[1, 5, 9, 2, 7]), None, &mut NoTap).expect("states");
    hidden.flatten_all().and_then(|x| x.to_vec1()).expect("values")
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let worst = found.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(found.len() == expected.len() && worst <= 1e-5 * scale, "{what}: {worst} of {scale}");
}

/// A decoder with an adapter that says something.
fn adapted(base: &Path, spec: &LoraSpec) -> (Opened, Decoder) {
    let opened = open(base).expect("opened");
    let decoder = opened.decoder_with_adapter(Weights::Frozen, spec).expect("a decoder");
    let mut factors = decoder.factors().expect("factors");
    for (m, module) in factors.iter_mut().enumerate() {
        module.b.iter_mut().enumerate().for_each(|(i, b)| *b = ((i * 29 + m * 7) % 19) as f32 * 0.006 - 0.05);
    }
    decoder.set_factors(&factors).expect("set");
    (opened, decoder)
}

fn within<T>(home: &Path, f: impl FnOnce(&Context<'_>) -> T) -> T {
    let home = Home::new(home.to_owned(), home.join("hub"));
    let context =
        Context { home: &home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    f(&context)
}

/// An adapter's folder is its model: named, plain, transposed, fused in every way, and beside a GGUF file.
#[test]
fn a_folder_opens_its_base_with_the_adapter() {
    let place = tempfile::tempdir().expect("a folder");
    let cases: [(&str, &[&str], LoraScaling); 7] = [
        ("llama", &["q_proj", "v_proj"], LoraScaling::Classic),
        ("qwen3", &["all-linear"], LoraScaling::RankStabilised),
        ("phi3", &["qkv_proj", "gate_up_proj"], LoraScaling::Classic),
        ("gpt2", &["c_attn", "c_fc"], LoraScaling::Classic),
        ("gpt_neox", &["query_key_value"], LoraScaling::Classic),
        ("openelm", &["all-linear"], LoraScaling::Classic),
        ("olmo2", &["o_proj", "mlp.down_proj"], LoraScaling::Classic),
    ];
    for (name, targets, scaling) in cases {
        let spec = spec(targets, scaling);
        let (opened, decoder) = adapted(&fixture(name), &spec);
        let folder = place.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        let base = ModelReference::Path(fixture(name));
        let summary = write_adapter(&folder, &decoder, &spec, &opened, &base).expect("written");
        assert_eq!((summary.rank, summary.modules), (4, decoder.factors().expect("factors").len()), "{name}");
        let expected = states(&decoder);
        let reference = ModelReference::Path(folder.clone());
        within(place.path(), |context| {
            let (resolved, added) = open_model(&reference, context).expect("opened");
            assert!(resolved.files.iter().any(|file| file.ends_with("adapter_model.safetensors")));
            for weights in [Weights::Frozen, Weights::Streamed, Weights::Trainable] {
                let merged = added.decoder(weights).expect("a decoder");
                assert_close(&states(&merged), &expected, &format!("{name}, {weights:?}"));
            }
        });
        // And goes on from where it was.
        let (read, factors) = read_adapter(&folder).expect("read");
        let opened = open(&fixture(name)).expect("opened");
        let again = opened.decoder_with_adapter(Weights::Frozen, &read).expect("a decoder");
        again.set_factors(&factors).expect("set");
        assert_eq!(states(&again), expected, "{name}");
        assert_eq!((read.rank, read.alpha, read.scaling, read.dropout), (4, 6.0, scaling, 0.1), "{name}");
    }
}

#[test]
fn what_is_written_is_what_peft_writes() {
    let place = tempfile::tempdir().expect("a folder");
    let spec = spec(&["all-linear"], LoraScaling::RankStabilised);
    let (opened, decoder) = adapted(&fixture("gpt2"), &spec);
    write_adapter(place.path(), &decoder, &spec, &opened, &ModelReference::Path(fixture("gpt2"))).expect("written");
    let config: Value =
        serde_json::from_slice(&fs::read(place.path().join("adapter_config.json")).expect("read")).expect("JSON");
    let expected = serde_json::json!({
        "peft_type": "LORA", "r": 4, "lora_alpha": 6.0, "lora_dropout": 0.1, "use_rslora": true, "fan_in_fan_out": true,
        "target_modules": ["c_attn", "c_fc", "c_proj"], "bias": "none", "task_type": "CAUSAL_LM",
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&config[field], value, "{field}");
    }
    let checkpoint = lathe_formats::Checkpoint::open(place.path().join("adapter_model.safetensors")).expect("opened");
    let width = opened.spec.hidden_size;
    let name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight";
    assert_eq!(checkpoint.tensor(name).expect("there").info().shape, [4, width]);
    let name = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight";
    assert_eq!(checkpoint.tensor(name).expect("there").info().shape, [3 * width, 4]);
}

#[test]
fn adapters_without_a_base_are_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let spec = spec(&["q_proj"], LoraScaling::Classic);
    let (opened, decoder) = adapted(&fixture("llama"), &spec);
    let gone = ModelReference::Path(place.path().join("gone"));
    write_adapter(place.path(), &decoder, &spec, &opened, &gone).expect("written");
    let refused = |what: &str| {
        within(place.path(), |context| {
            let error = open_model(&ModelReference::Path(place.path().into()), context).map(drop).expect_err("refused");
            assert!(error.to_string().contains(what) && error.is_bad_input() && error.hint().is_some(), "{error}");
        });
    };
    refused("its base cannot be used");
    let file = place.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
    let mut name = |base: Value| {
        config["base_model_name_or_path"] = base;
        fs::write(&file, config.to_string()).expect("written");
    };
    name(Value::Null);
    refused("names no base");
    name(place.path().display().to_string().into());
    refused("is an adapter too");
    name(fixture("gpt2").display().to_string().into());
    within(place.path(), |context| {
        let error = open_model(&ModelReference::Path(place.path().into()), context).map(drop).expect_err("refused");
        assert!(error.to_string().contains("q_proj"), "{error}");
    });
}

/// Adapters that PEFT wrote, and what it computed with them: `tests/data/peft/make_peft.py`.
#[test]
fn adapters_of_peft_mean_what_peft_computes() {
    for name in ["llama", "qwen2", "phi3", "gpt2", "gpt_neox"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/peft").join(name);
        let expected = lathe_formats::Checkpoint::open(folder.join("expected.safetensors")).expect("opened");
        let floats = |tensor: &str| expected.tensor(tensor).expect(tensor).to_f32().expect("values");
        let ids: Vec<u32> = {
            let view = expected.tensor("ids").expect("ids");
            view.bytes().as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect()
        };
        let logits = |decoder: &Decoder| {
            let hidden = decoder.forward(&Batch::single(&ids), None, &mut NoTap).expect("states");
            let logits = decoder.logits(&hidden).expect("logits");
            logits.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("values")
        };
        let near = |found: &[f32], tensor: &str, tolerance: f32| {
            let expected = floats(tensor);
            let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let worst = found.iter().zip(&expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
            assert_eq!(found.len(), expected.len(), "{name}: {tensor}");
            assert!(worst <= tolerance * scale, "{name}: {tensor}: {worst} of {scale}");
        };
        let home = tempfile::tempdir().expect("a folder");
        within(home.path(), |context| {
            let (_, opened) = open_model(&ModelReference::Path(folder.clone()), context).expect("opened");
            near(&logits(&opened.decoder(Weights::Frozen).expect("a decoder")), "logits", 2e-5);
        });
        let opened = open(&fixture(name)).expect("opened");
        let (spec, factors) = read_adapter(&folder).expect("read");
        let decoder = opened.decoder_with_adapter(Weights::Frozen, &spec).expect("a decoder");
        decoder.set_factors(&factors).expect("set");
        near(&logits(&decoder), "logits", 2e-5);
        // The gradient of the mean likelihood; dropout is off, as it was there.
        let spec = LoraSpec { dropout: 0.0, ..spec };
        let decoder = opened.decoder_with_adapter(Weights::Frozen, &spec).expect("a decoder");
        decoder.set_factors(&factors).expect("set");
        let batch = Batch::single(&ids[..ids.len() - 1]);
        let pass = TrainingPass { recompute: Recompute::Layers, draw: 0 };
        let mut loss = 0.0;
        let gradients = decoder.gradients(&batch, pass, &mut |hidden| {
            let mean = decoder.negative_log_likelihood(hidden, ids[1..].to_vec())?.mean_all()?;
            loss = mean.to_scalar::<f32>()?;
            Ok(mean)
        });
        near(&[loss], "loss", 1e-5);
        for (name, gradient) in gradients.expect("gradients").by_name {
            decoder.trainable()[&name].set(&gradient).expect("set");
        }
        // As the factors of modules, of which some are several parameters.
        for module in decoder.factors().expect("gradients") {
            let stem = module.tensor.trim_end_matches(".weight");
            near(&module.a, &format!("grad.base_model.model.{stem}.lora_A.weight"), 2e-4);
            near(&module.b, &format!("grad.base_model.model.{stem}.lora_B.weight"), 2e-4);
        }
    }
}

/// An adapter that PEFT wrote and lathe writes again has the same tensors, and says the same of them: what one can read, so
/// can the other.
#[test]
fn an_adapter_of_peft_is_written_as_it_was() {
    let place = tempfile::tempdir().expect("a folder");
    for name in ["llama", "qwen2", "phi3", "gpt2", "gpt_neox"] {
        let of_peft = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/peft").join(name);
        let opened = open(&fixture(name)).expect("opened");
        let (spec, factors) = read_adapter(&of_peft).expect("read");
        let decoder = opened.decoder_with_adapter(Weights::Frozen, &spec).expect("a decoder");
        decoder.set_factors(&factors).expect("set");
        let folder = place.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        write_adapter(&folder, &decoder, &spec, &opened, &ModelReference::Path(fixture(name))).expect("written");
        let tensors = |folder: &Path| -> Vec<(String, Vec<usize>, Vec<f32>)> {
            let file = lathe_formats::Checkpoint::open(folder.join("adapter_model.safetensors")).expect("opened");
            let tensor = |view: lathe_formats::TensorView<'_>| {
                let info = view.info();
                (info.name.clone(), info.shape.clone(), view.to_f32().expect("values"))
            };
            let mut tensors: Vec<_> = file.views().map(tensor).collect();
            tensors.sort_by(|a, b| a.0.cmp(&b.0));
            tensors
        };
        assert!(tensors(&folder) == tensors(&of_peft), "{name}");
        let config = |folder: &Path| -> Value {
            let bytes = fs::read(folder.join("adapter_config.json")).expect("read");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        let (written, expected) = (config(&folder), config(&of_peft));
        for field in ["peft_type", "task_type", "bias", "r", "lora_dropout", "use_rslora", "fan_in_fan_out"] {
            assert_eq!(written[field], expected[field], "{name}: {field}");
        }
        assert_eq!(written["lora_alpha"].as_f64(), expected["lora_alpha"].as_f64(), "{name}");
        // The modules may be named in full.
        let targets = |config: &Value| -> BTreeSet<String> {
            let targets = config["target_modules"].as_array().expect("a list").iter().filter_map(Value::as_str);
            targets.filter_map(|target| target.rsplit('.').next()).map(str::to_owned).collect()
        };
        assert_eq!(targets(&written), targets(&expected), "{name}");
    }
}
