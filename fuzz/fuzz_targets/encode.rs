//! Encodes arbitrary numbers as every type that is written; what is stored has to be numbers again.
#![no_main]

use lathe_formats::{ElementType, encode_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let numbers = bytes.as_chunks::<4>().0;
    let mut row: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
    row.resize(row.len().next_multiple_of(256), 0.0);
    for element in ElementType::all().filter(|element| element.is_writable()) {
        let mut stored = Vec::new();
        if encode_rows(element, row.len(), &row, &mut stored).is_ok() {
            assert_eq!(stored.len(), row.len() / element.block_len() * element.block_bytes());
        } else {
            assert!(stored.is_empty());
        }
    }
});
