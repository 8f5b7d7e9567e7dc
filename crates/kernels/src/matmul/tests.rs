//! Products against their definition.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests")]

use super::*;
use crate::noise;
use proptest::prelude::*;

/// The definition: one chain of fused multiply-adds per value.
fn reference(a: &[f32], b: &[f32], start: Option<&[f32]>, m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            let mut sum = start.map_or(0.0, |row| row[j]);
            for d in 0..k {
                sum = a[i * k + d].mul_add(b[d * n + j], sum);
            }
            c[i * n + j] = sum;
        }
    }
    c
}

proptest! {
    #[test]
    fn every_instruction_set_gives_the_reference_bits(
        m in 0usize..40, k in 0usize..600, n in 0usize..100, seed in 1u32..1000, bias in any::<bool>(),
    ) {
        let (a, b, row) = (noise(m * k, seed), noise(k * n, seed + 7), noise(n, seed + 11));
        let expected = reference(&a, &b, bias.then_some(&row[..]), m, k, n);
        let packed = Packed::from_rows(&b, k, n);
        let left = Left { data: &a, m, row_stride: k };
        let start = if bias { Start::Row(&row) } else { Start::Zero };
        for isa in Isa::available() {
            for threads in [Threads::One, Threads::Pool] {
                let mut c = vec![f32::NAN; m * n];
                let output = Output { right: Right::from(packed.view()), start, c: &mut c, c_stride: n };
 matmul_on(isa, left, &mut [output], threads);
                prop_assert_eq!(&c, &expected, "{:?}", isa);
            }
        }
    }

    #[test]
    fn both_packings_agree_and_columns_come_back(k in 1usize..70, n in 1usize..70, seed in 1u32..1000) {
        let w = noise(n * k, seed);
        let mut b = vec![0.0; k * n];
        transpose_into(&w, n, k, &mut b, n);
        let (by_rows, by_weight) = (Packed::from_rows(&b, k, n), Packed::from_transposed(&w, n, k));
        prop_assert_eq!(by_rows.view().data, by_weight.view().data);
        let mut column = vec![0.0; k];
        by_weight.column(n - 1, &mut column);
        prop_assert_eq!(&column[..], &w[(n - 1) * k..]);
    }
}

/// A coding of every kind: bytes, nibbles, nibbles with a fifth bit, 16-bit floats; scales of both widths.
fn codings() -> Vec<Coding> {
    let groups = |len, code, scale, offset| Coding::Groups(Groups { len, code, scale, offset });
    vec![
        Coding::F16,
        Coding::Bf16,
        groups(32, Code::Nibble(-8), Scale::F16, Offset::Without),
        groups(32, Code::Nibble(0), Scale::F32, Offset::With),
        groups(32, Code::NibbleAndBit(-16), Scale::F16, Offset::Without),
        groups(32, Code::NibbleAndBit(0), Scale::F32, Offset::With),
        groups(32, Code::Byte, Scale::F16, Offset::Without),
        groups(16, Code::Byte, Scale::F32, Offset::Without),
    ]
}

/// A coded matrix, and the same values as rows of `B`, `[k, n]`.
fn coded(coding: Coding, k: usize, n: usize, seed: u32) -> (Coded, Vec<f32>) {
    let mut coded = Coded::zeros(coding, k, n);
    let mut b = vec![0.0; k * n];
    let noise = noise(k * n, seed);
    match coding {
        Coding::F16 | Coding::Bf16 => {
            // Six bits of fraction: both kinds hold them.
            let value = |column: usize, depth: usize| (noise[column * k + depth] * 64.0).round() / 64.0;
            let filled = coded.fill_halves(|first, columns, rows| {
                for (at, x) in rows.iter_mut().enumerate() {
                    *x = value(first + at / k, at % k);
                }
                assert_eq!(rows.len(), columns * k);
                Ok::<(), ()>(())
            });
            filled.unwrap();
            for (at, x) in b.iter_mut().enumerate() {
                *x = value(at % n, at / n);
            }
        }
        Coding::Groups(groups) => {
            let codes = match groups.code {
                Code::Nibble(_) => 16,
                Code::NibbleAndBit(_) => 32,
                Code::Byte => 256,
            };
            let code = |column: usize, depth: usize| ((noise[column * k + depth] + 1.0) * 1000.0) as usize % codes;
            let scale = |column: usize, g: usize| ((column * 7 + g * 3) % 11) as f32 / 16.0 - 0.25;
            let offset = |column: usize, g: usize| ((column + g * 5) % 13) as f32 / 8.0 - 0.7;
            let of_column = k / groups.len;
            let filled = coded.fill_groups(|first, columns, rows| {
                for column in 0..columns {
                    for depth in 0..k {
                        rows.codes[column * k + depth] = code(first + column, depth) as u8;
                    }
                    for g in 0..of_column {
                        rows.scales[column * of_column + g] = scale(first + column, g);
                        rows.offsets[column * of_column + g] = offset(first + column, g);
                    }
                }
                Ok::<(), ()>(())
            });
            filled.unwrap();
            for (at, x) in b.iter_mut().enumerate() {
                let (depth, column) = (at / n, at % n);
                let q = code(column, depth);
                let v = match groups.code {
                    Code::Byte => f32::from(q as u8 as i8),
                    Code::Nibble(lowest) | Code::NibbleAndBit(lowest) => q as f32 + f32::from(lowest),
                };
                *x = v * scale(column, depth / groups.len);
                if groups.offset == Offset::With {
                    *x += offset(column, depth / groups.len);
                }
            }
        }
    }
    (coded, b)
}

