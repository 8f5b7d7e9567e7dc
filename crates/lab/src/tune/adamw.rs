//! AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) with the gradient clipped to length 1.
//!
//! For a parameter θ with gradient g at step t: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²,
//! θ ← θ − η((m/(1 − β₁ᵗ)) / (√(v/(1 − β₂ᵗ)) + ε) + λθ), with λ for matrices only. In f32; every value by itself, so
//! that threads change nothing. The length of the gradient is summed in f64 over tiles of fixed size, joined in order.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Storage, Tensor, Var, bail};
use rayon::prelude::*;

/// Decay of the mean of gradients.
const BETA_1: f64 = 0.9;
/// Decay of the mean of squared gradients: shorter than Adam's 0.999, as is usual for language models.
const BETA_2: f64 = 0.95;
const EPSILON: f32 = 1e-8;
/// Length that the gradient of all parameters is cut to.
const LONGEST: f64 = 1.0;
/// Values of one piece of work, and of one tile of a sum.
const TILE: usize = 1 << 14;

/// A learning rate over steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// After the warm-up.
    pub(super) value: f64,
    /// Steps of the warm-up.
    pub(super) warm_up: usize,
}

impl Rate {
    /// At a step, from 1: `step / warm_up` of the value until it is reached.
    pub(super) fn at(self, step: usize) -> f64 {
        self.value * (step as f64 / self.warm_up.max(1) as f64).min(1.0)
    }
}

/// The optimiser: variables and their moments.
pub(super) struct AdamW<'a> {
    variables: Vec<(&'a Var, RefCell<Moments>)>,
    weight_decay: f64,
    steps: i32,
}

struct Moments {
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl<'a> AdamW<'a> {
    pub(super) fn new(variables: &'a BTreeMap<String, Var>, weight_decay: f64) -> Self {
        let of = |var: &'a Var| {
            let zeros = || vec![0.0; var.elem_count()];
            (var, RefCell::new(Moments { mean: zeros(), square: zeros() }))
        };
        Self { variables: variables.values().map(of).collect(), weight_decay, steps: 0 }
    }

    /// Changes every variable that has a gradient (an expert that no token went to has none) and returns the length of
    /// the whole gradient; none, and no change, where it is not finite.
    pub(super) fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<Option<f64>> {
        let mut present = Vec::with_capacity(self.variables.len());
        for (var, moments) in &self.variables {
            if let Some(gradient) = gradients.get(var) {
                present.push((*var, moments, gradient.contiguous()?));
            }
        }
        let mut sum = 0.0;
        for (_, _, gradient) in &present {
            sum += sum_of_squares(gradient)?;
        }
        let norm = sum.sqrt();
        if !norm.is_finite() {
            return Ok(None);
        }
        self.steps += 1;
        let clip = if norm > LONGEST { LONGEST / norm } else { 1.0 };
        for (var, moments, gradient) in present {
            let decay = if var.rank() >= 2 { self.weight_decay } else { 0.0 };
            let update = Update { moments, clip, rate, decay, steps: self.steps };
            var.inplace_op2(&gradient, &update)?;
        }
        Ok(Some(norm))
    }
}

fn sum_of_squares(gradient: &Tensor) -> Result<f64> {
    let (storage, layout) = gradient.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("expected a tensor on the CPU") };
    let tiles: Vec<f64> = values(storage, layout)?.par_chunks(TILE).map(of_tile).collect();
    Ok(tiles.iter().sum())
}

/// Eight interleaved sums, then one after another.
fn of_tile(tile: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for values in tile.chunks(8) {
        for (sum, x) in sums.iter_mut().zip(values) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    sums.iter().sum()
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => bail!("expected contiguous f32"),
    }
}

