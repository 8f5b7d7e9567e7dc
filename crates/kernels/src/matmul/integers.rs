//! Products in 8-bit integers: activations are rounded to signed bytes, a scale for every group, and the integers of a
//! coded weight are multiplied as they are.
//!
//! For one group of `len` neighbours in `k`, with `a = s · b` the rounded activations and `w = d · v + o` the weight:
//! `Σ a w = s d Σ b v + s o Σ b`. The integer sums are exact; groups are added in rising order by fused multiply-adds,
//! so the bits of a result do not depend on the instruction set, the number of rows or the threads. They do
//! differ from the `f32` product, by about a hundredth of the activations' spread within a group.

use rayon::prelude::*;

use super::coded::{Groups, Offset};
use super::{Left, PANEL};
use crate::isa::dispatch;

/// `A[m, k]` in bytes.
pub(super) struct IntegerLeft {
    k: usize,
    len: usize,
    /// `[m, k]`
    codes: Vec<i8>,
    /// `[m, k / len]`
    groups: Vec<LeftGroup>,
}

/// One group of a row: the row's values are `scale · code`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct LeftGroup {
    pub(super) scale: f32,
    /// Sum of the codes.
    pub(super) sum: i32,
    /// `scale · sum`
    pub(super) scaled_sum: f32,
}

/// Operands of one tile: some rows of `A`, one panel of `B` or a part of its depth.
#[derive(Clone, Copy)]
pub(super) struct IntegerTile<'a> {
    /// Records, from the tile's first depth on.
    pub(super) records: &'a [u8],
    /// Rows of codes, from the tile's first depth on.
    pub(super) codes: &'a [i8],
    pub(super) codes_stride: usize,
    /// Rows of groups, from the tile's first depth on.
    pub(super) groups: &'a [LeftGroup],
    pub(super) groups_stride: usize,
}

impl IntegerLeft {
    /// Rounds the first `k` columns, whole groups of `len`.
    pub(super) fn round(a: Left<'_>, k: usize, len: usize) -> Self {
        let of_row = k / len;
        let mut left = Self { k, len, codes: vec![0; a.m * k], groups: vec![LeftGroup::default(); a.m * of_row] };
        let rows = left.codes.par_chunks_mut(k.max(1)).zip(left.groups.par_chunks_mut(of_row.max(1)));
        rows.with_min_len(8).enumerate().for_each(|(row, (codes, groups))| {
            round_row(&a.data[row * a.row_stride..][..k], len, codes, groups);
        });
        left
    }

    /// Neighbours that share a scale.
    pub(super) fn group_len(&self) -> usize {
        self.len
    }

    /// Rows from `row` on, from `depth` on, with `records` of the weight.
    pub(super) fn tile<'a>(&'a self, row: usize, depth: usize, records: &'a [u8]) -> IntegerTile<'a> {
        let of_row = self.k / self.len;
        IntegerTile {
            records,
            codes: &self.codes[row * self.k + depth..],
            codes_stride: self.k,
            groups: &self.groups[row * of_row + depth / self.len..],
            groups_stride: of_row,
        }
    }
}

dispatch! {
    /// Codes from -127 to 127: the nearest multiple of a 127th of the group's largest value, ties to even. A group with
    /// a value that is not finite has the scale NaN, so that nothing is hidden.
    fn round_row(row: &[f32], len: usize, codes: &mut [i8], groups: &mut [LeftGroup]) {
        for ((values, codes), group) in row.chunks_exact(len).zip(codes.chunks_exact_mut(len)).zip(groups) {
            // Without their sign, floats and their bits have one order; NaN is above infinity.
            let largest = values.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits()));
            let largest = f32::from_bits(largest);
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let mut sum = 0;
            for (code, x) in codes.iter_mut().zip(values) {
                let rounded = (x * inverse).round_ties_even();
                *code = rounded as i8;
                sum += i32::from(*code);
            }
            let scale = if largest.is_finite() { largest / 127.0 } else { f32::NAN };
            *group = LeftGroup { scale, sum, scaled_sum: scale * sum as f32 };
        }
    }
}

