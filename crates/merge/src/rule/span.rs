//! Results that are a combination of the inputs: coefficients for the tensor, or for each row or column.

use lathe_kernels::weights::{self, add_column_gram, add_gram, pairs};

use super::Over;
use super::prepared::RuleError;
use super::remark::{self, Remark};
use super::sphere::{Gram, Mix};
use super::tiles::{TILE, Tiles};
use crate::Inputs;

/// Whether input 0 is what differences are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `Σ c_i x_i` over all inputs.
    Zero,
    /// `b + Σ c_i (x_i − b)`; input 0 is b.
    Base,
}

impl Origin {
    /// The base, and the vectors that are combined.
    fn split<'a, 'b>(self, inputs: &'a [&'b [f32]]) -> (Option<&'b [f32]>, &'a [&'b [f32]]) {
        match (self, inputs) {
            (Self::Base, [base, models @ ..]) => (Some(*base), models),
            _ => (None, inputs),
        }
    }
}

/// From the products of some vectors to their coefficients.
pub(super) type Solve<'a> = dyn Fn(Gram<'_>) -> Result<Mix, RuleError> + Sync + 'a;

/// A combination of the inputs.
#[derive(Clone, Debug)]
pub(super) struct Span {
    origin: Origin,
    coefficients: Coefficients,
}

#[derive(Clone, Debug)]
enum Coefficients {
    /// `[models]`
    Tensor(Vec<f64>),
    /// `[rows, models]`, for rows of `width` numbers.
    Rows { width: usize, by_row: Vec<f64> },
    /// `[models, width]`
    Columns { width: usize, by_model: Vec<f64> },
}

impl Span {
    pub(super) fn new(origin: Origin, coefficients: Vec<f64>) -> Self {
        Self { origin, coefficients: Coefficients::Tensor(coefficients) }
    }

    /// Reads the inputs once and asks `solve` for the coefficients of each vector.
    pub(super) fn of_angles(
        inputs: &dyn Inputs,
        tile: Option<usize>,
        origin: Origin,
        over: Over,
        solve: &Solve<'_>,
    ) -> Result<(Self, Vec<Remark>), RuleError> {
        let tile = tile.unwrap_or(TILE);
        let count = inputs.count() - usize::from(origin == Origin::Base);
        let width = inputs.shape().last().copied().unwrap_or(1).max(1);
        // One row, or numbers in a row, are one vector: a column of one number has no direction.
        let over = if inputs.shape().len() < 2 { Over::Tensor } else { over };
        let mut remarks = Vec::new();
        let coefficients = match over {
            Over::Tensor => {
                let tiles = Tiles::new(inputs, 1, tile);
                let sums = tiles.join(vec![0.0; pairs(count)], |_, inputs| gram(origin, inputs), add)?;
                let mix = solve(Gram { products: &sums, count })?;
                remarks.extend(mix.remark);
                Coefficients::Tensor(mix.coefficients)
            }
            Over::Rows => {
                let tiles = Tiles::new(inputs, width, tile);
                let rows = tiles.len() / width;
                let of_tile = |_, inputs: &[&[f32]]| -> Result<Vec<Mix>, RuleError> {
                    let rows = (0..inputs[0].len()).step_by(width).map(|at| {
                        let row: Vec<&[f32]> = inputs.iter().map(|input| &input[at..at + width]).collect();
                        solve(Gram { products: &gram(origin, &row), count })
                    });
                    rows.collect()
                };
                let join = |all: &mut Result<Vec<Mix>, RuleError>, part: Result<Vec<Mix>, RuleError>| match (all, part)
                {
                    (Ok(all), Ok(part)) => all.extend(part),
                    (all @ Ok(_), Err(error)) => *all = Err(error),
                    (Err(_), _) => {}
                };
                let mixes = tiles.join(Ok(Vec::with_capacity(rows)), of_tile, join)??;
                let by_row = gather(mixes, rows, &mut remarks);
                Coefficients::Rows { width, by_row }
            }
            Over::Columns => {
                let tiles = Tiles::new(inputs, width, tile);
                let of_tile = |_, inputs: &[&[f32]]| {
                    let mut sums = vec![0.0; pairs(count) * width];
                    for at in (0..inputs[0].len()).step_by(width) {
                        let row: Vec<&[f32]> = inputs.iter().map(|input| &input[at..at + width]).collect();
                        let (base, models) = origin.split(&row);
                        add_column_gram(base, models, &mut sums);
                    }
                    sums
                };
                let sums = tiles.join(vec![0.0; pairs(count) * width], of_tile, add)?;
                let column = |column: usize| {
                    let products: Vec<f64> = sums.iter().skip(column).step_by(width).copied().collect();
                    solve(Gram { products: &products, count })
                };
                let mixes = (0..width).map(column).collect::<Result<Vec<Mix>, RuleError>>()?;
                let by_column = gather(mixes, width, &mut remarks);
                let of_model = |model: usize| by_column.iter().skip(model).step_by(count).copied();
                Coefficients::Columns { width, by_model: (0..count).flat_map(of_model).collect() }
            }
        };
        Ok((Self { origin, coefficients }, remarks))
    }

