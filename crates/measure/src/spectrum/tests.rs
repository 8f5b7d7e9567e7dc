#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// measure.md 1.12 A.
const EXAMPLE_A: [f32; 12] = [1., 2., 0., 0., 3., 0., 1., 0., 2., 1., 2., 3.];

fn states(values: &[f32], tokens: usize, width: usize) -> HiddenStates<'_> {
    HiddenStates::new(values, tokens, width).unwrap()
}

fn all_of(values: &[f32], tokens: usize, width: usize) -> Spectrum {
    spectrum(states(values, tokens, width), &SpectrumOptions::default(), &NullCache::new()).unwrap()
}

/// MNN without its null.
fn mnn_of(values: &[f32], tokens: usize, width: usize) -> f64 {
    let columns = unit_rows::columns(states(values, tokens, width));
    matrix_nuclear_norm(&columns, columns.rows_used.min(width)).value().unwrap()
}

fn entropy_of(values: &[f32], tokens: usize, width: usize) -> f64 {
    decomposition::entropy(&unit_rows::unit_rows(states(values, tokens, width))).unwrap()
}

fn assert_printed(number: Number, printed: f64) {
    let value = number.value().unwrap();
    assert!((value - printed).abs() < 5.1e-7, "{value} where the page prints {printed}");
}

#[test]
fn worked_example_a() {
    let a = all_of(&EXAMPLE_A, 3, 4);
    assert_eq!((a.tokens, a.rows_used, a.rows_dropped, a.width, a.columns_kept), (3, 3, 0, 4, 3));
    assert_printed(a.mnn.value, 0.901226);
    assert_printed(a.mnn_cap, 1.0);
    assert_printed(a.entropy_nats, 0.681995);
    assert_printed(a.matrix_entropy.value, 0.491955);
    assert_printed(a.erank, 1.977819);
    assert_printed(a.erank_per_width, 0.494455);
    assert_printed(a.nuclear_norm.value, 0.814213);
    assert_printed(a.nuclear_norm.value.map(|norm| norm * 3.0), 2.442638);
    assert_printed(rankme(states(&EXAMPLE_A, 3, 4)).unwrap(), 2.733596);
    let singular = decomposition::singular_values(&EXAMPLE_A.map(f64::from), 3, 4).unwrap();
    for (sigma, printed) in singular.into_iter().zip([4.922830, 2.276702, 1.892715]) {
        assert_printed(Number::from(sigma), printed);
    }
}

#[test]
fn worked_example_a_column_norms() {
    let columns = unit_rows::columns(states(&EXAMPLE_A, 3, 4));
    let printed = [0.763763, 0.763763, 0.670820, 1.176152];
    for (square, printed) in columns.squared_norms.iter().zip(printed) {
        assert_printed(Number::from(square.sqrt()), printed);
    }
    assert_printed(Number::from(columns.squared_norms.iter().map(|square| square.sqrt()).sum::<f64>()), 3.374498);
    assert_printed(matrix_nuclear_norm(&columns, 3).map(|mnn| mnn * 3.0), 2.703677);
    assert_printed(matrix_nuclear_norm(&columns, 4).map(|sum| sum * 3.0), 3.374498);
    assert_printed(matrix_nuclear_norm(&columns, 1).map(|sum| sum * 3.0), 1.176152);
}

#[test]
fn worked_example_b() {
    let b = all_of(&[0., 0., 0., 0., 0., 0., 1., 1., 1., 1., 1., 1.], 2, 6);
    assert_printed(b.mnn.value, 0.577350);
    assert_printed(b.nuclear_norm.value, std::f64::consts::FRAC_1_SQRT_2);
    assert_printed(b.entropy_nats, 0.0);
    assert_printed(b.matrix_entropy.value, 0.0);
    assert_printed(b.erank, 1.0);
    // Two tokens always have entropy 0, so the null cannot be a divisor.
    assert_eq!(b.matrix_entropy.corrected, Number::Undefined(Reason::NullIsZero));
}

