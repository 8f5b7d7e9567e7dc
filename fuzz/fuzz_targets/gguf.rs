//! Opens arbitrary bytes as a gguf file and reads every tensor of the files that open.
#![no_main]

use lathe_formats::{Checkpoint, Format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzzed.gguf", Format::Gguf, bytes.to_vec()) else {
        return;
    };
    for view in checkpoint.views() {
        let info = view.info();
        assert_eq!(view.bytes().len(), info.bytes());
        assert_eq!(info.rows() * info.row_len(), info.elements());
        if info.element.is_readable() {
            let values = view.to_f32().expect("readable types decode");
            assert_eq!(values.len(), info.elements());
        }
    }
});
