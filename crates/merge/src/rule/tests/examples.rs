//! Examples with known answers.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::*;
use crate::rule::Over;

/// Half a unit of the last digit that is printed.
const SIX: f64 = 5.1e-7;

fn check(rule: &Rule, models: &[&[f32]], expected: &[f64]) {
    close(&merge(rule, &Memory::vectors(models)), expected, SIX);
}

#[test]
fn linear() {
    let rule = |weights: &[f64], normalize| Rule::Linear { weights: weights.to_vec(), normalize };
    check(&rule(&[0.75, 0.25], true), &[&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]], &[1.5, 2.0, 2.5]);
    check(&rule(&[1.0, 0.3, 0.5], true), &[&[1.0], &[2.0], &[4.0]], &[2.0]);
    check(&rule(&[1.0, 0.3, 0.5], false), &[&[1.0], &[2.0], &[4.0]], &[3.6]);
    let none = refused(&rule(&[1.0, -1.0], true), &Memory::vectors(&[&[1.0], &[2.0]]));
    assert!(matches!(none, RuleError::WeightSum { .. }), "{none}");
    assert!(none.hint().is_some());
    let none = refused(&rule(&[0.1, 0.2, -0.3], true), &Memory::vectors(&[&[1.0], &[2.0], &[3.0]]));
    assert!(matches!(none, RuleError::WeightSum { .. }), "{none}");
    check(&rule(&[1.0, -1.0], false), &[&[1.0], &[3.0]], &[-2.0]);
}

#[test]
fn slerp() {
    let at = |t| Rule::Slerp { t };
    let right: [&[f32]; 2] = [&[1.0, 0.0], &[0.0, 2.0]];
    check(&at(0.25), &right, &[0.923_880, 0.765_367]);
    check(&at(0.5), &right, &[FRAC_1_SQRT_2, SQRT_2]);
    check(&at(0.0), &right, &[1.0, 0.0]);
    check(&at(1.0), &right, &[0.0, 2.0]);
    check(&at(0.5), &[&[1.0, 0.0], &[0.5, 0.866_025_4]], &[0.866_025, 0.5]);
    check(&at(0.5), &[&[1.0, 0.001], &[2.0, 0.0]], &[1.5, 0.0005]);
    check(&at(0.5), &[&[1.0, 0.0], &[-1.0, 0.0]], &[0.0, 0.0]);
    check(&at(0.5), &[&[0.0, 0.0], &[3.0, 4.0]], &[1.5, 2.0]);
    // t is not clamped.
    check(&at(2.0), &right, &[-1.0, 0.0]);
    let remarks =
        |a: &[f32], b: &[f32]| at(0.5).prepare(&MASK, &Memory::vectors(&[a, b])).expect("fits").remarks().to_vec();
    assert_eq!(remarks(right[0], right[1]), []);
    assert!(matches!(remarks(&[1.0, 0.001], &[2.0, 0.0])[..], [Remark::StraightLine { vectors: 1, of: 1, .. }]));
    assert!(matches!(remarks(&[0.0, 0.0], &[3.0, 4.0])[..], [Remark::ZeroVector { .. }]));
}

#[test]
fn nuslerp() {
    let rule = |weights, has_base, over| Rule::Nuslerp { weights, has_base, over };
    let right: [&[f32]; 2] = [&[1.0, 0.0], &[0.0, 2.0]];
    check(&rule([1.0, 3.0], false, Over::Tensor), &right, &[0.382_683, 1.847_759]);
    let with_base: [&[f32]; 3] = [&[1.0, 1.0], &[2.0, 1.0], &[1.0, 3.0]];
    check(&rule([1.0, 1.0], true, Over::Tensor), &with_base, &[1.707_107, 2.414_214]);
    check(&rule([1.0, -1.0], false, Over::Tensor), &right, &[FRAC_1_SQRT_2, SQRT_2]);
    let half = 0.5f64.sqrt();
    let mut rows = Memory::vectors(&[&[1.0, 0.0, 0.0, 2.0], &[0.0, 1.0, 0.0, 4.0]]);
    rows.shape = vec![2, 2];
    close(&merge(&rule([1.0, 1.0], false, Over::Rows), &rows), &[half, half, 0.0, 3.0], SIX);
    let mut columns = Memory::vectors(&[&[1.0, 0.0, 0.0, 2.0], &[0.0, 0.0, 1.0, 4.0]]);
    columns.shape = vec![2, 2];
    close(&merge(&rule([1.0, 1.0], false, Over::Columns), &columns), &[half, 0.0, half, 3.0], SIX);
    let prepared = rule([1.0, 1.0], false, Over::Rows).prepare(&MASK, &rows).expect("fits");
    assert!(matches!(prepared.remarks(), [Remark::StraightLine { vectors: 1, of: 2, .. }]), "{:?}", prepared.remarks());
}

