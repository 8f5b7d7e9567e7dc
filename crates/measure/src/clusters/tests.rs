//! The worked example of embed-moee.md 1.12, numbers of scikit-learn and scipy (tests/data/make_embedding_goldens.py), and
//! what holds for all clusterings.

use proptest::prelude::*;
use rand::Rng;
use serde::Deserialize;

use super::*;
use crate::measured::{Number, Reason};

#[derive(Deserialize)]
struct Goldens {
    agreement: Vec<Case>,
    matching: Vec<Matching>,
}

#[derive(Deserialize)]
struct Case {
    a: Vec<usize>,
    b: Vec<usize>,
    v_measure: f64,
    homogeneity: f64,
    completeness: f64,
    nmi: f64,
    ami: f64,
    pair_jaccard: Option<f64>,
    matched: f64,
}

#[derive(Deserialize)]
struct Matching {
    gains: Vec<Vec<i64>>,
    greatest: i64,
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("../../tests/data/embedding_goldens.json")).expect("written by the script")
}

fn value(number: Number) -> f64 {
    number.value().expect("defined")
}

#[test]
fn worked_example_of_agreement() {
    let found = agreement(&[0, 0, 1, 1], &[0, 0, 1, 2]).expect("as many labels");
    assert_eq!((value(found.homogeneity), value(found.pair_jaccard), value(found.matched)), (1.0, 0.5, 0.75));
    let close = |found: Number, expected: f64| assert!((value(found) - expected).abs() < 5e-8, "{found:?} {expected}");
    close(found.v_measure, 0.8);
    close(found.completeness, 2.0 / 3.0);
    close(found.nmi, 0.8);
    close(found.ami, 0.571_428_6);
}

#[test]
fn agreement_as_scikit_learn_has_it() {
    let cases = goldens().agreement;
    assert!(cases.len() >= 10);
    for case in cases {
        let found = agreement(&case.a, &case.b).expect("as many labels");
        let pairs = [
            (found.v_measure, case.v_measure),
            (found.homogeneity, case.homogeneity),
            (found.completeness, case.completeness),
            (found.nmi, case.nmi),
            (found.ami, case.ami),
            (found.matched, case.matched),
        ];
        for (found, expected) in pairs {
            assert!((value(found) - expected).abs() < 1e-9, "{found:?} is not {expected}: {:?} {:?}", case.a, case.b);
        }
        match case.pair_jaccard {
            Some(expected) => assert!((value(found.pair_jaccard) - expected).abs() < 1e-12),
            None => assert_eq!(found.pair_jaccard.reason(), Some(Reason::Empty)),
        }
    }
}

#[test]
fn matches_as_scipy_finds_them() {
    let cases = goldens().matching;
    assert!(cases.len() >= 5);
    for Matching { gains, greatest } in cases {
        let found = assignment::greatest_match(gains.len(), gains[0].len(), &|row, column| gains[row][column]);
        assert_eq!(found, greatest, "{gains:?}");
    }
    assert_eq!(assignment::greatest_match(0, 3, &|_, _| 1), 0);
}

#[test]
fn labelings_at_the_edge() {
    assert_eq!(agreement(&[], &[]).expect("nothing").ami, Number::Undefined(Reason::Empty));
    assert!(matches!(agreement(&[1], &[]), Err(MeasureError::Shape { expected: 1, found: 0, .. })));
    let one = agreement(&[3, 3, 3], &[7, 7, 7]).expect("one label");
    assert_eq!([one.v_measure, one.nmi, one.ami, one.pair_jaccard, one.matched], [Number::Value(1.0); 5]);
    let each = agreement(&[1, 2, 3], &[6, 5, 4]).expect("a label for each");
    assert_eq!([each.v_measure, each.ami, each.matched], [Number::Value(1.0); 3]);
    assert_eq!(each.pair_jaccard, Number::Undefined(Reason::Empty));
    // All in one against each by itself: nothing is shared.
    let nothing = agreement(&[0, 0, 0], &[0, 1, 2]).expect("labels");
    assert_eq!((value(nothing.v_measure), value(nothing.homogeneity), value(nothing.completeness)), (0.0, 1.0, 0.0));
    assert!(value(nothing.ami).abs() < 1e-12);
}

