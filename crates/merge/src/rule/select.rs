//! The k largest of a tensor's keys, exactly, without sorting and without holding the tensor.
//!
//! A key is the bits of a non-negative f32. The first reading counts keys by their upper 16 bits, which says in which
//! of these bins the k-th largest is. The second finds it among the keys of that bin: they are collected where they
//! are few, and counted by their lower bits where they are many. Of equal keys the first positions are kept: the answer
//! is a key and the last position at which an equal one counts, so that any piece can be judged without its neighbours.

use lathe_kernels::weights::{
    self, BLOCK, KEY_LIMIT, LOWER, TABLES, UPPER, collect_lower, count_equal, count_lower, count_upper,
};

use super::tiles::Tiles;
use crate::InputError;

/// Keys that are collected at most, of 4 bytes each.
const COLLECTED: u64 = 1 << 22;

/// The largest keys: those above `key`, and those equal to it at positions up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    key: u32,
    last: usize,
}

impl Cut {
    /// Every key.
    pub(super) const ALL: Self = Self { key: 0, last: usize::MAX };
    /// No key.
    pub(super) const NONE: Self = Self { key: KEY_LIMIT, last: usize::MAX };

    /// The least key that belongs to the largest at `position`, and the position at which that ends.
    pub(super) fn least(&self, position: usize) -> (u32, usize) {
        if position <= self.last { (self.key, self.last.saturating_add(1)) } else { (self.key + 1, usize::MAX) }
    }
}

/// What is ranked.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// Sizes of the differences between some inputs and input 0, each by itself.
    Differences(Vec<usize>),
    /// Variances over the inputs from 1 on.
    Spread,
}

impl Keys {
    fn series(&self) -> usize {
        match self {
            Self::Differences(models) => models.len(),
            Self::Spread => 1,
        }
    }

    /// Hands out the keys of a tile, some at a time, with their place in the tile.
    fn each(&self, series: usize, tile: &[&[f32]], mut work: impl FnMut(usize, &[u32])) {
        let len = tile.first().map_or(0, |numbers| numbers.len());
        let mut keys = [0; BLOCK];
        let mut models = Vec::with_capacity(tile.len());
        for at in (0..len).step_by(BLOCK) {
            let part = at..len.min(at + BLOCK);
            let keys = &mut keys[..part.len()];
            match self {
                Self::Differences(inputs) => {
                    weights::difference_keys(&tile[0][part.clone()], &tile[inputs[series]][part], keys);
                }
                Self::Spread => {
                    models.clear();
                    models.extend(tile[1..].iter().map(|numbers| &numbers[part.clone()]));
                    weights::spread_keys(&models, keys);
                }
            }
            work(at, keys);
        }
    }
}

/// One k-th largest that is looked for.
struct Wanted {
    series: usize,
    /// Which of the series' cuts it is.
    place: usize,
    /// The bin of its upper bits.
    upper: u32,
    /// Which of that bin it is, from 1 for the largest.
    rank: u64,
    /// How many keys the bin has.
    bin: u64,
}

/// For every series, the cuts that keep as many of the largest as `how_many` says, which is told the series and how
/// many of its keys are not zero (below the least normal f32).
pub(super) fn largest<const N: usize>(
    tiles: &Tiles<'_>,
    keys: &Keys,
    how_many: impl Fn(usize, usize) -> [usize; N],
) -> Result<Vec<[Cut; N]>, InputError> {
    let counts = tiles.count_all(keys.series() * TABLES * UPPER, |tile, tables| {
        for (series, tables) in tables.chunks_exact_mut(TABLES * UPPER).enumerate() {
            keys.each(series, tile, |_, keys| count_upper(keys, tables));
        }
    })?;
    let mut cuts = vec![[Cut::ALL; N]; keys.series()];
    let mut wanted = Vec::new();
    for (series, tables) in counts.chunks_exact(TABLES * UPPER).enumerate() {
        let bin = |upper: usize| (0..TABLES).map(|table| u64::from(tables[table * UPPER + upper])).sum::<u64>();
        let zeros: u64 = (0..(f32::MIN_POSITIVE.to_bits() >> 16) as usize).map(bin).sum();
        for (place, count) in how_many(series, tiles.len() - zeros as usize).into_iter().enumerate() {
            if count == 0 {
                cuts[series][place] = Cut::NONE;
            } else if count < tiles.len() {
                let (upper, rank) = find(UPPER, bin, count as u64);
                wanted.push(Wanted { series, place, upper: upper as u32, rank, bin: bin(upper) });
            }
        }
    }
    let few = wanted.iter().map(|wanted| wanted.bin).sum::<u64>() <= COLLECTED && tiles.tile_len() <= LOWER;
    let found = if few { collected(tiles, keys, &wanted)? } else { counted(tiles, keys, &wanted)? };
    for (wanted, cut) in wanted.iter().zip(found) {
        cuts[wanted.series][wanted.place] = cut;
    }
    Ok(cuts)
}

/// The bin of the `rank`-th largest, and which of that bin it is.
fn find(bins: usize, count: impl Fn(usize) -> u64, rank: u64) -> (usize, u64) {
    let mut rank = rank;
    for bin in (0..bins).rev() {
        let here = count(bin);
        if rank <= here {
            return (bin, rank);
        }
        rank -= here;
    }
    (0, rank)
}

