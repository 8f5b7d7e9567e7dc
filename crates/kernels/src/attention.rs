//! Attention of packed sequences, forward and backward.
//!
//! For a query at position `p` of its sequence and visible keys `j` (`p - window < j ≤ p`, or `p - window < j < p + window`
//! where it reaches both ways): `s_j = scale · q·k_j`, optionally `cap · tanh(s_j / cap)`; `P = softmax(s)`;
//! `out = Σ_j P_j v_j`.
//!
//! Queries are taken in blocks: the scores of one block against its visible keys are a matrix product, the softmax of
//! a row sees the whole row, and the sum over values is one chain over rising `j`. A masked key adds an exact zero, so
//! neither the block size nor what else is in the batch changes a bit; a token decoded through a cache equals the same
//! token of a full pass. Only the scores of one block exist at a time.

mod keys;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::Isa;
use crate::isa::dispatch;
use crate::matmul::{Left, PANEL, Packed, Panels, Start, Threads, matmul, transpose_lines};
use crate::vector::{LANES, exp, max_of, sum_lanes, sum_of, tanh};

pub use keys::{KeyValues, key_values};

/// Query rows of one block.
const BLOCK: usize = 48;

/// Heads whose scores take so many multiply-adds are left to a worker in one.
const TOGETHER: usize = 1 << 19;

/// Shape and scaling of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of one head.
    pub head_dim: usize,
    /// On which sides of a query the keys are that it sees.
    pub reach: Reach,
    /// Keys that a query sees on a side, itself included; `None` is all.
    pub window: Option<usize>,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// `cap` of `cap · tanh(s / cap)`.
    pub soft_cap: Option<f32>,
}

/// On which sides of a query the keys are that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those up to its own position: a decoder.
    Before,
    /// Those on both sides: an encoder.
    Both,
}

impl Shape {
    /// First key that the query at `position` sees.
    #[must_use]
    pub fn first_visible(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The position after the last key that the query at `position` of a sequence of `len` positions sees.
    #[must_use]
    pub fn end_visible(&self, position: usize, len: usize) -> usize {
        match (self.reach, self.window) {
            (Reach::Before, _) => position + 1,
            (Reach::Both, None) => len,
            (Reach::Both, Some(window)) => len.min(position.saturating_add(window)),
        }
    }
}

/// Where one sequence lies in a packed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Position of the first row within its sequence.
    pub position: usize,
}

/// A block of attention probabilities, lent while it exists.
pub struct Pattern<'a> {
    /// Which of the packed sequences.
    pub sequence: usize,
    /// Query head.
    pub head: usize,
    /// Position of the first query row.
    pub first_query: usize,
    /// Number of query rows.
    pub queries: usize,
    /// Position of the first key column.
    pub first_key: usize,
    /// Number of key columns; masked ones hold 0.
    pub keys: usize,
    /// `[queries, keys]`
    pub probabilities: &'a [f32],
}

