//! What the reader of a merge's report should know of a tensor.

use std::fmt;

/// Something that a rule did and that its name does not say. Where rows or columns are vectors of their own, a remark
/// counts them and its number is that of the first.
#[derive(Clone, Debug, PartialEq)]
pub enum Remark {
    /// Two vectors were nearly parallel or opposite, and a straight line took the place of the arc.
    StraightLine {
        /// The cosine between them.
        cosine: f64,
        /// How many pairs were.
        vectors: usize,
        /// Of how many.
        of: usize,
    },
    /// A vector of zeros has no direction; what needs one did without it.
    ZeroVector {
        /// How many times.
        vectors: usize,
        /// Of how many.
        of: usize,
    },
    /// Model stock's weight of the mean was outside 0 to 1 and was clamped.
    Clamped {
        /// What it was; not finite where the cosine allows none.
        t: f64,
        /// How many were.
        vectors: usize,
        /// Of how many.
        of: usize,
    },
    /// The Karcher mean had not settled after the most steps allowed.
    NotConverged {
        /// Length of the last step, in radians.
        step: f64,
    },
    /// Where sums are divided by the weights that count, a single or negative weight has no effect.
    WeightCancels {
        /// The model, counted from 0 without the base.
        model: usize,
    },
    /// The density keeps less than one number of a tensor this small; one was kept.
    KeptOne {
        /// The model, counted from 0 without the base.
        model: usize,
    },
    /// No more than this many of the largest could be dropped, as the density keeps the rest.
    FewerDropped {
        /// The model, counted from 0 without the base.
        model: usize,
        /// Dropped of the largest.
        dropped: usize,
    },
    /// No position differs between the models, so that none could be selected: all were.
    NothingVaries,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StraightLine { cosine, vectors, of } => {
                write!(f, "straight line instead of an arc (cosine {cosine:.6}{})", share(*vectors, *of))
            }
            Self::ZeroVector { vectors, of } => write!(f, "all zeros, no direction{}", share(*vectors, *of)),
            Self::Clamped { t, vectors, of } => {
                write!(f, "weight of the mean {t:.4} clamped to 0..=1{}", share(*vectors, *of))
            }
            Self::NotConverged { step } => write!(f, "not converged, last step {step:.1e} rad"),
            Self::WeightCancels { model } => {
                write!(f, "model {model}: normalisation cancels its weight (single or negative)")
            }
            Self::KeptOne { model } => write!(f, "model {model}: density keeps less than one number, one kept"),
            Self::FewerDropped { model, dropped } => {
                write!(f, "model {model}: only {dropped} of the largest dropped, as the density keeps the rest")
            }
            Self::NothingVaries => write!(f, "no position differs between the models, all selected"),
        }
    }
}

/// How many, where there is more than one.
fn share(vectors: usize, of: usize) -> String {
    if of == 1 { String::new() } else { format!("; {vectors} of {of} vectors") }
}

/// Adds a remark, or counts it where there is one of its kind.
pub(super) fn add(remarks: &mut Vec<Remark>, remark: Remark) {
    use Remark as R;
    for known in remarks.iter_mut() {
        match (known, &remark) {
            (R::StraightLine { vectors, .. }, R::StraightLine { vectors: more, .. })
            | (R::ZeroVector { vectors, .. }, R::ZeroVector { vectors: more, .. })
            | (R::Clamped { vectors, .. }, R::Clamped { vectors: more, .. }) => {
                *vectors += more;
                return;
            }
            _ => {}
        }
    }
    remarks.push(remark);
}

/// Says of how many vectors this one is.
pub(super) fn set_of(remark: &mut Remark, vectors: usize) {
    use Remark as R;
    if let R::StraightLine { of, .. } | R::ZeroVector { of, .. } | R::Clamped { of, .. } = remark {
        *of = vectors;
    }
}
