//! Z: the tokens centred on their mean and scaled to length 1 (MNN paper, Algorithm 1, steps 1 and 2).

use super::HiddenStates;

/// The squared column norms of Z, without Z itself.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Σ over tokens of Z²; `[width]`. They add up to `rows_used`.
    pub(super) squared_norms: Vec<f64>,
    /// Rows of Z.
    pub(super) rows_used: usize,
}

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
    let mut squared_norms = vec![0.0; states.width()];
    let rows_used = for_each_unit_row(states, |row| {
        for (square, value) in squared_norms.iter_mut().zip(row) {
            *square += value * value;
        }
    });
    Columns { squared_norms, rows_used }
}

/// Z itself, for the decompositions.
pub(super) fn unit_rows(states: HiddenStates<'_>) -> UnitRows {
    let mut values = Vec::with_capacity(states.tokens() * states.width());
    let rows = for_each_unit_row(states, |row| values.extend_from_slice(row));
    UnitRows { values, rows, width: states.width() }
}

/// Hands every row of Z to `visit` and returns how many there were. A token that equals the mean has no
/// direction and is left out; leaving it out does not move the mean.
fn for_each_unit_row(states: HiddenStates<'_>, mut visit: impl FnMut(&[f64])) -> usize {
    let Centring { mean, resolution } = centring(states);
    let mut row = vec![0.0; states.width()];
    let mut rows = 0;
    for token in states.rows() {
        for ((centred, &value), &centre) in row.iter_mut().zip(token).zip(&mean) {
            *centred = f64::from(value) - centre;
        }
        let length = sum_of_squares(&row).sqrt();
        if length <= resolution {
            continue;
        }
        for value in &mut row {
            *value /= length;
        }
        visit(&row);
        rows += 1;
    }
    rows
}

struct Centring {
    /// `[width]`
    mean: Vec<f64>,
    /// Distances from the mean up to this one are rounding of the f64 sums.
    resolution: f64,
}

fn centring(states: HiddenStates<'_>) -> Centring {
    let mut mean = vec![0.0; states.width()];
    let mut squares = vec![0.0; states.width()];
    for token in states.rows() {
        for ((sum, square), &value) in mean.iter_mut().zip(&mut squares).zip(token) {
            let value = f64::from(value);
            *sum += value;
            *square += value * value;
        }
    }
    let tokens = states.tokens() as f64;
    for sum in &mut mean {
        *sum /= tokens;
    }
    // A sum of N terms is off by at most N ε Σ|x|, so its mean by N ε times the mean size of a token; the
    // factor 4 covers the division and the subtraction. f32 states resolve nothing near that.
    let token_size = (squares.iter().sum::<f64>() / tokens).sqrt();
    Centring { mean, resolution: 4.0 * tokens * f64::EPSILON * token_size }
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
