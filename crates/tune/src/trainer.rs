//! One update of a decoder from micro-batches.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use lathe_model::{Decoder, Recompute, TrainingPass};

use crate::adamw::{AdamW, AdamWSettings};
use crate::clip::{clip_factor, sum_of_squares};
use crate::loss::Loss;
use crate::schedule::Rate;

/// How a model is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerSettings {
    /// The optimiser.
    pub adamw: AdamWSettings,
    /// The learning rate of every step.
    pub rate: Rate,
    /// Length that a longer gradient is cut to; none for any length.
    pub clip: Option<f64>,
    /// What is computed twice to save memory.
    pub recompute: Recompute,
}

/// A loss, an optimiser, and the steps that were done.
pub struct Trainer<L> {
    loss: L,
    settings: TrainerSettings,
    adamw: AdamW,
    step: usize,
    /// Whether every variable is known to get a gradient.
    is_checked: bool,
}

/// A step that was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// From 1.
    pub step: usize,
    /// Mean of the terms before the update.
    pub loss: f64,
    /// Number of terms.
    pub terms: u64,
    /// Tokens that were read.
    pub tokens: u64,
    /// Length of the gradient before it was clipped.
    pub gradient_norm: f64,
    /// Learning rate.
    pub rate: f64,
}

/// Why a step was not done. The model is as it was before it.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The forward or backward pass failed.
    #[error(transparent)]
    Model(#[from] lathe_model::Error),
    /// A number that is NaN or infinite.
    #[error("the {what} is not finite")]
    NotFinite {
        /// The loss, or the gradient.
        what: &'static str,
    },
    /// Parameters that should be trained get no gradient.
    #[error("no gradient reaches {}", listed(.names))]
    NoGradient {
        /// Their names.
        names: Vec<String>,
    },
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more parameters") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl<L: Loss> Trainer<L> {
    /// A trainer that has done no step.
    #[must_use]
    pub fn new(variables: &BTreeMap<String, Var>, loss: L, settings: TrainerSettings) -> Self {
        Self { loss, settings, adamw: AdamW::new(variables, settings.adamw), step: 0, is_checked: false }
    }

    /// The optimiser.
    #[must_use]
    pub fn adamw(&self) -> &AdamW {
        &self.adamw
    }

    /// Goes on after `step` steps of an earlier run, with its optimiser.
    pub fn go_on(&mut self, step: usize, restore: impl FnOnce(&mut AdamW)) {
        self.step = step;
        restore(&mut self.adamw);
    }

    /// Steps that were done.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Whether a gradient reaches everything that is trained, found out on one item; nothing is changed. A trainer that was not
    /// asked finds out in its first step.
    ///
    /// # Errors
    /// [`TrainError::NoGradient`], or the pass failed.
    pub fn check(&mut self, decoder: &Decoder, item: &L::Item) -> Result<(), TrainError> {
        let pass = TrainingPass { recompute: self.settings.recompute, draw: 0 };
        let gradients = decoder.gradients(&self.loss.batch(&[item]), pass, &mut |hidden| {
            Ok(self.loss.values(decoder, hidden, &[item])?.sum_all()?)
        })?;
        check_presence(decoder.trainable(), &gradients.by_name)?;
        self.is_checked = true;
        Ok(())
    }

    /// Reads micro-batches, one after another, and changes the model by the gradient of the mean of all of their terms.
    ///
    /// # Errors
    /// See [`TrainError`]; nothing was changed then.
    pub fn step(&mut self, decoder: &Decoder, micro_batches: &[Vec<&L::Item>]) -> Result<StepReport, TrainError> {
        /// Micro-batches of one step, for the number of a pass.
        const MOST: u64 = 1 << 20;
        let step = self.step + 1;
        let all = micro_batches.iter().flatten();
        let terms: usize = all.map(|item| self.loss.terms(item)).sum();
        let share = 1.0 / terms.max(1) as f64;
        let mut gradients: BTreeMap<String, Tensor> = BTreeMap::new();
        let (mut sum, mut tokens) = (0.0, 0);
        for (index, items) in micro_batches.iter().enumerate() {
            let batch = self.loss.batch(items);
            tokens += batch.ids().len() as u64;
            let pass = TrainingPass { recompute: self.settings.recompute, draw: step as u64 * MOST + index as u64 };
            let of_batch = decoder.gradients(&batch, pass, &mut |hidden| {
                let values = self.loss.values(decoder, hidden, items)?;
                let plain: Vec<f32> = values.to_vec1()?;
                sum += plain.iter().map(|value| f64::from(*value)).sum::<f64>();
                Ok(values.affine(share, 0.0)?.sum_all()?)
            })?;
            for (name, gradient) in of_batch.by_name {
                let joined = match gradients.remove(&name) {
                    Some(before) => (before + gradient)?,
                    None => gradient,
                };
                gradients.insert(name, joined);
            }
        }
        let loss = sum * share;
        if !loss.is_finite() {
            return Err(TrainError::NotFinite { what: "loss" });
        }
        if !self.is_checked {
            check_presence(decoder.trainable(), &gradients)?;
            self.is_checked = true;
        }
        let mut square = 0.0;
        for gradient in gradients.values_mut() {
            *gradient = gradient.contiguous()?;
            square += sum_of_squares(gradient)?;
        }
        let gradient_norm = square.sqrt();
        if !gradient_norm.is_finite() {
            return Err(TrainError::NotFinite { what: "gradient" });
        }
        let factor = self.settings.clip.map_or(1.0, |limit| clip_factor(gradient_norm, limit));
        let rate = self.settings.rate.at(step);
        self.adamw.step(decoder.trainable(), &gradients, rate, factor)?;
        self.step = step;
        Ok(StepReport { step, loss, terms: terms as u64, tokens, gradient_norm, rate })
    }
}

/// Every variable needs a gradient in the first step, if it were only zeros: one that gets none is cut off from the loss,
/// and would stay as it is without a word. An expert that no token went to has none.
fn check_presence(variables: &BTreeMap<String, Var>, gradients: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
    let is_expert = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        parts.windows(2).any(|pair| pair[0] == "experts" && pair[1].parse::<usize>().is_ok())
    };
    let missing = |name: &&String| !gradients.contains_key(*name) && !is_expert(name);
    let names: Vec<String> = variables.keys().filter(missing).cloned().collect();
    if names.is_empty() { Ok(()) } else { Err(TrainError::NoGradient { names }) }
}

#[cfg(test)]
mod tests;
