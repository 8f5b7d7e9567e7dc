//! A feed-forward part of several experts behind a router.
//!
//! With router logits `z = W x` and probabilities `p = softmax(z)` over all experts, a token uses the `top_k` most
//! probable experts (the lower index of equal ones): `out = Σ w_e · expert_e(x)`, with `w_e = p_e`, or `p_e` divided
//! by the sum of the chosen ones. Experts are visited in rising order, so a token's sum never depends on its batch.

use candle_core::Tensor;

use super::{Linear, Mlp, Pass};
use crate::spec::{ExpertWeights, ExpertsSpec};
use crate::tap::Site;
use crate::{Error, ops};

pub(super) struct Experts {
    pub(super) spec: ExpertsSpec,
    pub(super) router: Linear,
    pub(super) experts: Vec<Mlp>,
    pub(super) shared: Option<Mlp>,
    pub(super) shared_gate: Option<Linear>,
}

impl Experts {
    pub(super) fn apply(&self, x: &Tensor, l: usize, pass: &mut Pass<'_>) -> Result<Tensor, Error> {
        let logits = self.router.apply(x, None)?;
        pass.see(Site::RouterLogits(l), &logits)?;
        let probabilities = ops::softmax(&logits)?;
        pass.see(Site::RouterProbabilities(l), &probabilities)?;
        let chosen = ops::with_values(&probabilities, |p| Ok(choose(p, self.spec.count, self.spec.top_k)))?;
        let weights = self.weights(&probabilities, &chosen)?;
        pass.see(Site::RouterWeights(l), &weights)?;

        let mut out = x.zeros_like()?;
        for (e, expert) in self.experts.iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "rows of a batch")]
            let rows: Vec<u32> = chosen
                .iter()
                .enumerate()
                .filter(|(_, chosen)| chosen.contains(&e))
                .map(|(row, _)| row as u32)
                .collect();
            if rows.is_empty() {
                continue;
            }
            let rows = Tensor::from_vec(rows.clone(), rows.len(), x.device())?;
            let part = expert.apply(&x.index_select(&rows, 0)?)?;
            let weight = weights.narrow(1, e, 1)?.contiguous()?.index_select(&rows, 0)?;
            out = out.index_add(&rows, &part.broadcast_mul(&weight)?, 0)?;
        }
        if let Some(shared) = &self.shared {
            let mut part = shared.apply(x)?;
            if let Some(gate) = &self.shared_gate {
                let gate = (gate.apply(x, None)?.neg()?.exp()? + 1.0)?.recip()?;
                part = part.broadcast_mul(&gate)?;
            }
            out = (out + part)?;
        }
        Ok(out)
    }

    /// Weights of the chosen experts, 0 elsewhere, `[tokens, experts]`.
    fn weights(&self, probabilities: &Tensor, chosen: &[Vec<usize>]) -> Result<Tensor, Error> {
        let mut mask = vec![0.0; chosen.len() * self.spec.count];
        for (row, chosen) in mask.chunks_exact_mut(self.spec.count).zip(chosen) {
            chosen.iter().for_each(|e| row[*e] = 1.0);
        }
        let weights = (probabilities * ops::tensor(mask, probabilities.shape())?)?;
        Ok(match self.spec.weights {
            ExpertWeights::AsTheyAre => weights,
            ExpertWeights::Renormalised => weights.broadcast_div(&weights.sum_keepdim(1)?)?,
        })
    }
}

/// The `top_k` most probable experts of every row, in rising order of their index.
fn choose(probabilities: &[f32], experts: usize, top_k: usize) -> Vec<Vec<usize>> {
    let rows = probabilities.chunks_exact(experts);
    rows.map(|row| {
        let mut order: Vec<usize> = (0..experts).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        order.truncate(top_k);
        order.sort_unstable();
        order
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(choose(&[0.25, 0.25, 0.4, 0.1, 0.1, 0.2, 0.3, 0.4], 4, 2), [[0, 2], [2, 3]]);
    }
}
