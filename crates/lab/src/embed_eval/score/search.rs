//! Tasks on rankings: reranking of given candidates, retrieval from a corpus.

use lathe_measure::Number;
use lathe_measure::embedding::{Vectors, cosine};
use lathe_measure::ranking::{average_precision, ndcg, ranked, ranked_average_precision, reciprocal_rank};
use lathe_measure::statistics::bootstrap_mean;
use serde_json::json;

use super::super::asked::{CandidateList, Query, Search};
use super::{Scored, each, row, undefined};

/// Documents of a ranking that count, as MTEB asks trec_eval.
const DEPTH: usize = 1_000;

/// Mean average precision, with candidates of one cosine at one threshold (MTEB until 2025), and mean reciprocal rank, where wrong
/// candidates come before right ones of the same cosine. Of several queries the greatest cosine counts. Resamples draw
/// queries.
pub(super) fn lists(all: &[CandidateList], vectors: &Vectors, seed: u64) -> Scored {
    let found = each(all, |list| {
        let score = |candidate: &usize| {
            let cosines = list.queries.iter().map(|query| cosine(vectors.row(*query), vectors.row(*candidate)));
            cosines.fold(f64::NEG_INFINITY, f64::max)
        };
        let scores: Vec<f64> = list.positive.iter().chain(&list.negative).map(score).collect();
        let right: Vec<bool> = (0..scores.len()).map(|index| index < list.positive.len()).collect();
        let wrong: Vec<bool> = right.iter().map(|right| !right).collect();
        let ranking: Vec<bool> = ranked(&scores, &wrong).into_iter().map(|index| right[index]).collect();
        [average_precision(&right, &scores), reciprocal_rank(&ranking, list.positive.len())]
    });
    summary(["map", "mrr"], &found, seed)
}

/// nDCG at 10 and what else trec_eval says of rankings by cosine; of equal cosines the document with the greater name comes
/// first. Resamples draw queries.
pub(super) fn search(of: &Search, vectors: &Vectors, seed: u64) -> Scored {
    let names: Vec<&str> = of.documents.iter().map(|document| document.id.as_str()).collect();
    let found = each(&of.queries, |query: &Query| {
        let row = vectors.row(query.text);
        let scores: Vec<f64> = of.documents.iter().map(|document| cosine(row, vectors.row(document.text))).collect();
        let mut gain_of = vec![0.0; names.len()];
        query.gains.iter().for_each(|(document, gain)| gain_of[*document] = *gain);
        let ranking: Vec<f64> =
            ranked(&scores, &names).into_iter().take(DEPTH).map(|document| gain_of[document]).collect();
        let gains: Vec<f64> = query.gains.iter().map(|(_, gain)| *gain).collect();
        let right: Vec<bool> = ranking.iter().map(|gain| *gain > 0.0).collect();
        let within = |depth: usize| &right[..depth.min(right.len())];
        let recalled = within(100).iter().filter(|right| **right).count();
        [
            ndcg(&ranking, &gains, 10),
            ranked_average_precision(&right, gains.len()),
            reciprocal_rank(within(10), gains.len()),
            Number::from(recalled as f64 / gains.len() as f64),
        ]
    });
    summary(["ndcg_at_10", "map_at_1000", "mrr_at_10", "recall_at_100"], &found, seed)
}

/// Means over queries; the first score is the headline.
fn summary<const K: usize>(names: [&str; K], found: &[[Number; K]], seed: u64) -> Scored {
    let of = |which: usize| found.iter().map(|numbers| numbers[which]).collect::<Vec<Number>>();
    Scored {
        scores: row(names, std::array::from_fn(|which| bootstrap_mean(&of(which), seed))),
        undefined: undefined(&of(0)),
        units: found.iter().map(|numbers| json!(numbers[0])).collect(),
        ..Scored::default()
    }
}
