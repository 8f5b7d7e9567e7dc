//! Types that store neighbours together, as an entry of a grid of chosen points: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S,
//! IQ3_XXS and IQ3_S.
//!
//! An entry of an IQ1 or IQ2 grid stands for eight numbers, one of an IQ3 grid for four. IQ2 and IQ3 grids hold
//! magnitudes, and the block holds signs; IQ1 grids hold -1, 0 and 1, and the block says for each group whether an
//! eighth is added or subtracted.

use half::f16;

use super::{part, scale};

/// The grids, packed; `make_grids.py` wrote the file and says how.
const PACKED: &[u8; 9216] = include_bytes!("grids.bin");

static IQ1: [[i8; 8]; 2048] = unpack(0, &[-1, 0, 1]);
static IQ2_XXS: [[i8; 8]; 256] = unpack(2048, &IQ2_LEVELS);
static IQ2_XS: [[i8; 8]; 512] = unpack(2304, &IQ2_LEVELS);
static IQ2_S: [[i8; 8]; 1024] = unpack(2816, &IQ2_LEVELS);
static IQ3_XXS: [[i8; 4]; 256] = unpack(3840, &[4, 12, 20, 28, 36, 44, 52, 62]);
static IQ3_S: [[i8; 4]; 512] = unpack(4096, &[1, 3, 5, 7, 9, 11, 13, 15]);

const IQ2_LEVELS: [i8; 3] = [8, 25, 43];

/// What the IQ1 types add to the points of a group, by the bit that the block has for it.
const IQ1_SHIFTS: [f32; 2] = [0.125, -0.125];

/// `f16 d | 32 bytes: low bits of entries | 8 u16`; groups of 32. Bits 3 i to 3 i + 2 of a group's u16 are the top bits of
/// its entry `i`, the next three its scale, the last the sign of its shift. `y = (d (2 scale + 1)) (point + shift)`.
pub(super) fn iq1_s(b: &[u8; 50], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    let lows: &[u8; 32] = part(b, 2);
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (g, i) = (e / 4, e % 4);
        let group = u16::from_le_bytes(*part(b, 34 + 2 * g));
        let dl = d * f32::from(2 * (group >> 12 & 7) + 1);
        let entry = usize::from(lows[e]) | usize::from(group >> (3 * i) & 7) << 8;
        shifted(dl, entry, IQ1_SHIFTS[usize::from(group >> 15)], y);
    }
}

/// `32 bytes: low bits of entries | 16 bytes: a nibble for each entry | 4 u16`; groups of 16. The low three bits of a nibble
/// are the top bits of the entry, the last is the sign of its shift. Each u16 holds four 3-bit scales and, in its top
/// nibble, a quarter of the f16 `d`, the lowest first. `y = (d (2 scale + 1)) (point + shift)`.
pub(super) fn iq1_m(b: &[u8; 56], y: &mut [f32; 256]) {
    let words: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes(*part(b, 48 + 2 * i)));
    let d = words.iter().rev().fold(0, |bits, word| bits << 4 | word >> 12);
    let d = f16::from_bits(d).to_f32();
    let (lows, nibbles): (&[u8; 32], &[u8; 16]) = (part(b, 0), part(b, 32));
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let g = e / 2;
        let dl = d * f32::from(2 * (words[g / 4] >> (3 * (g % 4)) & 7) + 1);
        let nibble = nibbles[e / 2] >> (4 * (e % 2));
        let entry = usize::from(lows[e]) | usize::from(nibble & 7) << 8;
        shifted(dl, entry, IQ1_SHIFTS[usize::from(nibble >> 3 & 1)], y);
    }
}

/// `f16 d | 8 groups of (4 entries | u32)`; groups of 32. The u32 is four times seven signs, then a 4-bit scale.
/// `y = (d (0.5 + scale) / 4) ± point`.
pub(super) fn iq2_xxs(b: &[u8; 66], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (g, i) = (e / 4, e % 4);
        let entries: &[u8; 4] = part(b, 2 + 8 * g);
        let group = u32::from_le_bytes(*part(b, 6 + 8 * g));
        let dl = d * (0.5 + (group >> 28) as f32) * 0.25;
        signed(dl, &IQ2_XXS[usize::from(entries[i])], even(group >> (7 * i)), y);
    }
}

/// `f16 d | 32 u16 | 8 bytes of sixteen 4-bit scales`; groups of 16. A u16 is an entry in 9 bits, then its seven signs.
/// `y = (d (0.5 + scale) / 4) ± point`.
pub(super) fn iq2_xs(b: &[u8; 74], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    let scales: &[u8; 8] = part(b, 66);
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let word = u16::from_le_bytes(*part(b, 2 + 2 * e));
        signed(iq2_scale(d, scales, e), &IQ2_XS[usize::from(word & 511)], even(u32::from(word >> 9)), y);
    }
}

