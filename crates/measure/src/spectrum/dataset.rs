//! From the spectra of many windows to one value per data set (MNN: arXiv 2410.10672; matrix entropy
//! variants and Diff-eRank: Wei et al. 2024).

use serde::{Deserialize, Serialize};

use super::Spectrum;
use crate::error::MeasureError;
use crate::measured::{Estimate, Number, Reason};
use crate::statistics::bootstrap_mean;

/// Means over the windows of one model and one layer. Windows of unequal length are not comparable: see
/// `rows_least` and `rows_most`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpectrumSummary {
    /// Windows given.
    pub windows: usize,
    /// d; 0 without windows.
    pub width: usize,
    /// The smallest N among the windows with at least two usable tokens; 0 without any.
    pub rows_least: usize,
    /// The largest N among the same windows.
    pub rows_most: usize,
    /// Tokens dropped in all windows because they equal their window's mean.
    pub rows_dropped: usize,
    /// Matrix Nuclear-Norm, no unit.
    pub mnn: WindowMean,
    /// Gaussian null of MNN, no unit.
    pub mnn_null: WindowMean,
    /// MNN over its null; 1 without structure.
    pub mnn_corrected: WindowMean,
    /// sqrt(D / N), the largest possible MNN.
    pub mnn_cap: WindowMean,
    /// Entropy in nats.
    pub entropy_nats: WindowMean,
    /// Matrix entropy: variant a, the published one (no unit, 0 to 1).
    pub matrix_entropy: WindowMean,
    /// Gaussian null of the matrix entropy.
    pub matrix_entropy_null: WindowMean,
    /// Matrix entropy over its null; 1 without structure.
    pub matrix_entropy_corrected: WindowMean,
    /// The three ways of averaging the matrix entropy.
    pub matrix_entropy_variants: MatrixEntropyVariants,
    /// eRank, in dimensions.
    pub erank: WindowMean,
    /// eRank / d.
    pub erank_per_width: WindowMean,
    /// Exact nuclear norm / N, no unit.
    pub nuclear_norm: WindowMean,
    /// Gaussian null of the nuclear norm / N.
    pub nuclear_norm_null: WindowMean,
    /// Nuclear norm over its null; 1 without structure.
    pub nuclear_norm_corrected: WindowMean,
}

/// A mean over windows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowMean {
    /// Mean over the windows in which the metric is defined (`n` of them), with a bootstrap over these.
    pub mean: Estimate,
    /// Windows left out because the metric is undefined there.
    pub skipped: usize,
}

/// Three averages of one set of entropies; b and c differ in whether the exponent is taken before or after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixEntropyVariants {
    /// mean(H) / ln d, the published one.
    pub a: Number,
    /// exp(mean H) / d.
    pub b: Number,
    /// mean(exp H) / d.
    pub c: Number,
}

/// Diff-eRank of a data set, in dimensions; higher means that training removed more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffErank {
    /// exp(mean H untrained) − exp(mean H trained).
    pub diff_erank: Number,
    /// exp(mean H) of the randomly initialised model.
    pub untrained_erank: Number,
    /// exp(mean H) of the trained model.
    pub trained_erank: Number,
    /// Texts with an entropy under both models.
    pub n: usize,
    /// Texts left out because an entropy is undefined.
    pub skipped: usize,
}

