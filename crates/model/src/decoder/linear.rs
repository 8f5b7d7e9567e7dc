//! Linear layers: packed, streamed from the checkpoint, trainable, or packed with trainable factors beside them.

use std::sync::Arc;

use candle_core::Tensor;
use lathe_kernels::activation::Activation;
use lathe_kernels::matmul::{Arithmetic, Left, Matrix, Packed, Start, Threads, Weight, matmul, product, reduce_rows};

use crate::ops::{Dropout, FrozenParts, Joint, TrainedParts, mix};
use crate::parameters::ParameterSource;
use crate::spec::Parameter;
use crate::{Error, ops};

/// `x Wᵀ + b`, with `W` `[out, in]`.
pub(crate) enum Linear {
    /// Packed once, when the model is loaded.
    Frozen(Arc<Weight>, Option<Arc<Vec<f32>>>),
    /// Packed, with a variable as bias.
    Biased(Arc<Weight>, Tensor),
    /// Read from the checkpoint each time it is used.
    Streamed(Box<Streamed>),
    /// Variables on the tape, and how the first is multiplied; the bias may be none.
    Trainable(Tensor, Arithmetic, Option<Tensor>),
    /// Packed, with variables of low rank beside it.
    Adapted(Box<Adapted>),
}

/// A layer whose weights stay in the checkpoint.
pub(crate) struct Streamed {
    pub(super) source: Arc<dyn ParameterSource + Send>,
    pub(super) weight: Parameter,
    pub(super) bias: Option<Arc<Vec<f32>>>,
}

/// A frozen layer with factors of low rank: `x Wᵀ + b + s · D(x) Aᵀ Bᵀ`.
pub(crate) struct Adapted {
    pub(super) weight: Arc<Weight>,
    pub(super) bias: Option<Arc<Vec<f32>>>,
    pub(super) factors: Factors,
    /// `W + s · B A`, while the adapter is merged. `W` stays as it is.
    pub(super) merged: Option<Arc<Weight>>,
}

/// The factors of an adapted layer.
#[derive(Clone)]
pub(crate) struct Factors {
    /// `[rank, in]`; layers that are parts of one tensor share it.
    pub(super) a: Tensor,
    /// `[out, rank]`
    pub(super) b: Tensor,
    pub(super) scale: f32,
    /// Share of the input's values that is dropped in training.
    pub(super) dropout: f32,
    /// What draws of the layer depend on beside the pass.
    pub(super) key: u64,
}

impl Adapted {
    /// Makes `W + s · B A` from what the factors are now.
    fn merge(&mut self) -> Result<(), Error> {
        let Factors { a, b, scale, .. } = &self.factors;
        let (n, k, rank) = (self.weight.n(), self.weight.k(), a.dim(0)?);
        let delta = ops::with_values(&a.contiguous()?, |a| {
            ops::with_values(&b.contiguous()?, |b| Ok(product(&[(Matrix::new(b, n, rank), Matrix::new(a, rank, k))])))
        })?;
        let base = self.weight.to_packed();
        let mut packed = Packed::zeros(k, n);
        packed.fill_columns(|first, _, rows| {
            for (i, row) in rows.chunks_exact_mut(k.max(1)).enumerate() {
                base.column(first + i, row);
                let delta = &delta[(first + i) * k..][..k];
                row.iter_mut().zip(delta).for_each(|(x, delta)| *x += scale * delta);
            }
            Ok::<_, Error>(())
        })?;
        self.merged = Some(Arc::new(Weight::Floats(packed)));
        Ok(())
    }
}

impl Linear {
    /// `[rows, in]` to `[rows, out]`. `draw` is the number of a training pass, none where nothing is drawn.
    pub(crate) fn apply(&self, x: &Tensor, draw: Option<u64>) -> Result<Tensor, Error> {
        self.apply_in(x, draw, (&Joint::of(1), 0))
    }

    /// The same as layer `index` of several with one input.
    fn apply_in(&self, x: &Tensor, draw: Option<u64>, at: (&Arc<Joint>, usize)) -> Result<Tensor, Error> {
        if let Some((weight, bias)) = self.packed() {
            return Ok(ops::linear_frozen(x, weight, bias, at)?);
        }
        Ok(match self {
            Self::Biased(weight, bias) => ops::linear_frozen(x, weight, None, at)?.broadcast_add(bias)?,
            Self::Trainable(weight, arithmetic, bias) => ops::linear(x, (weight, *arithmetic), bias.as_ref(), at)?,
            Self::Streamed(layer) => ops::tensor(layer.multiply(x)?, (x.dim(0)?, layer.weight.shape[0]))?,
            Self::Frozen(weight, bias) => ops::linear_frozen(x, weight, bias.as_ref(), at)?,
            Self::Adapted(layer) => {
                let Factors { a, b, scale, dropout, key } = &layer.factors;
                let drawn = draw.filter(|_| *dropout > 0.0);
                let dropout = drawn.map(|draw| Dropout { probability: *dropout, key: mix(*key, draw) });
                let bias = layer.bias.as_ref();
                let layer = ops::Adapted { weight: &layer.weight, bias, a, b, scale: *scale, dropout };
                ops::adapted(x, &layer, at)?
            }
        })
    }

