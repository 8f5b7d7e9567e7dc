//! The likelihood of tokens, from logits or from a trainable head, and its gradient.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use lathe_kernels::logits;
use lathe_kernels::matmul::{Arithmetic, Left, Matrix, Start, Threads, Weight, matmul, product, product_in};
use rayon::prelude::*;

use super::gather::hand_over;
use super::linear::{FrozenParts, TrainedParts};
use super::{done, rows_of, tensor, values, with_matrix, with_values};
use crate::spec::HeadSpec;

/// How logits are made of the head's product `x`: `y = scale · x`, or `cap · tanh(scale · x / cap)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogitScaling {
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
}

impl LogitScaling {
    /// Of a model.
    pub(crate) fn of(head: &HeadSpec) -> Self {
        Self { scale: head.scale, soft_cap: head.soft_cap }
    }

    /// Makes a row of the head's product one of logits.
    pub(crate) fn apply(self, row: &mut [f32]) {
        if self.scale != 1.0 {
            row.iter_mut().for_each(|logit| *logit *= self.scale);
        }
        if let Some(cap) = self.soft_cap {
            logits::soft_cap(row, cap);
        }
    }

    /// Negative log-likelihood of `target` under a row of the head's product, which becomes its gradient.
    fn likelihood(self, row: &mut [f32], target: usize) -> f32 {
        self.apply(row);
        let log_sum_exp = logits::summarise(row).log_sum_exp;
        let nll = (log_sum_exp - f64::from(row[target])) as f32;
        logits::likelihood_gradient(row, log_sum_exp as f32, target, self.scale, self.soft_cap);
        nll
    }
}

/// Negative log-likelihood of `targets[i]` under row `i` of `logits`, `[rows]`, nats.
pub(crate) fn negative_log_likelihood(logits: &Tensor, targets: Vec<u32>) -> Result<Tensor> {
    let (rows, vocab_size) = logits.dims2()?;
    check_targets(&targets, rows, vocab_size)?;
    logits.contiguous()?.apply_op1(NegativeLogLikelihood(targets))
}

fn check_targets(targets: &[u32], rows: usize, vocab_size: usize) -> Result<()> {
    if targets.len() != rows || targets.iter().any(|id| *id as usize >= vocab_size) {
        bail!("{} targets for {rows} rows of {vocab_size} logits, or one outside the vocabulary", targets.len());
    }
    Ok(())
}

struct NegativeLogLikelihood(Vec<u32>);

impl CustomOp1 for NegativeLogLikelihood {
    fn name(&self) -> &'static str {
        "negative-log-likelihood"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, vocab_size) = rows_of(layout)?;
        let x = values(x, layout)?;
        let nll = x
            .par_chunks_exact(vocab_size)
            .zip(&self.0)
            .map(|(row, target)| (logits::summarise(row).log_sum_exp - f64::from(row[*target as usize])) as f32);
        done(nll.collect(), rows)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let vocab_size = x.dim(1)?;
        let grad = grad.contiguous()?;
        let mut dx = with_values(x, |x| Ok(x.to_vec()))?;
        with_values(&grad, |grad| {
            dx.par_chunks_exact_mut(vocab_size).zip(&self.0).zip(grad).for_each(|((row, target), grad)| {
                let log_sum_exp = logits::summarise(row).log_sum_exp as f32;
                logits::softmax_scaled(row, log_sum_exp, *grad);
                row[*target as usize] -= grad;
            });
            Ok(())
        })?;
        tensor(dx, x.shape()).map(Some)
    }
}

/// Negative log-likelihood of `targets[i]` given hidden state `i` and a trainable head `[vocab_size, hidden_size]`,
/// `[rows]`, nats. The logits turn into their own gradient where they lie: they are held once, and not on the tape.
pub(crate) fn head_likelihood(
    x: &Tensor,
    (head, arithmetic): TrainedParts<'_>,
    scaling: LogitScaling,
    targets: Vec<u32>,
) -> Result<Tensor> {
    check_targets(&targets, x.dim(0)?, head.dim(0)?)?;
    let op = HeadLikelihood { arithmetic, scaling, targets, dlogits: OnceLock::new() };
    x.contiguous()?.apply_op2(&head.contiguous()?, op)
}

struct HeadLikelihood {
    arithmetic: Arithmetic,
    scaling: LogitScaling,
    targets: Vec<u32>,
    /// Gradient of each row's likelihood with respect to the head's product, `[rows, vocab_size]`.
    dlogits: OnceLock<Vec<f32>>,
}

