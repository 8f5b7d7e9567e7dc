//! A loss and what it says of every trainable parameter.
//!
//! The pass is cut at every layer: each has a tape of its own, which is gone back through and dropped before the next one.
//! No tape is deeper than a layer, and what is computed again (gradient checkpointing, 1604.06174) is a layer's tape, by
//! the same operations on the same numbers: the gradients have the same bits. Below the lowest trainable parameter
//! nothing is recorded.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::{Decoder, FeedForward, Linear, Norm, Pass, ops};
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
    input: Tensor,
    /// Whether something below is trained.
    wanted: bool,
    /// Its tape; none where it is computed again.
    kept: Option<Kept>,
}

/// The tape of a layer.
enum Kept {
    /// Ours.
    Own(ops::Recorded),
    /// candle's: the input where its gradient is wanted, and the result.
    Candle(Option<Var>, Tensor),
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
        for l in 0..self.layers.len() {
            if l < lowest {
                x = self.layer(l, &self.layers[l], &x, &mut pass)?.detach();
                continue;
            }
            let (input, wanted) = (x, l > lowest || embedded.track_op());
            let (output, kept) = self.recorded(l, &input, wanted, &mut pass)?;
            x = output;
            let kept = (how.recompute == Recompute::Nothing).then_some(kept);
            cuts.push(Cut { layer: l, input, wanted, kept });
        }
        let top = (!cuts.is_empty() || embedded.track_op()).then(|| Var::from_tensor(&x)).transpose()?;
        let mut sums = Sums::default();
        let mut gradient = {
            let hidden = self.after_layers(top.as_deref().unwrap_or(&x), &mut pass)?;
            let mut store = sums.backward(self, &loss(&hidden)?)?;
            top.and_then(|top| store.remove(&top))
        };
        drop(x);
        while let Some(Cut { layer, input, wanted, kept }) = cuts.pop() {
            let Some(above) = gradient.take() else { break };
            let kept = match kept {
                Some(kept) => kept,
                None => self.recorded(layer, &input, wanted, &mut pass)?.1,
            };
            drop(input);
            gradient = match kept {
                Kept::Own(recorded) => ops::gather(&mut sums.gathered, || recorded.backward(above))?,
                Kept::Candle(input, output) => {
                    let mut store = sums.backward(self, &ops::seeded(&output, above)?)?;
                    input.and_then(|input| store.remove(&input))
                }
            };
        }
        if let Some(gradient) = gradient
            && embedded.track_op()
        {
            sums.backward(self, &ops::seeded(&embedded, gradient)?)?;
        }
        sums.by_name(self)
    }

    /// The result of a layer, off every tape, and its tape.
    fn recorded(&self, l: usize, x: &Tensor, wanted: bool, pass: &mut Pass<'_>) -> Result<(Tensor, Kept), Error> {
        let layer = &self.layers[l];
        if self.is_plain(l) {
            let (output, recorded) = ops::record(x, wanted, || self.layer(l, layer, x, pass))?;
            return Ok((output, Kept::Own(recorded)));
        }
        let input = wanted.then(|| Var::from_tensor(x)).transpose()?;
        let output = self.layer(l, layer, input.as_deref().unwrap_or(x), pass)?;
        Ok((output.detach(), Kept::Candle(input, output)))
    }

    /// Whether a layer consists of our own operations alone, so that it can be recorded on our own tape. What is left to
    /// candle: sums with biases that are trained or follow a norm, factors that are made of variables, multipliers,
    /// clamped values, experts.
    fn is_plain(&self, l: usize) -> bool {
        let (layer, spec) = (&self.layers[l], &self.spec.layers[l]);
        let norms = [
            &layer.before_attention,
            &layer.query_norm,
            &layer.key_norm,
            &layer.after_attention,
            &layer.before_feed_forward,
            &layer.after_feed_forward,
        ];
        let linears = [&layer.query, &layer.key, &layer.value, &layer.output];
        let FeedForward::Dense(mlp) = &layer.feed_forward else { return false };
        let mut linears = linears.into_iter().chain(&mlp.gate).chain([&mlp.up, &mlp.down]);
        spec.residual_scale == 1.0
            && spec.attention.clip.is_none()
            && norms.into_iter().flatten().all(Norm::is_one_operation)
            && linears.all(Linear::is_one_operation)
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
