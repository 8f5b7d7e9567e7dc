#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::measured::Measured;

const A: u32 = 10;
const B: u32 = 11;
const C: u32 = 12;

fn token(document: usize, target: u32, nll: f64) -> PredictedToken {
    PredictedToken { document, target, kind: TargetKind::Ordinary, nll, hit: None, entropy: None }
}

fn of_kind(kind: TargetKind, token: PredictedToken) -> PredictedToken {
    PredictedToken { kind, ..token }
}

/// measure.md 2.8 A, spread over two documents.
fn example_a() -> Vec<PredictedToken> {
    let a = [0.1, 0.2, 0.1, 0.2, 0.1, 0.2].map(|nll| token(0, A, nll));
    let b = [0.5, 0.6, 0.7].map(|nll| token(1, B, nll));
    [a.as_slice(), b.as_slice(), &[token(1, C, 3.0)]].concat()
}

fn report(tokens: &[PredictedToken], bytes: &[u64]) -> TokenReport {
    token_losses(tokens, bytes, Frequencies::Targets, 3).unwrap()
}

fn assert_printed(number: Number, printed: f64) {
    let value = number.value().unwrap();
    assert!((value - printed).abs() < 5.1e-7, "{value} where the page prints {printed}");
}

#[test]
fn worked_example_a() {
    let report = report(&example_a(), &[20, 10]);
    assert_printed(report.text.nll.value, 0.57);
    assert_printed(report.text.perplexity.value, 1.768267);
    assert_printed(report.text.bits_per_byte.value, 5.7 / 30.0 / 2f64.ln());
    assert_eq!((report.text.tokens, report.text.bytes, report.documents), (10, 30, 2));
    let types = &report.types;
    assert_printed(types.micro_nll.value, 0.57);
    assert_printed(types.macro_nll.value, 1.25);
    assert_printed(types.macro_perplexity.value, 3.490343);
    assert_eq!((types.types, types.tokens), (3, 10));
    assert_printed(types.singleton_share, 1.0 / 3.0);

    // C alone in bin 0; A (6) and B (3) in bin 1; no other bin.
    let [rare, common] = types.bins.as_slice() else { panic!("{:?}", types.bins) };
    assert_eq!((rare.power, rare.count_least, rare.count_most, rare.types, rare.tokens), (0, 1, 2, 1, 1));
    assert_printed(rare.nll.value, 3.0);
    assert_eq!((common.power, common.count_least, common.count_most, common.types, common.tokens), (1, 3, 8, 2, 9));
    assert_printed(common.nll.value, 0.375);
    assert_printed(common.frequency_weighted_nll.value, 0.3);
    assert_eq!(common.accuracy.value, Number::Undefined(Reason::NotGiven));
}

#[test]
fn worked_example_b_bins_by_whole_numbers() {
    assert_eq!(power_of_three(243), Some(5));
    assert_eq!(power_of_three(242), Some(4));
    assert_eq!(power_of_three(1), Some(0));
    assert_eq!(power_of_three(2), Some(0));
    assert_eq!(power_of_three(0), None);
    for power in 0..=40 {
        assert_eq!(power_of_three(3u64.pow(power)), Some(power));
        assert_eq!(power_of_three(3u64.pow(power) - 1), power.checked_sub(1));
    }
    assert_eq!(power_of_three(u64::MAX), Some(40));
}

