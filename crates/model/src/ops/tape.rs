//! A tape of the operations of one layer, beside candle's.
//!
//! candle adds every gradient to a tensor of zeros, in fresh memory: for activations as large as a training step's that is a
//! few percent of its time. Inside of [`record`] the operations of this module's siblings note themselves here and leave
//! candle's tape alone; [`Recorded::backward`] goes back through them and moves gradients instead of adding them to zeros.
//! Only these operations are noted, so that a layer may be recorded only where it consists of nothing else. What an operation
//! does not need on its way back is not held.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId};

use super::gather::hand_over;
use super::{tensor, with_values};

type Op1 = Box<dyn CustomOp1 + Send + Sync>;
type Op2 = Box<dyn CustomOp2 + Send + Sync>;
type Op3 = Box<dyn CustomOp3 + Send + Sync>;

/// An operation, what it needs of what it was given, and what it made.
struct Node {
    op: Op,
    y: TensorId,
}

enum Op {
    One(Op1, Tensor),
    Two(Op2, [Tensor; 2]),
    Three(Op3, [Tensor; 3]),
    /// The gradient of one argument, which is not looked at.
    Blind(Blind, TensorId),
    Sum([TensorId; 2]),
}

/// From the gradient of a result to that of an argument.
type Blind = Box<dyn Fn(&Tensor) -> Result<Option<Tensor>>>;

#[derive(Default)]
struct Tape {
    /// Tensors whose gradient is asked for.
    known: HashSet<TensorId>,
    nodes: Vec<Node>,
}

thread_local! {
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// Whether `x` needs a gradient: it is on candle's tape, a variable, or on the one that is being recorded.
pub(crate) fn tracked(x: &Tensor) -> bool {
    x.track_op() || is_known(x.id())
}

pub(super) fn is_recording() -> bool {
    TAPE.with_borrow(Option::is_some)
}

fn note(op: Op, y: &Tensor) {
    TAPE.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.known.insert(y.id());
            tape.nodes.push(Node { op, y: y.id() });
        }
    });
}

/// Applies an operation, noted where a gradient is asked for.
pub(super) fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    if !tracked(x) {
        return x.apply_op1_no_bwd(&op);
    }
    let x = x.contiguous()?;
    if !is_recording() {
        return x.apply_op1(op);
    }
    let y = x.apply_op1_no_bwd(&op)?;
    note(Op::One(Box::new(op), x), &y);
    Ok(y)
}

/// The same where the way back needs nothing of the argument but its shape: it is not held.
pub(super) fn apply_blind<T: CustomOp1 + WayBack + Send + Sync + 'static>(x: &Tensor, op: T) -> Result<Tensor> {
    if !is_recording() || !tracked(x) {
        return apply1(x, op);
    }
    let x = x.contiguous()?;
    let y = x.apply_op1_no_bwd(&op)?;
    let shape = x.dims2()?;
    note(Op::Blind(Box::new(move |gradient| op.way_back(shape, gradient)), x.id()), &y);
    Ok(y)
}

/// The gradient of an operation's argument from that of its result.
pub(super) trait WayBack {
    /// The argument has `rows` rows of `width` values.
    fn way_back(&self, shape: (usize, usize), gradient: &Tensor) -> Result<Option<Tensor>>;
}

/// The same of two arguments.
pub(super) fn apply2(x: &Tensor, a: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    if !tracked(x) && !tracked(a) {
        return x.apply_op2_no_bwd(a, &op);
    }
    let (x, a) = (x.contiguous()?, a.contiguous()?);
    if !is_recording() {
        return x.apply_op2(&a, op);
    }
    let y = x.apply_op2_no_bwd(&a, &op)?;
    note(Op::Two(Box::new(op), [x, a]), &y);
    Ok(y)
}

/// The same of three arguments.
pub(super) fn apply3(x: &Tensor, a: &Tensor, b: &Tensor, op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    if !tracked(x) && !tracked(a) && !tracked(b) {
        return x.apply_op3_no_bwd(a, b, &op);
    }
    let (x, a, b) = (x.contiguous()?, a.contiguous()?, b.contiguous()?);
    if !is_recording() {
        return x.apply_op3(&a, &b, op);
    }
    let y = x.apply_op3_no_bwd(&a, &b, &op)?;
    note(Op::Three(Box::new(op), [x, a, b]), &y);
    Ok(y)
}

