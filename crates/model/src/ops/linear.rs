//! Linear layers: frozen without a tape, and frozen or trained ones on it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, StorageRef, Tensor, bail,
};
use lathe_kernels::activation::{self, Activation};
use lathe_kernels::matmul::{Arithmetic, Factor, Left, Matrix, Start, Threads, Weight, product, product_in, products};

use super::gather::hand_over;
use super::tape::{WayBack, apply_blind, apply2, apply3, tracked};
use super::{done, rows_of, tensor, values, with_matrix, with_values};

/// Several frozen layers of one `x`, without a tape: `[rows, out]` of each.
pub(crate) fn linear_frozen_each(x: &Tensor, layers: &[(&Weight, Option<&[f32]>)]) -> Result<Vec<Tensor>> {
    let rows = x.dim(0)?;
    let outs = products_each(x, layers)?;
    outs.into_iter().zip(layers).map(|(out, (weight, _))| tensor(out, (rows, weight.n()))).collect()
}

/// `f(x Gᵀ) · (x Uᵀ)` of two frozen layers, without a tape.
pub(crate) fn gated_frozen(x: &Tensor, layers: [(&Weight, Option<&[f32]>); 2], f: Activation) -> Result<Tensor> {
    let mut outs = products_each(x, &layers)?;
    let (up, gate) = (outs.pop().unwrap_or_default(), outs.pop().unwrap_or_default());
    let mut inner = gate;
    activation::gate_in_place(f, &mut inner, &up);
    tensor(inner, (x.dim(0)?, layers[0].0.n()))
}

/// `f(x Wᵀ + b)` of a frozen layer, without a tape.
pub(crate) fn activated_frozen(x: &Tensor, layer: (&Weight, Option<&[f32]>), f: Activation) -> Result<Tensor> {
    let mut inner = products_each(x, &[layer])?.swap_remove(0);
    activation::in_place(f, &mut inner);
    tensor(inner, (x.dim(0)?, layer.0.n()))
}

/// Several products of one `x`: `[rows, out]` of each.
pub(crate) fn products_each(x: &Tensor, layers: &[(&Weight, Option<&[f32]>)]) -> Result<Vec<Vec<f32>>> {
    let (rows, width) = x.dims2()?;
    if let Some((weight, _)) = layers.iter().find(|(weight, _)| weight.k() != width) {
        bail!("linear layer of {} inputs got rows of {width}", weight.k());
    }
    let rights: Vec<_> =
        layers.iter().map(|(weight, bias)| (weight.view(), bias.map_or(Start::Zero, Start::Row))).collect();
    with_values(x, |values| Ok(products(Left { data: values, m: rows, row_stride: width }, &rights, Threads::Pool)))
}

/// Layers of one input, whose gradients of it are one sum.
///
/// The tape knows operations of one result. Each layer's way back leaves its term here, and the last one computes the
/// product of all terms, in the order of the layers. Every layer's result has to be used.
pub(crate) struct Joint {
    terms: Mutex<Vec<Option<Term>>>,
}

/// What a layer adds to the gradient of its input.
pub(super) struct Term {
    /// Gradient of its result, `[rows, out]`, contiguous.
    pub(super) grad: Tensor,
    /// What it multiplied with.
    pub(super) weight: Multiplied,
    /// Factors of low rank: `[rank, rows]`, and `[rank, in]`.
    pub(super) low_rank: Option<(Vec<f32>, Tensor)>,
    /// What is no product, `[rows, in]`.
    pub(super) rest: Option<Vec<f32>>,
}

/// Weights `[out, in]`.
pub(super) enum Multiplied {
    Frozen(Arc<Weight>),
    Trained(Tensor, Arithmetic),
}

impl Joint {
    /// Of so many layers.
    pub(crate) fn of(layers: usize) -> Arc<Self> {
        Arc::new(Self { terms: Mutex::new((0..layers).map(|_| None).collect()) })
    }

