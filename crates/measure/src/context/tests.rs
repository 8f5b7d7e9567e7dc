//! The worked examples of measure.md 3.8, and what must hold for any text.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::{Measured, Number, Reason};

/// 3.8 A: answer of the context, memorised answer, output.
const OUTPUTS: [[&str; 3]; 7] = [
    ["Herat", "Kabul", "The capital city of Afghanistan is Herat."],
    ["Durrës", "Tirana", "Tirana"],
    ["Oran", "Algiers", "The capital moved from Algiers to Oran."],
    ["New Cairo", "Cairo", "New Cairo"],
    ["Hulhumalé", "Malé", "It is Hulhumale."],
    ["Encamp", "Andorra la Vella", "I do not know."],
    ["Bo", "Freetown", "Both cities were considered."],
];

/// Numbers of the items, from 1, that hold the context's answer, the memorised one, both, and neither.
fn hits(matching: Matching) -> [Vec<usize>; 4] {
    let found = OUTPUTS.map(|[context, memorised, output]| mentions(output, context, memorised, matching));
    let numbers = |is: &dyn Fn(Mentions) -> bool| (1..=7).filter(|number| is(found[number - 1])).collect();
    [
        numbers(&|found| found.context),
        numbers(&|found| found.parametric),
        numbers(&|found| found.class() == Answered::Both),
        numbers(&|found| found.class() == Answered::Neither),
    ]
}

#[test]
fn the_three_scorers() {
    assert_eq!(hits(Matching::Substring), [vec![1, 3, 4, 7], vec![2, 3, 4], vec![3, 4], vec![5, 6]]);
    assert_eq!(hits(Matching::Words), [vec![1, 3, 4, 5], vec![2, 3, 4], vec![3, 4], vec![6, 7]]);
    assert_eq!(hits(Matching::Safe), [vec![1, 3, 4, 5], vec![2, 3], vec![3], vec![6, 7]]);
}

#[test]
fn rates_of_the_example() {
    let item = |(question, [context, memorised, output]): (usize, [&str; 3])| Item {
        question,
        mentions: mentions(output, context, memorised, Matching::Safe),
        preference: Number::Undefined(Reason::NotGiven),
        margin: Number::Undefined(Reason::NotGiven),
    };
    let items: Vec<Item> = OUTPUTS.into_iter().enumerate().map(item).collect();
    let of = reliance(&items, 0);
    assert_eq!((of.items, of.questions), (7, 7));
    assert_eq!(of.classes, Classes { context_only: 3, parametric_only: 1, both: 1, neither: 2 });
    assert_eq!(of.context_rate.value, Number::Value(4.0 / 7.0));
    assert_eq!(of.parametric_rate.value, Number::Value(2.0 / 7.0));
    assert_eq!(of.context_only_rate.value, Number::Value(3.0 / 7.0));
    assert_eq!(of.preference.value, Number::Undefined(Reason::Empty));
    // Ten answers to five questions that all follow the context are five, and no certainty.
    let sure = |question| Item { question, mentions: Mentions { context: true, parametric: false }, ..items[0] };
    let all = reliance(&(0..10).map(|at| sure(at / 2)).collect::<Vec<_>>(), 0);
    assert_eq!(all.context_rate, crate::shares::share(5, 5));
    assert_eq!(all.parametric_rate, crate::shares::share(0, 5));
    assert_eq!(reliance(&[], 0).context_rate.value, Number::Undefined(Reason::Empty));
}

/// 3.8 B: negative log-likelihood per token without and with the context.
const RECORDS: [(f64, f64); 8] =
    [(0.4, 0.3), (2.5, 0.2), (1.1, 0.9), (3.0, 1.0), (0.9, 0.8), (1.8, 0.4), (2.2, 2.0), (0.7, 0.1)];

#[test]
fn the_filter_of_the_example() {
    let without = RECORDS.map(|(without, _)| without);
    let dropped = lowest(&without, 0.25).unwrap();
    assert_eq!(dropped, [0, 7]);
    let perplexities: Vec<String> = dropped.iter().map(|index| format!("{:.3}", without[*index].exp())).collect();
    assert_eq!(perplexities, ["1.492", "2.014"]);
    // By the gap: e1, e3's is 0.2, and e5, which ties with e1 but for rounding.
    let gaps = RECORDS.map(|(without, with)| ((without - with) * 10.0_f64).round() / 10.0);
    assert_eq!(lowest(&gaps, 0.25).unwrap(), [0, 4]);
}

