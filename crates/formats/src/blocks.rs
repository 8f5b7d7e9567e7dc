//! Blocks: stored bytes to f32 and back, one function per element type.
//!
//! A block type keeps `block_len` neighbours of a row as small integers `q` with one scale `d` (and, where the type
//! has one, one minimum `m`) per block; larger types divide their numbers further, into groups with integer scales of
//! their own. Layouts are those of ggml's block structs (`ggml-common.h`); the arithmetic keeps ggml's order of
//! operations, so the results are the reference's to the last bit, in both directions. Every loop runs over arrays of
//! fixed size, which is what lets the compiler drop the bounds checks and use vector instructions.

mod grid;
mod k;
mod k_encode;
mod legacy;
mod levels;
mod plain;
mod ternary;

use half::f16;

use crate::element::ElementType;

/// Decodes whole blocks. `bytes` and `out` must hold the same number of blocks, and the type must be readable
/// ([`ElementType::is_readable`]): both are checked by the caller, [`crate::TensorView::decode_rows`].
pub(crate) fn decode(element: ElementType, bytes: &[u8], out: &mut [f32]) {
    use ElementType as E;
    debug_assert_eq!(bytes.len() / element.block_bytes(), out.len() / element.block_len(), "{element}");
    match element {
        E::F32 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b)),
        E::F64 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f64::from_le_bytes(*b) as f32),
        E::F16 => plain::f16(bytes, out),
        E::BF16 => each(bytes, out, |b, y: &mut [f32; 1]| {
            y[0] = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
        }),
        E::F8_E4M3 => each(bytes, out, plain::f8_e4m3),
        E::F8_E5M2 => each(bytes, out, plain::f8_e5m2),
        E::I8 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from(i8::from_le_bytes(*b))),
        E::I16 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from(i16::from_le_bytes(*b))),
        E::I32 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = i32::from_le_bytes(*b) as f32),
        E::I64 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = i64::from_le_bytes(*b) as f32),
        E::U8 => each(bytes, out, |b: &[u8; 1], y: &mut [f32; 1]| y[0] = f32::from(b[0])),
        E::U16 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from(u16::from_le_bytes(*b))),
        E::U32 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = u32::from_le_bytes(*b) as f32),
        E::U64 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = u64::from_le_bytes(*b) as f32),
        E::Bool => each(bytes, out, |b: &[u8; 1], y: &mut [f32; 1]| y[0] = f32::from(u8::from(b[0] != 0))),
        E::Q4_0 => each(bytes, out, legacy::q4_0),
        E::Q4_1 => each(bytes, out, legacy::q4_1),
        E::Q5_0 => each(bytes, out, legacy::q5_0),
        E::Q5_1 => each(bytes, out, legacy::q5_1),
        E::Q8_0 => each(bytes, out, legacy::q8_0),
        E::Q8_1 => each(bytes, out, legacy::q8_1),
        E::Q2_K => each(bytes, out, k::q2_k),
        E::Q3_K => each(bytes, out, k::q3_k),
        E::Q4_K => each(bytes, out, k::q4_k),
        E::Q5_K => each(bytes, out, k::q5_k),
        E::Q6_K => each(bytes, out, k::q6_k),
        E::Q8_K => each(bytes, out, k::q8_k),
        E::IQ1_S => each(bytes, out, grid::iq1_s),
        E::IQ1_M => each(bytes, out, grid::iq1_m),
        E::IQ2_XXS => each(bytes, out, grid::iq2_xxs),
        E::IQ2_XS => each(bytes, out, grid::iq2_xs),
        E::IQ2_S => each(bytes, out, grid::iq2_s),
        E::IQ3_XXS => each(bytes, out, grid::iq3_xxs),
        E::IQ3_S => each(bytes, out, grid::iq3_s),
        E::IQ4_NL => each(bytes, out, levels::iq4_nl),
        E::IQ4_XS => each(bytes, out, levels::iq4_xs),
        E::TQ1_0 => each(bytes, out, ternary::tq1_0),
        E::TQ2_0 => each(bytes, out, ternary::tq2_0),
        E::MXFP4 => each(bytes, out, levels::mxfp4),
        E::NVFP4 => each(bytes, out, levels::nvfp4),
        E::Q1_0 => each(bytes, out, ternary::q1_0),
        E::Q2_0 => each(bytes, out, ternary::q2_0),
        E::C64 | E::F8_E8M0 | E::F6_E2M3 | E::F6_E3M2 | E::F4 => unreachable!("decode_rows refuses {element}"),
    }
}

