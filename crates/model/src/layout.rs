//! How a parameter lies in a checkpoint's tensor: as it is, transposed, or as a part of a fused one, in either direction.

use crate::family::GgufLayout;
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
    /// A vector of head `h` in a stack `[heads, width]`; of query (0) or key heads (1).
    StackedHead(usize),
}

/// Where the values of one parameter are in its tensor, and what was done to them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placement {
    /// Shape that the tensor must have.
    pub(crate) shape: Vec<usize>,
    /// Row of the tensor (column, when transposed) that holds the parameter's first row.
    pub(crate) first: usize,
    /// Width of a head and which of three, when rows come head by head.
    by_head: Option<(usize, usize)>,
    /// Whether rows of the parameter are columns of the tensor.
    pub(crate) transposed: bool,
    /// Width of a head whose rotary pairs lie side by side.
    paired: Option<usize>,
    /// Added to every stored value to get the parameter.
    pub(crate) add: f32,
}

impl Layout {
    /// Places a parameter; `place` is its name taken apart.
    pub(crate) fn place(self, parameter: &Parameter, spec: &DecoderSpec, place: &Place) -> Placement {
        let shape = &parameter.shape;
        let rows = shape[0];
        let whole =
            Placement { shape: shape.clone(), first: 0, by_head: None, transposed: false, paired: None, add: 0.0 };
        let with_rows = |total: usize, first: usize| {
            let mut fused = whole.clone();
            fused.shape[0] = total;
            fused.first = first;
            fused
        };
        let layer = spec.layers.get(place.layer);
        let attention = layer.map(|layer| &layer.attention);
        let (q, kv) = attention.map_or((0, 0), |a| (a.heads * a.head_dim, a.kv_heads * a.head_dim));
        let experts = layer.and_then(|layer| layer.feed_forward.experts()).map_or(0, |e| e.count);
        let expert = place.expert;
        match self {
            Self::Whole => whole,
            Self::Vector => Placement { shape: vec![shape.iter().product()], ..whole },
            Self::StackedHead(which) => {
                let heads = attention.map_or(0, |a| [a.heads, a.kv_heads][which]);
                Placement { shape: [&[heads], &shape[..]].concat(), first: place.head, ..whole }
            }
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
    /// The same, after what llama.cpp's converter does to a parameter of this pattern.
    pub(crate) fn converted(self, place: &Place, spec: &DecoderSpec, layout: GgufLayout) -> Self {
        let is = |parts: &[&str]| parts.iter().any(|part| place.pattern.contains(part));
        match layout {
            GgufLayout::PairedRotary if is(&["attention.query.", "attention.key."]) => {
                Self { paired: spec.layers.get(place.layer).map(|layer| layer.attention.head_dim), ..self }
            }
            GgufLayout::NormsPlusOne if is(&["before_", "after_", "norm.weight"]) => Self { add: -1.0, ..self },
            _ => self,
        }
    }

    /// Row (or column) of the tensor that holds row `row` of the parameter. A vector's values count as rows.
    pub(crate) fn row(&self, row: usize) -> usize {
        let row = self.paired.map_or(row, |head_dim| paired_row(row, head_dim));
        match self.by_head {
            Some((head_dim, which)) => (row / head_dim * 3 + which) * head_dim + row % head_dim,
            None => self.first + row,
        }
    }

    /// Row of the parameter, which has `rows`, that row `row` of the tensor holds; none where it holds another's.
    pub(crate) fn row_of(&self, row: usize, rows: usize) -> Option<usize> {
        let ours = match self.by_head {
            Some((head_dim, which)) => {
                (row / head_dim % 3 == which).then(|| row / (3 * head_dim) * head_dim + row % head_dim)?
            }
            None => row.checked_sub(self.first)?,
        };
        (ours < rows).then(|| self.paired.map_or(ours, |head_dim| unpaired_row(ours, head_dim)))
    }

    /// Whether neighbouring rows of the parameter are neighbours in the tensor.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.by_head.is_none() && self.paired.is_none()
    }
}

/// Row of the checkpoint's tensor that holds row `row` of ours, for query and key rows that llama.cpp's converter
/// reordered: pair `i` of a head (rows `i` and `i + d/2`) was moved to rows `2i` and `2i + 1`.
fn paired_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + if within < half { 2 * within } else { 2 * (within - half) + 1 }
}

/// The other way round.
fn unpaired_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + within / 2 + within % 2 * (head_dim / 2)
}

/// A parameter's name without its numbers: `layers.{l}.experts.{e}.up.weight`, 3 and 17.
pub(crate) struct Place {
    /// The name with `{l}` and `{e}`.
    pub(crate) pattern: String,
    /// Layer; 0 where there is none.
    pub(crate) layer: usize,
    /// Expert; 0 where there is none.
    pub(crate) expert: usize,
    /// Head; 0 where there is none.
    pub(crate) head: usize,
}

impl Place {
    /// Takes a name apart.
    pub(crate) fn of(name: &str) -> Self {
        let mut place = Self { pattern: String::new(), layer: 0, expert: 0, head: 0 };
        let mut before = "";
        let parts: Vec<&str> = name
            .split('.')
            .map(|part| {
                let number = part.parse::<usize>();
                let shown = match (before, number) {
                    ("layers", Ok(layer)) => {
                        place.layer = layer;
                        "{l}"
                    }
                    ("experts", Ok(expert)) => {
                        place.expert = expert;
                        "{e}"
                    }
                    ("query_norm" | "key_norm", Ok(head)) => {
                        place.head = head;
                        "{h}"
                    }
                    _ => part,
                };
                before = part;
                shown
            })
            .collect();
        place.pattern = parts.join(".");
        place
    }

    /// A name of a table with this place's numbers.
    pub(crate) fn fill(&self, theirs: &str) -> String {
        theirs
            .replace("{l}", &self.layer.to_string())
            .replace("{e}", &self.expert.to_string())
            .replace("{h}", &self.head.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paired_rows_undo_the_converter() {
        // The converter: reshape (heads, 2, d/2) and swap the last two axes.
        let (heads, d) = (3, 8);
        let converted: Vec<usize> = (0..heads * d).map(|row| row / d * d + (row % 2) * (d / 2) + row % d / 2).collect();
        for row in 0..heads * d {
            assert_eq!(converted[paired_row(row, d)], row);
            assert_eq!(unpaired_row(paired_row(row, d), d), row);
        }
    }
}
