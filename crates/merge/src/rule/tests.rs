//! Rules against the examples of their methods, and against slow definitions in f64.

mod definition;
mod examples;
mod properties;

use std::ops::Range;

use super::{Consensus, Deltas, MaskKey, Prepared, Remark, Rescale, Rule, RuleError, Sparsify};
use crate::{InputError, Inputs};

/// A tensor of several models, in memory.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) shape: Vec<usize>,
    pub(super) models: Vec<Vec<f32>>,
}

impl Memory {
    fn vectors(models: &[&[f32]]) -> Self {
        Self { shape: vec![models[0].len()], models: models.iter().map(|model| model.to_vec()).collect() }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn slices(&self, range: Range<usize>) -> Vec<&[f32]> {
        self.models.iter().map(|model| &model[range.clone()]).collect()
    }
}

impl Inputs for Memory {
    fn count(&self) -> usize {
        self.models.len()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self, model: usize, range: Range<usize>, out: &mut [f32]) -> Result<(), InputError> {
        out.copy_from_slice(&self.models[model][range]);
        Ok(())
    }
}

const MASK: MaskKey<'static> = MaskKey { seed: 7, tensor: "model.layers.0.mlp.up_proj.weight" };

fn whole(prepared: &Prepared, inputs: &Memory) -> Vec<f32> {
    let mut out = vec![f32::NAN; inputs.len()];
    prepared.fill(0, &inputs.slices(0..inputs.len()), &mut out);
    out
}

fn merge(rule: &Rule, inputs: &Memory) -> Vec<f32> {
    whole(&rule.prepare(&MASK, inputs).expect("inputs that fit"), inputs)
}

fn refused(rule: &Rule, inputs: &Memory) -> RuleError {
    rule.prepare(&MASK, inputs).expect_err("parameters without a meaning")
}

/// TIES with its defaults.
fn ties(weights: &[f64], density: f64) -> Deltas {
    Deltas {
        weights: weights.to_vec(),
        sparsify: vec![Sparsify::Largest { density }; weights.len()],
        rescale: Rescale::None,
        consensus: Consensus::Sign,
        normalize: true,
        lambda: 1.0,
    }
}

/// A plain sum of differences.
fn arithmetic(weights: &[f64], lambda: f64) -> Deltas {
    Deltas {
        weights: weights.to_vec(),
        sparsify: vec![Sparsify::All; weights.len()],
        rescale: Rescale::None,
        consensus: Consensus::Sum,
        normalize: false,
        lambda,
    }
}

fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance, "at {index}: {a} is not {b}\n{found:?}\n{expected:?}");
    }
}