/// Receives the blocks of a head in the order of its queries; different heads come from different threads.
pub type PatternSink<'a> = &'a (dyn Fn(&Pattern<'_>) + Sync);

/// Where the keys of a head begin in packed rows, and the distance between two of them.
fn first_of(shape: &Shape, rows: &Rows, kv_head: usize) -> (usize, usize) {
    let width = shape.kv_heads * shape.head_dim;
    (rows.start * width + kv_head * shape.head_dim, width)
}

/// Attention of packed sequences that all begin here: the same as [`forward`] with their [`key_values`].
///
/// # Panics
/// When shapes disagree.
pub fn forward_whole(shape: &Shape, sequences: &[Rows], q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let heads = sequences.len() * shape.kv_heads;
    if heads < 16 * rayon::current_num_threads() {
        let kv = key_values(shape, sequences, k, v);
        return forward(shape, sequences, q, &kv.iter().collect::<Vec<_>>(), None, out);
    }
    // Many short texts: keys and values of one head at a time, which stay in the first-level cache.
    let target = target(shape, sequences, q, out);
    assert!(sequences.iter().all(|rows| rows.position == 0), "whole sequences");
    let group = shape.heads / shape.kv_heads;
    let together = (TOGETHER * heads / work(shape, sequences).max(1)).max(1);
    (0..heads).into_par_iter().with_max_len(together).for_each(|task| {
        let (sequence, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let rows = &sequences[sequence];
        if rows.len == 0 {
            return;
        }
        let (first, stride) = first_of(shape, rows, kv_head);
        KEY_VALUES.with_borrow_mut(|kv| {
            kv.refill(shape.head_dim, &k[first..], &v[first..], stride, rows.len);
            let heads = kv_head * group..(kv_head + 1) * group;
            for head in heads.clone().step_by(if rows.len == 1 { group } else { 1 }) {
                let heads = head..if rows.len == 1 { heads.end } else { head + 1 };
                forward_heads(shape, sequence, rows, heads, q, kv, None, target);
            }
        });
    });
}

thread_local! {
    /// Keys and values of the head that a thread is at.
    static KEY_VALUES: RefCell<KeyValues> = RefCell::default();
    /// Scores and outputs of the block that a thread is at.
    static BLOCKS: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

/// Multiply-adds of the scores.
fn work(shape: &Shape, sequences: &[Rows]) -> usize {
    sequences.iter().map(|s| s.len * (s.position + s.len)).sum::<usize>() * shape.heads * shape.head_dim
}

/// Attention of a packed batch. `q` and `out` are `[tokens, heads · head_dim]`; `kv[s · kv_heads + h]` holds the keys
/// and values of sequence `s`, the rows of this call included.
///
/// # Panics
/// When shapes disagree.
pub fn forward(
    shape: &Shape,
    sequences: &[Rows],
    q: &[f32],
    kv: &[&KeyValues],
    sink: Option<PatternSink<'_>>,
    out: &mut [f32],
) {
    assert_eq!(kv.len(), sequences.len() * shape.kv_heads, "attention operands");
    let target = target(shape, sequences, q, out);
    let group = shape.heads / shape.kv_heads;
    // A sequence's only query reads the keys once for all heads that share them.
    let heads = |rows: &Rows| (0..shape.heads).step_by(if rows.len == 1 { group } else { 1 });
    let tasks: Vec<(usize, usize)> = sequences
        .iter()
        .enumerate()
        .flat_map(|(sequence, rows)| heads(rows).map(move |head| (sequence, head)))
        .collect();
    let task = |&(sequence, head): &(usize, usize)| {
        let (rows, kv) = (&sequences[sequence], kv[sequence * shape.kv_heads + head / group]);
        let heads = head..head + if rows.len == 1 { group } else { 1 };
        forward_heads(shape, sequence, rows, heads, q, kv, sink, target);
    };
    let work = work(shape, sequences);
    if work < 1 << 16 {
        tasks.iter().for_each(task);
    } else {
        tasks.par_iter().with_max_len((TOGETHER * tasks.len() / work).max(1)).for_each(task);
    }
}

/// # Panics
/// When queries, output and sequences are not of one shape.
fn target(shape: &Shape, sequences: &[Rows], q: &[f32], out: &mut [f32]) -> Target {
    let rows: usize = sequences.iter().map(|s| s.len).sum();
    assert!(q.len() == out.len() && q.len() == rows * shape.heads * shape.head_dim, "packed rows");
    Target(out.as_mut_ptr(), out.len())
}

/// The output shared by tasks that each write the columns of one head of one sequence.
#[derive(Clone, Copy)]
struct Target(*mut f32, usize);
#[expect(unsafe_code, reason = "tasks write disjoint columns")]
// SAFETY: every (sequence, head) is written by one task.
unsafe impl Send for Target {}
#[expect(unsafe_code, reason = "tasks write disjoint columns")]
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Copies `rows` rows of `width` values to (row, column) on, `stride` apart.
    #[expect(unsafe_code, reason = "tasks write disjoint columns")]
    fn write(self, from: &[f32], first: usize, stride: usize, width: usize) {
        for (row, line) in from.chunks_exact(width).enumerate() {
            let at = first + row * stride;
            assert!(at + width <= self.1);
            // SAFETY: checked above; no other task writes these columns of these rows.
            unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), self.0.add(at), width) };
        }
    }
}

/// Blocks of queries with the keys that they see: (first row, rows, first key, end of keys).
fn blocks<'a>(
    shape: &'a Shape,
    rows: &'a Rows,
    stored_from: usize,
) -> impl Iterator<Item = (usize, usize, usize, usize)> + 'a {
    (0..rows.len).step_by(BLOCK).map(move |row| {
        let count = BLOCK.min(rows.len - row);
        let first = rows.position + row;
        // Panels of keys start at multiples of 32.
        let from = (shape.first_visible(first) / PANEL * PANEL).max(stored_from);
        (row, count, from, shape.end_visible(first + count - 1, rows.position + rows.len))
    })
}

