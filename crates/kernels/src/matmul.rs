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
mod integers;
mod left;
mod packed;
mod pairs;
mod product;
mod reduce;
mod tile;
mod transpose;
mod weight;

pub use coded::{Code, Coded, Coding, GroupRows, Groups, Offset, Scale};
pub use left::Left;
pub use packed::{Packed, Panels, transpose_into};
pub use product::{Factor, Matrix, product, product_in};
pub use reduce::{PIECE, reduce_rows};
pub(crate) use transpose::transpose_lines;
pub use weight::Weight;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::{Buffer, Isa};
use coded::PAIRS;
use integers::IntegerLeft;
use left::{Lefts, PackedLeft, TileRows};
use pairs::PairLeft;
use tile::{Tile, ZEROS, copy_tile, tile_kernel};

/// Columns of one panel.
pub const PANEL: usize = 32;

/// Rows of one register tile: 12 x 32 floats fill 24 of the 32 AVX-512 registers.
const TILE_ROWS: usize = 12;

/// Depth of one pass at most, a multiple of [`DEPTH_STEP`]: every pass reads and writes all of `C`, so that few long ones
/// are faster than what would keep a panel in the first-level cache.
const DEPTH: usize = 640;

/// Passes begin at multiples of it.
const DEPTH_STEP: usize = 128;

/// Rows that one task takes at most: the block of `A` stays in the second-level cache while panels pass by.
const TASK_ROWS: usize = 32 * TILE_ROWS;

/// Fewer rows are not worth packing.
const PACK_FROM: usize = 2 * TILE_ROWS;

/// Products below this many multiply-adds are not worth waking another thread.
const PARALLEL_FROM: usize = 1 << 17;

/// Tasks of so many multiply-adds are left to a worker in one: what it has begun nobody else can take, and at the end of
/// a product the others wait for it.
const TOGETHER: usize = 1 << 20;

/// A right operand `B[k, n]`.
#[derive(Clone, Copy)]
pub enum Right<'a> {
    /// `f32` values in panels.
    Panels(Panels<'a>),
    /// Coded values, decoded where they are multiplied, and the arithmetic of the product.
    Coded(&'a Coded, Arithmetic),
}

/// How coded values are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// In `f32`: values are decoded exactly and `A` is not rounded.
    F32,
    /// In bf16, with sums in `f32`: `A` is rounded to bf16. For [`Coding::Bf16`].
    Bf16,
    /// In signed bytes, with sums in `f32`: groups of `A` are rounded to 255 levels. For [`Coding::Groups`].
    Int8,
}

impl Right<'_> {
    fn k(&self) -> usize {
        match self {
            Self::Panels(panels) => panels.k,
            Self::Coded(coded, _) => coded.k(),
        }
    }

    fn n(&self) -> usize {
        match self {
            Self::Panels(panels) => panels.n,
            Self::Coded(coded, _) => coded.n(),
        }
    }

    /// # Panics
    /// When it is too short for its shape, cannot be multiplied so, or is not as wide as what sums start from.
    fn check(&self, start: Start<'_>) {
        match self {
            Self::Panels(panels) => panels.check(),
            Self::Coded(coded, arithmetic) => assert!(coded.allows(*arithmetic), "{arithmetic:?} of another coding"),
        }
        if let Start::Row(row) = start {
            assert_eq!(row.len(), self.n(), "start row");
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
        Self::Coded(coded, Arithmetic::F32)
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
    multiply(Isa::best(), left, &[Term::of(&mut Output { right: right.into(), start, c, c_stride })], threads);
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

/// Several products of one `A` in fresh memory: `[m, n]` of each.
///
/// # Panics
/// When an operand is too short for its shape, or a sum starts from what fresh memory holds.
#[must_use]
pub fn products(left: Left<'_>, rights: &[(Right<'_>, Start<'_>)], threads: Threads) -> Vec<Vec<f32>> {
    let mut outs: Vec<Vec<f32>> = rights.iter().map(|(right, _)| Vec::with_capacity(left.m * right.n())).collect();
    let terms = rights.iter().zip(&mut outs).map(|((right, start), out)| {
        assert!(!matches!(start, Start::Kept), "nothing is kept in fresh memory");
        let len = left.m * right.n();
        Term { right: *right, start: *start, target: Target(out.as_mut_ptr()), len, c_stride: right.n() }
    });
    multiply(Isa::best(), left, &terms.collect::<Vec<_>>(), threads);
    for (out, (right, _)) in outs.iter_mut().zip(rights) {
        #[expect(unsafe_code, reason = "the products are the first to write there")]
        // SAFETY: the capacity is as large, and `multiply` writes every value of every `C`.
        unsafe {
            out.set_len(left.m * right.n());
        }
    }
    outs
}

fn matmul_on(isa: Isa, left: Left<'_>, outputs: &mut [Output<'_>], threads: Threads) {
    multiply(isa, left, &outputs.iter_mut().map(Term::of).collect::<Vec<_>>(), threads);
}

/// An output whose values need not be there yet.
struct Term<'a> {
    right: Right<'a>,
    start: Start<'a>,
    target: Target,
    /// Values from `target` on.
    len: usize,
    c_stride: usize,
}

