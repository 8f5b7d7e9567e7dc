//! MAUVE (Pillutla et al. 2021): how near two sets of texts are, by their features.
//!
//! Features of both sets, scaled to length 1, are projected on the principal components that hold 90 % of their variance
//! and put into k clusters together; P and Q are the sets' shares of the clusters. For mixtures R = λP + (1 − λ)Q the
//! points `(e^(−c KL(Q‖R)), e^(−c KL(P‖R)))` draw a curve; MAUVE is the area below it, between 0 and 1 (P = Q). Constants are those of
//! the authors' package: c = 5, 25 mixtures, k = n/10, five starts of k-means.
//!
//! The number depends on the model that the features come from, on the number of texts and on their length: compare only
//! where all three are the same. Small sets of the same source are well below 1.

use faer::{Mat, Side};
use rayon::prelude::*;
use serde::Serialize;

use crate::clusters::{KMeans, k_means};
use crate::embedding::Vectors;
use crate::error::MeasureError;
use crate::measured::{Estimate, Number, Reason};
use crate::statistics::bootstrap;

/// c: scale of the divergences.
const SCALE: f64 = 5.0;
/// Mixtures of the curve.
const MIXTURES: usize = 25;
/// Share of the variance that the principal components hold.
const VARIANCE: f64 = 0.9;
const RESTARTS: usize = 5;
const ITERATIONS: usize = 500;

/// Choices of the clustering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MauveOptions {
    /// k; none is a tenth of the smaller set, at least 2.
    pub clusters: Option<usize>,
    /// Seed of the clustering and of the interval.
    pub seed: u64,
}

/// MAUVE of two sets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mauve {
    /// The area. Its interval resamples texts of both sets, the clusters held fixed.
    pub area: Estimate,
    /// Texts of each set.
    pub texts: [usize; 2],
    /// k.
    pub clusters: usize,
    /// Principal components.
    pub components: usize,
}

/// MAUVE of two sets of features, `[texts, width]` each.
///
/// # Errors
/// Widths differ, a set has fewer than two texts, a feature is not finite.
pub fn mauve(p: &[Vec<f32>], q: &[Vec<f32>], options: MauveOptions) -> Result<Mauve, MeasureError> {
    let width = p.first().map_or(0, Vec::len);
    for set in [p, q] {
        if set.len() < 2 || width == 0 {
            return Err(MeasureError::Dimensions { what: "features of texts", rows: set.len(), columns: width });
        }
    }
    let mut rows = Vec::with_capacity(p.len() + q.len());
    for (token, features) in p.iter().chain(q).enumerate() {
        if features.len() != width {
            return Err(MeasureError::Shape { what: "features of a text", expected: width, found: features.len() });
        }
        if let Some(feature) = features.iter().position(|value| !value.is_finite()) {
            return Err(MeasureError::NonFiniteState { token, feature, value: features[feature] });
        }
        let length = features.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        rows.push(features.iter().map(|value| f64::from(*value) / length.max(f64::MIN_POSITIVE)).collect());
    }
    let points = principal_components(rows)?;
    let clusters = options.clusters.unwrap_or_else(|| (p.len().min(q.len()) as f64 / 10.0).round() as usize).max(2);
    let clusters = clusters.min(points.len());
    let components = points[0].len();
    let values = points.into_iter().flatten().map(|coordinate| coordinate as f32).collect();
    let how = KMeans { clusters, seed: options.seed, restarts: RESTARTS, rounds: ITERATIONS };
    let labels = k_means(&Vectors::new(components, values)?, &how)?.labels;
    let [area] = bootstrap(labels.len(), options.seed, |drawn| {
        let mut shares = [vec![0.0; clusters], vec![0.0; clusters]];
        for (index, (label, times)) in labels.iter().zip(drawn).enumerate() {
            shares[usize::from(index >= p.len())][*label] += f64::from(*times);
        }
        let totals = [0, 1].map(|set: usize| shares[set].iter().sum::<f64>());
        if totals.contains(&0.0) {
            return [Number::Undefined(Reason::Empty)];
        }
        let [p, q] = [0, 1].map(|set: usize| shares[set].iter().map(|count| count / totals[set]).collect::<Vec<f64>>());
        [divergence_area(&p, &q).into()]
    });
    Ok(Mauve { area, texts: [p.len(), q.len()], clusters, components })
}

