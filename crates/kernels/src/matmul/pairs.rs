//! Products in bf16: both operands are rounded to bf16, products of pairs are added in `f32`.
//!
//! A processor with instructions for it (AVX-512 BF16) adds two products at a time, in an order and with a treatment of
//! tiny numbers of its own; elsewhere the rounded values are multiplied as `f32`. Results of bf16 therefore agree
//! between machines to rounding only, but on one machine they do not depend on the number of rows or the threads.

use rayon::prelude::*;

use super::left::Room;
use super::{Left, TILE_ROWS, transpose_lines};
use crate::Isa;
use crate::isa::dispatch;

/// Whether pairs of bf16 are multiplied by instructions.
pub(super) fn are_multiplied(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa == Isa::Avx512 && avx512::available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Rounds a packed operand, lines of `width` values of one depth each, to what [`are_multiplied`] says: the lines of two
/// depths become one of pairs, in the first half of the memory, or every value is rounded where it lies.
pub(super) fn round_packed(isa: Isa, lines: &mut [f32], width: usize) {
    if are_multiplied(isa) { pair_lines(lines, width) } else { round(lines) }
}

dispatch! {
    fn round(values: &mut [f32]) {
        values.iter_mut().for_each(|x| *x = f32::from_bits(bits(*x) << 16));
    }
}

dispatch! {
    /// Two lines of floats become one of pairs of bf16, as bit patterns; an odd last line stands beside zeros.
    fn pair_lines(lines: &mut [f32], width: usize) {
        let depth = lines.len() / width;
        let pair = |a: f32, b: f32| f32::from_bits(bits(a) | bits(b) << 16);
        for first in (0..depth).step_by(2) {
            // The first pair is written over what it is made of, others over what was read before.
            let (written, read) = lines.split_at_mut(first.max(1) * width);
            let out = &mut written[first / 2 * width..][..width];
            match (first, depth - first) {
                (0, 1) => out.iter_mut().for_each(|x| *x = pair(*x, 0.0)),
                (0, _) => out.iter_mut().zip(read).for_each(|(x, b)| *x = pair(*x, *b)),
                (_, 1) => out.iter_mut().zip(read).for_each(|(x, a)| *x = pair(*a, 0.0)),
                _ => {
                    let (a, b) = read.split_at(width);
                    out.iter_mut().zip(a.iter().zip(b)).for_each(|(x, (a, b))| *x = pair(*a, *b));
                }
            }
        }
    }
}

/// The bits of the nearest bf16, in the low half; ties go to even.
#[inline(always)]
fn bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// `A` rounded to bf16, as floats: what is multiplied where there are no instructions for bf16. Row-major `[m, k]`.
pub(super) fn rounded(left: Left<'_>, k: usize) -> Vec<f32> {
    let mut out = vec![0.0; left.m * k];
    out.par_chunks_mut(k.max(1)).with_min_len(8).enumerate().for_each(|(row, out)| {
        out.copy_from_slice(&left.data[row * left.row_stride..][..k]);
        round(out);
    });
    out
}

/// `A` in bf16, in groups of 12 rows of pairs, `[k / 2][12]` in the first half of the memory of a group; an odd last value
/// stands beside a zero.
pub(super) struct PairLeft {
    of_group: usize,
    groups: Room,
}

impl PairLeft {
    /// Rounds the first `k` columns.
    pub(super) fn round(isa: Isa, left: Left<'_>, k: usize) -> Self {
        let (of_group, count) = (TILE_ROWS * k, left.m.div_ceil(TILE_ROWS));
        let mut groups = Room::of(count * of_group);
        let some = groups.par_chunks_mut(of_group.max(1)).take(count).with_min_len(2);
        some.enumerate().for_each(|(group, out)| {
            let row = group * TILE_ROWS;
            let lines = TILE_ROWS.min(left.m - row);
            transpose_lines(isa, &left.data[row * left.row_stride..], left.row_stride, lines, 0..k, TILE_ROWS, out);
            pair_lines(out, TILE_ROWS);
        });
        Self { of_group, groups }
    }

    /// Pairs of the rows from `row`, a multiple of 12, on, from `depth` (even) on: `[pairs][12]`.
    pub(super) fn tile(&self, row: usize, depth: usize) -> &[f32] {
        &self.groups[row / TILE_ROWS * self.of_group + depth / 2 * TILE_ROWS..]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    #![expect(unsafe_code, reason = "vector intrinsics on pointers")]

    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use crate::matmul::tile::Tile;
    use crate::matmul::{PANEL, TILE_ROWS};

    /// Whether this machine multiplies pairs of bf16.
    pub(in crate::matmul) fn available() -> bool {
        is_x86_feature_detected!("avx512bf16")
    }

    /// `C[rows, 32] = start + A · B` for up to 12 rows, with `tile.k` pairs of depths: `tile.a` is `[pairs][12]`, `tile.b`
    /// `[pairs][32]`, each of two bf16 in the place of a float.
    ///
    /// # Safety
    /// The machine has AVX-512 BF16; `start` and `c` have `rows` rows of 32 values.
    pub(in crate::matmul) unsafe fn tile(rows: usize, tile: &Tile) {
        // SAFETY: the processor has the instruction, the rest is the caller's.
        unsafe { tile_with::<Instruction>(rows, tile) }
    }

    /// As [`tile`] with the sums of `D`.
    ///
    /// # Safety
    /// The machine has what `D` needs; `start` and `c` have `rows` rows of 32 values.
    pub(super) unsafe fn tile_with<D: Dot>(rows: usize, tile: &Tile) {
        // SAFETY: as above.
        unsafe {
            match rows {
                1 => D::rows::<1>(tile),
                2 => D::rows::<2>(tile),
                3 => D::rows::<3>(tile),
                4 => D::rows::<4>(tile),
                5 => D::rows::<5>(tile),
                6 => D::rows::<6>(tile),
                7 => D::rows::<7>(tile),
                8 => D::rows::<8>(tile),
                9 => D::rows::<9>(tile),
                10 => D::rows::<10>(tile),
                11 => D::rows::<11>(tile),
                _ => D::rows::<12>(tile),
            }
        }
    }

    /// How two products of bf16 are added to a sum.
    pub(super) trait Dot {
        unsafe fn rows<const ROWS: usize>(tile: &Tile);
    }

    struct Instruction;
    impl Dot for Instruction {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn rows<const ROWS: usize>(tile: &Tile) {
            let dot = |sum, a: __m512i, b: __m512i| {
                // SAFETY: 512 bits are 32 bf16; the function has the feature.
                unsafe {
                    _mm512_dpbf16_ps(
                        sum,
                        std::mem::transmute::<__m512i, __m512bh>(a),
                        std::mem::transmute::<__m512i, __m512bh>(b),
                    )
                }
            };
            // SAFETY: as for `tile_with`.
            unsafe { sums::<ROWS>(tile, dot) }
        }
    }

    /// The walk over pairs, shared by the instruction and by what stands for it in tests.
    #[inline(always)]
    pub(super) unsafe fn sums<const ROWS: usize>(t: &Tile, dot: impl Fn(__m512, __m512i, __m512i) -> __m512) {
        // SAFETY: the caller has the operands.
        unsafe {
            let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                let start = t.start.add(r * t.start_stride);
                *sum = [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(16))];
            }
            let (mut a, mut b) = (t.a.cast::<i32>(), t.b);
            for _ in 0..t.k {
                let weights = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast())];
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(*a.add(r));
                    sum[0] = dot(sum[0], x, weights[0]);
                    sum[1] = dot(sum[1], x, weights[1]);
                }
                (a, b) = (a.add(TILE_ROWS), b.add(PANEL));
            }
            for (r, sum) in sum.iter().enumerate() {
                let c = t.c.add(r * t.c_stride);
                _mm512_storeu_ps(c, sum[0]);
                _mm512_storeu_ps(c.add(16), sum[1]);
            }
        }
    }
}

