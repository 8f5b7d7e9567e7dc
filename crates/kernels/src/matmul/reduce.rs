//! Products that are never held whole.

use std::cell::RefCell;

use rayon::prelude::*;

use super::left::Lefts;
use super::{Left, PANEL, Product, Right, Start, Target, rows_of_task};
use crate::{Buffer, Isa};

/// Columns of one piece: with 384 rows it stays in the second-level cache.
pub const PIECE: usize = 16 * PANEL;

thread_local! {
    /// The piece that a thread is at.
    static VALUES: RefCell<Buffer> = RefCell::default();
}

/// Reduces every row of `start + A · B` to a `T`, piece by piece: `of_piece(row, column, values)` is called for the
/// [`PIECE`] values of `row` from `column` on, which it may change, and `join` puts those of a row together from left to
/// right. Values and order depend on nothing else, so that a row alone and within a batch have the same result.
///
/// Only a piece of each thread exists at a time, and every part of `B` is read, or decoded, once for up to
/// 384 rows. A product without columns has no results.
///
/// # Panics
/// When an operand is too short for its shape, or a sum starts from what was kept.
pub fn reduce_rows<T: Copy + Send + Sync>(
    left: Left<'_>,
    right: Right<'_>,
    start: Start<'_>,
    of_piece: impl Fn(usize, usize, &mut [f32]) -> T + Sync,
    join: impl Fn(T, T) -> T + Sync,
) -> Vec<T> {
    let (isa, k, n) = (Isa::best(), right.k(), right.n());
    if n == 0 {
        return Vec::new();
    }
    left.check(k);
    right.check(start);
    assert!(!matches!(start, Start::Kept), "nothing is kept of a product that was never held");
    let of_rows = rows_of_task(left.m);
    let mut results = Vec::with_capacity(left.m);
    for first in (0..left.m).step_by(of_rows) {
        let rows = of_rows.min(left.m - first);
        let part = Left { data: &left.data[first * left.row_stride..], m: rows, row_stride: left.row_stride };
        let lefts = Lefts::of(isa, part, &[right], true);
        let pieces = (0..n.div_ceil(PIECE)).into_par_iter().map(|piece| {
            let column = piece * PIECE;
            let columns = PIECE.min(n - column);
            VALUES.with_borrow_mut(|values| {
                if values.len() < rows * PIECE {
                    values.resize(rows * PIECE);
                }
                // Columns are counted from the first of the product.
                let target = Target(values.as_mut_ptr().wrapping_sub(column));
                let product = Product { isa, operands: lefts.with(right), n, start, target, c_stride: PIECE };
                product.run(0..rows, column / PANEL..(column + columns).div_ceil(PANEL));
                let rows = values.chunks_exact_mut(PIECE).take(rows).enumerate();
                rows.map(|(row, values)| of_piece(first + row, column, &mut values[..columns])).collect::<Vec<T>>()
            })
        });
        let pieces: Vec<Vec<T>> = pieces.collect();
        let joined = (0..rows).into_par_iter().filter_map(|row| pieces.iter().map(|piece| piece[row]).reduce(&join));
        results.par_extend(joined.collect::<Vec<T>>());
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::{Packed, TASK_ROWS, Threads, matmul};

    /// Depends on every bit and on the order.
    fn mix(hash: u64, values: &[f32]) -> u64 {
        values.iter().fold(hash, |hash, x| (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn every_row_is_that_of_the_whole_product() {
        for (m, k, n) in [(1, 7, 3), (1, 64, PIECE), (5, 33, PIECE + 1), (TASK_ROWS + 30, 9, 2 * PIECE + 45)] {
            let values =
                |count: usize| (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
            let (a, b, bias) = (values(m * k), Packed::from_rows(&values(n * k), k, n), values(n));
            let left = Left { data: &a, m, row_stride: k };
            let mut whole = vec![0.0; m * n];
            matmul(left, b.view(), Start::Row(&bias), &mut whole, n, Threads::Pool);
            let expected: Vec<(usize, u64)> = whole
                .chunks_exact(n)
                .enumerate()
                .map(|(row, line)| {
                    let pieces = line.chunks(PIECE).enumerate().map(|(i, piece)| mix((row + i * PIECE) as u64, piece));
                    (row, pieces.reduce(|a, b| a.wrapping_mul(3).wrapping_add(b)).unwrap_or(0))
                })
                .collect();
            let found = reduce_rows(
                left,
                b.view().into(),
                Start::Row(&bias),
                |row, column, piece| (row, mix((row + column) as u64, piece)),
                |a, b| (a.0, a.1.wrapping_mul(3).wrapping_add(b.1)),
            );
            assert_eq!(found, expected, "{m} x {k} x {n}");
        }
    }
}
