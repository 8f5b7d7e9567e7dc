//! Encoding: ggml's bytes (fixtures: `tests/data/make_blocks.py`), bounds of the error, and numbers that do not fit.

use lathe_formats::{Checkpoint, ElementType, EncodeError, Format, encode_rows, write};
use proptest::prelude::*;

use crate::samples::{self, spec};

use ElementType as E;

/// The writable types that are quantised.
const QUANTISED: [E; 8] = [E::Q4_0, E::Q4_1, E::Q5_0, E::Q5_1, E::Q8_0, E::Q4_K, E::Q5_K, E::Q6_K];

#[test]
fn bytes_are_those_of_ggml() {
    let rows: Vec<f32> =
        include_bytes!("../data/encoded/rows.bin").as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let golden: [(E, &[u8]); 8] = [
        (E::Q4_0, include_bytes!("../data/encoded/Q4_0.bin")),
        (E::Q4_1, include_bytes!("../data/encoded/Q4_1.bin")),
        (E::Q5_0, include_bytes!("../data/encoded/Q5_0.bin")),
        (E::Q5_1, include_bytes!("../data/encoded/Q5_1.bin")),
        (E::Q8_0, include_bytes!("../data/encoded/Q8_0.bin")),
        (E::Q4_K, include_bytes!("../data/encoded/Q4_K.bin")),
        (E::Q5_K, include_bytes!("../data/encoded/Q5_K.bin")),
        (E::Q6_K, include_bytes!("../data/encoded/Q6_K.bin")),
    ];
    assert_eq!(golden.map(|(element, _)| element), QUANTISED);
    for (element, expected) in golden {
        let bytes = encode(element, &rows);
        assert_eq!(bytes.len(), expected.len(), "{element}");
        let block_bytes = element.block_bytes();
        for (block, (found, expected)) in bytes.chunks(block_bytes).zip(expected.chunks(block_bytes)).enumerate() {
            assert_eq!(found, expected, "{element}, block {block}, row {}", block * element.block_len() / 256);
        }
    }
}

/// Q8_0 by hand: 2.54 becomes 127 steps of 0.02; -0.01 is half a step, rounded away from zero. Q4_0: -4 becomes eight steps
/// of 0.5 below zero, level 0.
#[test]
fn blocks_by_hand() {
    let mut x = [0.0; 32];
    x[..3].copy_from_slice(&[254.0, -1.0, 3.0]);
    let bytes = encode(E::Q8_0, &x);
    assert_eq!(bytes[..6], [0x00, 0x40, 127, 255, 2, 0]);

    let mut x = [0.0; 32];
    (x[0], x[1], x[16]) = (-4.0, 3.6, 1.2);
    let bytes = encode(E::Q4_0, &x);
    // 3.6 is level 15, the last one; 1.2 is 2.4 steps, level 10; zero is level 8.
    assert_eq!(bytes[..5], [0x00, 0x38, 0xa0, 0x8f, 0x88]);
}

#[test]
fn writable_types_are_what_encoding_takes() {
    for element in E::all() {
        let result = encode_rows(element, 256, &[0.5; 256], &mut Vec::new());
        assert_eq!(result.is_ok(), element.is_writable(), "{element}");
        if !element.is_writable() {
            assert_eq!(result, Err(EncodeError::NotWritable { element }));
        }
        assert!(element.is_readable() || !element.is_writable(), "{element}");
    }
}

#[test]
fn zeros_and_constants() {
    for element in QUANTISED {
        assert!(round_trip(element, &[0.0; 256]).iter().all(|&y| y == 0.0), "{element}");
        assert!(round_trip(element, &[-0.0; 256]).iter().all(|&y| y == 0.0), "{element}");
        for constant in [1.0f32, -1.0, 0.37, -1234.5] {
            for y in round_trip(element, &[constant; 256]) {
                // Every type has a level at the extreme; f16 scales and 6-bit minima cost less than 2^-10.
                assert!((y - constant).abs() <= constant.abs() / 1024.0, "{element} {constant} {y}");
            }
        }
    }
}