#[test]
fn worked_example_c_learning_speed() {
    let steps = [0, 100, 200, 400];
    let fast = learning_speed(&steps, &[10.0, 4.0, 2.0, 1.0]).unwrap();
    assert_printed(fast.speed, 0.75);
    assert_eq!(fast.final_nll, 1.0);
    assert_printed(learning_speed(&steps, &[10.0, 8.0, 5.0, 1.0]).unwrap().speed, 0.513889);
    let constant = learning_speed(&steps, &[2.0; 4]).unwrap();
    assert_eq!((constant.speed, constant.final_nll), (Number::Undefined(Reason::Constant), 2.0));
    assert!(learning_speed(&[], &[]).is_err());
    assert!(learning_speed(&[0, 1], &[1.0]).is_err());
    assert!(learning_speed(&[1, 2], &[2.0, 1.0]).is_err());
    assert!(matches!(learning_speed(&[0, 5, 5], &[3.0, 2.0, 1.0]), Err(MeasureError::Checkpoint { index: 2, .. })));
    assert!(learning_speed(&[0, 1], &[1.0, f64::INFINITY]).is_err());
    assert_eq!(learning_speed(&[0], &[1.0]).unwrap().speed, Number::Undefined(Reason::Constant));
}

#[test]
fn worked_example_d_unconstrained_features() {
    let losses = |weight_decay| unconstrained_features_losses(&[6, 3, 1], weight_decay).unwrap();
    for (weight_decay, printed) in [
        (0.001, [0.003339, 0.004725, 0.008198]),
        (0.01, [0.033902, 0.048288, 0.085176]),
        (0.02, [0.068993, 0.099026, 0.178289]),
    ] {
        for (class, printed) in losses(weight_decay).into_iter().zip(printed) {
            assert_printed(class.nll, printed);
        }
    }
    assert_printed(losses(0.01)[2].margin, 3.113289);
    // From c = (K − 1)/K on a class collapses.
    assert_printed(losses(1.0)[0].nll, 3f64.ln());
    assert_eq!(losses(1.0)[0].margin, Number::Value(0.0));
    assert_eq!(losses(0.0)[0].nll, Number::Value(0.0));
    assert_eq!(losses(0.0)[0].margin, Number::Undefined(Reason::Overflow));
    assert!(unconstrained_features_losses(&[1], -0.1).is_err());
    assert_eq!(unconstrained_features_losses(&[0, 2], 0.1).unwrap()[0].nll, Number::Undefined(Reason::Empty));
}

/// measure.md 2.6: a Zipf(1) distribution over 32,005 types.
#[test]
fn concentration_of_a_zipf_distribution() {
    let counts: Vec<u64> = (1..=32_005u64).map(|rank| 1_000_000_000_000 / rank).collect();
    let curves = concentration(&counts);
    assert_eq!(curves.types, 32_005);
    let top = |types| curves.mass_of_top.iter().find(|point| point.types == types).unwrap().mass;
    assert!((top(3) - 0.167).abs() < 5e-4);
    assert!((top(320) - 0.58).abs() < 5e-3);
    assert_eq!(top(32_005), 1.0);
    let under = curves.types_under.iter().find(|point| point.relative_frequency == 1e-4).unwrap();
    assert!((under.share_of_types.value().unwrap() - 0.971).abs() < 5e-4);
    let needed = curves.types_for_mass.iter().find(|point| point.mass == 0.95).unwrap();
    assert!((needed.share_of_types.value().unwrap() - 0.578).abs() < 5e-4);
}

#[test]
fn concentration_of_little() {
    let curves = concentration(&[0, 3, 1, 0]);
    assert_eq!((curves.types, curves.tokens), (2, 4));
    // One type is 50 % of two, so of the grid only "all" holds a whole one.
    assert_eq!(curves.mass_of_top, [MassOfTop { share_of_types: 1.0, types: 2, mass: 1.0 }]);
    assert_eq!(curves.types_for_mass[0].types, 1);
    assert_eq!(curves.types_for_mass[1].types, 2);
    let none = concentration(&[]);
    assert!(none.mass_of_top.is_empty());
    assert_eq!(none.types_under[0].share_of_types, Number::Undefined(Reason::NoTokens));
    assert_eq!(none.types_for_mass[0].share_of_types, Number::Undefined(Reason::NoTokens));
    // Counts whose sum passes 64 bits.
    assert_eq!(concentration(&[u64::MAX, u64::MAX]).mass_of_top[0].mass, 1.0);
}