    /// Takes the term of layer `index`; the gradient of the input, of that shape, where it was the last one.
    pub(super) fn put(&self, index: usize, term: Term, shape: (usize, usize)) -> Result<Option<Tensor>> {
        let terms = {
            let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
            terms[index] = Some(term);
            if terms.iter().any(Option::is_none) {
                return Ok(None);
            }
            terms.iter_mut().filter_map(Option::take).collect::<Vec<_>>()
        };
        gradient_of_input(&terms, shape).map(Some)
    }
}

fn gradient_of_input(terms: &[Term], (rows, width): (usize, usize)) -> Result<Tensor> {
    // Values can be lent while their tensors are held open.
    let held: Vec<Held<'_>> = terms.iter().map(Held::of).collect();
    let mut products = Vec::with_capacity(terms.len());
    for (term, held) in terms.iter().zip(&held) {
        let grad = held.grad.values()?;
        let grad = Matrix::new(grad, rows, grad.len() / rows.max(1));
        products.push((
            grad,
            match (&term.weight, &held.weight) {
                (Multiplied::Trained(weight, arithmetic), Some(held)) => {
                    let (n, k) = weight.dims2()?;
                    Factor::of(Matrix::new(held.values()?, n, k), *arithmetic)
                }
                (Multiplied::Frozen(weight), _) => Factor::Weight(weight),
                (Multiplied::Trained(..), None) => bail!("a weight that is not held"),
            },
        ));
        if let (Some((left, a)), Some(held)) = (&term.low_rank, &held.a) {
            let rank = a.dim(0)?;
            products.push((
                Matrix::new(left, rank, rows).transposed(),
                Factor::Matrix(Matrix::new(held.values()?, rank, width)),
            ));
        }
    }
    let mut dx = product(&products);
    for rest in terms.iter().filter_map(|term| term.rest.as_ref()) {
        dx.iter_mut().zip(rest).for_each(|(dx, x)| *dx += x);
    }
    tensor(dx, (rows, width))
}

/// The tensors of a term, open for reading.
struct Held<'a> {
    grad: Open<'a>,
    weight: Option<Open<'a>>,
    a: Option<Open<'a>>,
}

impl<'a> Held<'a> {
    fn of(term: &'a Term) -> Self {
        let weight = match &term.weight {
            Multiplied::Trained(weight, _) => Some(Open::of(weight)),
            Multiplied::Frozen(_) => None,
        };
        Self { grad: Open::of(&term.grad), weight, a: term.low_rank.as_ref().map(|(_, a)| Open::of(a)) }
    }
}

struct Open<'a>(StorageRef<'a>, &'a Layout);

impl<'a> Open<'a> {
    fn of(x: &'a Tensor) -> Self {
        let (storage, layout) = x.storage_and_layout();
        Self(storage, layout)
    }

    fn values(&self) -> Result<&[f32]> {
        match &*self.0 {
            Storage::Cpu(storage) => values(storage, self.1),
            _ => bail!("expected a tensor on the CPU"),
        }
    }
}

/// `x Wᵀ + b` with frozen, packed weights: `x` is `[rows, in]`, the result `[rows, out]`. It is layer `index` of `joint`.
pub(crate) fn linear_frozen(
    x: &Tensor,
    weight: &Arc<Weight>,
    bias: Option<&Arc<Vec<f32>>>,
    (joint, index): (&Arc<Joint>, usize),
) -> Result<Tensor> {
    apply_blind(x, LinearFrozen { weight: weight.clone(), bias: bias.cloned(), joint: joint.clone(), index })
}

struct LinearFrozen {
    weight: Arc<Weight>,
    bias: Option<Arc<Vec<f32>>>,
    joint: Arc<Joint>,
    index: usize,
}

/// `x Wᵀ + b` of frozen weights.
pub(super) fn frozen_product(
    x: &CpuStorage,
    layout: &Layout,
    weight: &Weight,
    bias: Option<&Arc<Vec<f32>>>,
) -> Result<Vec<f32>> {
    let (rows, width) = rows_of(layout)?;
    if width != weight.k() {
        bail!("linear layer of {} inputs got rows of {width}", weight.k());
    }
    let start = bias.map_or(Start::Zero, |bias| Start::Row(bias));
    let left = Left { data: values(x, layout)?, m: rows, row_stride: width };
    Ok(products(left, &[(weight.view(), start)], Threads::Pool).swap_remove(0))
}

