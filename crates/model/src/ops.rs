//! The differentiable operations of the forward pass, each with its analytic gradient.
//!
//! They join the kernels to candle's tape: on frozen weights no graph is kept; on trainable ones every operation here
//! has a backward pass (candle's own fused norm, softmax and rotary ops have none and would stop gradients silently).
//! All tensors are f32 on the CPU, rows of packed tokens.

mod gather;
mod likelihood;
mod linear;
mod low_rank;
mod tape;

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail};
use lathe_kernels::activation::{self, Activation};
use lathe_kernels::attention::{self, Rows};
use lathe_kernels::logits;
use lathe_kernels::matmul::Matrix;
use lathe_kernels::norm::{self, Kind};
use lathe_kernels::rotary::{Angles, Direction};
use lathe_kernels::vector;
use rayon::prelude::*;

pub(crate) use gather::{Gathered, embed, gather, seeded};
pub(crate) use likelihood::{LogitScaling, head_likelihood, head_likelihood_frozen, negative_log_likelihood};
pub(crate) use linear::{
    FrozenParts, Joint, TrainedParts, activated_frozen, gated_frozen, gated_linear, gated_tracked, linear,
    linear_frozen, linear_frozen_each, products_each,
};
pub(crate) use low_rank::{Adapted, Dropout, adapted, mix};
pub(crate) use tape::{Recorded, record, tracked};

/// A tensor of `values` with shape `shape`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// Calls `f` with the values of a contiguous f32 tensor.
pub(crate) fn with_values<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => bail!("expected a tensor on the CPU"),
    }
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        (CpuStorage::F32(_), None) => bail!("expected a contiguous tensor of shape {:?}", layout.shape()),
        _ => bail!("expected a tensor of f32"),
    }
}

fn rows_of(layout: &Layout) -> Result<(usize, usize)> {
    layout.shape().dims2()
}

fn done(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

/// `x` with row `rows[i]` of `table` added to row `i`.
pub(crate) fn add_rows(x: &Tensor, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    if x.track_op() || table.track_op() {
        return x + table.index_select(&Tensor::new(rows, table.device())?, 0)?;
    }
    let (width, count) = (x.dim(1)?, table.dim(0)?);
    if table.dim(1)? != width || rows.len() != x.dim(0)? || rows.iter().any(|row| *row as usize >= count) {
        bail!("rows of {:?} to be added to {:?}", table.shape(), x.shape());
    }
    with_values(x, |x_values| {
        with_values(table, |table| {
            let mut out = x_values.to_vec();
            let lines = out.par_chunks_exact_mut(width.max(1)).zip(rows).with_min_len(64);
            lines.for_each(|(line, row)| {
                let row = &table[*row as usize * width..][..width];
                line.iter_mut().zip(row).for_each(|(x, y)| *x += y);
            });
            tensor(out, x.shape())
        })
    })
}

/// `x + y`.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let plain = || with_values(x, |a| with_values(y, |b| tensor(vector::add(a, b), x.shape())));
    if tracked(x) || tracked(y) {
        return tape::note_sum(x, y, plain)?.map_or_else(|| x + y, Ok);
    }
    plain()
}

/// Calls `f` with a contiguous matrix.
fn with_matrix<T>(x: &Tensor, f: impl FnOnce(Matrix<'_>) -> Result<T>) -> Result<T> {
    let (rows, columns) = x.dims2()?;
    with_values(x, |values| f(Matrix::new(values, rows, columns)))
}

/// Normalises rows; `weight` holds the full factor `g`.
pub(crate) fn norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    kind: Kind,
    eps: f32,
    width: usize,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    if ![Some(&x), Some(weight), bias].into_iter().flatten().any(tracked) {
        return norm_frozen(&x, weight, bias, kind, eps, width);
    }
    let y = tape::apply2(&x, weight, Norm { kind, eps, width })?;
    let Some(bias) = bias else { return Ok(y) };
    y.reshape((y.elem_count() / width, width))?.broadcast_add(bias)?.reshape(y.shape())
}

/// The same without a tape: the bias is added while the row is at hand.
fn norm_frozen(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    kind: Kind,
    eps: f32,
    width: usize,
) -> Result<Tensor> {
    let mut out = vec![0.0; x.elem_count()];
    with_values(x, |values| {
        with_values(weight, |weight| {
            let mut run = |bias: Option<&[f32]>| {
                norm::forward(kind, values, width, Some(weight), bias, eps, &mut out);
                Ok(())
            };
            match bias {
                None => run(None),
                Some(bias) => with_values(bias, |bias| run(Some(bias))),
            }
        })
    })?;
    tensor(out, x.shape())
}