#[test]
fn special_and_byte_fallback_tokens_are_reported_apart() {
    let mut tokens = example_a();
    tokens.push(of_kind(TargetKind::Special, token(0, 1, 7.0)));
    tokens.push(of_kind(TargetKind::ByteFallback, token(0, 300, 4.0)));
    tokens.push(of_kind(TargetKind::ByteFallback, token(1, 300, 2.0)));
    tokens.push(of_kind(TargetKind::ByteFallback, token(1, 301, 1.0)));
    let report = report(&tokens, &[20, 10]);
    assert_printed(report.types.macro_nll.value, 1.25);
    assert_printed(report.types.micro_nll.value, 0.57);
    assert_eq!(report.text.tokens, 13);
    assert_printed(report.text.nll.value, 12.7 / 13.0);
    assert_eq!((report.special.tokens, report.special.types), (1, 1));
    assert_printed(report.special.nll, 7.0);
    assert_eq!((report.byte_fallback.tokens, report.byte_fallback.types), (3, 2));
    assert_printed(report.byte_fallback.nll, 7.0 / 3.0);
    assert_printed(report.byte_fallback.macro_nll, 2.0);
}

#[test]
fn hits_and_entropies_average_only_when_all_are_given() {
    let mut tokens = example_a();
    for token in &mut tokens {
        token.hit = Some(token.target == A || token.nll == 0.5);
        token.entropy = Some(0.5);
    }
    let full = report(&tokens, &[20, 10]);
    assert_printed(full.text.accuracy.value, 0.7);
    assert_printed(full.types.micro_accuracy.value, 0.7);
    assert_printed(full.types.macro_accuracy.value, (1.0 + 1.0 / 3.0) / 3.0);
    assert_printed(full.types.bins[1].accuracy.value, 2.0 / 3.0);
    assert_printed(full.types.bins[1].frequency_weighted_accuracy.value, 7.0 / 9.0);
    assert_printed(full.text.entropy.value, 0.5);
    tokens[4].hit = None;
    assert_eq!(report(&tokens, &[20, 10]).text.accuracy.value, Number::Undefined(Reason::NotGiven));
    // The bin that misses none keeps its accuracy.
    assert_printed(report(&tokens, &[20, 10]).types.bins[0].accuracy.value, 0.0);
}

#[test]
fn one_document_has_no_interval() {
    let tokens: Vec<_> = example_a().into_iter().map(|token| PredictedToken { document: 1, ..token }).collect();
    // Document 0 is listed but has no predicted token.
    let report = report(&tokens, &[5, 30]);
    assert_eq!((report.documents, report.text.bytes), (1, 30));
    for estimate in [report.text.nll, report.text.bits_per_byte, report.types.macro_nll, report.types.bins[0].nll] {
        assert_eq!(estimate.interval, Measured::Undefined(Reason::OneUnit));
        assert!(estimate.value.value().is_some());
    }
}

#[test]
fn intervals_resample_documents() {
    // Ten documents alike but for their level: the interval is that of the mean of the levels.
    let levels: Vec<f64> = (0..10).map(|document| 1.0 + 0.1 * f64::from(document)).collect();
    let tokens: Vec<PredictedToken> = levels
        .iter()
        .enumerate()
        .flat_map(|(document, &level)| (0..20).map(move |i| token(document, i % 4, level)))
        .collect();
    let report = report(&tokens, &[40; 10]);
    let numbers: Vec<Number> = levels.iter().map(|&level| Number::from(level)).collect();
    let expected = crate::statistics::bootstrap_mean(&numbers, 3).interval.value().unwrap();
    let interval = report.text.nll.interval.value().unwrap();
    assert!((interval.low - expected.low).abs() < 1e-12 && (interval.high - expected.high).abs() < 1e-12);
    let bits = report.text.bits_per_byte.interval.value().unwrap();
    assert!((bits.low - expected.low / 2.0 / 2f64.ln()).abs() < 1e-12);
    // Every type has the same loss as the whole, so macro and micro agree in each resample.
    let types = report.types.macro_nll.interval.value().unwrap();
    assert!((types.low - expected.low).abs() < 1e-12 && (types.high - expected.high).abs() < 1e-12);
}

