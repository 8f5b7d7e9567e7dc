//! Matrix products on panels of 32 columns.
//!
//! `C[m, n] = init + A[m, k] · B[k, n]`. Each value of `C` is **one chain of fused multiply-adds over k in rising
//! order**, starting from `init`. That order is the definition; blocking over `k` continues the chain from memory, so
//! a product of one row and the same row within a batch of 500 have equal bits on every instruction set and with any
//! number of threads.
//!
//! `B` is stored in panels of [`PANEL`] columns (`[n / 32][k][32]`, the last panel padded with zeros): weights are
//! packed once when a model opens, and both a single-row product and a large one then read memory in order.

use rayon::prelude::*;

use crate::{Buffer, Isa};

/// Columns of one panel.
pub const PANEL: usize = 32;

/// Rows of one register tile: 12 x 32 floats fill 24 of the 32 AVX-512 registers.
const TILE_ROWS: usize = 12;

/// Depth of one pass: a panel block of 256 x 32 floats (32 KiB) stays in the first-level cache.
const DEPTH: usize = 256;

/// Rows that one task takes: the block of `A` stays in the second-level cache while panels pass by.
const TASK_ROWS: usize = 32 * TILE_ROWS;

/// Products below this many multiply-adds are not worth waking another thread.
const PARALLEL_FROM: usize = 1 << 17;

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
    pub fn view(&self) -> Right<'_> {
        Right { data: &self.data, k: self.k, n: self.n, row_stride: PANEL, panel_stride: PANEL * self.k }
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
pub struct Right<'a> {
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

/// What the sums start from.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Zero.
    Zero,
    /// One value per column (a bias), `[n]`.
    Row(&'a [f32]),
    /// The values already in `C`.
    Kept,
}

/// Which threads a product may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread only (the caller is one of many tasks).
    One,
    /// The rayon pool, when the product is large enough.
    Pool,
}

/// `C = start + A · B`, with `C` row-major `[m, n]` and `c_stride` values between its rows.
///
/// # Panics
/// When an operand is too short for its shape.
pub fn matmul(left: Left<'_>, right: Right<'_>, start: Start<'_>, c: &mut [f32], c_stride: usize, threads: Threads) {
    matmul_on(Isa::best(), left, right, start, c, c_stride, threads);
}

fn matmul_on(
    isa: Isa,
    left: Left<'_>,
    right: Right<'_>,
    start: Start<'_>,
    c: &mut [f32],
    c_stride: usize,
    threads: Threads,
) {
    let (m, n, k) = (left.m, right.n, right.k);
    if m == 0 || n == 0 {
        return;
    }
    assert!(c_stride >= n && c.len() >= (m - 1) * c_stride + n, "C of {m} x {n} in {} values", c.len());
    assert!(left.row_stride >= k && (k == 0 || left.data.len() >= (m - 1) * left.row_stride + k), "A of {m} x {k}");
    let panels = n.div_ceil(PANEL);
    assert!(
        k == 0 || right.data.len() >= (panels - 1) * right.panel_stride + (k - 1) * right.row_stride + PANEL,
        "B of {k} x {n}"
    );
    if let Start::Row(row) = start {
        assert_eq!(row.len(), n, "start row");
    }

    let product = Product { isa, left, right, start, c_stride };
    let target = Target(c.as_mut_ptr());
    if threads == Threads::One || m * n * k < PARALLEL_FROM {
        product.run(target, 0..m, 0..panels);
        return;
    }
    let workers = rayon::current_num_threads();
    let row_tasks = m.div_ceil(TASK_ROWS);
    // About four tasks a worker even out uneven cores.
    let panel_tasks = (4 * workers).div_ceil(row_tasks).clamp(1, panels);
    (0..row_tasks * panel_tasks).into_par_iter().for_each(|task| {
        let (panel_task, row_task) = (task / row_tasks, task % row_tasks);
        let rows = row_task * TASK_ROWS..m.min((row_task + 1) * TASK_ROWS);
        let first = panel_task * panels / panel_tasks;
        let last = (panel_task + 1) * panels / panel_tasks;
        product.run(target, rows, first..last);
    });
}