#[test]
fn shares_are_rounded_down_and_ties_go_by_order() {
    assert_eq!(lowest(&[1.0; 7], 0.25).unwrap(), [0]);
    assert_eq!(lowest(&[2.0, 1.0, 1.0, 1.0], 0.5).unwrap(), [1, 2]);
    assert_eq!(lowest(&[1.0; 10], 0.3).unwrap(), [0, 1, 2]);
    assert_eq!(lowest(&[1.0; 3], 0.0).unwrap(), [0; 0]);
    assert_eq!(lowest(&[], 0.25).unwrap(), [0; 0]);
    assert_eq!(lowest(&[3.0, 1.0], 1.0).unwrap(), [0, 1]);
    assert!(lowest(&[1.0], 1.5).is_err() && lowest(&[f64::NAN], 0.5).is_err());
}

#[test]
fn preference_and_margin() {
    // 3.8 C.
    let preference = context_preference(2.0, 1.0).value().unwrap();
    assert_eq!(format!("{preference:.6}"), "0.731059");
    assert_eq!(context_preference(-5000.0, 5000.0), Number::Value(0.0));
    assert_eq!(context_preference(f64::NAN, 1.0), Number::Undefined(Reason::Overflow));
    assert_eq!(log_probability_margin((-3.0, 2), (-1.0, 1)), Number::Value(-0.5));
    assert_eq!(log_probability_margin((-3.0, 0), (-1.0, 1)), Number::Undefined(Reason::NoTokens));
}

#[test]
fn normalisation() {
    assert_eq!(normalised("  São Tomé,  (the) CITY—now! "), "sao tome the city now");
    assert_eq!(normalised("ﬁve №3 İzmir Ⅳ"), "five no3 izmir iv");
    assert_eq!(normalised("?!…"), "");
    // Vowel signs are no accents.
    assert_eq!(normalised("दिल्ली").chars().count(), 5);
}

#[test]
fn matching_at_the_edges() {
    let safe = |output, context, memorised| mentions(output, context, memorised, Matching::Safe).class();
    assert_eq!(safe("", "Oran", "Algiers"), Answered::Neither);
    assert_eq!(safe("Cairo, not New Cairo", "New Cairo", "Cairo"), Answered::Both);
    assert_eq!(safe("New Cairo", "Cairo", "New Cairo"), Answered::ParametricOnly);
    assert_eq!(safe("new new cairo cairo", "Cairo", "New Cairo"), Answered::Both);
    // What is taken away does not join what stands around it.
    assert_eq!(safe("a b c b", "b c", "c"), Answered::ContextOnly);
    assert_eq!(safe("x a b y", "x y", "a b"), Answered::ParametricOnly);
    assert_eq!(safe("anything", "", "..."), Answered::Neither);
    assert_eq!(mentions("any", "", "any", Matching::Substring).class(), Answered::ParametricOnly);
}

#[test]
fn traps_of_items() {
    let none: [Trap; 0] = [];
    assert_eq!(traps("The seat is Herat now.", "Where is the seat?", "Herat", "Kabul"), none);
    assert_eq!(traps("It moved from Kabul to Herat.", "Where?", "Herat", "Kabul"), [Trap::MemorisedInContext]);
    assert_eq!(
        traps("It is Herat.", "Is Kabul or Herat it?", "Herat", "Kabul"),
        [Trap::MemorisedInQuestion, Trap::AnswerInQuestion]
    );
    assert_eq!(traps("Hulhumale.", "Where?", "Hulhumalé", "Malé"), [Trap::AnswerNotInContext, Trap::NestedAnswers]);
    assert_eq!(traps("Bo.", "Where?", "Bo", "Freetown"), [Trap::ShortAnswer]);
    assert_eq!(traps("Malé.", "Where?", "Malé", "male"), [Trap::EqualAnswers, Trap::MemorisedInContext]);
    assert!(traps("x", "Where?", "", "Freetown")[0].is_fatal());
    assert_eq!(relative_position("é is Oran", "Oran"), Some(5.0 / 9.0));
    assert_eq!(relative_position("Oran", "Bo"), None);
}

