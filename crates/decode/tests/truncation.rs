//! Kept sets against those of transformers (data/make_kept.py), whose rules follow each other in the same order.

#![expect(clippy::unwrap_used, reason = "tests")]

use lathe_decode::{Kept, Truncation};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    logits: Vec<f32>,
    rules: Truncation,
    kept: Vec<u32>,
}

#[test]
fn kept_sets_are_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/kept.json")).unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        assert_eq!(case.rules.keep(&case.logits), Kept::Ids(case.kept), "{:?}", case.rules);
    }
}