struct Norm {
    kind: Kind,
    eps: f32,
    /// Width of a normalised row, which may be one head of a wider row.
    width: usize,
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, lx)?;
        let mut out = vec![0.0; x.len()];
        norm::forward(self.kind, x, self.width, Some(values(w, lw)?), None, self.eps, &mut out);
        done(out, lx.shape().clone())
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (mut dx, mut dw) = (vec![0.0; x.elem_count()], vec![0.0; self.width]);
        with_values(x, |x_values| {
            with_values(w, |w| {
                with_values(&grad, |grad| {
                    norm::backward(self.kind, x_values, self.width, Some(w), self.eps, grad, &mut dx, &mut dw, &mut []);
                    Ok(())
                })
            })
        })?;
        let dw = if tracked(w) { Some(tensor(dw, self.width)?) } else { None };
        Ok((Some(tensor(dx, x.shape())?), dw))
    }
}

/// Rotates the heads of `x`, `[tokens, heads · head_dim]`.
pub(crate) fn rotate(x: &Tensor, angles: &Arc<Angles>, heads: usize, head_dim: usize) -> Result<Tensor> {
    let op = Rotate { angles: angles.clone(), heads, head_dim };
    tape::apply1(x, op)
}

struct Rotate {
    angles: Arc<Angles>,
    heads: usize,
    head_dim: usize,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = values(x, layout)?.to_vec();
        self.angles.rotate(&mut out, self.heads, self.head_dim, Direction::Forward);
        done(out, layout.shape().clone())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = with_values(&grad, |grad| Ok(grad.to_vec()))?;
        self.angles.rotate(&mut dx, self.heads, self.head_dim, Direction::Backward);
        tensor(dx, x.shape()).map(Some)
    }
}

/// Attention of packed sequences that start at position 0. With angles, queries and keys are rotated on the way: as one
/// operation, the tape holds them once.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: attention::Shape,
    sequences: &Arc<Vec<Rows>>,
    angles: Option<&Arc<Angles>>,
) -> Result<Tensor> {
    let op = Attention { shape, sequences: sequences.clone(), angles: angles.cloned() };
    tape::apply3(q, k, v, op)
}

struct Attention {
    shape: attention::Shape,
    sequences: Arc<Vec<Rows>>,
    angles: Option<Arc<Angles>>,
}

impl Attention {
    /// Queries and keys as they are multiplied.
    fn rotated<'a>(&self, q: &'a [f32], k: &'a [f32]) -> [Cow<'a, [f32]>; 2] {
        let Some(angles) = &self.angles else { return [q.into(), k.into()] };
        let rotated = |x: &[f32], heads| {
            let mut x = x.to_vec();
            angles.rotate(&mut x, heads, self.shape.head_dim, Direction::Forward);
            Cow::Owned(x)
        };
        [rotated(q, self.shape.heads), rotated(k, self.shape.kv_heads)]
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [q, k] = self.rotated(values(q, lq)?, values(k, lk)?);
        let mut out = vec![0.0; q.len()];
        attention::forward_whole(&self.shape, &self.sequences, &q, &k, values(v, lv)?, &mut out);
        done(out, lq.shape().clone())
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (mut dq, mut dk, mut dv) =
            (vec![0.0; q.elem_count()], vec![0.0; k.elem_count()], vec![0.0; v.elem_count()]);
        with_values(q, |q| {
            with_values(k, |k| {
                with_values(v, |v| {
                    with_values(&grad, |grad| {
                        let [q, k] = self.rotated(q, k);
                        attention::backward(&self.shape, &self.sequences, &q, &k, v, grad, &mut dq, &mut dk, &mut dv);
                        Ok(())
                    })
                })
            })
        })?;
        if let Some(angles) = &self.angles {
            angles.rotate(&mut dq, self.shape.heads, self.shape.head_dim, Direction::Backward);
            angles.rotate(&mut dk, self.shape.kv_heads, self.shape.head_dim, Direction::Backward);
        }
        Ok((Some(tensor(dq, q.shape())?), Some(tensor(dk, k.shape())?), Some(tensor(dv, v.shape())?)))
    }
}

