//! Types whose 4-bit numbers are indices of sixteen unevenly spaced levels: IQ4_NL, IQ4_XS, MXFP4 and NVFP4.

use super::{part, scale};

/// The levels of IQ4_NL and IQ4_XS (`kvalues_iq4nl` of ggml), spaced for normally distributed weights.
const NORMAL: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Twice the values of a float with one sign, two exponent and one fraction bit (E2M1 of the OCP microscaling formats), as
/// in `kvalues_mxfp4` of ggml; the scales are halved for it. Both zeros are +0.
const E2M1_DOUBLED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// `f16 d | 16 bytes`, nibbles as in Q4_0. `y = d level`.
pub(super) fn iq4_nl(b: &[u8; 18], y: &mut [f32; 32]) {
    look_up(scale(b, 0), &NORMAL, part::<16>(b, 2), y);
}

/// `f16 d | u16 top 2 bits of eight scales | 4 bytes of their low nibbles | 128 bytes`; groups of 32, each with nibbles as in
/// Q4_0. `y = (d (scale - 32)) level`.
pub(super) fn iq4_xs(b: &[u8; 136], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    let highs = u16::from_le_bytes(*part(b, 2));
    let lows: &[u8; 4] = part(b, 4);
    let (y, _) = y.as_chunks_mut::<32>();
    for (g, y) in y.iter_mut().enumerate() {
        let high = (highs >> (2 * g)) as u8 & 3;
        let low = lows[g / 2] >> (4 * (g % 2)) & 15;
        let dl = d * f32::from((low | high << 4) as i8 - 32);
        look_up(dl, &NORMAL, part::<16>(b, 8 + 16 * g), y);
    }
}

/// `exponent byte e | 16 bytes`, nibbles as in Q4_0. `y = 2^(e - 127) value`.
pub(super) fn mxfp4(b: &[u8; 17], y: &mut [f32; 32]) {
    look_up(half_power(b[0]), &E2M1_DOUBLED, part::<16>(b, 1), y);
}

/// `4 scale bytes | 32 bytes`; groups of 16, whose 8 bytes hold numbers 0 to 7 in their low nibbles and 8 to 15 in the
/// high ones. `y = scale value`.
///
/// The f32 scale of the whole tensor, which NVFP4 has beside it, is a tensor of its own in a GGUF file.
pub(super) fn nvfp4(b: &[u8; 36], y: &mut [f32; 64]) {
    let (y, _) = y.as_chunks_mut::<16>();
    for (g, y) in y.iter_mut().enumerate() {
        look_up(half_e4m3(b[g]), &E2M1_DOUBLED, part::<8>(b, 4 + 8 * g), y);
    }
}

#[inline(always)]
fn look_up<const HALF: usize, const N: usize>(d: f32, levels: &[f32; 16], qs: &[u8; HALF], y: &mut [f32; N]) {
    for l in 0..HALF {
        y[l] = d * levels[usize::from(qs[l] & 15)];
        y[l + HALF] = d * levels[usize::from(qs[l] >> 4)];
    }
}

/// `2^(e - 128)`, half of what the byte stands for. The first two are subnormal. 255, which the microscaling formats keep
/// for NaN, is 2^127 as in ggml.
fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// Half of an E4M3 scale (bias 7). The sign bit is ignored, and 0x7f, the NaN of the format, is 0 as in ggml.
fn half_e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (byte >> 3 & 15, f32::from(byte & 7));
    match (exponent, byte) {
        (_, 0x7f) => 0.0,
        (0, _) => fraction * 2f32.powi(-10),
        _ => (1.0 + fraction / 8.0) * 2f32.powi(i32::from(exponent) - 8),
    }
}