proptest! {
    #[test]
    fn coded_weights_give_the_bits_of_decoded_ones(
        m in 1usize..20, groups in 1usize..24, n in 1usize..100, seed in 1u32..1000, bias in any::<bool>(),
    ) {
        let k = groups * 32;
        let (a, row) = (noise(m * k, seed), noise(n, seed + 11));
        for coding in codings() {
            let (coded, b) = coded(coding, k, n, seed + 3);
            let expected = reference(&a, &b, bias.then_some(&row[..]), m, k, n);
            let (decoded, packed) = (coded.to_packed(), Packed::from_rows(&b, k, n));
            prop_assert_eq!(decoded.view().data, packed.view().data);
            let left = Left { data: &a, m, row_stride: k };
            let start = if bias { Start::Row(&row) } else { Start::Zero };
            for isa in Isa::available() {
                let mut c = vec![f32::NAN; m * n];
                let output = Output { right: Right::from(&coded), start, c: &mut c, c_stride: n };
 matmul_on(isa, left, &mut [output], Threads::Pool);
                prop_assert_eq!(&c, &expected, "{:?}, {:?}", coding, isa);
            }
        }
    }
}

#[test]
fn several_products_at_once_are_each_their_own() {
    for m in [1, 5, 30] {
        let k = 320;
        let a = noise(m * k, 3);
        let left = Left { data: &a, m, row_stride: k };
        let widths = [96, 33, 0, 200];
        let matrices: Vec<Packed> = widths.iter().map(|n| Packed::from_rows(&noise(k * n, 7), k, *n)).collect();
        let mut together: Vec<Vec<f32>> = widths.iter().map(|n| vec![f32::NAN; m * n]).collect();
        let mut outputs: Vec<Output<'_>> = matrices
            .iter()
            .zip(&mut together)
            .map(|(b, c)| Output { right: b.view().into(), start: Start::Zero, c_stride: b.n(), c })
            .collect();
        matmul_each(left, &mut outputs, Threads::Pool);
        for (b, together) in matrices.iter().zip(together) {
            let mut alone = vec![f32::NAN; m * b.n()];
            matmul(left, b.view(), Start::Zero, &mut alone, b.n(), Threads::One);
            assert_eq!(together, alone, "{m} rows, {} columns", b.n());
        }
    }
}

/// More rows than a task takes, with a few left over, on packed rows and through the pool.
#[test]
fn many_rows_equal_the_definition() {
    let (m, k, n) = (387, 288, 70);
    let a = noise(m * k, 5);
    for coding in codings() {
        let (coded, b) = coded(coding, k, n, 9);
        let expected = reference(&a, &b, None, m, k, n);
        for isa in Isa::available() {
            let packed = coded.to_packed();
            for right in [Right::from(&coded), packed.view().into()] {
                let mut c = vec![f32::NAN; m * n];
                let output = Output { right, start: Start::Zero, c: &mut c, c_stride: n };
                matmul_on(isa, Left { data: &a, m, row_stride: k }, &mut [output], Threads::Pool);
                assert_eq!(c, expected, "{coding:?}, {isa:?}");
            }
        }
    }
}

#[test]
fn a_row_alone_equals_the_row_in_a_batch() {
    let (m, k, n) = (37, 515, 97);
    let (a, b) = (noise(m * k, 1), noise(k * n, 2));
    let packed = Packed::from_rows(&b, k, n);
    let mut all = vec![0.0; m * n];
    matmul(Left { data: &a, m, row_stride: k }, packed.view(), Start::Zero, &mut all, n, Threads::Pool);
    for row in 0..m {
        let mut one = vec![0.0; n];
        let left = Left { data: &a[row * k..][..k], m: 1, row_stride: k };
        matmul(left, packed.view(), Start::Zero, &mut one, n, Threads::One);
        assert_eq!(one, all[row * n..][..n], "row {row}");
    }
}

#[test]
fn kept_values_continue_the_sum() {
    let (m, k, n) = (5, 40, 33);
    let (a, b) = (noise(m * k, 3), noise(k * n, 4));
    let whole = reference(&a, &b, None, m, k, n);
    let mut c = vec![0.0; m * n];
    for half in 0..2 {
        let part = Packed::from_rows(&b[half * 20 * n..][..20 * n], 20, n);
        let left = Left { data: &a[half * 20..], m, row_stride: k };
        matmul(left, part.view(), Start::Kept, &mut c, n, Threads::One);
    }
    assert_eq!(c, whole);
}