#[test]
fn worked_example_d() {
    let entropies = [0.2, 0.6].map(Number::from);
    let variants = matrix_entropy_variants(&entropies, 4);
    assert_printed(variants.a, 0.288539);
    assert_printed(variants.b, 0.372956);
    assert_printed(variants.c, 0.380440);
    let skipping = [entropies[0], Number::Undefined(Reason::OneToken), entropies[1]];
    assert_eq!(matrix_entropy_variants(&skipping, 4), variants);
}

#[test]
fn diff_erank_is_the_exponent_of_the_mean() {
    let untrained = [0.2, 0.6, 5.0].map(Number::from);
    let trained = [Number::from(0.1), Number::from(0.1), Number::Undefined(Reason::DegenerateTokens)];
    let result = diff_erank(&untrained, &trained).unwrap();
    assert_eq!((result.n, result.skipped), (2, 1));
    assert_printed(result.diff_erank, 0.4f64.exp() - 0.1f64.exp());
    assert!(diff_erank(&untrained, &trained[..2]).is_err());
    assert_eq!(diff_erank(&[], &[]).unwrap().diff_erank, Number::Undefined(Reason::Empty));
}

/// One draw each in measure.md 1.10, items 4 and 5; these are means of eight.
#[test]
fn gaussian_nulls_agree_with_the_page() {
    let nulls = NullCache::new();
    let null = |rows: usize, width: usize, metric| {
        nulls.get(null::Shape { rows, width, kept: rows.min(width), metric, seed: 1 }).unwrap()
    };
    for (rows, width, printed) in [(64, 768, 0.335), (128, 1088, 0.379), (512, 768, 0.830), (1024, 768, 0.866)] {
        let mnn = null(rows, width, Metric::MatrixNuclearNorm);
        assert!((mnn.mean.value().unwrap() - printed).abs() < 0.002, "{rows} x {width}: {mnn:?}");
        assert!(mnn.sd.value().unwrap() < 0.002);
    }
    assert!((null(64, 768, Metric::NuclearNorm).mean.value().unwrap() - 0.98).abs() < 0.005);
    assert!((null(512, 768, Metric::MatrixEntropy).mean.value().unwrap() - 0.889).abs() < 0.001);
    // The same seed gives the same bits from a fresh cache, another seed other ones.
    let shape = |seed| null::Shape { rows: 8, width: 5, kept: 5, metric: Metric::MatrixNuclearNorm, seed };
    assert_eq!(nulls.get(shape(3)).unwrap(), NullCache::new().get(shape(3)).unwrap());
    assert_ne!(nulls.get(shape(3)).unwrap().mean, nulls.get(shape(4)).unwrap().mean);
}

#[test]
fn corrected_value_of_a_gaussian_cloud_is_one() {
    use rand_distr::{Distribution, StandardNormal};
    let generator = crate::statistics::item_generator(99, 0);
    let cloud: Vec<f32> = StandardNormal.sample_iter(generator).take(64 * 48).collect();
    let spectrum = all_of(&cloud, 64, 48);
    for metric in [spectrum.mnn, spectrum.matrix_entropy, spectrum.nuclear_norm] {
        assert!((metric.corrected.value().unwrap() - 1.0).abs() < 0.02, "{metric:?}");
    }
}

#[test]
fn metrics_not_asked_for_say_so() {
    let options = SpectrumOptions { metrics: vec![Metric::MatrixNuclearNorm], ..SpectrumOptions::default() };
    let spectrum = spectrum(states(&EXAMPLE_A, 3, 4), &options, &NullCache::new()).unwrap();
    assert_printed(spectrum.mnn.value, 0.901226);
    let not_requested = Number::Undefined(Reason::NotRequested);
    for number in
        [spectrum.entropy_nats, spectrum.erank, spectrum.matrix_entropy.null_mean, spectrum.nuclear_norm.value]
    {
        assert_eq!(number, not_requested);
    }
    let summary = summarise(&[spectrum.clone(), spectrum], 0).unwrap();
    assert_eq!(summary.erank.mean.value, not_requested);
    assert_eq!(summary.matrix_entropy_variants.a, not_requested);
}

