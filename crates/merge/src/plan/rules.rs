//! The rule of one tensor: parameters of the configuration, resolved for its name and depth.

use super::parts::{Part, Participant};
use super::{Notes, PlanError};
use crate::config::{Method, Parameter, ParameterDefault, Parameters, Scalar, Setting};
use crate::rule::{Consensus, Deltas, Over, Rescale, Rule, Sparsify};

/// A tensor for which parameters are resolved.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// Its name in the result.
    pub(super) name: &'a str,
    /// 0 for the first layer and outside the layers, 1 for the last layer.
    pub(super) tau: f64,
    /// How many dimensions it has.
    pub(super) rank: usize,
}

/// The rule of a tensor of a part.
pub(super) fn rule(
    method: Method,
    of_all: &Parameters,
    part: &Part,
    target: Target,
    notes: &mut Notes,
) -> Result<Rule, PlanError> {
    let values = Values { method, of_all, part, target };
    let has_base = part.base.is_some();
    Ok(match method {
        Method::Linear => {
            let (weights, normalize) = (values.of_models(Parameter::Weight)?, values.truth(Parameter::Normalize)?);
            if normalize {
                values.not_zero_together(&weights)?;
            }
            Rule::Linear { weights, normalize }
        }
        Method::Slerp => {
            let t = values.number(Parameter::T)?;
            if !(0.0..=1.0).contains(&t) {
                notes.add("t goes outside 0 to 1: slerp extrapolates there".into());
            }
            Rule::Slerp { t }
        }
        Method::Nuslerp => {
            let weights = values.of_models(Parameter::Weight)?;
            if (weights[0] + weights[1]).abs() < 1e-6 {
                notes.add("nuslerp weights that sum to 0 count as equal".into());
            }
            Rule::Nuslerp { weights: [weights[0], weights[1]], has_base, over: over(&values, notes)? }
        }
        Method::Multislerp => {
            let weights = values.of_models(Parameter::Weight)?;
            let normalize = values.truth(Parameter::NormalizeWeights)?;
            if normalize {
                values.not_zero_together(&weights)?;
            }
            Rule::Multislerp { weights, normalize, has_base, eps: values.number(Parameter::Eps)? }
        }
        Method::Karcher => Rule::Karcher {
            max_iter: values.number(Parameter::MaxIter)?.round() as usize,
            tol: values.number(Parameter::Tol)?,
        },
        Method::TaskArithmetic
        | Method::Ties
        | Method::DareLinear
        | Method::DareTies
        | Method::Della
        | Method::DellaLinear
        | Method::Breadcrumbs
        | Method::BreadcrumbsTies
        | Method::Protect => Rule::Deltas(deltas(&values, notes)?),
        Method::ModelStock => Rule::ModelStock { by_rows: values.truth(Parameter::FilterWise)? },
        Method::Sce => Rule::Sce { select_topk: values.number(Parameter::SelectTopk)? },
        Method::Nearswap => Rule::Nearswap { t: values.number(Parameter::T)? },
        Method::Passthrough => Rule::Passthrough { scale: values.of_models(Parameter::Scale)?[0] },
    })
}

/// What nuslerp takes as one vector. The two keys of mergekit mean what its code does with them: rows without
/// `nuslerp_row_wise`, columns with it.
fn over(values: &Values, notes: &mut Notes) -> Result<Over, PlanError> {
    let over = match values.merge_scalar(Parameter::Axis)? {
        Some(Scalar::Word(axis)) if axis == "out" => Over::Rows,
        Some(_) => Over::Columns,
        None => {
            let flatten = values.truth(Parameter::NuslerpFlatten)?;
            match (flatten, values.truth(Parameter::NuslerpRowWise)?) {
                (true, false) => Over::Tensor,
                (true, true) => {
                    notes.add(
                        "nuslerp_row_wise has no effect where nuslerp_flatten is true, which it is by default".into(),
                    );
                    Over::Tensor
                }
                (false, row_wise) => {
                    let (over, what, axis) =
                        if row_wise { (Over::Columns, "columns", "in") } else { (Over::Rows, "rows", "out") };
                    notes.add(format!(
                        "nuslerp_row_wise: {row_wise} interpolates {what}, as mergekit's code does and against its \
                         documentation; `axis: {axis}` says the same clearly"
                    ));
                    over
                }
            }
        }
    };
    // A vector is one row, and has no columns to speak of.
    Ok(if values.target.rank < 2 { Over::Tensor } else { over })
}

fn deltas(values: &Values, notes: &mut Notes) -> Result<Deltas, PlanError> {
    let method = values.method;
    let weights = values.of_models(Parameter::Weight)?;
    let normalize = values.truth(Parameter::Normalize)?;
    let consensus = match method {
        Method::Ties | Method::DareTies | Method::Della | Method::BreadcrumbsTies => Consensus::Sign,
        Method::Protect => Consensus::Protect { slack: values.number(Parameter::Slack)? },
        _ => Consensus::Sum,
    };
    if normalize && consensus != Consensus::Sum {
        if let [model] = values.part.models.as_slice() {
            notes.add(format!(
                "{} divides by the weights that count, so that the weight of `{}`, the only model, has no effect: \
                 `normalize: false` keeps it",
                method.name(),
                model.name
            ));
        }
        if weights.iter().any(|weight| *weight < 0.0) {
            notes.add(format!(
                "{} divides by the weights that count, which cancels the sign of a negative weight: `normalize: false` \
                 keeps it",
                method.name()
            ));
        }
    }
    let mut sparsify = Vec::with_capacity(weights.len());
    for model in &values.part.models {
        sparsify.push(kept(values, model, notes)?);
    }
    let rescale = rescale(values)?;
    Ok(Deltas { weights, sparsify, rescale, consensus, normalize, lambda: values.number(Parameter::Lambda)? })
}

