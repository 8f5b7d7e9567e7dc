//! Clusters of one size.

use super::{Clustering, KMeans, Points, best_start};
use crate::embedding::Vectors;
use crate::error::MeasureError;

/// A swap of two vectors has to gain more than this share of the distances' size: rounding is no gain.
const GAIN: f64 = 1e-9;

/// k-means whose clusters differ in size by one vector at most.
///
/// A round gives out the vectors to clusters with room, those first that would lose most by not getting their nearest
/// centre, then swaps pairs of vectors between clusters while that brings both together nearer to their centres, then moves
/// centres. It ends when labels stay the same, or with the best round of `how.rounds`. No pair is left to swap, but
/// longer exchanges among three clusters are not looked for: the result is good, not the best there is.
///
/// # Errors
/// As [`super::k_means`].
pub fn balanced_k_means(v: &Vectors, how: &KMeans) -> Result<Clustering, MeasureError> {
    best_start(v, how, |points, centres| {
        let mut labels = Vec::new();
        let mut best: Option<(f64, Vec<usize>, Vec<f32>)> = None;
        let mut rounds = how.rounds;
        for round in 0..how.rounds {
            let distances = points.distances(&centres.values);
            let mut found = given_out(&distances, points.len(), how.clusters);
            swap_pairs(&distances, &mut found, points, how.clusters);
            if found == labels {
                rounds = round;
                break;
            }
            labels = found;
            centres.follow(points, &labels);
            let inertia = points.inertia(&labels, &centres.values);
            if best.as_ref().is_none_or(|(least, ..)| inertia < *least) {
                best = Some((inertia, labels.clone(), centres.values.clone()));
            }
        }
        if let Some((_, best_labels, values)) = best {
            (labels, centres.values) = (best_labels, values);
        }
        (labels, rounds)
    })
}

/// Every vector to the nearest cluster with room.
fn given_out(distances: &[f64], points: usize, clusters: usize) -> Vec<usize> {
    let row = |i: usize| &distances[i * clusters..(i + 1) * clusters];
    // What a vector loses if it does not get its nearest centre.
    let regret = |i: usize| {
        let (mut first, mut second) = (f64::INFINITY, f64::INFINITY);
        for distance in row(i) {
            if *distance < first {
                (first, second) = (*distance, first);
            } else {
                second = second.min(*distance);
            }
        }
        second - first
    };
    let regrets: Vec<f64> = (0..points).map(regret).collect();
    let mut order: Vec<usize> = (0..points).collect();
    order.sort_by(|a, b| regrets[*b].total_cmp(&regrets[*a]).then(a.cmp(b)));

    let (room, mut larger) = (points / clusters, points % clusters);
    let mut sizes = vec![0; clusters];
    let mut labels = vec![0; points];
    for i in order {
        let mut chosen: Option<usize> = None;
        for (cluster, distance) in row(i).iter().enumerate() {
            let has_room = sizes[cluster] < room || (sizes[cluster] == room && larger > 0);
            if has_room && chosen.is_none_or(|chosen| *distance < row(i)[chosen]) {
                chosen = Some(cluster);
            }
        }
        // There is room for all: clusters · room + larger = points.
        let cluster = chosen.unwrap_or(0);
        if sizes[cluster] == room {
            larger -= 1;
        }
        sizes[cluster] += 1;
        labels[i] = cluster;
    }
    labels
}

/// Swaps vectors of two clusters as long as a swap brings both together nearer to their centres.
fn swap_pairs(distances: &[f64], labels: &mut [usize], points: &Points, clusters: usize) {
    let least_gain = GAIN * points.squares.iter().sum::<f64>() / points.len() as f64;
    // Every swap shortens the sum of distances, so there is an end; the bound is there for one that is far.
    for _ in 0..points.len() {
        let leaving = best_leavers(distances, labels, clusters);
        let mut is_settled = true;
        for a in 0..clusters {
            for b in a + 1..clusters {
                let (Some((gain_a, i)), Some((gain_b, j))) = (leaving[a * clusters + b], leaving[b * clusters + a])
                else {
                    continue;
                };
                // Either may have gone elsewhere since.
                if gain_a + gain_b > least_gain && labels[i] == a && labels[j] == b {
                    labels.swap(i, j);
                    is_settled = false;
                }
            }
        }
        if is_settled {
            return;
        }
    }
}

/// For every two clusters, the vector of the first that gains most, or loses least, by going to the second, and how much;
/// `[clusters, clusters]`.
fn best_leavers(distances: &[f64], labels: &[usize], clusters: usize) -> Vec<Option<(f64, usize)>> {
    let mut leaving: Vec<Option<(f64, usize)>> = vec![None; clusters * clusters];
    for (i, from) in labels.iter().enumerate() {
        let row = &distances[i * clusters..(i + 1) * clusters];
        for (to, distance) in row.iter().enumerate().filter(|(to, _)| to != from) {
            let gain = row[*from] - distance;
            let best = &mut leaving[from * clusters + to];
            if best.is_none_or(|(most, _)| gain > most) {
                *best = Some((gain, i));
            }
        }
    }
    leaving
}
