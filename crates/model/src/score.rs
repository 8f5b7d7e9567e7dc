//! Log-likelihoods without the logits of a whole text: the head's product is reduced as it is made, a few hundred rows
//! and columns at a time.

use candle_core::Tensor;
use lathe_kernels::logits::{self, PartSummary};
use lathe_kernels::matmul::PIECE;
use rayon::prelude::*;

use crate::Error;
use crate::decoder::Decoder;
use crate::ops::LogitScaling;

/// Logits held at once.
const CHUNK_VALUES: usize = 1 << 24;

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
    /// A target outside the vocabulary, as many targets as hidden states are not given, or the model has no head.
    pub fn score(&self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<TokenScore>, Error> {
        let (rows, _) = hidden.dims2()?;
        if rows != targets.len() {
            return Err(candle_core::Error::Msg(format!("{} targets for {rows} hidden states", targets.len())).into());
        }
        if let Some(position) = targets.iter().position(|id| *id as usize >= self.spec().vocab_size) {
            let vocab_size = self.spec().vocab_size;
            return Err(Error::TokenOutOfRange { id: targets[position], position, vocab_size });
        }
        let scaling = LogitScaling::of(&self.spec().head);
        let of_piece = |row: usize, column: usize, logits: &mut [f32]| {
            scaling.apply(logits);
            let target = (targets[row] as usize).checked_sub(column);
            (logits::summarise_part(column, logits), target.and_then(|at| logits.get(at)).copied().unwrap_or(0.0))
        };
        // One piece of a row has its target: the others add zero.
        let join = |a: (PartSummary, f32), b: (PartSummary, f32)| (a.0.join(b.0), a.1 + b.1);
        let rows = match self.head()?.reduced(hidden, of_piece, join)? {
            Some(rows) => rows,
            None => {
                let mut rows = Vec::with_capacity(targets.len());
                self.for_products(
                    hidden,
                    |row, logits| {
                        let pieces = logits.chunks_mut(PIECE).enumerate();
                        pieces.map(|(i, piece)| of_piece(row, i * PIECE, piece)).reduce(join)
                    },
                    &mut rows,
                )?;
                rows.into_iter().flatten().collect()
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "token ids are u32")]
        let score = |(summary, logit): (PartSummary, f32)| {
            let summary = summary.finish();
            TokenScore {
                nll: summary.log_sum_exp - f64::from(logit),
                entropy: summary.entropy,
                argmax: summary.argmax as u32,
            }
        };
        Ok(rows.into_iter().map(score).collect())
    }

    /// Calls `f(row, logits)` for every hidden state and collects its results in order. Rows come from several threads, and
    /// may be overwritten.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn for_logits<T: Send>(
        &self,
        hidden: &Tensor,
        f: impl Fn(usize, &mut [f32]) -> T + Sync,
        results: &mut Vec<T>,
    ) -> Result<(), Error> {
        let scaling = LogitScaling::of(&self.spec().head);
        let of_row = |row, logits: &mut [f32]| {
            scaling.apply(logits);
            f(row, logits)
        };
        self.for_products(hidden, of_row, results)
    }

    /// The same with the head's products, which are no logits yet.
    fn for_products<T: Send>(
        &self,
        hidden: &Tensor,
        f: impl Fn(usize, &mut [f32]) -> T + Sync,
        results: &mut Vec<T>,
    ) -> Result<(), Error> {
        let rows = hidden.dim(0)?;
        let vocab_size = self.spec().vocab_size;
        let chunk = (CHUNK_VALUES / vocab_size.max(1)).clamp(12, 384);
        for first in (0..rows).step_by(chunk) {
            let count = chunk.min(rows - first);
            let part = hidden.narrow(0, first, count)?;
            let mut values = self.head()?.values(&part)?;
            let rows = values.par_chunks_exact_mut(vocab_size).enumerate().with_max_len(1);
            results.par_extend(rows.map(|(row, products)| f(first + row, products)));
        }
        Ok(())
    }
}