fn multiply(isa: Isa, left: Left<'_>, terms: &[Term<'_>], threads: Threads) {
    let m = left.m;
    terms.iter().for_each(|term| term.check(left));
    let work: usize = terms.iter().map(|term| m * term.right.n() * term.right.k()).sum();
    let parallel = threads == Threads::Pool && work >= PARALLEL_FROM;
    if !parallel {
        // Attention has thousands of these; nothing is allocated for one.
        if let [term] = terms {
            if m > 0 && term.right.n() > 0 {
                let lefts = Lefts::of(isa, left, &[term.right], false);
                term.product(isa, &lefts).run(0..m, 0..term.right.n().div_ceil(PANEL));
            }
            return;
        }
    }
    let terms = terms.iter().filter(|term| m > 0 && term.right.n() > 0);
    let rights: Vec<Right<'_>> = terms.clone().map(|term| term.right).collect();
    let lefts = Lefts::of(isa, left, &rights, parallel);
    let products: Vec<Product<'_>> = terms.map(|term| term.product(isa, &lefts)).collect();
    if !parallel {
        products.iter().for_each(|product| product.run(0..m, 0..product.n.div_ceil(PANEL)));
        return;
    }
    // About eight tasks a worker even out uneven cores. A task's panels are a share of one product's.
    let of_rows = rows_of_task(m);
    let row_tasks = m.div_ceil(of_rows);
    let all_panels: usize = products.iter().map(|product| product.n.div_ceil(PANEL)).sum();
    let of_task = (all_panels * row_tasks / (8 * rayon::current_num_threads())).max(1);
    // Neighbours share rows: what a worker does one after the other finds its block of `A` in the cache.
    let tasks_of = |first: usize| {
        let rows = first..m.min(first + of_rows);
        products.iter().flat_map(move |product| {
            let (rows, panels) = (rows.clone(), product.n.div_ceil(PANEL));
            (0..panels).step_by(of_task).map(move |first| {
                let panels = first..panels.min(first + of_task);
                Task { product, rows: rows.clone(), panels }
            })
        })
    };
    let tasks: Vec<Task<'_, '_>> = (0..m).step_by(of_rows).flat_map(tasks_of).collect();
    let together = (TOGETHER * tasks.len() / work).max(1);
    tasks.into_par_iter().with_max_len(together).for_each(|task| task.product.run(task.rows, task.panels));
}

/// Rows of each task, whole tiles, at least one: about the same for all, at most [`TASK_ROWS`].
fn rows_of_task(m: usize) -> usize {
    m.div_ceil(m.div_ceil(TASK_ROWS).max(1)).next_multiple_of(TILE_ROWS).max(TILE_ROWS)
}

/// Rows of each tile of floats but the last: about the same for all, since a low tile takes nearly as long as a full one.
/// Where tasks share the rows, their parts are whole tiles.
fn tile_height(m: usize) -> usize {
    if m > TASK_ROWS { TILE_ROWS } else { m.div_ceil(m.div_ceil(TILE_ROWS).max(1)).max(1) }
}

/// A rectangle of one product.
struct Task<'a, 'b> {
    product: &'a Product<'b>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl<'a> Term<'a> {
    fn of(output: &mut Output<'a>) -> Self {
        Self {
            right: output.right,
            start: output.start,
            target: Target(output.c.as_mut_ptr()),
            len: output.c.len(),
            c_stride: output.c_stride,
        }
    }

    fn product<'b>(&'b self, isa: Isa, lefts: &'b Lefts<'_>) -> Product<'b> {
        Product {
            isa,
            operands: lefts.with(self.right),
            n: self.right.n(),
            start: self.start,
            target: self.target,
            c_stride: self.c_stride,
        }
    }

    /// # Panics
    /// When an operand is too short for its shape.
    fn check(&self, left: Left<'_>) {
        let (m, n) = (left.m, self.right.n());
        if m == 0 || n == 0 {
            return;
        }
        let values = self.len;
        assert!(self.c_stride >= n && values >= (m - 1) * self.c_stride + n, "C of {m} x {n} in {values} values");
        left.check(self.right.k());
        self.right.check(self.start);
    }
}

