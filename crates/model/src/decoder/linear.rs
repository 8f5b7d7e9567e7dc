//! Linear layers: packed, streamed from the checkpoint, or trainable.

use std::sync::Arc;

use candle_core::Tensor;
use lathe_kernels::activation::Activation;
use lathe_kernels::matmul::{Left, Packed, Start, Threads, Weight, matmul, reduce_rows};

use crate::parameters::ParameterSource;
use crate::spec::Parameter;
use crate::{Error, ops};

/// `x Wᵀ + b`, with `W` `[out, in]`.
pub(crate) enum Linear {
    /// Packed once, when the model is loaded.
    Frozen(Arc<Weight>, Option<Arc<Vec<f32>>>),
    /// Read from the checkpoint each time it is used.
    Streamed(Box<Streamed>),
    /// Variables on the tape.
    Trainable(Tensor, Option<Tensor>),
}

/// A layer whose weights stay in the checkpoint.
pub(crate) struct Streamed {
    pub(super) source: Arc<dyn ParameterSource + Send>,
    pub(super) weight: Parameter,
    pub(super) bias: Option<Arc<Vec<f32>>>,
}

impl Linear {
    /// `[rows, in]` to `[rows, out]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Frozen(weight, bias) => ops::linear_frozen(x, weight, bias.as_ref())?,
            Self::Trainable(weight, bias) => ops::linear(x, weight, bias.as_ref())?,
            Self::Streamed(layer) => ops::tensor(layer.multiply(x)?, (x.dim(0)?, layer.weight.shape[0]))?,
        })
    }

    /// Several layers of one input. Without a tape their products are one piece of work for the threads.
    pub(crate) fn apply_each<const N: usize>(layers: [&Self; N], x: &Tensor) -> Result<[Tensor; N], Error> {
        let frozen: Option<Vec<_>> = layers.iter().map(|layer| layer.frozen()).collect();
        let outputs = match frozen.filter(|_| !x.track_op()) {
            Some(frozen) => ops::linear_frozen_each(x, &frozen)?,
            None => layers.iter().map(|layer| layer.apply(x)).collect::<Result<_, _>>()?,
        };
        outputs.try_into().map_err(|_| candle_core::Error::Msg(format!("not {N} results of {N} layers")).into())
    }

    /// `f(x Gᵀ) · (x Uᵀ)`: the values between the projections of a gated feed-forward part.
    pub(crate) fn apply_gated(gate: &Self, up: &Self, x: &Tensor, f: Activation) -> Result<Tensor, Error> {
        if let (Some(gate), Some(up), false) = (gate.frozen(), up.frozen(), x.track_op()) {
            return Ok(ops::gated_frozen(x, [gate, up], f)?);
        }
        if let (Some(gate), Some(up)) = (gate.trained(), up.trained()) {
            return Ok(ops::gated_linear(x, gate, up, f)?);
        }
        Ok(ops::gated(&gate.apply(x)?, &up.apply(x)?, f)?)
    }

    /// `f(x Wᵀ + b)`: the values between the projections of a plain feed-forward part.
    pub(crate) fn apply_activated(layer: &Self, x: &Tensor, f: Activation) -> Result<Tensor, Error> {
        Ok(match layer.frozen().filter(|_| !x.track_op()) {
            Some(frozen) => ops::activated_frozen(x, frozen, f)?,
            None => ops::activate(&layer.apply(x)?, f)?,
        })
    }

    fn frozen(&self) -> Option<(&Weight, Option<&[f32]>)> {
        match self {
            Self::Frozen(weight, bias) => Some((weight, bias.as_ref().map(|bias| bias.as_slice()))),
            Self::Streamed(_) | Self::Trainable(..) => None,
        }
    }

    /// The variable of a trainable layer without a bias.
    pub(crate) fn trained(&self) -> Option<&Tensor> {
        match self {
            Self::Trainable(weight, None) => Some(weight),
            Self::Trainable(_, Some(_)) | Self::Frozen(..) | Self::Streamed(_) => None,
        }
    }

    /// The same without a tape, as plain values, `[rows, out]`.
    pub(crate) fn values(&self, x: &Tensor) -> Result<Vec<f32>, Error> {
        Ok(match self {
            Self::Frozen(weight, bias) => {
                let layer = (&**weight, bias.as_ref().map(|bias| bias.as_slice()));
                ops::products_each(x, &[layer])?.swap_remove(0)
            }
            Self::Streamed(layer) => layer.multiply(x)?,
            Self::Trainable(..) => ops::with_values(&self.apply(&x.detach())?.detach(), |y| Ok(y.to_vec()))?,
        })
    }

    /// Every row of [`values`](Self::values) reduced piece by piece, as [`reduce_rows`] does; nothing where the weights
    /// are not held as they are multiplied.
    pub(crate) fn reduced<T: Copy + Send + Sync>(
        &self,
        x: &Tensor,
        of_piece: impl Fn(usize, usize, &mut [f32]) -> T + Sync,
        join: impl Fn(T, T) -> T + Sync,
    ) -> Result<Option<Vec<T>>, Error> {
        let Some((weight, bias)) = self.frozen() else { return Ok(None) };
        let (m, k) = x.dims2()?;
        if k != weight.k() {
            return Err(candle_core::Error::Msg(format!("a layer of {} inputs got rows of {k}", weight.k())).into());
        }
        let start = bias.map_or(Start::Zero, Start::Row);
        let reduce = |values: &[f32]| {
            Ok(reduce_rows(Left { data: values, m, row_stride: k }, weight.view(), start, of_piece, join))
        };
        Ok(Some(ops::with_values(&x.contiguous()?, reduce)?))
    }
}

impl Streamed {
    /// Multiplies with a few thousand rows of the weight at a time: that is all that is in memory as f32.
    fn multiply(&self, x: &Tensor) -> Result<Vec<f32>, Error> {
        const ROWS: usize = 2048;
        let (n, k) = (self.weight.shape[0], self.weight.shape[1]);
        let mut out = vec![0.0; x.dim(0)? * n];
        for first in (0..n).step_by(ROWS) {
            let rows = ROWS.min(n - first);
            let mut packed = Packed::zeros(k, rows);
            packed.fill_columns(|column, count, values| {
                self.source.rows(&self.weight, first + column..first + column + count, values)
            })?;
            ops::with_values(x, |values| {
                let left = Left { data: values, m: x.dim(0)?, row_stride: k };
                let start = self.bias.as_ref().map_or(Start::Zero, |bias| Start::Row(&bias[first..first + rows]));
                matmul(left, packed.view(), start, &mut out[first..], n, Threads::Pool);
                Ok(())
            })?;
        }
        Ok(out)
    }
}