#[test]
fn frequencies_from_a_table_fix_the_bins() {
    let table = BTreeMap::from([(A, 2), (B, 243), (99, 5)]);
    let report = token_losses(&example_a(), &[20, 10], Frequencies::Table(&table), 3).unwrap();
    let bins: Vec<(u32, usize)> = report.types.bins.iter().map(|bin| (bin.power, bin.tokens)).collect();
    assert_eq!(bins, [(0, 6), (5, 3)]);
    let outside = report.types.outside_table;
    assert_eq!((outside.types, outside.tokens), (1, 1));
    assert_printed(outside.nll.value, 3.0);
    // The averages still cover every target.
    assert_printed(report.types.macro_nll.value, 1.25);
    assert_eq!((report.types.concentration.types, report.types.concentration.tokens), (3, 250));
    assert_eq!((report.types.split.count, report.types.split.low_types, report.types.split.high_types), (243, 1, 1));
}

#[test]
fn split_at_the_percentile() {
    // Counts 1 … 20: the 95th percentile by nearest rank is 19.
    let tokens: Vec<_> = (1..=20u32)
        .flat_map(|target| (0..target).map(move |_| token((target % 2) as usize, target, f64::from(target))))
        .collect();
    let split = report(&tokens, &[1, 1]).types.split;
    assert_eq!((split.count, split.low_types, split.high_types), (19, 18, 2));
    assert_printed(split.low_nll.value, 9.5);
    assert_printed(split.high_nll.value, 19.5);
    let equal = report(&[token(0, A, 1.0), token(0, B, 2.0)], &[1]).types.split;
    assert_eq!((equal.low_types, equal.low_nll.value), (0, Number::Undefined(Reason::NoTokens)));
}

#[test]
fn wrong_losses_name_document_and_position() {
    let mut tokens = example_a();
    tokens[8].nll = f64::INFINITY;
    let error = token_losses(&tokens, &[20, 10], Frequencies::Targets, 0).unwrap_err();
    assert_eq!(error.to_string(), "document 1, predicted token 2: loss is inf");
    assert!(error.hint().unwrap().contains("log-softmax"));
    for wrong in [f64::NAN, -0.5] {
        tokens[8].nll = wrong;
        assert!(token_losses(&tokens, &[20, 10], Frequencies::Targets, 0).is_err());
    }
    // Rounding of a log-softmax is no error.
    tokens[8].nll = -1e-7;
    assert!(token_losses(&tokens, &[20, 10], Frequencies::Targets, 0).is_ok());
    tokens[8].entropy = Some(f64::NAN);
    assert!(matches!(
        token_losses(&tokens, &[20, 10], Frequencies::Targets, 0),
        Err(MeasureError::Entropy { document: 1, position: 2, .. })
    ));
    assert!(matches!(
        token_losses(&example_a(), &[20], Frequencies::Targets, 0),
        Err(MeasureError::NoSuchDocument { token: 6, document: 1, documents: 1 })
    ));
}

