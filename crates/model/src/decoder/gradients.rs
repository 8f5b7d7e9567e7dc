//! A loss and what it says of every trainable parameter.
//!
//! The pass is cut at every layer: each has a tape of its own, which is gone back through and dropped before the next one.
//! No tape is deeper than a layer, and what is computed again (gradient checkpointing, 1604.06174) is a layer's tape, by
//! the same operations on the same numbers: the gradients have the same bits. Below the lowest trainable parameter
//! nothing is recorded.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::{Decoder, ops};
use crate::batch::Batch;
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

/// A layer of a pass, to be gone back through.
struct Cut {
    layer: usize,
    input: Input,
    /// Its result with its tape; none where it is computed again.
    output: Option<Tensor>,
}

/// What a layer read.
enum Input {
    /// Its gradient is needed further down.
    Variable(Var),
    /// Nothing below is trained.
    Fixed(Tensor),
}

impl Input {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Variable(var) => var,
            Self::Fixed(tensor) => tensor,
        }
    }

    fn gradient(&self, store: &mut GradStore) -> Option<Tensor> {
        match self {
            Self::Variable(var) => store.remove(var),
            Self::Fixed(_) => None,
        }
    }
}

impl Decoder {
    /// Runs the tokens of `batch`, hands the hidden states after the final norm, `[tokens, hidden_size]`, to `loss`, and
    /// returns the gradient of the number that it makes of them.
    ///
    /// What is dropped (the dropout of an adapter) is dropped here and nowhere else.
    ///
    /// # Errors
    /// What [`Decoder::forward`] refuses, or the loss fails.
    pub fn gradients(
        &self,
        batch: &Batch,
        how: TrainingPass,
        loss: &mut dyn FnMut(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Gradients, Error> {
        batch.check(self.spec.vocab_size, self.spec.context_length)?;
        self.check_cache(batch, None)?;
        lathe_kernels::keep_freed_memory();
        let mut tap = NoTap;
        let mut pass = self.pass(batch, None, &mut tap, Some(how.draw));
        let embedded = self.embed(batch)?;
        let lowest = self.lowest_trained(&embedded);
        let mut cuts = Vec::new();
        let mut x = embedded.detach();
        for (l, layer) in self.layers.iter().enumerate() {
            if l < lowest {
                x = self.layer(l, layer, &x, &mut pass)?.detach();
                continue;
            }
            let below = l > lowest || embedded.track_op();
            let input = if below { Input::Variable(Var::from_tensor(&x)?) } else { Input::Fixed(x) };
            let output = self.layer(l, layer, input.tensor(), &mut pass)?;
            x = output.detach();
            let output = (how.recompute == Recompute::Nothing).then_some(output);
            cuts.push(Cut { layer: l, input, output });
        }
        let top = if cuts.is_empty() && !embedded.track_op() {
            Input::Fixed(x)
        } else {
            Input::Variable(Var::from_tensor(&x)?)
        };
        let mut sums = Sums::default();
        let mut gradient = {
            let hidden = self.after_layers(top.tensor(), &mut pass)?;
            let mut store = sums.backward(self, &loss(&hidden)?)?;
            top.gradient(&mut store)
        };
        while let Some(cut) = cuts.pop() {
            let Some(above) = gradient.take() else { break };
            let output = match cut.output {
                Some(output) => output,
                None => self.layer(cut.layer, &self.layers[cut.layer], cut.input.tensor(), &mut pass)?,
            };
            let mut store = sums.backward(self, &ops::seeded(&output, above)?)?;
            drop(output);
            gradient = cut.input.gradient(&mut store);
        }
        if let Some(gradient) = gradient
            && embedded.track_op()
        {
            sums.backward(self, &ops::seeded(&embedded, gradient)?)?;
        }
        sums.by_name(self)
    }

    /// The first layer through which gradients have to come: the number of layers where none has.
    fn lowest_trained(&self, embedded: &Tensor) -> usize {
        let layers = self.layers.len();
        if embedded.track_op() {
            return 0;
        }
        let layer_of = |name: &String| name.strip_prefix("layers.")?.split('.').next()?.parse::<usize>().ok();
        self.trainable.keys().filter_map(layer_of).min().unwrap_or(layers)
    }
}

/// Gradients of variables so far.
#[derive(Default)]
struct Sums {
    gathered: ops::Gathered,
    by_name: BTreeMap<String, Tensor>,
}

impl Sums {
    /// Goes back through a tape. What is left in the store are gradients of no parameter.
    fn backward(&mut self, decoder: &Decoder, end: &Tensor) -> Result<GradStore, Error> {
        let mut store = ops::gather(&mut self.gathered, || end.backward())?;
        for (name, var) in &decoder.trainable {
            let Some(gradient) = store.remove(var) else { continue };
            let sum = match self.by_name.remove(name) {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            };
            self.by_name.insert(name.clone(), sum);
        }
        Ok(store)
    }

    fn by_name(mut self, decoder: &Decoder) -> Result<Gradients, Error> {
        for (name, var) in &decoder.trainable {
            let Some(gathered) = self.gathered.remove(&var.id()) else { continue };
            let gathered = ops::tensor(gathered, var.shape())?;
            let sum = match self.by_name.remove(name) {
                Some(sum) => (sum + gathered)?,
                None => gathered,
            };
            self.by_name.insert(name.clone(), sum);
        }
        Ok(Gradients { by_name: self.by_name })
    }
}
