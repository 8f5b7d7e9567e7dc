//! Spectral measurements of the hidden states of one text: Matrix Nuclear-Norm (MNN, arXiv 2410.10672,
//! Algorithm 1), matrix entropy and eRank (Wei et al. 2024), exact nuclear norm, RankMe (arXiv 2210.02885).
//!
//! R is `[N tokens, d features]`. Its tokens are centred on their mean and each scaled to length 1, which
//! gives Z. MNN is the sum of the D largest column norms of Z, divided by N. Since every row of Z has
//! length 1, the squared column norms always add up to N, so MNN is bounded by sqrt(D / N), and a cloud of
//! random numbers has a value of its own for each (N, d): falling with d, rising with N. A value is
//! therefore reported beside that of Gaussian states of the same shape, and models are comparable at equal
//! N only. None of these numbers is a quality ranking.

mod dataset;
pub(crate) mod decomposition;
mod null;
mod rankme;
#[cfg(test)]
mod tests;
mod unit_rows;

use lathe_kernels::unit_rows::all_finite;
use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};

pub use dataset::{
    DiffErank, MatrixEntropyVariants, SpectrumSummary, WindowMean, diff_erank, matrix_entropy_variants, summarise,
};
pub use null::{GAUSSIAN_DRAWS, NullCache};
pub use rankme::{RANKME_EPSILON, rankme};

/// Hidden states of one text, checked: right length, d ≥ 1, no NaN or infinity.
#[derive(Clone, Copy, Debug)]
pub struct HiddenStates<'a> {
    values: &'a [f32],
    tokens: usize,
    width: usize,
}

/// What to measure and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpectrumOptions {
    /// The metrics wanted; the others come back as [`Reason::NotRequested`].
    pub metrics: Vec<Metric>,
    /// D, the columns that MNN sums.
    pub kept_columns: KeptColumns,
    /// Seed of the Gaussian null.
    pub seed: u64,
}

/// A metric of Z, by rising cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Two passes over the states, O(N d).
    MatrixNuclearNorm,
    /// Matrix entropy, its nats and eRank: eigenvalues of the smaller Gram matrix.
    MatrixEntropy,
    /// Exact nuclear norm: singular values.
    NuclearNorm,
}

/// D of the paper: how many of the largest column norms are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptColumns {
    /// min(N, d), the paper's default.
    SmallerSide,
    /// This many, from 1 to min(N, d).
    Top(usize),
}

/// The spectral measurements of one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Tokens given.
    pub tokens: usize,
    /// N: tokens used, after dropping those that equal the mean (their direction is undefined).
    pub rows_used: usize,
    /// Tokens dropped, `tokens - rows_used`.
    pub rows_dropped: usize,
    /// d, features per token.
    pub width: usize,
    /// D, columns summed by MNN: min(N, d) unless a smaller number was asked for.
    pub columns_kept: usize,
    /// Matrix Nuclear-Norm (no unit; 0 to `mnn_cap`) and its null.
    pub mnn: AgainstNull,
    /// The largest value MNN can take: sqrt(D / N), which is sqrt(min(N, d) / N) for the default D.
    pub mnn_cap: Number,
    /// Entropy of the eigenvalues of ZᵀZ / N, in nats; at most ln min(N − 1, d).
    pub entropy_nats: Number,
    /// Matrix entropy: `entropy_nats` / ln d (no unit, 0 to 1), and its null.
    pub matrix_entropy: AgainstNull,
    /// eRank: exp(`entropy_nats`), an effective number of dimensions, 1 to min(N − 1, d).
    pub erank: Number,
    /// eRank / d (no unit, 0 to 1).
    pub erank_per_width: Number,
    /// Exact nuclear norm of Z divided by N (no unit, 0 to sqrt(min(N, d) / N)), and its null.
    pub nuclear_norm: AgainstNull,
}

/// A value beside that of Gaussian random states with the same N and d.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgainstNull {
    /// The value measured.
    pub value: Number,
    /// Mean over [`GAUSSIAN_DRAWS`] seeded draws of Gaussian states.
    pub null_mean: Number,
    /// Sample standard deviation over the same draws.
    pub null_sd: Number,
    /// `value / null_mean`: 1 for states without structure.
    pub corrected: Number,
}