impl CustomOp2 for HeadLikelihood {
    fn name(&self) -> &'static str {
        "head-likelihood"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, head: &CpuStorage, lh: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, k), (vocab_size, head_k)) = (rows_of(lx)?, rows_of(lh)?);
        if k != head_k {
            bail!("head of {head_k} inputs got rows of {k}");
        }
        let (x, head) = (Matrix::new(values(x, lx)?, rows, k), Matrix::new(values(head, lh)?, vocab_size, k));
        let mut logits = product_in(self.arithmetic, &[(x, head.transposed())]);
        let pairs = logits.par_chunks_exact_mut(vocab_size).zip(&self.targets);
        let nll: Vec<f32> = pairs.map(|(row, target)| self.scaling.likelihood(row, *target as usize)).collect();
        _ = self.dlogits.set(logits);
        done(nll, rows)
    }

    fn bwd(&self, x: &Tensor, head: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(dlogits) = self.dlogits.get() else { bail!("head-likelihood was not applied") };
        let ((rows, k), vocab_size) = (x.dims2()?, head.dim(0)?);
        let dlogits = Matrix::new(dlogits, rows, vocab_size);
        let grad = grad.contiguous()?;
        // Row i of the logits' gradient counts `grad[i]` times: cheaper on the narrow matrices than on the wide one.
        let weigh = |rows: &mut [f32]| {
            with_values(&grad, |grad| {
                let rows = rows.chunks_exact_mut(k.max(1)).zip(grad);
                rows.for_each(|(row, grad)| row.iter_mut().for_each(|x| *x *= grad));
                Ok(())
            })
        };
        let mut weighted = with_values(x, |x| Ok(x.to_vec()))?;
        weigh(&mut weighted)?;
        let dhead = product_in(self.arithmetic, &[(dlogits.transposed(), Matrix::new(&weighted, rows, k))]);
        let dhead = hand_over(head, dhead)?;
        if !x.track_op() {
            return Ok((None, dhead));
        }
        let mut dx = with_matrix(head, |head| Ok(product_in(self.arithmetic, &[(dlogits, head)])))?;
        weigh(&mut dx)?;
        Ok((Some(tensor(dx, x.shape())?), dhead))
    }
}

/// The same with a frozen head. Its logits are made, and turn into what they say of `x`, for some hundred rows at a time.
pub(crate) fn head_likelihood_frozen(
    x: &Tensor,
    head: FrozenParts<'_>,
    scaling: LogitScaling,
    targets: Vec<u32>,
) -> Result<Tensor> {
    check_targets(&targets, x.dim(0)?, head.0.n())?;
    let (weight, bias) = (head.0.clone(), head.1.cloned());
    let op = HeadFrozen { weight, bias, scaling, targets, tracked: x.track_op(), dx: OnceLock::new() };
    let x = x.contiguous()?;
    if x.track_op() { x.apply_op1(op) } else { x.apply_op1_no_bwd(&op) }
}

/// Logits that are held at once: 128 MB.
const LOGITS: usize = 1 << 25;

struct HeadFrozen {
    weight: Arc<Weight>,
    bias: Option<Arc<Vec<f32>>>,
    scaling: LogitScaling,
    targets: Vec<u32>,
    tracked: bool,
    /// Gradient of each row's likelihood with respect to the row, `[rows, hidden_size]`.
    dx: OnceLock<Vec<f32>>,
}

impl CustomOp1 for HeadFrozen {
    fn name(&self) -> &'static str {
        "head-likelihood-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, k), vocab_size) = (rows_of(layout)?, self.weight.n());
        if k != self.weight.k() {
            bail!("head of {} inputs got rows of {k}", self.weight.k());
        }
        let x = values(x, layout)?;
        // Pieces of about the same length: each of them packs the head.
        let most = (LOGITS / vocab_size.max(1)).max(1);
        let piece = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        let (mut nll, mut dx) = (Vec::with_capacity(rows), Vec::new());
        let mut logits = vec![0.0; piece.min(rows) * vocab_size];
        for first in (0..rows).step_by(piece) {
            let count = piece.min(rows - first);
            let logits = &mut logits[..count * vocab_size];
            let left = Left { data: &x[first * k..(first + count) * k], m: count, row_stride: k };
            let start = self.bias.as_ref().map_or(Start::Zero, |bias| Start::Row(bias));
            matmul(left, self.weight.view(), start, logits, vocab_size, Threads::Pool);
            let pieces = logits.par_chunks_exact_mut(vocab_size).zip(&self.targets[first..first + count]);
            nll.par_extend(pieces.map(|(row, target)| self.scaling.likelihood(row, *target as usize)));
            if self.tracked {
                dx.extend(product(&[(Matrix::new(logits, count, vocab_size), &*self.weight)]));
            }
        }
        _ = self.dx.set(dx);
        done(nll, rows)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(dx) = self.dx.get() else { bail!("head-likelihood-frozen was not applied") };
        let (mut dx, k) = (dx.clone(), x.dim(1)?);
        let grad = grad.contiguous()?;
        with_values(&grad, |grad| {
            let rows = dx.chunks_exact_mut(k.max(1)).zip(grad);
            rows.for_each(|(row, grad)| row.iter_mut().for_each(|x| *x *= grad));
            Ok(())
        })?;
        tensor(dx, x.shape()).map(Some)
    }
}
