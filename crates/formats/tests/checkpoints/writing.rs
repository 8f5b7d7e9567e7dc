//! The writers: order, lengths, and what is left behind.

use std::collections::BTreeMap;
use std::fs;

use lathe_formats::write;
use lathe_formats::{Checkpoint, ElementType, EncodeError, Error, GgufArray, GgufValue, encode_rows};

use crate::samples::spec;

#[test]
fn tensors_come_in_order_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let tensors =
        [spec("a", &[2], ElementType::U16), spec("e", &[0], ElementType::F32), spec("b", &[4], ElementType::U8)];
    let begin = || write::safetensors(&path, &BTreeMap::new(), &tensors).unwrap();

    let mut writer = begin();
    assert!(matches!(writer.append("b", &[0; 4]), Err(Error::OutOfOrder { .. })));
    assert!(matches!(writer.append("a", &[0; 5]), Err(Error::WrongLength { needs: 4, got: 5, .. })));
    writer.append("a", &[1, 2, 3]).unwrap();
    assert!(matches!(writer.append("b", &[0]), Err(Error::OutOfOrder { .. })));
    assert!(matches!(writer.append("a", &[4, 5]), Err(Error::WrongLength { .. })));
    writer.append("a", &[4]).unwrap();
    writer.append("b", &[5, 6, 7, 8]).unwrap();
    assert!(matches!(writer.append("b", &[9]), Err(Error::OutOfOrder { .. })));
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensor("a").unwrap().bytes(), [1, 2, 3, 4]);
    assert_eq!(checkpoint.tensor("b").unwrap().bytes(), [5, 6, 7, 8]);

    let mut writer = begin();
    writer.append("a", &[0; 4]).unwrap();
    writer.append("e", &[]).unwrap();
    writer.append("b", &[0; 3]).unwrap();
    assert!(matches!(writer.finish(), Err(Error::Unfinished { tensor, .. }) if tensor == "b"));
}

#[test]
fn a_target_changes_only_when_the_file_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, "before").unwrap();
    let tensors = [spec("a", &[1 << 20], ElementType::I8), spec("b", &[1], ElementType::I8)];
    let mut writer = write::gguf(&path, &[], &tensors).unwrap();
    writer.append("a", &vec![1; 1 << 20]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"before");
    drop(writer);
    let names = || fs::read_dir(folder.path()).unwrap().count();
    assert_eq!((fs::read(&path).unwrap(), names()), (b"before".to_vec(), 1));

    let mut writer = write::gguf(&path, &[], &tensors).unwrap();
    writer.append("a", &vec![1; 1 << 20]).unwrap();
    assert!(writer.finish().is_err());
    assert_eq!((fs::read(&path).unwrap(), names()), (b"before".to_vec(), 1));

    let mut writer = write::gguf(&path, &[], &tensors).unwrap();
    writer.append("a", &vec![1; 1 << 20]).unwrap();
    writer.append("b", &[2]).unwrap();
    writer.finish().unwrap();
    assert_eq!(names(), 1);
    assert_eq!(Checkpoint::open(&path).unwrap().tensors().len(), 2);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::write(folder.path().join("plain"), "").unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("m.gguf"), mode("plain"));
    }
}

#[test]
fn floats_are_rounded_to_the_stored_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let tensors = [
        spec("single", &[3], ElementType::F32),
        spec("half", &[3], ElementType::F16),
        spec("brain", &[3], ElementType::BF16),
        spec("byte", &[3], ElementType::U8),
    ];
    let values = [1.0, 0.1, -65_504.0];
    let mut writer = write::safetensors(&path, &BTreeMap::new(), &tensors).unwrap();
    for tensor in ["single", "half", "brain"] {
        writer.append_f32(tensor, &values[..1]).unwrap();
        writer.append_f32(tensor, &values[1..]).unwrap();
    }
    let refused = writer.append_f32("byte", &values).unwrap_err();
    assert!(matches!(refused, Error::Unencodable { source: EncodeError::NotWritable { .. }, .. }));
    writer.append("byte", &[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let read = |name: &str| checkpoint.tensor(name).unwrap().to_f32().unwrap();
    assert_eq!(read("single"), values);
    assert_eq!(read("half"), [1.0, 0.099_975_586, -65_504.0]);
    assert_eq!(read("brain"), [1.0, 0.100_097_656, -65_536.0]);
}

#[test]
fn quantised_rows_arrive_in_pieces_of_whole_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    // More numbers than are encoded at once.
    let values: Vec<f32> = (0..300 * 512).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 250.0).collect();
    let tensors = [spec("a", &[3, 100, 512], ElementType::Q8_0), spec("b", &[300, 512], ElementType::Q4_K)];
    let mut writer = write::gguf(&path, &[], &tensors).unwrap();
    let error = writer.append_f32("a", &values[..700]).unwrap_err();
    assert!(
        error.to_string().ends_with("tensor \"a\" cannot be written: 700 numbers are no whole number of rows of 512")
    );
    writer.append_f32("a", &values[..7 * 512]).unwrap();
    writer.append_f32("a", &values[7 * 512..]).unwrap();
    writer.append_f32("b", &values).unwrap();
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    for tensor in &tensors {
        let mut whole = Vec::new();
        encode_rows(tensor.element, 512, &values, &mut whole).unwrap();
        assert_eq!(checkpoint.tensor(&tensor.name).unwrap().bytes(), whole);
    }
}