/// `f16 d | 32 bytes: low bits of entries | 32 bytes of signs | 8 bytes: top 2 bits of entries | 8 bytes as in IQ2_XS`; groups
/// of 16. `y = (d (0.5 + scale) / 4) ± point`.
pub(super) fn iq2_s(b: &[u8; 82], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    let (lows, signs): (&[u8; 32], &[u8; 32]) = (part(b, 2), part(b, 34));
    let (highs, scales): (&[u8; 8], &[u8; 8]) = (part(b, 66), part(b, 74));
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = highs[e / 4] >> (2 * (e % 4)) & 3;
        let entry = usize::from(lows[e]) | usize::from(high) << 8;
        signed(iq2_scale(d, scales, e), &IQ2_S[entry], signs[e], y);
    }
}

/// `f16 d | 64 entries | 8 u32 as in IQ2_XXS`; groups of 32. `y = (d (0.5 + scale) / 2) ± point`.
pub(super) fn iq3_xxs(b: &[u8; 98], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    let entries: &[u8; 64] = part(b, 2);
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (g, i) = (e / 4, e % 4);
        let group = u32::from_le_bytes(*part(b, 66 + 4 * g));
        let dl = d * (0.5 + (group >> 28) as f32) * 0.5;
        let [first, second] = [entries[2 * e], entries[2 * e + 1]].map(|entry| IQ3_XXS[usize::from(entry)]);
        signed(dl, &joined(first, second), even(group >> (7 * i)), y);
    }
}

/// `f16 d | 64 bytes: low bits of entries | 8 bytes: their ninth bits | 32 bytes of signs | 4 bytes of eight 4-bit scales`;
/// groups of 32. `y = (d (1 + 2 scale)) ± point`.
pub(super) fn iq3_s(b: &[u8; 110], y: &mut [f32; 256]) {
    let d = scale(b, 0);
    let (lows, ninths): (&[u8; 64], &[u8; 8]) = (part(b, 2), part(b, 66));
    let (signs, scales): (&[u8; 32], &[u8; 4]) = (part(b, 74), part(b, 106));
    for (e, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let g = e / 4;
        let dl = d * f32::from(1 + 2 * (scales[g / 2] >> (4 * (g % 2)) & 15));
        let [first, second] = [2 * e, 2 * e + 1].map(|at| {
            let ninth = ninths[g] >> (at % 8) & 1;
            IQ3_S[usize::from(lows[at]) | usize::from(ninth) << 8]
        });
        signed(dl, &joined(first, second), signs[e], y);
    }
}

/// The scale of entry `e` of IQ2_XS and IQ2_S: a nibble for every two entries.
#[inline(always)]
fn iq2_scale(d: f32, scales: &[u8; 8], e: usize) -> f32 {
    let nibble = scales[e / 4] >> (4 * (e / 2 % 2)) & 15;
    d * (0.5 + f32::from(nibble)) * 0.25
}

#[inline(always)]
fn shifted(dl: f32, entry: usize, shift: f32, y: &mut [f32; 8]) {
    for (y, point) in y.iter_mut().zip(&IQ1[entry]) {
        *y = dl * (f32::from(*point) + shift);
    }
}

/// Number `l` is negative where bit `l` of `signs` is set.
#[inline(always)]
fn signed(dl: f32, points: &[i8; 8], signs: u8, y: &mut [f32; 8]) {
    for l in 0..8 {
        let sign = u32::from(signs >> l & 1) << 31;
        y[l] = f32::from_bits((dl * f32::from(points[l])).to_bits() ^ sign);
    }
}

/// Eight signs of seven stored ones: the number of negative ones is even.
#[inline(always)]
fn even(bits: u32) -> u8 {
    let seven = bits as u8 & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

#[inline(always)]
fn joined(first: [i8; 4], second: [i8; 4]) -> [i8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first, second);
    [a, b, c, d, e, f, g, h]
}

/// `N` entries of `W` points, from entry `first` of the packed grids.
const fn unpack<const N: usize, const W: usize>(first: usize, levels: &[i8]) -> [[i8; W]; N] {
    let bits = 16 / W;
    let mut grid = [[0; W]; N];
    let mut n = 0;
    while n < N {
        let at = 2 * (first + n);
        let entry = u16::from_le_bytes([PACKED[at], PACKED[at + 1]]) as usize;
        let mut w = 0;
        while w < W {
            grid[n][w] = levels[entry >> (bits * w) & ((1 << bits) - 1)];
            w += 1;
        }
        n += 1;
    }
    grid
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// An entry that appeared twice, or was all zeros of a file cut short, would waste a code of the format.
    #[test]
    fn entries_of_a_grid_differ() {
        fn distinct<T: std::hash::Hash + Eq>(grid: &[T]) -> bool {
            grid.iter().collect::<HashSet<_>>().len() == grid.len()
        }
        assert!(distinct(&IQ1) && distinct(&IQ2_XXS) && distinct(&IQ2_XS) && distinct(&IQ2_S));
        assert!(distinct(&IQ3_XXS) && distinct(&IQ3_S));
    }

    #[test]
    fn the_last_grid_ends_with_the_file() {
        let entries = IQ1.len() + IQ2_XXS.len() + IQ2_XS.len() + IQ2_S.len() + IQ3_XXS.len() + IQ3_S.len();
        assert_eq!(2 * entries, PACKED.len());
    }
}
