//! Products of matrices that are multiplied once, as training does: nothing is kept packed.
//!
//! The sums are those of [`matmul`](super::matmul): one chain of fused multiply-adds over rising k, over one term after
//! the other. Only the blocks that a task is at are packed, so that weights, activations and gradients are read where
//! they lie, transposed or not.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::tile::{Tile, ZEROS, copy_tile, tile_kernel};
use super::transpose::transpose_lines;
use super::{PANEL, TILE_ROWS, Target};
use crate::isa::dispatch;
use crate::{Buffer, Isa};

/// A matrix, `[rows, columns]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    order: Order,
}

#[derive(Clone, Copy)]
enum Order {
    /// Row by row.
    Rows,
    /// Column by column.
    Columns,
}

/// Depth of one pass at most: every pass reads and writes all of `C`.
const DEPTH: usize = 576;

/// Rows of `A` that one task packs at most: 264 x 576 floats are half of a second-level cache.
const TASK_ROWS: usize = 22 * TILE_ROWS;

/// Panels of `B` that are packed together, so that a row of `B` is read in longer pieces.
const TASK_PANELS: usize = 4;

/// Floats of a packed group of rows. The line at its end keeps groups from falling on each other in the cache.
const GROUP: usize = TILE_ROWS * DEPTH + 16;

/// Products below this many multiply-adds are not worth waking another thread.
const PARALLEL_FROM: usize = 1 << 17;

impl<'a> Matrix<'a> {
    /// `data` holds `rows` rows of `columns` values.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} x {columns}");
        Self { data, rows, columns, order: Order::Rows }
    }

    /// The transpose of the same values.
    #[must_use]
    pub fn transposed(self) -> Self {
        let order = match self.order {
            Order::Rows => Order::Columns,
            Order::Columns => Order::Rows,
        };
        Self { rows: self.columns, columns: self.rows, order, ..self }
    }
}

/// `Σ A · B` over the terms (A, B), row-major `[m, n]`, with A `[m, k]` and B `[k, n]`; k may differ between terms.
///
/// # Panics
/// When there is no term, or shapes disagree.
#[must_use]
pub fn product(terms: &[(Matrix<'_>, Matrix<'_>)]) -> Vec<f32> {
    product_on(Isa::best(), terms)
}

#[expect(unsafe_code, reason = "the result is written before it is read")]
fn product_on(isa: Isa, terms: &[(Matrix<'_>, Matrix<'_>)]) -> Vec<f32> {
    let (m, n) = (terms[0].0.rows, terms[0].1.columns);
    for (a, b) in terms {
        assert!(a.rows == m && b.columns == n && a.columns == b.rows, "terms of one product");
    }
    let depth: usize = terms.iter().map(|(a, _)| a.columns).sum();
    if m == 0 || n == 0 || depth == 0 {
        return vec![0.0; m * n];
    }
    let mut c: Vec<f32> = Vec::with_capacity(m * n);
    let product = Product { isa, terms, n, c: Target(c.as_mut_ptr()) };
    let panels = n.div_ceil(PANEL);
    let (of_rows, of_panels) = task_size(m, n);
    let (row_tasks, panel_tasks) = (m.div_ceil(of_rows), panels.div_ceil(of_panels));
    let run = |task: usize| {
        let (rows, panel) = (task / panel_tasks * of_rows, task % panel_tasks * of_panels);
        let (rows, panels) = (rows..m.min(rows + of_rows), panel..panels.min(panel + of_panels));
        SCRATCH.with_borrow_mut(|scratch| product.run(scratch, rows, panels));
    };
    let tasks = 0..row_tasks * panel_tasks;
    if m * n * depth < PARALLEL_FROM {
        tasks.for_each(run);
    } else {
        tasks.into_par_iter().for_each(run);
    }
    // SAFETY: the tasks cover every row and column, and each begins its tiles by writing zeros.
    unsafe { c.set_len(m * n) };
    c
}

