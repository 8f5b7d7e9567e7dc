//! What can be wrong with a configuration.

use std::fmt;

use super::methods::{BaseUse, METHODS, Method};
use super::reference::ReferenceError;
use super::suggest::nearest;

/// Something is wrong at a place of a configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct ConfigError {
    /// Where.
    pub at: Place,
    /// What. Boxed: errors are rare and results small.
    pub problem: Box<Problem>,
}

/// A place of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file; empty for a configuration that was made by code.
    pub file: String,
    /// Keys and positions, such as `models[1].parameters.weight`; empty for the whole.
    pub path: String,
    /// Line of the file, from 1.
    pub line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.file.is_empty() { "merge configuration" } else { &self.file })?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ", {}", self.path)?;
        }
        Ok(())
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "fields are explained by the message that they are put into")]
pub enum Problem {
    /// More text than a configuration has.
    #[error("the file has {bytes} bytes, and a configuration at most {most}")]
    TooLarge { bytes: usize, most: usize },
    /// A key twice in one mapping.
    #[error("`{key}` is given twice")]
    DuplicateKey { key: String },
    /// Several documents, or values beyond counting: aliases multiply.
    #[error("the file has several documents, or more values than a configuration has")]
    TooMuch,
    /// No YAML.
    #[error("{reason}")]
    Syntax { reason: String },
    /// A key that means nothing here.
    #[error("unknown key `{key}`")]
    UnknownKey { key: String, known: Vec<&'static str> },
    /// A key is missing.
    #[error("`{key}` is missing")]
    MissingKey { key: &'static str },
    /// A value of the wrong kind.
    #[error("expected {expected}, found {found}")]
    WrongType { expected: &'static str, found: String },
    /// None or several of the three forms.
    #[error("a configuration has exactly one of `models`, `slices` and `modules`, this one has {found}")]
    Form { found: String },
    /// Two keys that say the same.
    #[error("`{first}` and `{second}` exclude each other")]
    Exclusive { first: &'static str, second: &'static str },
    /// A list with nothing in it.
    #[error("the list is empty")]
    Empty,
    /// A gradient of numbers and something else.
    #[error("a gradient has either numbers only or no numbers")]
    MixedGradient,
    /// Conditions and plain values in one list.
    #[error("a list of conditions has an entry without `value`")]
    MixedConditions,
    /// A model's name that cannot be read.
    #[error("`{text}` names no model: {reason}")]
    Reference { text: String, reason: ReferenceError },
    /// No such method.
    #[error("unknown merge method `{name}`")]
    UnknownMethod { name: String },
    /// No such parameter of the method.
    #[error("{} has no parameter `{name}`", method.name())]
    UnknownParameter { method: Method, name: String },
    /// A parameter of the merge, given for one model.
    #[error("`{name}` of {} is one value for the whole merge, not one for each model", method.name())]
    Misplaced { method: Method, name: &'static str },
    /// A parameter without default is nowhere.
    #[error("{} needs the parameter `{name}`{}", method.name(), of_model(model))]
    MissingParameter { method: Method, name: &'static str, model: Option<String> },
    /// A parameter with a value that it cannot have.
    #[error("`{name}` is {expected}, not {found}")]
    ParameterValue { name: &'static str, expected: &'static str, found: String },
    /// Another word than the known ones.
    #[error("unknown {what} `{name}`")]
    UnknownName { what: &'static str, name: String, known: Vec<&'static str> },
    /// Whole numbers cannot be merged.
    #[error("weights cannot be stored as {name}")]
    IntegerDtype { name: String },
    /// A range of layers that holds none.
    #[error("layer_range [{from}, {to}] holds no layer")]
    LayerRange { from: usize, to: usize },
    /// Sources of one slice with different numbers of layers.
    #[error("the sources of one slice have {} layers: they need the same number", list(lengths))]
    SliceLengths { lengths: Vec<usize> },
    /// Several parts of a model, each with its own configuration.
    #[error("several modules ({}): lathe merges models of one module", names.join(", "))]
    Modules { names: Vec<String> },
    /// No base for a method that needs one.
    #[error("{} needs a base_model", method.name())]
    NoBase { method: Method },
    /// Too few or too many models.
    #[error("{} takes {}, found {found}", method.name(), wanted(*method))]
    ModelCount { method: Method, found: usize },
    /// The base's layers do not follow from the sources.
    #[error("the sources have different layers, and base_model `{base}` is not among them")]
    BaseRange { base: String },
}

fn of_model(model: &Option<String>) -> String {
    model.as_ref().map_or_else(String::new, |model| format!(" for `{model}`"))
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// What a method takes, in words.
fn wanted(method: Method) -> String {
    let row = method.row();
    let base = match row.base {
        BaseUse::Needed => " beside the base",
        BaseUse::Optional => " beside a base, if there is one",
        BaseUse::DonorOnly => "",
    };
    let place = if method == Method::Passthrough { " in each slice" } else { "" };
    match row.models.most {
        Some(1) => format!("one model{base}{place}"),
        Some(most) => format!("{most} models{base}"),
        None if row.models.least == 1 => format!("at least one model{base}"),
        None => format!("at least {} models{base}", row.models.least),
    }
}

impl ConfigError {
    pub(super) fn new(path: impl Into<String>, problem: Problem) -> Self {
        Self { at: Place { path: path.into(), ..Place::default() }, problem: Box::new(problem) }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &*self.problem {
            Problem::UnknownKey { key, known } => Some(meant_key(key, known)),
            Problem::UnknownMethod { name } => {
                Some(meant(name, &METHODS.iter().map(|row| row.name).collect::<Vec<_>>()))
            }
            Problem::UnknownName { name, known, .. } => Some(meant(name, known)),
            Problem::UnknownParameter { method, name } => {
                Some(meant(name, &method.row().parameters.iter().map(|row| row.parameter.name()).collect::<Vec<_>>()))
            }
            Problem::Misplaced { .. } => Some("give it in the `parameters` of the slice or of the whole file".into()),
            Problem::MissingParameter { name, model: None, .. } => {
                Some(format!("give `{name}` in the `parameters` of the whole file"))
            }
            Problem::MissingParameter { name, model: Some(_), .. } => {
                Some(format!("give `{name}` in the `parameters` of the model, or in those of the whole file for all"))
            }
            Problem::MissingKey { key: "value" } => {
                Some("write `- filter: self_attn` and `value: 0.5` below it".into())
            }
            Problem::Syntax { .. } => {
                Some("the file is YAML: indent with spaces, and quote texts with `: ` or `#` in them".into())
            }
            Problem::Reference { .. } => {
                Some("a model is written path, path@revision, path+adapter or path@revision+adapter@revision".into())
            }
            Problem::NoBase { .. } => Some("add `base_model: …`, the model that the others were made from".into()),
            Problem::IntegerDtype { .. } => Some("use float32, float16 or bfloat16".into()),
            Problem::Modules { .. } => Some("keep the text model's module only".into()),
            Problem::BaseRange { .. } => Some("list base_model among the sources, with its layer_range".into()),
            Problem::LayerRange { .. } => Some("the second number is the first layer that is left out".into()),
            Problem::ModelCount { method: Method::Passthrough, .. } => {
                Some("passthrough copies: stack models with `slices` of one source each".into())
            }
            Problem::MixedConditions => Some("a condition for all tensors is `- value: 0.5`".into()),
            _ => None,
        }
    }

    /// Whether the user's input is wrong, as opposed to the machine failing.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        true
    }
}

/// The key that was meant. `name` for `filter` is a known mistake: mergekit then applies the value to every tensor.
fn meant_key(key: &str, known: &[&'static str]) -> String {
    if key == "name" && known.contains(&"filter") {
        return "did you mean `filter`?".into();
    }
    meant(key, known)
}

fn meant(written: &str, known: &[&'static str]) -> String {
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
