//! Every fixture written as safetensors and as GGUF, and opened again: the same model, the same bits.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lathe_formats::write::{self, TensorSpec, TensorWriter};
use lathe_formats::{Checkpoint, ElementType, Format, GgufArray, GgufValue};
use proptest::prelude::*;

use lathe_model::{Batch, DecoderSpec, Error, NoTap, Opened, Parameter, ParameterSource, TargetTensor, Weights, open};

fn fixtures() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").exists())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    found
}

/// Writes a model with all numbers as f32 and gives the path that opens it.
fn export(opened: &Opened, format: Format, folder: &Path) -> Result<PathBuf, Error> {
    let target = opened.target(format)?;
    let spec = |name: &str, shape: &[usize]| TensorSpec {
        name: name.into(),
        shape: shape.to_vec(),
        element: ElementType::F32,
    };
    let mut tensors: Vec<TensorSpec> = target.tensors.iter().map(|t| spec(&t.name, &t.shape)).collect();
    tensors.extend(target.constants.iter().map(|(name, values)| spec(name, &[values.len()])));
    let (path, mut writer) = match format {
        Format::Gguf => {
            let path = folder.join("model.gguf");
            let writer = write::gguf(&path, &target.metadata, &tensors)?;
            (path, writer)
        }
        Format::Safetensors => {
            let json = serde_json::to_string(opened.config_json()).unwrap();
            std::fs::write(folder.join("config.json"), json).unwrap();
            let writer = write::safetensors(&folder.join("model.safetensors"), &BTreeMap::new(), &tensors)?;
            (folder.to_path_buf(), writer)
        }
    };
    for tensor in &target.tensors {
        append(&mut writer, tensor, opened)?;
    }
    for (name, values) in &target.constants {
        writer.append_f32(name, values)?;
    }
    writer.finish()?;
    Ok(path)
}

/// Seven rows at a time, where a tensor has rows.
fn append(writer: &mut TensorWriter, tensor: &TargetTensor, opened: &Opened) -> Result<(), Error> {
    let (rows, width) = (tensor.rows(), tensor.row_len());
    let step = if tensor.is_by_rows() { 7 } else { rows };
    for first in (0..rows).step_by(step) {
        let last = rows.min(first + step);
        // A value that no fixture has: every place must be filled.
        let mut values = vec![f32::NAN; (last - first) * width];
        tensor.values(opened.parameters(), first..last, &mut values)?;
        assert!(values.iter().all(|x| x.is_finite()), "{} is not filled", tensor.name);
        writer.append_f32(&tensor.name, &values)?;
    }
    Ok(())
}

fn bits(opened: &Opened, parameter: &Parameter) -> Vec<u32> {
    let mut values = vec![0.0; parameter.elements()];
    let rows = if parameter.shape.len() < 2 { 1 } else { parameter.shape[0] };
    opened.parameters().rows(parameter, 0..rows, &mut values).unwrap();
    // A norm adds 1 before it multiplies, and GGUF stores the sum: the sum is what must stay.
    let is_norm = parameter.shape.len() == 1 && parameter.name.ends_with("weight");
    let offset = opened.spec.final_norm.filter(|_| is_norm).map_or(0.0, |norm| norm.offset);
    values.iter().map(|x| (x + offset).to_bits()).collect()
}

/// Bits of the logits; of an encoder those of its hidden states.
fn logits(opened: &Opened) -> Vec<u32> {
    let decoder = opened.decoder(Weights::Frozen).unwrap();
    let length = opened.spec.context_length.min(40) as u32;
    let ids: Vec<u32> = (0..length).map(|i| (i * 37 + 11) % 128).collect();
    let hidden = decoder.forward(&Batch::single(&ids), None, &mut NoTap).unwrap();
    let logits = if opened.spec.has_head() { decoder.logits(&hidden).unwrap() } else { hidden };
    let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    logits.into_iter().map(f32::to_bits).collect()
}