/// `f(gate) · up`.
pub(crate) fn gated(gate: &Tensor, up: &Tensor, f: Activation) -> Result<Tensor> {
    let op = Gated(f);
    tape::apply2(gate, up, op)
}

struct Gated(Activation);

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated-activation"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, lg: &Layout, up: &CpuStorage, lu: &Layout) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (values(gate, lg)?, values(up, lu)?);
        let mut out = vec![0.0; gate.len()];
        activation::gated(self.0, gate, up, &mut out);
        done(out, lg.shape().clone())
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        with_values(gate, |g| {
            with_values(up, |u| {
                with_values(&grad, |grad| {
                    let (mut dgate, mut dup) = (vec![0.0; g.len()], vec![0.0; g.len()]);
                    activation::gated_backward(self.0, g, u, grad, &mut dgate, &mut dup);
                    Ok((Some(tensor(dgate, gate.shape())?), Some(tensor(dup, up.shape())?)))
                })
            })
        })
    }
}

/// `f(x)`, value by value.
pub(crate) fn activate(x: &Tensor, f: Activation) -> Result<Tensor> {
    let op = Activate(f);
    tape::apply1(x, op)
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let mut out = vec![0.0; x.len()];
        activation::plain(self.0, x, &mut out);
        done(out, layout.shape().clone())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = vec![0.0; x.elem_count()];
        with_values(x, |x| {
            with_values(&grad, |grad| {
                activation::plain_backward(self.0, x, grad, &mut dx);
                Ok(())
            })
        })?;
        tensor(dx, x.shape()).map(Some)
    }
}

