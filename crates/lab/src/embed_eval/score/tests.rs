use lathe_measure::Reason;

use super::super::Training;
use super::super::asked::{
    CandidateList, Classes, Document, Labelled, LabelledSet, Query, SamePair, ScoredPair, Search, Summarised,
};
use super::*;

const HOW: How = How { seed: 0, clusterings: 5, training: Training::Limited };

/// Vectors of length 1 whose cosines with (1, 0) are these; that one comes first.
fn at(cosines: &[f64]) -> Vectors {
    let beside = cosines.iter().flat_map(|cosine| [*cosine as f32, (1.0 - cosine * cosine).sqrt() as f32]);
    Vectors::new(2, [1.0, 0.0].into_iter().chain(beside).collect()).expect("vectors")
}

fn value(scored: &Scored, name: &str) -> f64 {
    let row = scored.scores.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no {name}"));
    row.estimate.value.value().unwrap_or_else(|| panic!("{name} is undefined"))
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 5e-8
}

/// Page 3.2: ties of a rank correlation, at a cosine of 0.4 twice.
#[test]
fn sts() {
    let gold = [1.0, 2.0, 3.0, 4.0];
    let pairs = (1..).zip(gold).map(|(text, score)| ScoredPair { record: text, texts: [0, text], score }).collect();
    let scored = scored(&What::Pairs(pairs), &at(&[0.1, 0.4, 0.4, 0.9]), &HOW).expect("scores");
    assert!(close(value(&scored, "cosine_spearman"), 0.948_683_3));
    assert_eq!((scored.scores[0].name.as_str(), scored.scores[0].estimate.n), ("cosine_spearman", 4));
    assert_eq!(scored.units.len(), 4);
}

#[test]
fn similarities_that_are_all_equal_have_no_correlation() {
    let pairs = (1..4).map(|text| ScoredPair { record: text, texts: [0, text], score: text as f64 }).collect();
    let scored = scored(&What::Pairs(pairs), &at(&[0.5; 3]), &HOW).expect("scores");
    assert_eq!(scored.scores[0].estimate.value, Number::Undefined(Reason::Constant));
}

#[test]
fn one_pair_has_no_correlation() {
    let pair = ScoredPair { record: 1, texts: [0, 1], score: 1.0 };
    let scored = scored(&What::Pairs(vec![pair]), &at(&[0.5]), &HOW).expect("scores");
    assert!(scored.scores.iter().all(|row| row.estimate.value.value().is_none()));
    assert!(scored.scores.iter().all(|row| row.estimate.interval.value().is_none()));
}

/// Page 3.2, with the scores as cosines; of unit vectors all four similarities give one order.
#[test]
fn pair_classification() {
    let of = |cosines: &[f64]| {
        let pairs = [true, false, true, false];
        let pairs = (1..).zip(pairs).map(|(text, same)| SamePair { record: text, texts: [0, text], same }).collect();
        scored(&What::SamePairs(pairs), &at(cosines), &HOW).expect("scores")
    };
    let plain = of(&[0.9, 0.8, 0.7, 0.1]);
    for name in ["cosine_ap", "max_ap", "dot_ap", "euclidean_ap", "manhattan_ap"] {
        assert!(close(value(&plain, name), 0.833_333_33), "{name}");
    }
    assert!(close(value(&of(&[0.9, 0.8, 0.8, 0.1]), "cosine_ap"), 0.833_333_33));
}

#[test]
fn the_best_of_four_similarities_is_a_score_of_its_own() {
    // By cosine the wrong pair is nearer, by the dot product the right one.
    let vectors = Vectors::new(2, vec![1.0, 0.0, 9.0, 1.0, 1.0, 0.0]).expect("vectors");
    let pairs =
        vec![SamePair { record: 1, texts: [0, 1], same: true }, SamePair { record: 2, texts: [0, 2], same: false }];
    let scored = scored(&What::SamePairs(pairs), &vectors, &HOW).expect("scores");
    assert_eq!((value(&scored, "cosine_ap"), value(&scored, "dot_ap"), value(&scored, "max_ap")), (0.5, 1.0, 1.0));
}

