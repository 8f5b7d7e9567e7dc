//! From a rule to what makes pieces of its result.

use lathe_kernels::weights;

use super::check::Checks;
use super::deltas::Combined;
use super::remark::Remark;
use super::span::{Origin, Solve, Span};
use super::sphere;
use super::{Consensus, Over, Rule};
use crate::{InputError, Inputs};

/// What random masks depend on besides the model and the position.
#[derive(Clone, Copy, Debug)]
pub struct MaskKey<'a> {
    /// The seed of the merge.
    pub seed: u64,
    /// Name of the tensor in the result.
    pub tensor: &'a str,
}

/// Why a rule cannot be applied to a tensor.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// An input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Another number of inputs than the rule is for.
    #[error("{rule} takes {wanted} for {tensor}, not {found} inputs (a base is one of them)")]
    InputCount {
        /// The method.
        rule: &'static str,
        /// What it takes.
        wanted: String,
        /// The tensor.
        tensor: String,
        /// How many inputs there are.
        found: usize,
    },
    /// Weights that cannot be divided by their sum.
    #[error("the weights of {tensor} sum to 0 and cannot be normalised")]
    WeightSum {
        /// The tensor.
        tensor: String,
    },
    /// A number outside the range of a parameter.
    #[error("`{name}` of {tensor} is {value}; it must be {allowed}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// The tensor.
        tensor: String,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// More than two directions that cancel.
    #[error("the models' weighted directions in {tensor} cancel, so that they have no mean")]
    NoMean {
        /// The tensor.
        tensor: String,
    },
}

impl RuleError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::WeightSum { .. } => Some("set `normalize: false`, or weights with another sum"),
            Self::NoMean { .. } => Some("use other weights, or `linear`"),
            Self::Input(_) | Self::InputCount { .. } | Self::Parameter { .. } => None,
        }
    }
}

/// A rule that has seen the inputs of a tensor.
#[derive(Clone, Debug)]
pub struct Prepared {
    unit: usize,
    work: Work,
    remarks: Vec<Remark>,
}

#[derive(Clone, Debug)]
enum Work {
    Span(Span),
    Combined(Combined),
    Nearswap { t: f64 },
}

impl Rule {
    /// Reads the inputs as often as the method needs.
    ///
    /// # Errors
    /// An input cannot be read, or parameters have no meaning for this tensor.
    pub fn prepare(&self, mask: &MaskKey<'_>, inputs: &dyn Inputs) -> Result<Prepared, RuleError> {
        self.prepare_by(None, mask, inputs)
    }

