//! Right-hand matrices of `f32` in panels.

use rayon::prelude::*;

use super::PANEL;
use crate::Buffer;

/// A right-hand matrix `B[k, n]` in panels of 32 columns.
#[derive(Clone)]
pub struct Packed {
    k: usize,
    n: usize,
    data: Buffer,
}

impl Packed {
    /// An all-zero matrix of `k` rows and `n` columns, to be filled with [`Packed::fill_columns`].
    #[must_use]
    pub fn zeros(k: usize, n: usize) -> Self {
        Self { k, n, data: Buffer::zeros(n.div_ceil(PANEL) * PANEL * k) }
    }

    /// Packs `B = Wᵀ` from a weight matrix `w` of `n` rows and `k` columns, row-major (the layout of a linear layer).
    #[must_use]
    pub fn from_transposed(w: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(w.len(), n * k, "weights of {n} x {k}");
        let mut packed = Self::zeros(k, n);
        packed.data.par_chunks_mut((PANEL * k).max(1)).enumerate().for_each(|(panel, block)| {
            let first = panel * PANEL;
            let rows = PANEL.min(n - first);
            transpose_into(&w[first * k..(first + rows) * k], rows, k, block, PANEL);
        });
        packed
    }

    /// Packs `B` from a row-major matrix of `k` rows and `n` columns.
    #[must_use]
    pub fn from_rows(b: &[f32], k: usize, n: usize) -> Self {
        assert_eq!(b.len(), k * n, "a matrix of {k} x {n}");
        let mut packed = Self::zeros(k, n);
        packed.data.par_chunks_mut((PANEL * k).max(1)).enumerate().for_each(|(panel, block)| {
            let first = panel * PANEL;
            let columns = PANEL.min(n - first);
            for (row, line) in block.chunks_exact_mut(PANEL).enumerate() {
                line[..columns].copy_from_slice(&b[row * n + first..][..columns]);
            }
        });
        packed
    }

    /// Fills whole panels in parallel: `fill(first_column, columns, rows)` must write `columns` consecutive columns of
    /// `B` (rows of a linear layer's weight), row-major `[columns, k]`, into `rows`.
    ///
    /// # Errors
    /// The first error of `fill`.
    pub fn fill_columns<E: Send>(
        &mut self,
        fill: impl Fn(usize, usize, &mut [f32]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let (k, n) = (self.k, self.n);
        self.data.par_chunks_mut((PANEL * k).max(1)).enumerate().try_for_each_init(
            || vec![0.0; PANEL * k],
            |rows, (panel, block)| {
                let first = panel * PANEL;
                let columns = PANEL.min(n - first);
                let rows = &mut rows[..columns * k];
                fill(first, columns, rows)?;
                transpose_into(rows, columns, k, block, PANEL);
                Ok(())
            },
        )
    }

    /// The values, panel after panel, for those who fill them.
    pub(super) fn panels_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The values of one panel, `[k][32]`.
    pub(super) fn panel(&self, panel: usize) -> &[f32] {
        &self.data[panel * PANEL * self.k..][..PANEL * self.k]
    }

    /// Rows of `B`: the depth of the sum.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of `B`.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// `B` as an operand.
    #[must_use]
    pub fn view(&self) -> Panels<'_> {
        Panels { data: &self.data, k: self.k, n: self.n, row_stride: PANEL, panel_stride: PANEL * self.k }
    }

    /// Writes column `column` of `B` (one row of a linear layer's weight) into `out`, `[k]`.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        let panel = &self.data[column / PANEL * PANEL * self.k..];
        for (row, x) in out.iter_mut().enumerate().take(self.k) {
            *x = panel[row * PANEL + column % PANEL];
        }
    }
}

/// A right operand `B[k, n]`: its panels of 32 columns, wherever they lie.
///
/// Element (row, column) is `data[column / 32 * panel_stride + row * row_stride + column % 32]`; every panel, the last
/// one too, is 32 values wide.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Rows: the depth of the sum.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Distance between two rows of a panel.
    pub row_stride: usize,
    /// Distance between two panels.
    pub panel_stride: usize,
}

impl<'a> Panels<'a> {
    /// `k` rows of `n` values as they lie, `stride` apart; nothing where the last panel would reach past a row's end.
    #[must_use]
    pub fn of_rows(data: &'a [f32], k: usize, n: usize, stride: usize) -> Option<Self> {
        n.is_multiple_of(PANEL).then_some(Self { data, k, n, row_stride: stride, panel_stride: PANEL })
    }

    /// # Panics
    /// When the values are too few for the shape.
    pub(super) fn check(&self) {
        let last = self.n.div_ceil(PANEL).saturating_sub(1) * self.panel_stride;
        let (k, n) = (self.k, self.n);
        assert!(k == 0 || self.data.len() >= last + (k - 1) * self.row_stride + PANEL, "B of {k} x {n}");
    }
}

/// Transposes `rows` x `columns` (row-major) into `out`, where row `c` of the transpose starts at `c * out_stride`.
pub fn transpose_into(from: &[f32], rows: usize, columns: usize, out: &mut [f32], out_stride: usize) {
    const BLOCK: usize = 16;
    for column in (0..columns).step_by(BLOCK) {
        let width = BLOCK.min(columns - column);
        for row in 0..rows {
            let line = &from[row * columns + column..][..width];
            for (i, x) in line.iter().enumerate() {
                out[(column + i) * out_stride + row] = *x;
            }
        }
    }
}
