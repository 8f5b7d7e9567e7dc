//! Kernels against their definitions, number by number, at lengths that are no multiple of anything.

use half::{bf16, f16};

use super::*;
use crate::noise;

const LENGTHS: [usize; 10] = [0, 1, 2, 15, 31, 33, 100, 1023, 1024, 2500];

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn sums_are_rounded_once() {
    for len in LENGTHS {
        let models: Vec<Vec<f32>> = (0..4).map(|seed| noise(len, seed)).collect();
        let weights = [0.3, -1.7, 0.25, 2.0];
        for count in 0..=4 {
            let inputs: Vec<&[f32]> = models[..count].iter().map(Vec::as_slice).collect();
            let (mut plain, mut from, mut each) = (vec![9.0; len], vec![9.0; len], vec![9.0; len]);
            let by_position: Vec<Vec<f64>> = weights.iter().map(|w| vec![*w; len]).collect();
            let by_position: Vec<&[f64]> = by_position[..count].iter().map(Vec::as_slice).collect();
            let base = &models[3];
            sum(&inputs, &weights[..count], &mut plain);
            sum_from(base, &inputs, &weights[..count], &mut from);
            sum_by_position(Some(base), &inputs, &by_position, &mut each);
            assert_eq!(from, each);
            for i in 0..len {
                let terms = inputs.iter().zip(weights);
                let exact: f64 = terms.clone().map(|(x, w)| w * f64::from(x[i])).sum();
                assert!((f64::from(plain[i]) - exact).abs() <= 1e-7 * exact.abs() + 1e-15, "{} {exact}", plain[i]);
                let b = f64::from(base[i]);
                let exact: f64 = b + terms.map(|(x, w)| w * (f64::from(x[i]) - b)).sum::<f64>();
                assert!((f64::from(from[i]) - exact).abs() <= 1e-7 * exact.abs() + 1e-15, "{} {exact}", from[i]);
            }
            sum_by_position(None, &inputs, &by_position, &mut each);
            plain.iter().zip(&each).for_each(|(a, b)| assert!((a - b).abs() <= 1e-6, "{a} {b}"));
        }
    }
}

#[test]
fn gram_has_all_products() {
    for len in LENGTHS {
        let (base, models): (_, Vec<Vec<f32>>) = (noise(len, 9), (0..3).map(|seed| noise(len, seed)).collect());
        let vectors: Vec<&[f32]> = models.iter().map(Vec::as_slice).collect();
        for base in [None, Some(base.as_slice())] {
            let (mut sums, mut columns) = (vec![1.0; pairs(3)], vec![1.0; pairs(3) * len]);
            add_gram(base, &vectors, &mut sums);
            add_column_gram(base, &vectors, &mut columns);
            let of = |m: usize, i: usize| f64::from(vectors[m][i]) - base.map_or(0.0, |base| f64::from(base[i]));
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (1, 2), (2, 2)] {
                let exact = 1.0 + (0..len).map(|i| of(a, i) * of(b, i)).sum::<f64>();
                assert!((sums[pair(a, b)] - exact).abs() < 1e-10, "{a} {b}");
                for i in 0..len {
                    assert!((columns[pair(a, b) * len + i] - 1.0 - of(a, i) * of(b, i)).abs() < 1e-12, "{a} {b} {i}");
                }
            }
        }
    }
}

#[test]
fn sizes_and_squares() {
    for len in LENGTHS {
        let values = double(&noise(len, 4));
        assert!((magnitudes(&values) - values.iter().map(|x| x.abs()).sum::<f64>()).abs() < 1e-10);
        assert!((squares(&values) - values.iter().map(|x| x * x).sum::<f64>()).abs() < 1e-10);
    }
}

