//! How a parameter lies in a checkpoint's tensor: as it is, transposed, or as a part of a fused one.

use crate::spec::{DecoderSpec, Parameter};

/// A tensor of a checkpoint: lathe's name, the checkpoint's, and where in it the parameter lies. `{l}` stands for the
/// layer, `{e}` for the expert, `{h}` for the head. Several rows may name one parameter; the first whose tensor exists
/// is taken.
pub struct Name {
    /// lathe's name ([`DecoderSpec::parameters`]).
    pub ours: &'static str,
    /// The checkpoint's name.
    pub theirs: &'static str,
    /// Where the parameter lies.
    pub layout: Layout,
}

/// Shorthand of a row of a name table.
pub(crate) const fn name(ours: &'static str, theirs: &'static str) -> Name {
    Name { ours, theirs, layout: Layout::Whole }
}

/// Shorthand of a row for a part of a tensor.
pub(crate) const fn part(ours: &'static str, theirs: &'static str, layout: Layout) -> Name {
    Name { ours, theirs, layout }
}

/// Where a parameter lies in its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// It is the tensor.
    Whole,
    /// The tensor is its transpose, `[in, out]` (GPT-2's `Conv1D`).
    Transposed,
    /// Rows of query, key and value one after another; which of the three.
    Qkv(usize),
    /// The same, transposed.
    QkvTransposed(usize),
    /// Rows of query, key and value of the first head, then of the second, … (GPT-NeoX); which of the three.
    QkvByHead(usize),
    /// Rows of gate and up projection one after another; which of the two.
    GateUp(usize),
    /// Expert `e` of a stack `[experts, out, in]`.
    Stacked,
    /// Gate (0) or up projection (1) of expert `e` of a stack `[experts, 2 · width, in]`.
    StackedGateUp(usize),
    /// One row that the file stores as a vector.
    Vector,
}

/// Where the rows of one parameter are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Shape that the tensor must have.
    pub(crate) shape: Vec<usize>,
    /// Row of the tensor (column, when transposed) that holds the parameter's first row.
    pub(crate) first: usize,
    /// Width of a head and which of three, when rows come head by head.
    pub(crate) by_head: Option<(usize, usize)>,
    /// Whether rows of the parameter are columns of the tensor.
    pub(crate) transposed: bool,
}

impl Layout {
    /// Places a parameter of layer `layer` and expert `expert` (0 where there is none).
    pub(crate) fn place(self, parameter: &Parameter, spec: &DecoderSpec, layer: usize, expert: usize) -> Placement {
        let shape = &parameter.shape;
        let rows = shape[0];
        let whole = Placement { shape: shape.clone(), first: 0, by_head: None, transposed: false };
        let with_rows = |total: usize, first: usize| {
            let mut fused = whole.clone();
            fused.shape[0] = total;
            fused.first = first;
            fused
        };
        let attention = spec.layers.get(layer).map(|layer| &layer.attention);
        let (q, kv) = attention.map_or((0, 0), |a| (a.heads * a.head_dim, a.kv_heads * a.head_dim));
        let experts = spec.layers.get(layer).and_then(|layer| layer.feed_forward.experts()).map_or(0, |e| e.count);
        match self {
            Self::Whole => whole,
            Self::Vector => Placement { shape: vec![shape.iter().product()], ..whole },
            Self::Transposed => {
                Placement { shape: shape.iter().rev().copied().collect(), transposed: shape.len() > 1, ..whole }
            }
            Self::Qkv(which) => with_rows(q + 2 * kv, [0, q, q + kv][which]),
            Self::QkvTransposed(which) => {
                let fused = with_rows(q + 2 * kv, [0, q, q + kv][which]);
                Placement { shape: fused.shape.iter().rev().copied().collect(), transposed: shape.len() > 1, ..fused }
            }
            Self::QkvByHead(which) => {
                let head_dim = attention.map_or(1, |a| a.head_dim);
                Placement { by_head: Some((head_dim, which)), ..with_rows(3 * rows, 0) }
            }
            Self::GateUp(which) => with_rows(2 * rows, which * rows),
            Self::Stacked => Placement { shape: [&[experts], &shape[..]].concat(), first: expert * rows, ..whole },
            Self::StackedGateUp(which) => {
                let fused = [&[experts, 2 * rows], &shape[1..]].concat();
                Placement { shape: fused, first: (2 * expert + which) * rows, ..whole }
            }
        }
    }
}

impl Placement {
    /// Row (or column) of the tensor that holds row `row` of the parameter.
    pub(crate) fn row(&self, row: usize) -> usize {
        match self.by_head {
            Some((head_dim, which)) => (row / head_dim * 3 + which) * head_dim + row % head_dim,
            None => self.first + row,
        }
    }
}
