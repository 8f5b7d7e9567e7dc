//! What holds for all inputs.

use proptest::prelude::*;

use super::definition::define;
use super::*;
use crate::rule::Over;

/// Numbers between -1 and 1 that look random; coarse ones have many equal sizes.
fn noise(len: usize, seed: u32, coarse: bool) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let x = (state as f32 / u32::MAX as f32) * 2.0 - 1.0;
        if coarse { (x * 16.0).round() / 16.0 } else { x }
    };
    (0..len).map(|_| next()).collect()
}

/// A base and its children, each a little away from it.
fn family(shape: &[usize], count: usize, seed: u32, coarse: bool) -> Memory {
    let len = shape.iter().product();
    let base = noise(len, seed, coarse);
    let child = |child: u32| -> Vec<f32> {
        let step = noise(len, seed + 100 * child, coarse);
        base.iter().zip(&step).map(|(b, d)| b + d * 0.25).collect()
    };
    let models = (0..count as u32).map(|m| if m == 0 { base.clone() } else { child(m) }).collect();
    Memory { shape: shape.to_vec(), models }
}

/// A rule for every method and many of their parameters, with the number of inputs it takes.
fn rules() -> Vec<(Rule, usize)> {
    let mut rules = vec![
        (Rule::Passthrough { scale: 0.7 }, 1),
        (Rule::Linear { weights: vec![0.6, 0.4], normalize: false }, 2),
        (Rule::Linear { weights: vec![1.0, 0.3, 0.5], normalize: true }, 3),
        (Rule::Slerp { t: 0.3 }, 2),
        (Rule::Nuslerp { weights: [1.0, 3.0], has_base: false, over: Over::Tensor }, 2),
        (Rule::Nuslerp { weights: [1.0, 3.0], has_base: true, over: Over::Tensor }, 3),
        (Rule::Nuslerp { weights: [1.0, 2.0], has_base: true, over: Over::Rows }, 3),
        (Rule::Nuslerp { weights: [1.0, 2.0], has_base: false, over: Over::Columns }, 2),
        (Rule::Nuslerp { weights: [2.0, 1.0], has_base: true, over: Over::Columns }, 3),
        (Rule::Multislerp { weights: vec![1.0, 2.0, 0.5], normalize: true, has_base: false, eps: 1e-8 }, 3),
        (Rule::Multislerp { weights: vec![0.3, 0.4], normalize: false, has_base: true, eps: 1e-8 }, 3),
        (Rule::Karcher { max_iter: 10, tol: 1e-5 }, 3),
        (Rule::ModelStock { by_rows: false }, 3),
        (Rule::ModelStock { by_rows: true }, 4),
        (Rule::Sce { select_topk: 1.0 }, 3),
        (Rule::Sce { select_topk: 0.4 }, 4),
        (Rule::Nearswap { t: 0.1 }, 2),
        (Rule::Deltas(arithmetic(&[0.5, 0.8], 1.3)), 3),
        (Rule::Deltas(Deltas { normalize: true, ..arithmetic(&[0.5, 0.8], 0.7) }), 3),
    ];
    let kinds = [
        Sparsify::All,
        Sparsify::Largest { density: 0.5 },
        Sparsify::Largest { density: 0.07 },
        Sparsify::Random { density: 0.6 },
        Sparsify::RandomByRank { density: 0.5, epsilon: 0.2 },
        Sparsify::Middle { density: 0.7, gamma: 0.05 },
    ];
    let rescales = [Rescale::None, Rescale::InverseDensity, Rescale::L1];
    let consensus = [Consensus::Sum, Consensus::Sign, Consensus::Protect { slack: 0.3 }];
    for (index, kind) in kinds.into_iter().enumerate() {
        for rescale in rescales {
            for consensus in consensus {
                let deltas = Deltas {
                    weights: vec![0.7, 0.4, 1.0],
                    // (The third model's mask is of another kind.)
                    sparsify: vec![kind, kind, kinds[(index + 1) % kinds.len()]],
                    rescale,
                    consensus,
                    normalize: rescale != Rescale::None,
                    lambda: 0.9,
                };
                rules.push((Rule::Deltas(deltas), 4));
            }
        }
    }
    rules
}

