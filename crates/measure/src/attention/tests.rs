#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// measure.md 4.7 A: BOS, w1, ",", w3, w4 with X = {0, 2} and S = {3}.
fn example_plan() -> SpanPlan {
    SpanPlan::new(5, KeyWindow::All, &[0, 2], &[vec![3]], 0).unwrap()
}

const A_OLD: [&[f32]; 5] = [&[1.0], &[0.6, 0.4], &[0.5, 0.3, 0.2], &[0.4, 0.2, 0.1, 0.3], &[0.4, 0.1, 0.1, 0.3, 0.1]];
const A_NEW: [&[f32]; 5] = [&[1.0], &[0.8, 0.2], &[0.7, 0.1, 0.2], &[0.5, 0.1, 0.1, 0.3], &[0.5, 0.1, 0.0, 0.2, 0.2]];

fn square(rows: &[&[f32]]) -> Vec<f32> {
    let padded = |row: &&[f32]| row.iter().copied().chain(std::iter::repeat_n(0.0, rows.len() - row.len())).collect();
    rows.iter().flat_map(|row| -> Vec<f32> { padded(row) }).collect()
}

fn report(plan: &SpanPlan, rows: &[f32]) -> HeadReport {
    let mut head = HeadAttention::new(plan);
    head.add_rows(0, plan.tokens(), rows).unwrap();
    head.report().unwrap()
}

/// Every query spreads its attention evenly over the keys it sees.
fn uniform(tokens: usize, window: usize) -> Vec<f32> {
    let weight = |query: usize, key: usize| {
        if key <= query && query - key < window { 1.0 / (query + 1).min(window) as f32 } else { 0.0 }
    };
    (0..tokens * tokens).map(|at| weight(at / tokens, at % tokens)).collect()
}

fn assert_printed(number: Number, printed: f64) {
    let value = number.value().unwrap();
    assert!((value - printed).abs() < 5.1e-7, "{value} where the page prints {printed}");
}

#[test]
fn worked_example_a() {
    let plan = example_plan();
    let (old, new) = (report(&plan, &square(&A_OLD)), report(&plan, &square(&A_NEW)));
    let (old_span, new_span) = (old.spans[0], new.spans[0]);
    assert_printed(old_span.raw_share, 0.12);
    assert_printed(new_span.raw_share, 0.1);
    assert_printed(old_span.share, 0.352941);
    assert_printed(new_span.share, 0.416667);
    assert_printed(new_span.share.zip(old_span.share, |new, old| new - old), 0.063725);
    assert_printed(old_span.renormalised_share, 0.3);
    assert_printed(new_span.renormalised_share, 0.2875);
    assert_eq!(old_span.usable_rows, 4);

    let baseline = plan.baselines()[0];
    assert_printed(baseline.share, 0.232759);
    assert_printed(old_span.lift, 0.352941176 / 0.232758621);
    // By hand: rows 1 and 2 keep w1 alone, row 3 w1 and w3, row 4 all three.
    assert_printed(baseline.renormalised_share, (0.5 + 1.0 / 3.0) / 4.0);
    assert_printed(old_span.renormalised_lift, 0.3 / (0.833333333 / 4.0));
    assert_printed(old.sink_share, 2.9 / 5.0);
    assert_printed(old.sink_lift, 2.9 / 2.283333333);
    assert_eq!(old_span.control_percentile, Number::Undefined(Reason::TooFewControls));
}

#[test]
fn worked_example_a_uniform_columns() {
    let plan = example_plan();
    let mut head = HeadAttention::new(&plan);
    head.add_rows(0, 5, &uniform(5, 5)).unwrap();
    for (sum, printed) in head.column_sums().iter().zip([2.283333, 1.283333, 0.783333, 0.45, 0.2]) {
        assert_printed(Number::from(*sum), printed);
    }
    let report = head.report().unwrap();
    assert_printed(report.spans[0].lift, 1.0);
    assert_printed(report.spans[0].renormalised_lift, 1.0);
    assert_printed(report.sink_lift, 1.0);
}

