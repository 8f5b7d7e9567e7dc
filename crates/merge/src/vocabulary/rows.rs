//! Where the rows of a matrix come from, and reading them.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::inputs::InputError;

/// Rows of one model's matrix in the order of the result.
#[derive(Clone, Debug)]
pub struct ModelRows {
    model: usize,
    rows: Vec<Stored>,
    /// Rows that means are made of, of all models: (model, row).
    means: Arc<[(usize, u32)]>,
}

/// Where one row of a model's matrix comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSource<'a> {
    /// This row of the model itself.
    Own(usize),
    /// A row of another model.
    Other {
        /// The model.
        model: usize,
        /// Its row.
        row: usize,
    },
    /// The mean of rows of other models, (model, row).
    Mean(&'a [(usize, u32)]),
    /// Zeros.
    Zero,
    /// The mean of the model's rows before the padding.
    Padding,
}

/// A [`RowSource`] in 16 bytes, without its borrow: vocabularies have 256,000 rows, and there are several models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Own(u32),
    Other {
        model: usize,
        row: u32,
    },
    /// A piece of the list of means: where it begins, and how many rows it has.
    Mean(u32, u32),
    Zero,
}

impl Stored {
    /// What a model gets that lacks a token, given the rows of it in all models.
    pub(super) fn of_others(own: &[Option<u32>], base: Option<usize>, means: &mut Vec<(usize, u32)>) -> Self {
        if let Some(base) = base
            && let Some(row) = own[base]
        {
            return Self::Other { model: base, row };
        }
        let start = means.len();
        means.extend(own.iter().enumerate().filter_map(|(model, row)| Some((model, (*row)?))));
        match means[start..] {
            [] => Self::Zero,
            [(model, row)] => {
                means.truncate(start);
                Self::Other { model, row }
            }
            // Nobody lacks it.
            _ if means.len() - start == own.len() => {
                means.truncate(start);
                Self::Zero
            }
            // At most as many as there are tokens in all models together: ids fit, so their number does.
            _ => Self::Mean(start as u32, (means.len() - start) as u32),
        }
    }

    pub(super) fn seen_by(self, reader: usize) -> Self {
        match self {
            Self::Other { model, row } if model == reader => Self::Own(row),
            other => other,
        }
    }
}

/// Rows that are read together where a sum over all of them is made.
const TILE_ROWS: usize = 256;

/// Tiles that are summed at once: their sums are what is held in memory.
const TILES_AT_ONCE: usize = 16;

impl ModelRows {
    pub(super) fn of_models(from: Vec<Vec<Stored>>, means: Vec<(usize, u32)>) -> Vec<Self> {
        let means: Arc<[_]> = means.into();
        from.into_iter().enumerate().map(|(model, rows)| Self { model, rows, means: means.clone() }).collect()
    }

    /// How many rows there are before the padding.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.rows.len()
    }

    /// Where a row comes from. Rows beyond the tokens are padding.
    #[must_use]
    pub fn source(&self, row: usize) -> RowSource<'_> {
        match self.rows.get(row) {
            None => RowSource::Padding,
            Some(&Stored::Own(row)) => RowSource::Own(row as usize),
            Some(&Stored::Other { model, row }) => RowSource::Other { model, row: row as usize },
            Some(&Stored::Mean(start, count)) => {
                RowSource::Mean(&self.means[start as usize..start as usize + count as usize])
            }
            Some(Stored::Zero) => RowSource::Zero,
        }
    }

    pub(super) fn is_identity(&self) -> bool {
        self.rows.iter().enumerate().all(|(row, from)| *from == Stored::Own(row as u32))
    }

    /// The row that fills the padding: the mean of all rows before it, `[width]`. Read it once and hand it to
    /// [`ModelRows::read`].
    ///
    /// `read` writes rows of a model's matrix, `[rows, width]`, as for [`ModelRows::read`]. Sums are f64, over fixed
    /// tiles that are joined in order.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn padding_row<R>(&self, width: usize, read: &R) -> Result<Vec<f32>, InputError>
    where
        R: Fn(usize, Range<usize>, &mut [f32]) -> Result<(), InputError> + Sync,
    {
        let mut total = vec![0.0f64; width];
        let tiles = self.rows.len().div_ceil(TILE_ROWS);
        for begin in (0..tiles).step_by(TILES_AT_ONCE) {
            let group = begin..tiles.min(begin + TILES_AT_ONCE);
            let sums = group.into_par_iter().map(|tile| {
                let rows = tile * TILE_ROWS..self.rows.len().min((tile + 1) * TILE_ROWS);
                let mut values = vec![0.0; rows.len() * width];
                self.read(rows, width, &[], read, &mut values)?;
                let mut sums = vec![0.0f64; width];
                for row in values.chunks_exact(width.max(1)) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                Ok(sums)
            });
            for sums in sums.collect::<Result<Vec<_>, InputError>>()? {
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
        }
        Ok(total.into_iter().map(|sum| (sum / self.rows.len() as f64) as f32).collect())
    }

    /// Writes `rows` of the model's matrix in the order of the result into `out`, `[rows, width]`.
    ///
    /// `read(model, rows, out)` writes rows of the matrix that a model's file has, `[rows, width]`. `padding` is
    /// [`ModelRows::padding_row`]; it may be empty where no row is padding.
    ///
    /// # Errors
    /// A row cannot be read.
    ///
    /// # Panics
    /// When `out` has another length, or `padding` has and is needed.
    pub fn read<R>(
        &self,
        rows: Range<usize>,
        width: usize,
        padding: &[f32],
        read: &R,
        out: &mut [f32],
    ) -> Result<(), InputError>
    where
        R: Fn(usize, Range<usize>, &mut [f32]) -> Result<(), InputError> + Sync,
    {
        assert_eq!(out.len(), rows.len() * width, "{} rows of {width} numbers", rows.len());
        let (mut row, mut rest) = (rows.start, out);
        while row < rows.end {
            let count = self.run_length(row, rows.end);
            let (piece, after) = rest.split_at_mut(count * width);
            match self.source(row) {
                RowSource::Own(from) => read(self.model, from..from + count, piece)?,
                RowSource::Other { model, row: from } => read(model, from..from + count, piece)?,
                RowSource::Mean(of) => mean(of, read, piece)?,
                RowSource::Zero => piece.fill(0.0),
                RowSource::Padding => piece.copy_from_slice(padding),
            }
            (row, rest) = (row + count, after);
        }
        Ok(())
    }

    /// How many rows, beginning with this one, follow each other in one file and can be read at once.
    fn run_length(&self, row: usize, end: usize) -> usize {
        let start = match self.source(row) {
            RowSource::Own(from) | RowSource::Other { row: from, .. } => from,
            _ => return 1,
        };
        let continues = |count: usize| match (self.source(row), self.source(row + count)) {
            (RowSource::Own(_), RowSource::Own(from)) => from == start + count,
            (RowSource::Other { model, .. }, RowSource::Other { model: next, row: from }) => {
                model == next && from == start + count
            }
            _ => false,
        };
        (1..end - row).find(|&count| !continues(count)).unwrap_or(end - row)
    }
}

/// The mean of rows, in the order of the models.
fn mean<R>(of: &[(usize, u32)], read: &R, out: &mut [f32]) -> Result<(), InputError>
where
    R: Fn(usize, Range<usize>, &mut [f32]) -> Result<(), InputError>,
{
    let mut sums = vec![0.0f64; out.len()];
    for &(model, row) in of {
        read(model, row as usize..row as usize + 1, out)?;
        sums.iter_mut().zip(&*out).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (sum / of.len() as f64) as f32);
    Ok(())
}