#[test]
fn keys_are_ordered_as_sizes() {
    let (base, x) = (noise(2500, 1), noise(2500, 2));
    let mut keys = vec![0; 2500];
    difference_keys(&base, &x, &mut keys);
    for ((key, x), b) in keys.iter().zip(&x).zip(&base) {
        assert_eq!(f32::from_bits(*key), (x - b).abs());
        assert!(*key < KEY_LIMIT);
    }
    let models: Vec<Vec<f32>> = (0..3).map(|seed| noise(2500, seed)).collect();
    let mut views: Vec<&[f32]> = models.iter().map(Vec::as_slice).collect();
    spread_keys(&views, &mut keys);
    for (i, key) in keys.iter().enumerate() {
        let mean = views.iter().map(|x| f64::from(x[i])).sum::<f64>() / 3.0;
        let spread = views.iter().map(|x| (f64::from(x[i]) - mean).powi(2)).sum::<f64>();
        assert_eq!(f32::from_bits(*key), spread as f32, "{i}");
    }
    views = vec![views[0]; 3];
    spread_keys(&views, &mut keys);
    assert!(keys.iter().all(|key| *key == 0));
    spread_keys(&[&[f32::MAX], &[-f32::MAX]], &mut keys[..1]);
    assert_eq!(f32::from_bits(keys[0]), f32::MAX);
}

#[test]
fn keys_are_counted_and_found() {
    for len in LENGTHS {
        // Few different keys: several in each group, and groups without any.
        let keys: Vec<u32> =
            (0..len as u32).map(|i| 0x3f80_0000 | (i % 3) << 16 | (i * 7 % 5) | (i / 900) << 20).collect();
        let mut tables = vec![0; TABLES * UPPER];
        count_upper(&keys, &mut tables);
        let mut lower = vec![0; LOWER];
        let upper = 0x3f81;
        count_lower(&keys, upper, &mut lower);
        let mut found = vec![0; len];
        let count = collect_lower(&keys, upper, 100, &mut found);
        let expected: Vec<u32> =
            (100..).zip(&keys).filter(|(_, key)| **key >> 16 == upper).map(|(at, key)| key << 16 | at).collect();
        assert_eq!(found[..count], expected);
        let of_bin = |bin: usize| (0..TABLES).map(|table| tables[table * UPPER + bin]).sum::<u32>();
        assert_eq!(of_bin(upper as usize) as usize, expected.len());
        assert_eq!((0..UPPER).map(of_bin).sum::<u32>() as usize, len);
        for (low, count) in lower.iter().enumerate() {
            assert_eq!(*count, count_equal(&keys, upper << 16 | low as u32));
            assert_eq!(*count as usize, expected.iter().filter(|key| (**key >> 16) as usize == low).count());
        }
    }
}

#[test]
fn draws_are_even_and_independent() {
    let count = 1u32 << 20;
    let streams = [[1, 2, 3], [1, 2, 4], [1, 3, 3], [2, 2, 3]];
    for keys in streams {
        // 256 bins of 4096 each: chi squared has mean 255 and deviation 22.6.
        let mut bins = [0.0f64; 256];
        (0..count).for_each(|i| bins[(draw(keys, i) >> 24) as usize] += 1.0);
        let chi: f64 = bins.iter().map(|n| (n - 4096.0).powi(2) / 4096.0).sum();
        assert!((150.0..400.0).contains(&chi), "{chi}");
    }
    // Signs of the top bit agree half of the time, in 2^20 draws to within 512 (a deviation); neighbours too.
    let top = |keys, i| draw(keys, i) >> 31;
    let even = |agree: usize| assert!((agree as f64 - f64::from(count / 2)).abs() < 5.0 * 512.0, "{agree}");
    for (i, a) in streams.iter().enumerate() {
        for b in &streams[..i] {
            even((0..count).filter(|at| top(*a, *at) == top(*b, *at)).count());
        }
        for away in [1, 2, 64, 4096] {
            even((0..count).filter(|at| top(*a, *at) == top(*a, at + away)).count());
        }
    }
}

