#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Files that pyarrow has written, in every way that we read: name of the rows, then of each file with them.
const WRITTEN: [(&str, &[&str]); 2] = [
    ("flat", &["flat_snappy", "flat_gzip", "flat_plain", "flat_delta", "flat_pages"]),
    ("nested", &["nested_snappy", "nested_gzip", "nested_old", "nested_pages"]),
];

/// Files of which every byte is damaged: both versions of pages, both codecs, most encodings, flat and nested.
const DAMAGED: [&str; 4] = ["flat_snappy", "flat_delta", "nested_gzip", "nested_pages"];

fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/parquet")).join(name)
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(data(&format!("{name}.parquet"))).unwrap()
}

#[test]
fn rows_are_those_that_another_program_has_written() {
    for (rows_name, names) in WRITTEN {
        let expected = crate::records::read_records(&data(&format!("{rows_name}.jsonl"))).unwrap();
        for name in names {
            let found = rows(&file(name)).unwrap();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found, expected, "{name}, row {}", number + 1);
                assert!(found.keys().eq(expected.keys()), "{name}: the columns keep their order");
            }
        }
    }
}

#[test]
fn what_is_not_read_is_named() {
    let problem = |name: &str| rows(&file(name)).unwrap_err().0;
    assert_eq!(
        problem("zstd"),
        "row group 1: column `split`: it is packed with Zstandard; only Snappy and gzip are read"
    );
    assert_eq!(problem("decimal"), "column `price`: decimal numbers are not read");
    assert_eq!(problem("binary"), "row group 1: column `image`: a value is not text in UTF-8");
    assert_eq!(problem("not_a_number"), "row group 1: column `score`: NaN has no form in JSON");
    assert_eq!(rows(b"").unwrap_err().0, "it does not begin as Parquet files do");
    assert!(rows(b"PAR1").unwrap_err().0.contains("cut off"));
    assert_eq!(rows(b"PAR1\xff\xff\xff\xffPAR1").unwrap_err().0, "its header is longer than the file");
    assert_eq!(rows(b"PAR1 and PARE").unwrap_err().0, "it is encrypted");
}

/// A file that was cut off anywhere lacks its end, which says so.
#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    for name in DAMAGED {
        let whole = file(name);
        for end in 0..whole.len() {
            assert!(rows(&whole[..end]).is_err(), "{name}, cut after {end} bytes");
        }
        // The end is there, and something before it is missing.
        for start in 4..whole.len() - 8 {
            let _ = rows(&[&whole[..4], &whole[start + 1..]].concat());
        }
    }
}

/// No changed byte makes the reader panic; some can't be told from good ones.
#[test]
fn a_changed_byte_is_an_error_or_another_value() {
    for name in DAMAGED {
        let whole = file(name);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= [0xff, 0x01, 0x80][at % 3];
            let _ = rows(&changed);
        }
    }
}

/// A page that claims to unpack to more than its codec can make of it is not believed.
#[test]
fn memory_is_bounded_by_the_file() {
    let mut budget = Budget::of(100);
    assert!(budget.spend(10, 11).is_err());
    assert!(budget.spend(usize::MAX, 2).is_err());
    assert!(budget.spend(10, 10).is_ok());
    assert!(budget.spend(1, 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Several changes at once reach what single ones don't.
    #[test]
    fn no_damage_panics(
        which in 0..9usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        from_end in any::<bool>(),
    ) {
        let names: Vec<&str> = WRITTEN.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut bytes = file(names[which]);
        let length = bytes.len();
        // Half of the damage goes to the header at the end.
        let header = u32::from_le_bytes(bytes[length - 8..length - 4].try_into().unwrap()) as usize;
        for (index, value) in changes {
            let at = if from_end { length - 8 - header + index.index(header) } else { index.index(length) };
            bytes[at] = value;
        }
        let _ = rows(&bytes);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let length = u32::try_from(bytes.len()).unwrap();
        let _ = rows(&[&MAGIC[..], &bytes, &length.to_le_bytes(), MAGIC].concat());
        let _ = rows(&bytes);
    }
}
