use proptest::prelude::*;

use super::super::{Arithmetic, Code, Coding, Groups, Offset, Packed, Scale};
use super::*;
use crate::noise;

/// A matrix that lies row by row or column by column, and its value at (row, column).
fn laid(values: &[f32], rows: usize, columns: usize, transposed: bool) -> Matrix<'_> {
    if transposed { Matrix::new(values, columns, rows).transposed() } else { Matrix::new(values, rows, columns) }
}

fn at(matrix: Matrix<'_>, row: usize, column: usize) -> f32 {
    match matrix.order {
        Order::Rows => matrix.data[row * matrix.columns + column],
        Order::Columns => matrix.data[column * matrix.rows + row],
    }
}

/// The definition.
fn reference(terms: &[(Matrix<'_>, Matrix<'_>)]) -> Vec<f32> {
    let (m, n) = (terms[0].0.rows, terms[0].1.columns);
    let mut out = vec![0.0f32; m * n];
    for (i, out) in out.iter_mut().enumerate() {
        for (a, b) in terms {
            for k in 0..a.columns {
                *out = at(*a, i / n, k).mul_add(at(*b, k, i % n), *out);
            }
        }
    }
    out
}

/// A bf16 weight `[n, k]`, row by row, multiplied so.
fn halves(w: &[f32], n: usize, k: usize, arithmetic: Arithmetic) -> Weight {
    let mut halves = Coded::zeros(Coding::Bf16, k, n);
    let filled = halves.fill_halves(|first, count, rows| {
        rows.copy_from_slice(&w[first * k..(first + count) * k]);
        Ok::<_, ()>(())
    });
    filled.expect("filled");
    Weight::Coded(halves, arithmetic)
}

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn equals_the_chain(
        m in 0usize..60, n in 0usize..80, k in 0usize..40, more in 0usize..9, orders in 0u8..16, seed in 1u32..99,
    ) {
        let (a, b) = (noise(m * k, seed), noise(k * n, seed + 1));
        let (a2, b2) = (noise(m * more, seed + 2), noise(more * n, seed + 3));
        let order = |bit: u8| orders >> bit & 1 == 1;
        let terms = [
            (laid(&a, m, k, order(0)), laid(&b, k, n, order(1))),
            (laid(&a2, m, more, order(2)), laid(&b2, more, n, order(3))),
        ];
        for isa in Isa::available() {
            prop_assert_eq!(bits(&product_on(isa, &terms)), bits(&reference(&terms)), "{:?}", isa);
        }
    }
}

