#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn value(number: Number) -> f64 {
    number.value().unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1.0)
}

#[test]
fn a_pair_by_hand() {
    // ‖A‖ = 5, ‖B‖ = 5, A·B = 24, B − A = (1, −1, 0, 0).
    let distance = pair_sums(&[3.0, 4.0, 0.0, 0.0], &[4.0, 3.0, 0.0, -0.0]).distance();
    assert_eq!((distance.elements, distance.differing), (4, 3), "a zero with another sign has other bits");
    assert_eq!([value(distance.norm_a), value(distance.norm_b)], [5.0, 5.0]);
    assert_eq!(value(distance.cosine), 24.0 / 25.0);
    assert_eq!(value(distance.norm), 2f64.sqrt());
    assert_eq!(value(distance.relative), 2f64.sqrt() / 5.0);
    assert_eq!(value(distance.largest), 1.0);
    assert_eq!(value(distance.sign_agreement), 1.0, "zeros have no sign");
    let opposite = pair_sums(&[1.0, -2.0, 3.0], &[-1.0, 2.0, 3.0]).distance();
    assert_eq!(value(opposite.sign_agreement), 1.0 / 3.0);
    assert!(!opposite.is_equal());
}

#[test]
fn zeros_have_no_direction() {
    let distance = pair_sums(&[0.0, 0.0], &[1.0, 0.0]).distance();
    for number in [distance.cosine, distance.relative, distance.sign_agreement] {
        assert_eq!(number, Number::Undefined(Reason::AllZero));
    }
    assert_eq!(value(distance.norm), 1.0);
    let nothing = pair_sums(&[], &[]).distance();
    assert!(nothing.is_equal() && nothing.elements == 0);
}

#[test]
fn what_is_not_finite_is_undefined() {
    let distance = pair_sums(&[1.0, f32::NAN], &[1.0, 2.0]).distance();
    assert_eq!(distance.cosine, Number::Undefined(Reason::Overflow));
    assert_eq!(distance.norm, Number::Undefined(Reason::Overflow));
    assert_eq!(effective_rank(&[1.0, f32::INFINITY], 1, 2), Ok(Number::Undefined(Reason::Overflow)));
}

#[test]
fn the_largest_floats_do_not_overflow() {
    let distance = pair_sums(&[f32::MAX; 9], &[-f32::MAX; 9]).distance();
    assert_eq!(value(distance.cosine), -1.0);
    assert_eq!(value(distance.relative), 2.0);
}

#[test]
fn changes_by_hand() {
    let base = [1.0, 1.0, 1.0, 1.0, 0.0];
    let a = [2.0, 1.0, 0.0, 3.0, 0.0];
    let b = [3.0, 1.0, 2.0, 1.0, 0.0];
    // δ_A = (1, 0, −1, 2, 0), δ_B = (2, 0, 1, 0, 0).
    let sums = change_sums(&base, &a, &b);
    assert_eq!((sums.changed, sums.both, sums.opposed), ([3, 2], 2, 1));
    let counts = large_counts(&base, &a, &b, [1.0, 2.0]);
    assert_eq!(counts, LargeCounts { large: [3, 1], both: 1, opposed: 0 });
    let changes = sums.changes(&counts.within(5));
    assert_eq!(value(changes.cosine), 1.0 / 30f64.sqrt());
    assert_eq!(changes.norms.map(value), [6f64.sqrt(), 5f64.sqrt()]);
    assert_eq!(changes.relative.map(value), [6f64.sqrt() / 2.0, 5f64.sqrt() / 2.0]);
    assert_eq!(changes.changed.map(value), [0.6, 0.4]);
    assert_eq!(value(changes.sign_conflict), 0.5);
    assert_eq!(value(changes.large_overlap), 1.0);
    assert_eq!(value(changes.overlap_by_chance), 0.6);
    assert_eq!(value(changes.large_conflict), 0.0);
}

