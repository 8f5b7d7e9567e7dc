//! Reading a tensor tile by tile.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use crate::{InputError, Inputs};

/// Numbers of a tile: a few tiles lie in a processor's second-level cache.
pub(super) const TILE: usize = 1 << 16;

/// Tiles whose results are held at once, before they are joined in order.
const WAVE: usize = 128;

thread_local! {
    /// The numbers of the last tile that this thread read, kept so that its memory is asked for once.
    static NUMBERS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A tensor of several models, cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    inputs: &'a dyn Inputs,
    len: usize,
    tile: usize,
}

impl<'a> Tiles<'a> {
    /// Tiles of about `numbers`, in whole units of `unit` and at least one.
    pub(super) fn new(inputs: &'a dyn Inputs, unit: usize, numbers: usize) -> Self {
        let len = inputs.shape().iter().product();
        Self { inputs, len, tile: (numbers / unit).max(1) * unit }
    }

    /// Numbers of the tensor.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Numbers of a tile; the last may have fewer.
    pub(super) fn tile_len(&self) -> usize {
        self.tile
    }

    /// How many tiles there are.
    pub(super) fn count(&self) -> usize {
        self.len.div_ceil(self.tile)
    }

    /// Where a tile begins.
    pub(super) fn first(&self, tile: usize) -> usize {
        tile * self.tile
    }

    /// Reads a tile of every input and hands it out.
    pub(super) fn with<T>(&self, tile: usize, work: impl FnOnce(&[&[f32]]) -> T) -> Result<T, InputError> {
        let first = self.first(tile);
        let range: Range<usize> = first..self.len.min(first + self.tile);
        let len = range.len();
        // Taken, not borrowed: a reader may run other work of the pool on this thread.
        let mut numbers = NUMBERS.take();
        numbers.resize(numbers.len().max(self.inputs.count() * len), 0.0);
        for (model, part) in numbers.chunks_exact_mut(len).take(self.inputs.count()).enumerate() {
            self.inputs.read(model, range.clone(), part)?;
        }
        let parts: Vec<&[f32]> = numbers.chunks_exact(len).take(self.inputs.count()).collect();
        let result = work(&parts);
        NUMBERS.set(numbers);
        Ok(result)
    }

    /// What `map` says of every tile (its number, the inputs), joined in order.
    pub(super) fn join<T: Send, A>(
        &self,
        mut all: A,
        map: impl Fn(usize, &[&[f32]]) -> T + Sync,
        mut join: impl FnMut(&mut A, T),
    ) -> Result<A, InputError> {
        let mut tile = 0;
        while tile < self.count() {
            let wave = tile..self.count().min(tile + WAVE);
            tile = wave.end;
            let parts: Result<Vec<T>, InputError> =
                wave.into_par_iter().map(|tile| self.with(tile, |inputs| map(tile, inputs))).collect();
            parts?.into_iter().for_each(|part| join(&mut all, part));
        }
        Ok(all)
    }

    /// Counts over all tiles, `[counts]`. Integers have one sum in any order.
    pub(super) fn count_all(
        &self,
        counts: usize,
        add: impl Fn(&[&[f32]], &mut [u32]) + Sync,
    ) -> Result<Vec<u32>, InputError> {
        // A table may be large, so there are no more than a few for each thread.
        let shares = self.count().div_ceil(2 * rayon::current_num_threads()).max(1);
        let total = (0..self.count())
            .into_par_iter()
            .with_min_len(shares)
            .try_fold(Vec::new, |mut table, tile| {
                table.resize(counts, 0);
                self.with(tile, |inputs| add(inputs, &mut table))?;
                Ok::<_, InputError>(table)
            })
            .try_reduce_with(|mut a, b| {
                a.resize(counts, 0);
                a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
                Ok(a)
            });
        let mut table = total.transpose()?.unwrap_or_default();
        table.resize(counts, 0);
        Ok(table)
    }
}
