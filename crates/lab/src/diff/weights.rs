//! Reading tensors a few rows at a time, and measuring them.

use std::collections::BTreeMap;
use std::ops::Range;

use lathe_measure::weights::{
    ChangeSums, Histogram, LargeCounts, LargeSums, PairSums, change_sums, effective_rank, large_counts, magnitudes,
    noise_rank, pair_sums, threshold,
};
use lathe_measure::{Number, Reason};
use lathe_model::Parameter;
use rayon::prelude::*;

use super::RankDiff;
use super::pairs::{Pair, Side};
use crate::Error;

/// Weights of a piece: 1 MiB of f32. It decides the order of sums, so it is the same for every number of threads.
const PIECE: usize = 1 << 18;

/// Pieces whose results are held until they are joined; of changes each is a megabyte of counts.
const HELD: usize = 32;

/// What was summed of a tensor.
pub(super) struct Sums {
    pub(super) pair: PairSums,
    pub(super) changes: Option<(ChangeSums, LargeSums)>,
}

/// Sums over a tensor.
///
/// # Errors
/// It cannot be read, or holds NaN or infinity.
pub(super) fn sums(pair: &Pair, a: &Side, b: &Side, base: Option<&Side>) -> Result<Sums, Error> {
    let sides = [Some((a, &pair.a)), Some((b, &pair.b)), base.zip(pair.base.as_ref())];
    let sides: Vec<(&Side, &Parameter)> = sides.into_iter().flatten().collect();
    let changes = match sides[..] {
        [_, _, _] => Some(changes(pair, &sides)?),
        _ => None,
    };
    let join = |sums: &mut PairSums, next: PairSums| *sums = sums.join(next);
    let of = over_pieces(pair, &sides[..2], |values| pair_sums(&values[0], &values[1]), join)?;
    sides.iter().for_each(|(side, parameter)| side.release(parameter));
    Ok(Sums { pair: of, changes })
}

/// The changes of a base, in three passes: sums and the upper half of the thresholds, the lower half, the large changes.
fn changes(pair: &Pair, sides: &[(&Side, &Parameter)]) -> Result<(ChangeSums, LargeSums), Error> {
    let each = |of: &dyn Fn(usize) -> Histogram| [of(0), of(1)];
    let join_both = |sums: &mut [Histogram; 2], next: [Histogram; 2]| {
        sums.iter_mut().zip(&next).for_each(|(sums, next)| sums.join(next));
    };
    let (sums, upper) = over_pieces(
        pair,
        sides,
        |values| {
            let upper = each(&|model| Histogram::upper(magnitudes(&values[model], &values[2])));
            (change_sums(&values[2], &values[0], &values[1]), upper)
        },
        |(sums, upper), (next, next_upper)| {
            *sums = sums.join(next);
            join_both(upper, next_upper);
        },
    )?;
    // An empty tensor has no magnitude of any rank; nothing in it is large either.
    let halves = [0, 1].map(|model| upper[model].find(upper[model].large_rank()).unwrap_or((0, 1)));
    let lower = over_pieces(
        pair,
        sides,
        |values| each(&|model| Histogram::lower(magnitudes(&values[model], &values[2]), halves[model].0)),
        join_both,
    )?;
    let thresholds = [0, 1].map(|model| {
        let (upper, rank) = halves[model];
        threshold(upper, lower[model].find(rank).map_or(0, |(lower, _)| lower))
    });
    let large = over_pieces(
        pair,
        sides,
        |values| large_counts(&values[2], &values[0], &values[1], thresholds),
        |counts: &mut LargeCounts, next| *counts = counts.join(next),
    )?;
    Ok((sums, large.within(sums.elements)))
}

