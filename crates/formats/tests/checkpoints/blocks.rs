//! Decoding against the gguf package, ggml and torch (fixtures: `tests/data/make_blocks.py`), bit for bit, and against
//! the definitions of the plain types.

use lathe_formats::write::{self, TensorSpec};
use lathe_formats::{Checkpoint, ElementType};

use crate::samples::spec;

/// Fixtures of a folder of `tests/data`, by type.
macro_rules! fixtures {
    ($folder:literal: $($element:ident)*) => {
        [$((ElementType::$element, include_bytes!(concat!("../data/", $folder, "/", stringify!($element), ".bin")))),*]
    };
}
type Fixture = (ElementType, &'static [u8]);

const GOLDEN: [Fixture; 29] = fixtures!("blocks":
    F8_E4M3 F8_E5M2 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
    IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0
);

#[test]
fn blocks_decode_as_the_reference_does() {
    for (element, fixture) in GOLDEN {
        let (len, size) = (element.block_len(), element.block_bytes());
        let count = fixture.len() / (size + 4 * len);
        assert_eq!(count * (size + 4 * len), fixture.len(), "{element}");
        assert!(count >= 8, "{element}");
        let (blocks, expected) = fixture.split_at(count * size);

        // Rows of two blocks, so that rows and blocks are told apart.
        let checkpoint = one_tensor(&spec("w", &[count / 2, 2 * len], element), blocks);
        let values = checkpoint.tensor("w").unwrap().to_f32().unwrap();
        assert_eq!(values.len(), count * len);
        for (index, (value, bits)) in values.iter().zip(expected.as_chunks::<4>().0).enumerate() {
            let expected = f32::from_le_bytes(*bits);
            // Which of its many bit patterns a NaN has is nobody's definition; only the 8-bit floats have any here.
            let same = value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan());
            assert!(same, "{element}, number {index}: {value} for {expected}");
        }
    }
}

#[test]
fn every_quantised_type_is_readable_and_has_a_golden_fixture() {
    for element in ElementType::all().filter(|e| e.is_quantised()) {
        assert!(element.is_readable() && GOLDEN.iter().any(|(golden, _)| *golden == element), "{element}");
    }
}

/// Q8_1 has no decoder in ggml; this one is worked out by hand: d = 0.5, a sum that does not count, q = 3, -128, 0, …
#[test]
fn a_block_of_q8_1_by_hand() {
    let mut block = [0; 36];
    block[..4].copy_from_slice(&[0x00, 0x38, 0xff, 0x7f]);
    block[4..6].copy_from_slice(&[3, 0x80]);
    let values = one_tensor(&spec("w", &[32], ElementType::Q8_1), &block).tensor("w").unwrap().to_f32().unwrap();
    assert_eq!((&values[..3], values[31]), (&[1.5, -64.0, 0.0][..], 0.0));
}

#[test]
fn any_range_of_rows_is_a_part_of_the_whole() {
    for (element, fixture) in GOLDEN {
        let (len, size) = (element.block_len(), element.block_bytes());
        let checkpoint = one_tensor(&spec("w", &[2, 4, len], element), &fixture[..8 * size]);
        let view = checkpoint.tensor("w").unwrap();
        let whole = view.to_f32().unwrap();
        for rows in [0..0, 0..1, 3..7, 7..8, 8..8, 0..8] {
            let mut part = vec![f32::NAN; rows.len() * len];
            view.decode_rows(rows.clone(), &mut part).unwrap();
            assert_eq!(part, whole[rows.start * len..rows.end * len], "{element} {rows:?}");
        }
    }
}

/// IEEE 754: sign, 5 bits of exponent with bias 15, 10 bits of fraction.
#[test]
fn every_f16_is_its_definition() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let checkpoint = one_tensor(&spec("w", &[1 << 16], ElementType::F16), &bytes);
    let values = checkpoint.tensor("w").unwrap().to_f32().unwrap();
    for (bits, value) in values.into_iter().enumerate() {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let (exponent, fraction) = (bits >> 10 & 31, (bits & 1023) as f64);
        let expected = match exponent {
            0 => sign * fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => sign * f64::INFINITY,
            31 => {
                assert!(value.is_nan(), "{bits:04x}");
                continue;
            }
            _ => sign * (1024.0 + fraction) * 2f64.powi(exponent as i32 - 25),
        };
        assert_eq!(f64::from(value).to_bits(), expected.to_bits(), "{bits:04x}");
    }
}

#[test]
fn plain_numbers_become_the_nearest_f32() {
    assert_eq!(decode(ElementType::F32, &1.5f32.to_le_bytes()), 1.5);
    assert_eq!(decode(ElementType::F64, &0.1f64.to_le_bytes()), 0.1f32);
    assert_eq!(decode(ElementType::BF16, &[0x80, 0xbf]), -1.0);
    assert_eq!(decode(ElementType::BF16, &[0x01, 0x00]), f32::from_bits(0x1_0000));
    assert_eq!(decode(ElementType::I8, &[0x80]), -128.0);
    assert_eq!(decode(ElementType::U8, &[0x80]), 128.0);
    assert_eq!(decode(ElementType::I16, &(-300i16).to_le_bytes()), -300.0);
    assert_eq!(decode(ElementType::U16, &65_535u16.to_le_bytes()), 65_535.0);
    assert_eq!(decode(ElementType::I32, &16_777_217i32.to_le_bytes()), 16_777_216.0);
    assert_eq!(decode(ElementType::U32, &u32::MAX.to_le_bytes()), 4_294_967_296.0);
    assert_eq!(decode(ElementType::I64, &i64::MIN.to_le_bytes()), -9_223_372_036_854_775_808.0);
    assert_eq!(decode(ElementType::U64, &1u64.to_le_bytes()), 1.0);
    assert_eq!(decode(ElementType::Bool, &[1]), 1.0);
    assert_eq!(decode(ElementType::Bool, &[0]), 0.0);
}

fn decode(element: ElementType, bytes: &[u8]) -> f32 {
    let checkpoint = one_tensor(&spec("w", &[], element), bytes);
    checkpoint.tensor("w").unwrap().to_f32().unwrap()[0]
}

fn one_tensor(spec: &TensorSpec, bytes: &[u8]) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one");
    let specs = std::slice::from_ref(spec);
    let mut writer = if spec.element.is_quantised() {
        write::gguf(&path, &[], specs).unwrap()
    } else {
        write::safetensors(&path, &Default::default(), specs).unwrap()
    };
    writer.append(&spec.name, bytes).unwrap();
    writer.finish().unwrap();
    Checkpoint::open(&path).unwrap()
}
