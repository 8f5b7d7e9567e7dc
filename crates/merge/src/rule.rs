//! How one tensor is made of the same tensor of several models.
//!
//! A [`Rule`] says which method, with numbers for this tensor. [`Rule::prepare`] reads the inputs as often as the method
//! needs (norms, angles, thresholds) and gives a [`Prepared`], which makes any piece of the result from the same piece
//! of the inputs.
//!
//! Inputs are f32; everything between them and the result is f64, rounded once. Only the ranking of differences by
//! size looks at them as f32. Reductions run over fixed tiles whose results are joined in order, so that neither
//! threads nor pieces can change a bit.

mod check;
mod deltas;
mod prepared;
mod ranks;
mod remark;
mod select;
mod span;
mod sphere;
mod stream;
#[cfg(test)]
mod tests;
mod tiles;

pub use prepared::{MaskKey, Prepared, RuleError};
pub use remark::Remark;

/// A method, with its parameters for one tensor.
///
/// Where a rule has a base, it is input 0 and the models follow in the order of the configuration; lists of
/// parameters have an entry for each model, none for the base.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The only input times `scale`.
    Passthrough {
        /// The factor.
        scale: f64,
    },
    /// A weighted sum, without a base.
    Linear {
        /// Weight of each model.
        weights: Vec<f64>,
        /// Whether the sum is divided by the sum of the weights.
        normalize: bool,
    },
    /// Spherical interpolation of two tensors as vectors; inputs are the base and one model.
    Slerp {
        /// 0 gives the base, 1 the model.
        t: f64,
    },
    /// Spherical interpolation of two models, or of their differences from a base.
    Nuslerp {
        /// Weights of the two models.
        weights: [f64; 2],
        /// Whether input 0 is a base.
        has_base: bool,
        /// What counts as one vector.
        over: Over,
    },
    /// Spherical mean of several models by one step on the tangent space, or of their differences from a base.
    Multislerp {
        /// Weight of each model.
        weights: Vec<f64>,
        /// Whether the weights are divided by their sum.
        normalize: bool,
        /// Whether input 0 is a base.
        has_base: bool,
        /// Lengths below this count as zero.
        eps: f64,
    },
    /// Spherical mean of several models with equal weights, iterated.
    Karcher {
        /// Most steps.
        max_iter: usize,
        /// A step shorter than this is the last.
        tol: f64,
    },
    /// A sum of (sparsified, rescaled, agreeing) differences from a base: task arithmetic, TIES, DARE, DELLA,
    /// breadcrumbs, protect.
    Deltas(Deltas),
    /// Interpolation between base and mean by the angle of the differences.
    ModelStock {
        /// Whether each row has its own angle.
        by_rows: bool,
    },
    /// Select, calculate, erase.
    Sce {
        /// Share of positions, of those with a non-zero variance, that take part.
        select_topk: f64,
    },
    /// Moves the base towards a model only where the two are near.
    Nearswap {
        /// Distance up to which the model is taken whole.
        t: f64,
    },
}

/// What is interpolated as one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The whole tensor.
    Tensor,
    /// Each row (the last dimension): one output feature of a linear layer.
    Rows,
    /// Each column: one input feature of a linear layer.
    Columns,
}

/// `base + λ · combined(w_i · sparse(θ_i − base))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deltas {
    /// Weight of each model.
    pub weights: Vec<f64>,
    /// What is kept of each model's difference.
    pub sparsify: Vec<Sparsify>,
    /// What makes up for what was not kept.
    pub rescale: Rescale,
    /// Which differences count at a position.
    pub consensus: Consensus,
    /// Whether the sum is divided by the sum of the weights that count at a position.
    pub normalize: bool,
    /// The factor of the whole.
    pub lambda: f64,
}

/// Which numbers of a difference are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparsify {
    /// All.
    All,
    /// The `⌊density · n⌋` largest.
    Largest {
        /// Share that is kept.
        density: f64,
    },
    /// Each with probability `density`.
    Random {
        /// Probability of being kept.
        density: f64,
    },
    /// Each with a probability that rises with its rank in its row, from `density − epsilon` to `density + epsilon`.
    RandomByRank {
        /// Mean probability of being kept.
        density: f64,
        /// Half the width of the range of probabilities.
        epsilon: f64,
    },
    /// Neither the `⌊gamma · n⌋` largest nor the smallest, so that `⌊density · n⌋` are kept.
    Middle {
        /// Share that is kept.
        density: f64,
        /// Share of the largest that is dropped.
        gamma: f64,
    },
}

/// What makes up for dropped numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// Nothing.
    None,
    /// Each kept number is divided by its probability of being kept (its share, where nothing is drawn).
    InverseDensity,
    /// The sum of magnitudes becomes what it was.
    L1,
}

/// Which differences count at a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Consensus {
    /// All.
    Sum,
    /// Those with the sign of the weighted sum; a sum of zero elects plus (TIES).
    Sign,
    /// As [`Consensus::Sign`], but where the first model's difference survived its own trim and the other sign was
    /// elected, it alone counts if no other's magnitude exceeds `(1 + slack)` times its own.
    Protect {
        /// How much larger the others may be.
        slack: f64,
    },
}
