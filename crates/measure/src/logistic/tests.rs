//! Fits against scikit-learn (tests/data/make_embedding_goldens.py), and the shuffle against numpy (embed-moee.md 3.1).

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Goldens {
    logistic: Vec<Case>,
    shuffles: Vec<Shuffle>,
}

/// A fit to convergence.
#[derive(Deserialize)]
struct Case {
    width: usize,
    classes: usize,
    c: f64,
    values: Vec<f32>,
    labels: Vec<usize>,
    /// As [`Logistic::scores`].
    scores: Vec<f64>,
    /// Of the first three vectors, `[3, classes]`.
    probabilities: Vec<f64>,
}

/// The list 0 to `items` − 1 after one shuffle by a generator with `seed`.
#[derive(Deserialize)]
struct Shuffle {
    seed: u32,
    shuffled: Vec<usize>,
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("../../tests/data/embedding_goldens.json")).expect("written by the script")
}

/// Far below what scikit-learn asks for: what is compared is the minimum, and not the way to it.
const TIGHT: LogisticOptions = LogisticOptions { c: 1.0, tolerance: 1e-9, rounds: 5_000 };

#[test]
fn minima_as_scikit_learn_finds_them() {
    let cases = goldens().logistic;
    assert!(cases.iter().any(|case| case.classes == 2) && cases.iter().any(|case| case.classes == 5));
    for case in cases {
        let v = Vectors::new(case.width, case.values).expect("finite");
        let fit =
            Logistic::fit(&v, &case.labels, case.classes, &LogisticOptions { c: case.c, ..TIGHT }).expect("a fit");
        assert!(matches!(fit.converged(), Convergence::Reached { .. }), "{:?}", fit.converged());
        assert_eq!(fit.scores().len(), case.scores.len());
        // Softmax scores are fixed up to a common intercept.
        let centred = |scores: &[f64]| {
            let intercepts: Vec<f64> = scores.chunks(case.width + 1).map(|score| score[case.width]).collect();
            let mean =
                if intercepts.len() == 1 { 0.0 } else { intercepts.iter().sum::<f64>() / intercepts.len() as f64 };
            let is_intercept = |i: usize| i % (case.width + 1) == case.width;
            let values = scores.iter().enumerate();
            values.map(|(i, score)| if is_intercept(i) { score - mean } else { *score }).collect::<Vec<f64>>()
        };
        for (found, expected) in centred(fit.scores()).iter().zip(centred(&case.scores)) {
            assert!((found - expected).abs() < 1e-4, "{} classes: {found} is not {expected}", case.classes);
        }
        for (row, expected) in case.probabilities.chunks(case.classes).enumerate() {
            for (found, expected) in fit.probabilities(v.row(row)).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
            }
        }
    }
}

#[test]
fn the_gradient_is_that_of_the_objective() {
    let values: Vec<f64> = (0..15).map(|i| f64::from(i * 7 % 11) / 3.0 - 1.5).collect();
    for (scores, labels) in [(1, [0, 1, 1, 0, 1]), (3, [2, 0, 1, 1, 2])] {
        let objective = Objective { width: 3, scores, values: values.clone(), labels: &labels, penalty: 0.3 };
        let at: Vec<f64> = (0..scores * 4).map(|i| ((i * 5 % 7) as f64 - 3.0) / 4.0).collect();
        let mut gradient = vec![0.0; at.len()];
        objective.value(&at, &mut gradient);
        let mut unused = vec![0.0; at.len()];
        for (i, found) in gradient.iter().enumerate() {
            let mut moved = |by: f64| {
                let mut at = at.clone();
                at[i] += by;
                objective.value(&at, &mut unused)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-8, "{scores} scores, {i}: {found} is not {expected}");
        }
    }
}

