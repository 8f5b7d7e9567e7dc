//! Differences from a base: some are kept, the rest rescaled, signs elected, the sum added to the base.
//!
//! * Task arithmetic: 2212.04089. TIES: trim, elect, merge (2306.01708, section 3).
//! * DARE: drop at random and rescale (2311.03099). DELLA: drop by rank in the row (2406.11617).
//! * Model breadcrumbs: drop both ends (2312.06795). SCE: select, calculate, erase (2408.07990).

use std::cell::Cell;
use std::ops::Range;

use lathe_kernels::weights::{
    self, BLOCK, Election, KEY_LIMIT, Protection, Ranked, elect, keep_between, keep_drawn, keep_ranked, plain_sum,
};

use super::check::CANCELLED;
use super::prepared::{MaskKey, RuleError};
use super::ranks::rank_row;
use super::remark::Remark;
use super::select::{Cut, Keys, largest};
use super::stream::Stream;
use super::tiles::{TILE, Tiles};
use super::{Consensus, Deltas, Rescale, Sparsify};
use crate::{InputError, Inputs};

/// Models whose differences are combined position by position.
#[derive(Clone, Debug)]
pub(super) struct Combined {
    unit: usize,
    kept: Kept,
    weights: Vec<f64>,
    join: Join,
}

/// What is kept.
#[derive(Clone, Debug)]
enum Kept {
    /// Of each model by itself.
    Each(Vec<Sparse>),
    /// The positions with the largest variance, of all models.
    Spread(Cut),
}

/// What is kept of a model's difference, and its factor.
#[derive(Clone, Copy, Debug)]
struct Sparse {
    mask: Mask,
    scale: f64,
}

#[derive(Clone, Copy, Debug)]
enum Mask {
    /// The largest of `within` that are not among those of `without`.
    Ordered { within: Cut, without: Cut },
    /// Those whose draw is below a limit.
    Drawn { stream: Stream, limit: u32 },
    /// Those whose draw is below a limit that rises with the rank in the row.
    Ranked { stream: Stream, ranked: Ranked },
}

impl Mask {
    const ALL: Self = Self::Ordered { within: Cut::ALL, without: Cut::NONE };
}

/// How what is kept becomes one.
#[derive(Clone, Debug)]
enum Join {
    Sum,
    Elect { votes: Vec<f64>, undivided: f64, lambda: f64, protection: Protection },
}

impl Combined {
    /// Finds what is kept and its factor. `weights` are those of the sum.
    pub(super) fn of_deltas(
        deltas: &Deltas,
        weights: Vec<f64>,
        mask: &MaskKey<'_>,
        inputs: &dyn Inputs,
        tile: Option<usize>,
    ) -> Result<(Self, Vec<Remark>), RuleError> {
        let tile = tile.unwrap_or(TILE);
        let mut remarks = Vec::new();
        let masks = masks(deltas, mask, inputs, tile, &mut remarks)?;
        let kept = masks.iter().zip(&deltas.sparsify);
        let kept = kept.map(|(mask, how)| Sparse { mask: *mask, scale: how.scale(deltas.rescale) }).collect();
        let protection = match deltas.consensus {
            Consensus::Protect { slack } => Protection::UpTo(1.0 + slack),
            Consensus::Sum | Consensus::Sign => Protection::None,
        };
        let by_rank = masks.iter().any(|mask| matches!(mask, Mask::Ranked { .. }));
        let unit = if by_rank { row_width(inputs.shape()) } else { 1 };
        let mut combined = Self { unit, kept: Kept::Each(kept), weights, join: Join::Sum };
        if deltas.rescale == Rescale::L1 {
            combined.keep_magnitudes(&deltas.sparsify, inputs, tile)?;
        }
        if deltas.consensus == Consensus::Sum {
            combined.weights.iter_mut().for_each(|w| *w *= deltas.lambda);
        } else {
            let largest = combined.weights.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
            let undivided = if deltas.normalize { CANCELLED * largest } else { f64::INFINITY };
            let votes = combined.weights.clone();
            combined.join = Join::Elect { votes, undivided, lambda: deltas.lambda, protection };
            let single = combined.weights.len() == 1;
            let without_effect = |(model, w): (usize, &f64)| (single && *w != 1.0 || *w < 0.0).then_some(model);
            let cancelled = combined.weights.iter().enumerate().filter_map(without_effect);
            remarks.extend(cancelled.filter(|_| deltas.normalize).map(|model| Remark::WeightCancels { model }));
        }
        Ok((combined, remarks))
    }

