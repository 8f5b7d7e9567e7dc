//! Plain floats of one and two bytes.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::TooLarge;

/// `half` converts whole slices with the processor's own instruction where there is one; the copy is for alignment.
pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    const STEP: usize = 256;
    let mut aligned = [f16::ZERO; STEP];
    for (bytes, out) in bytes.chunks(2 * STEP).zip(out.chunks_mut(STEP)) {
        for (h, b) in aligned.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *h = f16::from_le_bytes(*b);
        }
        aligned[..out.len()].convert_to_f32_slice(out);
    }
}

/// Sign, 4 bits of exponent with bias 7, 3 bits of fraction; no infinities, and NaN only where all seven bits are set
/// (`float8_e4m3fn`).
pub(super) fn f8_e4m3(b: &[u8; 1], y: &mut [f32; 1]) {
    let (exponent, fraction) = (u32::from(b[0] >> 3 & 15), u32::from(b[0] & 7));
    let magnitude = match (exponent, fraction) {
        (15, 7) => f32::NAN,
        (0, _) => fraction as f32 / 512.0,
        _ => f32::from_bits((exponent + 127 - 7) << 23 | fraction << 20),
    };
    y[0] = if b[0] >> 7 == 1 { -magnitude } else { magnitude };
}

/// Sign, 5 bits of exponent, 2 bits of fraction: an f16 without its lower byte.
pub(super) fn f8_e5m2(b: &[u8; 1], y: &mut [f32; 1]) {
    y[0] = f16::from_le_bytes([0, b[0]]).to_f32();
}

pub(super) fn encode_f32(x: &[f32; 1], b: &mut [u8; 4]) -> Result<(), TooLarge> {
    *b = x[0].to_le_bytes();
    Ok(())
}

pub(super) fn encode_f16(x: &[f32; 1], b: &mut [u8; 2]) -> Result<(), TooLarge> {
    let stored = f16::from_f32(x[0]);
    *b = stored.to_le_bytes();
    if stored.is_infinite() && x[0].is_finite() { Err(TooLarge) } else { Ok(()) }
}

pub(super) fn encode_bf16(x: &[f32; 1], b: &mut [u8; 2]) -> Result<(), TooLarge> {
    let stored = bf16::from_f32(x[0]);
    *b = stored.to_le_bytes();
    if stored.is_infinite() && x[0].is_finite() { Err(TooLarge) } else { Ok(()) }
}
