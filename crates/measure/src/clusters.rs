//! Clusters of vectors, free ([`k_means`]) or of one size ([`balanced_k_means`]), and how far two labelings of the same
//! items agree ([`agreement`]).
//!
//! Vectors are centred first, which moves no cluster. A distance is `|x|² − 2 x·c + |c|²` with the lengths in f64 and
//! the product `x·c` from the kernels; centres are averages in f64, in the order of the vectors. Labels, centres and
//! inertia therefore depend neither on threads nor on the processor.

mod agreement;
mod assignment;
mod balanced;
#[cfg(test)]
mod tests;

pub use agreement::{Agreement, agreement};
pub use balanced::balanced_k_means;

use lathe_kernels::matmul::{Matrix, product};
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::embedding::{Vectors, dot, tree};
use crate::error::MeasureError;
use crate::statistics::item_generator;

/// How to look for clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KMeans {
    /// k.
    pub clusters: usize,
    /// Seed of the first centres; each start has its own stream.
    pub seed: u64,
    /// Starts, of which the one with the smallest inertia counts.
    pub restarts: usize,
    /// Rounds of a start at most.
    pub rounds: usize,
}

/// Clusters that were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// The cluster of each vector, `[vectors]`, numbered from 0.
    pub labels: Vec<usize>,
    /// The average of each cluster, `[clusters, width]`. A cluster without vectors has the centre that it had last.
    pub centres: Vectors,
    /// Σ of the squared distances of vectors from their centres.
    pub inertia: f64,
    /// Rounds of the start that counts.
    pub rounds: usize,
}

/// Lloyd's algorithm from k-means++ starts (Arthur and Vassilvitskii 2007, one candidate for each centre). It ends when
/// labels stay the same.
///
/// # Errors
/// No cluster, start or round; fewer vectors than clusters.
pub fn k_means(v: &Vectors, how: &KMeans) -> Result<Clustering, MeasureError> {
    best_start(v, how, |points, centres| {
        let mut labels = Vec::new();
        for round in 0..how.rounds {
            let found = nearest(points, &centres.values);
            if found == labels {
                return (labels, round);
            }
            labels = found;
            centres.follow(points, &labels);
        }
        (labels, how.rounds)
    })
}

/// Runs every start with `improve`, which moves first centres and says labels and rounds, and takes the best.
fn best_start(
    v: &Vectors,
    how: &KMeans,
    improve: impl Fn(&Points, &mut Centres) -> (Vec<usize>, usize),
) -> Result<Clustering, MeasureError> {
    for (name, value) in [("clusters", how.clusters), ("restarts", how.restarts), ("rounds", how.rounds)] {
        if value == 0 {
            return Err(MeasureError::Parameter { name, value: 0.0, wanted: "1 or more" });
        }
    }
    if v.len() < how.clusters {
        return Err(MeasureError::FewVectors { what: "this number of clusters", needed: how.clusters, found: v.len() });
    }
    let points = Points::centred(v);
    let mut best: Option<(f64, Vec<usize>, Centres, usize)> = None;
    for restart in 0..how.restarts as u64 {
        let mut centres = points.first_centres(how.clusters, how.seed, restart);
        let (labels, rounds) = improve(&points, &mut centres);
        let inertia = points.inertia(&labels, &centres.values);
        if best.as_ref().is_none_or(|(least, ..)| inertia < *least) {
            best = Some((inertia, labels, centres, rounds));
        }
    }
    let Some((inertia, labels, centres, rounds)) = best else {
        return Err(MeasureError::Parameter { name: "restarts", value: 0.0, wanted: "1 or more" });
    };
    let values = centres.values.chunks_exact(v.width()).flat_map(|centre| centre.iter().zip(&points.mean));
    let values = values.map(|(value, mean)| (f64::from(*value) + mean) as f32).collect();
    Ok(Clustering { labels, centres: Vectors::new(v.width(), values)?, inertia, rounds })
}

/// Vectors less their mean.
struct Points {
    width: usize,
    /// `[vectors, width]`
    values: Vec<f32>,
    /// Squared length of each.
    squares: Vec<f64>,
    mean: Vec<f64>,
}