#[test]
fn magnitudes_at_the_limits_of_f16_scales() {
    // The largest magnitudes: scale times level at the f16 limit.
    for (element, fits, not) in [
        (E::F16, 65_504.0, 65_520.0),
        (E::BF16, 3.38e38, f32::MAX),
        (E::Q8_0, 8.3e6, 8.4e6),
        (E::Q4_0, 5.2e5, 5.3e5),
        (E::Q5_0, 1.04e6, 1.05e6),
        (E::Q4_1, 6.5e4, 6.6e4),
        (E::Q5_1, 6.5e4, 6.6e4),
        (E::Q4_K, 4.1e6, 4.2e6),
        (E::Q5_K, 4.1e6, 4.2e6),
        (E::Q6_K, 2.6e8, 2.8e8),
    ] {
        // Alone and negative, so that types with a minimum need it.
        let mut x = [0.0; 256];
        x[40] = -fits;
        let y = round_trip(element, &x);
        assert!((y[40] + fits).abs() < fits / 30.0, "{element}: {} for -{fits}", y[40]);
        for large in [-not, -1e9f32.max(not), f32::MIN] {
            let mut kept = vec![7];
            x[40] = large;
            let refused = encode_rows(element, 256, &x, &mut kept);
            assert_eq!(refused, Err(EncodeError::TooLarge { element, index: 40, value: large }));
            assert_eq!(kept, [7]);
        }
    }
    // Far below the smallest f16 everything is zero.
    for element in QUANTISED {
        for tiny in [1e-9f32, 1e-14, 1e-20, 1e-38, f32::from_bits(1)] {
            let x: Vec<f32> = (0..256).map(|i| tiny * (i as f32 - 100.0) / 156.0).collect();
            assert!(round_trip(element, &x).iter().all(|&y| y == 0.0), "{element} {tiny}");
        }
    }
}

#[test]
fn infinities_and_nan() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = [1.0; 512];
        x[300] = bad;
        for element in QUANTISED {
            let error = encode_rows(element, 256, &x, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, EncodeError::NotFinite { index: 300, .. }), "{element}");
        }
        for element in [E::F32, E::F16, E::BF16] {
            let y = round_trip(element, &x);
            assert!(y[300] == bad || (y[300].is_nan() && bad.is_nan()), "{element}");
        }
    }
}

#[test]
fn rows_are_whole() {
    let encode = |row_len, count| encode_rows(E::Q4_K, row_len, &vec![0.0; count], &mut Vec::new());
    assert_eq!(encode(512, 1024), Ok(()));
    assert_eq!(encode(256, 0), Ok(()));
    assert_eq!(encode(0, 0), Ok(()));
    assert_eq!(encode(0, 256), Err(EncodeError::PartialRow { row_len: 0, got: 256 }));
    assert_eq!(encode(512, 256), Err(EncodeError::PartialRow { row_len: 512, got: 256 }));
    let error = encode(320, 320).unwrap_err();
    assert_eq!(error.to_string(), "rows of 320 numbers are no whole number of Q4_K blocks of 256");
}

