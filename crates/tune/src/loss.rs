//! What is minimised: terms of which a step's loss is the mean.

use candle_core::Tensor;
use lathe_model::{Batch, Decoder, Error};

use crate::labels::Example;

/// A loss: which sequences a model reads for some items of data, and what their hidden states cost.
///
/// The loss of a step is the sum of the terms of all of its items over their number, whatever the micro-batches that they
/// came in.
pub trait Loss {
    /// An item of data.
    type Item;

    /// The sequences of some items.
    fn batch(&self, items: &[&Self::Item]) -> Batch;

    /// How many terms an item has.
    fn terms(&self, item: &Self::Item) -> usize;

    /// All terms of some items, `[terms]`, on the tape; `hidden` are the states of [`Loss::batch`] after the final norm,
    /// `[tokens, hidden_size]`.
    ///
    /// # Errors
    /// The model refuses: a token outside its vocabulary, no head.
    fn values(&self, decoder: &Decoder, hidden: &Tensor, items: &[&Self::Item]) -> Result<Tensor, Error>;
}

/// Negative log-likelihood of every target of an example, nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextToken;

impl Loss for NextToken {
    type Item = Example;

    /// Every example without its last token, which predicts nothing.
    fn batch(&self, items: &[&Example]) -> Batch {
        Batch::of(items.iter().map(|example| &example.ids[..example.ids.len() - 1]))
    }

    fn terms(&self, item: &Example) -> usize {
        item.target_count()
    }

    fn values(&self, decoder: &Decoder, hidden: &Tensor, items: &[&Example]) -> Result<Tensor, Error> {
        let (rows, targets) = predicted(items);
        if rows.len() == hidden.dim(0)? {
            return decoder.negative_log_likelihood(hidden, targets);
        }
        let chosen = hidden.index_select(&Tensor::new(&rows[..], hidden.device())?, 0)?;
        decoder.negative_log_likelihood(&chosen, targets)
    }
}

/// Rows of the packed states that predict something, and what.
#[must_use]
pub fn predicted(items: &[&Example]) -> (Vec<u32>, Vec<u32>) {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    let mut first = 0;
    for example in items {
        for (row, target) in example.targets() {
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            rows.push((first + row) as u32);
            targets.push(target);
        }
        first += example.ids.len() - 1;
    }
    (rows, targets)
}