impl CustomOp1 for LinearFrozen {
    fn name(&self) -> &'static str {
        "linear-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = frozen_product(x, layout, &self.weight, self.bias.as_ref())?;
        done(out, (layout.shape().dims2()?.0, self.weight.n()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.way_back(x.dims2()?, grad)
    }
}

impl WayBack for LinearFrozen {
    fn way_back(&self, shape: (usize, usize), grad: &Tensor) -> Result<Option<Tensor>> {
        let weight = Multiplied::Frozen(self.weight.clone());
        self.joint.put(self.index, Term { grad: grad.contiguous()?, weight, low_rank: None, rest: None }, shape)
    }
}

/// A weight `[out, in]` on the tape, and how everything that it takes part in is multiplied.
pub(crate) type TrainedParts<'a> = (&'a Tensor, Arithmetic);

/// `x Wᵀ` with a weight on the tape; the bias, where there is one, is added by the tape. It is layer `index` of `joint`.
pub(crate) fn linear(
    x: &Tensor,
    (weight, arithmetic): TrainedParts<'_>,
    bias: Option<&Tensor>,
    (joint, index): (&Arc<Joint>, usize),
) -> Result<Tensor> {
    let op = Linear { arithmetic, joint: joint.clone(), index };
    let y = apply2(x, weight, op)?;
    bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
}

struct Linear {
    arithmetic: Arithmetic,
    joint: Arc<Joint>,
    index: usize,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, k), (n, wk)) = (rows_of(lx)?, rows_of(lw)?);
        if k != wk {
            bail!("linear layer of {wk} inputs got rows of {k}");
        }
        let (x, w) = (Matrix::new(values(x, lx)?, rows, k), Matrix::new(values(w, lw)?, n, k));
        done(product_in(self.arithmetic, &[(x, w.transposed())]), (rows, n))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let dw = if tracked(w) {
            let of = self.arithmetic;
            let dw = with_matrix(x, |x| with_matrix(&grad, |grad| Ok(product_in(of, &[(grad.transposed(), x)]))))?;
            hand_over(w, dw)?
        } else {
            None
        };
        if !tracked(x) {
            return Ok((None, dw));
        }
        let weight = Multiplied::Trained(w.clone(), self.arithmetic);
        Ok((self.joint.put(self.index, Term { grad, weight, low_rank: None, rest: None }, x.dims2()?)?, dw))
    }
}

/// `f(x Gᵀ) · (x Uᵀ)` of two frozen layers, on the tape: what is between them is not.
pub(crate) fn gated_tracked(x: &Tensor, layers: [FrozenLayer; 2], f: Activation) -> Result<Tensor> {
    apply_blind(x, GatedFrozen { f, layers, inner: OnceLock::new() })
}

/// Weights and bias.
pub(crate) type FrozenLayer = (Arc<Weight>, Option<Arc<Vec<f32>>>);

/// The same, lent.
pub(crate) type FrozenParts<'a> = (&'a Arc<Weight>, Option<&'a Arc<Vec<f32>>>);

struct GatedFrozen {
    f: Activation,
    /// Gate and up projection.
    layers: [FrozenLayer; 2],
    /// Their results, for the way back.
    inner: OnceLock<[Vec<f32>; 2]>,
}

impl CustomOp1 for GatedFrozen {
    fn name(&self) -> &'static str {
        "gated-frozen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = rows_of(layout)?;
        let [(gate, gate_bias), (up, up_bias)] = &self.layers;
        if width != gate.k() || width != up.k() || gate.n() != up.n() {
            bail!("gated layer of {} and {} inputs got rows of {width}", gate.k(), up.k());
        }
        let rights = [
            (gate.view(), gate_bias.as_ref().map_or(Start::Zero, |bias| Start::Row(bias))),
            (up.view(), up_bias.as_ref().map_or(Start::Zero, |bias| Start::Row(bias))),
        ];
        let left = Left { data: values(x, layout)?, m: rows, row_stride: width };
        let mut outs = products(left, &rights, Threads::Pool);
        let (up_values, gate_values) = (outs.pop().unwrap_or_default(), outs.pop().unwrap_or_default());
        let mut out = vec![0.0; gate_values.len()];
        activation::gated(self.f, &gate_values, &up_values, &mut out);
        let n = gate.n();
        _ = self.inner.set([gate_values, up_values]);
        done(out, (rows, n))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.way_back(x.dims2()?, grad)
    }
}

