//! The worked examples of embed-moee.md (1.10, 1.11), and what holds for all vectors.

use proptest::prelude::*;

use super::*;
use crate::correlation::spearman;
use crate::measured::{Number, Reason};

/// Router probabilities and hidden states of A, B and C.
const ROUTER: [[f32; 6]; 3] =
    [[0.25, 0.5, 0.25, 0.375, 0.125, 0.5], [0.5, 0.25, 0.25, 0.375, 0.125, 0.5], [0.25, 0.25, 0.5, 0.125, 0.75, 0.125]];
const HIDDEN: [[f32; 2]; 3] = [[3.0, 4.0], [4.0, 3.0], [0.0, 5.0]];
/// AB, AC, BC.
const PAIRS: [[usize; 2]; 3] = [[0, 1], [0, 2], [1, 2]];

fn vectors(width: usize, values: &[f32]) -> Vectors {
    Vectors::new(width, values.to_vec()).expect("finite")
}

fn example() -> (Vectors, Vectors) {
    (vectors(2, HIDDEN.as_flattened()), vectors(6, ROUTER.as_flattened()))
}

fn cosines(of: &Vectors) -> [f64; 3] {
    PAIRS.map(|[a, b]| cosine(of.row(a), of.row(b)))
}

fn assert_close(found: [f64; 3], expected: [f64; 3], within: f64) {
    for (found_one, expected_one) in found.iter().zip(expected) {
        assert!((found_one - expected_one).abs() <= within, "{found:?} is not {expected:?}");
    }
}

#[test]
fn worked_example_of_similarities() {
    let (hidden, router) = example();
    assert_close(cosines(&hidden), [0.96, 0.8, 0.6], 1e-15);
    assert_close(cosines(&router), [0.92, 0.592_697_496_7, 0.592_697_496_7], 5e-11);
    let raw = concatenated(&hidden, &router).expect("pairs");
    assert_close(cosines(&raw), [0.958_787_878_8, 0.792_879_600_4, 0.599_641_617_1], 5e-11);
    assert_eq!(raw.row(2), [0.0, 5.0, 0.25, 0.25, 0.5, 0.125, 0.75, 0.125]);
    for (alpha, sums) in
        [(1.0, [1.88, 1.392_697_496_7, 1.192_697_496_7]), (0.5, [1.42, 1.096_348_748_3, 0.896_348_748_3])]
    {
        let joined = joined(&hidden, &router, alpha).expect("pairs");
        assert_close(cosines(&joined).map(|cosine| cosine * (1.0 + alpha)), sums, 1e-6);
    }
}

#[test]
fn worked_example_of_standardising() {
    let (hidden, router) = example();
    let standard = |v: &Vectors| Moments::of(v).and_then(|moments| moments.standardised(v)).expect("three vectors");
    let z = standard(&hidden);
    for (found, expected) in z.values().iter().zip([0.320_256_3, 0.0, 0.800_640_8, -1.0, -1.120_897, 1.0]) {
        assert!((found - expected).abs() < 1e-7, "{z:?}");
    }
    assert_close(cosines(&z), [0.625, -0.746_202_5, -0.986_053_3], 1e-7);
    let half = -std::f64::consts::FRAC_1_SQRT_2;
    assert_close(cosines(&standard(&router)), [0.0, half, half], 1e-7);
    // A batch of all three is the same, and the moments say of how many they are.
    assert_eq!(standardised_in_batches(&hidden, 3).expect("three"), z);
    assert_eq!(Moments::of(&hidden).expect("three").n, 3);
}

#[test]
fn a_batch_of_two_says_nothing() {
    let (_, router) = example();
    let two = router.selected(&[0, 1]);
    let z = standardised_in_batches(&two, 2).expect("two");
    let half = std::f32::consts::FRAC_1_SQRT_2;
    for (found, expected) in z.row(0).iter().zip([-half, half, 0.0, 0.0, 0.0, 0.0]) {
        assert!((found - expected).abs() < 2e-7, "{z:?}");
    }
    assert!((cosine(z.row(0), z.row(1)) + 1.0).abs() < 1e-12);
}

