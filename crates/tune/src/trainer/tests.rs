//! Updates of fixtures of a few thousand parameters.

use std::path::Path;

use candle_core::{Device, Tensor};
use lathe_model::{Batch, NoTap, Weights, open};

use super::*;
use crate::labels::Example;
use crate::loss::NextToken;
use crate::schedule::Schedule;

fn decoder(fixture: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture);
    open(&folder).and_then(|model| model.decoder(Weights::Trainable)).expect("a fixture")
}

fn settings(value: f64) -> TrainerSettings {
    TrainerSettings {
        adamw: AdamWSettings::default(),
        rate: Rate { value, warm_up: 0, schedule: Schedule::Constant, steps: 100 },
        clip: Some(1.0),
        recompute: Recompute::Nothing,
    }
}

/// Examples of different lengths, some with a masked beginning.
fn examples() -> Vec<Example> {
    let ids = |seed: u32, len: u32| (0..len).map(|i| (seed * 31 + i * i * 7 + i) % 120 + 3).collect::<Vec<u32>>();
    vec![
        Example::whole(ids(1, 9)),
        Example::from_position(ids(2, 14), 6),
        Example::from_position(ids(3, 5), 4),
        Example { ids: ids(4, 7), labels: vec![None, Some(8), None, Some(9), None, Some(3), None] },
        Example::whole(ids(5, 2)),
    ]
}

/// Every term of some examples.
fn terms(decoder: &Decoder, items: &[&Example]) -> Vec<f32> {
    let hidden = decoder.forward(&NextToken.batch(items), None, &mut NoTap).expect("states");
    NextToken.values(decoder, &hidden, items).and_then(|values| Ok(values.to_vec1()?)).expect("losses")
}

fn bits(decoder: &Decoder) -> BTreeMap<String, Vec<u32>> {
    let of = |var: &Var| -> Vec<u32> {
        let values: Vec<f32> = var.flatten_all().and_then(|x| x.to_vec1()).expect("values");
        values.into_iter().map(f32::to_bits).collect()
    };
    decoder.trainable().iter().map(|(name, var)| (name.clone(), of(var))).collect()
}

/// Also with windows, where attention would reach furthest, learned positions and experts.
#[test]
fn packed_losses_are_those_of_each_example_alone() {
    for fixture in ["llama", "gemma2", "mistral_window", "opt", "qwen2_moe"] {
        let decoder = decoder(fixture);
        let examples = examples();
        for order in [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]] {
            let packed: Vec<&Example> = order.iter().map(|index| &examples[*index]).collect();
            let alone: Vec<f32> = packed.iter().flat_map(|example| terms(&decoder, &[example])).collect();
            let together = terms(&decoder, &packed);
            assert_eq!(together.len(), examples.iter().map(Example::target_count).sum::<usize>());
            for (a, b) in together.iter().zip(&alone) {
                assert!((a - b).abs() < 1e-5, "{fixture}: {a} and {b}");
            }
        }
    }
}

/// A loss of given terms, which do not depend on the model.
struct Given;

impl Loss for Given {
    type Item = Vec<f32>;

    fn batch(&self, _: &[&Vec<f32>]) -> Batch {
        Batch::single(&[5, 6, 7])
    }

    fn terms(&self, item: &Vec<f32>) -> usize {
        item.len()
    }

    fn values(&self, _: &Decoder, hidden: &Tensor, items: &[&Vec<f32>]) -> Result<Tensor, lathe_model::Error> {
        let given: Vec<f32> = items.iter().flat_map(|item| item.iter()).copied().collect();
        // Too little to be seen beside the terms, and no zero, of which candle makes no gradient.
        let nothing = (hidden.sum_all()? * 1e-20)?;
        Ok(Tensor::from_slice(&given, given.len(), &Device::Cpu)?.broadcast_add(&nothing)?)
    }
}

/// Micro-batches of two tokens with a mean of 2 and of one token with 8: the mean of means is 5, of tokens 4.
#[test]
fn a_window_of_micro_batches_is_weighted_by_tokens() {
    let decoder = decoder("llama_tied_scaled");
    let mut trainer = Trainer::new(decoder.trainable(), Given, settings(0.01));
    let (two, one) = (vec![1.0, 3.0], vec![8.0]);
    let report = trainer.step(&decoder, &[vec![&two], vec![&one]]).expect("a step");
    assert_eq!((report.loss, report.terms, report.tokens), (4.0, 3, 6));
}

#[test]
fn micro_batches_do_what_one_batch_does() {
    let examples = examples();
    let all: Vec<&Example> = examples.iter().collect();
    let run = |cut: &[&[usize]]| {
        let decoder = decoder("llama");
        let mut trainer = Trainer::new(decoder.trainable(), NextToken, settings(0.003));
        let parts: Vec<Vec<&Example>> = cut.iter().map(|part| part.iter().map(|index| all[*index]).collect()).collect();
        (0..6).map(|_| trainer.step(&decoder, &parts).expect("a step").loss).collect::<Vec<_>>()
    };
    let one = run(&[&[0, 1, 2, 3, 4]]);
    for cut in [&[&[0, 1][..], &[2, 3, 4]][..], &[&[4], &[3], &[2, 1], &[0]]] {
        for (a, b) in run(cut).iter().zip(&one) {
            assert!((a - b).abs() < 2e-5, "{cut:?}: {a} and {b}");
        }
    }
}

#[test]
fn one_batch_is_learnt_by_heart() {
    for fixture in ["llama", "gemma2", "gpt2", "qwen2_moe"] {
        let decoder = decoder(fixture);
        let mut trainer = Trainer::new(decoder.trainable(), NextToken, settings(0.01));
        let examples = examples();
        let batch: Vec<&Example> = examples[1..4].iter().collect();
        let mut last = f64::INFINITY;
        for _ in 0..150 {
            last = trainer.step(&decoder, std::slice::from_ref(&batch)).expect("a step").loss;
        }
        assert!(last < 0.05, "{fixture}: {last}");
    }
}

#[test]
fn a_parameter_without_a_gradient_is_named() {
    let decoder = decoder("llama");
    let before = bits(&decoder);
    let mut trainer = Trainer::new(decoder.trainable(), Given, settings(0.01));
    let item = vec![1.0];
    let error = trainer.step(&decoder, &[vec![&item]]).expect_err("the head has no part in this loss");
    assert_eq!(error.to_string(), "no gradient reaches `head.weight`");
    let error = trainer.check(&decoder, &item).expect_err("nor before the first step");
    assert_eq!(error.to_string(), "no gradient reaches `head.weight`");
    assert!(before == bits(&decoder) && trainer.steps() == 0);
    let names: Vec<String> = (0..5).map(|i| format!("layers.{i}")).collect();
    let error = TrainError::NoGradient { names };
    assert_eq!(error.to_string(), "no gradient reaches `layers.0`, `layers.1`, `layers.2` and 2 more parameters");
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let decoder = decoder("llama_tied_scaled");
    let before = bits(&decoder);
    let mut trainer = Trainer::new(decoder.trainable(), Given, settings(0.01));
    for value in [f32::NAN, f32::INFINITY] {
        let item = vec![1.0, value];
        let error = trainer.step(&decoder, &[vec![&item]]).expect_err("no number");
        assert_eq!(error.to_string(), "the loss is not finite");
    }
    assert!(before == bits(&decoder) && trainer.steps() == 0);
}