/// What matters of a specification: its name and its random initialisation may differ.
fn comparable(spec: &DecoderSpec) -> DecoderSpec {
    DecoderSpec { family: String::new(), initializer_range: 0.0, ..spec.clone() }
}

fn assert_same(name: &str, one: &Opened, other: &Opened) {
    assert_eq!(comparable(&one.spec), comparable(&other.spec), "{name}");
    for parameter in one.spec.parameters() {
        assert_eq!(bits(one, &parameter), bits(other, &parameter), "{name}: {}", parameter.name);
    }
    assert_eq!(logits(one), logits(other), "{name}: logits");
}

#[test]
fn every_fixture_survives_both_formats() {
    let mut not_in_gguf = Vec::new();
    for (name, path) in fixtures() {
        let original = open(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = open(&export(&original, Format::Safetensors, folder.path()).unwrap()).unwrap();
        assert_same(&format!("{name} as safetensors"), &original, &copy);
        match export(&original, Format::Gguf, folder.path()) {
            Ok(path) => {
                let gguf = open(&path).unwrap();
                assert_same(&format!("{name} as GGUF"), &original, &gguf);
                println!("{name:<20} {}", original.target(Format::Gguf).unwrap().unread.join(", "));
                // And back: the header in the words of `config.json` is a whole configuration.
                let folder = tempfile::tempdir().unwrap();
                let back = open(&export(&gguf, Format::Safetensors, folder.path()).unwrap()).unwrap();
                assert_same(&format!("{name} from GGUF as safetensors"), &original, &back);
            }
            Err(error) => {
                assert!(matches!(error, Error::NotInGguf { .. }), "{name}: {error}");
                not_in_gguf.push(name);
            }
        }
    }
    // An encoder, attention scaled by layer, frequencies that follow the length of the text, and an architecture that
    // llama.cpp lacks.
    assert_eq!(not_in_gguf, ["bert", "gpt2_scaled", "llama_dynamic", "opt", "opt_350m"]);
}

/// A GGUF file to be taken apart.
struct Parts {
    metadata: Vec<(String, GgufValue)>,
    /// Name, shape, values.
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Parts {
    /// Of a fixture.
    fn of(fixture: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (_, path) = fixtures().into_iter().find(|(name, _)| name == fixture).unwrap();
        let file = Checkpoint::open(export(&open(&path).unwrap(), Format::Gguf, folder.path()).unwrap()).unwrap();
        let tensors =
            file.views().map(|view| (view.info().name.clone(), view.info().shape.clone(), view.to_f32().unwrap()));
        Self { metadata: file.gguf().unwrap().entries().to_vec(), tensors: tensors.collect() }
    }

    fn set(mut self, key: &str, value: GgufValue) -> Self {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.push((key.into(), value));
        self
    }

    fn take(&mut self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let index = self.tensors.iter().position(|(tensor, ..)| tensor == name).unwrap_or_else(|| panic!("{name}"));
        let (_, shape, values) = self.tensors.remove(index);
        (shape, values)
    }

    /// Opens them as a file.
    fn open(&self) -> Result<Opened, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edited.gguf");
        let specs: Vec<TensorSpec> = self
            .tensors
            .iter()
            .map(|(name, shape, _)| TensorSpec { name: name.clone(), shape: shape.clone(), element: ElementType::F32 })
            .collect();
        let mut writer = write::gguf(&path, &self.metadata, &specs)?;
        for (name, _, values) in &self.tensors {
            writer.append_f32(name, values)?;
        }
        writer.finish()?;
        open(&path)
    }
}

#[test]
fn experts_one_by_one_and_fused_tensors_are_read() {
    let original = Parts::of("mixtral");
    let expected = logits(&original.open().unwrap());
    let mut older = Parts::of("mixtral");
    for l in 0..3 {
        for part in ["gate", "up", "down"] {
            let (shape, values) = older.take(&format!("blk.{l}.ffn_{part}_exps.weight"));
            for (e, values) in values.chunks(shape[1] * shape[2]).enumerate() {
                older.tensors.push((format!("blk.{l}.ffn_{part}.{e}.weight"), shape[1..].to_vec(), values.to_vec()));
            }
        }
    }
    assert_eq!(logits(&older.open().unwrap()), expected, "one tensor for each expert");

    let mut fused = original;
    for l in 0..3 {
        let mut qkv = (vec![0, 32], Vec::new());
        for part in ["q", "k", "v"] {
            let (shape, values) = fused.take(&format!("blk.{l}.attn_{part}.weight"));
            qkv.0[0] += shape[0];
            qkv.1.extend(values);
        }
        fused.tensors.push((format!("blk.{l}.attn_qkv.weight"), qkv.0, qkv.1));
        let (shape, gate) = fused.take(&format!("blk.{l}.ffn_gate_exps.weight"));
        let (_, up) = fused.take(&format!("blk.{l}.ffn_up_exps.weight"));
        let expert = shape[1] * shape[2];
        let both = gate.chunks(expert).zip(up.chunks(expert)).flat_map(|(gate, up)| [gate, up].concat()).collect();
        fused.tensors.push((format!("blk.{l}.ffn_gate_up_exps.weight"), vec![shape[0], 2 * shape[1], shape[2]], both));
    }
    assert_eq!(logits(&fused.open().unwrap()), expected, "fused");
}

#[test]
fn what_a_header_leaves_out_is_what_llama_cpp_assumes() {
    // Gemma 3: every sixth layer is global, the base of the others is 10 000, scores are divided by a head's width.
    let mut parts = Parts::of("gemma3");
    parts.metadata.retain(|(key, _)| !key.ends_with("pattern") && !key.ends_with("freq_base_swa"));
    let spec = parts.open().unwrap().spec;
    assert!(spec.layers.iter().all(|layer| layer.attention.window == Some(6)), "four layers, none of them global");
    assert_eq!(spec.rotary[1].base, 10_000.0);
    // A period, as some files have it.
    let spec = parts.set("gemma3.attention.sliding_window_pattern", GgufValue::U32(2)).open().unwrap().spec;
    let windows: Vec<_> = spec.layers.iter().map(|layer| layer.attention.window).collect();
    assert_eq!(windows, [Some(6), None, Some(6), None]);

    // GPT-NeoX: files have no base, no width of a head and no number of key heads.
    let mut parts = Parts::of("gpt_neox");
    let expected = parts.open().unwrap().spec;
    let left_out = ["rope.freq_base", "key_length", "value_length", "head_count_kv"];
    parts.metadata.retain(|(key, _)| !left_out.iter().any(|end| key.ends_with(end)));
    assert_eq!(comparable(&parts.open().unwrap().spec), comparable(&expected));

    // A factor without a type stretches linearly.
    let spec = Parts::of("llama").set("llama.rope.scaling.factor", GgufValue::F32(4.0)).open().unwrap().spec;
    assert_eq!(spec.rotary[0].frequencies(1).0[0], 0.25);

    // Granite without a scale divides by the root of a head's width.
    let mut parts = Parts::of("granitemoe");
    parts.metadata.retain(|(key, _)| !key.ends_with("attention.scale"));
    assert_eq!(parts.open().unwrap().spec.layers[0].attention.scale, (1.0 / 8f64.sqrt()) as f32);
}

#[test]
fn headers_that_say_something_else_are_refused() {
    let refused = |fixture: &str, key: &str, value: GgufValue, expected: &str| {
        let message =
            Parts::of(fixture).set(key, value).open().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(expected), "{key}: {message:?}");
    };
    let text = |text: &str| GgufValue::Str(text.into());
    refused("qwen3_moe", "qwen3moe.expert_gating_func", GgufValue::U32(2), "is 2, expected 1 (softmax)");
    refused("deepseek", "deepseek.expert_weights_scale", GgufValue::F32(2.5), "is 2.5, expected 1");
    refused("olmo2", "olmo2.attention.sliding_window", GgufValue::U32(8), "is 8, expected none");
    refused(
        "llama",
        "llama.rope.scaling.type",
        text("spiral"),
        "is \"spiral\", expected none, linear, yarn or longrope",
    );
    refused("llama", "llama.attention.causal", GgufValue::Bool(false), "expected true (a decoder)");
    refused("llama", "general.architecture", text("lama"), "architecture `lama` is not supported");
    refused("qwen2", "qwen2.hidden_activation", text("snake"), "activation `snake`");
    let windows = GgufValue::Array(GgufArray::Bool(vec![true]));
    refused("gemma2", "gemma2.attention.sliding_window_pattern", windows, "expected one entry for each of 3 layers");
    for layers in [4, u32::MAX] {
        refused("openelm", "openelm.block_count", GgufValue::U32(layers), "layers");
    }
}

