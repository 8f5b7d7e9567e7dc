//! Clustering: k-means with as many clusters as there are labels, several times.

use lathe_measure::clusters::{KMeans, agreement, k_means};
use lathe_measure::embedding::Vectors;
use lathe_measure::statistics::{bootstrap_mean, by_halves, standard_deviation};
use lathe_measure::{Number, Reason};
use serde_json::json;

use super::super::asked::LabelledSet;
use super::{How, Scored, each, expanded, mean_of, row};
use crate::Error;

/// Rounds of k-means at most, as scikit-learn's.
const ROUNDS: usize = 100;

/// V-measure and AMI of clusters with labels: the mean over clusterings, then over sets. Resamples draw sets, or halves of the texts
/// of the only set, whose clusters stay as they are.
///
/// # Errors
/// A set has fewer texts than labels.
pub(super) fn sets(all: &[LabelledSet], vectors: &Vectors, how: &How) -> Result<Scored, Error> {
    let seeds: Vec<u64> = (0..how.clusterings as u64).map(|index| how.seed.wrapping_add(index)).collect();
    let mut labels = Vec::with_capacity(all.len());
    for set in all {
        let of_set = vectors.selected(&set.texts.iter().map(|text| text.text).collect::<Vec<_>>());
        let found = each(&seeds, |seed| {
            k_means(&of_set, &KMeans { clusters: set.names.len(), seed: *seed, restarts: 1, rounds: ROUNDS })
        });
        let found = found.into_iter().map(|found| Ok(found?.labels)).collect::<Result<Vec<_>, Error>>()?;
        labels.push((set.texts.iter().map(|text| text.label).collect::<Vec<_>>(), found));
    }
    // [sets][clusterings] of V-measure and AMI.
    let reached: Vec<Vec<[Number; 2]>> =
        labels.iter().map(|(truth, found)| found.iter().map(|found| agreed(truth, found)).collect()).collect();
    let of_set = |set: &Vec<[Number; 2]>, which: usize| mean_of(set.iter().map(|numbers| numbers[which]));
    let estimates = match labels.as_slice() {
        [(truth, found)] => by_halves(truth.len(), how.seed, |times| {
            let truth = expanded(truth, times);
            let both: Vec<_> = found.iter().map(|found| agreed(&truth, &expanded(found, times))).collect();
            [of_set(&both, 0), of_set(&both, 1)]
        }),
        _ => [0, 1].map(|which| {
            let of_sets: Vec<Number> = reached.iter().map(|set| of_set(set, which)).collect();
            bootstrap_mean(&of_sets, how.seed)
        }),
    };
    let by_seed: Vec<Number> = (0..seeds.len()).map(|index| mean_of(reached.iter().map(|set| set[index][0]))).collect();
    let values: Vec<f64> = by_seed.iter().filter_map(|number| number.value()).collect();
    let units = match labels.as_slice() {
        [(truth, found)] => {
            let clusters = |text: usize| found.iter().map(|found| found[text]).collect::<Vec<_>>();
            (0..truth.len()).map(|text| json!(clusters(text))).collect()
        }
        _ => reached.iter().map(|set| json!(of_set(set, 0))).collect(),
    };
    Ok(Scored {
        scores: row(["v_measure", "ami"], estimates),
        deviation: Some(standard_deviation(&values)),
        units,
        ..Scored::default()
    })
}

fn agreed(truth: &[usize], found: &[usize]) -> [Number; 2] {
    // Both lists are of the same texts.
    agreement(truth, found).map_or([Number::Undefined(Reason::Empty); 2], |of| [of.v_measure, of.ami])
}
