//! Clipping by the global norm: a gradient that is longer than a limit is shortened to it.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Values of one tile of a sum, and of one piece of work.
pub(crate) const TILE: usize = 1 << 14;

/// What a gradient of length `norm` is multiplied by so that it is no longer than `limit`:
/// `min(1, limit / (norm + 1e-6))`.
#[must_use]
pub fn clip_factor(norm: f64, limit: f64) -> f64 {
    /// Keeps the quotient finite.
    const MARGIN: f64 = 1e-6;
    (limit / (norm + MARGIN)).min(1.0)
}

/// Sum of the squares of a contiguous tensor, in f64: tiles of fixed size, joined in order, so that threads change
/// nothing.
///
/// # Errors
/// The tensor is not contiguous f32.
pub fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("expected a tensor on the CPU") };
    let tiles: Vec<f64> = values(storage, layout)?.par_chunks(TILE).map(of_tile).collect();
    Ok(tiles.iter().sum())
}

/// Eight interleaved sums, then one after another.
fn of_tile(tile: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for values in tile.chunks(8) {
        for (sum, x) in sums.iter_mut().zip(values) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    sums.iter().sum()
}

pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => bail!("expected contiguous f32"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_worked_example() {
        // g = (3, 4), limit 1.
        let factor = clip_factor(5.0, 1.0);
        assert_eq!([3.0, 4.0].map(|g| (g * factor * 1e8).round()), [59_999_988.0, 79_999_984.0]);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(0.0, 1.0), 1.0);
    }

    #[test]
    fn squares_are_summed_over_any_number_of_tiles() {
        for len in [0, 1, 7, 9, TILE - 1, TILE, 2 * TILE + 3] {
            let values: Vec<f32> = (0..len).map(|i| (i % 11) as f32 - 5.0).collect();
            let expected: f64 = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            let tensor = Tensor::from_slice(&values, len, &Device::Cpu).expect("a tensor");
            assert_eq!(sum_of_squares(&tensor).expect("a sum"), expected, "{len}");
        }
    }
}
