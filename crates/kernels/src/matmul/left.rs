//! Left operands: as they lie, or packed for the tiles.

use rayon::prelude::*;

use super::TILE_ROWS;
use crate::Buffer;

/// A left operand `A[m, k]`, row-major with a stride between rows.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Rows.
    pub m: usize,
    /// Distance between two rows.
    pub row_stride: usize,
}

/// Where a tile finds its rows: element (row, depth) is `rows[row * row_stride + depth * step]`.
#[derive(Clone, Copy)]
pub(super) struct TileRows<'a> {
    pub(super) rows: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) step: usize,
}

/// `A` in groups of 12 rows, `[m / 12][k][12]`, the last group padded with zeros: what a tile reads for one `k` lies in one
/// cache line. Rows a power of two apart would fall on each other in the cache.
pub(super) struct PackedLeft {
    k: usize,
    data: Buffer,
}

impl Left<'_> {
    /// Packs the first `k` columns, in parallel.
    pub(super) fn pack(&self, k: usize) -> PackedLeft {
        let group = TILE_ROWS * k;
        let mut data = Buffer::zeros(self.m.div_ceil(TILE_ROWS) * group);
        data.par_chunks_mut(group.max(1)).with_min_len(4).enumerate().for_each(|(index, out)| {
            let first = index * TILE_ROWS;
            let rows = TILE_ROWS.min(self.m - first);
            for row in (0..rows).step_by(4) {
                let line = |i: usize| &self.data[(first + row + i) * self.row_stride..][..k];
                if row + 4 <= rows {
                    interleave([line(0), line(1), line(2), line(3)], &mut out[row..]);
                } else {
                    for i in 0..rows - row {
                        line(i).iter().enumerate().for_each(|(depth, x)| out[depth * TILE_ROWS + row + i] = *x);
                    }
                }
            }
        });
        PackedLeft { k, data }
    }

    /// Rows from `row` on, from `depth` on.
    pub(super) fn tile(&self, row: usize, depth: usize) -> TileRows<'_> {
        TileRows { rows: &self.data[row * self.row_stride + depth..], row_stride: self.row_stride, step: 1 }
    }
}

impl PackedLeft {
    /// Rows from `row`, a multiple of 12, on, from `depth` on.
    pub(super) fn tile(&self, row: usize, depth: usize) -> TileRows<'_> {
        let first = row / TILE_ROWS * TILE_ROWS * self.k + depth * TILE_ROWS;
        TileRows { rows: &self.data[first..], row_stride: 1, step: TILE_ROWS }
    }
}

/// Writes value `depth` of four rows to `out[depth * 12..][..4]`.
fn interleave(rows: [&[f32]; 4], out: &mut [f32]) {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<4>());
    let fours = a.0.iter().zip(b.0).zip(c.0.iter().zip(d.0));
    let whole = a.0.len() * 4;
    for (((a, b), (c, d)), out) in fours.zip(out.chunks_mut(4 * TILE_ROWS)) {
        for i in 0..4 {
            out[i * TILE_ROWS..][..4].copy_from_slice(&[a[i], b[i], c[i], d[i]]);
        }
    }
    for (i, (((a, b), c), d)) in a.1.iter().zip(b.1).zip(c.1).zip(d.1).enumerate() {
        out[(whole + i) * TILE_ROWS..][..4].copy_from_slice(&[*a, *b, *c, *d]);
    }
}
