//! How far clusters of hidden states and of router outputs agree.
//!
//! Clusters are those of k-means on vectors of length 1, with several seeds. Two controls say what the agreement of HS and RW
//! means: clusters of the same vectors with another seed (what k-means itself leaves to luck), and labels in random order
//! (what agreement by chance looks like).

use lathe_measure::clusters::{Agreement, KMeans, agreement, k_means};
use lathe_measure::embedding::{Vectors, normalised};
use lathe_measure::statistics::item_generator;
use lathe_measure::{Number, Reason};
use rand::seq::SliceRandom;
use serde::Serialize;

use super::Material;
use crate::Error;

/// Starts of k-means for each seed, and rounds of each.
const RESTARTS: usize = 4;
const ROUNDS: usize = 100;

/// Agreement of clusters.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterReport {
    /// k.
    pub clusters: usize,
    /// Seeds.
    pub seeds: usize,
    /// What is compared with what.
    pub rows: Vec<AgreementRow>,
}

/// How far two ways of labelling texts agree, over seeds.
#[derive(Clone, Debug, Serialize)]
pub struct AgreementRow {
    /// What is compared.
    pub name: String,
    /// Whether it is there to compare others with.
    pub is_control: bool,
    /// Mutual information adjusted for chance.
    pub ami: Spread,
    /// Mutual information over the mean entropy.
    pub nmi: Spread,
    /// Pairs of texts that are together in both, of those together in either.
    pub jaccard: Spread,
    /// Texts whose labels correspond under the best match, a share.
    pub matched: Spread,
}

/// A number over several seeds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The mean of the defined ones.
    pub mean: Number,
    /// The smallest.
    pub least: Number,
    /// The largest.
    pub most: Number,
    /// Seeds for which it is defined.
    pub n: usize,
}

/// The report, and the clusters of hidden states with the first seed.
pub(super) fn report(
    hidden: &Vectors,
    router: &Vectors,
    material: &Material,
    clusters: usize,
    seeds: usize,
) -> Result<(ClusterReport, Vec<usize>), Error> {
    if clusters < 2 || clusters > hidden.len() {
        let problem = format!("{clusters} clusters of {} texts", hidden.len());
        let hint = Some("at least 2, and at most as many as there are texts".into());
        return Err(Error::Spec { field: "--clusters", problem, hint });
    }
    // One more, so that every seed has another to be compared with.
    let all = |vectors: &Vectors| {
        let vectors = normalised(vectors);
        let one =
            |seed: u64| Ok(k_means(&vectors, &KMeans { clusters, seed, restarts: RESTARTS, rounds: ROUNDS })?.labels);
        (0..=seeds as u64).map(one).collect::<Result<Vec<Vec<usize>>, Error>>()
    };
    let (hidden, router) = (all(hidden)?, all(router)?);
    let shuffled = |of: &[usize], seed: u64| {
        let mut labels = of.to_vec();
        labels.shuffle(&mut item_generator(seed, 0));
        labels
    };
    type Two<'a> = &'a dyn Fn(usize) -> [Vec<usize>; 2];
    let compare = |name: &str, is_control: bool, two: Two<'_>| {
        let all = (0..seeds).map(|seed| {
            let [a, b] = two(seed);
            Ok(agreement(&a, &b)?)
        });
        let all = all.collect::<Result<Vec<Agreement>, Error>>()?;
        let spread = |of: fn(&Agreement) -> Number| Spread::of(all.iter().map(of));
        Ok::<_, Error>(AgreementRow {
            name: name.to_owned(),
            is_control,
            ami: spread(|of| of.ami),
            nmi: spread(|of| of.nmi),
            jaccard: spread(|of| of.pair_jaccard),
            matched: spread(|of| of.matched),
        })
    };
    let mut rows = vec![
        compare("HS and RW", false, &|seed| [hidden[seed].clone(), router[seed].clone()])?,
        compare("HS and HS, another seed", true, &|seed| [hidden[seed].clone(), hidden[seed + 1].clone()])?,
        compare("RW and RW, another seed", true, &|seed| [router[seed].clone(), router[seed + 1].clone()])?,
        compare("HS and RW in random order", true, &|seed| {
            [hidden[seed].clone(), shuffled(&router[seed], seed as u64)]
        })?,
    ];
    if let Some((_, labels)) = &material.labels {
        rows.push(compare("labels and HS", false, &|seed| [labels.clone(), hidden[seed].clone()])?);
        rows.push(compare("labels and RW", false, &|seed| [labels.clone(), router[seed].clone()])?);
    }
    let first = hidden.into_iter().next().unwrap_or_default();
    Ok((ClusterReport { clusters, seeds, rows }, first))
}

impl Spread {
    fn of(numbers: impl Iterator<Item = Number>) -> Self {
        let values: Vec<f64> = numbers.filter_map(Number::value).collect();
        if values.is_empty() {
            let none = Number::Undefined(Reason::Empty);
            return Self { mean: none, least: none, most: none, n: 0 };
        }
        Self {
            mean: Number::from(values.iter().sum::<f64>() / values.len() as f64),
            least: Number::from(values.iter().copied().fold(f64::INFINITY, f64::min)),
            most: Number::from(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            n: values.len(),
        }
    }
}