#[test]
fn nothing_predicted_and_no_bytes() {
    let none = report(&[], &[]);
    for number in [none.text.nll.value, none.text.bits_per_byte.value, none.types.macro_nll.value, none.special.nll] {
        assert_eq!(number, Number::Undefined(Reason::NoTokens));
    }
    assert!(none.types.bins.is_empty());
    let report = report(&example_a(), &[0, 0]);
    assert_eq!(report.text.bits_per_byte.value, Number::Undefined(Reason::NoBytes));
    assert_printed(report.text.nll.value, 0.57);
    let huge = [token(0, A, 1e6), token(1, A, 1e6)];
    assert_eq!(self::report(&huge, &[1, 1]).text.perplexity.value, Number::Undefined(Reason::Overflow));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bins_add_up_and_order_does_not_matter(
        drawn in prop::collection::vec((0usize..4, 0u32..9, 0.0f64..8.0), 1..60),
    ) {
        let tokens: Vec<_> = drawn.iter().map(|&(document, target, nll)| token(document, target, nll)).collect();
        let forward = report(&tokens, &[7; 4]);
        let weighted: f64 = forward.types.bins.iter()
            .map(|bin| bin.frequency_weighted_nll.value.value().unwrap() * bin.tokens as f64).sum();
        let over_types: f64 = forward.types.bins.iter()
            .map(|bin| bin.nll.value.value().unwrap() * bin.types as f64).sum();
        let near = |number: Number, expected: f64| (number.value().unwrap() - expected).abs() < 1e-9;
        prop_assert!(near(forward.types.micro_nll.value, weighted / tokens.len() as f64));
        prop_assert!(near(forward.types.macro_nll.value, over_types / forward.types.types as f64));
        prop_assert!(near(forward.text.nll.value, weighted / tokens.len() as f64));
        prop_assert_eq!(forward.types.bins.iter().map(|bin| bin.tokens).sum::<usize>(), tokens.len());

        let backward: Vec<_> = tokens.into_iter().rev().collect();
        let backward = report(&backward, &[7; 4]);
        prop_assert!(near(backward.types.macro_nll.value, forward.types.macro_nll.value.value().unwrap()));
    }
}

/// measure.md 2.8 A by the functions of a run, with a table of training counts.
#[test]
fn levels_of_worked_example_a() {
    let mut tokens = example_a();
    for token in &mut tokens {
        token.hit = Some(token.target == A || token.nll == 0.5);
    }
    tokens.push(of_kind(TargetKind::Special, token(0, 1, 7.0)));
    let means = type_means(&tokens).unwrap();
    assert_eq!(means.keys().copied().collect::<Vec<_>>(), [A, B, C], "a special token is no type");
    assert_eq!(means[&A].tokens, 6);
    let counts = BTreeMap::from([(A, 6), (B, 3), (C, 1)]);
    let levels = frequency_levels(&means, &counts);
    assert_eq!((levels.tokens, levels.types), (10, 3));
    assert_printed(levels.micro_nll, 0.57);
    assert_printed(levels.macro_nll, 1.25);
    assert_printed(levels.micro_accuracy, 0.7);
    assert_printed(levels.macro_accuracy, (1.0 + 1.0 / 3.0) / 3.0);
    // The 95th percentile of 1, 3, 6 is 6.
    assert_eq!((levels.low.types, levels.low.tokens, levels.high.types), (2, 4, 1));
    assert_printed(levels.low.nll, 1.8);
    assert_printed(levels.high.nll, 0.15);
    let bins: Vec<(u32, usize)> = levels.bins.iter().map(|bin| (bin.power, bin.level.types)).collect();
    assert_eq!(bins, [(0, 1), (1, 2)]);
    assert_printed(levels.bins[1].level.nll, 0.375);
    // The same from the averages with intervals.
    let report = token_losses(&tokens, &[20, 10], Frequencies::Table(&counts), 3).unwrap();
    assert_eq!(report.types.split.low_nll.value, levels.low.nll);
    assert_eq!((report.types.split.low_tokens, report.types.split.high_tokens), (4, 6));
    assert_printed(report.types.split.low_accuracy.value, 1.0 / 6.0);
    assert_printed(report.types.split.high_accuracy.value, 1.0);
}