/// `C` shared by tasks that each write their own rectangle of it.
#[derive(Clone, Copy)]
struct Target(*mut f32);
#[expect(unsafe_code, reason = "tasks write disjoint rectangles of one matrix")]
// SAFETY: `matmul_on` gives every task its own rows and panels, checked against the length of `C`.
unsafe impl Send for Target {}
#[expect(unsafe_code, reason = "tasks write disjoint rectangles of one matrix")]
// SAFETY: as above.
unsafe impl Sync for Target {}

struct Product<'a> {
    isa: Isa,
    left: Left<'a>,
    right: Right<'a>,
    start: Start<'a>,
    c_stride: usize,
}

impl Product<'_> {
    /// Computes the rectangle `rows` x `panels` of `C`.
    #[expect(unsafe_code, reason = "the inner loop works on pointers")]
    fn run(&self, target: Target, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        let k = self.right.k;
        let mut edge = [0.0f32; TILE_ROWS * PANEL];
        for panel in panels {
            let first = panel * PANEL;
            let columns = PANEL.min(self.right.n - first);
            for depth in (0..k.max(1)).step_by(DEPTH) {
                let depth_len = DEPTH.min(k - depth);
                let mut row = rows.start;
                while row < rows.end {
                    let tile_rows = TILE_ROWS.min(rows.end - row);
                    // SAFETY: `matmul_on` checked that A, B and C hold the rectangle; a tile of fewer than 32 columns
                    // goes through `edge`, which is a whole tile; rectangles of different tasks are disjoint.
                    unsafe {
                        let c = target.0.add(row * self.c_stride + first);
                        let (tile, stride) =
                            if columns == PANEL { (c, self.c_stride) } else { (edge.as_mut_ptr(), PANEL) };
                        if depth == 0 {
                            self.start_tile(c, tile, stride, tile_rows, first, columns);
                        } else if columns < PANEL {
                            copy_tile(c, self.c_stride, tile, stride, tile_rows, columns);
                        }
                        if depth_len > 0 {
                            let a = self.left.data.as_ptr().add(row * self.left.row_stride + depth);
                            let b = self
                                .right
                                .data
                                .as_ptr()
                                .add(panel * self.right.panel_stride + depth * self.right.row_stride);
                            let operands = Tile {
                                k: depth_len,
                                a,
                                a_stride: self.left.row_stride,
                                b,
                                b_stride: self.right.row_stride,
                                c: tile,
                                c_stride: stride,
                            };
                            tile_kernel(self.isa, tile_rows, operands);
                        }
                        if columns < PANEL {
                            copy_tile(tile, stride, c, self.c_stride, tile_rows, columns);
                        }
                    }
                    row += tile_rows;
                }
            }
        }
    }

    /// Writes the start values of one tile.
    #[expect(unsafe_code, reason = "the inner loop works on pointers")]
    unsafe fn start_tile(&self, c: *mut f32, tile: *mut f32, stride: usize, rows: usize, first: usize, columns: usize) {
        // SAFETY: the caller gives a tile of `rows` rows of at least `columns` values at both places.
        unsafe {
            match self.start {
                Start::Zero => (0..rows).for_each(|r| std::ptr::write_bytes(tile.add(r * stride), 0, columns)),
                Start::Row(row) => (0..rows).for_each(|r| {
                    std::ptr::copy_nonoverlapping(row.as_ptr().add(first), tile.add(r * stride), columns);
                }),
                Start::Kept if c == tile => {}
                Start::Kept => copy_tile(c, self.c_stride, tile, stride, rows, columns),
            }
        }
    }
}

#[expect(unsafe_code, reason = "the inner loop works on pointers")]
unsafe fn copy_tile(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize, rows: usize, columns: usize) {
    for r in 0..rows {
        // SAFETY: the caller gives tiles of at least `rows` x `columns` that do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.add(r * from_stride), to.add(r * to_stride), columns) };
    }
}

/// Operands of one register tile: `C[rows, 32] += A[rows, k] · B[k, 32]`.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
}