#[test]
fn worked_example_b() {
    let differences = [-0.02, -0.01, 0.0, 0.01, 0.05, -0.03, 0.0, 0.04];
    let grid =
        |values: &[f64]| HeadGrid { layers: 2, heads: 4, values: values.iter().map(|&v| Number::from(v)).collect() };
    let comparison = compare_heads(&grid(&[0.0; 8]), &grid(&differences)).unwrap();
    let distribution = comparison.distribution;
    assert_printed(distribution.mean, 0.005);
    assert_printed(distribution.median, 0.0);
    assert_printed(distribution.skewness, 0.513200);
    assert_printed(distribution.kurtosis, 2.069959);
    assert_printed(distribution.histogram_entropy_nats, 1.906155);
    assert_printed(comparison.share_up, 0.375);
    assert_eq!(comparison.layers.len(), 2);
    assert_printed(comparison.layers[0].mean, -0.005);
    assert_printed(comparison.layers[1].mean, 0.015);
}

#[test]
fn comparison_of_equal_undefined_and_different_models() {
    let mut first = HeadGrid { layers: 1, heads: 3, values: vec![Number::from(0.1); 3] };
    let constant = compare_heads(&first, &first).unwrap().distribution;
    assert_eq!(constant.skewness, Number::Undefined(Reason::Constant));
    assert_eq!(constant.kurtosis, Number::Undefined(Reason::Constant));
    assert_eq!(constant.histogram_entropy_nats, Number::Value(0.0));

    let second = HeadGrid { values: [0.2, 0.1, 0.5].map(Number::from).to_vec(), ..first.clone() };
    first.values[2] = Number::Undefined(Reason::AllMassExcluded);
    let comparison = compare_heads(&first, &second).unwrap();
    assert_eq!((comparison.distribution.n, comparison.distribution.skipped), (2, 1));
    assert_eq!(comparison.differences.values[2], Number::Undefined(Reason::AllMassExcluded));
    assert_eq!(comparison.layers[0].n, 2);
    assert_printed(comparison.share_up, 0.5);

    let wider = HeadGrid { layers: 3, heads: 1, ..first.clone() };
    let error = compare_heads(&first, &wider).unwrap_err();
    assert_eq!(error.to_string(), "1 x 3 heads against 3 x 1");
    assert!(error.hint().is_some());
    assert!(compare_heads(&first, &HeadGrid { layers: 2, ..first.clone() }).is_err());
    let none = HeadGrid { layers: 0, heads: 0, values: vec![] };
    assert_eq!(compare_heads(&none, &none).unwrap().share_up, Number::Undefined(Reason::Empty));
}

#[test]
fn wrong_spans_are_errors() {
    let plan = |spans: &[Vec<usize>]| SpanPlan::new(5, KeyWindow::All, &[0, 2], spans, 0);
    assert_eq!(plan(&[vec![1], vec![]]), Err(MeasureError::EmptySpan { span: 1 }));
    assert_eq!(plan(&[vec![1, 2]]), Err(MeasureError::SpanExcluded { span: 0, position: 2 }));
    assert_eq!(plan(&[vec![3, 3]]), Err(MeasureError::RepeatedPosition { span: 0, position: 3 }));
    let cut = plan(&[vec![3, 4, 5]]).unwrap_err();
    assert_eq!(cut.to_string(), "span 0: position 5 in a text of 5 tokens");
    assert!(cut.hint().unwrap().contains("cut"));
    assert!(SpanPlan::new(5, KeyWindow::All, &[5], &[], 0).is_err());
    assert!(SpanPlan::new(5, KeyWindow::Last(0), &[], &[], 0).is_err());
}

