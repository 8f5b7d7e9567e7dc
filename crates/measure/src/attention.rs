//! Attention mass on a span of text, head by head (Ho, JURIX 2024), from column sums.
//!
//! A is the matrix of one head after the softmax, row = query, column = key. Columns of the excluded
//! positions X are set to 0 and rows are not renormalised; the share of a span S is the mass in its columns
//! over the mass that is left. That share needs the column sums only, so rows stream through
//! [`HeadAttention`] and memory stays at one number per key and head.
//!
//! The share alone misleads in two ways, and three numbers go beside it. Early keys are seen by more queries:
//! the *lift* divides by the share under uniform causal attention, and *control spans* of the same text give
//! a percentile. And when less mass goes to an excluded sink, a share can rise while its mass falls: the
//! *row-renormalised* share averages over the rows, each scaled to what it leaves outside X. Shares compare
//! models on one text, not concepts or texts. One head per query head, also with grouped keys.

mod compare;
mod spans;
#[cfg(test)]
mod tests;

use std::ops::Range;

use lathe_kernels::column_sums;
use serde::{Deserialize, Serialize};

use crate::error::MeasureError;
use crate::measured::{Number, Reason};

pub use compare::{
    HISTOGRAM_BINS, HeadComparison, HeadDistribution, HeadGrid, LayerMean, compare_heads, head_distribution,
    layer_means,
};
pub use spans::{CONTROL_SPANS, ControlKind, KeyWindow, SpanBaseline, SpanPlan, is_excluded_token, tokens_in_range};

/// Row sums up to 1 plus this are rounding of half-precision weights.
const ROW_SUM_TOLERANCE: f64 = 1e-2;

/// The attention of one head over one text, accumulated row by row. Heads are independent: each thread can
/// own some.
#[derive(Clone, Debug, Serialize)]
pub struct HeadAttention<'plan> {
    #[serde(skip)]
    plan: &'plan SpanPlan,
    /// Σ over queries, `[tokens]`.
    column_sums: Vec<f64>,
    /// Rows added so far; also the next one due.
    rows: usize,
    /// Rows with mass outside X.
    usable_rows: usize,
    /// Σ over usable rows of span mass / mass outside X, `[spans]`.
    renormalised_sums: Vec<f64>,
}

/// What one head does on one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadReport {
    /// Share of all attention mass on position 0 (0 to 1).
    pub sink_share: Number,
    /// `sink_share` over its value under uniform causal attention: 1 is no preference.
    pub sink_lift: Number,
    /// In the order of the plan's spans.
    pub spans: Vec<SpanShare>,
}

/// Attention of one head on one span. All undefined when all mass of the head is on excluded positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanShare {
    /// The paper's share: mass on the span over mass outside X, both summed over all rows (0 to 1).
    pub share: Number,
    /// Mass on the span over all mass, X included (0 to 1).
    pub raw_share: Number,
    /// Mean over usable rows of the span's share of that row's mass outside X (0 to 1).
    pub renormalised_share: Number,
    /// Rows that leave mass outside X.
    pub usable_rows: usize,
    /// `share` over the share under uniform causal attention; 1 is no preference.
    pub lift: Number,
    /// `renormalised_share` over the same under uniform causal attention.
    pub renormalised_lift: Number,
    /// Percentage of control spans with a smaller share, ties counted half (0 to 100; 50 is no preference).
    pub control_percentile: Number,
    /// Control spans compared with; see [`SpanBaseline`] for their kind.
    pub controls: usize,
}

impl<'plan> HeadAttention<'plan> {
    /// No rows yet.
    pub fn new(plan: &'plan SpanPlan) -> Self {
        Self {
            plan,
            column_sums: vec![0.0; plan.tokens()],
            rows: 0,
            usable_rows: 0,
            renormalised_sums: vec![0.0; plan.spans().len()],
        }
    }

    /// Adds the rows of queries `first_query` and following: `probabilities`, `[rows, keys]`, after the softmax.
    /// `keys` may end at the last query of the block, since later keys get nothing. Rows come in order, so the
    /// sums do not depend on the size of the blocks.
    ///
    /// # Errors
    /// A shape that does not fit, rows out of order, weights that are negative, not finite or sum to more
    /// than 1, or weight on a later key. The rows before the wrong one stay added.
    pub fn add_rows(&mut self, first_query: usize, keys: usize, probabilities: &[f32]) -> Result<(), MeasureError> {
        self.add_rows_of_keys(first_query, 0..keys, probabilities)
    }

