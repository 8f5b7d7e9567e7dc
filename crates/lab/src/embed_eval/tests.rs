use std::f64::consts::FRAC_1_SQRT_2;

use lathe_measure::embedding::{Vectors, cosine};
use lathe_measure::{Measured, Reason};

use super::*;

/// Page 1.10: three texts, hidden states of width 2, router probabilities of two layers with three experts.
fn example() -> Features {
    let router = vec![
        0.25, 0.5, 0.25, 0.375, 0.125, 0.5, //
        0.5, 0.25, 0.25, 0.375, 0.125, 0.5, //
        0.25, 0.25, 0.5, 0.125, 0.75, 0.125,
    ];
    Features {
        hidden: Vectors::new(2, vec![3.0, 4.0, 4.0, 3.0, 0.0, 5.0]).expect("vectors"),
        router: Some(Vectors::new(6, router).expect("vectors")),
        tokens: 3,
        truncated: 0,
    }
}

/// All pairs of three texts; people find A and B alike.
fn pairs() -> Asked {
    let text = "name = \"t\"\ndescription = \"d\"\n[task]\ntype = \"sts\"\ndata = [{ file = \"a.jsonl\" }]";
    let pair = |texts, score| asked::ScoredPair { record: 1, texts, score };
    Asked {
        task: EmbedTask::parse(text, Notation::Toml, "t").expect("a task"),
        texts: ["a", "b", "c"].map(str::to_owned).to_vec(),
        what: What::Pairs(vec![pair([0, 1], 3.0), pair([0, 2], 2.0), pair([1, 2], 1.0)]),
        available: 3,
        left_out: Vec::new(),
        sha256: String::new(),
    }
}

fn spec() -> EmbedEvalSpec {
    serde_json::from_value(serde_json::json!({ "models": ["m"], "tasks": ["t"] })).expect("a spec")
}

fn made(kind: Kind, alpha: Alpha) -> kinds::Made {
    kind.made(&example(), &pairs(), alpha, 0).expect("vectors").expect("an alpha")
}

fn cosines(of: &Vectors) -> [f64; 3] {
    [[0, 1], [0, 2], [1, 2]].map(|[a, b]| cosine(of.row(a), of.row(b)))
}

fn near(found: [f64; 3], expected: [f64; 3]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 5e-7)
}

#[test]
fn worked_example_of_every_kind() {
    assert!(near(cosines(&made(Kind::Hidden, Alpha::Auto).vectors), [0.96, 0.8, 0.6]));
    assert!(near(cosines(&made(Kind::Router, Alpha::Auto).vectors), [0.92, 0.592_697_5, 0.592_697_5]));
    assert!(near(cosines(&made(Kind::Concatenated, Alpha::Auto).vectors), [0.958_787_9, 0.792_879_6, 0.599_641_6]));
    assert!(near(cosines(&made(Kind::HiddenStandardised, Alpha::Auto).vectors), [0.625, -0.746_202_5, -0.986_053_3]));
    assert!(near(cosines(&made(Kind::RouterStandardised, Alpha::Auto).vectors), [0.0, -FRAC_1_SQRT_2, -FRAC_1_SQRT_2]));
    let auto = made(Kind::Sum, Alpha::Auto).alpha.and_then(Number::value).expect("an alpha");
    assert!((auto - 0.954_499_2).abs() < 5e-7, "{auto}");
    assert_eq!(made(Kind::HiddenProjected, Alpha::Auto).vectors.width(), 6);
}

#[test]
fn the_sum_is_one_vector() {
    for (alpha, expected) in [(1.0, [1.88, 1.392_697_5, 1.192_697_5]), (0.5, [1.42, 1.096_348_7, 0.896_348_7])] {
        let sum = made(Kind::Sum, Alpha::Fixed(alpha)).vectors;
        assert!(near(cosines(&sum).map(|cosine| cosine * (1.0 + alpha)), expected));
    }
    // Not nearly: with the same bits.
    let [hidden, nothing] =
        [made(Kind::Hidden, Alpha::Auto), made(Kind::Sum, Alpha::Fixed(0.0))].map(|made| cosines(&made.vectors));
    assert_eq!(hidden.map(f64::to_bits), nothing.map(f64::to_bits));
}

#[test]
fn every_kind_has_a_row_beside_its_controls() {
    let found = rows(&example(), &pairs(), &spec()).expect("rows");
    let names: Vec<&str> = found.iter().map(|(row, _)| row.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "hs",
            "hs_standardised",
            "hs_projected",
            "rw",
            "rw_standardised",
            "concat",
            "concat_standardised",
            "sum",
            "sum_standardised"
        ]
    );
    let dense = Features { router: None, ..example() };
    let found = rows(&dense, &pairs(), &spec()).expect("rows");
    assert_eq!(found.iter().map(|(row, _)| row.width).collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_sum_of_what_never_differs_is_undefined() {
    let same = Vectors::new(2, vec![1.0, 2.0, 1.0, 2.0, 1.0, 2.0]).expect("vectors");
    let features = Features { router: Some(same), ..example() };
    let found = rows(&features, &pairs(), &spec()).expect("rows");
    let sum = &found.iter().find(|(row, _)| row.name == "sum").expect("a row").0;
    assert_eq!(sum.scores[0].estimate.value, Measured::Undefined(Reason::Constant));
    assert_eq!((sum.alpha, sum.width), (Some(Measured::Undefined(Reason::Constant)), 0));
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_read() {
    let problem = |change: fn(&mut EmbedEvalSpec)| {
        let mut spec = spec();
        change(&mut spec);
        check(&spec).expect_err("refused").to_string()
    };
    assert_eq!(problem(|spec| spec.models.clear()), "MODEL: no model is named");
    assert_eq!(problem(|spec| spec.tasks.clear()), "--task: no task is named");
    assert_eq!(problem(|spec| spec.limit = Some(1)), "--limit: fewer than 2 units have no interval");
    assert_eq!(problem(|spec| spec.clusterings = 0), "--clusterings: 0 clusterings have no mean");
    assert_eq!(problem(|spec| spec.alpha = Alpha::Fixed(-1.0)), "--alpha: -1 is no weight");
    assert_eq!(problem(|spec| spec.alpha = Alpha::Fixed(f64::NAN)), "--alpha: NaN is no weight");
    assert_eq!(problem(|spec| spec.prompts.push(Prompt::Usual)), "--prompt: `usual` is named twice");
}
