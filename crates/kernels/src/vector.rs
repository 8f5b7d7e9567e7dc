//! Sums, dot products and the exponential, with a fixed order of operations.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::isa::dispatch;

/// Partial sums of one row: value `i` goes to lane `i % 16`.
pub(crate) const LANES: usize = 16;

/// Adds sixteen partial sums in a fixed tree.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Sum of `f` of the values at each place of slices of one length, in sixteen interleaved partial sums.
#[inline(always)]
pub(crate) fn sum_of<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let [sum, _] = sums_of(slices, |values| [f(values), 0.0]);
    sum
}

/// Sums of `f` of the values at each place, two at a time, each as [`sum_of`].
///
/// Blocks have the length of the partial sums for the compiler to see, which otherwise makes no vectors of them.
#[inline(always)]
pub(crate) fn sums_of<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> [f32; 2]) -> [f32; 2] {
    let parts = slices.map(<[f32]>::as_chunks::<LANES>);
    let blocks = parts.iter().map(|(blocks, _)| blocks.len()).min().unwrap_or(0);
    let mut lanes = [[0.0; LANES]; 2];
    for i in 0..blocks {
        let block = parts.map(|(blocks, _)| &blocks[i]);
        for lane in 0..LANES {
            let [a, b] = f(block.map(|values| values[lane]));
            lanes[0][lane] += a;
            lanes[1][lane] += b;
        }
    }
    let rest = parts.map(|(_, rest)| rest);
    for lane in 0..rest.iter().map(|rest| rest.len()).min().unwrap_or(0) {
        let [a, b] = f(rest.map(|values| values[lane]));
        lanes[0][lane] += a;
        lanes[1][lane] += b;
    }
    lanes.map(sum_lanes)
}

/// The largest value; NaN is passed over, and of nothing it is -infinity.
#[inline(always)]
pub(crate) fn max_of(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 4 * LANES];
    let (blocks, rest) = values.as_chunks::<{ 4 * LANES }>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *x);
    }
    let mut width = lanes.len();
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

/// `a + b`, value by value.
#[must_use]
pub fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    const CHUNK: usize = 1 << 14;
    assert_eq!(a.len(), b.len(), "two of one length");
    let mut out = Vec::with_capacity(a.len());
    let spare = &mut out.spare_capacity_mut()[..a.len()];
    spare.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK)).for_each(|((out, a), b)| {
        add_chunk(a, b, out);
    });
    #[expect(unsafe_code, reason = "the loop above is the first to write there")]
    // SAFETY: the capacity is as large, and every value was written.
    unsafe {
        out.set_len(a.len());
    }
    out
}

dispatch! {
    fn add_chunk(a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            out.write(a + b);
        }
    }
}

/// `e^x` to about one unit in the last place; 0 below -87.3, infinity above 88.7.
///
/// Range reduction by powers of two and a polynomial of degree 6, in fused multiply-adds, so that scalar and vector
/// code agree.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    const LOW: f32 = -87.336_54;
    const HIGH: f32 = 88.722_83;
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    const WHOLE: f32 = 12_582_912.0;
    let clamped = x.clamp(LOW, HIGH);
    let power = (clamped * std::f32::consts::LOG2_E).round_ties_even();
    let r = power.mul_add(-LN2_LOW, power.mul_add(-LN2_HIGH, clamped));
    let p = 1.388_888_9e-3_f32;
    let p = p.mul_add(r, 8.333_334e-3);
    let p = p.mul_add(r, 4.166_666_6e-2);
    let p = p.mul_add(r, 1.666_666_7e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    // Two factors, because 2^128 is no float while the product may be one.
    // Between -126 and 128; added to 1.5 · 2^23 it is in the low bits. A cast would look for NaN, value by value.
    let power = (power + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
    let half = power >> 1;
    let scale = |e: i32| f32::from_bits(((e + 127) << 23).cast_unsigned());
    let value = p * scale(half) * scale(power - half);
    if x < LOW {
        0.0
    } else if x > HIGH {
        f32::INFINITY
    } else {
        value
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh x` to about 1e-7 absolute.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_is_close_to_the_library(x in -87.0f32..88.0) {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            prop_assert!(error < 3e-7, "exp({x}): relative error {error}");
        }

        #[test]
        fn sums_take_every_value_once(len in 0usize..100) {
            let expected: f32 = (0..len).map(|i| i as f32).sum();
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let ones = vec![1.0; len];
            prop_assert_eq!(sum_of([&values], |[x]| x), expected);
            prop_assert_eq!(sum_of([&values, &ones], |[x, one]| x + one), expected + len as f32);
            prop_assert_eq!(sums_of([&values], |[x]| [x, 1.0]), [expected, len as f32]);
        }

        #[test]
        fn the_largest_is_found_wherever_it_is(len in 1usize..300, at in 0usize..300) {
            let mut values = crate::noise(len, 3);
            values[at % len] = 2.0;
            values[(at + 1) % len] = f32::NAN;
            let expected = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(max_of(&values), expected);
        }
    }

    #[test]
    fn every_value_is_added_once() {
        for len in [0, 1, 100, (1 << 14) + 5] {
            let (a, b) = (crate::noise(len, 1), crate::noise(len, 2));
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            assert_eq!(add(&a, &b), expected);
        }
    }

    #[test]
    fn exp_at_its_ends() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!((tanh(0.5) - 0.5f32.tanh()).abs() < 2e-7);
    }
}