#[test]
fn what_is_kept() {
    for len in LENGTHS {
        let (base, x) = (noise(len, 1), noise(len, 2));
        let difference = |i: usize| f64::from(x[i]) - f64::from(base[i]);
        let (least, limit) = (0.25f32.to_bits(), 0.75f32.to_bits());
        let mut out = vec![9.0; len];
        keep_between(&base, &x, least, limit, 3.0, &mut out);
        for (i, found) in out.iter().enumerate() {
            let kept = (0.25..0.75).contains(&(x[i] - base[i]).abs());
            assert_eq!(*found, if kept { difference(i) * 3.0 } else { 0.0 });
        }
        let draws = Draws { keys: [4, 5, 6], first: 70 };
        keep_drawn(&base, &x, draws, 1 << 31, 2.0, &mut out);
        for (i, found) in out.iter().enumerate() {
            let kept = draw(draws.keys, 70 + i as u32) < 1 << 31;
            assert_eq!(*found, if kept { difference(i) * 2.0 } else { 0.0 });
        }
        let ranks: Vec<u32> = (0..len as u32).rev().collect();
        for inverse in [0.0, 1.0] {
            let ranked = Ranked { least: 0.2, step: 0.0001, inverse };
            keep_ranked(&base, &x, &ranks, ranked, draws, 2.0, &mut out);
            for (i, found) in out.iter().enumerate() {
                let p = 0.2 + 0.0001 * f64::from(ranks[i]);
                let kept = f64::from(draw(draws.keys, 70 + i as u32)) < p * 2.0f64.powi(32);
                let expected = if kept { difference(i) * 2.0 / if inverse == 1.0 { p } else { 1.0 } } else { 0.0 };
                assert!((found - expected).abs() <= 1e-12, "{found} {expected}");
            }
        }
    }
}

#[test]
fn elections() {
    let out = |differences: &[f64], weights: &[f64], undivided, protection| {
        let columns: Vec<&[f64]> = differences.chunks(1).collect();
        let mut out = [9.0];
        let election = Election { votes: weights, weights, undivided, lambda: 2.0, protection };
        elect(&[10.0], &columns, election, &mut out);
        out[0]
    };
    let none = Protection::None;
    assert_eq!(out(&[1.0, 3.0, -2.0], &[1.0, 1.0, 1.0], 0.0, none), 14.0);
    assert_eq!(out(&[1.0, 3.0, -2.0], &[1.0, 1.0, 1.0], f64::INFINITY, none), 18.0);
    assert_eq!(out(&[1.0, -1.0], &[0.5, 0.5], 0.0, none), 12.0);
    assert_eq!(out(&[0.0, -1.0], &[0.5, 0.5], 0.0, none), 8.0);
    assert_eq!(out(&[0.0, 0.0], &[0.5, 0.5], 0.0, none), 10.0);
    // Weights that sum to zero divide nothing.
    assert_eq!(out(&[2.0, -1.0], &[1.0, -1.0], 0.0, none), 16.0);
    assert_eq!(out(&[2.0, -2.5, 0.5], &[1.0, 1.0, -0.5], 0.0, Protection::UpTo(1.25)), 14.0);
    assert_eq!(out(&[2.0, -2.5, 0.5], &[1.0, 1.0, -0.5], 0.0, Protection::UpTo(1.2)), -1.0);
}

#[test]
fn differences_of_a_block() {
    let base = noise(1000, 1);
    let deltas: Vec<Vec<f64>> = (2..5).map(|seed| double(&noise(1000, seed))).collect();
    let views: Vec<&[f64]> = deltas.iter().map(Vec::as_slice).collect();
    let weights = [0.5, 0.25, 2.0];
    let mut out = vec![9.0; 1000];
    plain_sum(&base, &views, &weights, &mut out);
    for (i, found) in out.iter().enumerate() {
        let exact = f64::from(base[i]) + views.iter().zip(weights).map(|(d, w)| w * d[i]).sum::<f64>();
        assert!((f64::from(*found) - exact).abs() < 1e-6);
    }
    let election =
        Election { votes: &weights, weights: &weights, undivided: 0.0, lambda: 1.0, protection: Protection::None };
    elect(&base, &views, election, &mut out);
    for (i, found) in out.iter().enumerate() {
        let tally: f64 = views.iter().zip(weights).map(|(d, w)| w * d[i]).sum();
        let (mut sum, mut weight) = (0.0, 0.0);
        for (d, w) in views.iter().zip(weights) {
            if (d[i] > 0.0) == (tally >= 0.0) {
                (sum, weight) = (sum + w * d[i], weight + w);
            }
        }
        assert!((f64::from(*found) - f64::from(base[i]) - sum / weight).abs() < 1e-6);
    }
}

#[test]
fn steps_end_at_the_other() {
    let mut out = [9.0; 4];
    step_towards(&[1.0, 1.0, 1.0, 1.0], &[1.0, 3.0, -3.0, 1.25], 0.5, &mut out);
    assert_eq!(out, [1.0, 1.5, 0.5, 1.25]);
}