/// Page 3.2: the run d2, d1, d3 with gains d1 = 2, d3 = 1.
#[test]
fn retrieval() {
    let documents = [("d3", 3), ("d2", 2), ("d1", 1)].map(|(id, text)| Document { id: id.into(), text }).to_vec();
    let queries = vec![Query { id: "q".into(), text: 0, gains: vec![(2, 2.0), (0, 1.0)] }];
    let what = What::Search(Search { documents, queries });
    let scored_ = scored(&what, &at(&[0.8, 0.9, 0.7]), &HOW).expect("scores");
    assert!(close(value(&scored_, "ndcg_at_10"), 0.669_671_8));
    assert!(close(value(&scored_, "map_at_1000"), 0.583_333_33));
    assert_eq!((value(&scored_, "mrr_at_10"), value(&scored_, "recall_at_100")), (0.5, 1.0));
    // At one cosine the greater name comes first: d3, d2, d1.
    let tied = scored(&what, &at(&[0.5; 3]), &HOW).expect("scores");
    let log3 = 3f64.log2();
    assert!(close(value(&tied, "ndcg_at_10"), (1.0 + 2.0 / 2.0) / (2.0 + 1.0 / log3)));
}

#[test]
fn reranking_takes_the_nearest_of_several_queries() {
    // Text 1 is a second query; candidate 2 is near to it and not to the first.
    let vectors = at(&[0.0, 0.1, 0.5]);
    let list = |queries: Vec<usize>| {
        let list = CandidateList { record: 1, queries, positive: vec![2], negative: vec![3] };
        scored(&What::Lists(vec![list]), &vectors, &HOW).expect("scores")
    };
    assert_eq!((value(&list(vec![0]), "map"), value(&list(vec![0]), "mrr")), (0.5, 0.5));
    assert_eq!(value(&list(vec![0, 1]), "map"), 1.0);
    // At one cosine precision is shared, and the wrong candidate stands first.
    let tie = CandidateList { record: 1, queries: vec![0], positive: vec![2], negative: vec![3] };
    let tied = scored(&What::Lists(vec![tie]), &at(&[0.0, 0.5, 0.5]), &HOW).expect("scores");
    assert_eq!((value(&tied, "map"), value(&tied, "mrr")), (0.5, 0.5));
}

/// Page 3.2: 0.5 and not 0.5833, the mean with the p-value. A text without spread is left out and counted.
#[test]
fn summarisation() {
    let vectors = at(&[0.5, 0.9, 0.4]);
    let one = Summarised { record: 1, human: vec![0], machine: vec![1, 2, 3], relevance: vec![0.2, 0.8, 0.6] };
    let equal = Summarised { record: 2, relevance: vec![0.5; 3], ..one.clone() };
    let scored = scored(&What::Summaries(vec![one, equal]), &vectors, &HOW).expect("scores");
    assert!(close(value(&scored, "cosine_spearman"), 0.5));
    assert_eq!((scored.undefined, scored.scores[0].estimate.n), (1, 1));
}

fn classes() -> Classes {
    let row = |text, label| Labelled { record: text + 1, text, label };
    let train = vec![row(0, 0), row(1, 0), row(2, 1), row(3, 1)];
    Classes { names: vec!["a".into(), "b".into()], draws: vec![train.clone(), train], test: vec![row(4, 0), row(5, 1)] }
}

