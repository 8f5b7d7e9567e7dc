//! Products of matrices that are multiplied once, as training does: nothing is kept packed.
//!
//! The sums are those of [`matmul`](super::matmul): one chain of fused multiply-adds over rising k, over one term after
//! the other. Only the blocks that are worked on are packed, so that weights, activations and gradients are read where
//! they lie, transposed or not; weights that were packed for a forward pass are turned on the way.
//!
//! A block of `B` of at most 8 MB is packed by all threads together, then each thread multiplies its rows of `A`, which it
//! packs itself, with all of the block: every value of both operands is packed about once.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::pairs;
use super::pairs::{are_multiplied, round_packed};
use super::tile::{Tile, ZEROS, copy_tile, tile_kernel};
use super::transpose::transpose_lines;
use super::{Arithmetic, Coded, DEPTH_STEP, PANEL, TILE_ROWS, Target, Weight};
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

/// A right operand `B[k, n]` of a term, and how the term is multiplied.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// Any matrix.
    Matrix(Matrix<'a>),
    /// Any matrix, which is rounded to bf16 as `A` is.
    Rounded(Matrix<'a>),
    /// A weight `W`, `[k, n]`: the way back through a linear layer that multiplies with `Wᵀ`. In bf16 where the layer is,
    /// else in `f32`.
    Weight(&'a Weight),
}

impl<'a> From<Matrix<'a>> for Factor<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self::Matrix(matrix)
    }
}

impl<'a> From<&'a Weight> for Factor<'a> {
    fn from(weight: &'a Weight) -> Self {
        Self::Weight(weight)
    }
}

impl<'a> Factor<'a> {
    /// A matrix that is multiplied so.
    ///
    /// # Panics
    /// Floats have no groups to be multiplied in bytes.
    #[must_use]
    pub fn of(matrix: Matrix<'a>, arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::F32 => Self::Matrix(matrix),
            Arithmetic::Bf16 => Self::Rounded(matrix),
            Arithmetic::Int8 => panic!("floats are not multiplied in bytes"),
        }
    }

    fn is_rounded(&self) -> bool {
        matches!(self, Self::Rounded(_) | Self::Weight(Weight::Coded(_, Arithmetic::Bf16)))
    }

    fn rows(&self) -> usize {
        match self {
            Self::Matrix(matrix) | Self::Rounded(matrix) => matrix.rows,
            Self::Weight(weight) => weight.n(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Self::Matrix(matrix) | Self::Rounded(matrix) => matrix.columns,
            Self::Weight(weight) => weight.k(),
        }
    }
}

/// Depth of one pass at most: every pass reads and writes all of `C`. A multiple of a panel's width.
const DEPTH: usize = 576;

/// Rows of `A` that one task packs at most: 264 x 576 floats are half of a second-level cache.
const TASK_ROWS: usize = 22 * TILE_ROWS;

/// Panels of `B` that are packed together, so that a row of `B` is read in longer pieces.
const TASK_PANELS: usize = 4;

/// Floats of so many packed panels of one depth.
const CHUNK: usize = TASK_PANELS * DEPTH * PANEL;

