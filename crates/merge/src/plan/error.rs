//! Why no plan follows from a configuration and its models.

use crate::config::{ConfigError, Method};

/// Why no plan follows from a configuration and its models.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "fields are explained by the message that they are put into")]
pub enum PlanError {
    /// The configuration itself is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The caller gave other headers than the configuration has models.
    #[error("{found} headers for the {expected} models of the configuration")]
    Headers { expected: usize, found: usize },
    /// Models of different depth.
    #[error("`{first}` has {first_layers} layers and `{other}` has {other_layers}")]
    Layers { first: String, first_layers: usize, other: String, other_layers: usize },
    /// A range that goes beyond the last layer.
    #[error("layer_range [{from}, {to}] of `{model}`, which has {layers} layers")]
    LayerRange { model: String, from: usize, to: usize, layers: usize },
    /// Sizes that differ.
    #[error("tensor `{tensor}` is {first_shape:?} in `{first}` and {other_shape:?} in `{other}`")]
    Shape { tensor: String, first: String, first_shape: Vec<usize>, other: String, other_shape: Vec<usize> },
    /// Numbers of tokens that differ.
    #[error(
        "tensor `{tensor}` has {first_rows} rows in `{first}` and {other_rows} in `{other}`: different vocabularies"
    )]
    Vocabulary { tensor: String, first: String, first_rows: usize, other: String, other_rows: usize },
    /// A tensor that the base does not have.
    #[error("the base `{base}` has no tensor `{tensor}`, which `{model}` has")]
    MissingInBase { tensor: String, base: String, model: String },
    /// A tensor that a model does not have.
    #[error("`{model}` has no tensor `{tensor}`, which `{other}` has")]
    Missing { tensor: String, model: String, other: String },
    /// A tensor of numbers in one model and of integers in another.
    #[error("tensor `{tensor}` holds floats in one of `{first}` and `{other}` and something else in the other")]
    Kinds { tensor: String, first: String, other: String },
    /// Layers that are not one stack.
    #[error("`slices` need a model with one stack of layers; `{model}` has `{first}0` and `{second}0`")]
    SeveralStacks { model: String, first: String, second: String },
    /// Layers with other names.
    #[error("layers are named `{first_stack}0` in `{first}` and `{other_stack}0` in `{other}`")]
    OtherNames { first: String, first_stack: String, other: String, other_stack: String },
    /// A result with more layers than any model.
    #[error("the slices add up to {layers} layers; at most {most} are written")]
    TooManyLayers { layers: usize, most: usize },
    /// No value for a tensor, on no level.
    #[error("{} has no value of `{parameter}` for tensor `{tensor}`{}", method.name(), of_model(model))]
    MissingParameter { method: Method, parameter: &'static str, tensor: String, model: Option<String> },
    /// Weights to divide by that are nothing together.
    #[error("the weights for tensor `{tensor}` sum to 0, and the sum is divided by that")]
    WeightsSumToZero { tensor: String },
    /// Probabilities outside 0 to 1.
    #[error("tensor `{tensor}`: density {density} and epsilon {epsilon} give probabilities from {} to {}, not between 0 and 1", density - epsilon, density + epsilon)]
    Probabilities { tensor: String, density: f64, epsilon: f64 },
}

fn of_model(model: &Option<String>) -> String {
    model.as_ref().map_or_else(String::new, |model| format!(" of `{model}`"))
}

impl PlanError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Vocabulary { .. } => Some(
                "add `tokenizer: {source: union}`, or `base`, or a model, so that rows are matched by token".into(),
            ),
            Self::Layers { .. } => Some("models of different depth are stacked with `slices`".into()),
            Self::Shape { .. } => Some("only models of one architecture and size can be merged".into()),
            Self::MissingInBase { .. } => Some("take the model as base that the others were made from".into()),
            Self::MissingParameter { .. } => Some("end the list with `- value: …`, which is for all tensors".into()),
            Self::WeightsSumToZero { .. } => Some("change a weight, or set `normalize: false`".into()),
            Self::Probabilities { .. } => Some("lower epsilon".into()),
            Self::LayerRange { .. } => Some("layers count from 0, and the second number is left out".into()),
            _ => None,
        }
    }

    /// Whether the user's input is wrong, as opposed to the program failing.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Headers { .. })
    }
}
