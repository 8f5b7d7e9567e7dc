//! The table of methods: names, parameters, defaults, and what they need of base and models.
//!
//! Names and defaults are mergekit's, except where its defaults differ between versions (`rescale`) and where a row is
//! ours (`protect`, `axis`, `slack`).

use super::parameters::Scalar;

/// A way to make one tensor of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the rows of METHODS say what each is")]
pub enum Method {
    Linear,
    Slerp,
    Nuslerp,
    Multislerp,
    Karcher,
    TaskArithmetic,
    Ties,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    Breadcrumbs,
    BreadcrumbsTies,
    ModelStock,
    Sce,
    Nearswap,
    Passthrough,
    Protect,
}

/// What a method does with `base_model`. Every method takes config and tokenizer from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseUse {
    /// It does not work without one.
    Needed,
    /// It works on differences from it where there is one.
    Optional,
    /// Nothing else; where it is listed it is a model like the others.
    DonorOnly,
}

/// How many models a method takes, the base not counted where it has a part of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub least: usize,
    /// At most.
    pub most: Option<usize>,
}

/// Where a parameter may be given, and what it is when it is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParameterRow {
    /// Which.
    pub parameter: Parameter,
    /// Of a model, or of the whole merge.
    pub scope: Scope,
    /// Its value where none is given.
    pub default: Default,
}

/// Whose a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each model has its own; one given for all counts for each.
    Model,
    /// One for all models of a slice.
    Merge,
}

/// What a parameter is where none is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// It has to be given.
    Required,
    /// A number.
    Number(f64),
    /// Yes or no.
    Truth(bool),
    /// A word.
    Word(&'static str),
    /// Nothing; its absence has a meaning of its own.
    Absent,
}

/// A method of the table.
#[derive(Clone, Copy, Debug)]
pub struct MethodRow {
    /// Which.
    pub method: Method,
    /// As `merge_method` names it.
    pub name: &'static str,
    /// What it does with a base.
    pub base: BaseUse,
    /// How many models it takes.
    pub models: Count,
    /// All its parameters.
    pub parameters: &'static [ParameterRow],
}

/// All methods.
pub const METHODS: &[MethodRow] = &[
    row(Method::Linear, "linear", BaseUse::DonorOnly, at_least(1), &[WEIGHT, normalize(true), INT8_MASK]),
    row(Method::Slerp, "slerp", BaseUse::Needed, exactly(1), &[required(Parameter::T), INT8_MASK]),
    row(
        Method::Nuslerp,
        "nuslerp",
        BaseUse::Optional,
        exactly(2),
        &[
            WEIGHT,
            of_merge(Parameter::NuslerpFlatten, Default::Truth(true)),
            of_merge(Parameter::NuslerpRowWise, Default::Truth(false)),
            of_merge(Parameter::Axis, Default::Absent),
            INT8_MASK,
        ],
    ),
    row(
        Method::Multislerp,
        "multislerp",
        BaseUse::Optional,
        at_least(2),
        &[
            WEIGHT,
            of_merge(Parameter::NormalizeWeights, Default::Truth(true)),
            of_merge(Parameter::Eps, Default::Number(1e-8)),
            INT8_MASK,
        ],
    ),
    row(
        Method::Karcher,
        "karcher",
        BaseUse::DonorOnly,
        at_least(1),
        &[
            of_merge(Parameter::MaxIter, Default::Number(10.0)),
            of_merge(Parameter::Tol, Default::Number(1e-5)),
            INT8_MASK,
        ],
    ),
    row(
        Method::TaskArithmetic,
        "task_arithmetic",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, LAMBDA, normalize(false), rescale("none"), INT8_MASK],
    ),
    row(
        Method::Ties,
        "ties",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, LAMBDA, normalize(true), rescale("none"), INT8_MASK],
    ),
    row(
        Method::DareLinear,
        "dare_linear",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, LAMBDA, normalize(false), rescale("inverse_density"), INT8_MASK],
    ),
    row(
        Method::DareTies,
        "dare_ties",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, LAMBDA, normalize(false), rescale("inverse_density"), INT8_MASK],
    ),
    row(
        Method::Della,
        "della",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, EPSILON, LAMBDA, normalize(true), rescale("l1"), INT8_MASK],
    ),
    row(
        Method::DellaLinear,
        "della_linear",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, EPSILON, LAMBDA, normalize(false), rescale("l1"), INT8_MASK],
    ),
    row(
        Method::Breadcrumbs,
        "breadcrumbs",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, GAMMA, LAMBDA, normalize(false), rescale("none"), INT8_MASK],
    ),
    row(
        Method::BreadcrumbsTies,
        "breadcrumbs_ties",
        BaseUse::Needed,
        at_least(1),
        &[WEIGHT, DENSITY, GAMMA, LAMBDA, normalize(false), rescale("none"), INT8_MASK],
    ),
    row(
        Method::ModelStock,
        "model_stock",
        BaseUse::Needed,
        at_least(2),
        &[of_merge(Parameter::FilterWise, Default::Truth(false)), INT8_MASK],
    ),
    row(
        Method::Sce,
        "sce",
        BaseUse::Needed,
        at_least(1),
        &[of_merge(Parameter::SelectTopk, Default::Number(1.0)), INT8_MASK],
    ),
    row(Method::Nearswap, "nearswap", BaseUse::Needed, exactly(1), &[required(Parameter::T), INT8_MASK]),
    row(
        Method::Passthrough,
        "passthrough",
        BaseUse::DonorOnly,
        exactly(1),
        &[of_model(Parameter::Scale, Default::Number(1.0)), INT8_MASK],
    ),
    // The first listed model is protected.
    row(
        Method::Protect,
        "protect",
        BaseUse::Needed,
        at_least(2),
        &[
            of_model(Parameter::Weight, Default::Number(1.0)),
            DENSITY,
            LAMBDA,
            of_merge(Parameter::Slack, Default::Number(0.0)),
            normalize(true),
            rescale("none"),
            INT8_MASK,
        ],
    ),
];

