//! AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2).
//!
//! For a parameter θ with gradient g at its step t: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²,
//! θ ← θ(1 − ηλ) − η · (m/(1 − β₁ᵗ)) / (√(v/(1 − β₂ᵗ)) + ε), with λ for the groups of [`DecayGroups`]. Weights and
//! moments are f32; every value is changed by itself, so that threads change nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::clip::{TILE, values};

/// Constants of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of squared gradients.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// λ: decoupled weight decay, in units of the learning rate.
    pub weight_decay: f64,
    /// What decays beside matrices.
    pub decay: DecayGroups,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decay: DecayGroups::default() }
    }
}

/// Parameters that decay beside the matrices that states are multiplied by, which always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecayGroups {
    /// Tables that rows are looked up in: of tokens (a tied head with it), positions, token types.
    pub embeddings: bool,
    /// Norms and biases.
    pub vectors: bool,
}

impl DecayGroups {
    /// Whether a parameter, by lathe's name and its number of dimensions, decays.
    #[must_use]
    pub fn holds(self, name: &str, rank: usize) -> bool {
        const TABLES: [&str; 3] = ["embedding.weight", "positions.weight", "token_types.weight"];
        match rank {
            0 | 1 => self.vectors,
            _ if TABLES.contains(&name) => self.embeddings,
            _ => true,
        }
    }
}

/// What the optimiser keeps of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// m, as many values as the parameter has.
    pub mean: Vec<f32>,
    /// v, as many.
    pub square: Vec<f32>,
    /// t: how often the parameter was changed. An expert that no token reached is not.
    pub updates: u64,
}

/// The optimiser: moments by name of parameter.
pub struct AdamW {
    settings: AdamWSettings,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// Moments of 0 for every variable.
    #[must_use]
    pub fn new(variables: &BTreeMap<String, Var>, settings: AdamWSettings) -> Self {
        let of = |(name, var): (&String, &Var)| {
            let zeros = || vec![0.0; var.elem_count()];
            (name.clone(), Moments { mean: zeros(), square: zeros(), updates: 0 })
        };
        Self { settings, moments: variables.iter().map(of).collect() }
    }

    /// What is kept, by name.
    #[must_use]
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Takes up what an earlier run has kept of a parameter; false where there is no such parameter, or it has another
    /// number of values.
    #[must_use]
    pub fn restore(&mut self, name: &str, moments: Moments) -> bool {
        match self.moments.get_mut(name) {
            Some(own) if own.mean.len() == moments.mean.len() && own.square.len() == moments.square.len() => {
                *own = moments;
                true
            }
            _ => false,
        }
    }

    /// Changes every variable that has a gradient by one step; gradients are multiplied by `factor` first.
    ///
    /// # Errors
    /// A gradient has another number of values than its variable, or is not f32.
    pub fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &BTreeMap<String, Tensor>,
        rate: f64,
        factor: f64,
    ) -> Result<()> {
        for (name, gradient) in gradients {
            let (Some(var), Some(moments)) = (variables.get(name), self.moments.get_mut(name)) else {
                bail!("a gradient of `{name}`, which is not trained");
            };
            moments.updates += 1;
            let decay = if self.settings.decay.holds(name, var.rank()) { self.settings.weight_decay } else { 0.0 };
            let update = Update::new(RefCell::new(moments), &self.settings, rate, factor, decay);
            var.inplace_op2(&gradient.contiguous()?, &update)?;
        }
        Ok(())
    }
}

/// The change of one variable.
struct Update<'a> {
    moments: RefCell<&'a mut Moments>,
    /// β₁ and β₂.
    betas: [f32; 2],
    /// 1 − β₁ and 1 − β₂.
    new: [f32; 2],
    epsilon: f32,
    factor: f32,
    /// η/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ): what corrects the moments for their start at 0.
    rate: f32,
    spread: f32,
    /// 1 − ηλ.
    kept: f32,
}