    /// Select positions by variance, calculate weights from squares, erase minority signs (2408.07990, section 3).
    pub(super) fn sce(
        select_topk: f64,
        inputs: &dyn Inputs,
        tile: Option<usize>,
    ) -> Result<(Self, Vec<Remark>), RuleError> {
        let tiles = Tiles::new(inputs, 1, tile.unwrap_or(TILE));
        let models = inputs.count() - 1;
        let mut cut = Cut::ALL;
        let mut remarks = Vec::new();
        // One model has no variance to select by.
        if select_topk < 1.0 && models > 1 {
            let varies = Cell::new(true);
            let how_many = |_, not_zero: usize| {
                varies.set(not_zero > 0);
                let selected = ((select_topk * not_zero as f64) as usize).max(1);
                [if not_zero > 0 { selected } else { usize::MAX }]
            };
            [cut] = largest(&tiles, &Keys::Spread, how_many)?[0];
            remarks.extend((!varies.get()).then_some(Remark::NothingVaries));
        }
        let join = Join::Elect { votes: vec![1.0; models], undivided: 0.0, lambda: 1.0, protection: Protection::None };
        let mut combined = Self { unit: 1, kept: Kept::Spread(cut), weights: Vec::new(), join };
        let squares = combined.sums(&tiles, weights::squares)?;
        let total: f64 = squares.iter().sum();
        combined.weights = squares.iter().map(|s| if total > 0.0 { s / total } else { 1.0 / models as f64 }).collect();
        Ok((combined, remarks))
    }

    /// Chooses the factors so that the sum of magnitudes becomes what it was.
    fn keep_magnitudes(&mut self, sparsify: &[Sparsify], inputs: &dyn Inputs, tile: usize) -> Result<(), RuleError> {
        if sparsify.iter().all(Sparsify::is_dense) {
            return Ok(());
        }
        let all =
            Self { kept: Kept::Each(vec![Sparse { mask: Mask::ALL, scale: 1.0 }; sparsify.len()]), ..self.clone() };
        let tiles = Tiles::new(inputs, self.unit, tile);
        let before = all.sums(&tiles, weights::magnitudes)?;
        let after = self.sums(&tiles, weights::magnitudes)?;
        if let Kept::Each(kept) = &mut self.kept {
            for ((sparse, before), after) in kept.iter_mut().zip(before).zip(after) {
                sparse.scale = if after > 0.0 { before / after } else { 1.0 };
            }
        }
        Ok(())
    }

    /// A sum over what is kept of each model.
    fn sums(&self, tiles: &Tiles<'_>, sum: impl Fn(&[f64]) -> f64 + Sync) -> Result<Vec<f64>, InputError> {
        let of_tile = |tile, inputs: &[&[f32]]| {
            let mut sums = vec![0.0; inputs.len() - 1];
            self.each_block(tiles.first(tile), inputs, |_, differences| {
                sums.iter_mut().zip(differences).for_each(|(all, part)| *all += sum(part));
            });
            sums
        };
        let models = self.models();
        tiles.join(vec![0.0; models], of_tile, |all, part| {
            all.iter_mut().zip(&part).for_each(|(all, part)| *all += part);
        })
    }

