//! Tasks on similarities of given pairs: STS, pair classification, summarisation.

use lathe_measure::Number;
use lathe_measure::correlation::{pearson, spearman};
use lathe_measure::embedding::{Vectors, cosine};
use lathe_measure::ranking::average_precision;
use lathe_measure::statistics::{bootstrap, bootstrap_mean};
use serde_json::json;

use super::super::asked::{SamePair, ScoredPair, Summarised};
use super::{Scored, each, expanded, row, undefined};

/// Correlation of cosines with scores. Resamples draw pairs.
pub(super) fn scored_pairs(pairs: &[ScoredPair], vectors: &Vectors, seed: u64) -> Scored {
    let cosines = each(pairs, |pair| cosine_of(vectors, pair.texts));
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    let estimates = bootstrap(pairs.len(), seed, |times| {
        let (cosines, scores) = (expanded(&cosines, times), expanded(&scores, times));
        [spearman(&cosines, &scores), pearson(&cosines, &scores)]
    });
    Scored {
        scores: row(["cosine_spearman", "cosine_pearson"], estimates),
        units: cosines.iter().map(|cosine| json!(cosine)).collect(),
        ..Scored::default()
    }
}

/// Average precision of four similarities, and the best of them. Resamples draw pairs; the best is chosen in each anew.
pub(super) fn same_pairs(pairs: &[SamePair], vectors: &Vectors, seed: u64) -> Scored {
    let similarities = each(pairs, |pair| {
        let [a, b] = pair.texts.map(|text| vectors.row(text));
        let over =
            |term: fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| term((*a).into(), (*b).into())).sum::<f64>();
        [cosine(a, b), over(|a, b| a * b), -over(|a, b| (a - b) * (a - b)).sqrt(), -over(|a, b| (a - b).abs())]
    });
    // In falling order, in which every resample is then sorted already.
    let lists: [(Vec<usize>, Vec<f64>); 4] = std::array::from_fn(|which| {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by(|a, b| similarities[*b][which].total_cmp(&similarities[*a][which]));
        let scores = order.iter().map(|pair| similarities[*pair][which]).collect();
        (order, scores)
    });
    let estimates = bootstrap(pairs.len(), seed, |times| {
        let [by_cosine, by_dot, by_euclidean, by_manhattan] = lists.each_ref().map(|(order, scores)| {
            let times: Vec<u32> = order.iter().map(|pair| times[*pair]).collect();
            let same: Vec<bool> = order.iter().map(|pair| pairs[*pair].same).collect();
            average_precision(&expanded(&same, &times), &expanded(scores, &times))
        });
        let best = [by_dot, by_euclidean, by_manhattan].into_iter().fold(by_cosine, |a, b| a.zip(b, f64::max));
        [by_cosine, best, by_dot, by_euclidean, by_manhattan]
    });
    Scored {
        scores: row(["cosine_ap", "max_ap", "dot_ap", "euclidean_ap", "manhattan_ap"], estimates),
        units: similarities.iter().map(|[cosine, ..]| json!(cosine)).collect(),
        ..Scored::default()
    }
}

/// Per text, Spearman's correlation of people's scores with the greatest cosine over the summaries that people wrote; the mean
/// over texts (MTEB since August 2024; before, it was averaged with the p-value). Resamples draw texts.
pub(super) fn summaries(all: &[Summarised], vectors: &Vectors, seed: u64) -> Scored {
    let correlations = each(all, |one| {
        let nearest = |machine: &usize| {
            let cosines = one.human.iter().map(|human| cosine_of(vectors, [*machine, *human]));
            cosines.fold(f64::NEG_INFINITY, f64::max)
        };
        let nearest: Vec<f64> = one.machine.iter().map(nearest).collect();
        [spearman(&nearest, &one.relevance), pearson(&nearest, &one.relevance)]
    });
    let by = |which: usize| correlations.iter().map(|both| both[which]).collect::<Vec<Number>>();
    Scored {
        scores: row(["cosine_spearman", "cosine_pearson"], [0, 1].map(|which| bootstrap_mean(&by(which), seed))),
        undefined: undefined(&by(0)),
        units: correlations.iter().map(|[spearman, _]| json!(spearman)).collect(),
        ..Scored::default()
    }
}

fn cosine_of(vectors: &Vectors, [a, b]: [usize; 2]) -> f64 {
    cosine(vectors.row(a), vectors.row(b))
}