#[expect(unsafe_code, reason = "run-time dispatch")]
unsafe fn tile_kernel(isa: Isa, rows: usize, tile: Tile) {
    // SAFETY: `isa` was detected on this machine; the operands are the caller's.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => match rows {
                12 => x86::tile_avx512::<12>(tile),
                11 => x86::tile_avx512::<11>(tile),
                10 => x86::tile_avx512::<10>(tile),
                9 => x86::tile_avx512::<9>(tile),
                8 => x86::tile_avx512::<8>(tile),
                7 => x86::tile_avx512::<7>(tile),
                6 => x86::tile_avx512::<6>(tile),
                5 => x86::tile_avx512::<5>(tile),
                4 => x86::tile_avx512::<4>(tile),
                3 => x86::tile_avx512::<3>(tile),
                2 => x86::tile_avx512::<2>(tile),
                _ => x86::tile_avx512::<1>(tile),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                let mut row = 0;
                while row < rows {
                    let mut part = tile;
                    part.a = tile.a.add(row * tile.a_stride);
                    part.c = tile.c.add(row * tile.c_stride);
                    row += match rows - row {
                        1 => x86::tile_avx2::<1>(part),
                        2 => x86::tile_avx2::<2>(part),
                        3 => x86::tile_avx2::<3>(part),
                        4 | 5 => x86::tile_avx2::<4>(part),
                        _ => x86::tile_avx2::<6>(part),
                    };
                }
            }
            _ => (0..rows).for_each(|row| tile_portable(row, tile)),
        }
    }
}

/// One row of a tile in plain Rust.
#[expect(unsafe_code, reason = "the inner loop works on pointers")]
unsafe fn tile_portable(row: usize, tile: Tile) {
    // SAFETY: the caller's operands hold `k` x 32 values each.
    unsafe {
        let c = std::slice::from_raw_parts_mut(tile.c.add(row * tile.c_stride), PANEL);
        for depth in 0..tile.k {
            let a = *tile.a.add(row * tile.a_stride + depth);
            let b = std::slice::from_raw_parts(tile.b.add(depth * tile.b_stride), PANEL);
            for (c, b) in c.iter_mut().zip(b) {
                *c = a.mul_add(*b, *c);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector intrinsics on pointers")]
mod x86 {
    use super::{PANEL, Tile};
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn tile_avx512<const ROWS: usize>(t: Tile) {
        // SAFETY: the caller's operands hold ROWS x 32 and k x 32 values.
        unsafe {
            let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                let c = t.c.add(r * t.c_stride);
                *sum = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
            }
            let (mut a, mut b) = (t.a, t.b);
            for _ in 0..t.k {
                let b0 = _mm512_loadu_ps(b);
                let b1 = _mm512_loadu_ps(b.add(16));
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r * t.a_stride));
                    sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
                }
                a = a.add(1);
                b = b.add(t.b_stride);
            }
            for (r, sum) in sum.iter().enumerate() {
                let c = t.c.add(r * t.c_stride);
                _mm512_storeu_ps(c, sum[0]);
                _mm512_storeu_ps(c.add(16), sum[1]);
            }
        }
    }

    /// Two passes of 16 columns, each with ROWS x 2 registers. Returns ROWS.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn tile_avx2<const ROWS: usize>(t: Tile) -> usize {
        // SAFETY: the caller's operands hold ROWS x 32 and k x 32 values.
        unsafe {
            for half in [0, PANEL / 2] {
                let mut sum = [[_mm256_setzero_ps(); 2]; ROWS];
                for (r, sum) in sum.iter_mut().enumerate() {
                    let c = t.c.add(r * t.c_stride + half);
                    *sum = [_mm256_loadu_ps(c), _mm256_loadu_ps(c.add(8))];
                }
                let (mut a, mut b) = (t.a, t.b.add(half));
                for _ in 0..t.k {
                    let b0 = _mm256_loadu_ps(b);
                    let b1 = _mm256_loadu_ps(b.add(8));
                    for (r, sum) in sum.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(r * t.a_stride));
                        sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                    }
                    a = a.add(1);
                    b = b.add(t.b_stride);
                }
                for (r, sum) in sum.iter().enumerate() {
                    let c = t.c.add(r * t.c_stride + half);
                    _mm256_storeu_ps(c, sum[0]);
                    _mm256_storeu_ps(c.add(8), sum[1]);
                }
            }
            ROWS
        }
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

#[cfg(test)]
mod tests {
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
                    matmul_on(isa, left, packed.view(), start, &mut c, n, threads);
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
            prop_assert_eq!(&by_rows.data[..], &by_weight.data[..]);
            let mut column = vec![0.0; k];
            by_weight.column(n - 1, &mut column);
            prop_assert_eq!(&column[..], &w[(n - 1) * k..]);
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
}