#[test]
fn divisors_of_another_kind_are_kept() {
    let mut parts = Parts::of("llama");
    let divisors = vec![1.0, 1.5, 1.25, 2.0];
    parts.tensors.push(("rope_freqs.weight".into(), vec![4], divisors.clone()));
    let opened = parts.open().unwrap();
    let plain = Parts::of("llama").open().unwrap().spec.rotary[0].frequencies(1).0;
    let expected: Vec<f32> = plain.iter().zip(&divisors).map(|(f, divisor)| f / divisor).collect();
    assert_eq!(opened.spec.rotary[0].frequencies(1).0, expected);
    assert_eq!(opened.target(Format::Gguf).unwrap().constants, [("rope_freqs.weight".to_owned(), divisors)]);

    parts.take("rope_freqs.weight");
    parts.tensors.push(("rope_freqs.weight".into(), vec![3], vec![1.0, 1.5, 2.0]));
    assert!(parts.open().err().unwrap().to_string().contains("rope_scaling.short_factor"));
}

/// Values that a header has no business to hold.
fn odd_value() -> impl Strategy<Value = GgufValue> {
    prop_oneof![
        any::<u32>().prop_map(GgufValue::U32),
        (0u32..5).prop_map(GgufValue::U32),
        any::<i64>().prop_map(GgufValue::I64),
        any::<f32>().prop_map(GgufValue::F32),
        any::<bool>().prop_map(GgufValue::Bool),
        Just(GgufValue::Str("yarn".into())),
        prop::collection::vec(any::<bool>(), 0..5).prop_map(|list| GgufValue::Array(GgufArray::Bool(list))),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(|list| GgufValue::Array(GgufArray::I32(list))),
    ]
}

#[test]
fn no_header_panics() {
    let originals: Vec<Parts> = fixtures()
        .iter()
        .filter(|(_, path)| open(path).unwrap().target(Format::Gguf).is_ok())
        .map(|(name, _)| Parts::of(name))
        .collect();
    let added = ["rope.scaling.factor", "rope.scaling.type", "expert_weights_scale", "attention.scale"];
    let cases = (0..originals.len(), any::<prop::sample::Index>(), odd_value());
    proptest!(ProptestConfig::with_cases(400), |((file, entry, value) in cases)| {
        let Parts { metadata, tensors } = &originals[file];
        let architecture = metadata.iter().find_map(|(key, value)| match value {
            GgufValue::Str(name) if key == "general.architecture" => Some(name.clone()),
            _ => None,
        });
        let index = entry.index(metadata.len() + added.len());
        let key = match metadata.get(index) {
            Some((key, _)) => key.clone(),
            None => format!("{}.{}", architecture.unwrap(), added[index - metadata.len()]),
        };
        let parts = Parts { metadata: metadata.clone(), tensors: tensors.clone() }.set(&key, value);
        if let Err(error) = parts.open() {
            prop_assert!(!error.to_string().is_empty());
        }
    });
}