/// Appends the numbers to `out` as whole blocks. The caller, [`crate::encode_rows`], has checked that they are finite
/// where the type is quantised, that they fill their blocks, and that the type is writable
/// ([`ElementType::is_writable`]).
///
/// # Errors
/// The index of the block (of the number, for a plain type) that is too large for the type. `out` has grown by then.
pub(crate) fn encode(element: ElementType, values: &[f32], out: &mut Vec<u8>) -> Result<(), usize> {
    use ElementType as E;
    debug_assert!(values.len().is_multiple_of(element.block_len()), "{element}");
    match element {
        E::F32 => each_back(values, out, plain::encode_f32),
        E::F16 => each_back(values, out, plain::encode_f16),
        E::BF16 => each_back(values, out, plain::encode_bf16),
        E::Q4_0 => each_back(values, out, legacy::encode_q4_0),
        E::Q4_1 => each_back(values, out, legacy::encode_q4_1),
        E::Q5_0 => each_back(values, out, legacy::encode_q5_0),
        E::Q5_1 => each_back(values, out, legacy::encode_q5_1),
        E::Q8_0 => each_back(values, out, legacy::encode_q8_0),
        E::Q4_K => each_back(values, out, k_encode::q4_k),
        E::Q5_K => each_back(values, out, k_encode::q5_k),
        E::Q6_K => each_back(values, out, k_encode::q6_k),
        _ => unreachable!("encode_rows refuses {element}"),
    }
}

/// A block holds a number that its type cannot: the scale is beyond the f16 that stores it.
struct TooLarge;

/// Runs `block` over every block: `B` bytes to `N` numbers.
#[inline(always)]
fn each<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], block: impl Fn(&[u8; B], &mut [f32; N])) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (numbers, _) = out.as_chunks_mut::<N>();
    for (b, y) in blocks.iter().zip(numbers) {
        block(b, y);
    }
}

/// Runs `block` over every block: `N` numbers to `B` bytes. Fails with the index of the block that failed.
#[inline(always)]
fn each_back<const B: usize, const N: usize>(
    values: &[f32],
    out: &mut Vec<u8>,
    block: impl Fn(&[f32; N], &mut [u8; B]) -> Result<(), TooLarge>,
) -> Result<(), usize> {
    let (numbers, _) = values.as_chunks::<N>();
    let begin = out.len();
    out.resize(begin + numbers.len() * B, 0);
    let (blocks, _) = out[begin..].as_chunks_mut::<B>();
    for (index, (x, b)) in numbers.iter().zip(blocks).enumerate() {
        block(x, b).map_err(|TooLarge| index)?;
    }
    Ok(())
}

/// `M` bytes of a block from a place that is known to lie within it.
#[inline(always)]
fn part<const M: usize>(block: &[u8], at: usize) -> &[u8; M] {
    match block[at..].first_chunk() {
        Some(part) => part,
        None => unreachable!("a block layout reaches past its block"),
    }
}

/// The f16 at a byte of a block, as f32.
#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes(*part(block, at)).to_f32()
}

/// The nearest f16, as stored.
fn stored_scale(scale: f32) -> Result<[u8; 2], TooLarge> {
    let stored = f16::from_f32(scale);
    if stored.is_finite() { Ok(stored.to_le_bytes()) } else { Err(TooLarge) }
}