impl WayBack for GatedFrozen {
    fn way_back(&self, shape: (usize, usize), grad: &Tensor) -> Result<Option<Tensor>> {
        let Some([gate_values, up_values]) = self.inner.get() else { bail!("gated-frozen was not applied") };
        let (rows, n) = grad.dims2()?;
        let grad = grad.contiguous()?;
        let (mut dgate, mut dup) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        with_values(&grad, |grad| {
            activation::gated_backward(self.f, gate_values, up_values, grad, &mut dgate, &mut dup);
            Ok(())
        })?;
        let [(gate, _), (up, _)] = &self.layers;
        let terms = [(Matrix::new(&dgate, rows, n), &**gate), (Matrix::new(&dup, rows, n), &**up)];
        tensor(product(&terms), shape).map(Some)
    }
}

/// `f(x Gᵀ) · (x Uᵀ)` with trainable weights `G` and `U`, `[out, in]`: as one operation, the gradients of both products
/// are one sum, and nothing between them is on the tape. Both are multiplied as the first one is.
pub(crate) fn gated_linear(
    x: &Tensor,
    (gate, arithmetic): TrainedParts<'_>,
    (up, _): TrainedParts<'_>,
    f: Activation,
) -> Result<Tensor> {
    let op = GatedLinear { f, arithmetic, inner: OnceLock::new() };
    apply3(x, gate, up, op)
}

struct GatedLinear {
    f: Activation,
    arithmetic: Arithmetic,
    /// `x Gᵀ` and `x Uᵀ`, for the way back.
    inner: OnceLock<[Vec<f32>; 2]>,
}

impl CustomOp3 for GatedLinear {
    fn name(&self) -> &'static str {
        "gated-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gate: &CpuStorage,
        lg: &Layout,
        up: &CpuStorage,
        lu: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, k), (n, wk)) = (rows_of(lx)?, rows_of(lg)?);
        if k != wk || lu.shape() != lg.shape() {
            bail!("gated layer of {:?} and {:?} got rows of {k}", lg.shape(), lu.shape());
        }
        let x = Matrix::new(values(x, lx)?, rows, k);
        let times = |w| product_in(self.arithmetic, &[(x, Matrix::new(w, n, k).transposed())]);
        let (gate, up) = (times(values(gate, lg)?), times(values(up, lu)?));
        let mut out = vec![0.0; rows * n];
        activation::gated(self.f, &gate, &up, &mut out);
        _ = self.inner.set([gate, up]);
        done(out, (rows, n))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some([gate_values, up_values]) = self.inner.get() else { bail!("gated-linear was not applied") };
        let (rows, n) = grad.dims2()?;
        let grad = grad.contiguous()?;
        let (mut dgate, mut dup) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        with_values(&grad, |grad| {
            activation::gated_backward(self.f, gate_values, up_values, grad, &mut dgate, &mut dup);
            Ok(())
        })?;
        let (dgate, dup) = (Matrix::new(&dgate, rows, n), Matrix::new(&dup, rows, n));
        let weights = |variable: &Tensor, d: Matrix<'_>| {
            hand_over(variable, with_matrix(x, |x| Ok(product_in(self.arithmetic, &[(d.transposed(), x)])))?)
        };
        let (of_gate, of_up) = (weights(gate, dgate)?, weights(up, dup)?);
        if !tracked(x) {
            return Ok((None, of_gate, of_up));
        }
        let of = self.arithmetic;
        let dx = with_matrix(gate, |gate| with_matrix(up, |up| Ok(product_in(of, &[(dgate, gate), (dup, up)]))))?;
        Ok((Some(tensor(dx, x.shape())?), of_gate, of_up))
    }
}