/// Measures one text. Identical for any number of threads; takes f64 sums of f32 states.
///
/// With no token, one token, or fewer than two tokens that differ from their mean, every metric is
/// undefined and says which of these it was.
///
/// # Errors
/// D is 0 or above min(N, d); a decomposition does not converge.
pub fn spectrum(
    states: HiddenStates<'_>,
    options: &SpectrumOptions,
    nulls: &NullCache,
) -> Result<Spectrum, MeasureError> {
    if options.kept_columns == KeptColumns::Top(0) {
        return Err(kept_columns_error(0, states.tokens, states.width));
    }
    let columns = unit_rows::columns(states);
    let rows = columns.rows_used;
    let shape = SpectrumShape { states, rows, rows_dropped: states.tokens - rows };
    if let Some(reason) = too_few_rows(states.tokens, rows) {
        return Ok(undefined_spectrum(shape, options, reason));
    }
    let kept = kept_columns(options.kept_columns, rows, states.width)?;
    let against_null = |metric: Metric, value: Number| -> Result<AgainstNull, MeasureError> {
        let null = nulls.get(null::Shape { rows, width: states.width, kept, metric, seed: options.seed })?;
        let corrected = value.zip(null.divisor(), |value, mean| value / mean);
        Ok(AgainstNull { value, null_mean: null.mean, null_sd: null.sd, corrected })
    };

    let mut result = undefined_spectrum(shape, options, Reason::NotRequested);
    result.columns_kept = kept;
    result.mnn_cap = Number::from((kept as f64 / rows as f64).sqrt());
    if options.metrics.contains(&Metric::MatrixNuclearNorm) {
        let value = matrix_nuclear_norm(&columns, kept);
        result.mnn = against_null(Metric::MatrixNuclearNorm, value)?;
    }
    if options.metrics.contains(&Metric::MatrixEntropy) {
        let entropy = decomposition::entropy(&unit_rows::unit_rows(states))?;
        result.entropy_nats = Number::from(entropy);
        result.matrix_entropy = against_null(Metric::MatrixEntropy, matrix_entropy(entropy, states.width))?;
        result.erank = Number::from(entropy.exp());
        result.erank_per_width = result.erank.map(|erank| erank / states.width as f64);
    }
    if options.metrics.contains(&Metric::NuclearNorm) {
        let norm = decomposition::nuclear_norm(&unit_rows::unit_rows(states))?;
        result.nuclear_norm = against_null(Metric::NuclearNorm, Number::from(norm / rows as f64))?;
    }
    Ok(result)
}

impl<'a> HiddenStates<'a> {
    /// Takes `values`, `[tokens, width]` row by row. Padding must be gone (see [`without_padding`]): it would
    /// shift the mean.
    ///
    /// # Errors
    /// Width 0, a length other than tokens × width, NaN or infinity (naming the token).
    pub fn new(values: &'a [f32], tokens: usize, width: usize) -> Result<Self, MeasureError> {
        const WHAT: &str = "hidden states";
        let expected = tokens.checked_mul(width).filter(|_| width > 0).ok_or(MeasureError::Dimensions {
            what: WHAT,
            rows: tokens,
            columns: width,
        })?;
        if values.len() != expected {
            return Err(MeasureError::Shape { what: WHAT, expected, found: values.len() });
        }
        let culprit = || values.iter().position(|value| !value.is_finite());
        if let Some(at) = (!all_finite(values)).then(culprit).flatten() {
            return Err(MeasureError::NonFiniteState { token: at / width, feature: at % width, value: values[at] });
        }
        Ok(Self { values, tokens, width })
    }

    /// Tokens, N before any is dropped.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Features per token, d.
    pub fn width(&self) -> usize {
        self.width
    }

    fn rows(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks_exact(self.width)
    }
}

