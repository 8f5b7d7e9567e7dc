//! Products in bf16: activations and weights are rounded to bf16, products of pairs are added in `f32`.
//!
//! A processor with instructions for it (AVX-512 BF16) adds two products at a time, in an order and with a treatment of
//! tiny numbers of its own; elsewhere the rounded values are multiplied as `f32`. Results of bf16 therefore agree
//! between machines to rounding only, but on one machine they do not depend on the number of rows or the threads.

use half::bf16;
use rayon::prelude::*;

use super::{Left, TILE_ROWS};

/// `A` rounded to bf16, as floats: what is multiplied where there are no instructions for bf16. Row-major `[m, k]`.
pub(super) fn rounded(left: Left<'_>, k: usize) -> Vec<f32> {
    let mut out = vec![0.0; left.m * k];
    out.par_chunks_mut(k.max(1)).with_min_len(8).enumerate().for_each(|(row, out)| {
        for (out, x) in out.iter_mut().zip(&left.data[row * left.row_stride..][..k]) {
            *out = bf16::from_f32(*x).to_f32();
        }
    });
    out
}

/// `A` in bf16, in groups of 12 rows of pairs, `[m / 12][k / 2][12]`; an odd last value stands beside a zero.
pub(super) struct PairLeft {
    of_row: usize,
    pairs: Vec<u32>,
}

impl PairLeft {
    /// Rounds the first `k` columns.
    pub(super) fn round(left: Left<'_>, k: usize) -> Self {
        let of_row = k.div_ceil(2);
        let mut pairs = vec![0; left.m.div_ceil(TILE_ROWS) * of_row * TILE_ROWS];
        pairs.par_chunks_mut((of_row * TILE_ROWS).max(1)).enumerate().for_each(|(group, out)| {
            for row in 0..TILE_ROWS.min(left.m - group * TILE_ROWS) {
                let values = &left.data[(group * TILE_ROWS + row) * left.row_stride..][..k];
                for (out, pair) in out[row..].iter_mut().step_by(TILE_ROWS).zip(values.chunks(2)) {
                    let bits = |i: usize| u32::from(bf16::from_f32(pair.get(i).copied().unwrap_or(0.0)).to_bits());
                    *out = bits(0) | bits(1) << 16;
                }
            }
        });
        Self { of_row, pairs }
    }

    /// Pairs of the rows from `row`, a multiple of 12, on, from `depth` (even) on: `[pairs][12]`.
    pub(super) fn tile(&self, row: usize, depth: usize) -> &[u32] {
        &self.pairs[row / TILE_ROWS * TILE_ROWS * self.of_row + depth / 2 * TILE_ROWS..]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    #![expect(unsafe_code, reason = "vector intrinsics on pointers")]

    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use crate::matmul::coded::PAIRS;
    use crate::matmul::{PANEL, TILE_ROWS};

    /// Whether this machine multiplies pairs of bf16.
    pub(in crate::matmul) fn available() -> bool {
        is_x86_feature_detected!("avx512bf16")
    }

    /// `C[rows, 32] += A[rows, k] · B[k, 32]` for up to 12 rows: `a` is `[pairs][12]`, `b` `[pairs][32][2]`.
    ///
    /// # Safety
    /// The machine has AVX-512 BF16; `c` has `rows` rows of 32 values.
    pub(in crate::matmul) unsafe fn tile(a: &[u32], b: &[u8], rows: usize, c: *mut f32, c_stride: usize) {
        // SAFETY: the processor has the instruction, the rest is the caller's.
        unsafe { tile_with::<Instruction>(a, b, rows, c, c_stride) }
    }

    /// As [`tile`] with the sums of `D`.
    ///
    /// # Safety
    /// The machine has what `D` needs; `c` has `rows` rows of 32 values.
    pub(super) unsafe fn tile_with<D: Dot>(a: &[u32], b: &[u8], rows: usize, c: *mut f32, c_stride: usize) {
        assert!(b.len().is_multiple_of(PAIRS) && a.len() >= b.len() / PAIRS * TILE_ROWS, "pairs of both operands");
        // SAFETY: checked above; the rest is the caller's.
        unsafe {
            match rows {
                1 => D::rows::<1>(a, b, c, c_stride),
                2 => D::rows::<2>(a, b, c, c_stride),
                3 => D::rows::<3>(a, b, c, c_stride),
                4 => D::rows::<4>(a, b, c, c_stride),
                5 => D::rows::<5>(a, b, c, c_stride),
                6 => D::rows::<6>(a, b, c, c_stride),
                7 => D::rows::<7>(a, b, c, c_stride),
                8 => D::rows::<8>(a, b, c, c_stride),
                9 => D::rows::<9>(a, b, c, c_stride),
                10 => D::rows::<10>(a, b, c, c_stride),
                11 => D::rows::<11>(a, b, c, c_stride),
                _ => D::rows::<12>(a, b, c, c_stride),
            }
        }
    }

    /// How two products of bf16 are added to a sum.
    pub(super) trait Dot {
        unsafe fn rows<const ROWS: usize>(a: &[u32], b: &[u8], c: *mut f32, c_stride: usize);
    }

    struct Instruction;
    impl Dot for Instruction {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn rows<const ROWS: usize>(a: &[u32], b: &[u8], c: *mut f32, c_stride: usize) {
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
            unsafe { sums::<ROWS>(a, b, c, c_stride, dot) }
        }
    }

    /// The walk over pairs, shared by the instruction and by what stands for it in tests.
    #[inline(always)]
    pub(super) unsafe fn sums<const ROWS: usize>(
        a: &[u32],
        b: &[u8],
        c: *mut f32,
        c_stride: usize,
        dot: impl Fn(__m512, __m512i, __m512i) -> __m512,
    ) {
        // SAFETY: `tile_with` checked the operands.
        unsafe {
            let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                let c = c.add(r * c_stride);
                *sum = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
            }
            let mut a = a.as_ptr();
            for pair in b.chunks_exact(PAIRS) {
                let b = pair.as_ptr();
                let weights = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(2 * PANEL).cast())];
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32((*a.add(r)).cast_signed());
                    sum[0] = dot(sum[0], x, weights[0]);
                    sum[1] = dot(sum[1], x, weights[1]);
                }
                a = a.add(TILE_ROWS);
            }
            for (r, sum) in sum.iter().enumerate() {
                let c = c.add(r * c_stride);
                _mm512_storeu_ps(c, sum[0]);
                _mm512_storeu_ps(c.add(16), sum[1]);
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

    use super::avx512::{Dot, sums, tile_with};
    use super::*;
    use crate::matmul::coded::{Coded, Coding, PAIRS};
    use crate::matmul::{PANEL, TILE_ROWS};
    use crate::{Isa, noise};

    /// What stands for the instruction where there is none: the second product of a pair, then the first.
    struct Emulated;
    impl Dot for Emulated {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn rows<const ROWS: usize>(a: &[u32], b: &[u8], c: *mut f32, c_stride: usize) {
            let first = |x: __m512i| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
            let second = |x: __m512i| _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(-1 << 16)));
            // SAFETY: as for `tile_with`.
            unsafe {
                sums::<ROWS>(a, b, c, c_stride, |sum, a, b| {
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
            let left = PairLeft::round(Left { data: &a, m: rows, row_stride: k }, k);
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
            // SAFETY: AVX-512 was found; `c` has the rows.
            unsafe { tile_with::<Emulated>(left.tile(0, 0), part, rows, c.as_mut_ptr(), PANEL) };
            assert_eq!(c, expected, "{rows} rows of {k}");
        }
    }
}
