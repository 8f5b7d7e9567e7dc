//! Z: the tokens centred on their mean and scaled to length 1 (MNN paper, Algorithm 1, steps 1 and 2).

use lathe_kernels::matmul::Threads;

use super::HiddenStates;

/// The squared column norms of Z, without Z itself.
pub(super) use lathe_kernels::unit_rows::UnitRowColumns as Columns;

/// Z in f64, row by row.
#[derive(Clone, Debug)]
pub(super) struct UnitRows {
    /// `[rows, width]`
    pub(super) values: Vec<f64>,
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// Column norms in O(N d) time and O(d) memory.
pub(super) fn columns(states: HiddenStates<'_>) -> Columns {
    lathe_kernels::unit_rows::columns(states.values, states.width, Threads::Pool)
}

/// Z itself, for the decompositions. A token that equals the mean has no direction and is left out; leaving it out does
/// not move the mean.
pub(super) fn unit_rows(states: HiddenStates<'_>) -> UnitRows {
    // One thread: the null values come here while others wait for them.
    let Columns { mean, resolution, .. } = lathe_kernels::unit_rows::columns(states.values, states.width, Threads::One);
    let mut values = Vec::with_capacity(states.values.len());
    let mut rows = 0;
    for token in states.rows() {
        let start = values.len();
        values.extend(token.iter().zip(&mean).map(|(value, centre)| f64::from(*value) - centre));
        let row = &mut values[start..];
        let length = sum_of_squares(row).sqrt();
        if length <= resolution {
            values.truncate(start);
            continue;
        }
        row.iter_mut().for_each(|value| *value /= length);
        rows += 1;
    }
    UnitRows { values, rows, width: states.width }
}

/// Σ x² in eight interleaved sums, which vectorises and has a fixed order.
fn sum_of_squares(values: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let chunks = values.chunks_exact(lanes.len());
    let rest: f64 = chunks.remainder().iter().map(|value| value * value).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value * value;
        }
    }
    lanes.iter().sum::<f64>() + rest
}
