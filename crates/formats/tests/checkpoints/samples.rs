//! Small files to test with.

use std::collections::BTreeMap;
use std::path::Path;

use lathe_formats::write::{self, TensorSpec};
use lathe_formats::{Checkpoint, ElementType, Error, Format, GgufArray, GgufValue};

pub(crate) fn spec(name: &str, shape: &[usize], element: ElementType) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), element }
}

/// Bytes of a tensor: not zero, and different for each seed.
pub(crate) fn filler(spec: &TensorSpec, seed: usize) -> Vec<u8> {
    let elements: usize = spec.shape.iter().product();
    let bytes = elements / spec.element.block_len() * spec.element.block_bytes();
    (0..bytes).map(|i| (i * 7 + seed * 31 + 1) as u8 & 0x3f).collect()
}

pub(crate) fn write_gguf(path: &Path, metadata: &[(String, GgufValue)], tensors: &[TensorSpec]) -> Result<(), Error> {
    let mut writer = write::gguf(path, metadata, tensors)?;
    for (seed, tensor) in tensors.iter().enumerate() {
        writer.append(&tensor.name, &filler(tensor, seed))?;
    }
    writer.finish()
}

pub(crate) fn write_safetensors(path: &Path, tensors: &[TensorSpec]) -> Result<(), Error> {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = write::safetensors(path, &metadata, tensors)?;
    for (seed, tensor) in tensors.iter().enumerate() {
        writer.append(&tensor.name, &filler(tensor, seed))?;
    }
    writer.finish()
}

/// A value of every type.
pub(crate) fn every_value() -> Vec<(String, GgufValue)> {
    let values = [
        GgufValue::U8(1),
        GgufValue::I8(-1),
        GgufValue::U16(2),
        GgufValue::I16(-2),
        GgufValue::U32(3),
        GgufValue::I32(-3),
        GgufValue::F32(0.5),
        GgufValue::Bool(true),
        GgufValue::Str("héllo".to_owned()),
        GgufValue::U64(u64::MAX),
        GgufValue::I64(i64::MIN),
        GgufValue::F64(-0.25),
        GgufValue::Array(GgufArray::U8(vec![1, 2])),
        GgufValue::Array(GgufArray::I8(vec![-1])),
        GgufValue::Array(GgufArray::U16(vec![])),
        GgufValue::Array(GgufArray::I16(vec![-9])),
        GgufValue::Array(GgufArray::U32(vec![7])),
        GgufValue::Array(GgufArray::I32(vec![-7, 7])),
        GgufValue::Array(GgufArray::F32(vec![1.5])),
        GgufValue::Array(GgufArray::Bool(vec![true, false])),
        GgufValue::Array(GgufArray::Str(vec!["a".to_owned(), String::new()])),
        GgufValue::Array(GgufArray::U64(vec![9])),
        GgufValue::Array(GgufArray::I64(vec![-9])),
        GgufValue::Array(GgufArray::F64(vec![2.5])),
        GgufValue::Array(GgufArray::Array(vec![GgufArray::U8(vec![4]), GgufArray::Str(vec!["b".to_owned()])])),
    ];
    let named = values.into_iter().enumerate();
    named.map(|(index, value)| (format!("key.{index}"), value)).collect()
}

/// A GGUF file with every kind of value and some kinds of tensors, and where its last tensor ends.
pub(crate) fn gguf() -> (Vec<u8>, usize) {
    let tensors = [
        spec("plain", &[3, 5], ElementType::F32),
        spec("blocks", &[2, 64], ElementType::Q4_1),
        spec("number", &[], ElementType::F64),
        spec("empty", &[0, 32], ElementType::Q8_0),
        spec("half", &[7], ElementType::F16),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.gguf");
    write_gguf(&path, &every_value(), &tensors).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    // 14 bytes of f16, padded to 32.
    let data_end = bytes.len() - 18;
    (bytes, data_end)
}

/// A GGUF file with a block of every quantised type.
pub(crate) fn blocks() -> Vec<u8> {
    let quantised = ElementType::all().filter(|element| element.is_quantised());
    let tensors: Vec<TensorSpec> = quantised.map(|e| spec(e.name(), &[e.block_len()], e)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.gguf");
    write_gguf(&path, &[], &tensors).unwrap();
    std::fs::read(&path).unwrap()
}

pub(crate) fn safetensors() -> Vec<u8> {
    let tensors = [
        spec("wide", &[2, 3], ElementType::F64),
        spec("plain", &[3, 5], ElementType::F32),
        spec("empty", &[0, 4], ElementType::F32),
        spec("number", &[], ElementType::I64),
        spec("half \"quoted\" é", &[7], ElementType::BF16),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.safetensors");
    write_safetensors(&path, &tensors).unwrap();
    std::fs::read(&path).unwrap()
}

pub(crate) fn open(format: Format, bytes: &[u8]) -> Result<Checkpoint, Error> {
    let name = match format {
        Format::Gguf => "m.gguf",
        Format::Safetensors => "m.safetensors",
    };
    Checkpoint::from_bytes(name, format, bytes.to_vec())
}

/// Opens and, where that works, reads every tensor: what the fuzz targets do.
pub(crate) fn open_and_read(format: Format, bytes: &[u8]) -> Result<(), Error> {
    let checkpoint = open(format, bytes)?;
    for view in checkpoint.views() {
        if view.info().element.is_readable() {
            view.to_f32()?;
        }
    }
    Ok(())
}
