//! A loss and what it says of every trainable parameter.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::batch::Batch;
use crate::decoder::Decoder;
use crate::{Error, NoTap};

/// How a training pass is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingPass {
    /// What is computed twice so as not to be kept.
    pub recompute: Recompute,
    /// Number of the pass among all of a run: what is drawn in it (dropout) follows from a seed and this.
    pub draw: u64,
}

/// What the way back computes again (gradient checkpointing). The gradients are the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Everything is kept.
    Nothing,
    /// Only the input of each layer is kept.
    Layers,
}

/// The gradient of a loss.
pub struct Gradients {
    /// By lathe's names of parameters; a parameter that no token reached (an expert, say) has none.
    pub by_name: BTreeMap<String, Tensor>,
}

impl Decoder {
    /// Runs the tokens of `batch`, hands the hidden states after the final norm, `[tokens, hidden_size]`, to `loss`, and
    /// returns the gradient of the number that it makes of them.
    ///
    /// # Errors
    /// What [`Decoder::forward`] refuses, or the loss fails.
    pub fn gradients(
        &self,
        batch: &Batch,
        _: TrainingPass,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Gradients, Error> {
        let hidden = self.forward(batch, None, &mut NoTap)?;
        let mut store = loss(&hidden)?.backward()?;
        let of = |(name, var): (&String, &candle_core::Var)| Some((name.clone(), store.remove(var)?));
        Ok(Gradients { by_name: self.trainable().iter().filter_map(of).collect() })
    }
}