/// Makes and notes a sum; none where nothing is recorded.
pub(super) fn note_sum(x: &Tensor, y: &Tensor, make: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
    if !is_recording() {
        return Ok(None);
    }
    let sum = make()?;
    note(Op::Sum([x.id(), y.id()]), &sum);
    Ok(Some(sum))
}

/// What was noted of a layer.
pub(crate) struct Recorded {
    tape: Tape,
    input: TensorId,
    output: TensorId,
}

/// Takes away what was recorded, also when `f` panics.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        TAPE.set(None);
    }
}

/// Runs `f`, a layer of `input`, and notes its operations; the gradient of the input is asked for where `wanted` says so.
pub(crate) fn record<E>(
    input: &Tensor,
    wanted: bool,
    f: impl FnOnce() -> std::result::Result<Tensor, E>,
) -> std::result::Result<(Tensor, Recorded), E> {
    let known = wanted.then(|| input.id()).into_iter().collect();
    TAPE.set(Some(Tape { known, nodes: Vec::new() }));
    let stop = Stop;
    let output = f()?;
    let tape = TAPE.take().unwrap_or_default();
    drop(stop);
    let recorded = Recorded { tape, input: input.id(), output: output.id() };
    Ok((output, recorded))
}

impl Recorded {
    /// Goes back through what was noted, with the gradient of the output: that of the input, where it was asked for. Those
    /// of variables are gathered.
    pub(crate) fn backward(self, gradient: Tensor) -> Result<Option<Tensor>> {
        let Tape { known, nodes } = self.tape;
        TAPE.set(Some(Tape { known, nodes: Vec::new() }));
        let _stop = Stop;
        let mut gradients = HashMap::from([(self.output, gradient)]);
        for Node { op, y } in nodes.into_iter().rev() {
            let Some(gradient) = gradients.remove(&y) else { continue };
            let mut add = |x: &Tensor, gradient: Option<Tensor>| of_tensor(&mut gradients, x, gradient);
            // None of the operations of a layer looks at its result again: the gradient stands in for it.
            match op {
                Op::One(op, x) => add(&x, op.bwd(&x, &gradient, &gradient)?)?,
                Op::Two(op, [x, a]) => {
                    let (dx, da) = op.bwd(&x, &a, &gradient, &gradient)?;
                    add(&x, dx)?;
                    add(&a, da)?;
                }
                Op::Three(op, [x, a, b]) => {
                    let (dx, da, db) = op.bwd(&x, &a, &b, &gradient, &gradient)?;
                    add(&x, dx)?;
                    add(&a, da)?;
                    add(&b, db)?;
                }
                Op::Blind(way_back, x) => {
                    if let Some(gradient) = way_back(&gradient)? {
                        deliver(&mut gradients, x, gradient)?;
                    }
                }
                Op::Sum([a, b]) => {
                    for x in [a, b] {
                        if is_known(x) {
                            deliver(&mut gradients, x, gradient.clone())?;
                        }
                    }
                }
            }
        }
        Ok(gradients.remove(&self.input))
    }
}

fn is_known(x: TensorId) -> bool {
    TAPE.with_borrow(|tape| tape.as_ref().is_some_and(|tape| tape.known.contains(&x)))
}

/// Adds a gradient to what is known of a tensor's; that of a variable is gathered.
fn of_tensor(gradients: &mut HashMap<TensorId, Tensor>, x: &Tensor, gradient: Option<Tensor>) -> Result<()> {
    let Some(gradient) = gradient.filter(|_| tracked(x)) else { return Ok(()) };
    if x.is_variable() {
        let values = with_values(&gradient.contiguous()?, |values| Ok(values.to_vec()))?;
        return hand_over(x, values).map(drop);
    }
    deliver(gradients, x.id(), gradient)
}

/// The same of a tensor that was noted.
fn deliver(gradients: &mut HashMap<TensorId, Tensor>, x: TensorId, gradient: Tensor) -> Result<()> {
    let sum = match gradients.remove(&x) {
        Some(sum) => {
            let (sum, gradient) = (sum.contiguous()?, gradient.contiguous()?);
            let values = with_values(&sum, |a| with_values(&gradient, |b| Ok(lathe_kernels::vector::add(a, b))))?;
            tensor(values, sum.shape())?
        }
        None => gradient,
    };
    gradients.insert(x, sum);
    Ok(())
}