#[test]
fn too_few_tokens_are_undefined_with_a_reason() {
    let none = all_of(&[], 0, 3);
    let one = all_of(&[1., 2., 3.], 1, 3);
    let identical = all_of(&[0.1, -7.3, 0.1, -7.3, 0.1, -7.3], 3, 2);
    let cases = [(none, Reason::NoTokens), (one, Reason::OneToken), (identical.clone(), Reason::DegenerateTokens)];
    for (spectrum, reason) in cases {
        for number in [spectrum.mnn.value, spectrum.mnn_cap, spectrum.matrix_entropy.corrected, spectrum.erank] {
            assert_eq!(number, Number::Undefined(reason));
        }
    }
    assert_eq!((identical.rows_used, identical.rows_dropped), (0, 3));
    assert_eq!(rankme(states(&[], 0, 3)).unwrap(), Number::Undefined(Reason::NoTokens));
    assert_eq!(rankme(states(&[0.0; 6], 2, 3)).unwrap(), Number::Undefined(Reason::AllZero));
}

#[test]
fn a_token_equal_to_the_mean_is_dropped_and_counted() {
    // The last token is the mean of the other four up to rounding: 0.1 and 0.3 have no exact halves.
    let cross = [0.1, 3.3, 0.3, 3.3, 0.2, 3.1, 0.2, 3.5, 0.2, 3.3];
    let exact = [-1., 0., 1., 0., 0., -2., 0., 2., 0., 0.];
    let dropped = all_of(&exact, 5, 2);
    assert_eq!((dropped.rows_used, dropped.rows_dropped), (4, 1));
    assert_eq!(dropped.mnn.value, all_of(&exact[..8], 4, 2).mnn.value);
    // Off by f32 rounding of the inputs is a direction of its own, not a zero.
    assert_eq!(all_of(&cross, 5, 2).rows_used, 5);
    let thirds: Vec<f32> = [[0.1f32, 7.7], [0.3, -2.9], [0.7, 1e-3]].into_iter().cycle().take(999).flatten().collect();
    assert_eq!(all_of(&thirds, 999, 2).rows_dropped, 0);
    let same: Vec<f32> = [0.1f32, 1e4].into_iter().cycle().take(2 * 2047).collect();
    assert_eq!(all_of(&same, 2047, 2).rows_dropped, 2047);
}

#[test]
fn one_feature() {
    let spectrum = all_of(&[1., 2., 4.], 3, 1);
    assert_printed(spectrum.mnn.value, 1.0 / 3f64.sqrt());
    assert_printed(spectrum.mnn_cap, 1.0 / 3f64.sqrt());
    assert_eq!(spectrum.matrix_entropy.value, Number::Undefined(Reason::WidthOfOne));
    assert_printed(spectrum.erank, 1.0);
}

#[test]
fn kept_columns_outside_the_smaller_side_are_rejected() {
    let of = |kept| {
        let options = SpectrumOptions { kept_columns: KeptColumns::Top(kept), ..SpectrumOptions::default() };
        spectrum(states(&EXAMPLE_A, 3, 4), &options, &NullCache::new())
    };
    assert!(matches!(of(0), Err(MeasureError::KeptColumns { kept: 0, limit: 3, .. })));
    assert!(matches!(of(4), Err(MeasureError::KeptColumns { kept: 4, limit: 3, .. })));
    let two = of(2).unwrap();
    assert_printed(two.mnn.value, (1.176152 + 0.763763) / 3.0);
    assert_printed(two.mnn_cap, (2.0f64 / 3.0).sqrt());
    assert!(two.mnn.null_mean.value() < of(3).unwrap().mnn.null_mean.value());
}

#[test]
fn wrong_states_name_the_token() {
    let with = |value| {
        let mut values = EXAMPLE_A;
        values[6] = value;
        HiddenStates::new(&values, 3, 4).unwrap_err()
    };
    assert!(matches!(with(f32::NAN), MeasureError::NonFiniteState { token: 1, feature: 2, .. }));
    assert_eq!(with(f32::INFINITY).to_string(), "hidden state of token 1 is inf at feature 2");
    assert!(with(f32::NAN).hint().is_some());
    assert!(matches!(HiddenStates::new(&EXAMPLE_A, 3, 5), Err(MeasureError::Shape { expected: 15, found: 12, .. })));
    assert!(matches!(HiddenStates::new(&[], 3, 0), Err(MeasureError::Dimensions { .. })));
    assert!(matches!(HiddenStates::new(&[], usize::MAX, 2), Err(MeasureError::Dimensions { .. })));
    // The largest f32 squares to a usable f64.
    assert!(all_of(&[f32::MAX, 0., -f32::MAX, 1., 0., f32::MAX], 3, 2).mnn.value.value().is_some());
}