/// Measures a tensor piece by piece and joins the pieces in order. `measure` gets the weights of every side.
fn over_pieces<T: Send>(
    pair: &Pair,
    sides: &[(&Side, &Parameter)],
    measure: impl Fn(&[Vec<f32>]) -> T + Sync,
    join: impl Fn(&mut T, T),
) -> Result<T, Error> {
    let pieces = pieces(pair);
    let mut joined: Option<T> = None;
    for held in pieces.chunks(HELD) {
        let of_piece = |rows: &Range<usize>| {
            let values = sides.iter().map(|(side, parameter)| read(pair, side, parameter, rows.clone()));
            Ok(measure(&values.collect::<Result<Vec<_>, Error>>()?))
        };
        // Collected before it is looked at: the first error counts, whichever thread is faster.
        let results: Vec<Result<T, Error>> = held.par_iter().map(of_piece).collect();
        for result in results {
            match &mut joined {
                Some(joined) => join(joined, result?),
                none => *none = Some(result?),
            }
        }
    }
    match joined {
        Some(joined) => Ok(joined),
        None => Ok(measure(&vec![Vec::new(); sides.len()])),
    }
}

fn pieces(pair: &Pair) -> Vec<Range<usize>> {
    let rows = (PIECE / pair.columns.max(1)).max(1);
    (0..pair.rows).step_by(rows).map(|first| first..pair.rows.min(first + rows)).collect()
}

/// Rows of a matrix, or a vector cut to what is compared.
fn read(pair: &Pair, side: &Side, parameter: &Parameter, rows: Range<usize>) -> Result<Vec<f32>, Error> {
    let columns = if pair.is_matrix { pair.columns } else { parameter.elements() };
    let mut values = vec![0.0; rows.len() * columns];
    side.read(parameter, rows.clone(), &mut values)?;
    values.truncate(rows.len() * pair.columns);
    Ok(values)
}

/// Effective ranks of noise, one for each shape.
///
/// # Errors
/// Eigenvalues do not converge.
pub(super) fn noise_ranks(shapes: impl Iterator<Item = [usize; 2]>) -> Result<BTreeMap<[usize; 2], Number>, Error> {
    // A matrix and its transpose have one rank.
    let shapes: BTreeMap<[usize; 2], ()> = shapes.map(|shape| (sorted(shape), ())).collect();
    let ranks = shapes.into_par_iter().map(|([side, long], ())| Ok(([side, long], noise_rank(long, side)?)));
    ranks.collect::<Vec<Result<_, Error>>>().into_iter().collect()
}

fn sorted([a, b]: [usize; 2]) -> [usize; 2] {
    [a.min(b), a.max(b)]
}

/// The effective rank of B − A.
///
/// # Errors
/// A tensor cannot be read, or the eigenvalues do not converge.
pub(super) fn rank(pair: &Pair, a: &Side, b: &Side, noise: &BTreeMap<[usize; 2], Number>) -> Result<RankDiff, Error> {
    let mut difference = Vec::with_capacity(pair.rows * pair.columns);
    for rows in pieces(pair) {
        let [of_a, of_b] = [read(pair, a, &pair.a, rows.clone())?, read(pair, b, &pair.b, rows)?];
        difference.extend(of_b.iter().zip(&of_a).map(|(b, a)| b - a));
    }
    a.release(&pair.a);
    b.release(&pair.b);
    let effective = effective_rank(&difference, pair.rows, pair.columns)?;
    let shape = sorted([pair.rows, pair.columns]);
    let noise = noise.get(&shape).copied().unwrap_or(Number::Undefined(Reason::NotRequested));
    Ok(RankDiff { effective, most: shape[0], noise, of_noise: effective.zip(noise, |rank, noise| rank / noise) })
}

impl RankDiff {
    /// The rank of a matrix that was not decomposed: the difference is zero, or too large; none of a vector.
    pub(super) fn without(pair: &Pair, sums: &Sums) -> Option<Self> {
        let reason = if sums.pair.differing == 0 { Reason::AllZero } else { Reason::NotRequested };
        let number = Number::Undefined(reason);
        let most = pair.rows.min(pair.columns);
        pair.is_matrix.then_some(Self { effective: number, most, noise: number, of_noise: number })
    }
}
