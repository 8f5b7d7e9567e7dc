//! Decoders of the K types: blocks of 256 in groups, with integer scales of the groups under one or two f16. `k_encode.rs`
//! has the encoders.

use super::{part, scale};

/// `16 group bytes (scale low, minimum high nibble) | 64 bytes of 2-bit numbers | f16 d | f16 dmin`; groups of 16.
/// `y = (d scale) q - dmin minimum`.
pub(super) fn q2_k(b: &[u8; 84], y: &mut [f32; 256]) {
    let groups: &[u8; 16] = part(b, 0);
    let qs: &[u8; 64] = part(b, 16);
    let (d, dmin) = (scale(b, 80), scale(b, 82));
    let (y, _) = y.as_chunks_mut::<16>();
    for (g, y) in y.iter_mut().enumerate() {
        let dl = d * f32::from(groups[g] & 15);
        let ml = dmin * f32::from(groups[g] >> 4);
        let at = two_bits(g);
        let q: &[u8; 16] = part(qs, at.byte);
        for l in 0..16 {
            y[l] = dl * f32::from((q[l] >> at.shift) & 3) - ml;
        }
    }
}

/// `32 bytes of third bits | 64 bytes of low 2 bits | 12 bytes of sixteen 6-bit scales | f16 d`; groups of 16.
/// A third bit that is set means "no offset": `q = low + 4 third - 4`. `y = d (scale - 32) q`.
pub(super) fn q3_k(b: &[u8; 110], y: &mut [f32; 256]) {
    let thirds: &[u8; 32] = part(b, 0);
    let qs: &[u8; 64] = part(b, 32);
    let scales = q3_k_scales(part(b, 96));
    let d = scale(b, 108);
    let (y, _) = y.as_chunks_mut::<16>();
    for (g, y) in y.iter_mut().enumerate() {
        let dl = d * f32::from(scales[g] as i8 - 32);
        let at = two_bits(g);
        let q: &[u8; 16] = part(qs, at.byte);
        let third: &[u8; 16] = part(thirds, 16 * (g % 2));
        for l in 0..16 {
            let high = (third[l] >> (g / 2) << 2) & 4;
            y[l] = dl * f32::from((((q[l] >> at.shift) & 3) | high) as i8 - 4);
        }
    }
}

/// `f16 d | f16 dmin | 12 bytes of eight 6-bit scales and minima | 128 bytes of nibbles`; groups of 32: two groups share
/// 32 bytes, the first in the low nibbles. `y = (d scale) q - dmin minimum`.
pub(super) fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    groups_of_32(part(b, 0), part(b, 16), y, |_, _| 0);
}

/// `f16 d | f16 dmin | 12 bytes as in Q4_K | 32 bytes of fifth bits | 128 bytes of nibbles as in Q4_K`: bit `g` of fifth
/// byte `l` belongs to number `l` of group `g`. `y = (d scale) q - dmin minimum`.
pub(super) fn q5_k(b: &[u8; 176], y: &mut [f32; 256]) {
    let fifths: &[u8; 32] = part(b, 16);
    groups_of_32(part(b, 0), part(b, 48), y, |g, l| (fifths[l] >> g << 4) & 16);
}

/// The eight groups of Q4_K and Q5_K; `high(group, number)` is what the number has beyond its nibble.
#[inline(always)]
fn groups_of_32(scales: &[u8; 16], qs: &[u8; 128], y: &mut [f32; 256], high: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (scale(scales, 0), scale(scales, 2));
    let (scales, minima) = k_scales(part(scales, 4));
    let (y, _) = y.as_chunks_mut::<32>();
    for (g, y) in y.iter_mut().enumerate() {
        let (dl, ml) = (d * f32::from(scales[g]), dmin * f32::from(minima[g]));
        let q: &[u8; 32] = part(qs, 32 * (g / 2));
        let shift = 4 * (g % 2);
        for l in 0..32 {
            y[l] = dl * f32::from(((q[l] >> shift) & 15) | high(g, l)) - ml;
        }
    }
}