/// `C[1, 32] += A[row, k] · B[k, 32]`: the definition.
pub(super) fn add_row(groups: &Groups, tile: IntegerTile<'_>, row: usize, c: &mut [f32]) {
    let (codes, of_row) = (&tile.codes[row * tile.codes_stride..], &tile.groups[row * tile.groups_stride..]);
    row_portable(groups, tile.records, codes, of_row, c);
}

dispatch! {
    fn row_portable(groups: &Groups, records: &[u8], codes: &[i8], of_row: &[LeftGroup], c: &mut [f32]) {
        let records = records.chunks_exact(groups.record());
        for ((record, codes), left) in records.zip(codes.chunks_exact(groups.len)).zip(of_row) {
            let mut dots = [i32::from(groups.lowest()) * left.sum; PANEL];
            for (four, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
                for (dot, weights) in dots.iter_mut().zip(groups.four(record, four)) {
                    for (code, weight) in codes.iter().zip(weights) {
                        *dot += i32::from(*code) * i32::from(weight);
                    }
                }
            }
            for ((c, dot), scale) in c.iter_mut().zip(dots).zip(groups.scales(record, 0)) {
                *c = (dot as f32).mul_add(scale * left.scale, *c);
            }
            if groups.offset == Offset::With {
                for (c, offset) in c.iter_mut().zip(groups.scales(record, groups.places().0)) {
                    *c = offset.mul_add(left.scaled_sum, *c);
                }
            }
        }
    }
}

/// Most rows of a tile: 6 x 32 sums of integers and as many of floats fill 24 of the 32 AVX-512 registers.
pub(super) const ROWS: usize = 6;

/// Depth of one pass over many rows: 20 KiB of 4-bit weights stay in the first-level cache.
pub(super) const DEPTH: usize = 1024;

#[cfg(target_arch = "x86_64")]
pub(super) mod vnni {
    #![expect(unsafe_code, reason = "vector intrinsics on pointers")]

    use std::arch::x86_64::{
        __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_storeu_ps, _mm512_xor_si512,
    };

    use super::{Groups, IntegerTile, Offset, PANEL};
    use crate::matmul::coded::Code;
    use crate::matmul::coded_avx512::{ahead, scales, unsigned_nibbles};

    /// Whether this machine multiplies bytes in vectors.
    pub(in crate::matmul) fn available() -> bool {
        is_x86_feature_detected!("avx512vnni")
    }

    /// As [`super::add_row`], for up to 6 rows.
    ///
    /// # Safety
    /// The machine has AVX-512 with VNNI; `c` has `rows` rows of 32 values.
    pub(in crate::matmul) unsafe fn tile(
        groups: &Groups,
        t: IntegerTile<'_>,
        rows: usize,
        c: *mut f32,
        c_stride: usize,
    ) {
        let depth = t.records.len() / groups.record() * groups.len;
        let needed = |stride: usize, of_row: usize| (rows - 1) * stride + of_row;
        assert!(t.codes.len() >= needed(t.codes_stride, depth), "rows of codes");
        assert!(t.groups.len() >= needed(t.groups_stride, depth / groups.len), "rows of groups");
        // SAFETY: the operands are checked above, the rest is the caller's.
        unsafe {
            match groups.code {
                Code::Nibble(_) => rows_of::<Nibbles>(groups, t, rows, c, c_stride),
                Code::NibbleAndBit(_) => rows_of::<NibblesAndBits>(groups, t, rows, c, c_stride),
                Code::Byte => rows_of::<Bytes>(groups, t, rows, c, c_stride),
            }
        }
    }

    unsafe fn rows_of<C: Codes>(groups: &Groups, t: IntegerTile<'_>, rows: usize, c: *mut f32, c_stride: usize) {
        // SAFETY: as for `tile`.
        unsafe {
            match rows {
                1 => sums::<1, C>(groups, t, c, c_stride),
                2 => sums::<2, C>(groups, t, c, c_stride),
                3 => sums::<3, C>(groups, t, c, c_stride),
                4 => sums::<4, C>(groups, t, c, c_stride),
                5 => sums::<5, C>(groups, t, c, c_stride),
                _ => sums::<6, C>(groups, t, c, c_stride),
            }
        }
    }