/// Some heads that share keys and values; several only where there is a single query, of which they are the rows.
#[expect(clippy::too_many_arguments, reason = "one operation's operands")]
fn forward_heads(
    shape: &Shape,
    sequence: usize,
    rows: &Rows,
    heads: Range<usize>,
    q: &[f32],
    kv: &KeyValues,
    sink: Option<PatternSink<'_>>,
    target: Target,
) {
    let (d, width) = (shape.head_dim, shape.heads * shape.head_dim);
    assert!(kv.len() == rows.position + rows.len, "keys up to the last query");
    assert!(heads.len() == 1 || rows.len == 1, "several heads of one query");
    // Distance between two rows, and between the positions of their queries.
    let (stride, step) = if rows.len == 1 { (d, 0) } else { (width, 1) };
    let [mut scores, mut out] = BLOCKS.take();
    out.resize(BLOCK.min(rows.len) * heads.len() * d, 0.0);
    for (row, queries, from, to) in blocks(shape, rows, kv.first()) {
        let (keys, count) = (to - from, queries * heads.len());
        let first = (rows.start + row) * width + heads.start * d;
        let position = rows.position + row;
        scores.resize(count * keys, 0.0);
        let left = Left { data: &q[first..], m: count, row_stride: stride };
        matmul(left, kv.keys_view(from, to), Start::Zero, &mut scores, keys, Threads::One);
        for (row, line) in scores.chunks_exact_mut(keys).enumerate() {
            softmax_row(shape, position + row * step, from..to, line);
        }
        if let Some(sink) = sink {
            for (head, probabilities) in heads.clone().zip(scores.chunks_exact(queries * keys)) {
                let (first_query, first_key) = (position, from);
                sink(&Pattern { sequence, head, first_query, queries, first_key, keys, probabilities });
            }
        }
        let left = Left { data: &scores, m: count, row_stride: keys };
        let out = &mut out[..count * d];
        matmul(left, kv.values_view(from, to), Start::Zero, out, d, Threads::One);
        target.write(out, first, stride, d);
    }
    BLOCKS.set([scores, out]);
}

/// Turns the scores of the query at `position` against `keys`, the last that its block sees among them, into probabilities.
fn softmax_row(shape: &Shape, position: usize, keys: Range<usize>, line: &mut [f32]) {
    let from = shape.first_visible(position).max(keys.start) - keys.start;
    let to = shape.end_visible(position, keys.end) - keys.start;
    softmax_visible(line, from, to, shape.scale, shape.soft_cap);
}

dispatch! {
    /// Softmax of `row[from..to]` after scaling and capping; zero elsewhere.
    ///
    /// Partial sums belong to key positions modulo 16 (panels start at multiples of 32), so they don't depend on where
    /// the stored keys begin.
    fn softmax_visible(row: &mut [f32], from: usize, to: usize, scale: f32, soft_cap: Option<f32>) {
        // Whole rows keep the loops in vectors: what is not visible is as if it were infinitely unlikely.
        for x in row.iter_mut() {
            *x *= scale;
        }
        if let Some(cap) = soft_cap {
            for x in row.iter_mut() {
                *x = cap * tanh(*x / cap);
            }
        }
        row[..from].fill(f32::NEG_INFINITY);
        row[to..].fill(f32::NEG_INFINITY);
        let max = max_of(row);
        let mut lanes = [0.0; LANES];
        let (blocks, rest) = row.as_chunks_mut::<LANES>();
        for block in blocks {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *x = exp(*x - max);
                *lane += *x;
            }
        }
        // A whole block as well: what is not there is as unlikely as what is not visible.
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        for (lane, x) in lanes.iter_mut().zip(&mut last) {
            *x = exp(*x - max);
            *lane += *x;
        }
        rest.copy_from_slice(&last[..rest.len()]);
        // Zero also in a row of NaN.
        row[..from].fill(0.0);
        row[to..].fill(0.0);
        let share = 1.0 / sum_lanes(lanes);
        for x in &mut row[from..to] {
            *x *= share;
        }
    }
}