#[test]
fn numbers_that_a_type_cannot_hold_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut writer = write::gguf(&path, &[], &[spec("w", &[2, 32], ElementType::Q8_0)]).unwrap();
    writer.append_f32("w", &[1.0; 32]).unwrap();
    let mut row = [1.0; 32];
    for (value, said) in [
        (f32::NAN, "number 35 is NaN, which Q8_0 cannot hold"),
        (f32::NEG_INFINITY, "number 35 is -inf, which Q8_0 cannot hold"),
        (-1e20, "number 35 is -1e20, which is too large for Q8_0"),
    ] {
        row[3] = value;
        let message = writer.append_f32("w", &row).unwrap_err().to_string();
        assert!(message.ends_with(&format!("m.gguf: tensor \"w\" cannot be written: {said}")), "{message}");
    }
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_a_format_cannot_hold_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let safetensors = |tensors: &[write::TensorSpec]| write::safetensors(&path, &BTreeMap::new(), tensors).unwrap_err();
    let gguf = |metadata: &[(String, GgufValue)], tensors: &[write::TensorSpec]| {
        write::gguf(&path, metadata, tensors).unwrap_err()
    };
    let bytes = |name: &str| spec(name, &[2], ElementType::I8);

    let blocks = spec("w", &[32], ElementType::Q4_0);
    assert!(matches!(safetensors(&[blocks]), Error::Unwritable { .. }));
    assert!(matches!(safetensors(&[bytes("__metadata__")]), Error::Unwritable { .. }));
    assert!(matches!(safetensors(&[bytes("w"), bytes("w")]), Error::DuplicateTensor { .. }));
    assert!(matches!(safetensors(&[spec("w", &[usize::MAX, 2], ElementType::F32)]), Error::BadShape { .. }));

    assert!(matches!(gguf(&[], &[spec("w", &[2], ElementType::Bool)]), Error::Unwritable { .. }));
    assert!(matches!(gguf(&[], &[spec("w", &[1; 5], ElementType::F32)]), Error::TooManyDimensions { .. }));
    assert!(matches!(gguf(&[], &[spec("w", &[2, 16], ElementType::Q4_0)]), Error::BadShape { .. }));
    assert!(matches!(gguf(&[], &[bytes("w"), bytes("w")]), Error::DuplicateTensor { .. }));
    let key = |value: GgufValue| ("general.alignment".to_owned(), value);
    assert!(matches!(gguf(&[key(GgufValue::U32(24))], &[]), Error::BadAlignment { .. }));
    assert!(matches!(gguf(&[key(GgufValue::U64(32))], &[]), Error::Unwritable { .. }));
    let twice = [key(GgufValue::U32(32)), key(GgufValue::U32(32))];
    assert!(matches!(gguf(&twice, &[]), Error::DuplicateKey { .. }));
    let mut deep = GgufArray::U8(vec![1]);
    for _ in 0..4 {
        deep = GgufArray::Array(vec![deep]);
    }
    assert!(matches!(gguf(&[("deep".to_owned(), GgufValue::Array(deep))], &[]), Error::NestedTooDeep { .. }));

    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("absent").join("m.gguf");
    let error = write::gguf(&nowhere, &[], &[]).unwrap_err();
    assert!(matches!(error, Error::NoFolder { .. }) && error.is_bad_input(), "{error}");
    // A file where the folder should be, and a folder where the file should be.
    fs::write(&path, "").unwrap();
    assert!(matches!(write::gguf(&path.join("m.gguf"), &[], &[]), Err(Error::NoFolder { .. })));
    let error = write::gguf(folder.path(), &[], &[]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.is_bad_input(), "{error}");
    assert_eq!(error.to_string(), format!("{}: cannot write the file: is a directory", folder.path().display()));
}

#[cfg(unix)]
#[test]
fn a_new_file_has_the_permissions_of_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
    write::gguf(&ours, &[], &[]).unwrap().finish().unwrap();
    fs::write(&other, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&other));
}

#[test]
fn a_failing_machine_is_no_bad_input() {
    let refused = |kind: std::io::ErrorKind| Error::Io { file: "m".into(), action: "write", source: kind.into() };
    assert!(!refused(std::io::ErrorKind::StorageFull).is_bad_input());
    assert!(!refused(std::io::ErrorKind::Other).is_bad_input());
    assert!(refused(std::io::ErrorKind::PermissionDenied).is_bad_input());
}
