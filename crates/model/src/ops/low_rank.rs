//! Frozen weights with trained factors of low rank beside them (LoRA, 2106.09685): `y = x Wᵀ + b + s · D(x) Aᵀ Bᵀ`, with
//! `A` `[rank, in]`, `B` `[out, rank]`, and dropout `D` in training only. The scale counts for the factors, not for the base.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use lathe_kernels::matmul::{Left, Matrix, Packed, Start, Threads, Weight, matmul, product, transpose_into};
use rayon::prelude::*;

use super::gather::hand_over;
use super::linear::{Joint, Multiplied, Term, frozen_product};
use super::{done, rows_of, values, with_matrix, with_values};

/// Which values of a matrix are set to zero in one pass. Whether value `i` is follows from the key and `i` alone, so that a
/// pass that is computed again, or a run that is gone on with, drops the same ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    /// Share that is dropped, below 1.
    pub(crate) probability: f32,
    /// From the seed, the pass and the layer.
    pub(crate) key: u64,
}

impl Dropout {
    /// Kept values divided by the share that is kept, others 0.
    pub(crate) fn apply(self, x: &mut [f32]) {
        const PIECE: usize = 1 << 14;
        let kept = 1.0 / (1.0 - self.probability);
        // A draw is a number of 24 bits.
        let limit = (f64::from(self.probability) * f64::from(1u32 << 24)).round() as u64;
        x.par_chunks_mut(PIECE).enumerate().for_each(|(piece, x)| {
            for (i, x) in x.iter_mut().enumerate() {
                let draw = mix(self.key, (piece * PIECE + i) as u64) >> 40;
                *x = if draw < limit { 0.0 } else { *x * kept };
            }
        });
    }
}

/// A number of 64 bits for each key and counter (SplitMix64).
pub(crate) fn mix(key: u64, counter: u64) -> u64 {
    let mut z = key.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A layer as [`adapted`] takes it.
pub(crate) struct Adapted<'a> {
    pub(crate) weight: &'a Arc<Weight>,
    pub(crate) bias: Option<&'a Arc<Vec<f32>>>,
    /// `[rank, in]`
    pub(crate) a: &'a Tensor,
    /// `[out, rank]`
    pub(crate) b: &'a Tensor,
    pub(crate) scale: f32,
    pub(crate) dropout: Option<Dropout>,
}

/// `x Wᵀ + b + s · D(x) Aᵀ Bᵀ`: layer `index` of `joint`.
pub(crate) fn adapted(x: &Tensor, layer: &Adapted<'_>, (joint, index): (&Arc<Joint>, usize)) -> Result<Tensor> {
    let (x, a, b) = (x.contiguous()?, layer.a.contiguous()?, layer.b.contiguous()?);
    let op = LowRank {
        weight: layer.weight.clone(),
        bias: layer.bias.cloned(),
        scale: layer.scale,
        dropout: layer.dropout,
        inner: OnceLock::new(),
        joint: joint.clone(),
        index,
    };
    if x.track_op() || a.track_op() || b.track_op() { x.apply_op3(&a, &b, op) } else { x.apply_op3_no_bwd(&a, &b, &op) }
}

struct LowRank {
    weight: Arc<Weight>,
    bias: Option<Arc<Vec<f32>>>,
    scale: f32,
    dropout: Option<Dropout>,
    /// `A D(x)ᵀ`, `[rank, rows]`, for the way back.
    inner: OnceLock<Vec<f32>>,
    joint: Arc<Joint>,
    index: usize,
}

impl LowRank {
    /// `D(x)`, where it is not `x`.
    fn dropped(&self, x: &[f32]) -> Option<Vec<f32>> {
        let dropout = self.dropout?;
        let mut x = x.to_vec();
        dropout.apply(&mut x);
        Some(x)
    }
}

impl CustomOp3 for LowRank {
    fn name(&self) -> &'static str {
        "linear-low-rank"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, k), (rank, inputs), (n, of_b)) = (rows_of(lx)?, rows_of(la)?, rows_of(lb)?);
        if inputs != k || of_b != rank || n != self.weight.n() {
            bail!(
                "factors {:?} and {:?} beside a layer of {} outputs and rows of {k}",
                la.shape(),
                lb.shape(),
                self.weight.n()
            );
        }
        let mut y = frozen_product(x, lx, &self.weight, self.bias.as_ref())?;
        let x = values(x, lx)?;
        let dropped = self.dropped(x);
        let x = Matrix::new(dropped.as_deref().unwrap_or(x), rows, k);
        // Few rows of many columns keep the registers busier than the other way round.
        let inner = product(&[(Matrix::new(values(a, la)?, rank, k), x.transposed())]);
        let mut scaled = vec![0.0; rows * rank];
        transpose_into(&inner, rank, rows, &mut scaled, rank);
        scaled.iter_mut().for_each(|x| *x *= self.scale);
        let right = Packed::from_transposed(values(b, lb)?, n, rank);
        let left = Left { data: &scaled, m: rows, row_stride: rank };
        matmul(left, right.view(), Start::Kept, &mut y, n, Threads::Pool);
        _ = self.inner.set(inner);
        done(y, (rows, n))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(inner) = self.inner.get() else { bail!("linear-low-rank was not applied") };
        let grad = grad.contiguous()?;
        let ((rows, k), (n, rank)) = (x.dims2()?, b.dims2()?);
        // s · Bᵀ gᵀ, [rank, rows], and gᵀ u, [out, rank].
        let (mut dinner, transposed) = with_matrix(&grad, |grad| {
            let dinner = with_matrix(b, |b| Ok(product(&[(b.transposed(), grad.transposed())])))?;
            Ok((dinner, product(&[(Matrix::new(inner, rank, rows), grad)])))
        })?;
        dinner.iter_mut().for_each(|x| *x *= self.scale);
        let mut db = vec![0.0; n * rank];
        transpose_into(&transposed, rank, n, &mut db, rank);
        db.iter_mut().for_each(|x| *x *= self.scale);
        let da = with_values(x, |x| {
            let dropped = self.dropped(x);
            let x = Matrix::new(dropped.as_deref().unwrap_or(x), rows, k);
            Ok(product(&[(Matrix::new(&dinner, rank, rows), x)]))
        })?;
        let (da, db) = (hand_over(a, da)?, hand_over(b, db)?);
        if !x.track_op() {
            return Ok((None, da, db));
        }
        let (mut low_rank, mut rest) = (None, None);
        match self.dropout {
            None => low_rank = Some((dinner, a.clone())),
            Some(dropout) => {
                let left = Matrix::new(&dinner, rank, rows).transposed();
                let mut dx = with_matrix(a, |a| Ok(product(&[(left, a)])))?;
                dropout.apply(&mut dx);
                rest = Some(dx);
            }
        }
        let weight = Multiplied::Frozen(self.weight.clone());
        Ok((self.joint.put(self.index, Term { grad, weight, low_rank, rest }, x)?, da, db))
    }
}