/// One more reading: the keys of each bin, with their positions.
fn collected(tiles: &Tiles<'_>, keys: &Keys, wanted: &[Wanted]) -> Result<Vec<Cut>, InputError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let collect = |_, tile: &[&[f32]]| -> Vec<Vec<u32>> {
        let mut found = [0; BLOCK];
        let of_one = |wanted: &Wanted| {
            let mut all = Vec::new();
            keys.each(wanted.series, tile, |at, keys| {
                let count = collect_lower(keys, wanted.upper, at as u32, &mut found);
                all.extend_from_slice(&found[..count]);
            });
            all
        };
        wanted.iter().map(of_one).collect()
    };
    let by_tile = tiles.join(Vec::new(), collect, Vec::push)?;
    let cut = |(index, wanted): (usize, &Wanted)| {
        let mut counts = vec![0u32; LOWER];
        for found in &by_tile {
            found[index].iter().for_each(|key| counts[(key >> 16) as usize] += 1);
        }
        let (lower, rank) = find(LOWER, |bin| u64::from(counts[bin]), wanted.rank);
        let mut equal = by_tile.iter().enumerate().flat_map(|(tile, found)| {
            let of_bin = found[index].iter().filter(move |key| (**key >> 16) as usize == lower);
            of_bin.map(move |key| tiles.first(tile) + (key & 0xffff) as usize)
        });
        let last = equal.nth(rank as usize - 1).unwrap_or(usize::MAX);
        Cut { key: wanted.upper << 16 | lower as u32, last }
    };
    Ok(wanted.iter().enumerate().map(cut).collect())
}

/// Two or three more readings: counts of the lower bits, of equal keys in each tile, and the tile that has the last.
fn counted(tiles: &Tiles<'_>, keys: &Keys, wanted: &[Wanted]) -> Result<Vec<Cut>, InputError> {
    let counts = tiles.count_all(wanted.len() * LOWER, |tile, tables| {
        for (wanted, table) in wanted.iter().zip(tables.chunks_exact_mut(LOWER)) {
            keys.each(wanted.series, tile, |_, keys| count_lower(keys, wanted.upper, table));
        }
    })?;
    let found: Vec<(u32, u64)> = wanted
        .iter()
        .zip(counts.chunks_exact(LOWER))
        .map(|(wanted, table)| {
            let (lower, rank) = find(LOWER, |bin| u64::from(table[bin]), wanted.rank);
            (wanted.upper << 16 | lower as u32, rank)
        })
        .collect();
    let equal_in = |_, tile: &[&[f32]]| -> Vec<u32> {
        let of_one = |(wanted, (key, _)): (&Wanted, &(u32, u64))| {
            let mut count = 0;
            keys.each(wanted.series, tile, |_, keys| count += count_equal(keys, *key));
            count
        };
        wanted.iter().zip(&found).map(of_one).collect()
    };
    let by_tile = tiles.join(Vec::new(), equal_in, Vec::push)?;
    let cut = |(index, (wanted, (key, rank))): (usize, (&Wanted, &(u32, u64)))| {
        let mut rank = *rank;
        for (tile, equal) in by_tile.iter().map(|equal| u64::from(equal[index])).enumerate() {
            if rank <= equal {
                let last = tiles.with(tile, |inputs| place(keys, wanted.series, inputs, *key, rank))?;
                return Ok(Cut { key: *key, last: tiles.first(tile) + last });
            }
            rank -= equal;
        }
        Ok(Cut { key: *key, last: usize::MAX })
    };
    wanted.iter().zip(&found).enumerate().map(cut).collect()
}

/// Where in a tile the `rank`-th key of this value is.
fn place(keys: &Keys, series: usize, tile: &[&[f32]], key: u32, rank: u64) -> usize {
    let (mut seen, mut last) = (0, usize::MAX);
    keys.each(series, tile, |at, keys| {
        for (position, k) in keys.iter().enumerate() {
            seen += u64::from(*k == key);
            if *k == key && seen == rank {
                last = at + position;
            }
        }
    });
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests::Memory;

    /// Two series with many equal keys: one coarse, one with all its keys in few bins.
    fn family(len: usize) -> Memory {
        let coarse: Vec<f32> = (0..len).map(|i| ((i * 7919 % 1009) as f32 / 100.0).floor() - 5.0).collect();
        let near: Vec<f32> = (0..len).map(|i| 1.0 + (i * 104_729 % 977) as f32 * f32::EPSILON).collect();
        Memory { shape: vec![len], models: vec![vec![0.0; len], coarse, near] }
    }

    #[test]
    fn cuts_are_those_of_a_stable_sort() {
        let inputs = family(140_000);
        let keys = Keys::Differences(vec![1, 2]);
        let count = inputs.models[0].len();
        let wanted = [1, 2, count / 3, count / 2, count - 1, count];
        let orders: Vec<Vec<usize>> = inputs.models[1..]
            .iter()
            .map(|x| {
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|a, b| x[*b].abs().total_cmp(&x[*a].abs()));
                order
            })
            .collect();
        // Tiles of up to 2^16 collect keys, larger ones count them.
        for tile in [1 << 16, 1000, 1 << 17] {
            let tiles = Tiles::new(&inputs, 1, tile);
            let found = largest(&tiles, &keys, |_, _| wanted).expect("numbers in memory");
            for ((x, order), cuts) in inputs.models[1..].iter().zip(&orders).zip(found) {
                for (many, cut) in wanted.into_iter().zip(cuts) {
                    let mut kept = vec![false; count];
                    order[..many].iter().for_each(|i| kept[*i] = true);
                    let of_cut: Vec<bool> =
                        x.iter().enumerate().map(|(i, x)| x.abs().to_bits() >= cut.least(i).0).collect();
                    assert_eq!(of_cut, kept, "{many} with tiles of {tile}");
                }
            }
            let none = largest(&tiles, &keys, |_, not_zero| {
                assert!(not_zero > 0);
                [0]
            });
            assert_eq!(none.expect("numbers in memory"), vec![[Cut::NONE]; 2]);
        }
    }
}
