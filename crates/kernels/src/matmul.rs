//! Matrix products on panels of 32 columns.
//!
//! `C[m, n] = init + A[m, k] · B[k, n]`. Each value of `C` is **one chain of fused multiply-adds over k in rising
//! order**, starting from `init`. That order is the definition; blocking over `k` continues the chain from memory, so
//! a product of one row and the same row within a batch of 500 have equal bits on every instruction set and with any
//! number of threads.
//!
//! `B` is stored in panels of [`PANEL`] columns (`[n / 32][k][32]`, the last panel padded with zeros): weights are
//! packed once when a model opens, and both a single-row product and a large one then read memory in order.

mod coded;
#[cfg(target_arch = "x86_64")]
mod coded_avx512;
mod left;
mod packed;
mod product;
mod tile;
mod weight;

pub use coded::{Code, Coded, Coding, GroupRows, Groups, Offset, Scale};
pub use left::Left;
pub use packed::{Packed, Panels, transpose_into};
pub use product::{Matrix, product};
pub use weight::Weight;

use std::ops::Range;

use rayon::prelude::*;

use crate::Isa;
use left::PackedLeft;
use tile::{Tile, copy_tile, tile_kernel};

/// Columns of one panel.
pub const PANEL: usize = 32;

/// Rows of one register tile: 12 x 32 floats fill 24 of the 32 AVX-512 registers.
const TILE_ROWS: usize = 12;

/// Depth of one pass: a panel block of 256 x 32 floats (32 KiB) stays in the first-level cache.
const DEPTH: usize = 256;

/// Rows that one task takes: the block of `A` stays in the second-level cache while panels pass by.
const TASK_ROWS: usize = 32 * TILE_ROWS;

/// Fewer rows are not worth packing.
const PACK_FROM: usize = 2 * TILE_ROWS;

/// Products below this many multiply-adds are not worth waking another thread.
const PARALLEL_FROM: usize = 1 << 17;

/// A right operand `B[k, n]`.
#[derive(Clone, Copy)]
pub enum Right<'a> {
    /// `f32` values in panels.
    Panels(Panels<'a>),
    /// Coded values, decoded where they are multiplied.
    Coded(&'a Coded),
}

impl Right<'_> {
    fn k(&self) -> usize {
        match self {
            Self::Panels(panels) => panels.k,
            Self::Coded(coded) => coded.k(),
        }
    }

    fn n(&self) -> usize {
        match self {
            Self::Panels(panels) => panels.n,
            Self::Coded(coded) => coded.n(),
        }
    }
}

impl<'a> From<Panels<'a>> for Right<'a> {
    fn from(panels: Panels<'a>) -> Self {
        Self::Panels(panels)
    }
}

impl<'a> From<&'a Coded> for Right<'a> {
    fn from(coded: &'a Coded) -> Self {
        Self::Coded(coded)
    }
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
pub fn matmul<'a>(
    left: Left<'_>,
    right: impl Into<Right<'a>>,
    start: Start<'_>,
    c: &mut [f32],
    c_stride: usize,
    threads: Threads,
) {
    matmul_each(left, &mut [Output { right: right.into(), start, c, c_stride }], threads);
}

/// One of several products of the same `A`.
pub struct Output<'a> {
    /// `B[k, n]`
    pub right: Right<'a>,
    /// What the sums start from.
    pub start: Start<'a>,
    /// `C`, `[m, n]`
    pub c: &'a mut [f32],
    /// Distance between two rows of `C`.
    pub c_stride: usize,
}

/// Several products of one `A` as one piece of work: threads are woken once for all of them.
///
/// # Panics
/// When an operand is too short for its shape.
pub fn matmul_each(left: Left<'_>, outputs: &mut [Output<'_>], threads: Threads) {
    matmul_on(Isa::best(), left, outputs, threads);
}

fn matmul_on(isa: Isa, left: Left<'_>, outputs: &mut [Output<'_>], threads: Threads) {
    let m = left.m;
    outputs.iter().for_each(|output| output.check(left));
    let work: usize = outputs.iter().map(|output| m * output.right.n() * output.right.k()).sum();
    let (parallel, k) = (threads == Threads::Pool && work >= PARALLEL_FROM, outputs.first().map_or(0, |o| o.right.k()));
    let packed = (parallel && m >= PACK_FROM && outputs.iter().all(|o| o.right.k() == k)).then(|| left.pack(k));
    let products: Vec<Product<'_>> = outputs
        .iter_mut()
        .filter(|output| m > 0 && output.right.n() > 0)
        .map(|output| Product {
            isa,
            left,
            packed: packed.as_ref(),
            right: output.right,
            start: output.start,
            target: Target(output.c.as_mut_ptr()),
            c_stride: output.c_stride,
        })
        .collect();
    if !parallel {
        products.iter().for_each(|product| product.run(0..m, 0..product.right.n().div_ceil(PANEL)));
        return;
    }
    // About four tasks a worker even out uneven cores. A task's panels are a share of one product's.
    let row_tasks = m.div_ceil(TASK_ROWS);
    let all_panels: usize = products.iter().map(|product| product.right.n().div_ceil(PANEL)).sum();
    let of_task = all_panels.div_ceil((4 * rayon::current_num_threads()).div_ceil(row_tasks)).max(1);
    let tasks: Vec<Task<'_, '_>> = products
        .iter()
        .flat_map(|product| {
            let panels = product.right.n().div_ceil(PANEL);
            (0..panels.div_ceil(of_task)).flat_map(move |share| {
                let panels = share * of_task..panels.min((share + 1) * of_task);
                (0..row_tasks).map(move |task| Task {
                    product,
                    rows: task * TASK_ROWS..m.min((task + 1) * TASK_ROWS),
                    panels: panels.clone(),
                })
            })
        })
        .collect();
    tasks.into_par_iter().for_each(|task| task.product.run(task.rows, task.panels));
}