/// Rows, a number of whole tiles, and panels of one task.
///
/// About four tasks a worker. Every task packs its own part of both operands, so rows and columns are cut where that
/// packs least.
fn task_size(m: usize, n: usize) -> (usize, usize) {
    let (groups, panels) = (m.div_ceil(TILE_ROWS), n.div_ceil(PANEL));
    let wanted = 4 * rayon::current_num_threads();
    let least = m.div_ceil(TASK_ROWS);
    let cuts = (least..=wanted.max(least).min(groups)).map(|rows| (rows, wanted.div_ceil(rows).min(panels)));
    let (rows, columns) = cuts.min_by_key(|(rows, columns)| columns * m + rows * n).unwrap_or((least, 1));
    (groups.div_ceil(rows) * TILE_ROWS, panels.div_ceil(columns))
}

/// Packed blocks of one task.
struct Scratch {
    /// Groups of 12 rows, `[groups][depth][12]`.
    a: Buffer,
    /// `[panels][depth][32]`
    b: Buffer,
}

thread_local! {
    /// A megabyte for each thread, which would take longer to clear than a small product takes.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

impl Scratch {
    fn new() -> Self {
        Self { a: Buffer::zeros(TASK_ROWS / TILE_ROWS * GROUP), b: Buffer::zeros(TASK_PANELS * DEPTH * PANEL) }
    }
}

struct Product<'a> {
    isa: Isa,
    terms: &'a [(Matrix<'a>, Matrix<'a>)],
    n: usize,
    c: Target,
}

impl Product<'_> {
    /// Computes the rectangle `rows` x `panels` of `C`.
    fn run(&self, scratch: &mut Scratch, rows: Range<usize>, panels: Range<usize>) {
        let mut first = true;
        for (a, b) in self.terms {
            let step = a.columns.div_ceil(a.columns.div_ceil(DEPTH).max(1)).max(1);
            for depth in (0..a.columns).step_by(step) {
                let depths = depth..a.columns.min(depth + step);
                pack_left(self.isa, *a, rows.clone(), depths.clone(), &mut scratch.a);
                for panel in panels.clone().step_by(TASK_PANELS) {
                    let some = panel..panels.end.min(panel + TASK_PANELS);
                    pack_right(self.isa, *b, depths.clone(), some.clone(), &mut scratch.b);
                    for (panel, b) in some.zip(scratch.b.chunks_exact(DEPTH * PANEL)) {
                        self.panel(&scratch.a, b, rows.clone(), panel, depths.len(), first);
                    }
                }
                first = false;
            }
        }
    }

    /// Adds one block of depths to one panel.
    #[expect(unsafe_code, reason = "the inner loop works on pointers")]
    fn panel(&self, a: &[f32], b: &[f32], rows: Range<usize>, panel: usize, len: usize, first: bool) {
        let column = panel * PANEL;
        let columns = PANEL.min(self.n - column);
        // An incomplete tile needs a whole one to work on.
        let in_place = columns == PANEL;
        let mut whole = [0.0f32; TILE_ROWS * PANEL];
        for (row, a) in rows.clone().step_by(TILE_ROWS).zip(a.chunks_exact(GROUP)) {
            let tile_rows = TILE_ROWS.min(rows.end - row);
            // SAFETY: `C` has room for m x n values, tasks write disjoint rectangles of it, and only a tile of 32
            // columns is worked on in place. `a` and `b` hold packed blocks of up to `DEPTH` depths.
            unsafe {
                let c = self.c.0.add(row * self.n + column);
                let (tile, stride) = if in_place { (c, self.n) } else { (whole.as_mut_ptr(), PANEL) };
                let mut start = (tile.cast_const(), stride);
                if first {
                    start = (ZEROS.0.as_ptr(), 0);
                } else if in_place {
                    fetch_early(c.wrapping_add(TILE_ROWS * self.n), self.n, TILE_ROWS.min(rows.end - row - tile_rows));
                } else {
                    copy_tile(c, self.n, tile, stride, tile_rows, columns);
                }
                let operands = Tile {
                    start: start.0,
                    start_stride: start.1,
                    k: len,
                    a: a.as_ptr(),
                    a_stride: 1,
                    a_step: TILE_ROWS,
                    b: b.as_ptr(),
                    b_stride: PANEL,
                    c: tile,
                    c_stride: stride,
                };
                tile_kernel(self.isa, tile_rows, &operands);
                if !in_place {
                    copy_tile(tile, PANEL, c, self.n, tile_rows, columns);
                }
            }
        }
    }
}

