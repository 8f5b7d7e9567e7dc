//! Left operands: as they lie, packed for the tiles, or rounded to what a product is computed in.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use rayon::prelude::*;

use super::integers::IntegerLeft;
use super::pairs::{self, PairLeft};
use super::transpose::{transpose_4, transpose_8};
use super::{Arithmetic, Operands, PACK_FROM, Right, TILE_ROWS, tile_height};
use crate::{Buffer, Isa};

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

/// `A` in groups of the rows of a tile, `[m / height][k][12]`, padded with anything: what a tile reads for one `k` lies in
/// one cache line. Rows a power of two apart would fall on each other in the cache.
pub(super) struct PackedLeft {
    k: usize,
    /// Rows of every tile but the last.
    height: usize,
    data: Room,
}

/// Memory of a packed operand, which goes to the next one: writing into pages that are there takes half the time of packing
/// away.
pub(super) struct Room(Buffer);

thread_local! {
    static SPARE: Cell<Buffer> = Cell::default();
}

impl Room {
    /// At least `len` values, whatever they are.
    pub(super) fn of(len: usize) -> Self {
        let spare = SPARE.take();
        Self(if spare.len() < len { Buffer::zeros(len) } else { spare })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
    }
}

impl Deref for Room {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// `A` in every form that one of several products needs.
pub(super) struct Lefts<'a> {
    floats: FloatLeft<'a>,
    /// Rounded to bf16, where there are no instructions for it.
    rounded: Option<FloatLeft<'static>>,
    pairs: Option<PairLeft>,
    /// Of every length of group.
    integers: Vec<IntegerLeft>,
}

struct FloatLeft<'a> {
    data: Cow<'a, [f32]>,
    m: usize,
    row_stride: usize,
    packed: Option<PackedLeft>,
}

impl<'a> Lefts<'a> {
    /// What `rights` need; with `threads`, many rows of floats are packed.
    pub(super) fn of(isa: Isa, left: Left<'a>, rights: &[Right<'_>], threads: bool) -> Self {
        let k = rights.first().map_or(0, Right::k);
        let many = threads && left.m >= PACK_FROM && k > 0;
        let packs = |arithmetic: Arithmetic| {
            let floats = |right: &Right<'_>| !matches!(right, Right::Coded(_, other) if *other != arithmetic);
            many && rights.iter().all(|right| right.k() == k && floats(right))
        };
        let mut lefts = Self {
            floats: FloatLeft::new(
                isa,
                Cow::Borrowed(left.data),
                left.m,
                left.row_stride,
                packs(Arithmetic::F32).then_some(k),
            ),
            rounded: None,
            pairs: None,
            integers: Vec::new(),
        };
        for right in rights {
            let k = right.k();
            match *right {
                Right::Coded(_, Arithmetic::Bf16) if pairs::are_multiplied(isa) => {
                    lefts.pairs.get_or_insert_with(|| PairLeft::round(isa, left, k));
                }
                Right::Coded(_, Arithmetic::Bf16) => {
                    lefts.rounded.get_or_insert_with(|| {
                        let packed = packs(Arithmetic::Bf16).then_some(k);
                        FloatLeft::new(isa, Cow::Owned(pairs::rounded(left, k)), left.m, k, packed)
                    });
                }
                Right::Coded(coded, Arithmetic::Int8) => {
                    let len = coded.groups().map_or(k, |groups| groups.len);
                    if lefts.integers.iter().all(|left| left.group_len() != len) {
                        lefts.integers.push(IntegerLeft::round(left, k, len));
                    }
                }
                Right::Coded(_, Arithmetic::F32) | Right::Panels(_) => {}
            }
        }
        lefts
    }

    /// The operands of a product with `right`, which was among the terms.
    pub(super) fn with<'b>(&'b self, right: Right<'b>) -> Operands<'b> {
        let coded = |left: &'b FloatLeft<'_>, coded| Operands::Coded(left.view(), left.packed.as_ref(), coded);
        match right {
            Right::Panels(panels) => Operands::Floats(self.floats.view(), self.floats.packed.as_ref(), panels),
            Right::Coded(right, Arithmetic::F32) => coded(&self.floats, right),
            Right::Coded(right, Arithmetic::Bf16) => match (&self.pairs, &self.rounded) {
                (Some(pairs), _) => Operands::Pairs(pairs, right),
                (None, rounded) => coded(rounded.as_ref().unwrap_or(&self.floats), right),
            },
            Right::Coded(right, Arithmetic::Int8) => {
                let of_groups = right.groups().and_then(|groups| {
                    let left = self.integers.iter().find(|left| left.group_len() == groups.len)?;
                    Some(Operands::Integers(left, groups, right))
                });
                of_groups.unwrap_or_else(|| coded(&self.floats, right))
            }
        }
    }
}

impl<'a> FloatLeft<'a> {
    /// Packs the first `packed` columns, if any.
    fn new(isa: Isa, data: Cow<'a, [f32]>, m: usize, row_stride: usize, packed: Option<usize>) -> Self {
        let packed = packed.map(|k| Left { data: &data, m, row_stride }.pack(isa, k));
        Self { data, m, row_stride, packed }
    }

    fn view(&self) -> Left<'_> {
        Left { data: &self.data, m: self.m, row_stride: self.row_stride }
    }
}

impl Left<'_> {
    /// # Panics
    /// When it is too short for rows of `k` values.
    pub(super) fn check(&self, k: usize) {
        let (m, rows) = (self.m, self.data.len());
        assert!(self.row_stride >= k && (k == 0 || m == 0 || rows >= (m - 1) * self.row_stride + k), "A of {m} x {k}");
    }

    /// Packs the first `k` columns, in parallel.
    pub(super) fn pack(&self, isa: Isa, k: usize) -> PackedLeft {
        let (group, height) = (TILE_ROWS * k, tile_height(self.m));
        let tiles = self.m.div_ceil(height);
        let mut data = Room::of(tiles * group);
        let groups = data.par_chunks_mut(group.max(1)).take(tiles).with_min_len(2);
        groups.enumerate().for_each(|(index, out)| {
            let first = index * height;
            let last = height.min(self.m - first) - 1;
            // The last row stands for those that are not there.
            let line = |row: usize| &self.data[(first + last.min(row)) * self.row_stride..][..k];
            transpose_8(isa, std::array::from_fn(line), TILE_ROWS, out);
            transpose_4(isa, std::array::from_fn(|i| line(8 + i)), TILE_ROWS, &mut out[8..]);
        });
        PackedLeft { k, height, data }
    }

    /// Rows from `row` on, from `depth` on.
    pub(super) fn tile(&self, row: usize, depth: usize) -> TileRows<'_> {
        TileRows { rows: &self.data[row * self.row_stride + depth..], row_stride: self.row_stride, step: 1 }
    }
}

impl PackedLeft {
    /// Rows of every tile but the last.
    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// Rows from `row`, where a tile begins, on, from `depth` on.
    pub(super) fn tile(&self, row: usize, depth: usize) -> TileRows<'_> {
        debug_assert!(row.is_multiple_of(self.height), "row {row} in tiles of {}", self.height);
        let first = row / self.height * TILE_ROWS * self.k + depth * TILE_ROWS;
        TileRows { rows: &self.data[first..], row_stride: 1, step: TILE_ROWS }
    }
}
