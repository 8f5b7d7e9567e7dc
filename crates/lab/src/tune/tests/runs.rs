//! Runs on records: going on, what stays frozen, and what is watched.

use lathe_tune::{Reading, Schedule};

use super::*;
use crate::Compute;

impl Workplace {
    /// Records of ready ids.
    fn ids(&self, name: &str, seed: u32) -> PathBuf {
        let record = |i: u32| {
            let ids: Vec<u32> = (0..5 + i % 7).map(|t| (seed + i * 13 + t * t * 3 + t) % 90).collect();
            serde_json::json!({ "input_ids": ids }).to_string()
        };
        let lines: Vec<String> = (0..11).map(record).collect();
        let file = self.path(name);
        fs::write(&file, lines.join("\n")).expect("written");
        file
    }

    fn on_records(&self, steps: usize, out: &str) -> TuneSpec {
        TuneSpec {
            model: Some(self.reference("model")),
            data: vec![self.ids("ids.jsonl", 5)],
            steps: Some(steps),
            batch: 2,
            accumulate: 2,
            weight_decay: 0.1,
            seed: 9,
            keep: 2,
            out: self.path(out),
            ..TuneSpec::new(0.003)
        }
    }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    fs::read(path).expect("a file")
}

#[test]
fn twenty_steps_are_ten_and_ten() {
    for (fixture, compute, order) in [
        ("llama", Compute::F32, Reading::Shuffle),
        ("gemma2", Compute::F32, Reading::File),
        ("llama", Compute::Bf16, Reading::Shuffle),
    ] {
        let place = Workplace::new(fixture);
        let spec = |steps, out| TuneSpec { compute, order, ..place.on_records(steps, out) };
        let whole = place.tune(&spec(20, "whole")).expect("trained");
        place.tune(&spec(10, "halves")).expect("trained");
        let halves = place.tune(&TuneSpec { resume: Resume::Yes, ..spec(20, "halves") }).expect("trained");
        assert_eq!(halves.resumed_at, Some(10));
        assert_eq!(whole.losses, halves.losses);
        let weights = |out: &str| bytes(place.path(out).join("model.safetensors"));
        assert!(weights("whole") == weights("halves"), "{fixture}");
        let last = |out: &str| bytes(place.path(out).join("checkpoints/step-20/training/optimiser.safetensors"));
        assert!(last("whole") == last("halves"), "{fixture}");
    }
}

#[test]
fn a_run_goes_on_as_it_began_or_not_at_all() {
    let place = Workplace::new("llama");
    let spec = || TuneSpec { schedule: Schedule::Cosine, ..place.on_records(6, "child") };
    place.tune(&spec()).expect("trained");
    let refused = |change: &dyn Fn(&mut TuneSpec)| {
        let mut spec = TuneSpec { resume: Resume::Yes, ..spec() };
        change(&mut spec);
        place.tune(&spec).expect_err("refused").to_string()
    };
    let began = |what: &str| format!("--resume: {what}");
    assert_eq!(refused(&|spec| spec.learning_rate = 0.01), began("learning rate: the run began with 0.003, not 0.01"));
    assert_eq!(refused(&|spec| spec.seed = 3), began("seed: the run began with 9, not 3"));
    assert_eq!(refused(&|spec| spec.steps = Some(8)), began("steps: the run began with 6, not 8"));
    let other = refused(&|spec| spec.compute = Compute::Bf16);
    assert_eq!(other, began("compute: the run began with \"f32\", not \"bf16\""));
    let data = refused(&|spec| spec.data = vec![place.ids("other.jsonl", 6)]);
    assert!(data.starts_with("--resume: data: the run began with "), "{data}");
    let none = refused(&|spec| spec.out = place.path("none"));
    assert!(none.ends_with("none holds no run that could go on"), "{none}");
    // Going on after the last step is no step more.
    let before = bytes(place.path("child/model.safetensors"));
    let again = place.tune(&TuneSpec { resume: Resume::Yes, ..spec() }).expect("trained");
    assert_eq!((again.losses.len(), again.resumed_at), (6, Some(6)));
    assert!(before == bytes(place.path("child/model.safetensors")));
}

#[test]
fn parameters_that_are_not_trained_stay_bit_for_bit() {
    let place = Workplace::new("llama");
    let method = Method::Only(vec!["q_proj".into(), "k_proj".into()]);
    let result = place.tune(&TuneSpec { method, ..place.on_records(5, "child") }).expect("trained");
    assert!(result.trained_parameters > 0);
    for ((name, before), (_, after)) in place.bits("model").into_iter().zip(place.bits("child")) {
        let is_trained = name.ends_with("attention.query.weight") || name.ends_with("attention.key.weight");
        assert_eq!(before != after, is_trained, "{name}");
    }
}

#[test]
fn what_is_watched_is_in_the_metrics_and_names_the_best() {
    let place = Workplace::new("llama");
    let held_out = place.ids("held.jsonl", 40);
    let spec = TuneSpec {
        eval: vec![held_out],
        eval_every: Some(4),
        checkpoint_every: Some(3),
        keep: 1,
        save_at: vec![0, 2],
        ..place.on_records(10, "child")
    };
    let result = place.tune(&spec).expect("trained");
    let steps: Vec<usize> = result.looks.iter().map(|look| look.step).collect();
    assert_eq!(steps, [0, 4, 8, 10]);
    let losses: Vec<f64> = result.looks[1..].iter().map(|look| look.watched["held"]["loss"]).collect();
    let best = result.best.expect("a best step");
    assert_eq!(best.loss, losses.iter().copied().fold(f64::INFINITY, f64::min));
    assert!(result.checkpoints.contains(&place.path(&format!("child/checkpoints/step-{}", best.step))));
    assert!(result.checkpoints.contains(&place.path("child/checkpoints/step-10")));
    // What the model computes from its own files is what was seen.
    let again =
        TuneSpec { model: Some(place.reference("child")), eval: spec.eval.clone(), ..place.on_records(1, "again") };
    let looked = place.tune(&again).expect("trained").looks[0].watched["held"]["loss"];
    assert!((looked - losses[2]).abs() < 1e-6, "{looked} and {}", losses[2]);
    assert!(place.bits("child/step-0") == place.bits("model") && place.bits("child/step-2") != place.bits("model"));
    let lines = fs::read_to_string(place.path("child/metrics.jsonl")).expect("metrics");
    assert_eq!(lines.lines().count(), 11);
}

#[test]
fn packing_changes_units_and_no_label() {
    let place = Workplace::new("llama");
    let spec = |packing, out| TuneSpec {
        packing,
        batch: 1,
        accumulate: 1,
        steps: None,
        epochs: Some(1),
        max_length: Some(24),
        ..place.on_records(1, out)
    };
    let (one, packed) = (spec(Packing::None, "one"), spec(Packing::BestFit, "packed"));
    let (one, packed) = (place.tune(&one).expect("trained"), place.tune(&packed).expect("trained"));
    assert_eq!((one.losses.len(), one.audit.units), (11, 11));
    assert!(packed.losses.len() < 6 && packed.audit.units == packed.losses.len());
    assert_eq!(one.tokens, packed.tokens);
    assert_eq!(one.audit.labels, packed.audit.labels);
}