    /// Unsigned codes of four neighbours in `k`.
    trait Codes {
        unsafe fn four(codes: *const u8, bits: *const u8, four: usize) -> [__m512i; 2];
    }

    struct Nibbles;
    impl Codes for Nibbles {
        #[inline(always)]
        unsafe fn four(codes: *const u8, _: *const u8, four: usize) -> [__m512i; 2] {
            // SAFETY: a record has 64 bytes for each four.
            unsafe { unsigned_nibbles(codes.add(four * 2 * PANEL), None) }
        }
    }

    struct NibblesAndBits;
    impl Codes for NibblesAndBits {
        #[inline(always)]
        unsafe fn four(codes: *const u8, bits: *const u8, four: usize) -> [__m512i; 2] {
            // SAFETY: as above, and 16 bytes of fifth bits.
            unsafe { unsigned_nibbles(codes.add(four * 2 * PANEL), Some(bits.add(four * 16))) }
        }
    }

    struct Bytes;
    impl Codes for Bytes {
        #[inline(always)]
        unsafe fn four(codes: *const u8, _: *const u8, four: usize) -> [__m512i; 2] {
            // SAFETY: a record has 128 bytes for each four.
            unsafe {
                let (at, sign) = (codes.add(four * 4 * PANEL), _mm512_set1_epi8(i8::MIN));
                let unsigned = |at: *const u8| _mm512_xor_si512(_mm512_loadu_si512(at.cast()), sign);
                [unsigned(at), unsigned(at.add(2 * PANEL))]
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn sums<const ROWS: usize, C: Codes>(groups: &Groups, t: IntegerTile<'_>, c: *mut f32, c_stride: usize) {
        let (offsets_at, codes_at, bits_at) = groups.places();
        let (lowest, with_offset) = (i32::from(groups.lowest()), groups.offset == Offset::With);
        // SAFETY: `tile` checked the operands; a record has codes for every four of a group.
        unsafe {
            let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                let c = c.add(r * c_stride);
                *sum = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
            }
            let (mut codes, mut left) = (t.codes.as_ptr(), t.groups.as_ptr());
            for record in t.records.chunks_exact(groups.record()) {
                let at = record.as_ptr();
                ahead(at, record.len());
                let mut dot = [[_mm512_setzero_si512(); 2]; ROWS];
                for (r, dot) in dot.iter_mut().enumerate() {
                    *dot = [_mm512_set1_epi32(lowest * (*left.add(r * t.groups_stride)).sum); 2];
                }
                for four in 0..groups.len / 4 {
                    let weights = C::four(at.add(codes_at), at.add(bits_at), four);
                    for (r, dot) in dot.iter_mut().enumerate() {
                        let a = codes.add(r * t.codes_stride + four * 4).cast::<i32>().read_unaligned();
                        let a = _mm512_set1_epi32(a);
                        dot[0] = _mm512_dpbusd_epi32(dot[0], weights[0], a);
                        dot[1] = _mm512_dpbusd_epi32(dot[1], weights[1], a);
                    }
                }
                let scale = scales(groups, at);
                for (r, (sum, dot)) in sum.iter_mut().zip(dot).enumerate() {
                    let s = _mm512_set1_ps((*left.add(r * t.groups_stride)).scale);
                    for half in 0..2 {
                        let dot = _mm512_cvtepi32_ps(dot[half]);
                        sum[half] = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale[half], s), sum[half]);
                    }
                }
                if with_offset {
                    let offset = scales(groups, at.add(offsets_at));
                    for (r, sum) in sum.iter_mut().enumerate() {
                        let s = _mm512_set1_ps((*left.add(r * t.groups_stride)).scaled_sum);
                        sum[0] = _mm512_fmadd_ps(offset[0], s, sum[0]);
                        sum[1] = _mm512_fmadd_ps(offset[1], s, sum[1]);
                    }
                }
                codes = codes.add(groups.len);
                left = left.add(1);
            }
            for (r, sum) in sum.iter().enumerate() {
                let c = c.add(r * c_stride);
                _mm512_storeu_ps(c, sum[0]);
                _mm512_storeu_ps(c.add(16), sum[1]);
            }
        }
    }
}
