//! Keys and values in the layouts that the products of attention read.

use rayon::prelude::*;

use super::{Rows, Shape, first_of};
use crate::matmul::{PANEL, Panels, transpose_lines};
use crate::{Buffer, Isa};

/// Keys and values of one head of one sequence, in the layouts that the products read.
#[derive(Clone, Default)]
pub struct KeyValues {
    head_dim: usize,
    /// Position of the first stored key; a multiple of 32.
    first: usize,
    /// Position after the last key.
    end: usize,
    /// Panels of 32 positions, `[positions / 32][head_dim][32]`.
    keys: Buffer,
    /// `[positions][head_dim rounded up to 32]`
    values: Buffer,
}

impl KeyValues {
    /// No keys yet.
    #[must_use]
    pub fn new(head_dim: usize) -> Self {
        Self { head_dim, ..Self::default() }
    }

    /// Keys and values of a whole sequence: `rows` rows of `keys` and `values` with `stride` between them.
    #[must_use]
    pub fn from_rows(head_dim: usize, keys: &[f32], values: &[f32], stride: usize, rows: usize) -> Self {
        let mut kv = Self::new(head_dim);
        kv.append(keys, values, stride, rows);
        kv
    }

    /// Appends `rows` positions.
    pub fn append(&mut self, keys: &[f32], values: &[f32], stride: usize, rows: usize) {
        let (d, width) = (self.head_dim, self.value_stride());
        let stored = self.end - self.first;
        self.keys.resize((stored + rows).div_ceil(PANEL) * PANEL * d);
        self.values.resize((stored + rows) * width);
        let mut row = 0;
        while row < rows {
            let at = stored + row;
            let count = (PANEL - at % PANEL).min(rows - row);
            let panel = &mut self.keys[at / PANEL * PANEL * d..][..PANEL * d];
            transpose_lines(Isa::best(), &keys[row * stride..], stride, count, 0..d, PANEL, &mut panel[at % PANEL..]);
            row += count;
        }
        for row in 0..rows {
            self.values[(stored + row) * width..][..d].copy_from_slice(&values[row * stride..][..d]);
        }
        self.end += rows;
    }

    /// Holds the keys and values of another whole sequence, in the memory that is there.
    pub(super) fn refill(&mut self, head_dim: usize, keys: &[f32], values: &[f32], stride: usize, rows: usize) {
        if self.head_dim == head_dim && self.first == 0 {
            self.truncate(0);
        } else {
            *self = Self::new(head_dim);
        }
        self.append(keys, values, stride, rows);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.head_dim);
    }

    /// Forgets positions from `end` on.
    ///
    /// # Panics
    /// When positions before `end` have been dropped already.
    pub fn truncate(&mut self, end: usize) {
        if end >= self.end {
            return;
        }
        assert!(end >= self.first, "position {end} has left the window");
        let stored = end - self.first;
        let d = self.head_dim;
        self.keys.resize(stored.div_ceil(PANEL) * PANEL * d);
        if !stored.is_multiple_of(PANEL) {
            // The rest of the last panel must be zeros again: it is multiplied, and only then masked.
            let last = stored / PANEL * PANEL * d;
            for line in self.keys[last..].chunks_exact_mut(PANEL) {
                line[stored % PANEL..].fill(0.0);
            }
        }
        let width = self.value_stride();
        self.values.resize(stored * width);
        self.end = end;
    }

    /// Drops whole panels before `position`, which no later query will see.
    pub fn drop_before(&mut self, position: usize) {
        let whole = position.min(self.end).saturating_sub(self.first) / PANEL * PANEL;
        if whole > 0 {
            self.keys.drop_front(whole * self.head_dim);
            let width = self.value_stride();
            self.values.drop_front(whole * width);
            self.first += whole;
        }
    }

    /// Positions seen so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Position of the first key still stored.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }

    /// Bytes that a position takes in heads of this width.
    #[must_use]
    pub fn bytes_per_position(head_dim: usize) -> usize {
        size_of::<f32>() * (head_dim + Self::new(head_dim).value_stride())
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    fn value_stride(&self) -> usize {
        self.head_dim.div_ceil(PANEL) * PANEL
    }

    /// `Kᵀ` of the positions `from..to`, `[head_dim, to - from]`; `from` is a multiple of 32 from the first.
    pub(super) fn keys_view(&self, from: usize, to: usize) -> Panels<'_> {
        let panel = PANEL * self.head_dim;
        Panels {
            data: &self.keys[(from - self.first) / PANEL * panel..],
            k: self.head_dim,
            n: to - from,
            row_stride: PANEL,
            panel_stride: panel,
        }
    }

    /// `V` of the positions `from..to`, `[to - from, head_dim]`.
    pub(super) fn values_view(&self, from: usize, to: usize) -> Panels<'_> {
        let stride = self.value_stride();
        Panels {
            data: &self.values[(from - self.first) * stride..],
            k: to - from,
            n: self.head_dim,
            row_stride: stride,
            panel_stride: PANEL,
        }
    }
}

/// Keys and values of every head of sequences that begin here: `[sequences · kv_heads]` of packed rows `k` and `v`,
/// `[tokens, kv_heads · head_dim]`.
#[must_use]
pub fn key_values(shape: &Shape, sequences: &[Rows], k: &[f32], v: &[f32]) -> Vec<KeyValues> {
    let of_head = |i: usize| {
        let rows = &sequences[i / shape.kv_heads];
        if rows.len == 0 {
            return KeyValues::new(shape.head_dim);
        }
        let (first, stride) = first_of(shape, rows, i % shape.kv_heads);
        KeyValues::from_rows(shape.head_dim, &k[first..], &v[first..], stride, rows.len)
    };
    (0..sequences.len() * shape.kv_heads).into_par_iter().map(of_head).collect()
}