/// Weights that lie packed or coded for the forward pass give the bits of the matrix that they decode to.
#[test]
fn weights_are_turned_on_the_way() {
    for (m, n, k) in [(5, 7, 33), (40, 70, 160), (9, 600, 32), (90, 700, 130)] {
        let (g, w) = (noise(m * n, 1), noise(n * k, 2));
        let (g2, w2) = (noise(m * 3, 3), noise(3 * k, 4));
        let left = laid(&g, m, n, false);
        let groups = Groups { len: 32, code: Code::Byte, scale: Scale::F32, offset: Offset::With };
        let mut bytes = Coded::zeros(Coding::Groups(groups), k.next_multiple_of(32), n);
        bytes
            .fill_groups(|first, _, rows| {
                rows.codes.iter_mut().enumerate().for_each(|(i, code)| *code = ((first + i) * 7 % 251) as u8);
                rows.scales.iter_mut().enumerate().for_each(|(i, scale)| *scale = 0.01 + (i % 5) as f32);
                rows.offsets.iter_mut().enumerate().for_each(|(i, offset)| *offset = (i % 3) as f32 - 1.0);
                Ok::<_, ()>(())
            })
            .expect("filled");
        let weights = [
            Weight::Floats(Packed::from_transposed(&w, n, k)),
            halves(&w, n, k, Arithmetic::F32),
            Weight::Coded(bytes, Arithmetic::F32),
        ];
        for weight in &weights {
            let k = weight.k();
            let packed = weight.to_packed();
            let mut rows = vec![0.0; n * k];
            rows.chunks_exact_mut(k).enumerate().for_each(|(i, row)| packed.column(i, row));
            let w2 = &w2.repeat(2)[..3 * k];
            let more = (laid(&g2, m, 3, false), laid(w2, 3, k, false));
            let expected = reference(&[(left, laid(&rows, n, k, false)), more]);
            let terms = [(left, Factor::Weight(weight)), (more.0, Factor::Matrix(more.1))];
            for isa in Isa::available() {
                assert_eq!(bits(&product_on(isa, &terms)), bits(&expected), "{isa:?}: {m} {n} {k}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Terms in bf16 beside terms in f32: the chain over rounded values, to the bit where there is no instruction for
    /// pairs and to rounding where there is.
    #[test]
    fn terms_in_bf16_are_chains_of_rounded_values(
        m in 1usize..60, n in 1usize..80, k in 1usize..70, more in 0usize..9, orders in 0u8..16, seed in 1u32..99,
    ) {
        let (a, b) = (noise(m * k, seed), noise(k * n, seed + 1));
        let (a2, b2) = (noise(m * more, seed + 2), noise(more * n, seed + 3));
        let order = |bit: u8| orders >> bit & 1 == 1;
        let weight = halves(&b, k, n, Arithmetic::Bf16);
        let exact = (laid(&a2, m, more, order(2)), laid(&b2, more, n, order(3)));
        let (ra, rb) = (rounded(&a), rounded(&b));
        // A weight lies row by row.
        for (as_weight, by_columns) in [(false, order(1)), (true, false)] {
            let expected = reference(&[(laid(&ra, m, k, order(0)), laid(&rb, k, n, by_columns)), exact]);
            let matrix = Factor::of(laid(&b, k, n, by_columns), Arithmetic::Bf16);
            let right = if as_weight { Factor::Weight(&weight) } else { matrix };
            let terms = [(laid(&a, m, k, order(0)), right), (exact.0, Factor::Matrix(exact.1))];
            for isa in Isa::available() {
                let found = product_on(isa, &terms);
                if are_multiplied(isa) {
                    for (found, expected) in found.iter().zip(&expected) {
                        prop_assert!((found - expected).abs() < 1e-5 * (k + more) as f32, "{} {}", found, expected);
                    }
                } else {
                    prop_assert_eq!(bits(&found), bits(&expected), "{:?}", isa);
                }
            }
        }
    }
}

/// Values of few bits have exact sums: several blocks of depth, rows of several tasks, an odd last depth, an incomplete
/// panel, and any number of threads.
#[test]
fn pairs_of_exact_values_have_the_exact_sum() {
    let (m, n, k) = (TASK_ROWS + 25, PANEL * (TASK_PANELS + 1) + 7, 2 * DEPTH + 3);
    let whole = |len: usize, by: usize| -> Vec<f32> { (0..len).map(|i| (i * by % 31) as f32 - 15.0).collect() };
    let (a, b) = (whole(m * k, 7), whole(k * n, 11));
    let (at, bt) = (laid(&a, m, k, false), laid(&b, k, n, true));
    let expected = reference(&[(at, bt)]);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = pool.install(|| product(&[(at, Factor::Rounded(bt))]));
        assert!(found == expected, "{threads} threads");
    }
}

/// What is in the rounded half of a bf16 product does not depend on the threads or on how many rows there are.
#[test]
fn pairs_do_not_depend_on_rows_or_threads() {
    let (m, n, k) = (70, 90, 301);
    let (a, b) = (noise(m * k, 5), noise(k * n, 6));
    let of = |rows: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let (a, b) = (laid(&a[..rows * k], rows, k, false), laid(&b, k, n, false));
        pool.install(|| bits(&product(&[(a, Factor::Rounded(b))])))
    };
    let all = of(m, 1);
    assert_eq!(of(m, 3), all);
    assert_eq!(of(5, 2), all[..5 * n]);
}

/// More rows than a task takes, more panels than are packed together, and several blocks of depth.
#[test]
fn blocks_continue_the_chain() {
    let wide = PANEL * TASK_PANELS * (CHUNKS + 1) + 7;
    for (m, n, k) in [(TASK_ROWS + 25, PANEL * (TASK_PANELS + 1) + 7, 2 * DEPTH + 3), (13, wide, DEPTH + 33)] {
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let expected = reference(&[(laid(&a, m, k, true), laid(&b, k, n, true))]);
        let (at, bt) = (laid(&a, m, k, true), laid(&b, k, n, true));
        let many = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
        assert_eq!(bits(&many.install(|| product(&[(at, bt)]))), bits(&expected));
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        assert_eq!(bits(&one.install(|| product(&[(at, bt)]))), bits(&expected));
    }
}
