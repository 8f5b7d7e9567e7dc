//! Gradients of variables, gathered beside the tape.
//!
//! candle adds every gradient to a tensor of zeros, in fresh memory. For activations that is a few percent of a step; for
//! the weights of a large model, which get one gradient each, it is most of the memory traffic. Inside of [`gather`] the
//! operations that know a weight keep its gradient themselves and tell the tape that there is none.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, TensorId, bail};

use super::{done, rows_of, tensor, values, with_values};

/// Gradients by the variable that they belong to, row-major.
pub(crate) type Gathered = HashMap<TensorId, Vec<f32>>;

thread_local! {
    /// What is being gathered on this thread; a backward pass runs on the thread that asks for it.
    static GATHERED: RefCell<Option<Gathered>> = const { RefCell::new(None) };
}

/// Gives back what was there before, also when a pass panics.
struct Restore<'a> {
    into: &'a mut Gathered,
    before: Option<Gathered>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        if let Some(gathered) = GATHERED.replace(self.before.take()) {
            *self.into = gathered;
        }
    }
}

/// Runs `f`, a backward pass; gradients of variables that operations keep are added to `into`.
pub(crate) fn gather<T>(into: &mut Gathered, f: impl FnOnce() -> T) -> T {
    let before = GATHERED.replace(Some(std::mem::take(into)));
    let _restore = Restore { into, before };
    f()
}

/// The gradient of `variable`, for the tape; nothing where gradients are gathered.
pub(super) fn hand_over(variable: &Tensor, gradient: Vec<f32>) -> Result<Option<Tensor>> {
    let rest = GATHERED.with_borrow_mut(|gathered| {
        let Some(gathered) = gathered.as_mut().filter(|_| variable.is_variable()) else { return Some(gradient) };
        match gathered.entry(variable.id()) {
            std::collections::hash_map::Entry::Vacant(place) => _ = place.insert(gradient),
            std::collections::hash_map::Entry::Occupied(mut sum) => {
                sum.get_mut().iter_mut().zip(&gradient).for_each(|(sum, x)| *sum += x);
            }
        }
        None
    });
    rest.map(|gradient| tensor(gradient, variable.shape())).transpose()
}

/// Rows `ids` of a table, `[ids.len(), width]`.
pub(crate) fn embed(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let op = Embed(ids.to_vec());
    if table.track_op() { table.apply_op1(op) } else { table.apply_op1_no_bwd(&op) }
}

struct Embed(Vec<u32>);

impl CustomOp1 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = rows_of(layout)?;
        let table = values(table, layout)?;
        let mut out = Vec::with_capacity(self.0.len() * width);
        for id in &self.0 {
            let row = *id as usize;
            if row >= rows {
                bail!("row {row} of a table of {rows}");
            }
            out.extend_from_slice(&table[row * width..][..width]);
        }
        done(out, (self.0.len(), width))
    }

    /// Rows of one token are added up in the order of the batch.
    fn bwd(&self, table: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = table.dim(1)?;
        let grad = grad.contiguous()?;
        with_values(&grad, |grad| {
            let add = |sum: &mut [f32]| {
                for (id, grad) in self.0.iter().zip(grad.chunks_exact(width.max(1))) {
                    let sum = &mut sum[*id as usize * width..][..width];
                    sum.iter_mut().zip(grad).for_each(|(sum, x)| *sum += x);
                }
            };
            let is_gathered = GATHERED.with_borrow_mut(|gathered| {
                let Some(gathered) = gathered.as_mut().filter(|_| table.is_variable()) else { return false };
                add(gathered.entry(table.id()).or_insert_with(|| vec![0.0; table.elem_count()]));
                true
            });
            if is_gathered {
                return Ok(None);
            }
            let mut sum = vec![0.0; table.elem_count()];
            add(&mut sum);
            tensor(sum, table.shape()).map(Some)
        })
    }
}

/// A number whose gradient with respect to `y` is `gradient`: where a backward pass goes on that ended there.
pub(crate) fn seeded(y: &Tensor, gradient: Tensor) -> Result<Tensor> {
    y.apply_op1(Seeded(gradient))
}

struct Seeded(Tensor);

impl CustomOp1 for Seeded {
    fn name(&self) -> &'static str {
        "seeded"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        done(vec![0.0], ())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