/// Chunks of `B` that are packed before any of them is multiplied: 8 MB, a part of a third-level cache.
const CHUNKS: usize = 28;

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
/// A term whose factor is rounded is one of bf16: pairs of products from its first depth on are added in `f32`.
///
/// # Panics
/// When there is no term, or shapes disagree.
#[must_use]
pub fn product<'a, B: Into<Factor<'a>> + Copy>(terms: &[(Matrix<'a>, B)]) -> Vec<f32> {
    product_on(Isa::best(), terms)
}

/// [`product`] of matrices in one arithmetic.
///
/// # Panics
/// As [`product`] and [`Factor::of`].
#[must_use]
pub fn product_in(arithmetic: Arithmetic, terms: &[(Matrix<'_>, Matrix<'_>)]) -> Vec<f32> {
    product(&terms.iter().map(|(a, b)| (*a, Factor::of(*b, arithmetic))).collect::<Vec<_>>())
}

#[expect(unsafe_code, reason = "the result is written before it is read")]
fn product_on<'a, B: Into<Factor<'a>> + Copy>(isa: Isa, terms: &[(Matrix<'a>, B)]) -> Vec<f32> {
    let terms: Vec<(Matrix<'_>, Factor<'_>)> = terms.iter().map(|(a, b)| (*a, (*b).into())).collect();
    let (m, n) = (terms[0].0.rows, terms[0].1.columns());
    for (a, b) in &terms {
        assert!(a.rows == m && b.columns() == n && a.columns == b.rows(), "terms of one product");
    }
    let depth: usize = terms.iter().map(|(a, _)| a.columns).sum();
    if m == 0 || n == 0 || depth == 0 {
        return vec![0.0; m * n];
    }
    let mut c: Vec<f32> = Vec::with_capacity(m * n);
    let parallel = m * n * depth >= PARALLEL_FROM;
    Product { isa, m, n, c: Target(c.as_mut_ptr()), parallel }.run(&terms);
    // SAFETY: the rounds cover every row and column, and each tile begins by writing what its sums start from.
    unsafe { c.set_len(m * n) };
    c
}

/// A block of depths of one term.
#[derive(Clone)]
struct Step<'a> {
    a: Matrix<'a>,
    b: Factor<'a>,
    depths: Range<usize>,
    /// Whether sums start here.
    first: bool,
}

/// The blocks of all terms, in the order of the sum. They begin at multiples of a panel's width.
fn steps<'a>(terms: &[(Matrix<'a>, Factor<'a>)]) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for (a, b) in terms {
        let step = a.columns.div_ceil(a.columns.div_ceil(DEPTH).max(1)).max(1).next_multiple_of(PANEL);
        for depth in (0..a.columns).step_by(step) {
            let depths = depth..a.columns.min(depth + step);
            steps.push(Step { a: *a, b: *b, depths, first: steps.is_empty() });
        }
    }
    steps
}

thread_local! {
    /// Packed groups of 12 rows, `[groups][depth][12]`: half a megabyte for each thread, which would take longer to clear
    /// than a small product takes.
    static LEFT: RefCell<Buffer> = RefCell::new(Buffer::zeros(TASK_ROWS / TILE_ROWS * GROUP));
    /// Packed chunks of `B`, `[panels][depth][32]`, of the thread that asked for a product. It is taken while it is used:
    /// who waits for others may be given another product to compute.
    static RIGHT: RefCell<Buffer> = RefCell::default();
}

struct Product {
    isa: Isa,
    m: usize,
    n: usize,
    c: Target,
    parallel: bool,
}

impl Product {
    fn run(&self, terms: &[(Matrix<'_>, Factor<'_>)]) {
        let steps = steps(terms);
        let chunks = self.n.div_ceil(PANEL * TASK_PANELS);
        // Few steps at once where `B` is wide, all panels at once where it is deep.
        let of_round = chunks.min(CHUNKS);
        let steps_of_round = (CHUNKS / of_round).max(1);
        let mut packed = RIGHT.take();
        let needed = of_round * steps_of_round.min(steps.len()) * CHUNK;
        if packed.len() < needed {
            packed.resize(needed);
        }
        for first in (0..chunks).step_by(of_round) {
            let some = first..chunks.min(first + of_round);
            for steps in steps.chunks(steps_of_round) {
                self.round(steps, some.clone(), &mut packed);
            }
        }
        RIGHT.set(packed);
    }

    /// Adds some steps of the sum to the columns of some chunks.
    fn round(&self, steps: &[Step<'_>], chunks: Range<usize>, packed: &mut [f32]) {
        let count = chunks.len();
        let pack = |(i, out): (usize, &mut [f32])| {
            let (step, chunk) = (&steps[i / count], chunks.start + i % count);
            let panels = chunk * TASK_PANELS..self.n.div_ceil(PANEL).min((chunk + 1) * TASK_PANELS);
            let count = panels.len();
            match step.b {
                Factor::Matrix(b) | Factor::Rounded(b) => pack_right(self.isa, b, step.depths.clone(), panels, out),
                Factor::Weight(b) => pack_weight(self.isa, b, step.depths.clone(), panels, out),
            }
            if step.b.is_rounded() {
                let panels = out.chunks_exact_mut(DEPTH * PANEL).take(count);
                panels.for_each(|panel| round_packed(self.isa, &mut panel[..step.depths.len() * PANEL], PANEL));
            }
        };
        let all = &mut packed[..steps.len() * count * CHUNK];
        if self.parallel {
            all.par_chunks_exact_mut(CHUNK).enumerate().for_each(pack);
        } else {
            all.chunks_exact_mut(CHUNK).enumerate().for_each(pack);
        }
        let packed = &*all;
        let (of_rows, of_chunks) = task_size(self.m, count);
        let (row_tasks, chunk_tasks) = (self.m.div_ceil(of_rows), count.div_ceil(of_chunks));
        let multiply = |task: usize| {
            let (row, chunk) = (task / chunk_tasks * of_rows, task % chunk_tasks * of_chunks);
            let rows = row..self.m.min(row + of_rows);
            let some = chunk..count.min(chunk + of_chunks);
            LEFT.with_borrow_mut(|left| {
                for (step, packed) in steps.iter().zip(packed.chunks_exact(count * CHUNK)) {
                    pack_left(self.isa, step.a, rows.clone(), step.depths.clone(), left);
                    if step.b.is_rounded() {
                        let groups = left.chunks_exact_mut(GROUP).take(rows.len().div_ceil(TILE_ROWS));
                        let packed = step.depths.len() * TILE_ROWS;
                        groups.for_each(|group| round_packed(self.isa, &mut group[..packed], TILE_ROWS));
                    }
                    for chunk in some.clone() {
                        let panels = packed[chunk * CHUNK..][..CHUNK].chunks_exact(DEPTH * PANEL);
                        let first = (chunks.start + chunk) * TASK_PANELS;
                        for (panel, b) in (first..self.n.div_ceil(PANEL)).zip(panels) {
                            self.panel(left, b, rows.clone(), panel, step);
                        }
                    }
                }
            });
        };
        let tasks = 0..row_tasks * chunk_tasks;
        if self.parallel {
            tasks.into_par_iter().for_each(multiply);
        } else {
            tasks.for_each(multiply);
        }
    }

    /// Adds one block of depths to one panel.
    #[expect(unsafe_code, reason = "the inner loop works on pointers")]
    fn panel(&self, a: &[f32], b: &[f32], rows: Range<usize>, panel: usize, step: &Step<'_>) {
        let (len, first) = (step.depths.len(), step.first);
        let in_pairs = step.b.is_rounded() && are_multiplied(self.isa);
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
                match in_pairs {
                    #[cfg(target_arch = "x86_64")]
                    true => pairs::avx512::tile(tile_rows, &Tile { k: len.div_ceil(2), ..operands }),
                    _ => tile_kernel(self.isa, tile_rows, &operands),
                }
                if !in_place {
                    copy_tile(tile, PANEL, c, self.n, tile_rows, columns);
                }
            }
        }
    }
}