#[test]
fn padding_is_masked_out_before_the_mean() {
    let mut padded = vec![9.0; 4];
    padded.extend_from_slice(&EXAMPLE_A[..8]);
    padded.extend_from_slice(&[9.0; 4]);
    padded.extend_from_slice(&EXAMPLE_A[8..]);
    assert_eq!(without_padding(&padded, 4, &[0, 1, 1, 0, 1]).unwrap(), EXAMPLE_A);
    assert!(without_padding(&padded, 4, &[1, 1]).is_err());
    assert!(without_padding(&padded, 0, &[1, 1]).is_err());
}

#[test]
fn summary_counts_windows_and_lengths() {
    let windows = [all_of(&EXAMPLE_A, 3, 4), all_of(&EXAMPLE_A[..8], 2, 4), all_of(&EXAMPLE_A[..4], 1, 4)];
    let summary = summarise(&windows, 7).unwrap();
    assert_eq!((summary.windows, summary.width, summary.rows_least, summary.rows_most), (3, 4, 2, 3));
    assert_eq!((summary.mnn.mean.n, summary.mnn.skipped), (2, 1));
    let expected = (windows[0].mnn.value.value().unwrap() + windows[1].mnn.value.value().unwrap()) / 2.0;
    assert_printed(summary.mnn.mean.value, expected);
    assert!(summary.mnn.mean.interval.value().is_some());
    let other = all_of(&EXAMPLE_A, 4, 3);
    assert!(matches!(summarise(&[windows[0].clone(), other], 0), Err(MeasureError::MixedWidths { window: 1, .. })));
    assert_eq!(summarise(&[], 0).unwrap().mnn.mean.value, Number::Undefined(Reason::Empty));
}

#[test]
fn orthogonal_rotation_changes_mnn_but_not_the_entropy() {
    // Rows ±e1, ±e2 against the same cross turned by 45 degrees.
    let cross = [1., 0., -1., 0., 0., 1., 0., -1., 1., 0., -1., 0.];
    let turned: Vec<f32> = cross.chunks(2).flat_map(|xy| [xy[0] + xy[1], xy[0] - xy[1]]).collect();
    assert!((entropy_of(&cross, 6, 2) - entropy_of(&turned, 6, 2)).abs() < 1e-12);
    assert!((mnn_of(&cross, 6, 2) - mnn_of(&turned, 6, 2)).abs() > 1e-3);
}

#[test]
fn rescaling_a_token_before_centring_changes_mnn() {
    let mut scaled = EXAMPLE_A;
    scaled[..4].iter_mut().for_each(|value| *value *= 5.0);
    assert!((mnn_of(&EXAMPLE_A, 3, 4) - mnn_of(&scaled, 3, 4)).abs() > 1e-3);
}