#[test]
fn a_model_that_did_not_change_has_no_large_changes() {
    let base = vec![0.5; 100];
    let mut tuned = base.clone();
    tuned[7] = 0.75;
    let upper = Histogram::upper(magnitudes(&tuned, &base));
    let (half, rank) = upper.find(upper.large_rank()).unwrap();
    let (lower, _) = Histogram::lower(magnitudes(&tuned, &base), half).find(rank).unwrap();
    let threshold = threshold(half, lower);
    assert!(threshold > 0.0, "most of the large tenth is zeros");
    let counts = large_counts(&base, &tuned, &base, [threshold; 2]);
    assert_eq!(counts.large, [1, 0]);
    let changes = change_sums(&base, &tuned, &base).changes(&counts.within(100));
    assert_eq!(changes.cosine, Number::Undefined(Reason::AllZero));
    assert_eq!(changes.large_overlap, Number::Undefined(Reason::AllZero));
}

#[test]
fn ranks_that_are_known() {
    let identity: Vec<f32> = (0..12).map(|i| if i / 4 == i % 4 { 3.0 } else { 0.0 }).collect();
    assert!(near(value(effective_rank(&identity, 3, 4).unwrap()), 3.0));
    let outer: Vec<f32> = (0..300 * 5).map(|i| ((i / 5) as f32 - 7.0) * ((i % 5) as f32 + 1.0)).collect();
    assert!((value(effective_rank(&outer, 300, 5).unwrap()) - 1.0).abs() < 1e-6);
    assert!((value(effective_rank(&outer, 5, 300).unwrap()) - 1.0).abs() > 1e-3, "rows are not columns");
    // σ = 3 and 1: shares 3/4 and 1/4.
    let entropy = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
    assert!(near(value(effective_rank(&[3.0, 0.0, 0.0, 1.0], 2, 2).unwrap()), entropy.exp()));
    assert_eq!(effective_rank(&[0.0; 6], 2, 3), Ok(Number::Undefined(Reason::AllZero)));
    assert!(effective_rank(&[0.0; 6], 2, 2).is_err() && effective_rank(&[], 0, 2).is_err());
}

#[test]
fn noise_points_in_most_directions() {
    let square = value(noise_rank(64, 64).unwrap());
    let long = value(noise_rank(64, 640).unwrap());
    assert!(square > 0.7 * 64.0 && square < long && long < 64.0, "{square} {long}");
    assert_eq!(noise_rank(64, 64), noise_rank(64, 64));
}

prop_compose! {
    fn pair()(values in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3, -1e3f32..1e3), 1..70))
        -> [Vec<f32>; 3] {
        [values.iter().map(|v| v.0).collect(), values.iter().map(|v| v.1).collect(), values.iter().map(|v| v.2).collect()]
    }
}