    fn models(&self) -> usize {
        match (&self.kept, &self.join) {
            (Kept::Each(kept), _) => kept.len(),
            (Kept::Spread(_), Join::Elect { votes, .. }) => votes.len(),
            (Kept::Spread(_), Join::Sum) => self.weights.len(),
        }
    }

    pub(super) fn unit(&self) -> usize {
        self.unit
    }

    pub(super) fn fill(&self, first: usize, inputs: &[&[f32]], out: &mut [f32]) {
        self.each_block(first, inputs, |part, differences| {
            let (base, out) = (&inputs[0][part.clone()], &mut out[part]);
            match &self.join {
                Join::Sum => plain_sum(base, differences, &self.weights, out),
                Join::Elect { votes, undivided, lambda, protection } => {
                    let (weights, undivided, lambda, protection) = (&self.weights, *undivided, *lambda, *protection);
                    elect(base, differences, Election { votes, weights, undivided, lambda, protection }, out);
                }
            }
        });
    }

    /// Hands out what is kept of every model's difference, a block at a time, with its place in the piece.
    fn each_block(&self, first: usize, inputs: &[&[f32]], mut work: impl FnMut(Range<usize>, &[&[f64]])) {
        let [base, models @ ..] = inputs else { return };
        let mut numbers = vec![[0.0; BLOCK]; models.len()];
        let mut ranks = vec![Vec::new(); models.len()];
        let row = if self.unit == 1 { base.len() } else { self.unit };
        for begin in (0..base.len()).step_by(row.max(1)) {
            let end = base.len().min(begin + row);
            self.rank(base, models, begin..end, &mut ranks);
            let mut at = begin;
            while at < end {
                // Blocks end at multiples of their length, and so never reach over one of 2^32.
                let part = at..end.min(at + BLOCK - (first + at) % BLOCK);
                at = part.end;
                self.keep(first, base, models, part.clone(), (&ranks, begin), &mut numbers);
                let differences: Vec<&[f64]> = numbers.iter().map(|numbers| &numbers[..part.len()]).collect();
                work(part, &differences);
            }
        }
    }

    /// Ranks the numbers of a row of each model whose mask depends on it.
    fn rank(&self, base: &[f32], models: &[&[f32]], row: Range<usize>, ranks: &mut [Vec<u32>]) {
        let Kept::Each(kept) = &self.kept else { return };
        for ((sparse, x), ranks) in kept.iter().zip(models).zip(ranks) {
            if matches!(sparse.mask, Mask::Ranked { .. }) {
                rank_row(&base[row.clone()], &x[row.clone()], ranks);
            }
        }
    }

    /// Writes what is kept of each model's differences in a block.
    fn keep(
        &self,
        first: usize,
        base: &[f32],
        models: &[&[f32]],
        part: Range<usize>,
        (ranks, row): (&[Vec<u32>], usize),
        numbers: &mut [[f64; BLOCK]],
    ) {
        let (position, base) = (first + part.start, &base[part.clone()]);
        match &self.kept {
            Kept::Each(kept) => {
                for (((sparse, x), ranks), out) in kept.iter().zip(models).zip(ranks).zip(numbers) {
                    let (x, out, scale) = (&x[part.clone()], &mut out[..part.len()], sparse.scale);
                    match sparse.mask {
                        Mask::Ordered { within, without } => {
                            keep_ordered(within, without, position, base, x, scale, out);
                        }
                        Mask::Drawn { stream, limit } => keep_drawn(base, x, stream.from(position), limit, scale, out),
                        Mask::Ranked { stream, ranked } => {
                            let ranks = &ranks[part.start - row..part.end - row];
                            keep_ranked(base, x, ranks, ranked, stream.from(position), scale, out);
                        }
                    }
                }
            }
            Kept::Spread(cut) => {
                let parts: Vec<&[f32]> = models.iter().map(|x| &x[part.clone()]).collect();
                let mut keys = [0; BLOCK];
                if *cut != Cut::ALL {
                    weights::spread_keys(&parts, &mut keys[..part.len()]);
                }
                for (x, out) in parts.iter().zip(numbers) {
                    keep_between(base, x, 0, KEY_LIMIT, 1.0, out);
                    let mut at = 0;
                    while at < part.len() {
                        let (least, end) = cut.least(position + at);
                        let end = part.len().min(end - position);
                        weights::clear_below(&keys[at..end], least, &mut out[at..end]);
                        at = end;
                    }
                }
            }
        }
    }
}

