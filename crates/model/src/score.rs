//! Log-likelihoods without the logits of a whole text: the head is applied to a few rows at a time and reduced at
//! once.

use candle_core::Tensor;
use lathe_kernels::logits;
use rayon::prelude::*;

use crate::Error;
use crate::decoder::Decoder;
use crate::ops::LogitScaling;

/// Logits held at once.
const CHUNK_VALUES: usize = 1 << 23;

/// What the model says of one predicted token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Negative log-likelihood of the target, nats.
    pub nll: f64,
    /// Entropy of the model's distribution, nats.
    pub entropy: f64,
    /// The most likely token; the lowest id of several.
    pub argmax: u32,
}

impl Decoder {
    /// Scores `targets[i]` under the distribution of hidden state `i`.
    ///
    /// # Errors
    /// A target outside the vocabulary, or as many targets as hidden states are not given.
    pub fn score(&self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<TokenScore>, Error> {
        let (rows, _) = hidden.dims2()?;
        if rows != targets.len() {
            return Err(candle_core::Error::Msg(format!("{} targets for {rows} hidden states", targets.len())).into());
        }
        if let Some(position) = targets.iter().position(|id| *id as usize >= self.spec().vocab_size) {
            let vocab_size = self.spec().vocab_size;
            return Err(Error::TokenOutOfRange { id: targets[position], position, vocab_size });
        }
        let mut scores = Vec::with_capacity(rows);
        self.for_logits(
            hidden,
            |row, logits| {
                let summary = logits::summarise(logits);
                #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
                TokenScore {
                    nll: summary.log_sum_exp - f64::from(logits[targets[row] as usize]),
                    entropy: summary.entropy,
                    argmax: summary.argmax as u32,
                }
            },
            &mut scores,
        )?;
        Ok(scores)
    }

    /// Calls `f(row, logits)` for every hidden state and collects its results in order. Rows come from several threads.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn for_logits<T: Send>(
        &self,
        hidden: &Tensor,
        f: impl Fn(usize, &[f32]) -> T + Sync,
        results: &mut Vec<T>,
    ) -> Result<(), Error> {
        let rows = hidden.dim(0)?;
        let vocab_size = self.spec().vocab_size;
        let scaling = LogitScaling::of(&self.spec().head);
        let chunk = (CHUNK_VALUES / vocab_size.max(1)).clamp(12, 384);
        for first in (0..rows).step_by(chunk) {
            let count = chunk.min(rows - first);
            let part = hidden.narrow(0, first, count)?;
            let mut values = self.head.values(&part)?;
            results.par_extend(values.par_chunks_exact_mut(vocab_size).enumerate().map(|(row, logits)| {
                scaling.apply(logits);
                f(first + row, logits)
            }));
        }
        Ok(())
    }
}