#[test]
fn a_head_whose_mass_is_all_excluded_is_undefined() {
    let plan = example_plan();
    let sink: Vec<f32> = (0..25).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let report = report(&plan, &sink);
    assert_printed(report.sink_share, 1.0);
    let span = report.spans[0];
    for number in [span.share, span.renormalised_share, span.lift, span.renormalised_lift, span.control_percentile] {
        assert_eq!(number, Number::Undefined(Reason::AllMassExcluded));
    }
    assert_printed(span.raw_share, 0.0);
    assert_eq!(span.usable_rows, 0);
}

#[test]
fn everything_excluded_and_no_tokens() {
    let plan = SpanPlan::new(2, KeyWindow::All, &[0, 1], &[], 0).unwrap();
    assert!(report(&plan, &[1.0, 0.0, 0.5, 0.5]).spans.is_empty());
    let none = SpanPlan::new(0, KeyWindow::All, &[], &[], 0).unwrap();
    let report = HeadAttention::new(&none).report().unwrap();
    assert_eq!(report.sink_share, Number::Undefined(Reason::NoTokens));
    assert!(HeadAttention::new(&none).add_rows(0, 0, &[]).is_err());
}

#[test]
fn wrong_rows_are_errors() {
    let plan = example_plan();
    let rows = square(&A_OLD);
    let with = |at: usize, value: f32| {
        let mut rows = rows.clone();
        rows[at] = value;
        HeadAttention::new(&plan).add_rows(0, 5, &rows).unwrap_err()
    };
    assert!(matches!(with(5, -0.1), MeasureError::NotProbabilities { query: 1, .. }));
    assert!(matches!(with(6, f32::NAN), MeasureError::NotProbabilities { query: 1, .. }));
    assert!(matches!(with(6, 0.7), MeasureError::NotProbabilities { query: 1, .. }));
    assert!(matches!(with(6, f32::INFINITY), MeasureError::NotProbabilities { query: 1, .. }));
    assert!(matches!(with(8, 0.1), MeasureError::NotCausal { query: 1, key: 3, .. }));

    let mut head = HeadAttention::new(&plan);
    assert!(matches!(head.add_rows(1, 5, &rows[5..10]), Err(MeasureError::RowOrder { expected: 0, found: 1, .. })));
    assert!(head.add_rows(0, 6, &[0.0; 6]).is_err());
    assert!(head.add_rows(0, 0, &[]).is_err());
    assert!(head.add_rows(0, 1, &rows[..2]).is_err());
    assert!(matches!(head.add_rows(0, 5, &rows[..7]), Err(MeasureError::Shape { expected: 10, found: 7, .. })));
    head.add_rows(0, 5, &rows[..10]).unwrap();
    assert!(matches!(head.add_rows(0, 5, &rows[..5]), Err(MeasureError::RowOrder { expected: 2, found: 0, .. })));
    assert!(matches!(head.report(), Err(MeasureError::RowOrder { expected: 2, found: 5, .. })));
    assert!(matches!(head.add_rows(2, 5, &rows[5..]), Err(MeasureError::RowOrder { expected: 2, .. })));
}

#[test]
fn sliding_window_has_its_own_baseline() {
    let plan = SpanPlan::new(9, KeyWindow::Last(3), &[0], &[vec![4, 5]], 0).unwrap();
    let span = report(&plan, &uniform(9, 3)).spans[0];
    assert_printed(span.lift, 1.0);
    assert_printed(span.renormalised_lift, 1.0);
    let full = SpanPlan::new(9, KeyWindow::All, &[0], &[vec![4, 5]], 0).unwrap();
    assert!((report(&full, &uniform(9, 3)).spans[0].lift.value().unwrap() - 1.0).abs() > 0.05);
}