#[test]
fn types_that_the_table_lacks_are_in_no_group() {
    let means = type_means(&example_a()).unwrap();
    let levels = frequency_levels(&means, &BTreeMap::from([(A, 243), (99, 1)]));
    assert_printed(levels.macro_nll, 1.25);
    assert_eq!((levels.low.types, levels.high.types, levels.bins.len()), (0, 1, 1));
    assert_eq!(levels.bins[0].power, 5);
    assert_eq!(levels.low.nll, Number::Undefined(Reason::NoTokens));
    assert_eq!(levels.micro_accuracy, Number::Undefined(Reason::NotGiven));
    let none = frequency_levels(&BTreeMap::new(), &BTreeMap::new());
    assert_eq!((none.micro_nll, none.bins.len()), (Number::Undefined(Reason::NoTokens), 0));
}

/// measure.md 2.8 C: two types with the curves of the page.
#[test]
fn speeds_of_worked_example_c() {
    let steps = [0, 100, 200, 400];
    let (fast, slow) = ([10.0, 4.0, 2.0, 1.0], [10.0, 8.0, 5.0, 1.0]);
    let mean = |nll: f64| TypeMean { tokens: 1, nll, accuracy: None };
    let checkpoints: Vec<BTreeMap<u32, TypeMean>> =
        (0..4).map(|i| BTreeMap::from([(A, mean(fast[i])), (B, mean(slow[i])), (C, mean(2.0))])).collect();
    let table = BTreeMap::from([(A, 9), (B, 1), (C, 2)]);
    let speeds = speed_by_frequency(&steps, &checkpoints, &table).unwrap();
    assert_eq!((speeds.all.types, speeds.all.constant), (3, 1));
    assert_printed(speeds.all.speed, (0.75 + 0.513889) / 2.0);
    assert_printed(speeds.all.final_nll, 4.0 / 3.0);
    assert_eq!(speeds.bins.iter().map(|bin| bin.power).collect::<Vec<_>>(), [0, 2]);
    assert_printed(speeds.bins[0].speed.speed, 0.513889);
    assert_printed(speeds.bins[1].speed.speed, 0.75);
    assert_printed(speeds.high.speed, 0.75);
    assert_printed(speeds.low.speed, 0.513889);
    // A group whose types are all constant has no speed, but a level.
    let only: Vec<BTreeMap<u32, TypeMean>> = (0..4).map(|_| BTreeMap::from([(C, mean(2.0))])).collect();
    let speeds = speed_by_frequency(&steps, &only, &table).unwrap();
    assert_eq!(speeds.all.speed, Number::Undefined(Reason::Constant));
    assert_printed(speeds.all.final_nll, 2.0);
    // Other types at one checkpoint.
    let mut other = checkpoints.clone();
    other[2].remove(&A);
    assert!(matches!(
        speed_by_frequency(&steps, &other, &table),
        Err(MeasureError::Checkpoint { index: 2, problem }) if problem.contains("other tokens")
    ));
    assert!(speed_by_frequency(&steps[1..], &checkpoints[1..], &table).is_err());
    assert!(speed_by_frequency(&[], &[], &table).is_err());
}