#[test]
fn multislerp() {
    let rule = |weights: &[f64], has_base| Rule::Multislerp {
        weights: weights.to_vec(),
        normalize: true,
        has_base,
        eps: 1e-8,
    };
    let right: [&[f32]; 2] = [&[1.0, 0.0], &[0.0, 2.0]];
    check(&rule(&[1.0, 1.0], false), &right, &[1.060_660, 1.060_660]);
    check(&rule(&[1.0, 3.0], false), &right, &[0.553_399, 1.660_196]);
    check(&rule(&[1.0, 1.0], true), &[&[1.0, 1.0], &[2.0, 1.0], &[1.0, 3.0]], &[2.060_660, 2.060_660]);
    check(&rule(&[1.0, 1.0], false), &[&[1.0, 0.0], &[-3.0, 0.0]], &[-1.0, 0.0]);
    check(&rule(&[1.0; 3], false), &[&[1.0, 0.0], &[-4.0, 0.0], &[0.0, 0.0]], &[-1.0, 0.0]);
    let third = 0.75f32.sqrt();
    let none = refused(&rule(&[1.0; 3], false), &Memory::vectors(&[&[1.0, 0.0], &[-0.5, third], &[-0.5, -third]]));
    assert!(matches!(none, RuleError::NoMean { .. }), "{none}");
}

#[test]
fn karcher() {
    let rule = Rule::Karcher { max_iter: 10, tol: 1e-5 };
    check(&rule, &[&[1.0, 0.0], &[0.0, 2.0]], &[1.060_660, 1.060_660]);
    check(&rule, &[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]], &[0.577_350; 3]);
    check(&rule, &[&[0.0, 0.0], &[0.0, 2.0]], &[0.0, 1.0]);
    check(&rule, &[&[0.0, 3.0], &[0.0, -1.0]], &[0.0, 2.0]);
    check(&rule, &[&[0.0, 0.0], &[0.0, 0.0]], &[0.0, 0.0]);
    let short = Rule::Karcher { max_iter: 1, tol: 1e-5 };
    let three = Memory::vectors(&[&[1.0, 0.0, 0.1], &[0.0, 1.0, 0.0], &[0.6, 0.0, -1.0]]);
    let remarks = short.prepare(&MASK, &three).expect("fits").remarks().to_vec();
    assert!(matches!(remarks[..], [Remark::NotConverged { .. }]), "{remarks:?}");
}

#[test]
fn passthrough() {
    check(&Rule::Passthrough { scale: 1.0 }, &[&[1.0, -2.0]], &[1.0, -2.0]);
    check(&Rule::Passthrough { scale: 0.0 }, &[&[1.0, -2.0]], &[0.0, 0.0]);
    check(&Rule::Passthrough { scale: -0.5 }, &[&[1.0, -2.0]], &[-0.5, 1.0]);
}

#[test]
fn task_arithmetic() {
    let models: [&[f32]; 3] = [&[1.0, 1.0], &[2.0, 1.0], &[1.0, 3.0]];
    check(&Rule::Deltas(arithmetic(&[0.5, 0.25], 2.0)), &models, &[2.0, 2.0]);
    let normalized = Deltas { normalize: true, ..arithmetic(&[0.5, 0.25], 1.0) };
    check(&Rule::Deltas(normalized), &models, &[5.0 / 3.0, 5.0 / 3.0]);
}