#[test]
fn a_batch_of_one_is_refused() {
    let (hidden, _) = example();
    let refused = |batch| standardised_in_batches(&hidden, batch).expect_err("a vector by itself");
    assert_eq!(refused(1), MeasureError::BatchOfOne { batch: 1, rows: 3 });
    assert_eq!(refused(2), MeasureError::BatchOfOne { batch: 2, rows: 3 });
    assert!(refused(2).hint().is_some());
    assert!(matches!(refused(0), MeasureError::Parameter { name: "batch", .. }));
    let one = hidden.selected(&[1]);
    assert!(matches!(standardised_in_batches(&one, 64), Err(MeasureError::BatchOfOne { batch: 64, rows: 1 })));
    assert!(matches!(Moments::of(&one), Err(MeasureError::FewVectors { needed: 2, found: 1, .. })));
    // A whole number of batches, and none at all.
    assert_eq!(standardised_in_batches(&hidden.selected(&[0, 1, 2, 0]), 2).expect("two of two").len(), 4);
    assert!(standardised_in_batches(&hidden.selected(&[]), 2).expect("nothing").is_empty());
}

#[test]
fn statistics_fit_the_vectors() {
    let (hidden, router) = example();
    let moments = Moments::of(&hidden).expect("three");
    assert!(matches!(moments.standardised(&router), Err(MeasureError::Shape { expected: 6, found: 2, .. })));
    let read: Moments = serde_json::from_str(&serde_json::to_string(&moments).expect("numbers")).expect("the same");
    assert_eq!(read, moments);
    // A feature that never changed, and does now: by more than f32 can say.
    let constant = Moments::of(&vectors(1, &[1.0, 1.0])).expect("two");
    assert_eq!(constant.standardised(&vectors(1, &[1.0])).expect("as before").values(), [0.0]);
    assert!(matches!(constant.standardised(&vectors(1, &[3e38])), Err(MeasureError::NonFiniteVector { .. })));
}

#[test]
fn alpha_of_the_worked_example() {
    let (hidden, router) = example();
    let (hidden, router) = (cosines(&hidden), cosines(&router));
    let alpha = closed_form_alpha(&hidden, &router).value().expect("both vary");
    assert!((alpha - 0.954_499_2).abs() < 5e-8, "{alpha}");
    assert_eq!(closed_form_alpha(&hidden, &[0.1; 3]), Number::Undefined(Reason::Constant));
    assert_eq!(closed_form_alpha(&[0.1; 3], &router), Number::Undefined(Reason::Constant));
    assert_eq!(closed_form_alpha(&[1.0], &[1.0]), Number::Undefined(Reason::OneUnit));
    assert_eq!(searched_alpha(&[], &[]), Number::Undefined(Reason::Empty));
}

#[test]
fn the_search_tries_every_point_and_takes_the_smallest_of_the_best() {
    // Both lists have the same order, so every α is as good.
    let (hidden, router) = ([0.1, 0.2, 0.4, 0.8], [0.3, 0.4, 0.45, 0.9]);
    let start = closed_form_alpha(&hidden, &router).value().expect("both vary");
    assert_eq!(searched_alpha(&hidden, &router), Number::from(start * 0.1));
    // Against the definition, on lists that disagree.
    let hidden = [0.9, 0.1, 0.35, 0.6, 0.2, 0.75, 0.4];
    let router = [0.2, 0.15, 0.9, 0.5, 0.85, 0.1, 0.3];
    let start = closed_form_alpha(&hidden, &router).value().expect("both vary");
    let score = |alpha: f64| {
        let sum: Vec<f64> = hidden.iter().zip(router).map(|(h, r)| h + alpha * r).collect();
        spearman(&sum, &hidden).zip(spearman(&sum, &router), |a, b| a + b).value().expect("no constant")
    };
    let grid: Vec<f64> = (-20..=20).map(|i| start * 10f64.powf(f64::from(i) / 20.0)).collect();
    let best = grid.iter().map(|alpha| score(*alpha)).fold(f64::MIN, f64::max);
    let smallest = grid.iter().find(|alpha| score(**alpha) > best - 1e-9).expect("the best one");
    assert_eq!(searched_alpha(&hidden, &router), Number::from(*smallest));
    assert!(*smallest != grid[0], "a case that needs a search");
}

