//! Opens an adapter with an arbitrary `adapter_config.json` beside the factors of one module, and adds it to its base.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use lathe_merge::adapter::Adapter;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const FACTORS: &str = r#"{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight":{"dtype":"F32","shape":[4,2],"data_offsets":[32,64]}}"#;

fuzz_target!(|bytes: &[u8]| {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let numbers = (0..16u8).flat_map(|i| f32::from(i).to_le_bytes());
        let file = (FACTORS.len() as u64).to_le_bytes().into_iter().chain(FACTORS.bytes()).chain(numbers);
        fs::write(folder.path().join("adapter_model.safetensors"), file.collect::<Vec<u8>>()).expect("written");
        folder
    });
    fs::write(folder.path().join("adapter_config.json"), bytes).expect("written");
    let Ok(adapter) = Adapter::open(folder.path()) else { return };
    _ = adapter.settings();
    _ = adapter.products();
    let base = "model.layers.0.self_attn.q_proj.weight";
    if let Ok(claims) = adapter.claims([(base, &[4usize, 4][..])]) {
        _ = claims.add(base, 0..16, &mut [0.0; 16]);
    }
});
