//! Shares of all heads of a model, and of two models of one lineage (JURIX 2024, Table 2 and Figure 1).
//!
//! Heads of one model are correlated and a text has one span, so none of this carries an interval or a test:
//! it describes. The difference per head also assumes that a head keeps its role through fine-tuning.

use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};
use crate::statistics::{histogram_entropy, kurtosis, mean, percentile, skewness};

/// Equal-width bins of the entropy, between the smallest and the largest value (JURIX 2024, Table 2).
pub const HISTOGRAM_BINS: usize = 11;

/// One number per head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadGrid {
    /// Layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// `[layers, heads]`
    pub values: Vec<Number>,
}

/// How one number is distributed over heads, in the number's own unit where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadDistribution {
    /// Heads with a value.
    pub n: usize,
    /// Heads left out because it is undefined there.
    pub skipped: usize,
    /// Mean.
    pub mean: Number,
    /// Median.
    pub median: Number,
    /// Skewness m3 / m2^1.5, population moments; undefined when all heads agree.
    pub skewness: Number,
    /// Kurtosis m4 / m2², population moments (normal = 3); undefined when all heads agree.
    pub kurtosis: Number,
    /// Entropy in nats of the 11-bin histogram: 0 when all heads agree, at most ln 11. One outlier lowers it.
    pub histogram_entropy_nats: Number,
}

/// The mean over the heads of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerMean {
    /// Index of the layer.
    pub layer: usize,
    /// Mean over its heads with a value.
    pub mean: Number,
    /// Heads with a value.
    pub n: usize,
}

/// Second model minus first, head by head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadComparison {
    /// Differences; undefined where either side is.
    pub differences: HeadGrid,
    /// Their distribution.
    pub distribution: HeadDistribution,
    /// Share of heads with a difference above 0 (0 to 1).
    pub share_up: Number,
    /// Mean difference of each layer.
    pub layers: Vec<LayerMean>,
}

/// Compares two models of one lineage on one span of one text.
///
/// # Errors
/// Different numbers of layers or heads: compare their [`head_distribution`]s instead, as for models with
/// different tokenizers. A grid whose values do not fill it.
pub fn compare_heads(first: &HeadGrid, second: &HeadGrid) -> Result<HeadComparison, MeasureError> {
    check_filled(first)?;
    check_filled(second)?;
    if (first.layers, first.heads) != (second.layers, second.heads) {
        return Err(MeasureError::HeadGrids {
            left_layers: first.layers,
            left_heads: first.heads,
            right_layers: second.layers,
            right_heads: second.heads,
        });
    }
    let pairs = first.values.iter().zip(&second.values);
    let values: Vec<Number> = pairs.map(|(first, second)| second.zip(*first, |second, first| second - first)).collect();
    let defined: Vec<f64> = values.iter().filter_map(|number| number.value()).collect();
    let up = defined.iter().filter(|&&difference| difference > 0.0).count();
    let differences = HeadGrid { layers: first.layers, heads: first.heads, values };
    Ok(HeadComparison {
        distribution: head_distribution(&differences.values),
        share_up: Number::ratio(up as f64, defined.len() as f64, Reason::Empty),
        layers: layer_means(&differences)?,
        differences,
    })
}

/// Distribution over the heads in which the number is defined.
pub fn head_distribution(values: &[Number]) -> HeadDistribution {
    let mut defined: Vec<f64> = values.iter().filter_map(|number| number.value()).collect();
    defined.sort_by(f64::total_cmp);
    HeadDistribution {
        n: defined.len(),
        skipped: values.len() - defined.len(),
        mean: mean(&defined),
        median: percentile(&defined, 0.5),
        skewness: skewness(&defined),
        kurtosis: kurtosis(&defined),
        histogram_entropy_nats: histogram_entropy(&defined, HISTOGRAM_BINS),
    }
}

/// Mean of each layer over the heads in which the number is defined.
///
/// # Errors
/// The values do not fill the grid.
pub fn layer_means(grid: &HeadGrid) -> Result<Vec<LayerMean>, MeasureError> {
    check_filled(grid)?;
    let layer_mean = |(layer, heads): (usize, &[Number])| {
        let defined: Vec<f64> = heads.iter().filter_map(|number| number.value()).collect();
        LayerMean { layer, mean: mean(&defined), n: defined.len() }
    };
    Ok(grid.values.chunks(grid.heads.max(1)).enumerate().map(layer_mean).collect())
}

fn check_filled(grid: &HeadGrid) -> Result<(), MeasureError> {
    const WHAT: &str = "head grid";
    let expected = grid.layers.checked_mul(grid.heads).ok_or(MeasureError::Dimensions {
        what: WHAT,
        rows: grid.layers,
        columns: grid.heads,
    })?;
    if grid.values.len() != expected {
        return Err(MeasureError::Shape { what: WHAT, expected, found: grid.values.len() });
    }
    Ok(())
}