#[test]
fn zero_vectors_are_like_nothing() {
    assert_eq!(cosine(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
    assert_eq!(cosine(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
    assert_eq!(cosine(&[], &[]), 0.0);
    let v = normalised(&vectors(2, &[0.0, 0.0, 3.0, 4.0]));
    assert_eq!(v.values(), [0.0, 0.0, 0.6, 0.8]);
    let joined = joined(&vectors(2, &[0.0, 0.0]), &vectors(1, &[2.0]), 4.0).expect("a pair");
    assert_eq!(joined.values(), [0.0, 0.0, 2.0]);
}

#[test]
fn the_length_of_a_vector_is_no_part_of_its_direction() {
    // The largest and the smallest numbers of f32: no square of them is infinite or zero in f64.
    let (large, small) = (f32::MAX, f32::from_bits(1));
    for (a, b) in [(large, large), (small, small), (large, small)] {
        assert_close([cosine(&[a, 0.0], &[b, b]); 3], [std::f64::consts::FRAC_1_SQRT_2; 3], 1e-15);
        assert_eq!((cosine(&[a, a], &[b, b]), cosine(&[a, a], &[-b, -b])), (1.0, -1.0));
    }
    let v = normalised(&vectors(2, &[large, 0.0, small, 0.0]));
    assert_eq!(v.values(), [1.0, 0.0, 1.0, 0.0]);
    // A part that is a billion times longer than the other counts no more than it in a sum.
    let pair = joined(&vectors(1, &[1e9, 1e9]), &vectors(1, &[1e-9, -1e-9]), 1.0).expect("pairs");
    assert!(cosine(pair.row(0), pair.row(1)).abs() < 1e-12);
}

#[test]
fn layers_with_other_numbers_of_experts_make_one_vector() {
    // Two experts in one layer and three in the next: the width is their sum, whatever the layers are.
    let (hidden, router) = (vectors(1, &[1.0, -1.0]), vectors(5, &[0.5, 0.5, 0.2, 0.3, 0.5, 1.0, 0.0, 0.1, 0.1, 0.8]));
    for both in [concatenated(&hidden, &router), joined(&hidden, &router, 2.0)] {
        let both = both.expect("pairs");
        assert_eq!((both.len(), both.width()), (2, 6));
    }
}

#[test]
fn vectors_that_cannot_be_are_refused() {
    assert!(matches!(Vectors::new(0, vec![]), Err(MeasureError::Dimensions { .. })));
    assert!(matches!(Vectors::new(2, vec![1.0; 3]), Err(MeasureError::Shape { expected: 4, found: 3, .. })));
    let error = Vectors::new(2, vec![0.0, 1.0, 2.0, f32::INFINITY]).expect_err("infinite");
    assert_eq!(error.to_string(), "vector 1 is inf at position 1");
    assert!(matches!(
        Vectors::new(2, vec![f32::NAN, 1.0]),
        Err(MeasureError::NonFiniteVector { row: 0, column: 0, .. })
    ));
    let none = Vectors::new(3, vec![]).expect("no vector");
    assert!(none.is_empty() && none.rows().len() == 0 && none.width() == 3);
    let (hidden, router) = example();
    for alpha in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(joined(&hidden, &router, alpha), Err(MeasureError::Parameter { name: "alpha", .. })));
    }
    let fewer = router.selected(&[0]);
    assert!(matches!(joined(&hidden, &fewer, 1.0), Err(MeasureError::Shape { .. })));
    assert!(matches!(concatenated(&hidden, &fewer), Err(MeasureError::Shape { .. })));
}

#[test]
fn a_random_projection_is_fixed_by_its_seed() {
    let v = vectors(40, &(0..120).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect::<Vec<_>>());
    let projected = random_projection(&v, 7, 3);
    assert_eq!((projected.len(), projected.width()), (3, 7));
    assert_eq!(projected, random_projection(&v, 7, 3));
    assert_ne!(projected, random_projection(&v, 7, 4));
    // Columns are drawn one by one: the first of a wider projection is the same up to the factor √7/√28 = 1/2.
    let wider = random_projection(&v, 28, 3);
    for (narrow, wide) in projected.rows().zip(wider.rows()) {
        assert!((narrow[0] / 2.0 - wide[0]).abs() < 1e-5, "{narrow:?} {wide:?}");
    }
    // Many columns keep lengths: their mean square is that of the vector, within five standard deviations.
    let many = random_projection(&v, 2000, 0);
    for (row, projected) in v.rows().zip(many.rows()) {
        let ratio = dot(projected, projected) / dot(row, row);
        assert!((ratio - 1.0).abs() < 5.0 * (2.0f64 / 2000.0).sqrt(), "{ratio}");
    }
}

#[test]
fn a_band_filter_keeps_the_middle() {
    // Singular values 8, 4, 2, 1 of directions that are the axes in the order 2, 0, 3, 1.
    let squares = [16.0, 1.0, 64.0, 4.0];
    let gram: Vec<f64> = (0..16).map(|i| if i / 4 == i % 4 { squares[i / 4] } else { 0.0 }).collect();
    let v = vectors(4, &[1.0, 2.0, 3.0, 4.0]);
    let coordinates = |tau| {
        let filter = BandFilter::of(&gram, 4, tau).expect("a filter");
        assert_eq!(filter.applied(&v).width(), filter.kept());
        filter.applied(&v).values().iter().map(|x| (x * 1e4).round() / 1e4).collect::<Vec<f32>>()
    };
    assert_eq!(coordinates(1.0), [3.0, 1.0, 4.0, 2.0]);
    assert_eq!(coordinates(2.0), [1.0, 4.0]);
    // Three kept: the odd one is dropped among the small ones.
    assert_eq!(coordinates(4.0 / 3.0), [3.0, 1.0, 4.0]);
    assert_eq!(coordinates(1e9), [1.0]);
    for tau in [0.5, f64::NAN, f64::INFINITY] {
        assert!(matches!(BandFilter::of(&gram, 4, tau), Err(MeasureError::Parameter { name: "tau", .. })));
    }
    assert!(matches!(BandFilter::of(&gram, 3, 2.0), Err(MeasureError::Shape { .. })));
    assert!(matches!(BandFilter::of(&[], 0, 2.0), Err(MeasureError::Dimensions { .. })));
    assert!(BandFilter::of(&[f64::NAN], 1, 2.0).is_err());
}

proptest! {
    /// Fact 7 of the page.
    #[test]
    fn the_joined_vector_s_cosine_is_the_sum(
        values in prop::collection::vec(-100f32..100.0, 22),
        alpha in 0.0f64..20.0,
    ) {
        let hidden = vectors(4, &values[..8]);
        let router = vectors(7, &values[8..]);
        prop_assume!([&hidden, &router].iter().all(|v| v.rows().all(|row| dot(row, row) > 1e-3)));
        let joined = joined(&hidden, &router, alpha).expect("pairs");
        let [of_joined, of_hidden, of_router] = [&joined, &hidden, &router].map(|v| cosine(v.row(0), v.row(1)));
        prop_assert!((of_joined * (1.0 + alpha) - (of_hidden + alpha * of_router)).abs() < 1e-6 * (1.0 + alpha));
    }

    #[test]
    fn alpha_0_is_the_hidden_state_to_the_bit(values in prop::collection::vec(-1e3f32..1e3, 20..60), width in 1usize..6) {
        let width = values.len() / 2 - width;
        let hidden = vectors(width, &values[..2 * width]);
        let router = vectors((values.len() - 2 * width) / 2, &values[2 * width..values.len() / 2 * 2]);
        let joined = joined(&hidden, &router, 0.0).expect("pairs");
        prop_assert_eq!(cosine(joined.row(0), joined.row(1)).to_bits(), cosine(hidden.row(0), hidden.row(1)).to_bits());
    }

    #[test]
    fn a_filter_that_drops_nothing_turns_vectors(values in prop::collection::vec(-10f32..10.0, 30)) {
        // The Gram matrix of five rows of width 6.
        let rows = vectors(6, &values);
        let gram: Vec<f64> = (0..36)
            .map(|i| rows.rows().map(|row| f64::from(row[i / 6]) * f64::from(row[i % 6])).sum())
            .collect();
        let turned = BandFilter::of(&gram, 6, 1.0).expect("a filter").applied(&rows);
        for (row, turned) in rows.rows().zip(turned.rows()) {
            let (before, after) = (dot(row, row), dot(turned, turned));
            prop_assert!((before - after).abs() < 1e-4 * (1.0 + before), "{} {}", before, after);
        }
    }
}