impl<'a> Update<'a> {
    #[expect(clippy::cast_possible_truncation, reason = "constants become f32; steps are no more than an i32 holds")]
    fn new(moments: RefCell<&'a mut Moments>, settings: &AdamWSettings, rate: f64, factor: f64, decay: f64) -> Self {
        let AdamWSettings { beta_1, beta_2, epsilon, .. } = *settings;
        let t = moments.borrow().updates.min(i32::MAX as u64) as i32;
        Self {
            moments,
            betas: [beta_1 as f32, beta_2 as f32],
            new: [(1.0 - beta_1) as f32, (1.0 - beta_2) as f32],
            epsilon: epsilon as f32,
            factor: factor as f32,
            rate: (rate / (1.0 - beta_1.powi(t))) as f32,
            spread: (1.0 / (1.0 - beta_2.powi(t)).sqrt()) as f32,
            kept: (1.0 - rate * decay) as f32,
        }
    }
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
        let moments = &mut **self.moments.borrow_mut();
        if gradient.len() != variable.len() || moments.mean.len() != variable.len() {
            bail!("a gradient of {} values for a variable of {}", gradient.len(), variable.len());
        }
        let Self { betas: [beta_1, beta_2], new: [new_1, new_2], epsilon, factor, rate, spread, kept, .. } = *self;
        let tiles = variable.par_chunks_mut(TILE).zip(gradient.par_chunks(TILE));
        let moments = moments.mean.par_chunks_mut(TILE).zip(moments.square.par_chunks_mut(TILE));
        tiles.zip(moments).for_each(|((variable, gradient), (mean, square))| {
            let of_moments = mean.iter_mut().zip(square);
            for ((x, g), (m, v)) in variable.iter_mut().zip(gradient).zip(of_moments) {
                let g = g * factor;
                *m = beta_1 * *m + new_1 * g;
                *v = beta_2 * *v + new_2 * (g * g);
                *x = kept * *x - rate * *m / (v.sqrt() * spread + epsilon);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn variables(name: &str, values: &[f32], shape: &[usize]) -> BTreeMap<String, Var> {
        BTreeMap::from([(name.to_owned(), Var::from_slice(values, shape, &Device::Cpu).expect("a variable"))])
    }

    fn stored(variables: &BTreeMap<String, Var>) -> Vec<f32> {
        variables.values().flat_map(|var| var.flatten_all().and_then(|x| x.to_vec1()).expect("values")).collect()
    }

    fn step(adamw: &mut AdamW, variables: &BTreeMap<String, Var>, slopes: &[f32], rate: f64) {
        let gradient = |(name, var): (&String, &Var)| {
            (name.clone(), Tensor::from_slice(slopes, var.shape(), &Device::Cpu).expect("slopes"))
        };
        let gradients = variables.iter().map(gradient).collect();
        adamw.step(variables, &gradients, rate, 1.0).expect("a step");
    }

    /// The definition in f64, for one value and its gradients.
    fn reference(start: f64, gradients: &[f64], rate: f64, decay: f64, settings: &AdamWSettings) -> f64 {
        let (mut x, mut m, mut v) = (start, 0.0, 0.0);
        let (b1, b2) = (settings.beta_1, settings.beta_2);
        for (i, g) in gradients.iter().enumerate() {
            let t = i32::try_from(i).expect("a small number") + 1;
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            x = x * (1.0 - rate * decay)
                - rate * (m / (1.0 - b1.powi(t))) / ((v / (1.0 - b2.powi(t))).sqrt() + settings.epsilon);
        }
        x
    }

    /// θ = 1, loss θ²/2, so that the gradient is θ; η = 0.1, λ = 0.01.
    #[test]
    fn the_worked_example() {
        let theta = variables("x", &[1.0], &[1, 1]);
        let mut adamw = AdamW::new(&theta, AdamWSettings { weight_decay: 0.01, ..AdamWSettings::default() });
        let mut exact: Vec<f64> = vec![1.0];
        for expected in [0.899_000_001_000, 0.798_519_028_189, 0.698_911_184_716f64] {
            let slope = stored(&theta)[0];
            step(&mut adamw, &theta, &[slope], 0.1);
            let settings = AdamWSettings::default();
            let next = reference(1.0, &exact, 0.1, 0.01, &settings);
            assert!((next - expected).abs() < 5e-13, "{next} for {expected}");
            exact.push(next);
            let found = f64::from(stored(&theta)[0]);
            assert!((found - expected).abs() < 2e-7, "{found} for {expected}");
        }
    }

    #[test]
    fn only_its_groups_decay() {
        let all = DecayGroups { embeddings: true, vectors: true };
        for (name, shape, decay, decays) in [
            ("layers.0.attention.query.weight", &[2, 1][..], DecayGroups::default(), true),
            ("layers.0.attention.query.weight.lora_A", &[1, 2], DecayGroups::default(), true),
            ("head.weight", &[2, 1], DecayGroups::default(), true),
            ("embedding.weight", &[2, 1], DecayGroups::default(), false),
            ("positions.weight", &[2, 1], DecayGroups::default(), false),
            ("final_norm.weight", &[2], DecayGroups::default(), false),
            ("embedding.weight", &[2, 1], DecayGroups { embeddings: true, vectors: false }, true),
            ("final_norm.weight", &[2], DecayGroups { embeddings: true, vectors: false }, false),
            ("layers.0.attention.query.bias", &[2], all, true),
        ] {
            let theta = variables(name, &[0.7, -0.2], shape);
            let settings = AdamWSettings { weight_decay: 0.5, beta_2: 0.95, decay, ..AdamWSettings::default() };
            let mut adamw = AdamW::new(&theta, settings);
            let slopes = [[0.3, -0.01], [-0.2, -0.4], [0.05, 0.2]];
            slopes.iter().for_each(|slope| step(&mut adamw, &theta, slope, 0.01));
            for (i, start) in [0.7, -0.2].into_iter().enumerate() {
                let gradients = slopes.map(|slope| f64::from(slope[i]));
                let expected = reference(start, &gradients, 0.01, if decays { 0.5 } else { 0.0 }, &settings);
                let found = f64::from(stored(&theta)[i]);
                assert!((found - expected).abs() < 1e-6, "{name} {decay:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn what_was_kept_can_be_taken_up() {
        let slopes = [[0.3, -0.01], [-0.2, -0.4], [0.05, 0.2], [0.1, 0.0]];
        let settings = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
        let whole = variables("x", &[0.7, -0.2], &[2, 1]);
        let mut adamw = AdamW::new(&whole, settings);
        slopes.iter().for_each(|slope| step(&mut adamw, &whole, slope, 0.01));
        let halves = variables("x", &[0.7, -0.2], &[2, 1]);
        let mut first = AdamW::new(&halves, settings);
        slopes[..2].iter().for_each(|slope| step(&mut first, &halves, slope, 0.01));
        let mut second = AdamW::new(&halves, settings);
        assert!(second.restore("x", first.moments()["x"].clone()));
        assert!(!second.restore("y", first.moments()["x"].clone()));
        slopes[2..].iter().for_each(|slope| step(&mut second, &halves, slope, 0.01));
        assert_eq!(stored(&whole), stored(&halves));
        assert_eq!(adamw.moments(), second.moments());
    }

    #[test]
    fn a_variable_without_a_gradient_stays() {
        let mut theta = variables("x", &[0.5], &[1, 1]);
        theta.extend(variables("y", &[0.5], &[1, 1]));
        let mut adamw = AdamW::new(&theta, AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() });
        let gradients = BTreeMap::from([("y".to_owned(), Tensor::new(&[[1.0f32]], &Device::Cpu).expect("a tensor"))]);
        adamw.step(&theta, &gradients, 0.1, 1.0).expect("a step");
        let values = stored(&theta);
        assert!(values[0] == 0.5 && values[1] != 0.5, "{values:?}");
        assert_eq!([adamw.moments()["x"].updates, adamw.moments()["y"].updates], [0, 1]);
    }
}
