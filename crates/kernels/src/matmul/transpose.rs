//! Lines side by side: what a tile reads at one depth next to each other.

use std::ops::Range;

use crate::Isa;

/// Writes the values `depths` of `count` lines, `stride` apart in `from`, to `out`: the values of one depth together, and
/// `step` values from one depth to the next.
pub(crate) fn transpose_lines(
    isa: Isa,
    from: &[f32],
    stride: usize,
    count: usize,
    depths: Range<usize>,
    step: usize,
    out: &mut [f32],
) {
    if depths.is_empty() {
        return;
    }
    let line = |line: usize| &from[line * stride..][depths.clone()];
    let mut first = 0;
    while first < count {
        let out = &mut out[first..];
        first += match count - first {
            8.. => {
                transpose_8(isa, std::array::from_fn(|i| line(first + i)), step, out);
                8
            }
            4..8 => {
                transpose_4(isa, std::array::from_fn(|i| line(first + i)), step, out);
                4
            }
            _ => {
                one_by_one(&[line(first)], 0, step, out);
                1
            }
        };
    }
}

/// Writes value `depth` of eight lines of one length to `out[depth * step..][..8]`.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no instructions for it"))]
pub(super) fn transpose_8(isa: Isa, lines: [&[f32]; 8], step: usize, out: &mut [f32]) {
    let fours = check(&lines, step, out);
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        #[expect(unsafe_code, reason = "run-time dispatch")]
        // SAFETY: the instructions were found on this machine; lines and room were checked.
        unsafe {
            x86::transpose_8(lines, fours, step, out);
        }
        return one_by_one(&lines, fours, step, out);
    }
    one_by_one(&lines, 0, step, out);
}

/// Writes value `depth` of four lines of one length to `out[depth * step..][..4]`.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no instructions for it"))]
pub(super) fn transpose_4(isa: Isa, lines: [&[f32]; 4], step: usize, out: &mut [f32]) {
    let fours = check(&lines, step, out);
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        #[expect(unsafe_code, reason = "run-time dispatch")]
        // SAFETY: the instructions were found on this machine; lines and room were checked.
        unsafe {
            x86::transpose_4(lines, fours, step, out);
        }
        return one_by_one(&lines, fours, step, out);
    }
    one_by_one(&lines, 0, step, out);
}

/// How many depths there are in whole fours.
///
/// # Panics
/// When lines differ in length or `out` has no room for them.
fn check(lines: &[&[f32]], step: usize, out: &[f32]) -> usize {
    let len = lines[0].len();
    assert!(lines.iter().all(|line| line.len() == len), "lines of one length");
    assert!(len == 0 || out.len() >= (len - 1) * step + lines.len(), "room for {len} x {step}");
    len / 4 * 4
}

/// The depths from `first` on.
fn one_by_one(lines: &[&[f32]], first: usize, step: usize, out: &mut [f32]) {
    for (i, line) in lines.iter().enumerate() {
        line.iter().enumerate().skip(first).for_each(|(depth, x)| out[depth * step + i] = *x);
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics on pointers")]
mod x86 {
    use std::arch::x86_64::{
        _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
        _mm256_castps128_ps256, _mm256_insertf128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };

    /// Eight lines, four of the first `depths` at a time.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_8(lines: [&[f32]; 8], depths: usize, step: usize, out: &mut [f32]) {
        let target = out.as_mut_ptr();
        // SAFETY: the caller has eight lines of at least `depths` values, a multiple of four, and room for them.
        unsafe {
            for depth in (0..depths).step_by(4) {
                let four = |line: usize| _mm_loadu_ps(lines[line].as_ptr().add(depth));
                let both = |low, high| _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(four(low)), four(high));
                let (a, b, c, d) = (both(0, 4), both(1, 5), both(2, 6), both(3, 7));
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let to = |i: usize| target.add((depth + i) * step);
                _mm256_storeu_ps(to(0), _mm256_shuffle_ps::<0x44>(ab, cd));
                _mm256_storeu_ps(to(1), _mm256_shuffle_ps::<0xee>(ab, cd));
                _mm256_storeu_ps(to(2), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
                _mm256_storeu_ps(to(3), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
            }
        }
    }

    /// Four lines, four of the first `depths` at a time.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_4(lines: [&[f32]; 4], depths: usize, step: usize, out: &mut [f32]) {
        let target = out.as_mut_ptr();
        // SAFETY: the caller has four lines of at least `depths` values, a multiple of four, and room for them.
        unsafe {
            for depth in (0..depths).step_by(4) {
                let four = |line: usize| _mm_loadu_ps(lines[line].as_ptr().add(depth));
                let (ab, cd) = (_mm_unpacklo_ps(four(0), four(1)), _mm_unpacklo_ps(four(2), four(3)));
                let (ab_high, cd_high) = (_mm_unpackhi_ps(four(0), four(1)), _mm_unpackhi_ps(four(2), four(3)));
                let to = |i: usize| target.add((depth + i) * step);
                _mm_storeu_ps(to(0), _mm_movelh_ps(ab, cd));
                _mm_storeu_ps(to(1), _mm_movehl_ps(cd, ab));
                _mm_storeu_ps(to(2), _mm_movelh_ps(ab_high, cd_high));
                _mm_storeu_ps(to(3), _mm_movehl_ps(cd_high, ab_high));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_to_its_place() {
        for (count, len, stride, step) in
            [(0, 5, 9, 12), (1, 7, 7, 12), (7, 0, 3, 12), (12, 13, 20, 12), (31, 9, 11, 32)]
        {
            let from = crate::noise(count * stride + 4, 7);
            for isa in Isa::available() {
                let mut out = vec![0.5; len * step];
                transpose_lines(isa, &from, stride, count, 2..2 + len, step, &mut out);
                for (i, x) in out.iter().enumerate() {
                    let (depth, line) = (i / step, i % step);
                    let expected = if line < count { from[line * stride + 2 + depth] } else { 0.5 };
                    assert_eq!(*x, expected, "{isa:?}: {count} lines of {len}, value {depth} of line {line}");
                }
            }
        }
    }
}