/// Centres of clusters, in the coordinates of [`Points`].
struct Centres {
    /// `[clusters, width]`
    values: Vec<f32>,
}

impl Points {
    fn centred(v: &Vectors) -> Self {
        let mut mean = vec![0.0; v.width()];
        for row in v.rows() {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= v.len() as f64);
        let values: Vec<f32> = v
            .rows()
            .flat_map(|row| row.iter().zip(&mean))
            .map(|(value, mean)| (f64::from(*value) - mean) as f32)
            .collect();
        let squares = values.par_chunks_exact(v.width()).map(|row| dot(row, row)).collect();
        Self { width: v.width(), values, squares, mean }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// k-means++: the first centre is any vector, each further one is drawn by its squared distance from the nearest so far.
    fn first_centres(&self, clusters: usize, seed: u64, restart: u64) -> Centres {
        let mut generator = item_generator(seed, restart);
        let mut chosen = generator.random_range(0..self.len() as u64) as usize;
        let mut values = self.row(chosen).to_vec();
        let mut distances = vec![f64::INFINITY; self.len()];
        while values.len() < clusters * self.width {
            let centre = self.row(chosen);
            distances.par_iter_mut().enumerate().for_each(|(i, least)| {
                *least = least.min(squared_distance(self.row(i), centre));
            });
            let mut at = generator.random::<f64>() * distances.iter().sum::<f64>();
            let drawn = distances.iter().position(|distance| {
                at -= distance;
                at < 0.0
            });
            // Nothing is drawn where all vectors are centres already.
            chosen = drawn.unwrap_or(self.len() - 1);
            values.extend_from_slice(self.row(chosen));
        }
        Centres { values }
    }

    /// Squared distances up to the length of the vector, `|c|² − 2 x·c`, `[vectors, clusters]`.
    fn distances(&self, centres: &[f32]) -> Vec<f64> {
        let clusters = centres.len() / self.width;
        let lengths: Vec<f64> = centres.chunks_exact(self.width).map(|centre| dot(centre, centre)).collect();
        let points = Matrix::new(&self.values, self.len(), self.width);
        let products = product(&[(points, Matrix::new(centres, clusters, self.width).transposed())]);
        let rows = products.chunks_exact(clusters).flat_map(|row| row.iter().zip(&lengths));
        rows.map(|(product, length)| length - 2.0 * f64::from(*product)).collect()
    }

    fn inertia(&self, labels: &[usize], centres: &[f32]) -> f64 {
        let centre = |label: usize| &centres[label * self.width..(label + 1) * self.width];
        let distances: Vec<f64> =
            labels.par_iter().enumerate().map(|(i, label)| squared_distance(self.row(i), centre(*label))).collect();
        distances.iter().sum()
    }
}

impl Centres {
    /// Every centre becomes the average of its vectors; one without vectors stays where it is.
    fn follow(&mut self, points: &Points, labels: &[usize]) {
        self.values.par_chunks_exact_mut(points.width).enumerate().for_each(|(cluster, centre)| {
            let mut sums = vec![0.0f64; points.width];
            let mut members = 0.0;
            for i in (0..labels.len()).filter(|i| labels[*i] == cluster) {
                sums.iter_mut().zip(points.row(i)).for_each(|(sum, value)| *sum += f64::from(*value));
                members += 1.0;
            }
            if members > 0.0 {
                centre.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / members) as f32);
            }
        });
    }
}

/// The nearest centre of every vector, the first of several.
fn nearest(points: &Points, centres: &[f32]) -> Vec<usize> {
    let distances = points.distances(centres);
    let of_row = |row: &[f64]| {
        let mut best = 0;
        for (cluster, distance) in row.iter().enumerate() {
            if *distance < row[best] {
                best = cluster;
            }
        }
        best
    };
    distances.chunks_exact(centres.len() / points.width).map(of_row).collect()
}

/// Σ (a − b)² in f64, with eight partial sums.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            let difference = f64::from(*a) - f64::from(*b);
            *sum += difference * difference;
        }
    }
    tree(sums)
}