#[test]
fn instruction_residual() {
    // Base, instruct model, updated base.
    let models: [&[f32]; 3] = [&[1.0, 2.0], &[1.5, 1.0], &[0.8, 2.4]];
    check(&Rule::Deltas(arithmetic(&[1.0, 1.0], 1.0)), &models, &[1.3, 1.4]);
    check(&Rule::Deltas(arithmetic(&[0.5, 1.0], 1.0)), &models, &[1.05, 1.9]);
    check(&Rule::Deltas(arithmetic(&[1.0, 1.0], 1.0)), &[models[0], models[1], models[0]], &[1.5, 1.0]);
    check(&Rule::Deltas(arithmetic(&[1.0, 1.0], 1.0)), &[models[0], models[0], models[2]], &[0.8, 2.4]);
}

const BASE: &[f32] = &[0.0; 4];
const FIRST: &[f32] = &[0.9, -0.1, 0.4, -0.6];
const SECOND: &[f32] = &[0.3, 0.5, -0.8, 0.1];

#[test]
fn ties_trims_elects_and_merges() {
    let check = |deltas: Deltas, expected: &[f64]| check(&Rule::Deltas(deltas), &[BASE, FIRST, SECOND], expected);
    check(ties(&[1.0, 1.0], 1.0), &[0.6, 0.5, -0.8, -0.6]);
    check(ties(&[1.0, 1.0], 0.75), &[0.6, 0.5, -0.8, -0.6]);
    check(Deltas { normalize: false, ..ties(&[1.0, 1.0], 0.75) }, &[1.2, 0.5, -0.8, -0.6]);
    check(Deltas { normalize: false, ..ties(&[1.0, 1.0], 1.0) }, &[1.2, 0.5, -0.8, -0.6]);
    check(ties(&[1.0, 1.0], 0.5), &[0.9, 0.5, -0.8, -0.6]);
    check(Deltas { normalize: false, ..ties(&[1.0, 1.0], 0.5) }, &[0.9, 0.5, -0.8, -0.6]);
    check(ties(&[0.6, 0.4], 0.75), &[0.66, 0.5, -0.8, -0.6]);
    check(Deltas { lambda: 0.5, ..ties(&[0.6, 0.4], 0.75) }, &[0.33, 0.25, -0.4, -0.3]);
    let trimmed =
        Deltas { weights: vec![1.0, 0.0], consensus: Consensus::Sum, normalize: false, ..ties(&[1.0, 1.0], 0.75) };
    check(trimmed.clone(), &[0.9, 0.0, 0.4, -0.6]);
    check(Deltas { weights: vec![0.0, 1.0], ..trimmed }, &[0.3, 0.5, -0.8, 0.0]);
}

#[test]
fn edges_of_ties() {
    check(&Rule::Deltas(ties(&[1.0, 1.0], 1.0)), &[&[0.0], &[1.0], &[-1.0]], &[1.0]);
    let single = Rule::Deltas(ties(&[-0.5], 1.0));
    let models: [&[f32]; 2] = [&[0.0, 0.0], &[1.0, -2.0]];
    check(&single, &models, &[1.0, -2.0]);
    let prepared = single.prepare(&MASK, &Memory::vectors(&models)).expect("fits");
    assert_eq!(prepared.remarks(), [Remark::WeightCancels { model: 0 }]);
    check(&Rule::Deltas(Deltas { normalize: false, ..ties(&[-0.5], 1.0) }), &models, &[-0.5, 1.0]);
    // A density below one number keeps one.
    let little = Rule::Deltas(ties(&[1.0], 0.2));
    let models: [&[f32]; 2] = [&[0.0; 4], &[0.1, -0.3, 0.3, 0.2]];
    check(&little, &models, &[0.0, -0.3, 0.0, 0.0]);
    let prepared = little.prepare(&MASK, &Memory::vectors(&models)).expect("fits");
    assert_eq!(prepared.remarks(), [Remark::KeptOne { model: 0 }]);
    for density in [0.0, -0.1, 1.01, f64::NAN] {
        let none = refused(&Rule::Deltas(ties(&[1.0], density)), &Memory::vectors(&models));
        assert!(matches!(none, RuleError::Parameter { name: "density", .. }), "{none}");
    }
}