/// Softmax of every row.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    // It needs its result on the way back, which our own tape does not hold.
    if tape::is_recording() && tracked(x) {
        bail!("softmax is not recorded");
    }
    tape::apply1(x, Softmax)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = rows_of(layout)?;
        let mut out = values(x, layout)?.to_vec();
        for row in out.chunks_exact_mut(width.max(1)) {
            let log_sum_exp = logits::summarise(row).log_sum_exp as f32;
            logits::softmax_scaled(row, log_sum_exp, 1.0);
        }
        done(out, layout.shape().clone())
    }

    /// `dx = p (dy - Σ p dy)`
    fn bwd(&self, _: &Tensor, p: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let weighted = (p * grad)?;
        let total = weighted.sum_keepdim(1)?;
        Ok(Some((weighted - p.broadcast_mul(&total)?)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use lathe_kernels::matmul::Arithmetic::F32;
    use lathe_kernels::matmul::{Packed, Weight};

    use super::*;

    fn ramp(rows: usize, columns: usize, step: f32) -> Tensor {
        let values = (0..rows * columns).map(|i| ((i * 7 + 3) % 13) as f32 * step - 0.4).collect();
        tensor(values, (rows, columns)).expect("a matrix")
    }

    /// A frozen layer in the middle of a trainable graph passes the gradient of its input on, and keeps no graph when
    /// nothing is trainable.
    #[test]
    fn frozen_and_trainable_layers_agree() {
        let (x, w, g) = (ramp(5, 37, 0.1), ramp(35, 37, 0.07), ramp(5, 35, 0.2));
        let packed =
            with_values(&w, |w| Ok(Arc::new(Weight::Floats(Packed::from_transposed(w, 35, 37))))).expect("packed");
        let x = Var::from_tensor(&x).expect("a variable");
        let gradient = |y: Tensor| {
            let loss = (y * &g).and_then(|y| y.sum_all()).expect("a loss");
            let dx = loss.backward().expect("gradients").remove(&x).expect("a gradient of x");
            dx.to_vec2::<f32>().expect("values")
        };
        let one = || Joint::of(1);
        let trainable = linear(&x, (&w, F32), None, (&one(), 0)).expect("applied");
        let frozen = linear_frozen(&x, &packed, None, (&one(), 0)).expect("applied");
        assert_eq!(trainable.to_vec2::<f32>().expect("values"), frozen.to_vec2::<f32>().expect("values"));
        assert_eq!(gradient(trainable), gradient(frozen));
        assert!(!linear_frozen(&x.detach(), &packed, None, (&one(), 0)).expect("applied").track_op());
    }

    /// Each fused operation says the same as the parts that it is made of.
    #[test]
    fn fused_operations_equal_their_parts() {
        let (x, a, b) = (ramp(5, 17, 0.1), ramp(9, 17, 0.07), ramp(9, 17, 0.05));
        let g = ramp(5, 9, 0.2);
        let targets = vec![0, 8, 3, 3, 5];
        let per_row = ramp(1, 5, 0.3).flatten_all().expect("a vector");
        let alone = |x: &Tensor, w: &Tensor| linear(x, (w, F32), None, (&Joint::of(1), 0));
        let gated_parts = |x: &Tensor, a: &Tensor, b: &Tensor| {
            (gated(&alone(x, a)?, &alone(x, b)?, Activation::Silu)? * &g)?.sum_all()
        };
        let gated_whole = |x: &Tensor, a: &Tensor, b: &Tensor| {
            (gated_linear(x, (a, F32), (b, F32), Activation::Silu)? * &g)?.sum_all()
        };
        let capped_parts = |x: &Tensor, a: &Tensor, _: &Tensor| {
            let logits = (((alone(x, a)? * 1.5)? / 2.0)?.tanh()? * 2.0)?;
            (negative_log_likelihood(&logits, targets.clone())? * &per_row)?.sum_all()
        };
        let capped_whole = |x: &Tensor, a: &Tensor, _: &Tensor| {
            let scaling = LogitScaling { scale: 1.5, soft_cap: Some(2.0) };
            (head_likelihood(x, (a, F32), scaling, targets.clone())? * &per_row)?.sum_all()
        };
        type Loss<'a> = &'a dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;
        let pairs: [(&str, Loss<'_>, Loss<'_>); 2] =
            [("gated", &gated_parts, &gated_whole), ("head", &capped_parts, &capped_whole)];
        for (name, parts, whole) in pairs {
            let run = |loss: Loss<'_>| {
                let vars = [&x, &a, &b].map(|value| Var::from_tensor(value).expect("a variable"));
                let loss = loss(&vars[0], &vars[1], &vars[2]).expect("a loss");
                let gradients = loss.backward().expect("gradients");
                let flat = |var| gradients.get(var).map(|g: &Tensor| g.flatten_all().and_then(|g| g.to_vec1::<f32>()));
                let gradients = vars.iter().map(|var| flat(var).transpose().expect("values")).collect::<Vec<_>>();
                (loss.to_scalar::<f32>().expect("a number"), gradients)
            };
            let ((expected_loss, expected), (loss, found)) = (run(parts), run(whole));
            assert!((loss - expected_loss).abs() < 1e-5, "{name}: {loss} {expected_loss}");
            for (expected, found) in expected.iter().zip(&found) {
                assert_eq!(expected.is_some(), found.is_some(), "{name}");
                for (expected, found) in expected.iter().flatten().zip(found.iter().flatten()) {
                    assert!((expected - found).abs() < 1e-5, "{name}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn softmax_and_likelihood_gradients_equal_finite_differences() {
        let g = ramp(3, 9, 0.3);
        let losses: [&dyn Fn(&Tensor) -> Tensor; 3] = [
            &|x| (softmax(x).expect("applied") * &g).and_then(|y| y.sum_all()).expect("a loss"),
            &|x| negative_log_likelihood(x, vec![2, 0, 8]).and_then(|y| y.sum_all()).expect("a loss"),
            &|x| (activate(x, Activation::GeluTanh).expect("applied") * &g).and_then(|y| y.sum_all()).expect("a loss"),
        ];
        for (number, loss) in losses.into_iter().enumerate() {
            let x = Var::from_tensor(&ramp(3, 9, 0.25)).expect("a variable");
            let dx = loss(&x).backward().expect("gradients").remove(&x).expect("a gradient of x");
            let dx: Vec<f32> = dx.flatten_all().and_then(|dx| dx.to_vec1()).expect("values");
            for (i, dx) in dx.iter().enumerate() {
                let h = 1e-2;
                let at = |by: f32| {
                    let mut values = with_values(&x, |x| Ok(x.to_vec())).expect("values");
                    values[i] += by;
                    let loss = loss(&tensor(values, (3, 9)).expect("a matrix"));
                    loss.to_scalar::<f32>().expect("a number")
                };
                let expected = (at(h) - at(-h)) / (2.0 * h);
                assert!((dx - expected).abs() < 2e-3, "loss {number}, value {i}: {dx} {expected}");
            }
        }
    }
}