/// Averages the windows of one model and one layer.
///
/// # Errors
/// The windows have different widths.
pub fn summarise(windows: &[Spectrum], seed: u64) -> Result<SpectrumSummary, MeasureError> {
    let width = windows.first().map_or(0, |first| first.width);
    if let Some((window, other)) = windows.iter().enumerate().find(|(_, other)| other.width != width) {
        return Err(MeasureError::MixedWidths { window, expected: width, found: other.width });
    }
    let mean_of = |metric: fn(&Spectrum) -> Number| {
        let values: Vec<Number> = windows.iter().map(metric).collect();
        let mean = bootstrap_mean(&values, seed);
        let mean = Estimate { value: only_reason(&values).unwrap_or(mean.value), ..mean };
        WindowMean { mean, skipped: windows.len() - mean.n }
    };
    let lengths = windows.iter().map(|window| window.rows_used).filter(|&rows| rows >= 2);
    let entropies: Vec<Number> = windows.iter().map(|window| window.entropy_nats).collect();
    Ok(SpectrumSummary {
        windows: windows.len(),
        width,
        rows_least: lengths.clone().min().unwrap_or(0),
        rows_most: lengths.max().unwrap_or(0),
        rows_dropped: windows.iter().map(|window| window.rows_dropped).sum(),
        mnn: mean_of(|window| window.mnn.value),
        mnn_null: mean_of(|window| window.mnn.null_mean),
        mnn_corrected: mean_of(|window| window.mnn.corrected),
        mnn_cap: mean_of(|window| window.mnn_cap),
        entropy_nats: mean_of(|window| window.entropy_nats),
        matrix_entropy: mean_of(|window| window.matrix_entropy.value),
        matrix_entropy_null: mean_of(|window| window.matrix_entropy.null_mean),
        matrix_entropy_corrected: mean_of(|window| window.matrix_entropy.corrected),
        matrix_entropy_variants: matrix_entropy_variants(&entropies, width),
        erank: mean_of(|window| window.erank),
        erank_per_width: mean_of(|window| window.erank_per_width),
        nuclear_norm: mean_of(|window| window.nuclear_norm.value),
        nuclear_norm_null: mean_of(|window| window.nuclear_norm.null_mean),
        nuclear_norm_corrected: mean_of(|window| window.nuclear_norm.corrected),
    })
}

/// The three averages over texts of entropies in nats; undefined ones are left out.
pub fn matrix_entropy_variants(entropies_nats: &[Number], width: usize) -> MatrixEntropyVariants {
    let width = width as f64;
    let mean_entropy = mean_defined(entropies_nats);
    let mean_erank = mean_defined(&entropies_nats.iter().map(|entropy| entropy.map(f64::exp)).collect::<Vec<_>>());
    MatrixEntropyVariants {
        a: match mean_entropy {
            Number::Value(entropy) => Number::ratio(entropy, width.ln(), Reason::WidthOfOne),
            undefined => undefined,
        },
        b: mean_entropy.map(|entropy| entropy.exp() / width),
        c: mean_erank.map(|erank| erank / width),
    }
}

/// Diff-eRank over a data set: the exponent of the mean entropy, not the mean of exponents. The untrained
/// model is the same configuration with random weights; its seed and initialisation decide the value, so
/// both belong beside it. For a single text the data set has one entry.
///
/// Entries pair up by index, in nats; a pair with an undefined entry is left out.
///
/// # Errors
/// The two lists have different lengths.
pub fn diff_erank(untrained: &[Number], trained: &[Number]) -> Result<DiffErank, MeasureError> {
    if untrained.len() != trained.len() {
        let (expected, found) = (untrained.len(), trained.len());
        return Err(MeasureError::Shape { what: "entropies of the trained model", expected, found });
    }
    let pairs = untrained.iter().zip(trained);
    let (before, after): (Vec<Number>, Vec<Number>) =
        pairs.filter(|(a, b)| a.value().is_some() && b.value().is_some()).map(|(a, b)| (*a, *b)).unzip();
    let untrained_erank = mean_defined(&before).map(f64::exp);
    let trained_erank = mean_defined(&after).map(f64::exp);
    Ok(DiffErank {
        diff_erank: untrained_erank.zip(trained_erank, |before, after| before - after),
        untrained_erank,
        trained_erank,
        n: before.len(),
        skipped: untrained.len() - before.len(),
    })
}

fn mean_defined(numbers: &[Number]) -> Number {
    let values: Vec<f64> = numbers.iter().filter_map(|number| number.value()).collect();
    only_reason(numbers).unwrap_or_else(|| crate::statistics::mean(&values))
}

/// The reason itself when every window gives the same one: "not requested" says more than "nothing to average".
fn only_reason(numbers: &[Number]) -> Option<Number> {
    let first = numbers.first()?;
    first.reason().filter(|_| numbers.iter().all(|number| number == first)).map(Number::Undefined)
}
