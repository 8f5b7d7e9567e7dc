//! GGUF files that are wrong in one place each.

use lathe_formats::{ElementType, Error, Format, GgufValue};

use crate::samples::{self, spec};

fn open(bytes: &[u8]) -> Result<lathe_formats::Checkpoint, Error> {
    samples::open(Format::Gguf, bytes)
}

/// A file put together byte by byte, so that it can be wrong.
struct Raw {
    magic: [u8; 4],
    version: u32,
    counts: Option<(u64, u64)>,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

impl Raw {
    fn new() -> Raw {
        Raw { magic: *b"GGUF", version: 3, counts: None, keys: Vec::new(), tensors: Vec::new(), data: 256 }
    }

    fn key(mut self, name: &[u8], type_id: u32, value: &[u8]) -> Raw {
        self.keys.push([&string(name)[..], &type_id.to_le_bytes(), value].concat());
        self
    }

    /// Dimensions in the file's order, innermost first.
    fn tensor(mut self, name: &[u8], dimensions: &[u64], type_id: u32, offset: u64) -> Raw {
        let mut info = string(name);
        info.extend((dimensions.len() as u32).to_le_bytes());
        info.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
        info.extend(type_id.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.tensors.push(info);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = (self.tensors.len() as u64, self.keys.len() as u64);
        let (tensors, keys) = self.counts.unwrap_or(counts);
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(self.keys.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 1);
        bytes
    }

    fn open(&self) -> Result<lathe_formats::Checkpoint, Error> {
        open(&self.bytes())
    }

    fn error(&self) -> Error {
        self.open().unwrap_err()
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

#[test]
fn the_sample_is_right() {
    let (bytes, _) = samples::gguf();
    samples::open_and_read(Format::Gguf, &bytes).unwrap();
    let raw = Raw::new().tensor(b"a", &[4, 2], 0, 0).tensor(b"b", &[8], 0, 32);
    let checkpoint = raw.open().unwrap();
    assert_eq!(checkpoint.tensor("a").unwrap().info().shape, [2, 4]);
}

#[test]
fn cut_anywhere_it_does_not_open() {
    let (bytes, data_end) = samples::gguf();
    for end in 0..data_end {
        assert!(open(&bytes[..end]).is_err(), "cut at {end} of {data_end}");
    }
    // The padding after the last tensor is not needed.
    open(&bytes[..data_end]).unwrap();
}

#[test]
fn truncation_names_the_field() {
    let (bytes, _) = samples::gguf();
    let message = |end: usize| open(&bytes[..end]).unwrap_err().to_string();
    assert_eq!(message(0), "m.gguf: the magic number needs 4 bytes at byte 0, but the file ends at byte 0");
    assert_eq!(message(10), "m.gguf: the number of tensors needs 8 bytes at byte 8, but the file ends at byte 10");
    assert!(open(&bytes[..10]).unwrap_err().hint().is_some());
}

#[test]
fn another_magic_version_or_byte_order() {
    let mut raw = Raw::new();
    raw.magic = *b"GGML";
    assert!(matches!(raw.error(), Error::UnknownFormat { .. }));
    for version in [0, 1, 4, 0x0001_0003] {
        let mut raw = Raw::new();
        raw.version = version;
        assert!(matches!(raw.error(), Error::UnsupportedVersion { version: v, .. } if v == version));
    }
    let mut raw = Raw::new();
    raw.version = 3u32.swap_bytes();
    assert!(matches!(raw.error(), Error::BigEndian { .. }));
    raw.version = 2;
    raw.open().unwrap();
}

#[test]
fn absurd_counts_and_lengths() {
    for count in [1u64 << 20, 1 << 40, 1 << 62, u64::MAX] {
        for counts in [(count, 0), (0, count), (count, count)] {
            let mut raw = Raw::new();
            raw.counts = Some(counts);
            assert!(matches!(raw.error(), Error::CountTooLarge { count: c, .. } if c == count));
        }
        let length = count.to_le_bytes();
        let raw = Raw::new().key(b"text", 8, &length);
        assert!(matches!(raw.error(), Error::Truncated { needs, .. } if needs == count));
        for item_type in (0..=12u32).filter(|&t| t != 9) {
            let array = [&item_type.to_le_bytes()[..], &length].concat();
            let raw = Raw::new().key(b"list", 9, &array);
            assert!(matches!(raw.error(), Error::CountTooLarge { count: c, .. } if c == count));
        }
        let raw = Raw::new().tensor(b"w", &[count, count], 0, 0);
        assert!(matches!(raw.error(), Error::BadShape { .. } | Error::OutOfFile { .. }));
        let raw = Raw::new().tensor(b"w", &[4], 0, count & !31);
        assert!(matches!(raw.error(), Error::OutOfFile { .. }));
    }
}

#[test]
fn a_bomb_of_nested_arrays() {
    let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let raw = Raw::new().key(b"bomb", 9, &level.repeat(100_000));
    assert!(matches!(raw.error(), Error::NestedTooDeep { .. }));
    let wide = [&9u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    let raw = Raw::new().key(b"bomb", 9, &wide);
    assert!(matches!(raw.error(), Error::CountTooLarge { .. }));
}

#[test]
fn unknown_value_types_and_bad_booleans() {
    let raw = Raw::new().key(b"k", 13, &[0; 8]);
    assert!(matches!(raw.error(), Error::UnknownValueType { id: 13, .. }));
    let array = [&77u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let raw = Raw::new().key(b"k", 9, &array);
    assert!(matches!(raw.error(), Error::UnknownValueType { id: 77, .. }));
    let raw = Raw::new().key(b"k", 7, &[2]);
    assert!(matches!(raw.error(), Error::BadBool { value: 2, .. }));
}

#[test]
fn text_that_is_not_utf8() {
    let raw = Raw::new().key(b"\xff", 0, &[1]);
    assert_eq!(raw.error().to_string(), "m.gguf: the name of metadata key 0 is not UTF-8");
    let raw = Raw::new().key(b"k", 8, &string(b"a\xff"));
    assert_eq!(raw.error().to_string(), "m.gguf: the value of metadata key \"k\" is not UTF-8");
    let raw = Raw::new().tensor(b"\xc3", &[1], 0, 0);
    assert_eq!(raw.error().to_string(), "m.gguf: the name of tensor 0 is not UTF-8");
}

#[test]
fn a_name_twice() {
    let raw = Raw::new().key(b"k", 0, &[1]).key(b"k", 0, &[1]);
    assert!(matches!(raw.error(), Error::DuplicateKey { key, .. } if key == "k"));
    let raw = Raw::new().tensor(b"w", &[4], 0, 0).tensor(b"w", &[4], 0, 32);
    assert!(matches!(raw.error(), Error::DuplicateTensor { tensor, .. } if tensor == "w"));
}

#[test]
fn alignments() {
    let key = |alignment: u32| Raw::new().key(b"general.alignment", 4, &alignment.to_le_bytes());
    for alignment in [0, 3, 48, u32::MAX, 1 << 31] {
        assert!(matches!(key(alignment).error(), Error::BadAlignment { .. }));
    }
    // Data at the next multiple of 64, not of 32.
    let raw = key(64).tensor(b"w", &[2], 0, 64);
    let checkpoint = raw.open().unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().bytes(), [1; 8]);
    let raw = key(64).tensor(b"w", &[2], 0, 32);
    assert!(matches!(raw.error(), Error::Misaligned { offset: 32, alignment: 64, .. }));
    let raw = Raw::new().key(b"general.alignment", 8, &string(b"32"));
    assert!(matches!(raw.error(), Error::WrongKeyType { .. }));
}

#[test]
fn shapes_and_types() {
    let raw = Raw::new().tensor(b"w", &[1; 5], 0, 0);
    assert!(matches!(raw.error(), Error::TooManyDimensions { dimensions: 5, .. }));
    let mut raw = Raw::new().tensor(b"w", &[1], 0, 0);
    let dimensions = string(b"w").len();
    raw.tensors[0][dimensions..dimensions + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(raw.error(), Error::TooManyDimensions { .. }));
    // Q4_0 rows of half a block; Q4_K rows of a block and a half, which would come out even in total.
    let raw = Raw::new().tensor(b"w", &[16, 2], 2, 0);
    assert!(matches!(raw.error(), Error::BadShape { .. }));
    let raw = Raw::new().tensor(b"w", &[384, 2], 12, 0);
    assert_eq!(raw.error().to_string(), "m.gguf: tensor \"w\" cannot have the shape [2, 384] in Q4_K");
    let raw = Raw::new().tensor(b"w", &[4], 4, 0);
    assert_eq!(raw.error().to_string(), "m.gguf: tensor \"w\" has the unknown element type 4 (removed from ggml)");
    let raw = Raw::new().tensor(b"w", &[4], 9_999, 0);
    assert!(matches!(raw.error(), Error::UnknownElement { element, .. } if element == "9999"));
}

#[test]
fn overlaps_and_ends() {
    let raw = Raw::new().tensor(b"a", &[9], 0, 0).tensor(b"b", &[8], 0, 32);
    assert_eq!(raw.error().to_string(), "m.gguf: tensors \"a\" and \"b\" overlap");
    let raw = Raw::new().tensor(b"a", &[8], 0, 32).tensor(b"b", &[16], 0, 0);
    assert!(matches!(raw.error(), Error::Overlap { first, second, .. } if first == "b" && second == "a"));
    // An empty tensor in between hides nothing.
    let raw = Raw::new().tensor(b"a", &[16], 0, 0).tensor(b"e", &[0], 0, 32).tensor(b"b", &[8], 0, 32);
    assert!(matches!(raw.error(), Error::Overlap { .. }));
    let raw = Raw::new().tensor(b"a", &[64], 0, 0);
    raw.open().unwrap();
    let raw = Raw::new().tensor(b"a", &[65], 0, 0);
    assert!(matches!(raw.error(), Error::OutOfFile { .. }));
    // Holes are allowed here, and any order: tensors come sorted by position.
    let raw = Raw::new().tensor(b"late", &[8], 0, 128).tensor(b"early", &[8], 0, 0);
    let checkpoint = raw.open().unwrap();
    let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["early", "late"]);
}

#[test]
fn tensors_that_hold_nothing() {
    let raw = Raw::new().tensor(b"rows", &[0, 5], 0, 0).tensor(b"none", &[32, 0], 2, 0);
    let checkpoint = raw.open().unwrap();
    let rows = checkpoint.tensor("rows").unwrap();
    assert_eq!((rows.info().elements(), rows.info().rows(), rows.info().row_len()), (0, 5, 0));
    rows.decode_rows(1..4, &mut []).unwrap();
    assert!(rows.to_f32().unwrap().is_empty());
    let none = checkpoint.tensor("none").unwrap();
    assert_eq!((none.info().bytes(), none.info().rows(), none.info().row_len()), (0, 0, 32));
    // Sizes whose product overflows are refused even beside a zero.
    let raw = Raw::new().tensor(b"w", &[0, 1 << 40, 1 << 40], 0, 0);
    assert!(matches!(raw.error(), Error::BadShape { .. }));
}

#[test]
fn rows_and_outputs_that_do_not_fit() {
    let checkpoint = Raw::new().tensor(b"w", &[4, 2], 0, 0).open().unwrap();
    let view = checkpoint.tensor("w").unwrap();
    let mut out = [0.0; 8];
    assert!(matches!(view.decode_rows(0..3, &mut out), Err(Error::RowsOutOfRange { .. })));
    let backwards = std::ops::Range { start: 2, end: 1 };
    assert!(matches!(view.decode_rows(backwards, &mut out), Err(Error::RowsOutOfRange { .. })));
    assert!(matches!(view.decode_rows(0..1, &mut out), Err(Error::OutputLength { needs: 4, got: 8, .. })));
}

#[test]
fn metadata_comes_back_in_order() {
    let (bytes, _) = samples::gguf();
    let checkpoint = open(&bytes).unwrap();
    assert_eq!(checkpoint.gguf().unwrap().entries(), samples::every_value());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aligned.gguf");
    let metadata = [("general.alignment".to_owned(), GgufValue::U32(256))];
    let tensors = [spec("a", &[3], ElementType::I8), spec("b", &[5], ElementType::I8)];
    samples::write_gguf(&path, &metadata, &tensors).unwrap();
    let checkpoint = lathe_formats::Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensor("b").unwrap().bytes(), samples::filler(&tensors[1], 1));
    assert_eq!(checkpoint.files()[0].bytes().len() % 256, 0);
}