/// The rows of `values`, `[tokens, width]`, whose entry in `attention_mask`, `[tokens]`, is not 0.
///
/// # Errors
/// Width 0, or lengths that do not fit together.
pub fn without_padding(values: &[f32], width: usize, attention_mask: &[u8]) -> Result<Vec<f32>, MeasureError> {
    const WHAT: &str = "hidden states with padding";
    let expected = attention_mask.len().checked_mul(width).filter(|_| width > 0).ok_or(MeasureError::Dimensions {
        what: WHAT,
        rows: attention_mask.len(),
        columns: width,
    })?;
    if values.len() != expected {
        return Err(MeasureError::Shape { what: WHAT, expected, found: values.len() });
    }
    let kept = values.chunks_exact(width).zip(attention_mask).filter(|&(_, &mask)| mask != 0);
    Ok(kept.flat_map(|(row, _)| row).copied().collect())
}

impl Default for SpectrumOptions {
    /// All metrics, D = min(N, d), seed 0.
    fn default() -> Self {
        Self {
            metrics: vec![Metric::MatrixNuclearNorm, Metric::MatrixEntropy, Metric::NuclearNorm],
            kept_columns: KeptColumns::SmallerSide,
            seed: 0,
        }
    }
}

impl AgainstNull {
    fn undefined(reason: Reason) -> Self {
        let number = Number::Undefined(reason);
        Self { value: number, null_mean: number, null_sd: number, corrected: number }
    }
}

/// The sum of the `kept` largest column norms of Z, divided by its rows.
fn matrix_nuclear_norm(columns: &unit_rows::Columns, kept: usize) -> Number {
    let mut norms: Vec<f64> = columns.squared_norms.iter().map(|square| square.sqrt()).collect();
    if kept < norms.len() {
        norms.select_nth_unstable_by(kept, |a, b| b.total_cmp(a));
        norms.truncate(kept);
    }
    Number::from(norms.iter().sum::<f64>() / columns.rows_used as f64)
}

/// H / ln d.
fn matrix_entropy(entropy_nats: f64, width: usize) -> Number {
    Number::ratio(entropy_nats, (width as f64).ln(), Reason::WidthOfOne)
}

fn too_few_rows(tokens: usize, rows_used: usize) -> Option<Reason> {
    match (tokens, rows_used) {
        (0, _) => Some(Reason::NoTokens),
        (1, _) => Some(Reason::OneToken),
        (_, 0 | 1) => Some(Reason::DegenerateTokens),
        _ => None,
    }
}

fn kept_columns(kept: KeptColumns, rows: usize, width: usize) -> Result<usize, MeasureError> {
    match kept {
        KeptColumns::SmallerSide => Ok(rows.min(width)),
        KeptColumns::Top(kept) if (1..=rows.min(width)).contains(&kept) => Ok(kept),
        KeptColumns::Top(kept) => Err(kept_columns_error(kept, rows, width)),
    }
}

fn kept_columns_error(kept: usize, rows: usize, width: usize) -> MeasureError {
    MeasureError::KeptColumns { kept, limit: rows.min(width), rows, width }
}

struct SpectrumShape<'a> {
    states: HiddenStates<'a>,
    rows: usize,
    rows_dropped: usize,
}

/// Every requested metric undefined for `reason`, the others as not requested.
fn undefined_spectrum(shape: SpectrumShape<'_>, options: &SpectrumOptions, reason: Reason) -> Spectrum {
    let reason_of = |metric| {
        if options.metrics.contains(&metric) { reason } else { Reason::NotRequested }
    };
    let entropy = Number::Undefined(reason_of(Metric::MatrixEntropy));
    Spectrum {
        tokens: shape.states.tokens,
        rows_used: shape.rows,
        rows_dropped: shape.rows_dropped,
        width: shape.states.width,
        columns_kept: 0,
        mnn: AgainstNull::undefined(reason_of(Metric::MatrixNuclearNorm)),
        mnn_cap: Number::Undefined(reason),
        entropy_nats: entropy,
        matrix_entropy: AgainstNull::undefined(reason_of(Metric::MatrixEntropy)),
        erank: entropy,
        erank_per_width: entropy,
        nuclear_norm: AgainstNull::undefined(reason_of(Metric::NuclearNorm)),
    }
}