    /// As [`Rule::prepare`], with tiles of another size.
    pub(super) fn prepare_by(
        &self,
        tile: Option<usize>,
        mask: &MaskKey<'_>,
        inputs: &dyn Inputs,
    ) -> Result<Prepared, RuleError> {
        let of = Checks::new(mask.tensor);
        let count = inputs.count();
        let of_angles = |origin, over, solve: &Solve<'_>| {
            let (span, remarks) = Span::of_angles(inputs, tile, origin, over, solve)?;
            Ok(Prepared { unit: 1, work: Work::Span(span), remarks })
        };
        match self {
            Self::Passthrough { scale } => {
                of.inputs("passthrough", count, 1)?;
                of.finite("scale", &[*scale])?;
                Ok(Prepared::span(Origin::Zero, vec![*scale]))
            }
            Self::Linear { weights, normalize } => {
                of.inputs("linear", count, weights.len())?;
                let weights = if *normalize { of.normalized(weights)? } else { of.weights(weights)?.to_vec() };
                Ok(Prepared::span(Origin::Zero, weights))
            }
            Self::Slerp { t } => {
                of.inputs("slerp", count, 2)?;
                of.finite("t", &[*t])?;
                of_angles(Origin::Zero, Over::Tensor, &|gram| Ok(sphere::slerp(gram, *t)))
            }
            Self::Nuslerp { weights, has_base, over } => {
                of.inputs("nuslerp", count, 2 + usize::from(*has_base))?;
                of.weights(weights)?;
                of_angles(origin(*has_base), *over, &|gram| Ok(sphere::nuslerp(gram, *weights)))
            }
            Self::Multislerp { weights, normalize, has_base, eps } => {
                of.at_least("multislerp", count, 1 + usize::from(*has_base))?;
                of.inputs("multislerp", count, weights.len() + usize::from(*has_base))?;
                of.within("eps", *eps, *eps >= 0.0, "0 or more")?;
                let weights = if *normalize { of.normalized(weights)? } else { of.weights(weights)?.to_vec() };
                of_angles(origin(*has_base), Over::Tensor, &|gram| {
                    let no_mean = || RuleError::NoMean { tensor: mask.tensor.to_owned() };
                    sphere::multislerp(gram, &weights, *eps).ok_or_else(no_mean)
                })
            }
            Self::Karcher { max_iter, tol } => {
                of.at_least("karcher", count, 1)?;
                of.within("tol", *tol, *tol >= 0.0, "0 or more")?;
                of_angles(Origin::Zero, Over::Tensor, &|gram| Ok(sphere::karcher(gram, *max_iter, *tol)))
            }
            Self::ModelStock { by_rows } => {
                of.at_least("model_stock", count, 3)?;
                let over = if *by_rows { Over::Rows } else { Over::Tensor };
                of_angles(Origin::Base, over, &|gram| Ok(sphere::model_stock(gram)))
            }
            Self::Deltas(deltas) => {
                of.at_least("a method with a base", count, 2)?;
                of.inputs("this list of weights", count, deltas.weights.len() + 1)?;
                of.inputs("this list of densities", count, deltas.sparsify.len() + 1)?;
                let weights = of.deltas(deltas)?;
                // Nothing is dropped and nothing elected: a combination of the inputs.
                let plain = deltas.consensus == Consensus::Sum && deltas.sparsify.iter().all(|kept| kept.is_dense());
                if plain || deltas.lambda == 0.0 {
                    let coefficients = weights.iter().map(|w| w * deltas.lambda).collect();
                    return Ok(Prepared::span(Origin::Base, coefficients));
                }
                let (combined, remarks) = Combined::of_deltas(deltas, weights, mask, inputs, tile)?;
                Ok(Prepared { unit: combined.unit(), work: Work::Combined(combined), remarks })
            }
            Self::Sce { select_topk } => {
                of.at_least("sce", count, 2)?;
                of.share("select_topk", *select_topk)?;
                let (combined, remarks) = Combined::sce(*select_topk, inputs, tile)?;
                Ok(Prepared { unit: combined.unit(), work: Work::Combined(combined), remarks })
            }
            Self::Nearswap { t } => {
                of.inputs("nearswap", count, 2)?;
                of.within("t", *t, *t >= 0.0 && t.is_finite(), "0 or more")?;
                Ok(Prepared { unit: 1, work: Work::Nearswap { t: *t }, remarks: Vec::new() })
            }
        }
    }
}

fn origin(has_base: bool) -> Origin {
    if has_base { Origin::Base } else { Origin::Zero }
}

impl Prepared {
    fn span(origin: Origin, coefficients: Vec<f64>) -> Self {
        Self { unit: 1, work: Work::Span(Span::new(origin, coefficients)), remarks: Vec::new() }
    }

    /// Pieces begin at multiples of this many numbers and end at one, or at the tensor's end: 1, or a row for rules
    /// that rank the numbers of a row.
    #[must_use]
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// What the reader of the report should know.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// The coefficients of a result that is `Σ c_i · x_i` in all of the tensor, over two inputs or more of which every
    /// one counts: what [`lathe_kernels::weights::sum`] makes.
    #[must_use]
    pub fn plain_sum(&self) -> Option<&[f64]> {
        match &self.work {
            Work::Span(span) => span.plain_sum(),
            Work::Combined(_) | Work::Nearswap { .. } => None,
        }
    }

    /// Makes the numbers `first..first + out.len()` of the result from the same numbers of every input, `inputs[i]`
    /// those of input i.
    ///
    /// # Panics
    /// When there are fewer inputs than the rule was prepared with, or they are shorter than `out`.
    pub fn fill(&self, first: usize, inputs: &[&[f32]], out: &mut [f32]) {
        match &self.work {
            Work::Span(span) => span.fill(first, inputs, out),
            Work::Combined(combined) => combined.fill(first, inputs, out),
            Work::Nearswap { t } => weights::step_towards(inputs[0], inputs[1], *t, out),
        }
    }
}