/// measure.md 2.8 D: the averages over the classes of the page, and what the curves do.
#[test]
fn theory_of_a_table() {
    let points = theory_by_frequency(&[3, 6, 0, 1], 41);
    assert_eq!(points.len(), 41);
    for point in &points {
        let losses = unconstrained_features_losses(&[6, 3, 1], point.weight_decay).unwrap();
        let [six, three, one] = [0, 1, 2].map(|index| losses[index].nll.value().unwrap());
        assert_printed(point.macro_nll, (six + three + one) / 3.0);
        assert_printed(point.micro_nll, (6.0 * six + 3.0 * three + one) / 10.0);
        assert_printed(point.high_nll, six);
        assert_printed(point.low_nll, (three + one) / 2.0);
        assert_eq!(point.bins.iter().map(|bin| (bin.power, bin.types)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
        assert_printed(point.bins[0].nll, one);
    }
    let rises = |pair: &[TheoryPoint]| pair[0].low_nll.value() <= pair[1].low_nll.value();
    assert!(points.windows(2).all(rises));
    let last = points.last().unwrap();
    for collapsed in [last.micro_nll, last.macro_nll, last.low_nll, last.high_nll] {
        assert_printed(collapsed, 3f64.ln());
    }
    assert!(points[0].low_nll.value().unwrap() < 0.01);
    assert!(theory_by_frequency(&[5], 9).is_empty() && theory_by_frequency(&[], 9).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn groups_add_up_to_all_types(
        drawn in prop::collection::vec((0u32..12, 0.0f64..8.0), 1..60),
        counts in prop::collection::btree_map(0u32..12, 0u64..400, 0..12),
    ) {
        let tokens: Vec<_> = drawn.iter().map(|&(target, nll)| token(0, target, nll)).collect();
        let means = type_means(&tokens).unwrap();
        let levels = frequency_levels(&means, &counts);
        let known = means.keys().filter(|id| counts.get(id).is_some_and(|&count| count > 0)).count();
        prop_assert_eq!(levels.low.types + levels.high.types, known);
        prop_assert_eq!(levels.bins.iter().map(|bin| bin.level.types).sum::<usize>(), known);
        let sum: f64 = levels.bins.iter().map(|bin| bin.level.nll.value().unwrap() * bin.level.types as f64).sum();
        let sides = [levels.low, levels.high].map(|side| side.nll.value().unwrap_or(0.0) * side.types as f64);
        prop_assert!((sum - sides[0] - sides[1]).abs() < 1e-9);
        let report = token_losses(&tokens, &[9], Frequencies::Table(&counts), 0).unwrap();
        let near = |a: Number, b: Number| a.value().zip(b.value()).is_none_or(|(a, b)| (a - b).abs() < 1e-9);
        prop_assert!(near(report.types.micro_nll.value, levels.micro_nll));
        prop_assert!(near(report.types.macro_nll.value, levels.macro_nll));
        prop_assert!(near(report.types.split.low_nll.value, levels.low.nll));
        prop_assert_eq!(report.types.split.high_types, levels.high.types);
    }

    /// measure.md 2.3: a higher decay raises every loss, and that of the rarer class more.
    #[test]
    fn decay_costs_rare_classes_more(
        rare in 1u64..50, more in 1u64..500, share in 0.001f64..0.4, step in 1.01f64..1.2,
    ) {
        let sizes = [rare, rare + more, 40];
        let total: u64 = sizes.iter().sum();
        // The rarest class collapses where its share is 1.
        let weight_decay = share * (2.0 / 3.0 * *sizes.iter().min().unwrap() as f64).sqrt() / total as f64;
        let at = |weight_decay: f64| unconstrained_features_losses(&sizes, weight_decay).unwrap();
        let (before, after) = (at(weight_decay), at(weight_decay * step));
        let rise = |class: usize| after[class].nll.value().unwrap() - before[class].nll.value().unwrap();
        prop_assert!(rise(0) > 0.0 && rise(1) > 0.0);
        prop_assert!(rise(0) > rise(1), "{} {}", rise(0), rise(1));
        prop_assert!(after.iter().zip(&before).all(|(a, b)| a.margin.value() < b.margin.value()));
    }

    #[test]
    fn speed_ignores_scale_and_shift(
        losses in prop::collection::vec(0.0f64..10.0, 2..8), scale in 0.1f64..5.0, shift in 0.0f64..3.0,
    ) {
        let steps: Vec<u64> = (0..losses.len() as u64).map(|index| index * index).collect();
        let of = |losses: &[f64]| learning_speed(&steps, losses).unwrap().speed.value();
        let moved: Vec<f64> = losses.iter().map(|loss| scale * loss + shift).collect();
        if let (Some(speed), Some(other)) = (of(&losses), of(&moved)) {
            prop_assert!((0.0..=1.0).contains(&speed));
            prop_assert!((speed - other).abs() < 1e-9);
        }
    }
}