#[test]
fn classification() {
    let vectors = Vectors::new(1, vec![-2.0, -1.0, 1.0, 2.0, -1.5, 1.5]).expect("vectors");
    let of = classes();
    let answers = answered(&of, &vectors, &HOW).expect("answers");
    let found = of_answers(&of, &answers, 0);
    assert_eq!((value(&found, "accuracy"), value(&found, "f1_macro")), (1.0, 1.0));
    assert_eq!((found.not_converged, found.scores.len(), found.units.len()), (Some(0), 2, 2));
    let longer = How { training: Training::AlsoToConvergence, ..HOW };
    let found = of_answers(&of, &answered(&of, &vectors, &longer).expect("answers"), 0);
    assert_eq!(value(&found, "accuracy_converged"), 1.0);
    // One of two right: F1 of one class is 2/3, of the other 0.
    let vectors = Vectors::new(1, vec![-2.0, -1.0, 1.0, 2.0, -1.5, -1.5]).expect("vectors");
    let found = of_answers(&of, &answered(&of, &vectors, &HOW).expect("answers"), 0);
    assert!(close(value(&found, "accuracy"), 0.5) && close(value(&found, "f1_macro"), 1.0 / 3.0));
}

/// Page 1.9 D: the paper's code combines the numbers of classes, which for two of them is a logical AND; here probabilities are.
#[test]
fn a_sum_is_of_probabilities_and_not_of_the_numbers_of_classes() {
    let of = classes();
    // Trained on the same labels, one of them far from the boundary where the other is near to it.
    let hidden = Vectors::new(1, vec![-2.0, -1.0, 1.0, 2.0, -9.0, 9.0]).expect("vectors");
    let router = Vectors::new(1, vec![-2.0, -1.0, 1.0, 2.0, -0.1, -0.1]).expect("vectors");
    let [hidden, router] = [hidden, router].map(|vectors| answered(&of, &vectors, &HOW).expect("answers"));
    let both = of_answers(&of, &combined(&hidden, &router, 1.0), 0);
    // An AND would call both texts `a`.
    assert_eq!(value(&both, "accuracy"), 1.0);
    assert_eq!(value(&of_answers(&of, &router, 0), "accuracy"), 0.5);
    assert_eq!(value(&of_answers(&of, &combined(&hidden, &router, 0.0), 0), "accuracy"), 1.0);
}

#[test]
fn clustering() {
    let texts: Vec<Labelled> = (0..6).map(|text| Labelled { record: text + 1, text, label: text / 3 }).collect();
    let set = LabelledSet { names: vec!["a".into(), "b".into()], texts };
    let vectors = Vectors::new(1, vec![0.0, 0.1, 0.2, 5.0, 5.1, 5.2]).expect("vectors");
    let found = scored(&What::Sets(vec![set.clone()]), &vectors, &HOW).expect("scores");
    assert_eq!((value(&found, "v_measure"), value(&found, "ami")), (1.0, 1.0));
    assert_eq!(found.deviation, Some(Number::from(0.0)));
    assert_eq!(found.units.len(), 6);
    // Clusters that know nothing of the labels: the interval lies about the value, which no text that comes again raises.
    let mixed: Vec<Labelled> = (0..40).map(|text| Labelled { record: text + 1, text, label: text % 4 }).collect();
    let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let vectors_ = Vectors::new(1, (0..40).map(|text| text as f32).collect()).expect("vectors");
    let chance = scored(&What::Sets(vec![LabelledSet { names, texts: mixed }]), &vectors_, &HOW).expect("scores");
    for row in &chance.scores {
        let (value, interval) = (row.estimate.value.value(), row.estimate.interval.value());
        let (value, interval) = (value.expect("a value"), interval.expect("an interval"));
        assert!(interval.low < value && value < interval.high, "{}: {value} in {interval:?}", row.name);
    }
    // A set with one label is found by any clustering.
    let one = LabelledSet { names: vec!["a".into()], texts: set.texts[..2].to_vec() };
    let one = LabelledSet { texts: one.texts.iter().map(|text| Labelled { label: 0, ..*text }).collect(), ..one };
    let found = scored(&What::Sets(vec![set, one]), &vectors, &HOW).expect("scores");
    assert_eq!((value(&found, "v_measure"), found.scores[0].estimate.n), (1.0, 2));
}
