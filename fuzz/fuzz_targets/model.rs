//! Opens arbitrary bytes as a GGUF model: specification, tokenizer, template; a model that opens reads a token.
#![no_main]

use std::path::Path;

use lathe_formats::{Checkpoint, Format};
use lathe_model::{Batch, NoTap, Weights, open_checkpoint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzzed.gguf", Format::Gguf, bytes.to_vec()) else { return };
    let Ok(opened) = open_checkpoint(Path::new("fuzzed.gguf"), checkpoint) else { return };
    _ = opened.tokenizer();
    _ = opened.chat_template();
    if let Ok(decoder) = opened.decoder(Weights::Frozen) {
        _ = decoder.forward(&Batch::single(&[0]), None, &mut NoTap);
    }
});