/// Page 1.9 E: why AMI stands beside the V-measure, and why numbers of clusters are not averaged.
#[test]
fn random_labels_agree_by_v_measure_and_not_by_ami() {
    let mut generator = item_generator(11, 0);
    let mut labels = || -> Vec<usize> { (0..500).map(|_| generator.random_range(0..20u64) as usize).collect() };
    let (truth, a, b) = (labels(), labels(), labels());
    // What (a + b / 2) / (1 + 1/2) is called makes no difference, only which are equal.
    let averaged: Vec<usize> = a.iter().zip(&b).map(|(a, b)| 2 * a + b).collect();
    let of = |labels: &[usize]| agreement(&truth, labels).expect("as many labels");
    let (one, sum) = (of(&a), of(&averaged));
    assert!((value(one.v_measure) - 0.14).abs() < 0.02, "{one:?}");
    assert!(value(sum.v_measure) > value(one.v_measure) + 0.08, "{sum:?}");
    assert!(value(one.ami).abs() < 0.04 && value(sum.ami).abs() < 0.04, "{one:?} {sum:?}");
}

/// `count` vectors around each of `clusters` corners, in turn.
fn corners(clusters: usize, count: usize, width: usize, spread: f32) -> (Vectors, Vec<usize>) {
    let mut generator = item_generator(7, 0);
    let mut values = Vec::new();
    let labels: Vec<usize> = (0..clusters * count).map(|i| i % clusters).collect();
    for label in &labels {
        values.extend((0..width).map(|j| {
            let corner = if j % clusters == *label { 10.0 } else { 0.0 };
            corner + spread * (generator.random::<f32>() - 0.5)
        }));
    }
    (Vectors::new(width, values).expect("finite"), labels)
}

const HOW: KMeans = KMeans { clusters: 4, seed: 3, restarts: 4, rounds: 50 };

