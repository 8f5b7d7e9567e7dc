//! Block dequantisation: stored bytes to f32, one function per element type.
//!
//! A block type keeps `block_len` neighbours of a row as small integers `q` with one scale `d` (and, where the type
//! has one, one minimum `m`) per block; the K types divide their 256 numbers further, into groups with integer
//! scales of their own. Layouts are those of ggml's block structs (`ggml-common.h`); the arithmetic keeps ggml's order of
//! operations, so the results are the reference's to the last bit. Every loop runs over arrays of fixed size, which is
//! what lets the compiler drop the bounds checks and use vector instructions.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::element::ElementType;

/// Decodes whole blocks. `bytes` and `out` must hold the same number of blocks, and the type must be readable
/// ([`ElementType::is_readable`]): both are checked by the caller, [`crate::TensorView::decode_rows`].
pub(crate) fn decode(element: ElementType, bytes: &[u8], out: &mut [f32]) {
    use ElementType as E;
    debug_assert_eq!(bytes.len() / element.block_bytes(), out.len() / element.block_len(), "{element}");
    match element {
        E::F32 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b)),
        E::F64 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f64::from_le_bytes(*b) as f32),
        E::F16 => decode_f16(bytes, out),
        E::BF16 => each(bytes, out, |b, y: &mut [f32; 1]| {
            y[0] = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
        }),
        E::I8 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from(i8::from_le_bytes(*b))),
        E::I16 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from(i16::from_le_bytes(*b))),
        E::I32 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = i32::from_le_bytes(*b) as f32),
        E::I64 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = i64::from_le_bytes(*b) as f32),
        E::U8 => each(bytes, out, |b: &[u8; 1], y: &mut [f32; 1]| y[0] = f32::from(b[0])),
        E::U16 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = f32::from(u16::from_le_bytes(*b))),
        E::U32 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = u32::from_le_bytes(*b) as f32),
        E::U64 => each(bytes, out, |b, y: &mut [f32; 1]| y[0] = u64::from_le_bytes(*b) as f32),
        E::Bool => each(bytes, out, |b: &[u8; 1], y: &mut [f32; 1]| y[0] = f32::from(u8::from(b[0] != 0))),
        E::Q4_0 => each(bytes, out, q4_0),
        E::Q4_1 => each(bytes, out, q4_1),
        E::Q5_0 => each(bytes, out, q5_0),
        E::Q5_1 => each(bytes, out, q5_1),
        E::Q8_0 => each(bytes, out, q8_0),
        E::Q2_K => each(bytes, out, q2_k),
        E::Q3_K => each(bytes, out, q3_k),
        E::Q4_K => each(bytes, out, q4_k),
        E::Q5_K => each(bytes, out, q5_k),
        E::Q6_K => each(bytes, out, q6_k),
        E::IQ4_NL => each(bytes, out, iq4_nl),
        unreadable => unreachable!("decode_rows refuses {unreadable}"),
    }
}

/// Runs `block` over every block: `B` bytes to `N` numbers.
#[inline(always)]
fn each<const B: usize, const N: usize>(bytes: &[u8], out: &mut [f32], block: impl Fn(&[u8; B], &mut [f32; N])) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (numbers, _) = out.as_chunks_mut::<N>();
    for (b, y) in blocks.iter().zip(numbers) {
        block(b, y);
    }
}

/// `half` converts whole slices with the processor's own instruction where there is one; the copy is for alignment.
fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    const STEP: usize = 256;
    let mut aligned = [f16::ZERO; STEP];
    for (bytes, out) in bytes.chunks(2 * STEP).zip(out.chunks_mut(STEP)) {
        for (h, b) in aligned.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *h = f16::from_le_bytes(*b);
        }
        aligned[..out.len()].convert_to_f32_slice(out);
    }
}

/// `f16 d | 16 bytes`: low nibbles are numbers 0 to 15, high nibbles 16 to 31. `y = d (q - 8)`.
fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let qs: &[u8; 16] = part(b, 2);
    for l in 0..16 {
        y[l] = d * f32::from((qs[l] & 15) as i8 - 8);
        y[l + 16] = d * f32::from((qs[l] >> 4) as i8 - 8);
    }
}

/// `f16 d | f16 m | 16 bytes`, nibbles as in Q4_0. `y = d q + m`.
fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (scale(b, 0), scale(b, 2));
    let qs: &[u8; 16] = part(b, 4);
    for l in 0..16 {
        y[l] = d * f32::from(qs[l] & 15) + m;
        y[l + 16] = d * f32::from(qs[l] >> 4) + m;
    }
}

/// `f16 d | u32 fifth bits | 16 bytes`: bit `i` of the u32 is bit 4 of number `i`. `y = d (q - 16)`.
fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let high = u32::from_le_bytes(*part(b, 2));
    let qs: &[u8; 16] = part(b, 6);
    for l in 0..16 {
        let low_high = (high >> l << 4) & 16;
        let upper_high = (high >> (l + 16) << 4) & 16;
        y[l] = d * ((u32::from(qs[l] & 15) | low_high) as i32 - 16) as f32;
        y[l + 16] = d * ((u32::from(qs[l] >> 4) | upper_high) as i32 - 16) as f32;
    }
}