#[test]
fn protect_keeps_what_lost_by_little() {
    let rule = |slack| Rule::Deltas(Deltas { consensus: Consensus::Protect { slack }, ..ties(&[1.0, 1.0], 1.0) });
    let models: [&[f32]; 3] = [&[0.0], &[0.4], &[-0.5]];
    check(&Rule::Deltas(ties(&[1.0, 1.0], 1.0)), &models, &[-0.5]);
    check(&rule(0.3), &models, &[0.4]);
    check(&rule(0.2), &models, &[-0.5]);
    // What was trimmed is not protected.
    let trimmed = Deltas { consensus: Consensus::Protect { slack: 9.0 }, ..ties(&[1.0, 1.0], 0.5) };
    check(&Rule::Deltas(trimmed), &[&[0.0, 0.0], &[0.4, 2.0], &[-0.5, 0.1]], &[-0.5, 2.0]);
}

#[test]
fn dare_rescales() {
    let models: [&[f32]; 2] = [&[0.0; 4], &[0.2, 0.4, -0.6, 0.8]];
    let rule = |rescale| {
        let deltas = arithmetic(&[1.0], 1.0);
        Rule::Deltas(Deltas { sparsify: vec![Sparsify::Random { density: 0.75 }], rescale, ..deltas })
    };
    // A seed whose draws drop the second number alone.
    let inputs = Memory::vectors(&models);
    let with = |rescale, seed| {
        let prepared = rule(rescale).prepare(&MaskKey { seed, ..MASK }, &inputs).expect("fits");
        whole(&prepared, &inputs)
    };
    let drops_second = |seed: &u64| with(Rescale::None, *seed) == [0.2, 0.0, -0.6, 0.8];
    let seed = (0..1000).find(drops_second).expect("one of 16 masks");
    close(&with(Rescale::InverseDensity, seed), &[0.266_667, 0.0, -0.8, 1.066_667], SIX);
    close(&with(Rescale::L1, seed), &[0.25, 0.0, -0.75, 1.0], SIX);
}

#[test]
fn della_ranks_rows() {
    let row: &[f32] = &[0.1, -0.4, 0.2, 0.3];
    let deltas = |rescale| Deltas {
        sparsify: vec![Sparsify::RandomByRank { density: 0.5, epsilon: 0.2 }],
        rescale,
        ..arithmetic(&[1.0], 1.0)
    };
    // How often each number is kept, over seeds; divided by its own probability it is kept on average.
    let inputs = Memory::vectors(&[&[0.0; 4], row]);
    let seeds = 20_000;
    let (mut kept, mut mean) = ([0.0; 4], [0.0; 4]);
    for seed in 0..seeds {
        let of = |rescale| {
            let prepared = Rule::Deltas(deltas(rescale)).prepare(&MaskKey { seed, ..MASK }, &inputs).expect("fits");
            assert_eq!(prepared.unit(), 4);
            whole(&prepared, &inputs)
        };
        for (kept, x) in kept.iter_mut().zip(of(Rescale::None)) {
            *kept += f64::from(u8::from(x != 0.0)) / seeds as f64;
        }
        for (mean, x) in mean.iter_mut().zip(of(Rescale::InverseDensity)) {
            *mean += f64::from(x) / seeds as f64;
        }
    }
    // Standard error 0.0035.
    for (kept, expected) in kept.iter().zip([0.3, 0.7, 0.433_33, 0.566_67]) {
        assert!((kept - expected).abs() < 0.018, "{kept} {expected}");
    }
    for (mean, x) in mean.iter().zip(row) {
        assert!((mean - f64::from(*x)).abs() < 0.02, "{mean} {x}");
    }
    let narrow =
        Deltas { sparsify: vec![Sparsify::RandomByRank { density: 0.5, epsilon: 0.2 }], ..deltas(Rescale::L1) };
    let mut column = Memory::vectors(&[&[0.0; 4], row]);
    column.shape = vec![4, 1];
    assert!(merge(&Rule::Deltas(narrow), &column).iter().all(|x| x.is_finite()));
    for (density, epsilon) in [(0.5, 0.5), (0.9, 0.15), (0.1, 0.1), (0.5, -0.1)] {
        let out = Deltas { sparsify: vec![Sparsify::RandomByRank { density, epsilon }], ..deltas(Rescale::L1) };
        let none = refused(&Rule::Deltas(out), &inputs);
        assert!(matches!(none, RuleError::Parameter { name: "epsilon", .. }), "{none}");
    }
    let all = Deltas { sparsify: vec![Sparsify::RandomByRank { density: 1.0, epsilon: 0.15 }], ..deltas(Rescale::L1) };
    assert_eq!(merge(&Rule::Deltas(all), &inputs), row);
}