proptest! {
    #[test]
    fn lanes_agree_with_one_sum([a, b, _] in pair()) {
        let distance = pair_sums(&a, &b).distance();
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            a.iter().zip(&b).map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum()
        };
        prop_assert!(near(value(distance.norm), sum(&|a, b| (b - a) * (b - a)).sqrt()));
        let cosine = sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
        prop_assert!((value(distance.cosine) - cosine).abs() < 1e-12);
        let same = a.iter().zip(&b).filter(|(a, b)| a.signum() == b.signum()).count() as f64;
        prop_assert!(near(value(distance.sign_agreement), same / a.len() as f64));
    }

    /// ‖B − A‖² = ‖A‖² + ‖B‖² − 2 A·B, and both orders say the same of cosine and signs.
    #[test]
    fn a_distance_has_no_direction([a, b, _] in pair()) {
        let (there, back) = (pair_sums(&a, &b), pair_sums(&b, &a));
        prop_assert!((there.dd - (there.aa + there.bb - 2.0 * there.ab)).abs() <= 1e-9 * (there.aa + there.bb));
        prop_assert_eq!(there.distance().cosine, back.distance().cosine);
        prop_assert_eq!(there.distance().sign_agreement, back.distance().sign_agreement);
        prop_assert_eq!(there.distance().norm, back.distance().norm);
    }

    #[test]
    fn a_tensor_equals_itself([a, _, _] in pair(), power in -20i32..20) {
        let itself = pair_sums(&a, &a).distance();
        prop_assert!(itself.is_equal() && itself.norm == Number::Value(0.0));
        prop_assert!(itself.cosine.value().is_none_or(|cosine| cosine == 1.0));
        // A scale changes the norm and nothing else.
        let factor = 2f32.powi(power);
        let scaled: Vec<f32> = a.iter().map(|a| a * factor).collect();
        let scaled = pair_sums(&a, &scaled).distance();
        prop_assert!(scaled.cosine.value().is_none_or(|cosine| near(cosine, 1.0)));
        if let Some(relative) = scaled.relative.value() {
            prop_assert!(near(relative, f64::from((factor - 1.0).abs())));
        }
    }

    #[test]
    fn pieces_join([a, b, c] in pair(), cut in 0usize..70) {
        let cut = cut.min(a.len());
        let whole = pair_sums(&a, &b);
        let joined = pair_sums(&a[..cut], &b[..cut]).join(pair_sums(&a[cut..], &b[cut..]));
        prop_assert_eq!((joined.elements, joined.differing, joined.signed, joined.same_sign, joined.largest),
            (whole.elements, whole.differing, whole.signed, whole.same_sign, whole.largest));
        prop_assert!(near(joined.dd, whole.dd) && near(joined.ab / whole.aa, whole.ab / whole.aa));
        let whole = change_sums(&c, &a, &b);
        let joined = change_sums(&c[..cut], &a[..cut], &b[..cut]).join(change_sums(&c[cut..], &a[cut..], &b[cut..]));
        prop_assert_eq!((joined.elements, joined.changed, joined.both, joined.opposed),
            (whole.elements, whole.changed, whole.both, whole.opposed));
        prop_assert!(near(joined.squares[0], whole.squares[0]) && near(joined.base, whole.base));
    }

    /// The threshold is the magnitude that sorting finds, bit for bit, pieces or not.
    #[test]
    fn a_threshold_is_exact([a, _, c] in pair(), cut in 0usize..70) {
        let cut = cut.min(a.len());
        let mut upper = Histogram::upper(magnitudes(&a[..cut], &c[..cut]));
        upper.join(&Histogram::upper(magnitudes(&a[cut..], &c[cut..])));
        let (half, rank) = upper.find(upper.large_rank()).unwrap();
        let (lower, _) = Histogram::lower(magnitudes(&a, &c), half).find(rank).unwrap();
        let mut sorted: Vec<f32> = magnitudes(&a, &c).collect();
        sorted.sort_by(|x, y| y.total_cmp(x));
        let large = a.len().div_ceil(10);
        prop_assert_eq!(upper.large_rank(), large as u64);
        prop_assert_eq!(threshold(half, lower), sorted[large - 1].max(f32::from_bits(1)));
        prop_assert!(upper.find(a.len() as u64 + 1).is_none());
        let counts = large_counts(&c, &a, &a, [threshold(half, lower); 2]);
        prop_assert_eq!(counts.both, counts.large[0]);
        prop_assert_eq!(counts.opposed, 0);
    }

    #[test]
    fn a_rank_lies_between_one_and_the_smaller_side(
        (rows, columns, values) in (1usize..9, 1usize..9).prop_flat_map(|(rows, columns)| {
            (Just(rows), Just(columns), prop::collection::vec(-1e3f32..1e3, rows * columns))
        })
    ) {
        let transposed: Vec<f32> = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
        let rank = effective_rank(&values, rows, columns).unwrap();
        if let Some(rank) = rank.value() {
            prop_assert!(rank >= 1.0 && rank <= rows.min(columns) as f64 + 1e-9, "{rank}");
            let other = value(effective_rank(&transposed, columns, rows).unwrap());
            prop_assert!((rank - other).abs() < 1e-5 * rank, "{rank} {other}");
            let doubled: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
            prop_assert!(near(value(effective_rank(&doubled, rows, columns).unwrap()), rank));
        }
    }
}