    /// Several layers of one input. Without a tape their products are one piece of work for the threads; on it, their
    /// gradients of the input are one sum.
    pub(crate) fn apply_each<const N: usize>(
        layers: [&Self; N],
        x: &Tensor,
        draw: Option<u64>,
    ) -> Result<[Tensor; N], Error> {
        let frozen: Option<Vec<_>> = layers.iter().map(|layer| layer.frozen()).collect();
        let outputs = match frozen.filter(|_| !ops::tracked(x)) {
            Some(frozen) => ops::linear_frozen_each(x, &frozen)?,
            None => {
                let joint = Joint::of(N);
                let layers = layers.iter().enumerate();
                layers.map(|(i, layer)| layer.apply_in(x, draw, (&joint, i))).collect::<Result<_, _>>()?
            }
        };
        outputs.try_into().map_err(|_| candle_core::Error::Msg(format!("not {N} results of {N} layers")).into())
    }

    /// `f(x Gᵀ) · (x Uᵀ)`: the values between the projections of a gated feed-forward part.
    pub(crate) fn apply_gated(
        gate: &Self,
        up: &Self,
        x: &Tensor,
        f: Activation,
        draw: Option<u64>,
    ) -> Result<Tensor, Error> {
        if let (Some(gate), Some(up), true) = (gate.packed(), up.packed(), ops::tracked(x)) {
            let own = |(weight, bias): FrozenParts<'_>| (weight.clone(), bias.cloned());
            return Ok(ops::gated_tracked(x, [own(gate), own(up)], f)?);
        }
        if let (Some(gate), Some(up), false) = (gate.frozen(), up.frozen(), ops::tracked(x)) {
            return Ok(ops::gated_frozen(x, [gate, up], f)?);
        }
        if let (Some(gate), Some(up)) = (gate.trained(), up.trained()) {
            return Ok(ops::gated_linear(x, gate, up, f)?);
        }
        let [gate, up] = Self::apply_each([gate, up], x, draw)?;
        Ok(ops::gated(&gate, &up, f)?)
    }

    /// `f(x Wᵀ + b)`: the values between the projections of a plain feed-forward part.
    pub(crate) fn apply_activated(layer: &Self, x: &Tensor, f: Activation, draw: Option<u64>) -> Result<Tensor, Error> {
        Ok(match layer.frozen().filter(|_| !ops::tracked(x)) {
            Some(frozen) => ops::activated_frozen(x, frozen, f)?,
            None => ops::activate(&layer.apply(x, draw)?, f)?,
        })
    }

