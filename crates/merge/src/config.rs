//! The file that says what is merged with what.
//!
//! It is mergekit's YAML schema, read strictly: a key that means nothing, a parameter that the method does not have and
//! a value of the wrong kind are errors, where mergekit goes on without them. Ours are the top-level key `seed`, the
//! method `protect`, `axis` of nuslerp and the named kinds of `rescale`.
//!
//! A [`MergeConfig`] may as well be made by code; [`MergeConfig::to_yaml`] writes it as a file that reads back equal.

mod check;
mod document;
mod error;
mod methods;
mod parameters;
mod read;
mod reference;
mod suggest;
mod tokenizer;
mod write;

use std::ops::Range;
use std::path::Path;

pub(crate) use check::base_position;
pub use error::{ConfigError, Place, Problem};
pub use methods::{
    BaseUse, Count, Default as ParameterDefault, METHODS, Method, MethodRow, Parameter, ParameterRow, Scope,
};
pub use parameters::{Condition, Gradient, Parameters, Scalar, Setting, depth};
pub use reference::{LoraRef, ModelRef, ReferenceError};
pub use tokenizer::{
    ChatTemplate, Dtype, NamedTemplate, TokenName, TokenRule, TokenSource, TokenizerChoice, TokenizerSource,
};

/// What is merged with what, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeConfig {
    /// The method.
    pub merge_method: Method,
    /// Whole models or layers of models.
    pub form: Form,
    /// What the others differ from; config and tokenizer come from it.
    pub base_model: Option<ModelRef>,
    /// Parameters of everything.
    pub parameters: Parameters,
    /// The stored type where `out_dtype` is not given. Arithmetic is in f32 whatever it says.
    pub dtype: Option<Dtype>,
    /// The stored type.
    pub out_dtype: Option<Dtype>,
    /// Which tokens the result has.
    pub tokenizer: Option<TokenizerChoice>,
    /// Which chat template it has.
    pub chat_template: Option<ChatTemplate>,
    /// Of the draws of DARE and DELLA.
    pub seed: u64,
}

/// Whole models or layers of models.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// All layers of each.
    Models(Vec<ModelEntry>),
    /// Layers of models, one slice after the other.
    Slices(Vec<Slice>),
}

/// A model of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelEntry {
    /// Which.
    pub model: ModelRef,
    /// Parameters for it.
    pub parameters: Parameters,
}

/// Consecutive layers of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// What they are made of: the same number of layers each.
    pub sources: Vec<Source>,
    /// Instead of the file's.
    pub base_model: Option<ModelRef>,
    /// Parameters of these layers.
    pub parameters: Parameters,
}

/// Layers of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The model.
    pub model: ModelRef,
    /// Its layers.
    pub layers: Range<usize>,
    /// Parameters for it.
    pub parameters: Parameters,
}

impl MergeConfig {
    /// Reads the text of a file; `file` is its name in messages.
    ///
    /// # Errors
    /// The text is no configuration, or one that no merge follows from whatever the models are.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let place = |mut error: ConfigError, line: Option<u64>| {
            error.at.file = file.display().to_string();
            error.at.line = error.at.line.or(line);
            error
        };
        let document = document::read(text).map_err(|error| place(error, None))?;
        let (config, module) = read::config(&document).map_err(|error| {
            let line = document.line_of(&error.at.path);
            place(error, Some(line))
        })?;
        config.check().map_err(|mut error| {
            // A configuration does not keep the name of its only module.
            if !module.is_empty() && (error.at.path.starts_with("models") || error.at.path.starts_with("slices")) {
                error.at.path = document::join(&module, &error.at.path);
            }
            let line = document.line_of(&error.at.path);
            place(error, Some(line))
        })?;
        Ok(config)
    }

    /// A merge of whole models, with every other part left out.
    #[must_use]
    pub fn of_models(merge_method: Method, models: Vec<ModelEntry>) -> Self {
        Self {
            merge_method,
            form: Form::Models(models),
            base_model: None,
            parameters: Parameters::none(),
            dtype: None,
            out_dtype: None,
            tokenizer: None,
            chat_template: None,
            seed: 0,
        }
    }

    /// Finds what is wrong with it without knowing the models; [`MergeConfig::parse`] and the plan do so too.
    ///
    /// # Errors
    /// A parameter that the method does not have, lacks or cannot take; too few models; no base; empty lists.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::config(self)
    }

    /// The models, each once: in the order in which they are named, bases that are in no list at the end.
    #[must_use]
    pub fn inputs(&self) -> Vec<ModelRef> {
        let listed: Vec<&ModelRef> = match &self.form {
            Form::Models(models) => models.iter().map(|entry| &entry.model).collect(),
            Form::Slices(slices) => {
                slices.iter().flat_map(|slice| slice.sources.iter().map(|source| &source.model)).collect()
            }
        };
        let of_slices = match &self.form {
            Form::Models(_) => [].as_slice(),
            Form::Slices(slices) => slices.as_slice(),
        };
        let bases = self.base_model.iter().chain(of_slices.iter().filter_map(|slice| slice.base_model.as_ref()));
        let mut inputs: Vec<ModelRef> = Vec::new();
        for model in listed.into_iter().chain(bases) {
            if !inputs.contains(model) {
                inputs.push(model.clone());
            }
        }
        inputs
    }

    /// How numbers of the result are stored; `None` for the type that the config donor's have.
    #[must_use]
    pub fn stored_dtype(&self) -> Option<Dtype> {
        self.out_dtype.or(self.dtype)
    }

    /// The configuration as a file that reads back equal.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        write::config(self)
    }
}

impl ModelEntry {
    /// A model without parameters of its own.
    #[must_use]
    pub fn plain(model: ModelRef) -> Self {
        Self { model, parameters: Parameters::none() }
    }
}

#[cfg(test)]
mod tests;