/// A rectangle of one product.
struct Task<'a, 'b> {
    product: &'a Product<'b>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Output<'_> {
    /// # Panics
    /// When an operand is too short for its shape.
    fn check(&self, left: Left<'_>) {
        let (m, n, k) = (left.m, self.right.n(), self.right.k());
        if m == 0 || n == 0 {
            return;
        }
        let values = self.c.len();
        assert!(self.c_stride >= n && values >= (m - 1) * self.c_stride + n, "C of {m} x {n} in {values} values");
        let rows = left.data.len();
        assert!(left.row_stride >= k && (k == 0 || rows >= (m - 1) * left.row_stride + k), "A of {m} x {k}");
        if let Right::Panels(panels) = self.right {
            panels.check();
        }
        if let Start::Row(row) = self.start {
            assert_eq!(row.len(), n, "start row");
        }
    }
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

/// A block of `B` that a panel's tiles are multiplied with.
#[derive(Clone, Copy)]
enum Block<'a> {
    /// Rows of 32 floats, and the distance between them.
    Floats(&'a [f32], usize),
    /// The whole panel, decoded on the way.
    Coded(&'a Coded),
}

/// Depth ranges of at most [`DEPTH`]: start and length. A sum over nothing has one, of length 0.
fn depths(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k.max(1)).step_by(DEPTH).map(move |depth| (depth, DEPTH.min(k - depth)))
}

struct Product<'a> {
    isa: Isa,
    left: Left<'a>,
    /// The same, packed, for products of many rows.
    packed: Option<&'a PackedLeft>,
    right: Right<'a>,
    start: Start<'a>,
    target: Target,
    c_stride: usize,
}

impl Product<'_> {
    /// Computes the rectangle `rows` x `panels` of `C`.
    fn run(&self, rows: Range<usize>, panels: Range<usize>) {
        match self.right {
            Right::Panels(right) => {
                for (depth, len) in depths(right.k) {
                    for panel in panels.clone() {
                        let b = &right.data[panel * right.panel_stride + depth * right.row_stride..];
                        self.block(&rows, panel, depth, len, Block::Floats(b, right.row_stride));
                    }
                }
            }
            Right::Coded(right) if self.packed.is_none() && rows.len() <= right.few_rows(self.isa) => {
                for panel in panels {
                    self.block(&rows, panel, 0, right.k(), Block::Coded(right));
                }
            }
            Right::Coded(right) => {
                let mut block = [0.0; DEPTH * PANEL];
                for (depth, len) in depths(right.k()) {
                    for panel in panels.clone() {
                        right.unpack(self.isa, panel, depth, len, &mut block);
                        self.block(&rows, panel, depth, len, Block::Floats(&block, PANEL));
                    }
                }
            }
        }
    }

    /// Adds the products of one block of `B`: rows `depth..depth + len` of a panel.
    #[expect(unsafe_code, reason = "the inner loop works on pointers")]
    fn block(&self, rows: &Range<usize>, panel: usize, depth: usize, len: usize, b: Block<'_>) {
        let mut edge = [0.0f32; TILE_ROWS * PANEL];
        let first = panel * PANEL;
        let columns = PANEL.min(self.right.n() - first);
        let most = match b {
            Block::Floats(b, stride) => {
                assert!(len == 0 || b.len() >= (len - 1) * stride + PANEL, "a block of {len} rows");
                TILE_ROWS
            }
            Block::Coded(coded) => coded.few_rows(self.isa),
        };
        let mut row = rows.start;
        while row < rows.end {
            let tile_rows = most.min(rows.end - row);
            // SAFETY: `matmul_on` checked that A and C hold the rectangle, and B is checked above; a tile of fewer than
            // 32 columns goes through `edge`, which is a whole tile; rectangles of different tasks are disjoint.
            unsafe {
                let c = self.target.0.add(row * self.c_stride + first);
                let (tile, stride) = if columns == PANEL { (c, self.c_stride) } else { (edge.as_mut_ptr(), PANEL) };
                if depth == 0 {
                    self.start_tile(c, tile, stride, tile_rows, first, columns);
                } else if columns < PANEL {
                    copy_tile(c, self.c_stride, tile, stride, tile_rows, columns);
                }
                if len > 0 {
                    let a = match self.packed {
                        Some(packed) => packed.tile(row, depth),
                        None => self.left.tile(row, depth),
                    };
                    let operands = |b, b_stride| Tile {
                        k: len,
                        a: a.rows.as_ptr(),
                        a_stride: a.row_stride,
                        a_step: a.step,
                        b,
                        b_stride,
                        c: tile,
                        c_stride: stride,
                    };
                    match b {
                        Block::Floats(b, stride) => tile_kernel(self.isa, tile_rows, operands(b.as_ptr(), stride)),
                        #[cfg(target_arch = "x86_64")]
                        Block::Coded(coded) => {
                            coded_avx512::few(coded, panel, tile_rows, operands(std::ptr::null(), 0));
                        }
                        #[cfg(not(target_arch = "x86_64"))]
                        Block::Coded(_) => unreachable!("no rows are few without AVX-512"),
                    }
                }
                if columns < PANEL {
                    copy_tile(tile, stride, c, self.c_stride, tile_rows, columns);
                }
            }
            row += tile_rows;
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

#[cfg(test)]
mod tests;