#[test]
fn shuffles_as_numpy_has_them() {
    let mut list: Vec<usize> = (0..10).collect();
    legacy_shuffle(&mut list, &mut LegacyMt19937::new(42));
    assert_eq!(list, [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
    legacy_shuffle(&mut list, &mut LegacyMt19937::new(42));
    assert_eq!(list, [3, 1, 2, 8, 4, 5, 6, 7, 0, 9]);
    let cases = goldens().shuffles;
    // One of them takes more words than the generator holds at once.
    assert!(cases.iter().any(|case| case.shuffled.len() > 1000));
    for Shuffle { seed, shuffled } in cases {
        let mut list: Vec<usize> = (0..shuffled.len()).collect();
        legacy_shuffle(&mut list, &mut LegacyMt19937::new(seed));
        assert_eq!(list, shuffled, "seed {seed}");
    }
    legacy_shuffle(&mut [], &mut LegacyMt19937::new(0));
}

#[test]
fn large_features_overflow_nothing_and_rounds_can_end_early() {
    let v = Vectors::new(2, vec![3e4, 1.0, -3e4, 2.0, 2e4, -1.0, -2e4, 0.0]).expect("finite");
    let fit = Logistic::fit(&v, &[0, 1, 2, 1], 3, &LogisticOptions { rounds: 2, ..LogisticOptions::default() });
    let fit = fit.expect("a fit");
    assert_eq!(fit.converged(), Convergence::Stopped { rounds: 2 });
    for row in v.rows() {
        let sum: f64 = fit.probabilities(row).iter().sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
    assert_eq!(fit.predict(v.row(1)), 1);
    assert_eq!((logistic(-800.0), logistic(800.0), log_sum_exp(&[1e4, -1e4])), (0.0, 1.0, 1e4));
}

#[test]
fn a_feature_that_never_changes_gets_no_weight_and_classes_apart_no_infinite_one() {
    // The second feature is constant; the first tells the classes apart with certainty.
    let v = Vectors::new(2, vec![-2.0, 0.5, -1.0, 0.5, 1.0, 0.5, 2.0, 0.5]).expect("finite");
    for (labels, classes) in [([0, 0, 1, 1], 2), ([0, 1, 1, 2], 3)] {
        let fit = Logistic::fit(&v, &labels, classes, &TIGHT).expect("a fit");
        assert!(matches!(fit.converged(), Convergence::Reached { .. }), "{:?}", fit.converged());
        for scores in fit.scores().chunks(3) {
            assert!(scores[0].abs() < 10.0 && scores[1].abs() < 1e-6, "{scores:?}");
        }
        assert!(v.rows().zip(labels).all(|(row, label)| fit.predict(row) == label));
    }
    // Without anything to tell classes apart, how often they come is all there is: intercepts are not penalised.
    let alike = Vectors::new(1, vec![0.0; 4]).expect("finite");
    let fit = Logistic::fit(&alike, &[0, 1, 1, 1], 2, &TIGHT).expect("a fit");
    assert!((fit.probabilities(&[0.0])[1] - 0.75).abs() < 1e-6);
}

#[test]
fn what_cannot_be_fitted() {
    let v = Vectors::new(1, vec![1.0, 2.0, 3.0]).expect("finite");
    let fit = |labels: &[usize], classes, options: LogisticOptions| {
        Logistic::fit(&v, labels, classes, &options).expect_err("refused")
    };
    let usual = LogisticOptions::default();
    assert!(matches!(fit(&[0, 1], 2, usual), MeasureError::Shape { expected: 3, found: 2, .. }));
    assert_eq!(fit(&[0, 1, 2], 2, usual), MeasureError::Label { row: 2, label: 2, classes: 2 });
    assert_eq!(fit(&[0, 2, 2], 3, usual), MeasureError::EmptyClass { class: 1 });
    assert!(matches!(fit(&[0, 0, 0], 1, usual), MeasureError::Parameter { name: "classes", .. }));
    assert!(matches!(fit(&[0, 1, 2], usize::MAX, usual), MeasureError::FewVectors { .. }));
    for c in [0.0, -1.0, f64::NAN] {
        assert!(matches!(
            fit(&[0, 1, 1], 2, LogisticOptions { c, ..usual }),
            MeasureError::Parameter { name: "C", .. }
        ));
    }
    let refused = fit(&[0, 1, 1], 2, LogisticOptions { rounds: 0, ..usual });
    assert!(matches!(refused, MeasureError::Parameter { name: "rounds", .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn fits_do_not_depend_on_threads(values in prop::collection::vec(-3f32..3.0, 24), classes in 2usize..4) {
        let v = Vectors::new(3, values).expect("finite");
        let labels: Vec<usize> = (0..v.len()).map(|i| i % classes).collect();
        let fit = || Logistic::fit(&v, &labels, classes, &LogisticOptions::default()).expect("a fit");
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        prop_assert_eq!(pool(1).install(fit), pool(3).install(fit));
    }

    #[test]
    fn two_classes_are_the_same_by_either_name(values in prop::collection::vec(-3f32..3.0, 24)) {
        let v = Vectors::new(3, values).expect("finite");
        let labels: Vec<usize> = (0..v.len()).map(|i| i % 2).collect();
        let turned: Vec<usize> = labels.iter().map(|label| 1 - label).collect();
        let fit = |labels: &[usize]| Logistic::fit(&v, labels, 2, &TIGHT).expect("a fit").probabilities(v.row(0));
        let (one, other) = (fit(&labels), fit(&turned));
        prop_assert!((one[0] - other[1]).abs() < 1e-6 && (one[0] + one[1] - 1.0).abs() < 1e-12);
    }
}