    pub(super) fn plain_sum(&self) -> Option<&[f64]> {
        match &self.coefficients {
            Coefficients::Tensor(all) if self.origin == Origin::Zero => {
                (all.len() > 1 && all.iter().all(|c| *c != 0.0)).then_some(all)
            }
            _ => None,
        }
    }

    pub(super) fn fill(&self, first: usize, inputs: &[&[f32]], out: &mut [f32]) {
        match &self.coefficients {
            Coefficients::Tensor(coefficients) => combine(self.origin, inputs, coefficients, out),
            Coefficients::Rows { width, by_row } => {
                let count = inputs.len() - usize::from(self.origin == Origin::Base);
                each_row(first, *width, inputs, out, |row, _, inputs, out| {
                    combine(self.origin, inputs, &by_row[row * count..(row + 1) * count], out);
                });
            }
            Coefficients::Columns { width, by_model } => {
                each_row(first, *width, inputs, out, |_, column, inputs, out| {
                    let (base, models) = self.origin.split(inputs);
                    let rows = by_model.chunks_exact(*width);
                    let coefficients: Vec<&[f64]> = rows.map(|row| &row[column..column + out.len()]).collect();
                    weights::sum_by_position(base, models, &coefficients, out);
                })
            }
        }
    }
}

fn gram(origin: Origin, inputs: &[&[f32]]) -> Vec<f64> {
    let (base, vectors) = origin.split(inputs);
    let mut sums = vec![0.0; pairs(vectors.len())];
    add_gram(base, vectors, &mut sums);
    sums
}

#[expect(clippy::ptr_arg, reason = "the shape that joins tiles")]
fn add(all: &mut Vec<f64>, part: Vec<f64>) {
    all.iter_mut().zip(&part).for_each(|(all, part)| *all += part);
}

/// Coefficients one after the other, and remarks by kind.
fn gather(mixes: Vec<Mix>, of: usize, remarks: &mut Vec<Remark>) -> Vec<f64> {
    let mut all = Vec::with_capacity(mixes.len() * mixes.first().map_or(0, |mix| mix.coefficients.len()));
    for mix in mixes {
        all.extend(mix.coefficients);
        if let Some(mut remark) = mix.remark {
            remark::set_of(&mut remark, of);
            remark::add(remarks, remark);
        }
    }
    all
}

/// One combination; inputs that take no part are not looked at, and one that is taken whole is copied.
fn combine(origin: Origin, inputs: &[&[f32]], coefficients: &[f64], out: &mut [f32]) {
    let (base, models) = origin.split(inputs);
    let used = models.iter().zip(coefficients).filter(|(_, c)| **c != 0.0);
    let (models, coefficients): (Vec<&[f32]>, Vec<f64>) = used.map(|(x, c)| (*x, *c)).unzip();
    match (base, models.as_slice(), coefficients.as_slice()) {
        (_, [whole], [1.0]) => out.copy_from_slice(whole),
        (Some(base), [], _) => out.copy_from_slice(base),
        (Some(base), models, coefficients) => weights::sum_from(base, models, coefficients, out),
        (None, models, coefficients) => weights::sum(models, coefficients, out),
    }
}

/// Cuts a piece at the ends of rows: `work` gets the row, the column that its part begins with, the parts.
fn each_row(
    first: usize,
    width: usize,
    inputs: &[&[f32]],
    out: &mut [f32],
    work: impl Fn(usize, usize, &[&[f32]], &mut [f32]),
) {
    let (mut at, len) = (0, out.len());
    while at < len {
        let (row, column) = ((first + at) / width, (first + at) % width);
        let end = len.min(at + width - column);
        let parts: Vec<&[f32]> = inputs.iter().map(|input| &input[at..end]).collect();
        work(row, column, &parts, &mut out[at..end]);
        at = end;
    }
}