#[test]
fn consecutive_controls_are_near_the_span_and_step_over_the_excluded() {
    let excluded: Vec<usize> = (0..600).step_by(7).collect();
    let span = vec![300, 302, 303];
    let plan = SpanPlan::new(600, KeyWindow::All, &excluded, std::slice::from_ref(&span), 11).unwrap();
    let baseline = plan.baselines()[0];
    assert_eq!((baseline.controls, baseline.control_kind), (CONTROL_SPANS, ControlKind::Consecutive));
    let mut different = std::collections::BTreeSet::new();
    for control in plan.controls(0) {
        assert_eq!(control.len(), 3);
        assert!(control.iter().all(|position| position % 7 != 0 && !span.contains(position)));
        // 200 candidates, a seventh of the positions excluded: all within 125 positions.
        assert!(control.iter().all(|position| position.abs_diff(302) <= 125));
        // Consecutive but for excluded positions.
        assert!(control.windows(2).all(|pair| (pair[0] + 1..pair[1]).all(|between| between % 7 == 0)));
        different.insert(control.clone());
    }
    assert_eq!(different.len(), CONTROL_SPANS);
    let again = SpanPlan::new(600, KeyWindow::All, &excluded, std::slice::from_ref(&span), 11).unwrap();
    assert_eq!(again, plan);
    let other = SpanPlan::new(600, KeyWindow::All, &excluded, &[span], 12).unwrap();
    assert_ne!(other.controls(0), plan.controls(0));
}

#[test]
fn short_texts_get_scattered_controls_or_none() {
    // The paper's "Definiendum" text: 58 tokens, span 15-16.
    let plan = SpanPlan::new(58, KeyWindow::All, &[0], &[vec![15, 16]], 1).unwrap();
    let baseline = plan.baselines()[0];
    assert_eq!((baseline.controls, baseline.control_kind), (CONTROL_SPANS, ControlKind::Scattered));
    for control in plan.controls(0) {
        assert!(control.len() == 2 && control[0] < control[1] && control[0] > 0);
        assert!(!control.contains(&15) && !control.contains(&16));
    }
    // "Prohibitory action": 19 of 40 tokens leave no room.
    let plan = SpanPlan::new(40, KeyWindow::All, &[0, 5, 8], &[(11..30).collect()], 1).unwrap();
    assert_eq!(plan.baselines()[0].control_kind, ControlKind::None);
    let span = report(&plan, &uniform(40, 40)).spans[0];
    assert_eq!(span.control_percentile, Number::Undefined(Reason::TooFewControls));
    assert!(span.share.value().is_some());
}

#[test]
fn percentile_counts_smaller_controls_and_half_of_the_ties() {
    let plan = SpanPlan::new(300, KeyWindow::All, &[0], &[vec![150]], 4).unwrap();
    let on = |favourite: usize| {
        let weight = |query: usize, key: usize| {
            let target = if query >= favourite { favourite } else { 0 };
            if key == target { 1.0 } else { 0.0 }
        };
        let rows: Vec<f32> = (0..300 * 300).map(|at| weight(at / 300, at % 300)).collect();
        report(&plan, &rows).spans[0].control_percentile
    };
    assert_eq!(on(150), Number::Value(100.0));
    // All mass on a position that is neither the span nor a control: all tie at 0.
    let unused = (1..300).find(|p| *p != 150 && !plan.controls(0).contains(&vec![*p])).unwrap();
    assert_eq!(on(unused), Number::Value(50.0));
    assert_eq!(on(plan.controls(0)[0][0]), Number::Value(49.5));
}

#[test]
fn spans_are_found_by_offset_and_exclusions_by_piece() {
    let ranges = [0..0, 0..3, 3..4, 4..9, 9..9, 9..12];
    assert_eq!(tokens_in_range(&ranges, 4..10), [3, 5]);
    assert_eq!(tokens_in_range(&ranges, 2..4), [1, 2]);
    assert!(tokens_in_range(&ranges, 12..20).is_empty());
    assert!(tokens_in_range(&ranges, 5..5).is_empty());
    for piece in ["'", "(", ")", ",", "-", ".", ":", "▁", "Ġ", " ", "▁(", "Ġ(", "▁...", "▁[...]"] {
        assert!(is_excluded_token(piece), "{piece}");
    }
    // The paper's code has no space before these, and no curly apostrophe.
    for piece in ["▁'", "▁,", "...", "’", "\\:", "a", "", "▁a"] {
        assert!(!is_excluded_token(piece), "{piece}");
    }
}

