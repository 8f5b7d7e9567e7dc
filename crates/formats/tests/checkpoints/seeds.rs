//! The seeds of the fuzz targets (`fuzz/seeds`) are the sample files of these tests.

use std::fs;
use std::path::PathBuf;

use lathe_formats::Format;

use crate::samples;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds"))
}

#[test]
fn every_seed_opens() {
    for (format, name) in [(Format::Gguf, "gguf"), (Format::Safetensors, "safetensors")] {
        let mut count = 0;
        for entry in fs::read_dir(folder().join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if let Err(error) = samples::open_and_read(format, &bytes) {
                panic!("{}: {error}", path.display());
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

/// `cargo test -p lathe-formats -- --ignored write_the_seeds` after a change of the samples.
#[test]
#[ignore = "writes into fuzz/seeds"]
fn write_the_seeds() {
    for (name, file, bytes) in [
        ("gguf", "every_value.gguf", samples::gguf().0),
        ("gguf", "every_block.gguf", samples::blocks()),
        ("safetensors", "every_entry.safetensors", samples::safetensors()),
    ] {
        fs::create_dir_all(folder().join(name)).unwrap();
        fs::write(folder().join(name).join(file), bytes).unwrap();
    }
}