/// `C` shared by tasks that each write their own rectangle of it.
#[derive(Clone, Copy)]
struct Target(*mut f32);
#[expect(unsafe_code, reason = "tasks write disjoint rectangles of one matrix")]
// SAFETY: `multiply` gives every task its own rows and panels, checked against the length of `C`.
unsafe impl Send for Target {}
#[expect(unsafe_code, reason = "tasks write disjoint rectangles of one matrix")]
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Depth ranges of about the same length, at most `most`: start and length. A sum over nothing has one, of length 0.
fn depths(k: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = k.div_ceil(k.div_ceil(most).max(1)).next_multiple_of(DEPTH_STEP).clamp(1, most);
    (0..k.max(1)).step_by(step).map(move |depth| (depth, step.min(k - depth)))
}

/// Both operands of a product, `A` in the form that `B` is multiplied with.
#[derive(Clone, Copy)]
enum Operands<'a> {
    /// Floats, and the same packed where there are many rows.
    Floats(Left<'a>, Option<&'a PackedLeft>, Panels<'a>),
    /// Floats with coded values.
    Coded(Left<'a>, Option<&'a PackedLeft>, &'a Coded),
    /// Pairs of bf16.
    Pairs(&'a PairLeft, &'a Coded),
    /// Bytes.
    Integers(&'a IntegerLeft, &'a Groups, &'a Coded),
}

/// A block of `B` that a panel's tiles are multiplied with.
#[derive(Clone, Copy)]
enum Block<'a> {
    /// Rows of 32 floats, and the distance between them.
    Floats(Left<'a>, Option<&'a PackedLeft>, &'a [f32], usize),
    /// The whole panel, decoded on the way.
    Coded(Left<'a>, &'a Coded),
    /// Pairs of bf16.
    Pairs(&'a PairLeft, &'a [u8]),
    /// Records of integers.
    Integers(&'a IntegerLeft, &'a Groups, &'a [u8]),
}

thread_local! {
    /// A panel's block of coded values as floats.
    static DECODED: RefCell<Buffer> = RefCell::new(Buffer::zeros(DEPTH * PANEL));
}

/// Where a tile is: its rows of `A`, and the depths of the block.
struct Place {
    row: usize,
    rows: usize,
    depth: usize,
    len: usize,
}

struct Product<'a> {
    isa: Isa,
    operands: Operands<'a>,
    n: usize,
    start: Start<'a>,
    target: Target,
    c_stride: usize,
}

impl Product<'_> {
    /// Computes the rectangle `rows` x `panels` of `C`.
    fn run(&self, rows: Range<usize>, panels: Range<usize>) {
        match self.operands {
            Operands::Floats(left, packed, right) => {
                for (depth, len) in depths(right.k, DEPTH) {
                    for panel in panels.clone() {
                        let b = &right.data[panel * right.panel_stride + depth * right.row_stride..];
                        self.block(&rows, panel, depth, len, Block::Floats(left, packed, b, right.row_stride));
                    }
                }
            }
            Operands::Coded(left, None, right) if rows.len() <= right.few_rows(self.isa) => {
                for panel in panels {
                    self.block(&rows, panel, 0, right.k(), Block::Coded(left, right));
                }
            }
            Operands::Coded(left, packed, right) => {
                DECODED.with_borrow_mut(|block| {
                    for (depth, len) in depths(right.k(), DEPTH) {
                        for panel in panels.clone() {
                            right.unpack(self.isa, panel, depth, len, block);
                            self.block(&rows, panel, depth, len, Block::Floats(left, packed, block, PANEL));
                        }
                    }
                });
            }
            Operands::Pairs(left, right) => {
                for (depth, len) in depths(right.k(), if rows.len() <= TILE_ROWS { usize::MAX } else { DEPTH }) {
                    for panel in panels.clone() {
                        self.block(&rows, panel, depth, len, Block::Pairs(left, right.part(panel, depth, len)));
                    }
                }
            }
            Operands::Integers(left, groups, right) => {
                let most = if rows.len() <= integers::ROWS { usize::MAX } else { integers::DEPTH };
                for (depth, len) in depths(right.k(), most) {
                    for panel in panels.clone() {
                        let records = right.part(panel, depth, len);
                        self.block(&rows, panel, depth, len, Block::Integers(left, groups, records));
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
        let columns = PANEL.min(self.n - first);
        let most = match b {
            Block::Floats(_, packed, b, stride) => {
                assert!(len == 0 || b.len() >= (len - 1) * stride + PANEL, "a block of {len} rows");
                packed.map_or_else(|| tile_height(rows.len()), PackedLeft::height)
            }
            Block::Coded(_, coded) => coded.few_rows(self.isa),
            Block::Pairs(..) => TILE_ROWS,
            Block::Integers(..) => integers::ROWS,
        };
        let mut row = rows.start;
        while row < rows.end {
            let tile_rows = most.min(rows.end - row);
            // SAFETY: `multiply` checked that A and C hold the rectangle, and B is checked above; a tile of fewer than
            // 32 columns goes through `edge`, which is a whole tile; rectangles of different tasks are disjoint.
            unsafe {
                let c = self.target.0.wrapping_add(row * self.c_stride + first);
                let (tile, stride) = if columns == PANEL { (c, self.c_stride) } else { (edge.as_mut_ptr(), PANEL) };
                // Tiles of floats and pairs read what they start from themselves, others find it where they add.
                let mut start = (tile.cast_const(), stride);
                match self.start {
                    Start::Zero if depth == 0 && matches!(b, Block::Floats(..) | Block::Pairs(..)) => {
                        start = (ZEROS.0.as_ptr(), 0)
                    }
                    _ if depth == 0 => self.start_tile(c, tile, stride, tile_rows, first, columns),
                    _ if columns < PANEL => copy_tile(c, self.c_stride, tile, stride, tile_rows, columns),
                    _ => {}
                }
                if len > 0 || start.1 == 0 {
                    self.add(b, panel, Place { row, rows: tile_rows, depth, len }, start, tile, stride);
                }
                if columns < PANEL {
                    copy_tile(tile, stride, c, self.c_stride, tile_rows, columns);
                }
            }
            row += tile_rows;
        }
    }

    /// Adds the products of one tile.
    #[expect(unsafe_code, reason = "the inner loop works on pointers")]
    unsafe fn add(
        &self,
        b: Block<'_>,
        panel: usize,
        at: Place,
        (start, start_stride): (*const f32, usize),
        c: *mut f32,
        c_stride: usize,
    ) {
        let Place { row, rows, depth, len } = at;
        let float_tile = |a: TileRows<'_>, b: *const f32, b_stride| Tile {
            k: len,
            a: a.rows.as_ptr(),
            a_stride: a.row_stride,
            a_step: a.step,
            b,
            b_stride,
            start,
            start_stride,
            c,
            c_stride,
        };
        // SAFETY: the caller has `rows` rows of 32 values at `c`, and operands of a block's size.
        unsafe {
            match b {
                Block::Floats(left, packed, b, stride) => {
                    let a = packed.map_or_else(|| left.tile(row, depth), |packed| packed.tile(row, depth));
                    tile_kernel(self.isa, rows, &float_tile(a, b.as_ptr(), stride));
                }
                #[cfg(target_arch = "x86_64")]
                Block::Coded(left, coded) => {
                    coded_avx512::few(coded, panel, rows, &float_tile(left.tile(row, depth), std::ptr::null(), 0));
                }
                #[cfg(target_arch = "x86_64")]
                Block::Pairs(left, b) => {
                    let (a, k) = (left.tile(row, depth), b.len() / PAIRS);
                    assert!(a.len() >= k * TILE_ROWS, "pairs of both operands");
                    let a = TileRows { rows: a, row_stride: 1, step: TILE_ROWS };
                    pairs::avx512::tile(rows, &Tile { k, ..float_tile(a, b.as_ptr().cast(), PANEL) });
                }
                #[cfg(not(target_arch = "x86_64"))]
                Block::Coded(..) | Block::Pairs(..) => unreachable!("only chosen where there is AVX-512"),
                Block::Integers(left, groups, records) => {
                    let tile = left.tile(row, depth, records);
                    #[cfg(target_arch = "x86_64")]
                    if self.isa == Isa::Avx512 && integers::vnni::available() {
                        integers::vnni::tile(groups, tile, rows, c, c_stride);
                        return;
                    }
                    for row in 0..rows {
                        let c = std::slice::from_raw_parts_mut(c.add(row * c_stride), PANEL);
                        integers::add_row(groups, tile, row, c);
                    }
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

#[cfg(test)]
mod tests;
