//! What a user should know of a plan.

use crate::config::{BaseUse, Form, MergeConfig, ModelRef, Parameter, Parameters};

/// Sentences, each once, in the order in which they came up.
#[derive(Default)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    /// What follows from the configuration whatever the models are.
    pub(super) fn of_config(config: &MergeConfig) -> Self {
        let mut notes = Self::default();
        let given = all_parameters(config);
        if given.iter().any(|parameters| parameters.get(Parameter::Int8Mask).is_some()) {
            notes.add("int8_mask has no effect: masks take no memory here".into());
        }
        let method = config.merge_method;
        for (parameter, setting) in given.iter().flat_map(|parameters| &parameters.0) {
            if method.parameter(*parameter).is_none() {
                notes.add(format!("{} has no effect: {} has no such parameter", parameter.name(), method.name()));
                continue;
            }
            if setting.varies_over_layers() {
                notes.add(format!(
                    "{} varies over the layers: tensors outside them (embedding, last norm, head) take its first value",
                    parameter.name()
                ));
            }
        }
        if config.merge_method.row().base == BaseUse::DonorOnly
            && let Some(base) = &config.base_model
            && !is_listed(config, base)
        {
            notes.add(format!(
                "{} has no base: only config and tokenizer come from base_model `{base}`",
                config.merge_method.name()
            ));
        }
        if let Some(dtype) = config.dtype
            && config.out_dtype.is_none_or(|out| out == dtype)
        {
            notes.add(format!("dtype {} is how the result is stored; arithmetic is in float32", dtype.name()));
        }
        notes
    }

    /// Adds a sentence unless it is there.
    pub(super) fn add(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub(super) fn into_sentences(self) -> Vec<String> {
        self.0
    }
}

fn is_listed(config: &MergeConfig, model: &ModelRef) -> bool {
    match &config.form {
        Form::Models(models) => models.iter().any(|entry| entry.model == *model),
        Form::Slices(slices) => slices.iter().flat_map(|slice| &slice.sources).any(|source| source.model == *model),
    }
}

/// The parameters of every place.
fn all_parameters(config: &MergeConfig) -> Vec<&Parameters> {
    let mut all = vec![&config.parameters];
    match &config.form {
        Form::Models(models) => all.extend(models.iter().map(|entry| &entry.parameters)),
        Form::Slices(slices) => {
            for slice in slices {
                all.push(&slice.parameters);
                all.extend(slice.sources.iter().map(|source| &source.parameters));
            }
        }
    }
    all
}