/// Lower-triangular probability rows of 1 to 24 tokens.
fn attention() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1usize..24).prop_flat_map(|tokens| {
        let weights = prop::collection::vec(0.0f32..1.0, tokens * tokens);
        weights.prop_map(move |mut weights| {
            for query in 0..tokens {
                let row = &mut weights[query * tokens..(query + 1) * tokens];
                row[query + 1..].fill(0.0);
                row[query] += 0.01;
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|weight| *weight /= sum);
            }
            (tokens, weights)
        })
    })
}

proptest! {
    /// Against sums over the whole matrix, and for any size of the blocks.
    #[test]
    fn streaming_agrees_with_the_matrix((tokens, rows) in attention(), block in 1usize..9, split in 0usize..24) {
        let split = split % tokens;
        let excluded: Vec<usize> = (0..tokens).filter(|position| position % 3 == 2).collect();
        let span: Vec<usize> = (0..=split).filter(|position| position % 3 != 2).collect();
        let plan = SpanPlan::new(tokens, KeyWindow::All, &excluded, std::slice::from_ref(&span), 0).unwrap();

        let mut streamed = HeadAttention::new(&plan);
        for first in (0..tokens).step_by(block) {
            let end = (first + block).min(tokens);
            // Keys end with the block.
            let part: Vec<f32> = (first..end).flat_map(|q| rows[q * tokens..q * tokens + end].to_vec()).collect();
            streamed.add_rows(first, end, &part).unwrap();
        }
        let streamed = streamed.report().unwrap();
        prop_assert_eq!(&streamed, &report(&plan, &rows));

        let mass = |keys: &dyn Fn(usize) -> bool| -> f64 {
            rows.iter().enumerate().filter(|(at, _)| keys(at % tokens)).map(|(_, &weight)| f64::from(weight)).sum()
        };
        let share = mass(&|key| span.contains(&key)) / mass(&|key| !excluded.contains(&key));
        prop_assert!((streamed.spans[0].share.value().unwrap() - share).abs() < 1e-12);
        let renormalised: f64 = rows.chunks(tokens).map(|row| {
            let sum = |keep: &dyn Fn(usize) -> bool| -> f64 {
                (0..tokens).filter(|&key| keep(key)).map(|key| f64::from(row[key])).sum()
            };
            sum(&|key| span.contains(&key)) / sum(&|key| !excluded.contains(&key))
        }).sum::<f64>() / tokens as f64;
        prop_assert!((streamed.spans[0].renormalised_share.value().unwrap() - renormalised).abs() < 1e-12);
    }
}

proptest! {
    /// Rows of a windowed layer come without the keys that no query of theirs sees.
    #[test]
    fn rows_without_unseen_keys_give_the_same_bits(tokens in 20usize..60, window in 1usize..9, seed in 0u64..99) {
        let span: Vec<usize> = (tokens / 2..tokens / 2 + 3).collect();
        let plan = SpanPlan::new(tokens, KeyWindow::Last(window), &[1, 2], &[span], seed).unwrap();
        let rows = uniform(tokens, window);
        let whole = report(&plan, &rows);
        let mut head = HeadAttention::new(&plan);
        for first_query in (0..tokens).step_by(7) {
            let queries = first_query..tokens.min(first_query + 7);
            let keys = (first_query + 1).saturating_sub(window) / 8 * 8..queries.end;
            let block: Vec<f32> =
                queries.flat_map(|query| rows[query * tokens..][keys.clone()].to_vec()).collect();
            head.add_rows_of_keys(first_query, keys, &block).unwrap();
        }
        prop_assert_eq!(head.report().unwrap(), whole);
    }
}
