//! safetensors files that are wrong in one place each.

use lathe_formats::{Checkpoint, Error, Format, Metadata};

use crate::samples;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

fn open(header: &str, data: usize) -> Result<Checkpoint, Error> {
    samples::open(Format::Safetensors, &file(header, data))
}

fn error(header: &str, data: usize) -> Error {
    open(header, data).unwrap_err()
}

#[test]
fn the_sample_is_right() {
    samples::open_and_read(Format::Safetensors, &samples::safetensors()).unwrap();
    let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   "#;
    assert_eq!(open(header, 8).unwrap().tensor("w").unwrap().bytes(), [1; 8]);
    assert!(open("{}", 0).unwrap().tensors().is_empty());
}

#[test]
fn cut_anywhere_it_does_not_open() {
    let bytes = samples::safetensors();
    for end in 0..bytes.len() {
        assert!(samples::open(Format::Safetensors, &bytes[..end]).is_err(), "cut at {end}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(samples::open(Format::Safetensors, &longer), Err(Error::Gap { .. })));
}

#[test]
fn header_lengths() {
    let with_length = |length: u64| {
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        samples::open(Format::Safetensors, &bytes).unwrap_err()
    };
    assert!(matches!(with_length(3), Error::Truncated { needs: 3, .. }));
    assert!(matches!(with_length(100_000_000), Error::Truncated { .. }));
    assert!(matches!(with_length(100_000_001), Error::HeaderTooLong { .. }));
    assert!(matches!(with_length(u64::MAX), Error::HeaderTooLong { .. }));
    assert!(matches!(with_length(0), Error::BadJson { .. }));
}

#[test]
fn json_that_is_something_else() {
    for header in [
        "",
        "[]",
        "null",
        "{",
        "{}{}",
        "{\"w\":1}",
        r#"{"w":{"dtype":"F32","shape":[1]}}"#,
        r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        r#"{"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#,
        r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#,
        r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
        r#"{"w":{"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,4]}}"#,
        r#"{"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"__metadata__":{"a":"1","a":"1"}}"#,
        r#"{"__metadata__":{},"__metadata__":{}}"#,
    ] {
        assert!(matches!(error(header, 4), Error::BadJson { .. }), "{header}");
    }
    let deep = "[".repeat(1_000_000);
    assert!(matches!(error(&format!("{{\"w\":{deep}"), 0), Error::BadJson { .. }));
    let mut bytes = file(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4);
    bytes[10] = 0xff;
    assert!(matches!(samples::open(Format::Safetensors, &bytes), Err(Error::BadJson { .. })));
}

#[test]
fn errors_name_the_tensor() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":7}}"#;
    let message = error(header, 4).to_string();
    assert!(message.starts_with("m.safetensors: the JSON is invalid: in \"w\": "), "{message}");
    let twice =
        r#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#;
    let message = error(twice, 4).to_string();
    assert!(message.contains("the name \"w\" appears twice"), "{message}");
}

#[test]
fn dtypes_and_shapes() {
    let entry = |dtype: &str, shape: &str, end: u64| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    for dtype in ["", "f32", "F33", "Q4_0", "float32"] {
        assert!(matches!(error(&entry(dtype, "[1]", 4), 4), Error::UnknownElement { .. }), "{dtype}");
    }
    assert!(matches!(error(&entry("F32", "[3]", 8), 8), Error::SpanMismatch { span: 8, needs: 12, .. }));
    assert!(matches!(error(&entry("F32", "[0]", 8), 8), Error::SpanMismatch { .. }));
    let max = u64::MAX;
    for shape in [format!("[{max}]"), format!("[{max},0]"), "[4294967296,4294967296]".to_owned()] {
        assert!(matches!(error(&entry("F32", &shape, 8), 8), Error::BadShape { .. }), "{shape}");
    }
    // Half a byte per number: the total has to come out even.
    assert!(matches!(error(&entry("F4", "[3]", 2), 2), Error::BadShape { .. }));
    let checkpoint = open(&entry("F4", "[2,3]", 3), 3).unwrap();
    let error = checkpoint.tensor("w").unwrap().to_f32().unwrap_err();
    assert_eq!(error.to_string(), "m.safetensors: tensor \"w\" is stored as F4, which lathe cannot decode");
    assert!(error.hint().is_some());
}

#[test]
fn offsets() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[{}],"data_offsets":{a:?}}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":{b:?}}}}}"#,
            a[1].saturating_sub(a[0]),
            b[1].saturating_sub(b[0]),
        )
    };
    open(&two([0, 4], [4, 8]), 8).unwrap();
    open(&two([4, 8], [0, 4]), 8).unwrap();
    open(&two([0, 0], [0, 8]), 8).unwrap();
    assert!(matches!(error(&two([0, 5], [4, 8]), 8), Error::Overlap { .. }));
    assert!(matches!(error(&two([0, 8], [0, 8]), 8), Error::Overlap { .. }));
    assert!(matches!(error(&two([0, 8], [4, 4]), 8), Error::Overlap { .. }));
    assert!(matches!(error(&two([0, 3], [4, 8]), 8), Error::Gap { .. }));
    assert!(matches!(error(&two([1, 4], [4, 8]), 8), Error::Gap { .. }));
    assert!(matches!(error(&two([0, 4], [4, 7]), 8), Error::Gap { .. }));
    assert!(matches!(error(&two([0, 4], [4, 9]), 8), Error::OutOfFile { .. }));
    assert!(matches!(error(&two([0, 4], [4, u64::MAX]), 8), Error::BadShape { .. } | Error::OutOfFile { .. }));
    assert!(matches!(error(&two([0, 8], [8, 4]), 8), Error::SpanMismatch { .. }));
    assert!(matches!(error(&two([0, 8], [u64::MAX, 4]), 8), Error::OutOfFile { .. }));
}

#[test]
fn metadata_is_there_or_not() {
    let pairs = |header: &str| match open(header, 0).unwrap().metadata() {
        Metadata::Safetensors(pairs) => pairs.clone(),
        Metadata::Gguf(_) => unreachable!("opened as safetensors"),
    };
    assert_eq!(pairs(r#"{"__metadata__":{"format":"pt"}}"#)["format"], "pt");
    assert!(pairs(r#"{"__metadata__":null}"#).is_empty());
    assert!(pairs("{}").is_empty());
}