/// Rows, a number of whole tiles, and chunks of one task.
///
/// About four tasks a worker. Rows are cut first: tasks that share rows pack them twice.
fn task_size(m: usize, chunks: usize) -> (usize, usize) {
    const FEW: usize = 4;
    let groups = m.div_ceil(TILE_ROWS);
    let wanted = 4 * rayon::current_num_threads();
    let rows = wanted.clamp(1, groups.div_ceil(FEW)).max(m.div_ceil(TASK_ROWS));
    let columns = wanted.div_ceil(rows).min(chunks).max(1);
    (groups.div_ceil(rows) * TILE_ROWS, chunks.div_ceil(columns))
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

/// Packs blocks of a weight `W`, `[k, n]`, whose transpose lies in panels: squares of 32 x 32 values are turned. At most
/// four panels, the first one a multiple of four.
fn pack_weight(isa: Isa, weight: &Weight, depths: Range<usize>, panels: Range<usize>, out: &mut [f32]) {
    let width = weight.k();
    let (first, last) = (panels.start * PANEL, width.min(panels.end * PANEL));
    if last < panels.end * PANEL {
        out.fill(0.0);
    }
    let mut decoded = [0.0; DEPTH_STEP * PANEL];
    for stored in depths.start / PANEL..depths.end.div_ceil(PANEL) {
        let lanes = depths.start.saturating_sub(stored * PANEL)..PANEL.min(depths.end - stored * PANEL);
        let at = stored * PANEL + lanes.start - depths.start;
        let rows = match weight {
            Weight::Floats(packed) => &packed.panel(stored)[first * PANEL..last * PANEL],
            Weight::Coded(coded, _) => decode(isa, coded, stored, first..last, &mut decoded),
        };
        for (rows, out) in rows.chunks(PANEL * PANEL).zip(out.chunks_exact_mut(DEPTH * PANEL)) {
            let lines = rows.len() / PANEL;
            transpose_lines(isa, rows, PANEL, lines, lanes.clone(), PANEL, &mut out[at * PANEL..]);
        }
    }
}

/// Rows `depths` of a panel of coded values.
fn decode<'a>(isa: Isa, coded: &Coded, panel: usize, depths: Range<usize>, out: &'a mut [f32]) -> &'a [f32] {
    coded.unpack(isa, panel, depths.start, depths.len(), out);
    &out[..depths.len() * PANEL]
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
mod tests;