/// What is kept of a model's difference.
fn kept(values: &Values, model: &Participant, notes: &mut Notes) -> Result<Sparsify, PlanError> {
    let method = values.method;
    if method == Method::TaskArithmetic {
        return Ok(Sparsify::All);
    }
    let density = values.of_model(Parameter::Density, model)?;
    if density >= 1.0 {
        if !matches!(method, Method::Ties | Method::Protect) {
            notes.add(format!("density 1 keeps everything: {} drops nothing of `{}`", method.name(), model.name));
        }
        return Ok(Sparsify::All);
    }
    Ok(match method {
        Method::DareLinear | Method::DareTies => Sparsify::Random { density },
        Method::Della | Method::DellaLinear => {
            let epsilon = values.of_model(Parameter::Epsilon, model)?;
            if density - epsilon <= 0.0 || density + epsilon >= 1.0 {
                return Err(PlanError::Probabilities { tensor: values.target.name.into(), density, epsilon });
            }
            Sparsify::RandomByRank { density, epsilon }
        }
        Method::Breadcrumbs | Method::BreadcrumbsTies => {
            Sparsify::Middle { density, gamma: values.of_model(Parameter::Gamma, model)? }
        }
        _ => Sparsify::Largest { density },
    })
}

/// `true` is the method's own kind where it rescales by itself, and `l1` where it does not.
fn rescale(values: &Values) -> Result<Rescale, PlanError> {
    let named = |word: &str| match word {
        "inverse_density" => Rescale::InverseDensity,
        "l1" => Rescale::L1,
        _ => Rescale::None,
    };
    let own = match values.method.parameter(Parameter::Rescale).map(|row| row.default) {
        Some(ParameterDefault::Word(word)) => named(word),
        _ => Rescale::None,
    };
    Ok(match values.merge_scalar(Parameter::Rescale)? {
        Some(Scalar::Word(word)) => named(&word),
        Some(Scalar::Truth(false) | Scalar::Number(0.0)) => Rescale::None,
        Some(_) if own == Rescale::None => Rescale::L1,
        Some(_) | None => own,
    })
}

/// Parameters of one tensor: the model's come first, then the slice's, then the file's, then the table's.
struct Values<'a> {
    method: Method,
    of_all: &'a Parameters,
    part: &'a Part<'a>,
    target: Target<'a>,
}

impl Values<'_> {
    fn number(&self, parameter: Parameter) -> Result<f64, PlanError> {
        let scalar = self.merge_scalar(parameter)?;
        self.as_number(scalar, parameter, None)
    }

    fn truth(&self, parameter: Parameter) -> Result<bool, PlanError> {
        match self.merge_scalar(parameter)? {
            Some(Scalar::Truth(truth)) => Ok(truth),
            Some(Scalar::Number(number)) => Ok(number != 0.0),
            Some(Scalar::Word(_)) | None => Err(self.missing(parameter, None)),
        }
    }

    fn of_models(&self, parameter: Parameter) -> Result<Vec<f64>, PlanError> {
        self.part.models.iter().map(|model| self.of_model(parameter, model)).collect()
    }

    fn of_model(&self, parameter: Parameter, model: &Participant) -> Result<f64, PlanError> {
        let scalar = self.scalar(parameter, Some(model))?;
        self.as_number(scalar, parameter, Some(model))
    }

    fn merge_scalar(&self, parameter: Parameter) -> Result<Option<Scalar>, PlanError> {
        self.scalar(parameter, None)
    }

    /// The first value of all levels; `None` only for a parameter whose absence means something.
    fn scalar(&self, parameter: Parameter, model: Option<&Participant>) -> Result<Option<Scalar>, PlanError> {
        let levels = [model.map(|model| model.parameters), self.part.parameters, Some(self.of_all)];
        let given = levels
            .into_iter()
            .flatten()
            .filter_map(|level| level.get(parameter))
            .find_map(|setting: &Setting| setting.value(self.target.name, self.target.tau));
        if given.is_some() {
            return Ok(given);
        }
        match self.method.parameter(parameter).map(|row| row.default) {
            Some(ParameterDefault::Number(number)) => Ok(Some(Scalar::Number(number))),
            Some(ParameterDefault::Truth(truth)) => Ok(Some(Scalar::Truth(truth))),
            Some(ParameterDefault::Word(_) | ParameterDefault::Absent) => Ok(None),
            Some(ParameterDefault::Required) | None => Err(self.missing(parameter, model)),
        }
    }

    fn as_number(
        &self,
        scalar: Option<Scalar>,
        parameter: Parameter,
        model: Option<&Participant>,
    ) -> Result<f64, PlanError> {
        match scalar {
            Some(Scalar::Number(number)) => Ok(number),
            _ => Err(self.missing(parameter, model)),
        }
    }

    fn missing(&self, parameter: Parameter, model: Option<&Participant>) -> PlanError {
        PlanError::MissingParameter {
            method: self.method,
            parameter: parameter.name(),
            tensor: self.target.name.into(),
            model: model.map(|model| model.name.to_owned()),
        }
    }

    /// Weights that are divided by their sum. What is left of numbers that cancel is rounding, not a sum.
    fn not_zero_together(&self, weights: &[f64]) -> Result<(), PlanError> {
        let size: f64 = weights.iter().map(|weight| weight.abs()).sum();
        if weights.iter().sum::<f64>().abs() <= 1e-12 * size {
            return Err(PlanError::WeightsSumToZero { tensor: self.target.name.into() });
        }
        Ok(())
    }
}