/// `128 bytes of low nibbles | 64 bytes of high 2 bits | 16 signed scales | f16 d`; groups of 16. `y = (d scale) (q - 32)`.
///
/// Each half of the block (128 numbers) has 64 low bytes, whose low nibbles are its numbers 0 to 63 and whose high
/// nibbles are 64 to 127.
pub(super) fn q6_k(b: &[u8; 210], y: &mut [f32; 256]) {
    let lows: &[u8; 128] = part(b, 0);
    let highs: &[u8; 64] = part(b, 128);
    let scales: &[u8; 16] = part(b, 192);
    let d = scale(b, 208);
    let (y, _) = y.as_chunks_mut::<16>();
    for (g, y) in y.iter_mut().enumerate() {
        let dl = d * f32::from(scales[g] as i8);
        let (half, within) = (g / 8, g % 8);
        let low: &[u8; 16] = part(lows, 64 * half + 16 * (within % 4));
        let low_shift = 4 * (within / 4);
        let at = two_bits(g);
        let high: &[u8; 16] = part(highs, at.byte);
        for l in 0..16 {
            let q = ((low[l] >> low_shift) & 15) | ((high[l] >> at.shift << 4) & 48);
            y[l] = dl * f32::from(q as i8 - 32);
        }
    }
}

/// `f32 d | 256 signed bytes | 16 sums as i16`. `y = d q`; the sums of 16 numbers each serve products and are not needed
/// here.
pub(super) fn q8_k(b: &[u8; 292], y: &mut [f32; 256]) {
    let d = f32::from_le_bytes(*part(b, 0));
    let qs: &[u8; 256] = part(b, 4);
    for l in 0..256 {
        y[l] = d * f32::from(qs[l] as i8);
    }
}

/// Where the 2-bit parts of a group of 16 are.
pub(super) struct TwoBits {
    pub(super) byte: usize,
    pub(super) shift: usize,
}

/// K types spread 2-bit parts so: each half of the block (8 groups) has 32 bytes; bits 0 and 1 of these are its first 32
/// numbers, bits 2 and 3 the next 32, and so on.
#[inline(always)]
pub(super) fn two_bits(group: usize) -> TwoBits {
    TwoBits { byte: 32 * (group / 8) + 16 * (group % 2), shift: 2 * (group % 8 / 2) }
}

/// Eight 6-bit scales and eight 6-bit minima in 12 bytes. Bytes 0 to 3 hold scales 0 to 3, bytes 4 to 7 minima 0 to 3,
/// each with two bits to spare; those are the top bits of scales and minima 4 to 7, whose low nibbles fill bytes 8 to 11.
#[inline(always)]
fn k_scales(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for i in 0..4 {
        let (s, m, both) = (packed[i], packed[i + 4], packed[i + 8]);
        scales[i] = s & 63;
        minima[i] = m & 63;
        scales[i + 4] = (both & 15) | (s >> 6 << 4);
        minima[i + 4] = (both >> 4) | (m >> 6 << 4);
    }
    (scales, minima)
}

/// Sixteen 6-bit scales in 12 bytes: bytes 0 to 7 hold the low nibbles of scales 0 to 7 and 8 to 15, bytes 8 to 11 the
/// top two bits, of scales `i`, `i + 4`, `i + 8` and `i + 12` from the bottom up.
#[inline(always)]
fn q3_k_scales(packed: &[u8; 12]) -> [u8; 16] {
    let mut scales = [0; 16];
    for i in 0..8 {
        let high = packed[8 + i % 4] >> (2 * (i / 4));
        scales[i] = (packed[i] & 15) | ((high & 3) << 4);
        scales[i + 8] = (packed[i] >> 4) | ((high >> 4 & 3) << 4);
    }
    scales
}