/// Small whole numbers, so that the transformations below are exact in f32.
fn whole_states() -> impl Strategy<Value = (Vec<f32>, usize, usize)> {
    (2usize..12, 1usize..14).prop_flat_map(|(tokens, width)| {
        let values = prop::collection::vec((-9i8..=9).prop_map(f32::from), tokens * width);
        (values, Just(tokens), Just(width))
    })
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

proptest! {
    #[test]
    fn squared_column_norms_add_up_to_n((values, tokens, width) in whole_states()) {
        let columns = unit_rows::columns(states(&values, tokens, width));
        prop_assert!(near(columns.squared_norms.iter().sum(), columns.rows_used as f64));
    }

    #[test]
    fn all_columns_bound_the_nuclear_norm((values, tokens, width) in whole_states()) {
        let rows = unit_rows::unit_rows(states(&values, tokens, width));
        prop_assume!(rows.rows >= 2);
        let columns = unit_rows::columns(states(&values, tokens, width));
        let sum: f64 = columns.squared_norms.iter().map(|square| square.sqrt()).sum();
        let norm = decomposition::nuclear_norm(&rows).unwrap();
        prop_assert!(sum >= norm - 1e-9, "{sum} < {norm}");
        prop_assert!(norm <= (rows.rows as f64 * rows.rows.min(width) as f64).sqrt() + 1e-9);
    }

    #[test]
    fn mnn_stays_within_its_bounds((values, tokens, width) in whole_states(), kept in 1usize..14) {
        let columns = unit_rows::columns(states(&values, tokens, width));
        prop_assume!(columns.rows_used >= 2);
        let rows = columns.rows_used as f64;
        let kept = kept.min(columns.rows_used).min(width);
        let mnn = matrix_nuclear_norm(&columns, kept).value().unwrap();
        let least = (1.0 / rows.sqrt()).min(kept as f64 / rows * (rows / width as f64).sqrt());
        prop_assert!(mnn <= (kept as f64 / rows).sqrt() + 1e-9);
        prop_assert!(mnn >= least - 1e-9, "{mnn} < {least}");
    }

    #[test]
    fn mnn_ignores_token_order_constant_and_scale(
        (values, tokens, width) in whole_states(),
        shift in -50i16..50,
        power in -8i32..8,
    ) {
        prop_assume!(unit_rows::columns(states(&values, tokens, width)).rows_used >= 2);
        let mnn = mnn_of(&values, tokens, width);
        let entropy = entropy_of(&values, tokens, width);
        let reversed: Vec<f32> = values.chunks(width).rev().flatten().copied().collect();
        let moved: Vec<f32> = values.iter().enumerate()
            .map(|(i, value)| value + f32::from(shift) * (i % width) as f32).collect();
        let scaled: Vec<f32> = values.iter().map(|value| value * 2f32.powi(power)).collect();
        for other in [reversed, moved, scaled] {
            prop_assert!(near(mnn_of(&other, tokens, width), mnn));
            prop_assert!(near(entropy_of(&other, tokens, width), entropy));
        }
    }

    /// Pairs ±c keep the mean at zero, so scaling a pair is a rescaling after centring.
    #[test]
    fn mnn_ignores_scale_per_token_after_centring((values, tokens, width) in whole_states()) {
        let pairs = |scale: fn(usize) -> f32| -> Vec<f32> {
            values.chunks(width).enumerate().flat_map(|(token, row)| {
                let plus: Vec<f32> = row.iter().map(|value| value * scale(token)).collect();
                let minus: Vec<f32> = plus.iter().map(|value| -value).collect();
                [plus, minus].concat()
            }).collect()
        };
        let (plain, scaled) = (pairs(|_| 1.0), pairs(|token| (token % 5 + 1) as f32));
        prop_assume!(unit_rows::columns(states(&plain, 2 * tokens, width)).rows_used >= 2);
        prop_assert!(near(mnn_of(&plain, 2 * tokens, width), mnn_of(&scaled, 2 * tokens, width)));
    }

    /// (a, b) -> (a + b, a − b) is a rotation and a reflection times sqrt 2, exact on whole numbers.
    #[test]
    fn entropy_ignores_rotation((values, tokens, width) in whole_states()) {
        prop_assume!(width % 2 == 0);
        prop_assume!(unit_rows::columns(states(&values, tokens, width)).rows_used >= 2);
        let turned: Vec<f32> = values.chunks(2).flat_map(|ab| [ab[0] + ab[1], ab[0] - ab[1]]).collect();
        prop_assert!(near(entropy_of(&values, tokens, width), entropy_of(&turned, tokens, width)));
    }

    /// Both Gram routes against the squares of the singular values.
    #[test]
    fn entropy_agrees_with_the_singular_values((values, tokens, width) in whole_states()) {
        let rows = unit_rows::unit_rows(states(&values, tokens, width));
        prop_assume!(rows.rows >= 2);
        let singular = decomposition::singular_values(&rows.values, rows.rows, width).unwrap();
        let expected: f64 = singular.iter().map(|sigma| sigma * sigma / rows.rows as f64)
            .filter(|&share| share > 0.0).map(|share| -share * share.ln()).sum();
        let entropy = decomposition::entropy(&rows).unwrap();
        prop_assert!(near(entropy, expected.max(0.0)));
        prop_assert!(entropy <= ((rows.rows - 1).min(width) as f64).ln() + 1e-9);
    }
}