/// The area under the divergence curve of two distributions over the same clusters.
#[must_use]
pub fn divergence_area(p: &[f64], q: &[f64]) -> f64 {
    let divergence = |a: &[f64], r: &[f64]| {
        let terms = a.iter().zip(r).filter(|(a, _)| **a > 0.0).map(|(a, r)| a * (a / r).ln());
        (-SCALE * terms.sum::<f64>()).exp()
    };
    let ends = [1e-6, 1.0 - 1e-6];
    let mut curve = vec![[1.0, 0.0]];
    for i in 0..MIXTURES {
        let lambda = ends[0] + (ends[1] - ends[0]) * i as f64 / (MIXTURES - 1) as f64;
        let r: Vec<f64> = p.iter().zip(q).map(|(p, q)| lambda * p + (1.0 - lambda) * q).collect();
        curve.push([divergence(q, &r), divergence(p, &r)]);
    }
    curve.push([0.0, 1.0]);
    // Along the curve x falls and y rises, so it is in order; equal points, as of P = Q, add nothing.
    curve.windows(2).map(|pair| (pair[0][0] - pair[1][0]) * (pair[0][1] + pair[1][1]) / 2.0).sum()
}

/// Coordinates on the first principal components, `[texts, components]`: eigenvectors of the centred Gram matrix times
/// the roots of their eigenvalues.
fn principal_components(mut rows: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>, MeasureError> {
    let (n, width) = (rows.len(), rows[0].len());
    let mean: Vec<f64> = (0..width).map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n as f64).collect();
    for row in &mut rows {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
    let products: Vec<Vec<f64>> =
        rows.par_iter().map(|a| rows.iter().map(|b| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect()).collect();
    let gram = Mat::from_fn(n, n, |i, j| products[i][j]);
    let eigen = gram.self_adjoint_eigen(Side::Lower).map_err(|_| MeasureError::NoConvergence {
        what: "eigenvalues",
        rows: n,
        columns: n,
    })?;
    // Ascending; rounding leaves tiny negative ones.
    let values: Vec<f64> = eigen.S().column_vector().iter().rev().map(|value| value.max(0.0)).collect();
    let total: f64 = values.iter().sum();
    let mut components = 0;
    let mut held = 0.0;
    while components < n && (components == 0 || held < VARIANCE * total) {
        held += values[components];
        components += 1;
    }
    let vectors = eigen.U();
    let coordinate = |row: usize, k: usize| vectors[(row, n - 1 - k)] * values[k].sqrt();
    Ok((0..n).map(|row| (0..components).map(|k| coordinate(row, k)).collect()).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rand::Rng;

    use super::*;
    use crate::statistics::item_generator;

    /// Points around `centre` on the first axis, in 8 dimensions.
    fn cloud(n: u64, centre: f32, seed: u64) -> Vec<Vec<f32>> {
        let mut generator = item_generator(seed, 0);
        let point = |_| (0..8).map(|j| if j == 0 { centre } else { 0.0 } + generator.random::<f32>() * 0.4).collect();
        (0..n).map(point).collect()
    }

    /// By the definition, with numpy: tests/data/divergence_area.py.
    #[test]
    fn areas_that_another_program_computed() {
        let cases: [(&[f64], &[f64], f64); 4] = [
            (&[0.25, 0.25, 0.5], &[0.25, 0.25, 0.5], 1.0),
            (&[0.7, 0.2, 0.1], &[0.2, 0.3, 0.5], 0.4836305462169298),
            (&[0.5, 0.5, 0.0], &[0.0, 0.5, 0.5], 0.09257236294829274),
            (&[1.0, 0.0], &[0.0, 1.0], 0.004072096261961256),
        ];
        for (p, q, expected) in cases {
            assert!((divergence_area(p, q) - expected).abs() < 1e-9, "{p:?} {q:?}: {}", divergence_area(p, q));
            assert!((divergence_area(q, p) - expected).abs() < 1e-9, "it is symmetric");
        }
    }

    #[test]
    fn sets_of_one_source_are_near_and_others_far() {
        let options = MauveOptions { clusters: None, seed: 1 };
        let same = mauve(&cloud(100, 1.0, 1), &cloud(100, 1.0, 2), options).unwrap();
        let other = mauve(&cloud(100, 1.0, 1), &cloud(100, -1.0, 2), options).unwrap();
        let [same_area, other_area] = [same, other].map(|mauve| mauve.area.value.value().unwrap());
        assert!(same_area > 0.8 && other_area < 0.05, "{same_area} {other_area}");
        assert_eq!((same.clusters, same.texts), (10, [100, 100]));
        let interval = same.area.interval.value().unwrap();
        assert!(interval.low < same_area && interval.high <= 1.0 + 1e-12, "{interval:?}");
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| mauve(&cloud(100, 1.0, 1), &cloud(100, 1.0, 2), options).unwrap()), same);
    }

    /// The package of MAUVE's authors: tests/data/authors_mauve.py.
    #[test]
    fn sets_that_the_authors_package_measured() {
        const COUNTS: [usize; 4] = [80, 60, 40, 20];
        const WIDTH: usize = 6;
        let numbers = |count: usize, seed: u32| {
            let next = |x: &u32| Some(x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453));
            let states = std::iter::successors(next(&seed), next);
            states.take(count).map(|x| f64::from(x) / 2f64.powi(32) * 2.0 - 1.0).collect::<Vec<_>>()
        };
        let centres = numbers(COUNTS.len() * WIDTH, 7);
        let draw = |spread: f64, counts: [usize; 4], seed| {
            let labels = counts.iter().enumerate().flat_map(|(label, count)| std::iter::repeat_n(label, *count));
            let noise = numbers(counts.iter().sum::<usize>() * WIDTH, seed);
            let point = |(label, noise): (usize, &[f64])| {
                centres[label * WIDTH..].iter().zip(noise).map(|(c, x)| (c + spread * x) as f32).collect()
            };
            labels.zip(noise.chunks_exact(WIDTH)).map(point).collect::<Vec<Vec<f32>>>()
        };
        let area = |spread| {
            let [fewer, more] = [COUNTS, [20, 40, 60, 80]];
            let options = MauveOptions { clusters: Some(4), seed: 0 };
            let found = mauve(&draw(spread, fewer, 8), &draw(spread, more, 9), options).unwrap();
            found.area.value.value().unwrap()
        };
        // Clusters without doubt: the same number, but for the package's single precision.
        assert!((area(0.02) - 0.653_853_663).abs() < 1e-6, "{}", area(0.02));
        // Clusters that overlap depend on where k-means begins: 0.867 to 0.901 there.
        assert!((0.85..0.92).contains(&area(1.5)), "{}", area(1.5));
    }

    #[test]
    fn a_set_is_as_near_to_itself_as_can_be() {
        let cloud = cloud(30, 0.3, 5);
        let itself = mauve(&cloud, &cloud, MauveOptions { clusters: Some(4), seed: 0 }).unwrap();
        assert!((itself.area.value.value().unwrap() - 1.0).abs() < 1e-9);
        assert!(itself.components >= 1 && itself.components <= 8);
    }

    #[test]
    fn features_that_cannot_be_used_are_refused() {
        let options = MauveOptions { clusters: None, seed: 0 };
        assert!(mauve(&cloud(1, 0.0, 0), &cloud(5, 0.0, 0), options).is_err());
        assert!(mauve(&[], &[], options).is_err());
        let mut bad = cloud(5, 0.0, 0);
        bad[2][3] = f32::NAN;
        assert!(mauve(&bad, &cloud(5, 0.0, 0), options).is_err());
        bad[2] = vec![1.0; 7];
        assert!(mauve(&bad, &cloud(5, 0.0, 0), options).is_err());
        // All alike: one component without variance, and no division by zero.
        let alike = vec![vec![1.0; 4]; 5];
        assert!((mauve(&alike, &alike, options).unwrap().area.value.value().unwrap() - 1.0).abs() < 1e-9);
    }
}