const SHAPES: [&[usize]; 9] = [&[], &[1], &[7], &[1, 1], &[5, 1], &[1, 9], &[13, 17], &[3, 5, 8], &[40, 61]];

fn tiled(rule: &Rule, inputs: &Memory, tile: usize) -> Prepared {
    rule.prepare_by(Some(tile), &MASK, inputs).expect("inputs that fit")
}

#[test]
fn rules_are_their_definitions() {
    for (rule, count) in rules() {
        for (seed, shape) in (1..).zip(SHAPES) {
            for coarse in [false, true] {
                let inputs = family(shape, count, seed, coarse);
                let (found, expected) = (merge(&rule, &inputs), define(&rule, &inputs));
                for (a, b) in found.iter().zip(&expected) {
                    let near = (f64::from(*a) - b).abs() <= 2e-7 * b.abs().max(1.0);
                    assert!(near || b.is_nan(), "{a} is not {b}: {rule:?} {shape:?} {coarse}\n{found:?}\n{expected:?}");
                }
            }
        }
    }
}

#[test]
fn tiles_and_pieces_change_nothing() {
    for (rule, count) in rules() {
        for shape in [&[13, 17][..], &[2500], &[40, 61]] {
            let inputs = family(shape, count, 5, true);
            // Sums are joined by tiles: their size is part of a rule. Without a sum, any will do.
            for tile in [64, 1000] {
                let prepared = tiled(&rule, &inputs, tile);
                let expected = whole(&prepared, &inputs);
                close(&merge(&rule, &inputs), &expected.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), 1e-6);
                for piece in [1, 3, 50, 1024, 1300] {
                    let step = piece * prepared.unit();
                    let mut out = vec![f32::NAN; inputs.len()];
                    for (first, out) in (0..).step_by(step).zip(out.chunks_mut(step)) {
                        prepared.fill(first, &inputs.slices(first..first + out.len()), out);
                    }
                    assert_eq!(bits(&out), bits(&expected), "{rule:?} {shape:?} {tile} {piece}");
                }
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let (one, many) = (pool(1), pool(5));
    for (rule, count) in rules() {
        let inputs = family(&[70, 61], count, 3, true);
        let run = || whole(&tiled(&rule, &inputs, 100), &inputs);
        assert_eq!(bits(&one.install(run)), bits(&many.install(run)), "{rule:?}");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn nothing_of_nothing() {
    for (rule, count) in rules() {
        let inputs = Memory { shape: vec![0, 3], models: vec![Vec::new(); count] };
        assert_eq!(merge(&rule, &inputs), [0.0f32; 0]);
    }
}

/// The rules that do not scale what they are given, and drop nothing.
fn whole_rules(count: usize) -> Vec<Rule> {
    let weights = vec![0.3; count];
    let mut rules = vec![
        Rule::Deltas(Deltas { normalize: true, ..arithmetic(&weights, 1.0) }),
        Rule::Deltas(ties(&weights, 1.0)),
        Rule::Deltas(Deltas { consensus: Consensus::Protect { slack: 0.3 }, ..ties(&weights, 1.0) }),
        Rule::Multislerp { weights, normalize: true, has_base: true, eps: 1e-8 },
        Rule::Sce { select_topk: 1.0 },
        Rule::Sce { select_topk: 0.5 },
    ];
    if count > 1 {
        rules.push(Rule::ModelStock { by_rows: false });
        rules.push(Rule::ModelStock { by_rows: true });
    }
    if count == 2 {
        for over in [Over::Tensor, Over::Rows, Over::Columns] {
            rules.push(Rule::Nuslerp { weights: [1.0, 3.0], has_base: true, over });
        }
    }
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn identical_models_are_the_model(rows in 1usize..9, width in 1usize..40, count in 1usize..5, seed in 1u32..999) {
        let pair = family(&[rows, width], 2, seed, false);
        let models = std::iter::once(pair.models[0].clone()).chain(vec![pair.models[1].clone(); count]).collect();
        let inputs = Memory { models, ..pair.clone() };
        for rule in whole_rules(count) {
            prop_assert_eq!(&merge(&rule, &inputs), &pair.models[1], "{:?}", rule);
        }
        let alone = Memory { models: vec![pair.models[1].clone(); count], ..pair.clone() };
        for rule in [
            Rule::Linear { weights: vec![0.3; count], normalize: true },
            Rule::Karcher { max_iter: 10, tol: 1e-5 },
            Rule::Multislerp { weights: vec![0.7; count], normalize: true, has_base: false, eps: 1e-8 },
        ] {
            prop_assert_eq!(&merge(&rule, &alone), &pair.models[1], "{:?}", rule);
        }
    }

    #[test]
    fn without_lambda_or_difference_it_is_the_base(len in 1usize..200, seed in 1u32..999) {
        let inputs = family(&[len], 4, seed, false);
        let same = Memory { models: vec![inputs.models[0].clone(); 4], ..inputs.clone() };
        for (rule, count) in rules() {
            if let Rule::Deltas(deltas) = &rule && count == 4 {
                let none = Rule::Deltas(Deltas { lambda: 0.0, ..deltas.clone() });
                prop_assert_eq!(&merge(&none, &inputs), &inputs.models[0], "{:?}", none);
                prop_assert_eq!(&merge(&rule, &same), &inputs.models[0], "{:?}", rule);
            }
        }
    }

    #[test]
    fn ends_are_inputs(len in 1usize..200, seed in 1u32..999) {
        let inputs = family(&[len], 2, seed, false);
        prop_assert_eq!(&merge(&Rule::Slerp { t: 0.0 }, &inputs), &inputs.models[0]);
        prop_assert_eq!(&merge(&Rule::Slerp { t: 1.0 }, &inputs), &inputs.models[1]);
        for (weights, expected) in [([1.0, 0.0], 0), ([0.0, 1.0], 1)] {
            let over = Over::Tensor;
            let nuslerp = merge(&Rule::Nuslerp { weights, has_base: false, over }, &inputs);
            prop_assert_eq!(&nuslerp, &inputs.models[expected]);
            let linear = merge(&Rule::Linear { weights: weights.to_vec(), normalize: true }, &inputs);
            prop_assert_eq!(&linear, &inputs.models[expected]);
        }
    }

    #[test]
    fn density_one_drops_nothing(rows in 1usize..9, width in 1usize..40, seed in 1u32..999) {
        let inputs = family(&[rows, width], 3, seed, false);
        for rescale in [Rescale::None, Rescale::InverseDensity, Rescale::L1] {
            for consensus in [Consensus::Sum, Consensus::Sign] {
                let with = |kind| {
                    let deltas = Deltas { sparsify: vec![kind; 2], rescale, consensus, ..arithmetic(&[0.6, 0.7], 0.9) };
                    bits(&merge(&Rule::Deltas(deltas), &inputs))
                };
                let dense = with(Sparsify::All);
                prop_assert_eq!(&with(Sparsify::Largest { density: 1.0 }), &dense);
                prop_assert_eq!(&with(Sparsify::Random { density: 1.0 }), &dense);
                prop_assert_eq!(&with(Sparsify::Middle { density: 1.0, gamma: 0.01 }), &dense);
                prop_assert_eq!(&with(Sparsify::RandomByRank { density: 1.0, epsilon: 0.15 }), &dense);
            }
        }
    }

    #[test]
    fn equal_weights_have_no_order(len in 1usize..200, seed in 1u32..999) {
        let inputs = family(&[len], 4, seed, true);
        let mut turned = inputs.clone();
        turned.models.swap(1, 3);
        for rule in [
            Rule::Deltas(arithmetic(&[0.5; 3], 1.0)),
            Rule::Deltas(ties(&[0.5; 3], 0.6)),
            Rule::ModelStock { by_rows: false },
            Rule::Sce { select_topk: 0.5 },
            Rule::Multislerp { weights: vec![1.0; 3], normalize: true, has_base: true, eps: 1e-8 },
        ] {
            let expected: Vec<f64> = merge(&rule, &turned).iter().map(|x| f64::from(*x)).collect();
            close(&merge(&rule, &inputs), &expected, 2e-6);
        }
    }
}