/// What is kept of each model.
fn masks(
    deltas: &Deltas,
    mask: &MaskKey<'_>,
    inputs: &dyn Inputs,
    tile: usize,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Mask>, RuleError> {
    let tiles = Tiles::new(inputs, 1, tile);
    let len = tiles.len();
    let width = row_width(inputs.shape());
    let mut masks = vec![Mask::ALL; deltas.sparsify.len()];
    let mut ordered = Vec::new();
    for (model, (sparsify, kept)) in deltas.sparsify.iter().zip(&mut masks).enumerate() {
        let stream = Stream::new(mask.seed, mask.tensor, model);
        match *sparsify {
            dense if dense.is_dense() => {}
            Sparsify::All => {}
            Sparsify::Largest { density } => {
                let many = at_least_one(model, density, len, remarks);
                ordered.push((model, [0, many]));
            }
            Sparsify::Middle { density, gamma } => {
                let many = at_least_one(model, density, len, remarks);
                let asked = (gamma * len as f64) as usize;
                let dropped = asked.min(len.saturating_sub(many));
                if dropped < asked {
                    remarks.push(Remark::FewerDropped { model, dropped });
                }
                ordered.push((model, [dropped, dropped + many]));
            }
            Sparsify::Random { density } => *kept = Mask::Drawn { stream, limit: limit(density) },
            Sparsify::RandomByRank { density, epsilon } => {
                let inverse = f64::from(u8::from(deltas.rescale == Rescale::InverseDensity));
                let ranked = match width {
                    1 => Ranked { least: density, step: 0.0, inverse },
                    _ => {
                        let step = 2.0 * epsilon / (width - 1) as f64;
                        Ranked { least: density - epsilon, step, inverse }
                    }
                };
                *kept = Mask::Ranked { stream, ranked };
            }
        }
    }
    if ordered.is_empty() {
        return Ok(masks);
    }
    let keys = Keys::Differences(ordered.iter().map(|(model, _)| model + 1).collect());
    let cuts = largest(&tiles, &keys, |series, _| ordered[series].1)?;
    for ((model, _), [without, within]) in ordered.iter().zip(cuts) {
        masks[*model] = Mask::Ordered { within, without };
    }
    Ok(masks)
}

/// `⌊density · n⌋`, but one of a tensor that is too small for the density.
fn at_least_one(model: usize, density: f64, len: usize, remarks: &mut Vec<Remark>) -> usize {
    let many = (density * len as f64) as usize;
    if many == 0 && len > 0 {
        remarks.push(Remark::KeptOne { model });
    }
    many.max(1)
}

/// Below what a draw of 32 bits is with this probability, to within 2^-33.
fn limit(probability: f64) -> u32 {
    // (A float beyond u32 becomes its largest.)
    ((probability * 4_294_967_296.0).round() as u32).max(1)
}

/// Numbers of a row: the last dimension. A tensor of one dimension is one row.
fn row_width(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1).max(1)
}

/// Cuts a block where the answer to "is an equal one among them?" changes.
fn keep_ordered(within: Cut, without: Cut, first: usize, base: &[f32], x: &[f32], scale: f64, out: &mut [f64]) {
    let mut at = 0;
    while at < base.len() {
        let (least, within_end) = within.least(first + at);
        let (limit, without_end) = without.least(first + at);
        let end = base.len().min(within_end.min(without_end) - first);
        keep_between(&base[at..end], &x[at..end], least, limit, scale, &mut out[at..end]);
        at = end;
    }
}