#[test]
fn clusters_without_doubt_are_found() {
    let (v, labels) = corners(4, 25, 9, 1.0);
    for find in [k_means, balanced_k_means] {
        let found = find(&v, &HOW).expect("clusters");
        assert_eq!(agreement(&labels, &found.labels).expect("labels").ami, Number::Value(1.0));
        assert!(found.rounds < HOW.rounds);
        // Inertia and centres by their definitions.
        let distance = |i: usize| -> f64 {
            let centre = found.centres.row(found.labels[i]);
            v.row(i).iter().zip(centre).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        let inertia: f64 = (0..v.len()).map(distance).sum();
        assert!((inertia - found.inertia).abs() < 1e-3 * inertia, "{inertia} {}", found.inertia);
        let members: Vec<usize> = (0..v.len()).filter(|i| found.labels[*i] == 0).collect();
        let mean = members.iter().map(|i| f64::from(v.row(*i)[2])).sum::<f64>() / members.len() as f64;
        assert!((mean - f64::from(found.centres.row(0)[2])).abs() < 1e-5);
    }
}

#[test]
fn clusters_do_not_depend_on_threads_and_do_on_the_seed() {
    let (v, _) = corners(4, 40, 40, 60.0);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    for find in [k_means, balanced_k_means] {
        let one = pool(1).install(|| find(&v, &HOW)).expect("clusters");
        assert_eq!(pool(4).install(|| find(&v, &HOW)).expect("clusters"), one);
        let other = find(&v, &KMeans { seed: 4, restarts: 1, ..HOW }).expect("clusters");
        assert_ne!(other.labels, one.labels);
        assert!(other.inertia >= one.inertia * 0.8);
    }
}

#[test]
fn more_starts_are_never_worse() {
    let (v, _) = corners(5, 30, 12, 30.0);
    let inertia = |restarts| k_means(&v, &KMeans { clusters: 7, restarts, ..HOW }).expect("clusters").inertia;
    assert!(inertia(8) <= inertia(3) && inertia(3) <= inertia(1));
}

#[test]
fn clusters_that_cannot_be() {
    let (v, _) = corners(2, 2, 3, 1.0);
    for find in [k_means, balanced_k_means] {
        let refused = |how: KMeans| find(&v, &how).expect_err("no clusters");
        assert!(matches!(refused(KMeans { clusters: 5, ..HOW }), MeasureError::FewVectors { needed: 5, found: 4, .. }));
        assert!(matches!(refused(KMeans { clusters: 0, ..HOW }), MeasureError::Parameter { name: "clusters", .. }));
        assert!(matches!(refused(KMeans { restarts: 0, ..HOW }), MeasureError::Parameter { name: "restarts", .. }));
        assert!(matches!(refused(KMeans { rounds: 0, ..HOW }), MeasureError::Parameter { name: "rounds", .. }));
        // As many clusters as vectors, and vectors that are all alike.
        assert!(find(&v, &KMeans { clusters: 4, ..HOW }).expect("one for each").inertia < 1e-6);
        let alike = Vectors::new(2, vec![0.5; 12]).expect("finite");
        assert_eq!(find(&alike, &HOW).expect("clusters").inertia, 0.0);
        assert_eq!(find(&v, &KMeans { clusters: 1, ..HOW }).expect("one").labels, [0; 4]);
    }
}

proptest! {
    #[test]
    fn sizes_are_balanced(
        values in prop::collection::vec(-9i8..9, 8..90),
        clusters in 1usize..6,
        seed in 0u64..4,
    ) {
        let width = 2;
        let values: Vec<f32> = values[..values.len() / width * width].iter().map(|x| f32::from(*x)).collect();
        let v = Vectors::new(width, values).expect("finite");
        prop_assume!(v.len() >= clusters);
        let how = KMeans { clusters, seed, restarts: 1, rounds: 30 };
        let found = balanced_k_means(&v, &how).expect("clusters");
        let sizes: Vec<usize> = (0..clusters).map(|c| found.labels.iter().filter(|l| **l == c).count()).collect();
        let (least, most) = (sizes.iter().min().expect("one"), sizes.iter().max().expect("one"));
        prop_assert!(most - least <= 1, "{:?}", sizes);
    }

    #[test]
    fn pairs_and_matches_by_their_definitions(labels in prop::collection::vec((0usize..3, 0usize..3), 1..20)) {
        let (mut both, mut either) = (0, 0);
        for (i, (a, b)) in labels.iter().enumerate() {
            for (other_a, other_b) in &labels[i + 1..] {
                both += usize::from(a == other_a && b == other_b);
                either += usize::from(a == other_a || b == other_b);
            }
        }
        let (a, b): (Vec<usize>, Vec<usize>) = labels.iter().copied().unzip();
        let found = agreement(&a, &b).expect("labels");
        prop_assert_eq!(found.pair_jaccard.value(), (either > 0).then(|| both as f64 / either as f64));
        // All six ways to call the labels of b.
        let ways = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let hits = ways.map(|names| labels.iter().filter(|(a, b)| *a == names[*b]).count());
        let best = hits.into_iter().max().unwrap_or(0);
        prop_assert_eq!(found.matched.value(), Some(best as f64 / labels.len() as f64));
    }

    #[test]
    fn names_of_labels_do_not_matter(labels in prop::collection::vec((0usize..5, 0usize..4), 1..60), add in 1usize..1000) {
        let (a, b): (Vec<usize>, Vec<usize>) = labels.into_iter().unzip();
        // 7 and the prime 11 keep different labels different.
        let renamed: Vec<usize> = b.iter().map(|label| label * 7 % 11 + add).collect();
        let found = agreement(&a, &b).expect("labels");
        prop_assert_eq!(agreement(&a, &renamed).expect("labels"), found);
        // And neither does which of the two comes first, except for what has a direction.
        let turned = agreement(&b, &a).expect("labels");
        prop_assert!((value(turned.ami) - value(found.ami)).abs() < 1e-9);
        prop_assert!((value(turned.homogeneity) - value(found.completeness)).abs() < 1e-12);
        prop_assert_eq!(turned.matched, found.matched);
        prop_assert!(value(found.ami) <= 1.0 + 1e-9);
        prop_assert!((0.0..=1.0 + 1e-12).contains(&value(found.v_measure)));
    }
}