#[test]
fn halves_are_those_of_the_crate() {
    // Every bf16 with something below it: ties, what rounds up into the next exponent, infinities, NaN.
    let below = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let values: Vec<f32> = (0..1u32 << 16).flat_map(|high| below.map(|low| f32::from_bits(high << 16 | low))).collect();
    let mut bytes = vec![0; 2 * values.len()];
    let mut back = vec![0.0; values.len()];
    assert!(!f32_to_bf16(&values, &mut bytes));
    assert!(!bf16_to_f32(&bytes, &mut back));
    for (x, found) in values.iter().zip(&back) {
        let expected = bf16::from_f32(*x).to_f32();
        assert!(found.to_bits() == expected.to_bits() || (x.is_nan() && found.is_nan()), "{x} {found} {expected}");
    }
    assert!(!f32_to_f16(&values, &mut bytes));
    assert!(!f16_to_f32(&bytes, &mut back));
    for (x, found) in values.iter().zip(&back) {
        let expected = f16::from_f32(*x).to_f32();
        assert!(found.to_bits() == expected.to_bits() || (x.is_nan() && found.is_nan()), "{x} {found} {expected}");
    }
    let mut one = [0; 2];
    assert!(f32_to_f16(&[65_519.0], &mut one) && !f32_to_f16(&[65_520.0], &mut one));
    assert!(f32_to_bf16(&[3.39e38], &mut one) && !f32_to_bf16(&[f32::MAX], &mut one));
    for len in LENGTHS {
        let values = noise(len, 3);
        let (mut bytes, mut back) = (vec![0; 2 * len], vec![0.0; len]);
        assert!(f32_to_bf16(&values, &mut bytes));
        assert!(bf16_to_f32(&bytes, &mut back));
        assert!(f32_to_f16(&values, &mut bytes));
        assert!(f16_to_f32(&bytes, &mut back));
        assert!(values.iter().zip(&back).all(|(x, y)| f16::from_f32(*x).to_f32() == *y));
    }
}

#[test]
fn a_sum_of_halves_is_read_summed_and_rounded() {
    let coefficients = [0.3, -1.7, 0.5, 2.0, 1e-3, 0.25, 4.0];
    for (models, len) in [(0, 3), (1, 1), (2, 31), (2, 1000), (3, 64), (5, 77), (6, 33), (7, 130)] {
        let inputs: Vec<Vec<u8>> = (0..models).map(|model| stored_bf16(&noise(len, model as u32))).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let numbers: Vec<Vec<f32>> = inputs.iter().map(|bytes| from_bf16(bytes)).collect();
        let numbers: Vec<&[f32]> = numbers.iter().map(Vec::as_slice).collect();
        let mut summed = vec![0.0; len];
        sum(&numbers, &coefficients[..models], &mut summed);
        let mut out = vec![0; 2 * len];
        assert!(sum_bf16(&inputs, &coefficients[..models], &mut out));
        assert_eq!(out, stored_bf16(&summed), "{models} models, {len} numbers");
    }
    // What is read and what is stored has to be finite.
    let (one, nan, large) = (stored_bf16(&[1.0; 40]), stored_bf16(&[f32::NAN; 40]), stored_bf16(&[3e38; 40]));
    let mut out = vec![0; 80];
    assert!(!sum_bf16(&[&one, &nan], &[1.0, 1.0], &mut out));
    assert!(!sum_bf16(&[&large, &large], &[1.0, 1.0], &mut out));
    assert!(sum_bf16(&[&large, &one], &[1.0, 1.0], &mut out));
}

fn stored_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
}

fn from_bf16(bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / 2];
    bf16_to_f32(bytes, &mut values);
    values
}

#[test]
fn one_number_is_enough_to_be_not_finite() {
    for len in LENGTHS {
        let mut values = noise(len, 3);
        assert!(all_finite(&values));
        if let Some(last) = values.last_mut() {
            *last = f32::NAN;
            assert!(!all_finite(&values));
            values[len / 2] = f32::NEG_INFINITY;
            let part = &values[..=len / 2];
            assert!(!all_finite(part));
            let (mut bytes, mut back) = (vec![0; 2 * part.len()], vec![0.0; part.len()]);
            assert!(!f32_to_bf16(part, &mut bytes) && !bf16_to_f32(&bytes, &mut back));
            assert!(!f32_to_f16(part, &mut bytes) && !f16_to_f32(&bytes, &mut back));
        }
    }
}