#[test]
fn breadcrumbs_drop_both_ends() {
    let rule = |density, gamma| {
        Rule::Deltas(Deltas { sparsify: vec![Sparsify::Middle { density, gamma }], ..arithmetic(&[1.0], 1.0) })
    };
    let ten: Vec<f32> = (1..=10).map(|x| x as f32).collect();
    let kept = |density, gamma| merge(&rule(density, gamma), &Memory::vectors(&[&[0.0; 10], &ten]));
    assert_eq!(kept(0.7, 0.1), [0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.0]);
    assert_eq!(kept(0.9, 0.5), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.0]);
    // A small tensor loses none of its largest, and keeps the rest.
    let many: Vec<f32> = (1..=64).map(|x| x as f32).collect();
    let out = merge(&rule(0.9, 0.01), &Memory::vectors(&[&[0.0; 64], &many]));
    assert_eq!(out.iter().filter(|x| **x != 0.0).count(), 57);
    assert_eq!(out[63], 64.0);
    // Equal ones: the first are the largest.
    let equal = Memory::vectors(&[&[0.0; 5], &[1.0, -1.0, 1.0, -1.0, 1.0]]);
    assert_eq!(merge(&rule(0.4, 0.2), &equal), [0.0, -1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn model_stock() {
    let rule = Rule::ModelStock { by_rows: false };
    check(&rule, &[&[0.0, 0.0], &[1.0, 0.0], &[0.5, 0.866_025_4]], &[0.5, 0.288_675]);
    check(&rule, &[&[3.0, 1.0], &[4.0, 1.0], &[3.0, 2.0]], &[3.0, 1.0]);
    check(&rule, &[&[3.0, 1.0], &[4.0, 1.5], &[4.0, 1.5]], &[4.0, 1.5]);
    for (cosine, sine) in [(-0.5, 0.866_025_4), (-1.0, 0.0)] {
        let apart = Memory::vectors(&[&[0.0, 0.0], &[1.0, 0.0], &[cosine, sine]]);
        let prepared = rule.prepare(&MASK, &apart).expect("fits");
        assert_eq!(whole(&prepared, &apart), [0.0, 0.0]);
        assert!(matches!(prepared.remarks(), [Remark::Clamped { .. }]), "{:?}", prepared.remarks());
    }
    let mut rows = Memory::vectors(&[&[0.0; 4], &[1.0, 0.0, 1.0, 0.0], &[0.5, 0.866_025_4, 0.0, 1.0]]);
    rows.shape = vec![2, 2];
    close(&merge(&Rule::ModelStock { by_rows: true }, &rows), &[0.5, 0.288_675, 0.0, 0.0], SIX);
    let none = refused(&rule, &Memory::vectors(&[&[0.0], &[1.0]]));
    assert!(matches!(none, RuleError::InputCount { .. }), "{none}");
}

#[test]
fn sce() {
    let models: [&[f32]; 3] = [&[0.0, 0.0], &[1.0, -1.0], &[2.0, 3.0]];
    check(&Rule::Sce { select_topk: 1.0 }, &models, &[1.866_667, 3.0]);
    check(&Rule::Sce { select_topk: 0.5 }, &models, &[0.0, 3.0]);
    check(&Rule::Sce { select_topk: 0.5 }, &[&[1.0, 1.0], &[2.0, 3.0]], &[2.0, 3.0]);
    check(&Rule::Sce { select_topk: 0.5 }, &[&[1.0, 1.0], &[2.0, 3.0], &[2.0, 3.0]], &[2.0, 3.0]);
}

#[test]
fn nearswap() {
    let models: [&[f32]; 2] = [&[1.0; 3], &[1.0, 1.0001, 1.001]];
    check(&Rule::Nearswap { t: 1e-4 }, &models, &[1.0, 1.0001, 1.0001]);
    assert_eq!(merge(&Rule::Nearswap { t: 0.0 }, &Memory::vectors(&models)), models[0]);
    assert_eq!(merge(&Rule::Nearswap { t: 1.0 }, &Memory::vectors(&models)), models[1]);
}