/// `f16 d | f16 m | u32 fifth bits | 16 bytes`, bits as in Q5_0. `y = d q + m`.
fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (scale(b, 0), scale(b, 2));
    let high = u32::from_le_bytes(*part(b, 4));
    let qs: &[u8; 16] = part(b, 8);
    for l in 0..16 {
        let low_high = (high >> l << 4) & 16;
        let upper_high = (high >> (l + 16) << 4) & 16;
        y[l] = d * (u32::from(qs[l] & 15) | low_high) as i32 as f32 + m;
        y[l + 16] = d * (u32::from(qs[l] >> 4) | upper_high) as i32 as f32 + m;
    }
}

/// `f16 d | 32 signed bytes`. `y = d q`.
fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let qs: &[u8; 32] = part(b, 2);
    for l in 0..32 {
        y[l] = d * f32::from(qs[l] as i8);
    }
}

/// `16 group bytes (scale low, minimum high nibble) | 64 bytes of 2-bit numbers | f16 d | f16 dmin`; groups of 16.
/// `y = (d scale) q - dmin minimum`.
fn q2_k(b: &[u8; 84], y: &mut [f32; 256]) {
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
fn q3_k(b: &[u8; 110], y: &mut [f32; 256]) {
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
fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (scale(b, 0), scale(b, 2));
    let (scales, minima) = k_scales(part(b, 4));
    let qs: &[u8; 128] = part(b, 16);
    let (y, _) = y.as_chunks_mut::<32>();
    for (g, y) in y.iter_mut().enumerate() {
        let (dl, ml) = (d * f32::from(scales[g]), dmin * f32::from(minima[g]));
        let q: &[u8; 32] = part(qs, 32 * (g / 2));
        let shift = 4 * (g % 2);
        for l in 0..32 {
            y[l] = dl * f32::from((q[l] >> shift) & 15) - ml;
        }
    }
}

/// `f16 d | f16 dmin | 12 bytes as in Q4_K | 32 bytes of fifth bits | 128 bytes of nibbles as in Q4_K`: bit `g` of fifth
/// byte `l` belongs to number `l` of group `g`. `y = (d scale) q - dmin minimum`.
fn q5_k(b: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (scale(b, 0), scale(b, 2));
    let (scales, minima) = k_scales(part(b, 4));
    let fifths: &[u8; 32] = part(b, 16);
    let qs: &[u8; 128] = part(b, 48);
    let (y, _) = y.as_chunks_mut::<32>();
    for (g, y) in y.iter_mut().enumerate() {
        let (dl, ml) = (d * f32::from(scales[g]), dmin * f32::from(minima[g]));
        let q: &[u8; 32] = part(qs, 32 * (g / 2));
        let shift = 4 * (g % 2);
        for l in 0..32 {
            let high = (fifths[l] >> g << 4) & 16;
            y[l] = dl * f32::from(((q[l] >> shift) & 15) | high) - ml;
        }
    }
}

/// `128 bytes of low nibbles | 64 bytes of high 2 bits | 16 signed scales | f16 d`; groups of 16. `y = (d scale) (q - 32)`.
///
/// Each half of the block (128 numbers) has 64 low bytes, whose low nibbles are its numbers 0 to 63 and whose high
/// nibbles are 64 to 127.
fn q6_k(b: &[u8; 210], y: &mut [f32; 256]) {
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

/// The sixteen levels of IQ4_NL (`kvalues_iq4nl` of ggml), spaced for normally distributed weights.
const IQ4_NL_LEVELS: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// `f16 d | 16 bytes`, nibbles as in Q4_0, each an index of a level. `y = d level`.
fn iq4_nl(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = scale(b, 0);
    let qs: &[u8; 16] = part(b, 2);
    for l in 0..16 {
        y[l] = d * IQ4_NL_LEVELS[usize::from(qs[l] & 15)];
        y[l + 16] = d * IQ4_NL_LEVELS[usize::from(qs[l] >> 4)];
    }
}

/// Where the 2-bit parts of a group of 16 are.
struct TwoBits {
    byte: usize,
    shift: usize,
}

/// K types spread 2-bit parts so: each half of the block (8 groups) has 32 bytes; bits 0 and 1 of these are its first 32
/// numbers, bits 2 and 3 the next 32, and so on.
#[inline(always)]
fn two_bits(group: usize) -> TwoBits {
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

/// Stored bytes of plain floats: `values` in F32, F16 or BF16 (nearest, ties to even), appended to `out`. False, with
/// nothing appended, for any other type.
pub(crate) fn encode_floats(element: ElementType, values: &[f32], out: &mut Vec<u8>) -> bool {
    match element {
        ElementType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        ElementType::F16 => out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
        ElementType::BF16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        _ => return false,
    }
    true
}