/// Asks for the values of a tile that will be added to next: in a large `C` they are in no cache.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no such hint"))]
fn fetch_early(c: *const f32, stride: usize, rows: usize) {
    #[cfg(target_arch = "x86_64")]
    for row in 0..rows {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = c.wrapping_add(row * stride).cast::<i8>();
        #[expect(unsafe_code, reason = "a hint")]
        // SAFETY: a hint about any address, valid or not, has no effect on the program.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line);
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64));
        }
    }
}

/// Packs a block of `A` in groups of 12 rows. What is left of earlier blocks in an incomplete group is not read.
fn pack_left(isa: Isa, a: Matrix<'_>, rows: Range<usize>, depths: Range<usize>, out: &mut [f32]) {
    match a.order {
        Order::Columns => {
            for (i, depth) in depths.enumerate() {
                deal_left(&a.data[depth * a.rows..][rows.clone()], &mut out[i * TILE_ROWS..]);
            }
        }
        Order::Rows => {
            for (row, group) in rows.clone().step_by(TILE_ROWS).zip(out.chunks_exact_mut(GROUP)) {
                let lines = TILE_ROWS.min(rows.end - row);
                transpose_lines(isa, &a.data[row * a.columns..], a.columns, lines, depths.clone(), TILE_ROWS, group);
            }
        }
    }
}

/// Packs blocks of `B` in panels of 32 columns; columns behind the last one are zero.
fn pack_right(isa: Isa, b: Matrix<'_>, depths: Range<usize>, panels: Range<usize>, out: &mut [f32]) {
    let column = |panel: usize| panel * PANEL;
    match b.order {
        Order::Rows => {
            for (i, depth) in depths.enumerate() {
                let line = &b.data[depth * b.columns..][column(panels.start)..b.columns.min(column(panels.end))];
                deal_right(line, &mut out[i * PANEL..]);
            }
        }
        Order::Columns => {
            for (panel, out) in panels.zip(out.chunks_exact_mut(DEPTH * PANEL)) {
                let lines = PANEL.min(b.columns - column(panel));
                if lines < PANEL {
                    out.fill(0.0);
                }
                transpose_lines(isa, &b.data[column(panel) * b.rows..], b.rows, lines, depths.clone(), PANEL, out);
            }
        }
    }
}

dispatch! {
    /// Deals the rows of one depth to their groups.
    fn deal_left(line: &[f32], out: &mut [f32]) {
        let (whole, rest) = line.as_chunks::<TILE_ROWS>();
        for (part, group) in whole.iter().zip(out.chunks_mut(GROUP)) {
            group[..TILE_ROWS].copy_from_slice(part);
        }
        if !rest.is_empty() {
            out[whole.len() * GROUP..][..rest.len()].copy_from_slice(rest);
        }
    }
}

dispatch! {
    /// Deals the columns of one depth to their panels.
    fn deal_right(line: &[f32], out: &mut [f32]) {
        let (whole, rest) = line.as_chunks::<PANEL>();
        for (part, panel) in whole.iter().zip(out.chunks_mut(DEPTH * PANEL)) {
            panel[..PANEL].copy_from_slice(part);
        }
        if !rest.is_empty() {
            let panel = &mut out[whole.len() * DEPTH * PANEL..][..PANEL];
            panel[..rest.len()].copy_from_slice(rest);
            panel[rest.len()..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// More rows than a task takes, more panels than are packed together, and several blocks of depth.
    #[test]
    fn blocks_continue_the_chain() {
        let (m, n, k) = (TASK_ROWS + 25, PANEL * (TASK_PANELS + 1) + 7, 2 * DEPTH + 3);
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let expected = reference(&[(laid(&a, m, k, true), laid(&b, k, n, true))]);
        let (at, bt) = (laid(&a, m, k, true), laid(&b, k, n, true));
        let many = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
        assert_eq!(bits(&many.install(|| product(&[(at, bt)]))), bits(&expected));
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        assert_eq!(bits(&one.install(|| product(&[(at, bt)]))), bits(&expected));
    }
}