const WEIGHT: ParameterRow = of_model(Parameter::Weight, Default::Required);
const DENSITY: ParameterRow = of_model(Parameter::Density, Default::Number(1.0));
const EPSILON: ParameterRow = of_model(Parameter::Epsilon, Default::Number(0.15));
const GAMMA: ParameterRow = of_model(Parameter::Gamma, Default::Number(0.01));
const LAMBDA: ParameterRow = of_merge(Parameter::Lambda, Default::Number(1.0));
const INT8_MASK: ParameterRow = of_merge(Parameter::Int8Mask, Default::Truth(false));

const fn normalize(default: bool) -> ParameterRow {
    of_merge(Parameter::Normalize, Default::Truth(default))
}

const fn rescale(default: &'static str) -> ParameterRow {
    of_merge(Parameter::Rescale, Default::Word(default))
}

const fn required(parameter: Parameter) -> ParameterRow {
    of_merge(parameter, Default::Required)
}

const fn of_model(parameter: Parameter, default: Default) -> ParameterRow {
    ParameterRow { parameter, scope: Scope::Model, default }
}

const fn of_merge(parameter: Parameter, default: Default) -> ParameterRow {
    ParameterRow { parameter, scope: Scope::Merge, default }
}

const fn at_least(least: usize) -> Count {
    Count { least, most: None }
}

const fn exactly(count: usize) -> Count {
    Count { least: count, most: Some(count) }
}

const fn row(
    method: Method,
    name: &'static str,
    base: BaseUse,
    models: Count,
    parameters: &'static [ParameterRow],
) -> MethodRow {
    MethodRow { method, name, base, models, parameters }
}

impl Method {
    /// The method of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        METHODS.iter().find(|row| row.name == name).map(|row| row.method)
    }

    /// Its row of the table.
    #[must_use]
    pub fn row(self) -> &'static MethodRow {
        // The table has the order of the enum, which a test holds.
        &METHODS[self as usize]
    }

    /// As `merge_method` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// One of its parameters; `None` where it has no such.
    #[must_use]
    pub fn parameter(self, parameter: Parameter) -> Option<&'static ParameterRow> {
        self.row().parameters.iter().find(|row| row.parameter == parameter)
    }
}

/// A parameter of some method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the rows of PARAMETERS say what each is")]
pub enum Parameter {
    Weight,
    Density,
    Epsilon,
    Gamma,
    Lambda,
    Normalize,
    NormalizeWeights,
    Rescale,
    T,
    Scale,
    Eps,
    MaxIter,
    Tol,
    FilterWise,
    SelectTopk,
    NuslerpFlatten,
    NuslerpRowWise,
    Axis,
    Slack,
    Int8Mask,
}

/// Which values a parameter may have: in words, and as a test.
struct Accepted {
    parameter: Parameter,
    name: &'static str,
    expected: &'static str,
    holds: fn(&Scalar) -> bool,
}

