//! Properties: what is written comes back; no bytes make the readers panic.

use std::collections::BTreeMap;

use lathe_formats::write::{self, TensorSpec};
use lathe_formats::{Checkpoint, ElementType, Format, GgufArray, GgufValue, Metadata};
use proptest::prelude::*;

use crate::samples::{self, filler};

proptest! {
    #[test]
    fn safetensors_come_back(
        tensors in tensors(safetensors_element(), 5),
        metadata in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
    ) {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("m.safetensors");
        let writer = write::safetensors(&path, &metadata, &tensors)?;
        let checkpoint = fill_and_open(writer, &path, &tensors)?;
        check_same(&checkpoint, &tensors)?;
        match checkpoint.metadata() {
            Metadata::Safetensors(found) => prop_assert_eq!(found, &metadata),
            Metadata::Gguf(_) => prop_assert!(false, "opened as GGUF"),
        }
    }

    #[test]
    fn gguf_comes_back(
        tensors in tensors(gguf_element(), 4),
        metadata in prop::collection::btree_map(".{1,8}", value(), 0..6),
        alignment in prop::option::of(0u32..10),
    ) {
        let mut metadata: Vec<(String, GgufValue)> = metadata.into_iter().collect();
        if let Some(power) = alignment {
            metadata.push(("general.alignment".to_owned(), GgufValue::U32(1 << power)));
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("m.gguf");
        let writer = write::gguf(&path, &metadata, &tensors)?;
        let checkpoint = fill_and_open(writer, &path, &tensors)?;
        check_same(&checkpoint, &tensors)?;
        prop_assert_eq!(checkpoint.gguf().map(|found| found.entries()), Some(&metadata[..]));
    }

    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (format, mut bytes) in [
            (Format::Gguf, samples::gguf().0),
            (Format::Gguf, samples::blocks()),
            (Format::Safetensors, samples::safetensors()),
        ] {
            for (index, byte) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            // Either answer is right; a panic is not.
            let _ = samples::open_and_read(format, &bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_after_a_magic_number_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let gguf = [b"GGUF\x03\0\0\0", &bytes[..]].concat();
        let _ = samples::open_and_read(Format::Gguf, &gguf);
        let _ = samples::open_and_read(Format::Safetensors, &bytes);
    }
}

/// Every single byte of the headers, with the values that are most often wrong.
#[test]
fn each_header_byte_changed_never_panics() {
    for (format, bytes) in [(Format::Gguf, samples::gguf().0), (Format::Safetensors, samples::safetensors())] {
        for index in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[index] ^ 1, bytes[index].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[index] = value;
                let _ = samples::open_and_read(format, &changed);
            }
        }
    }
}

fn fill_and_open(
    mut writer: write::TensorWriter,
    path: &std::path::Path,
    tensors: &[TensorSpec],
) -> Result<Checkpoint, lathe_formats::Error> {
    for (seed, tensor) in tensors.iter().enumerate() {
        let bytes = filler(tensor, seed);
        let (first, second) = bytes.split_at(bytes.len() / 3);
        writer.append(&tensor.name, first)?;
        // A tensor that is complete after its first piece, because it is empty, is not appended to again.
        if !second.is_empty() {
            writer.append(&tensor.name, second)?;
        }
    }
    writer.finish()?;
    Checkpoint::open(path)
}

fn check_same(checkpoint: &Checkpoint, tensors: &[TensorSpec]) -> Result<(), TestCaseError> {
    prop_assert_eq!(checkpoint.tensors().len(), tensors.len());
    for (seed, tensor) in tensors.iter().enumerate() {
        let view = checkpoint.require(&tensor.name)?;
        prop_assert_eq!(&TensorSpec::from(view.info()), tensor);
        prop_assert_eq!(view.bytes(), filler(tensor, seed));
        prop_assert_eq!(view.info().rows() * view.info().row_len(), view.info().elements());
        if tensor.element.is_readable() {
            prop_assert_eq!(view.to_f32()?.len(), view.info().elements());
        }
    }
    Ok(())
}

fn safetensors_element() -> impl Strategy<Value = ElementType> {
    let plain: Vec<ElementType> = ElementType::all().filter(|e| !e.is_quantised()).collect();
    prop::sample::select(plain)
}

fn gguf_element() -> impl Strategy<Value = ElementType> {
    use ElementType as E;
    let both = [E::F64, E::F32, E::F16, E::BF16, E::I8, E::I16, E::I32, E::I64];
    let quantised = ElementType::all().filter(|e| e.is_quantised());
    prop::sample::select(both.into_iter().chain(quantised).collect::<Vec<_>>())
}

/// Tensors with different names and whole blocks in each row; sizes from zero up.
fn tensors(
    element: impl Strategy<Value = ElementType>,
    max_dimensions: usize,
) -> impl Strategy<Value = Vec<TensorSpec>> {
    let shape = prop::collection::vec(0usize..4, 0..=max_dimensions);
    let one = (".{0,12}", shape, element).prop_map(|(name, mut shape, element)| {
        match shape.last_mut() {
            Some(last) => *last *= element.block_len(),
            None if element.block_len() > 1 => shape.push(element.block_len()),
            None => {}
        }
        TensorSpec { name, shape, element }
    });
    prop::collection::vec(one, 0..6).prop_map(|tensors| {
        let unique: BTreeMap<String, TensorSpec> = tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
        unique.into_values().collect()
    })
}

fn value() -> impl Strategy<Value = GgufValue> {
    prop_oneof![
        any::<u8>().prop_map(GgufValue::U8),
        any::<i16>().prop_map(GgufValue::I16),
        any::<u32>().prop_map(GgufValue::U32),
        any::<i64>().prop_map(GgufValue::I64),
        (-1e9f32..1e9).prop_map(GgufValue::F32),
        any::<bool>().prop_map(GgufValue::Bool),
        ".{0,20}".prop_map(GgufValue::Str),
        array().prop_map(GgufValue::Array),
    ]
}

fn array() -> impl Strategy<Value = GgufArray> {
    let flat = prop_oneof![
        prop::collection::vec(".{0,5}", 0..4).prop_map(GgufArray::Str),
        prop::collection::vec(any::<i32>(), 0..4).prop_map(GgufArray::I32),
        prop::collection::vec(any::<bool>(), 0..4).prop_map(GgufArray::Bool),
        prop::collection::vec(-1e9f64..1e9, 0..4).prop_map(GgufArray::F64),
    ];
    flat.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(GgufArray::Array))
}