proptest! {
    #[test]
    fn errors_are_bounded(x in block()) {
        let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        for element in QUANTISED {
            let y = round_trip(element, &x);
            for (part, stored) in x.chunks(element.block_len()).zip(y.chunks(element.block_len())) {
                let bound = bound(element, part);
                for (x, y) in part.iter().zip(stored) {
                    prop_assert!((x - y).abs() <= bound, "{element}: {y} for {x}, allowed {bound}, of {most}");
                }
            }
        }
    }

    #[test]
    fn decoded_blocks_encode_to_the_same_values(x in block()) {
        for element in [E::Q8_0, E::Q4_0, E::Q5_0, E::F32, E::F16, E::BF16] {
            let y = round_trip(element, &x);
            prop_assert_eq!(round_trip(element, &y), y, "{}", element);
        }
    }

    #[test]
    fn rows_do_not_know_each_other(x in block(), y in block()) {
        for element in QUANTISED {
            let joined = encode(element, &[&x[..], &y[..]].concat());
            prop_assert_eq!(joined, [encode(element, &x), encode(element, &y)].concat(), "{}", element);
        }
    }

    /// Any bits at all: an answer or an error, and never a stored number that is not finite.
    #[test]
    fn arbitrary_bits_never_become_garbage(
        bits in prop::collection::vec(any::<u32>(), 256),
        largest_exponent in 0u32..256,
    ) {
        let capped = |bits: u32| bits & !(255 << 23) | (bits >> 23 & 255).min(largest_exponent) << 23;
        let x: Vec<f32> = bits.into_iter().map(|bits| f32::from_bits(capped(bits))).collect();
        for element in QUANTISED {
            let mut bytes = Vec::new();
            if encode_rows(element, 256, &x, &mut bytes).is_ok() {
                prop_assert!(decode(element, &bytes).iter().all(|y| y.is_finite()), "{}", element);
            }
        }
    }
}

/// What a number may be off by: half a step of the block's range, and what its f16 scales are off by.
fn bound(element: E, x: &[f32]) -> f32 {
    let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let low = x.iter().fold(f32::INFINITY, |low, v| low.min(*v));
    let high = x.iter().fold(f32::NEG_INFINITY, |high, v| high.max(*v));
    let range = high.max(0.0) - low.min(0.0);
    // Scale and minimum off by 2^-11 of themselves, or by 2^-25 where f16 is subnormal, times the largest level.
    let rounding = |levels: f32| (most + range) / 1024.0 + levels * 2f32.powi(-24);
    match element {
        E::Q8_0 => 0.5 * most / 127.0 + rounding(127.0),
        // The side away from the largest number ends one step early.
        E::Q4_0 => most / 8.0 + rounding(8.0),
        E::Q5_0 => most / 16.0 + rounding(16.0),
        E::Q4_1 => 0.5 * (high - low) / 15.0 + rounding(15.0),
        E::Q5_1 => 0.5 * (high - low) / 31.0 + rounding(31.0),
        // The search minimises a sum and may let single numbers be off by some steps.
        E::Q4_K => 2.0 * range / 15.0 + rounding(63.0 * 15.0),
        E::Q5_K => 2.0 * range / 31.0 + rounding(63.0 * 31.0),
        E::Q6_K => 2.0 * most / 32.0 + rounding(127.0 * 32.0),
        other => unreachable!("{other}"),
    }
}

/// 256 numbers: of one magnitude, of many, with few values, with zeros.
fn block() -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![
        4 => -1.0f32..1.0,
        1 => Just(0.0f32),
        1 => (-3i8..=3).prop_map(|n| f32::from(n) / 2.0),
        1 => (-6i32..1, any::<bool>()).prop_map(|(power, up)| if up { 10f32.powi(power) } else { -10f32.powi(power) }),
    ];
    let shift = prop_oneof![3 => Just(0.0f32), 1 => -2.0f32..2.0];
    let magnitude = (-8i32..5).prop_map(|power| 10f32.powi(power));
    (prop::collection::vec(number, 256), shift, magnitude)
        .prop_map(|(numbers, shift, magnitude)| numbers.into_iter().map(|x| (x + shift) * magnitude).collect())
}

fn round_trip(element: E, values: &[f32]) -> Vec<f32> {
    decode(element, &encode(element, values))
}

fn encode(element: E, values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_rows(element, values.len(), values, &mut bytes).unwrap();
    bytes
}

fn decode(element: E, bytes: &[u8]) -> Vec<f32> {
    let elements = bytes.len() / element.block_bytes() * element.block_len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.gguf");
    let mut writer = write::gguf(&path, &[], &[spec("w", &[elements], element)]).unwrap();
    writer.append("w", bytes).unwrap();
    writer.finish().unwrap();
    let checkpoint: Checkpoint = samples::open(Format::Gguf, &std::fs::read(&path).unwrap()).unwrap();
    checkpoint.tensor("w").unwrap().to_f32().unwrap()
}