/// The definition of the product in bytes, from the decoded codes of a weight.
fn integer_reference(a: &[f32], weight: &Coded, m: usize, start: Option<&[f32]>) -> Vec<f32> {
    let (k, n, groups) = (weight.k(), weight.n(), weight.groups().unwrap());
    let mut c = vec![0.0; m * n];
    let mut levels = vec![0; k * n];
    for panel in 0..n.div_ceil(PANEL) {
        for (g, record) in weight.panel(panel).1.chunks_exact(groups.record()).enumerate() {
            for four in 0..groups.len / 4 {
                let columns = groups.four(record, four).into_iter().enumerate().take(n - panel * PANEL);
                for (column, codes) in columns {
                    let first = (panel * PANEL + column) * k + g * groups.len + four * 4;
                    levels[first..][..4]
                        .copy_from_slice(&codes.map(|code| i32::from(code) + i32::from(groups.lowest())));
                }
            }
        }
    }
    for (row, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (column, c) in c.iter_mut().enumerate() {
            *c = start.map_or(0.0, |start| start[column]);
            let records = weight.panel(column / PANEL).1.chunks_exact(groups.record());
            let levels = levels[column * k..][..k].chunks_exact(groups.len);
            for ((values, levels), record) in row.chunks_exact(groups.len).zip(levels).zip(records) {
                let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                let codes: Vec<i32> = values.iter().map(|x| (x * inverse).round_ties_even() as i32).collect();
                let dot: i32 = codes.iter().zip(levels).map(|(code, level)| code * level).sum();
                let scale = groups.scales(record, 0)[column % PANEL];
                *c = (dot as f32).mul_add(scale * (largest / 127.0), *c);
                if groups.offset == Offset::With {
                    let offset = groups.scales(record, groups.places().0)[column % PANEL];
                    *c = offset.mul_add(largest / 127.0 * codes.iter().sum::<i32>() as f32, *c);
                }
            }
        }
    }
    c
}

proptest! {
    #[test]
    fn products_in_bytes_equal_their_definition_and_are_near_the_product_of_floats(
        m in 1usize..30, groups in 1usize..70, n in 1usize..100, seed in 1u32..1000, bias in any::<bool>(),
    ) {
        let k = groups * 32;
        let (a, row) = (noise(m * k, seed), noise(n, seed + 11));
        for coding in codings().into_iter().filter(|coding| matches!(coding, Coding::Groups(_))) {
            let (coded, b) = coded(coding, k, n, seed + 3);
            let expected = integer_reference(&a, &coded, m, bias.then_some(&row[..]));
            let floats = reference(&a, &b, bias.then_some(&row[..]), m, k, n);
            let start = if bias { Start::Row(&row) } else { Start::Zero };
            let right = Right::Coded(&coded, Arithmetic::Int8);
            for isa in Isa::available() {
                for threads in [Threads::One, Threads::Pool] {
                    let mut c = vec![f32::NAN; m * n];
                    let output = Output { right, start, c: &mut c, c_stride: n };
                    matmul_on(isa, Left { data: &a, m, row_stride: k }, &mut [output], threads);
                    prop_assert_eq!(&c, &expected, "{:?}, {:?}", coding, isa);
                }
            }
            // Rounding moves a value by half a step, 1 / 254, of at most 1: errors add up like a random walk.
            let largest = b.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let bound = 6.0 * largest * (k as f32).sqrt() / 254.0;
            for (c, float) in expected.iter().zip(&floats) {
                prop_assert!((c - float).abs() < bound, "{:?}: {} for {}, bound {}", coding, c, float, bound);
            }
        }
    }

    #[test]
    fn products_in_bf16_are_those_of_rounded_floats(
        m in 1usize..30, k in 1usize..600, n in 1usize..100, seed in 1u32..1000,
    ) {
        let a = noise(m * k, seed);
        let (coded, b) = coded(Coding::Bf16, k, n, seed + 3);
        let rounded: Vec<f32> = a.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
        let expected = reference(&rounded, &b, None, m, k, n);
        let right = Right::Coded(&coded, Arithmetic::Bf16);
        for isa in Isa::available() {
            for threads in [Threads::One, Threads::Pool] {
                let mut c = vec![f32::NAN; m * n];
                let output = Output { right, start: Start::Zero, c: &mut c, c_stride: n };
                matmul_on(isa, Left { data: &a, m, row_stride: k }, &mut [output], threads);
                for (c, expected) in c.iter().zip(&expected) {
                    prop_assert!((c - expected).abs() <= 1e-5 * k as f32, "{:?}: {} for {}", isa, c, expected);
                }
            }
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_not_hidden_by_rounding() {
    let (coded, _) = coded(codings()[2], 64, 5, 1);
    for hole in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut a = noise(128, 3);
        a[70] = hole;
        let mut c = vec![0.0; 10];
        let right = Right::Coded(&coded, Arithmetic::Int8);
        matmul_each(
            Left { data: &a, m: 2, row_stride: 64 },
            &mut [Output { right, start: Start::Zero, c: &mut c, c_stride: 5 }],
            Threads::One,
        );
        assert!(c[..5].iter().all(|x| x.is_finite()) && c[5..].iter().all(|x| x.is_nan()), "{c:?}");
    }
}