/// All parameters, in the order of the enum.
const PARAMETERS: &[Accepted] = &[
    accepted(Parameter::Weight, "weight", "a finite number", |v| number(v, |_| true)),
    accepted(Parameter::Density, "density", "a number above 0, at most 1", |v| number(v, |x| x > 0.0 && x <= 1.0)),
    accepted(Parameter::Epsilon, "epsilon", "a number from 0 to below 1", |v| number(v, |x| (0.0..1.0).contains(&x))),
    accepted(Parameter::Gamma, "gamma", "a number from 0 to below 1", |v| number(v, |x| (0.0..1.0).contains(&x))),
    accepted(Parameter::Lambda, "lambda", "a finite number", |v| number(v, |_| true)),
    accepted(Parameter::Normalize, "normalize", "true or false", truth),
    accepted(Parameter::NormalizeWeights, "normalize_weights", "true or false", truth),
    accepted(Parameter::Rescale, "rescale", "inverse_density, l1, none, true or false", |v| {
        truth(v) || word(v, &["inverse_density", "l1", "none"])
    }),
    accepted(Parameter::T, "t", "a finite number", |v| number(v, |_| true)),
    accepted(Parameter::Scale, "scale", "a finite number", |v| number(v, |_| true)),
    accepted(Parameter::Eps, "eps", "a number of at least 0", |v| number(v, |x| x >= 0.0)),
    accepted(Parameter::MaxIter, "max_iter", "a whole number from 1 to 100000", |v| {
        number(v, |x| x.fract() == 0.0 && (1.0..=1e5).contains(&x))
    }),
    accepted(Parameter::Tol, "tol", "a number of at least 0", |v| number(v, |x| x >= 0.0)),
    accepted(Parameter::FilterWise, "filter_wise", "true or false", truth),
    accepted(Parameter::SelectTopk, "select_topk", "a number above 0, at most 1", |v| {
        number(v, |x| x > 0.0 && x <= 1.0)
    }),
    accepted(Parameter::NuslerpFlatten, "nuslerp_flatten", "true or false", truth),
    accepted(Parameter::NuslerpRowWise, "nuslerp_row_wise", "true or false", truth),
    accepted(Parameter::Axis, "axis", "out or in", |v| word(v, &["out", "in"])),
    accepted(Parameter::Slack, "slack", "a number of at least 0", |v| number(v, |x| x >= 0.0)),
    accepted(Parameter::Int8Mask, "int8_mask", "true or false", truth),
];

const fn accepted(
    parameter: Parameter,
    name: &'static str,
    expected: &'static str,
    holds: fn(&Scalar) -> bool,
) -> Accepted {
    Accepted { parameter, name, expected, holds }
}

fn number(value: &Scalar, holds: fn(f64) -> bool) -> bool {
    matches!(value, Scalar::Number(x) if x.is_finite() && holds(*x))
}

/// Files also write 0 and 1.
fn truth(value: &Scalar) -> bool {
    matches!(value, Scalar::Truth(_)) || matches!(value, Scalar::Number(x) if *x == 0.0 || *x == 1.0)
}

fn word(value: &Scalar, words: &[&str]) -> bool {
    matches!(value, Scalar::Word(text) if words.contains(&text.as_str()))
}

impl Parameter {
    /// The parameter of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PARAMETERS.iter().find(|row| row.name == name).map(|row| row.parameter)
    }

    /// As files name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        PARAMETERS[self as usize].name
    }

    /// Which values it may have, in words.
    #[must_use]
    pub fn expected(self) -> &'static str {
        PARAMETERS[self as usize].expected
    }

    /// Whether it may have this value.
    #[must_use]
    pub fn accepts(self, value: &Scalar) -> bool {
        (PARAMETERS[self as usize].holds)(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_order_of_their_enums() {
        for (index, row) in METHODS.iter().enumerate() {
            assert_eq!(row.method as usize, index, "{}", row.name);
            assert_eq!(Method::named(row.name), Some(row.method));
        }
        for (index, row) in PARAMETERS.iter().enumerate() {
            assert_eq!(row.parameter as usize, index, "{}", row.name);
            assert_eq!(Parameter::named(row.name), Some(row.parameter));
        }
        assert_eq!(METHODS.len(), Method::Protect as usize + 1);
        assert_eq!(PARAMETERS.len(), Parameter::Int8Mask as usize + 1);
    }

    #[test]
    fn every_default_is_an_accepted_value() {
        for method in METHODS {
            for row in method.parameters {
                let value = match row.default {
                    Default::Number(x) => Scalar::Number(x),
                    Default::Truth(x) => Scalar::Truth(x),
                    Default::Word(x) => Scalar::Word(x.into()),
                    Default::Required | Default::Absent => continue,
                };
                assert!(row.parameter.accepts(&value), "{} of {}", row.parameter.name(), method.name);
            }
        }
    }

    #[test]
    fn densities_of_zero_and_above_one_are_refused() {
        for (x, holds) in [(0.0, false), (-0.1, false), (1.0, true), (1.1, false), (f64::NAN, false), (0.3, true)] {
            assert_eq!(Parameter::Density.accepts(&Scalar::Number(x)), holds, "{x}");
        }
    }
}
