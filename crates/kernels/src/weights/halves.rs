//! 16-bit floats in the bytes of a file, and back.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{by_count, cut, known};
use crate::isa::dispatch;

dispatch! {
    /// bf16 in little-endian bytes to f32; says whether every number is finite. Lengths are those of the shorter.
    pub fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) -> bool {
        let (halves, _) = bytes.as_chunks::<2>();
        let mut finite = true;
        for (out, half) in out.iter_mut().zip(halves) {
            let bits = u32::from(u16::from_le_bytes(*half));
            finite &= bits & 0x7f80 != 0x7f80;
            *out = f32::from_bits(bits << 16);
        }
        finite
    }
}

dispatch! {
    /// f32 to the nearest bf16, ties to even, in little-endian bytes; says whether every stored number is finite. NaN
    /// stays NaN; what is beyond the largest bf16 becomes infinite.
    pub fn f32_to_bf16(values: &[f32], bytes: &mut [u8]) -> bool {
        let (halves, _) = bytes.as_chunks_mut::<2>();
        let mut finite = true;
        for (half, value) in halves.iter_mut().zip(values) {
            let kept = nearest_bf16(*value);
            finite &= kept & 0x7f80 != 0x7f80;
            *half = (kept as u16).to_le_bytes();
        }
        finite
    }
}

/// The bits of the nearest bf16, ties to even.
#[inline(always)]
fn nearest_bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    // The quiet bit keeps a NaN whose payload is in the lost half.
    if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

dispatch! {
    /// [`bf16_to_f32`], [`sum`](super::sum()) and [`f32_to_bf16`] in one pass, with the same bits; says whether every
    /// number read and stored is finite. In and out are bf16 in little-endian bytes of one length.
    pub fn sum_bf16(inputs: &[&[u8]], coefficients: &[f64], out: &mut [u8]) -> bool {
        by_count!(
            inputs.len(),
            N => sum_bf16_of(&cut::<_, N>(inputs, out.len()), &known::<N>(coefficients), out),
            sum_bf16_of(inputs, coefficients, out),
        )
    }
}

#[inline(always)]
fn sum_bf16_of(inputs: &[&[u8]], coefficients: &[f64], out: &mut [u8]) -> bool {
    let mut finite = true;
    for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let mut sum = 0.0;
        for (x, weight) in inputs.iter().zip(coefficients) {
            let bits = u32::from(u16::from_le_bytes([x[2 * i], x[2 * i + 1]]));
            finite &= bits & 0x7f80 != 0x7f80;
            sum = f64::from(f32::from_bits(bits << 16)).mul_add(*weight, sum);
        }
        let kept = nearest_bf16(sum as f32);
        finite &= kept & 0x7f80 != 0x7f80;
        *out = (kept as u16).to_le_bytes();
    }
    finite
}

/// Values that are converted at once: `half` uses the processor's instruction on slices of its own type.
const STEP: usize = 256;

/// f16 in little-endian bytes to f32; says whether every number is finite. Lengths are those of the shorter.
pub fn f16_to_f32(bytes: &[u8], out: &mut [f32]) -> bool {
    let mut aligned = [f16::ZERO; STEP];
    let mut finite = true;
    for (bytes, out) in bytes.chunks(2 * STEP).zip(out.chunks_mut(STEP)) {
        for (half, bytes) in aligned.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*bytes);
            finite &= half.to_bits() & 0x7c00 != 0x7c00;
        }
        let len = out.len().min(bytes.len() / 2);
        aligned[..len].convert_to_f32_slice(&mut out[..len]);
    }
    finite
}

/// f32 to the nearest f16, ties to even, in little-endian bytes; says whether every stored number is finite. NaN stays
/// NaN; what is beyond the largest f16 becomes infinite.
pub fn f32_to_f16(values: &[f32], bytes: &mut [u8]) -> bool {
    let mut aligned = [f16::ZERO; STEP];
    let mut finite = true;
    for (values, bytes) in values.chunks(STEP).zip(bytes.chunks_mut(2 * STEP)) {
        let aligned = &mut aligned[..values.len()];
        aligned.convert_from_f32_slice(values);
        for (half, bytes) in aligned.iter().zip(bytes.as_chunks_mut::<2>().0) {
            finite &= half.to_bits() & 0x7c00 != 0x7c00;
            *bytes = half.to_le_bytes();
        }
    }
    finite
}

dispatch! {
    /// Whether no value is infinite or NaN.
    pub fn all_finite(values: &[f32]) -> bool {
        // A fold without an early end vectorises.
        values.iter().fold(true, |all, value| all & value.is_finite())
    }
}