    /// Weights and bias of a layer that is nothing else.
    pub(crate) fn packed(&self) -> Option<FrozenParts<'_>> {
        match self {
            Self::Frozen(weight, bias) => Some((weight, bias.as_ref())),
            Self::Adapted(layer) => layer.merged.as_ref().map(|merged| (merged, layer.bias.as_ref())),
            Self::Biased(..) | Self::Streamed(_) | Self::Trainable(..) => None,
        }
    }

    fn frozen(&self) -> Option<(&Weight, Option<&[f32]>)> {
        self.packed().map(|(weight, bias)| (&**weight, bias.map(|bias| bias.as_slice())))
    }

    /// Whether its result comes out of one operation: a trained bias is a sum of its own, and streamed weights have no
    /// gradients.
    pub(super) fn is_one_operation(&self) -> bool {
        match self {
            Self::Frozen(..) | Self::Adapted(_) | Self::Trainable(_, _, None) => true,
            Self::Biased(..) | Self::Streamed(_) | Self::Trainable(_, _, Some(_)) => false,
        }
    }

    /// The variable of a trainable layer without a bias.
    pub(crate) fn trained(&self) -> Option<TrainedParts<'_>> {
        match self {
            Self::Trainable(weight, arithmetic, None) => Some((weight, *arithmetic)),
            _ => None,
        }
    }

    /// Adds the factors to the weights of an adapted layer, or takes the sum away again.
    pub(super) fn set_merged(&mut self, merged: bool) -> Result<(), Error> {
        if let Self::Adapted(layer) = self {
            layer.merged = None;
            if merged {
                layer.merge()?;
            }
        }
        Ok(())
    }

    /// The same without a tape, as plain values, `[rows, out]`.
    pub(crate) fn values(&self, x: &Tensor) -> Result<Vec<f32>, Error> {
        if let Some(layer) = self.frozen() {
            return Ok(ops::products_each(x, &[layer])?.swap_remove(0));
        }
        match self {
            Self::Streamed(layer) => layer.multiply(x),
            _ => Ok(ops::with_values(&self.apply(&x.detach(), None)?.detach(), |y| Ok(y.to_vec()))?),
        }
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

#[cfg(test)]
mod tests {
    use candle_core::{Tensor, Var};
    use lathe_kernels::matmul::{Packed, Weight};

    use super::*;

    fn matrix(values: &[f32], rows: usize) -> Tensor {
        ops::tensor(values.to_vec(), (rows, values.len() / rows)).expect("a matrix")
    }

    fn rows(x: &Tensor) -> Vec<Vec<f32>> {
        x.to_vec2().expect("rows")
    }

    /// W = I, A = [1 2], B = [0.5; -1], scale 2, x = (3, 1): y = (8, -9), and the scale does not count for W, with which it
    /// would be (11, -8). The merged weight is [[2, 2], [-2, -3]].
    #[test]
    fn the_worked_example() {
        let weight = Arc::new(Weight::Floats(Packed::from_transposed(&[1.0, 0.0, 0.0, 1.0], 2, 2)));
        let factors =
            Factors { a: matrix(&[1.0, 2.0], 1), b: matrix(&[0.5, -1.0], 2), scale: 2.0, dropout: 0.5, key: 1 };
        let mut layer = Linear::Adapted(Box::new(Adapted { weight, bias: None, factors, merged: None }));
        let x = matrix(&[3.0, 1.0], 1);
        assert_eq!(rows(&layer.apply(&x, None).expect("applied")), [[8.0, -9.0]]);
        layer.set_merged(true).expect("merged");
        assert_eq!(rows(&layer.apply(&x, None).expect("applied")), [[8.0, -9.0]]);
        let merged = layer.packed().expect("merged").0.to_packed().into_owned();
        let mut row = [0.0; 2];
        merged.column(0, &mut row);
        assert_eq!(row, [2.0, 2.0]);
        merged.column(1, &mut row);
        assert_eq!(row, [-2.0, -3.0]);
        layer.set_merged(false).expect("unmerged");
        assert!(layer.packed().is_none());
        assert_eq!(rows(&layer.apply(&x, None).expect("applied")), [[8.0, -9.0]]);
    }

    /// Of layers of every kind with one input: the gradients of the input and of what is trained against central
    /// differences, which are exact up to rounding where a loss is of degree two in what changes.
    #[test]
    fn gradients_equal_finite_differences() {
        let ramp = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|i| ((i * 7 + 3) % 13) as f32 * step - 0.4).collect()
        };
        let (k, n, m) = (6, 5, 4);
        let weight = Arc::new(Weight::Floats(Packed::from_transposed(&ramp(n * k, 0.11), n, k)));
        let bias = Arc::new(ramp(n, 0.05));
        let variables = [
            Var::from_tensor(&matrix(&ramp(m * k, 0.1), m)).expect("x"),
            Var::from_tensor(&matrix(&ramp(2 * k, 0.07), 2)).expect("A"),
            Var::from_tensor(&matrix(&ramp(n * 2, 0.09), n)).expect("B"),
            Var::from_tensor(&matrix(&ramp(n * k, 0.05), n)).expect("W"),
            Var::from_tensor(&ops::tensor(ramp(n, 0.03), n).expect("a vector")).expect("b"),
        ];
        let [x, a, b, w, c] = &variables;
        for dropout in [0.0, 0.4] {
            let factors = Factors { a: a.as_tensor().clone(), b: b.as_tensor().clone(), scale: 1.5, dropout, key: 9 };
            let adapted = Adapted { weight: weight.clone(), bias: Some(bias.clone()), factors, merged: None };
            let layers = [
                Linear::Adapted(Box::new(adapted)),
                Linear::Frozen(weight.clone(), Some(bias.clone())),
                Linear::Trainable(w.as_tensor().clone(), Arithmetic::F32, Some(c.as_tensor().clone())),
                Linear::Biased(weight.clone(), c.as_tensor().clone()),
            ];
            let loss = || {
                let all = [&layers[0], &layers[1], &layers[2], &layers[3]];
                let outs = Linear::apply_each(all, x, Some(3)).expect("applied");
                let gated = Linear::apply_gated(&layers[1], &layers[1], x, Activation::Relu, None).expect("applied");
                let parts = outs.iter().chain([&gated]).enumerate().map(|(i, out)| {
                    let g = matrix(&ramp(m * n, 0.1 + i as f32 * 0.03), m);
                    (out * g).and_then(|y| y.sum_all()).expect("a loss")
                });
                parts.reduce(|a, b| (a + b).expect("a sum")).expect("parts")
            };
            let gradients = loss().backward().expect("gradients");
            for (v, var) in variables.iter().enumerate() {
                let found: Vec<f32> =
                    gradients.get(var).expect("a gradient").flatten_all().and_then(|g| g.to_vec1()).expect("values");
                let old = var.as_tensor().copy().expect("a copy");
                let values: Vec<f32> = old.flatten_all().and_then(|x| x.to_vec1()).expect("values");
                for (i, found) in found.iter().enumerate() {
                    let at = |by: f32| {
                        let mut values = values.clone();
                        values[i] += by;
                        var.set(&ops::tensor(values, var.shape()).expect("a tensor")).expect("set");
                        f64::from(loss().to_scalar::<f32>().expect("a number"))
                    };
                    let h = 1e-2;
                    let expected = (at(h) - at(-h)) / f64::from(2.0 * h);
                    var.set(&old).expect("set");
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(difference < 5e-3 * expected.abs().max(1.0), "variable {v}, value {i}: {found} {expected}");
                }
            }
        }
    }
}
