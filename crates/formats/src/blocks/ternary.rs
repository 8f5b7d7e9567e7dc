//! Types of one to two bits a number with levels in even steps: TQ1_0, TQ2_0, Q1_0 and Q2_0.

use super::{part, scale};

/// `48 bytes of five digits | 4 bytes of four digits | f16 d`. `y = d (digit - 1)`.
///
/// A byte is a fraction of 256 in base 3: the n-th digit is the whole part of three times what the byte times 3^n leaves.
/// The first 32 bytes hold numbers 0 to 159, their first digits first; the next 16 hold 160 to 239; the last four 240 to 255.
pub(super) fn tq1_0(b: &[u8; 54], y: &mut [f32; 256]) {
    let d = scale(b, 52);
    let (first, rest) = y.split_at_mut(160);
    let (second, last) = rest.split_at_mut(80);
    digits::<32>(d, part(b, 0), first);
    digits::<16>(d, part(b, 32), second);
    digits::<4>(d, part(b, 48), last);
}

/// As many digits of each byte as `y` has room for.
#[inline(always)]
fn digits<const N: usize>(d: f32, bytes: &[u8; N], y: &mut [f32]) {
    let mut left = *bytes;
    for y in y.as_chunks_mut::<N>().0 {
        for l in 0..N {
            let digit = (u16::from(left[l]) * 3) >> 8;
            y[l] = d * f32::from(digit as i8 - 1);
            left[l] = left[l].wrapping_mul(3);
        }
    }
}

/// `64 bytes of 2-bit numbers | f16 d`: each half of the block has 32 bytes; bits 0 and 1 of these are its first 32 numbers,
/// bits 2 and 3 the next 32, and so on. `y = d (q - 1)`.
pub(super) fn tq2_0(b: &[u8; 66], y: &mut [f32; 256]) {
    let d = scale(b, 64);
    let (y, _) = y.as_chunks_mut::<32>();
    for (g, y) in y.iter_mut().enumerate() {
        let qs: &[u8; 32] = part(b, 32 * (g / 4));
        for l in 0..32 {
            y[l] = d * f32::from((qs[l] >> (2 * (g % 4)) & 3) as i8 - 1);
        }
    }
}

/// `f16 d | 16 bytes`: number `i` is bit `i`, from the lowest bit of the first byte. `y = d` where it is set, else `-d`.
pub(super) fn q1_0(b: &[u8; 18], y: &mut [f32; 128]) {
    let d = scale(b, 0);
    let bits: &[u8; 16] = part(b, 2);
    for (y, byte) in y.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        for (l, y) in y.iter_mut().enumerate() {
            *y = if byte >> l & 1 == 1 { d } else { -d };
        }
    }
}

/// `f16 d | 16 bytes`: four 2-bit numbers a byte, in order, from the lowest bits. `y = d (q - 1)`.
pub(super) fn q2_0(b: &[u8; 18], y: &mut [f32; 64]) {
    let d = scale(b, 0);
    let qs: &[u8; 16] = part(b, 2);
    for (y, byte) in y.as_chunks_mut::<4>().0.iter_mut().zip(qs) {
        for (l, y) in y.iter_mut().enumerate() {
            *y = d * f32::from((byte >> (2 * l) & 3) as i8 - 1);
        }
    }
}