/// The change of one variable.
struct Update<'a> {
    moments: &'a RefCell<Moments>,
    clip: f64,
    rate: f64,
    decay: f64,
    steps: i32,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout, other: &CpuStorage, of_other: &Layout) -> Result<()> {
        let gradient = values(other, of_other)?;
        let (CpuStorage::F32(variable), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            bail!("expected a contiguous variable of f32");
        };
        let variable = &mut variable[from..to];
        let Moments { mean, square } = &mut *self.moments.borrow_mut();
        let (beta_1, beta_2, clip) = (BETA_1 as f32, BETA_2 as f32, self.clip as f32);
        let (new_1, new_2) = ((1.0 - BETA_1) as f32, (1.0 - BETA_2) as f32);
        // η/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ): what corrects the moments for their start at 0.
        let rate = (self.rate / (1.0 - BETA_1.powi(self.steps))) as f32;
        let spread = (1.0 / (1.0 - BETA_2.powi(self.steps)).sqrt()) as f32;
        let kept = (1.0 - self.rate * self.decay) as f32;
        let tiles = variable.par_chunks_mut(TILE).zip(gradient.par_chunks(TILE));
        let moments = mean.par_chunks_mut(TILE).zip(square.par_chunks_mut(TILE));
        tiles.zip(moments).for_each(|((variable, gradient), (mean, square))| {
            let of_moments = mean.iter_mut().zip(square);
            for ((x, g), (m, v)) in variable.iter_mut().zip(gradient).zip(of_moments) {
                let g = g * clip;
                *m = beta_1 * *m + new_1 * g;
                *v = beta_2 * *v + new_2 * (g * g);
                *x = kept * *x - rate * *m / (v.sqrt() * spread + EPSILON);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn variable(values: &[f32], shape: &[usize]) -> Var {
        Var::from_slice(values, shape, &Device::Cpu).expect("a variable")
    }

    fn stored(var: &Var) -> Vec<f32> {
        var.flatten_all().and_then(|x| x.to_vec1()).expect("values")
    }

    /// The definition in f64, for one value and its gradients; the gradients are short enough to stay as they are.
    fn reference(start: f64, gradients: &[f64], rate: f64, decay: f64) -> f64 {
        let (mut x, mut m, mut v) = (start, 0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            let t = i as i32 + 1;
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.95f64.powi(t)));
            x -= rate * (m_hat / (v_hat.sqrt() + 1e-8) + decay * x);
        }
        x
    }

    /// One step whose gradient is `slopes`.
    fn step(adamw: &mut AdamW<'_>, var: &Var, slopes: &[f32], rate: f64) -> Option<f64> {
        let slopes = Tensor::from_slice(slopes, var.shape(), &Device::Cpu).expect("slopes");
        let loss = (var.as_tensor() * slopes).and_then(|x| x.sum_all()).expect("a loss");
        adamw.step(&loss.backward().expect("gradients"), rate).expect("a step")
    }

    #[test]
    fn follows_the_definition() {
        for (shape, decay) in [(&[2, 1][..], 0.5), (&[2][..], 0.0)] {
            let var = variable(&[0.7, -0.2], shape);
            let variables = BTreeMap::from([("x".to_owned(), var.clone())]);
            let mut adamw = AdamW::new(&variables, 0.5);
            let slopes = [[0.3, -0.01], [-0.2, -0.4], [0.05, 0.2]];
            for slope in &slopes {
                step(&mut adamw, &var, slope, 0.01);
            }
            for (i, start) in [0.7, -0.2].into_iter().enumerate() {
                let gradients = slopes.map(|slope| f64::from(slope[i]));
                let (found, expected) = (stored(&var)[i], reference(start, &gradients, 0.01, decay));
                assert!((f64::from(found) - expected).abs() < 1e-6, "{shape:?} {i}: {found} for {expected}");
            }
        }
    }

    /// The first step moves by the rate whatever the length; what the clip does is seen in the second one.
    #[test]
    fn long_gradients_are_cut() {
        let var = variable(&[0.0, 0.0], &[2]);
        let variables = BTreeMap::from([("x".to_owned(), var.clone())]);
        let mut adamw = AdamW::new(&variables, 0.0);
        assert_eq!(step(&mut adamw, &var, &[30.0, 40.0], 0.1), Some(50.0));
        assert_eq!(step(&mut adamw, &var, &[0.1, -0.2], 0.1).map(|norm| (norm * 1e6).round()), Some(223_607.0));
        for (i, gradients) in [[0.6, 0.1], [0.8, -0.2]].iter().enumerate() {
            let (found, expected) = (stored(&var)[i], reference(0.0, gradients, 0.1, 0.0));
            assert!((f64::from(found) - expected).abs() < 1e-6, "{i}: {found} for {expected}");
        }
    }

    #[test]
    fn what_is_not_finite_changes_nothing() {
        let var = variable(&[0.5, 1.5], &[2]);
        let variables = BTreeMap::from([("x".to_owned(), var.clone())]);
        let mut adamw = AdamW::new(&variables, 0.1);
        assert_eq!(step(&mut adamw, &var, &[f32::NAN, 1.0], 0.1), None);
        assert_eq!(step(&mut adamw, &var, &[f32::INFINITY, 1.0], 0.1), None);
        assert_eq!(stored(&var), [0.5, 1.5]);
    }

    #[test]
    fn the_rate_rises_to_its_value() {
        let rate = Rate { value: 0.8, warm_up: 4 };
        assert_eq!([1, 2, 4, 5, 100].map(|step| rate.at(step)), [0.2, 0.4, 0.8, 0.8, 0.8]);
        assert_eq!(Rate { value: 0.8, warm_up: 0 }.at(1), 0.8);
    }
}
