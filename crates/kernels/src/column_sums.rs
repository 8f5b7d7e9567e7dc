//! Sums over the rows and columns of attention probabilities, in f64.

use crate::isa::dispatch;

/// Partial sums of a row: value `i` goes to sum `i % 8`.
const LANES: usize = 8;

/// What a row of weights says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowMasses {
    /// Σ weight, in eight interleaved sums, added in order.
    pub all: f64,
    /// Σ weight · keep, likewise.
    pub kept: f64,
    /// Whether a weight is below 0.
    pub has_negative: bool,
}

dispatch! {
    /// The masses of `weights`; `keep` is at least as long.
    ///
    /// # Panics
    /// When it is not.
    pub fn row_masses(weights: &[f32], keep: &[f64]) -> RowMasses {
        let (mut all, mut kept) = ([0.0; LANES], [0.0; LANES]);
        let (blocks, rest) = weights.as_chunks::<LANES>();
        let (keep_blocks, keep_rest) = keep[..weights.len()].as_chunks::<LANES>();
        let mut least = [0.0f32; LANES];
        for (weights, keep) in blocks.iter().zip(keep_blocks) {
            for lane in 0..LANES {
                let weight = f64::from(weights[lane]);
                all[lane] += weight;
                kept[lane] += weight * keep[lane];
                least[lane] = if weights[lane] < least[lane] { weights[lane] } else { least[lane] };
            }
        }
        for (lane, (&weight, &keep)) in rest.iter().zip(keep_rest).enumerate() {
            all[lane] += f64::from(weight);
            kept[lane] += f64::from(weight) * keep;
            least[lane] = if weight < least[lane] { weight } else { least[lane] };
        }
        let has_negative = least.iter().any(|least| *least < 0.0);
        RowMasses { all: all.iter().sum(), kept: kept.iter().sum(), has_negative }
    }
}

dispatch! {
    /// Adds the rows of `weights`, `[rows, columns]`, to `sums`, `[columns]`, one after the other.
    ///
    /// # Panics
    /// When the rows are not whole.
    pub fn add_rows(weights: &[f32], sums: &mut [f64]) {
        let columns = sums.len();
        assert!(columns > 0 && weights.len().is_multiple_of(columns), "rows of {columns}");
        // Four rows at a time: a sum is loaded and stored once for them.
        let mut rows = weights.chunks_exact(4 * columns);
        for four in rows.by_ref() {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| &four[row * columns..][..columns]);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = *sum + f64::from(a[i]) + f64::from(b[i]) + f64::from(c[i]) + f64::from(d[i]);
            }
        }
        for row in rows.remainder().chunks_exact(columns) {
            for (sum, weight) in sums.iter_mut().zip(row) {
                *sum += f64::from(*weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise;

    proptest! {
        #[test]
        fn equal_the_definition(rows in 0usize..11, columns in 1usize..70, seed in 1u32..99) {
            let weights: Vec<f32> = noise(rows * columns, seed).iter().map(|x| x.abs()).collect();
            let keep: Vec<f64> = (0..columns + 2).map(|i| f64::from(u8::from(i % 3 != 0))).collect();
            let mut sums = vec![0.5; columns];
            add_rows(&weights, &mut sums);
            let mut expected = vec![0.5; columns];
            for row in weights.chunks_exact(columns) {
                expected.iter_mut().zip(row).for_each(|(sum, weight)| *sum += f64::from(*weight));
                let masses = row_masses(row, &keep);
                let (mut all, mut kept) = ([0.0; LANES], [0.0; LANES]);
                for (i, weight) in row.iter().enumerate() {
                    all[i % LANES] += f64::from(*weight);
                    kept[i % LANES] += f64::from(*weight) * keep[i];
                }
                let of = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
                prop_assert_eq!(masses, RowMasses { all: of(all), kept: of(kept), has_negative: false });
            }
            prop_assert_eq!(sums, expected);
        }

        #[test]
        fn a_negative_weight_is_seen(columns in 1usize..70, at in 0usize..70) {
            let mut weights = vec![0.0f32; columns];
            weights[at % columns] = -1e-30;
            prop_assert!(row_masses(&weights, &vec![1.0; columns]).has_negative);
        }
    }

    #[test]
    fn what_is_no_number_is_no_mass() {
        let masses = row_masses(&[0.5, f32::NAN], &[1.0, 1.0]);
        assert!(masses.all.is_nan() && !masses.has_negative);
    }
}
