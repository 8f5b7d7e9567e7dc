//! Every fixture written as safetensors and as GGUF, and opened again: the same model, the same bits.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lathe_formats::write::{self, TensorSpec, TensorWriter};
use lathe_formats::{ElementType, Format};
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

fn logits(opened: &Opened) -> Vec<u32> {
    let decoder = opened.decoder(Weights::Frozen).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 128).collect();
    let hidden = decoder.forward(&Batch::single(&ids), None, &mut NoTap).unwrap();
    let logits = decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
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
    assert_eq!(not_in_gguf, ["opt"]);
}
