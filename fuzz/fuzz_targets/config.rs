//! Opens the weights of a tiny Llama beside an arbitrary `config.json`; a model that opens reads a token.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use lathe_formats::{Checkpoint, Format};
use lathe_model::{Batch, NoTap, Weights, open_checkpoint};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const WEIGHTS: &[u8] = include_bytes!("../../tests/fixtures/parity/llama/model.safetensors");

fuzz_target!(|bytes: &[u8]| {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
    fs::write(folder.join("config.json"), bytes).expect("written");
    let weights = folder.join("model.safetensors");
    let checkpoint = Checkpoint::from_bytes(&weights, Format::Safetensors, WEIGHTS.to_vec()).expect("the fixture");
    let Ok(opened) = open_checkpoint(folder, checkpoint) else { return };
    if let Ok(decoder) = opened.decoder(Weights::Frozen) {
        _ = decoder.forward(&Batch::single(&[0, 1]), None, &mut NoTap);
    }
});
