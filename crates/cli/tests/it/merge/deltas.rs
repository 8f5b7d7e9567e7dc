//! Methods that combine differences from a base.

use super::{Weights, assert_follows, combination, difference, merged, moved, weights};
use crate::bench::Bench;
use crate::models::copy;

/// A base and two models that were moved away from it.
fn three() -> (Bench, [Weights; 3]) {
    let bench = Bench::new();
    copy(&bench, "llama", "base");
    moved(&bench, "a", 1, 0.1);
    moved(&bench, "b", 2, 0.1);
    let all = ["base", "a", "b"].map(|folder| weights(&bench, folder));
    (bench, all)
}

#[test]
fn task_arithmetic_adds_weighted_differences() {
    let (bench, [base, a, b]) = three();
    let yaml = "
merge_method: task_arithmetic
base_model: base
models:
  - {model: a, parameters: {weight: 0.5}}
  - {model: base}
  - {model: b, parameters: {weight: -0.25}}
parameters: {lambda: 1.5}
";
    let out = merged(&bench, yaml, "out", &[]);
    assert_follows(&out, &[&base, &a, &b], |_, inputs| combination(&[0.625, 0.75, -0.375], inputs));

    // Without weight nothing moves; with one model of weight 1 the result is that model. Both to the last bit.
    let none = merged(&bench, &yaml.replace("1.5", "0"), "none", &[]);
    assert_eq!(none, base);
    let one = "{merge_method: task_arithmetic, base_model: base, models: [{model: a, parameters: {weight: 1}}]}";
    assert_eq!(merged(&bench, one, "one", &[]), a);
}

/// The largest `density` of the differences, the first of equal ones; zeros elsewhere.
fn trimmed(difference: Vec<f64>, density: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..difference.len()).collect();
    order.sort_by(|&i, &j| difference[j].abs().total_cmp(&difference[i].abs()));
    let mut kept = vec![0.0; difference.len()];
    for &i in &order[..(density * difference.len() as f64) as usize] {
        kept[i] = difference[i];
    }
    kept
}

/// Which of two differences count, and what they become.
fn elected(a: f64, b: f64, weights: [f64; 2], normalise: bool) -> f64 {
    let (a, b) = (weights[0] * a, weights[1] * b);
    let sign = if a + b >= 0.0 { 1.0 } else { -1.0 };
    let counts = |x: f64, w: f64| if x * sign > 0.0 { (x, w) } else { (0.0, 0.0) };
    let (a, b) = (counts(a, weights[0]), counts(b, weights[1]));
    match a.1 + b.1 {
        weights if normalise && weights != 0.0 => (a.0 + b.0) / weights,
        _ => a.0 + b.0,
    }
}

#[test]
fn ties_trims_elects_and_adds() {
    let (bench, [base, a, b]) = three();
    for (normalize, out) in [(true, "mean"), (false, "sum")] {
        let yaml = format!(
            "
merge_method: ties
base_model: base
models:
  - {{model: a, parameters: {{weight: 0.6, density: 0.4}}}}
  - {{model: b, parameters: {{weight: 0.4, density: 0.75}}}}
parameters: {{lambda: 0.7, normalize: {normalize}}}
"
        );
        let merged = merged(&bench, &yaml, out, &[]);
        assert_follows(&merged, &[&base, &a, &b], |_, inputs| {
            let a = trimmed(difference(&inputs[1], &inputs[0]), 0.4);
            let b = trimmed(difference(&inputs[2], &inputs[0]), 0.75);
            let both = a.iter().zip(&b).zip(&inputs[0]);
            both.map(|((a, b), base)| base + 0.7 * elected(*a, *b, [0.6, 0.4], normalize)).collect()
        });
    }
}

/// δ of the protected model, of the other one, and of the result, which is the same everywhere.
fn protected(bench: &Bench, slack: &str) -> Vec<f32> {
    let out = format!("slack-{slack}");
    bench.succeed(&[
        "merge",
        "protect",
        "--base",
        "zero",
        "--keep",
        "keep",
        "--other",
        "other",
        "--slack",
        slack,
        "--density",
        "1",
        "--out",
        &out,
    ]);
    let merged = weights(bench, &out);
    let mut values: Vec<f32> = merged.values().flat_map(|tensor| tensor.values()).collect();
    values.dedup();
    values
}

#[test]
fn a_protected_change_is_not_outvoted_by_a_slightly_larger_one() {
    let bench = Bench::new();
    for (folder, value) in [("zero", 0.0), ("keep", 0.4), ("other", -0.5)] {
        crate::models::with_tensors(&bench, folder, |tensors| {
            for tensor in tensors.values_mut() {
                *tensor = crate::tensors::Stored::f32(&tensor.shape, &vec![value; tensor.values().len()]);
            }
        });
    }
    // 0.5 is at most 1.3 times 0.4, and more than 1.2 times.
    assert_eq!(protected(&bench, "0.3"), [0.4]);
    assert_eq!(protected(&bench, "0.2"), [-0.5]);
}