#[cfg(test)]
mod rounding {
    use half::bf16;

    use super::*;
    use crate::noise;

    /// Every sign, exponent and upper half of a mantissa, with what lies around the ties below it.
    #[test]
    fn is_that_of_the_half_crate() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                assert_eq!(bits(x), u32::from(bf16::from_f32(x).to_bits()), "{x} {high:x} {low:x}");
            }
        }
    }

    #[test]
    fn lines_become_pairs_where_they_lie() {
        for width in [1, 3, 12, 32] {
            for depth in [0, 1, 2, 3, 8, 13] {
                let old = noise(width * depth, 3);
                let mut lines = old.clone();
                pair_lines(&mut lines, width);
                let at = |depth: usize, i: usize| bits(old.get(depth * width + i).copied().unwrap_or(0.0));
                for (pair, line) in lines.chunks(width).take(depth.div_ceil(2)).enumerate() {
                    for (i, x) in line.iter().enumerate() {
                        assert_eq!(x.to_bits(), at(2 * pair, i) | at(2 * pair + 1, i) << 16, "{width} x {depth}");
                    }
                }
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #![expect(unsafe_code, clippy::print_stderr, reason = "vector intrinsics, and a line where they are missing")]

    use std::arch::x86_64::{
        __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_set1_epi32, _mm512_slli_epi32,
    };

    use half::bf16;

    use super::avx512::{Dot, sums, tile_with};
    use super::*;
    use crate::matmul::coded::{Coded, Coding, PAIRS};
    use crate::matmul::tile::Tile;
    use crate::matmul::{PANEL, TILE_ROWS};
    use crate::noise;

    /// What stands for the instruction where there is none: the second product of a pair, then the first.
    struct Emulated;
    impl Dot for Emulated {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn rows<const ROWS: usize>(tile: &Tile) {
            let first = |x: __m512i| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
            let second = |x: __m512i| _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(-1 << 16)));
            // SAFETY: as for `tile_with`.
            unsafe {
                sums::<ROWS>(tile, |sum, a, b| {
                    _mm512_fmadd_ps(first(a), first(b), _mm512_fmadd_ps(second(a), second(b), sum))
                });
            }
        }
    }

    /// The packing of both operands and the walk over them, whatever adds the pairs.
    #[test]
    fn every_number_of_rows_and_odd_depths_equal_the_definition() {
        if Isa::best() != Isa::Avx512 {
            eprintln!("skipped: no AVX-512 on this machine");
            return;
        }
        for (rows, k) in (1..=TILE_ROWS).zip([1, 2, 3, 31, 32, 33, 64, 255, 256, 257, 300, 7]) {
            let (a, b) = (noise(rows * k, 5), noise(k * PANEL, 7));
            let mut weight = Coded::zeros(Coding::Bf16, k, PANEL);
            let filled = weight.fill_halves(|_, _, out| {
                out.copy_from_slice(&b);
                Ok::<(), ()>(())
            });
            assert_eq!(filled, Ok(()));
            let left = PairLeft::round(Isa::Avx512, Left { data: &a, m: rows, row_stride: k }, k);
            let mut c = noise(rows * PANEL, 9);
            let mut expected = c.clone();
            let at = |x: Option<&f32>| bf16::from_f32(x.copied().unwrap_or(0.0)).to_f32();
            for (a, c) in a.chunks(k).zip(expected.chunks_mut(PANEL)) {
                for (c, b) in c.iter_mut().zip(b.chunks(k)) {
                    for (a, b) in a.chunks(2).zip(b.chunks(2)) {
                        *c = at(a.get(1)).mul_add(at(b.get(1)), *c);
                        *c = at(a.first()).mul_add(at(b.first()), *c);
                    }
                }
            }
            let part = weight.part(0, 0, k);
            assert_eq!(part.len(), k.div_ceil(2) * PAIRS);
            let tile = Tile {
                k: part.len() / PAIRS,
                a: left.tile(0, 0).as_ptr(),
                a_stride: 1,
                a_step: TILE_ROWS,
                b: part.as_ptr().cast(),
                b_stride: PANEL,
                start: c.as_ptr(),
                start_stride: PANEL,
                c: c.as_mut_ptr(),
                c_stride: PANEL,
            };
            // SAFETY: AVX-512 was found; `c` has the rows.
            unsafe { tile_with::<Emulated>(rows, &tile) };
            assert_eq!(c, expected, "{rows} rows of {k}");
        }
    }
}