#[test]
fn intervals_resample_questions() {
    let number = |value: bool| [Number::from(f64::from(u8::from(value)))];
    // Ten questions of four items that agree are worth ten items and not forty.
    let clustered: (Vec<usize>, Vec<[Number; 1]>) = (0..40).map(|i| (i / 4, number((i / 4) % 2 == 0))).unzip();
    let single: (Vec<usize>, Vec<[Number; 1]>) = (0..10).map(|i| (i, number(i % 2 == 0))).unzip();
    let apart: (Vec<usize>, Vec<[Number; 1]>) = (0..40).map(|i| (i, number((i / 4) % 2 == 0))).unzip();
    let [clustered] = mean_by_question(&clustered.0, &clustered.1, 7);
    let [single] = mean_by_question(&single.0, &single.1, 7);
    let [apart] = mean_by_question(&apart.0, &apart.1, 7);
    assert_eq!((clustered.n, clustered.value, clustered.interval), (10, single.value, single.interval));
    let width = |of: Measured<crate::Interval>| of.value().map(|of| of.high - of.low).unwrap();
    assert!(width(apart.interval) < 0.7 * width(clustered.interval));
    // Names of questions and undefined values change nothing.
    let named = mean_by_question(&[9, 3], &[number(true), number(false)], 1);
    let more = [number(true), number(false), [Number::Undefined(Reason::NotGiven)]];
    assert_eq!(mean_by_question(&[0, 5, 5], &more, 1), named);
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(text in "\\PC{0,24}") {
        let once = normalised(&text);
        prop_assert_eq!(normalised(&once), once.clone());
        prop_assert!(!once.starts_with(' ') && !once.ends_with(' ') && !once.contains("  "));
    }

    #[test]
    fn safe_finds_no_more_than_words(output in "[ab ]{0,12}", context in "[ab]( [ab]){0,2}", memorised in "[ab]( [ab]){0,2}") {
        let safe = mentions(&output, &context, &memorised, Matching::Safe);
        let words = mentions(&output, &context, &memorised, Matching::Words);
        prop_assert!(words.context || !safe.context);
        prop_assert!(words.parametric || !safe.parametric);
        // What is found at all is found by at least one of the two.
        prop_assert_eq!(safe.context || safe.parametric, words.context || words.parametric);
        // The roles of the two answers are no part of the matching.
        let swapped = mentions(&output, &memorised, &context, Matching::Safe);
        prop_assert_eq!((safe.context, safe.parametric), (swapped.parametric, swapped.context));
    }

    #[test]
    fn classes_sum_to_all(found in proptest::collection::vec((any::<bool>(), any::<bool>(), 0usize..4), 1..20)) {
        let undefined = Number::Undefined(Reason::NotGiven);
        let items: Vec<Item> = found
            .iter()
            .map(|(context, parametric, question)| Item {
                question: *question,
                mentions: Mentions { context: *context, parametric: *parametric },
                preference: undefined,
                margin: undefined,
            })
            .collect();
        let Reliance { classes, context_rate, context_only_rate, .. } = reliance(&items, 3);
        prop_assert_eq!(classes.context_only + classes.parametric_only + classes.both + classes.neither, items.len());
        let rate = |count: usize| count as f64 / items.len() as f64;
        prop_assert!((context_rate.value.value().unwrap() - rate(classes.context_only + classes.both)).abs() < 1e-12);
        prop_assert!((context_only_rate.value.value().unwrap() - rate(classes.context_only)).abs() < 1e-12);
    }

    #[test]
    fn the_lowest_are_not_above_the_rest(values in proptest::collection::vec(-3i8..3, 0..30), quarters in 0u8..5) {
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let dropped = lowest(&values, f64::from(quarters) / 4.0).unwrap();
        prop_assert_eq!(dropped.len(), values.len() * usize::from(quarters) / 4);
        let highest = dropped.iter().map(|index| values[*index]).fold(f64::NEG_INFINITY, f64::max);
        prop_assert!((0..values.len()).filter(|index| !dropped.contains(index)).all(|index| values[index] >= highest));
    }
}