    /// [`HeadAttention::add_rows`] of queries that see no key outside `keys`: a window of the text. Where it begins at
    /// a multiple of 8, the sums are the same bits as those of whole rows.
    ///
    /// # Errors
    /// As there.
    pub fn add_rows_of_keys(
        &mut self,
        first_query: usize,
        keys: Range<usize>,
        probabilities: &[f32],
    ) -> Result<(), MeasureError> {
        let what = "attention rows";
        if keys.is_empty() || keys.end > self.plan.tokens() {
            return Err(MeasureError::Dimensions { what, rows: self.plan.tokens(), columns: keys.end });
        }
        if !probabilities.len().is_multiple_of(keys.len()) {
            let expected = probabilities.len().next_multiple_of(keys.len());
            return Err(MeasureError::Shape { what, expected, found: probabilities.len() });
        }
        let rows = probabilities.len() / keys.len();
        if first_query != self.rows || rows > self.plan.tokens() - self.rows {
            let found = if first_query == self.rows { first_query + rows } else { first_query };
            return Err(MeasureError::RowOrder { expected: self.rows, found, tokens: self.plan.tokens() });
        }
        if keys.end < first_query + rows || keys.start > first_query {
            return Err(MeasureError::Dimensions { what, rows: first_query + rows, columns: keys.end });
        }
        let checked = probabilities.chunks_exact(keys.len()).try_for_each(|row| self.add_row(keys.start, row));
        let right = (self.rows - first_query) * keys.len();
        column_sums::add_rows(&probabilities[..right], &mut self.column_sums[keys]);
        checked
    }

    /// Attention received by each key, summed over queries: `[tokens]`.
    pub fn column_sums(&self) -> &[f64] {
        &self.column_sums
    }

    /// The measurements of this head.
    ///
    /// # Errors
    /// Rows are missing.
    pub fn report(&self) -> Result<HeadReport, MeasureError> {
        let tokens = self.plan.tokens();
        if self.rows != tokens {
            return Err(MeasureError::RowOrder { expected: self.rows, found: tokens, tokens });
        }
        let total: f64 = self.column_sums.iter().sum();
        let first = self.column_sums.first().copied().unwrap_or(0.0);
        let sink_share = Number::ratio(first, total, Reason::NoTokens);
        Ok(HeadReport {
            sink_share,
            sink_lift: sink_share.zip(self.plan.uniform_sink_share(), |share, uniform| share / uniform),
            spans: (0..self.plan.spans().len()).map(|span| self.span_share(span, total)).collect(),
        })
    }

    /// Everything but the column sums, of the next row, whose first weight is that of key `first`.
    fn add_row(&mut self, first: usize, row: &[f32]) -> Result<(), MeasureError> {
        let query = self.rows;
        let (visible, later) = row.split_at(query + 1 - first);
        // The kept mass is summed by itself and not taken from the total less the excluded mass, which would
        // leave rounding where there is nothing.
        let masses = column_sums::row_masses(visible, &self.plan.keep_weights()[first..]);
        if masses.has_negative {
            let negative = visible.iter().copied().fold(0.0, f32::min);
            return Err(MeasureError::NotProbabilities { query, found: f64::from(negative) });
        }
        if masses.all.is_nan() || masses.all > 1.0 + ROW_SUM_TOLERANCE {
            return Err(MeasureError::NotProbabilities { query, found: masses.all });
        }
        // A fold without an early end vectorises; the search for the culprit is for the error only.
        if later.iter().fold(false, |any, &weight| any | (weight != 0.0)) {
            let at = later.iter().position(|&weight| weight != 0.0).unwrap_or(0);
            return Err(MeasureError::NotCausal { query, key: query + 1 + at, weight: later[at] });
        }
        if masses.kept > 0.0 {
            self.usable_rows += 1;
            for (sum, span) in self.renormalised_sums.iter_mut().zip(self.plan.spans()) {
                let seen =
                    span.iter().filter(|&&position| position >= first).take_while(|&&position| position <= query);
                let mass: f64 = seen.map(|&position| f64::from(visible[position - first])).sum();
                *sum += mass / masses.kept;
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn span_share(&self, span: usize, total: f64) -> SpanShare {
        let positions = &self.plan.spans()[span];
        let baseline = &self.plan.baselines()[span];
        let mass = self.mass(positions);
        let kept: f64 = self.column_sums.iter().zip(self.plan.keep_weights()).map(|(&sum, &keep)| sum * keep).sum();
        let share = Number::ratio(mass, kept, Reason::AllMassExcluded);
        let renormalised_share =
            Number::ratio(self.renormalised_sums[span], self.usable_rows as f64, Reason::AllMassExcluded);
        SpanShare {
            share,
            raw_share: Number::ratio(mass, total, Reason::NoTokens),
            renormalised_share,
            usable_rows: self.usable_rows,
            lift: share.zip(baseline.share, |share, uniform| share / uniform),
            renormalised_lift: renormalised_share.zip(baseline.renormalised_share, |share, uniform| share / uniform),
            control_percentile: match share {
                Number::Value(_) => self.control_percentile(span, mass),
                undefined => undefined,
            },
            controls: baseline.controls,
        }
    }

    /// Shares of one head have one denominator, so masses compare as the shares would.
    fn control_percentile(&self, span: usize, mass: f64) -> Number {
        let controls = self.plan.controls(span);
        let below: f64 = controls
            .iter()
            .map(|control| self.mass(control))
            .map(|control| {
                if control < mass {
                    1.0
                } else if control == mass {
                    0.5
                } else {
                    0.0
                }
            })
            .sum();
        Number::ratio(100.0 * below, controls.len() as f64, Reason::TooFewControls)
    }

    fn mass(&self, positions: &[usize]) -> f64 {
        positions.iter().map(|&position| self.column_sums[position]).sum()
    }
}