/// Gradients of [`forward`] without a cache (every sequence starts at position 0). All slices are packed rows: `q`,
/// `dout`, `dq` are `[tokens, heads · head_dim]`; `k`, `v`, `dk`, `dv` are `[tokens, kv_heads · head_dim]`. The
/// probabilities are computed again, block by block.
#[expect(clippy::too_many_arguments, reason = "one operation's operands")]
pub fn backward(
    shape: &Shape,
    sequences: &[Rows],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let (dq, dk, dv) =
        (Target(dq.as_mut_ptr(), dq.len()), Target(dk.as_mut_ptr(), dk.len()), Target(dv.as_mut_ptr(), dv.len()));
    let heads = (0..sequences.len() * shape.heads).into_par_iter().map(|task| {
        let (sequence, head) = (task / shape.heads, task % shape.heads);
        backward_head(shape, &sequences[sequence], head, q, k, v, dout, dq)
    });
    let heads: Vec<[Vec<f32>; 2]> = heads.collect();
    // What heads that share keys and values say of these, in their order.
    let group = shape.heads / shape.kv_heads;
    heads.par_chunks(group).enumerate().for_each(|(task, heads)| {
        let (sequence, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let (first, stride) = first_of(shape, &sequences[sequence], kv_head);
        for (target, which) in [(dk, 0), (dv, 1)] {
            let (first_head, others) = (&heads[0][which], &heads[1..]);
            if others.is_empty() {
                target.write(first_head, first, stride, shape.head_dim);
                continue;
            }
            let mut sum = first_head.clone();
            for head in others {
                sum.iter_mut().zip(&head[which]).for_each(|(sum, x)| *sum += x);
            }
            target.write(&sum, first, stride, shape.head_dim);
        }
    });
}

/// One query head: writes its gradient, and returns what it adds to those of its keys and values.
#[expect(clippy::too_many_arguments, reason = "one operation's operands")]
fn backward_head(
    shape: &Shape,
    rows: &Rows,
    head: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dout: &[f32],
    dq_all: Target,
) -> [Vec<f32>; 2] {
    assert_eq!(rows.position, 0, "gradients start at the first position");
    let d = shape.head_dim;
    let width = shape.heads * d;
    let (kv_first, kv_width) = first_of(shape, rows, head * shape.kv_heads / shape.heads);
    let (k, v) = (&k[kv_first..], &v[kv_first..]);
    let kv = KeyValues::from_rows(d, k, v, kv_width, rows.len);
    // The same head with the roles exchanged: V in panels of positions, K in rows.
    let vk = KeyValues::from_rows(d, v, k, kv_width, rows.len);
    let (mut dk, mut dv) = (vec![0.0; rows.len * d], vec![0.0; rows.len * d]);
    let (mut p, mut ds, mut transposed) = (Vec::new(), Vec::new(), Vec::new());
    let mut block_rows = vec![0.0; BLOCK * d];
    for (row, count, from, to) in blocks(shape, rows, 0) {
        let keys = to - from;
        let first = (rows.start + row) * width + head * d;
        p.resize(count * keys, 0.0);
        ds.resize(count * keys, 0.0);
        let queries = Left { data: &q[first..], m: count, row_stride: width };
        matmul(queries, kv.keys_view(from, to), Start::Zero, &mut p, keys, Threads::One);
        let raw = shape.soft_cap.map(|_| p.clone());
        for (position, line) in (row..).zip(p.chunks_exact_mut(keys)) {
            softmax_row(shape, position, from..to, line);
        }

        // dV += Pᵀ dO
        add_transposed(&p, &dout[first..], (count, keys, d, width), &mut dv[from * d..to * d], &mut transposed);

        // dP = dO Vᵀ, dS = P (dP - Σ P dP) · scale, through the cap where there is one
        let left = Left { data: &dout[first..], m: count, row_stride: width };
        matmul(left, vk.keys_view(from, to), Start::Zero, &mut ds, keys, Threads::One);
        for (r, (ds, p)) in ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).enumerate() {
            let mean = sum_of([p, ds], |[p, ds]| p * ds);
            for (ds, p) in ds.iter_mut().zip(p) {
                *ds = p * (*ds - mean) * shape.scale;
            }
            if let (Some(raw), Some(cap)) = (&raw, shape.soft_cap) {
                for (ds, s) in ds.iter_mut().zip(&raw[r * keys..]) {
                    let t = tanh(s * shape.scale / cap);
                    *ds *= 1.0 - t * t;
                }
            }
        }

        // dQ = dS K
        let left = Left { data: &ds, m: count, row_stride: keys };
        let block = &mut block_rows[..count * d];
        matmul(left, vk.values_view(from, to), Start::Zero, block, d, Threads::One);
        dq_all.write(block, first, width, d);

        // dK += dSᵀ Q
        add_transposed(&ds, &q[first..], (count, keys, d, width), &mut dk[from * d..to * d], &mut transposed);
    }
    [dk, dv]
}

/// `C += Aᵀ B`, with `A` `[count, keys]`, `B` `[count, d]` in rows `stride` apart, and `C` `[keys, d]`.
fn add_transposed(
    a: &[f32],
    b: &[f32],
    (count, keys, d, stride): (usize, usize, usize, usize),
    c: &mut [f32],
    transposed: &mut Vec<f32>,
) {
    transposed.resize(count * keys, 0.0);
    transpose_lines(Isa::best(), a, keys, count, 0..keys, count, transposed);
    let left = Left { data: transposed, m: keys, row_stride: count };
    if let Some(right) = Panels::of_rows(b, count, d, stride) {
        return matmul(left, right, Start::Kept, c, d, Threads::One);
    }
    let rows: Vec<f32> = b.chunks(stride).take(count).flat_map(|row| &row[..d]).copied().collect();
    matmul(left, Packed::from_rows(&rows, count, d).view(), Start::Kept, c, d, Threads::One);
}

#[cfg(test)]
mod tests;
