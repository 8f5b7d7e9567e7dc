//! What has to hold between the parts of a configuration.

use super::error::{ConfigError, Problem};
use super::methods::{BaseUse, Default, Scope};
use super::{Form, Gradient, MergeConfig, ModelRef, Parameter, Parameters, Scalar, Setting};

/// Finds the first thing that is wrong.
pub(super) fn config(config: &MergeConfig) -> Result<(), ConfigError> {
    parameters(config, &config.parameters, "parameters", Given::ForAll)?;
    match &config.form {
        Form::Models(models) => {
            not_empty(models.len(), "models")?;
            let entries: Vec<Listed> = models
                .iter()
                .enumerate()
                .map(|(index, entry)| Listed {
                    path: format!("models[{index}]"),
                    model: &entry.model,
                    parameters: &entry.parameters,
                })
                .collect();
            part(config, &entries, config.base_model.as_ref(), &Parameters::none(), "models")
        }
        Form::Slices(slices) => {
            not_empty(slices.len(), "slices")?;
            for (index, slice) in slices.iter().enumerate() {
                let path = format!("slices[{index}]");
                parameters(config, &slice.parameters, &format!("{path}.parameters"), Given::ForAll)?;
                let entries: Vec<Listed> = slice
                    .sources
                    .iter()
                    .enumerate()
                    .map(|(index, source)| Listed {
                        path: format!("{path}.sources[{index}]"),
                        model: &source.model,
                        parameters: &source.parameters,
                    })
                    .collect();
                let base = slice.base_model.as_ref().or(config.base_model.as_ref());
                layers(config, slice, base, &path)?;
                part(config, &entries, base, &slice.parameters, &format!("{path}.sources"))?;
            }
            Ok(())
        }
    }?;
    axis_alone(config)
}

/// A model of a list, with what is said of it there.
struct Listed<'a> {
    path: String,
    model: &'a ModelRef,
    parameters: &'a Parameters,
}

/// Where parameters are given.
#[derive(Clone, Copy, PartialEq)]
enum Given {
    ForAll,
    ForOne,
}

fn not_empty(count: usize, path: &str) -> Result<(), ConfigError> {
    if count == 0 { Err(ConfigError::new(path, Problem::Empty)) } else { Ok(()) }
}

/// Base, number of models, and parameters without default of one list of models.
fn part(
    config: &MergeConfig,
    entries: &[Listed],
    base: Option<&ModelRef>,
    of_slice: &Parameters,
    path: &str,
) -> Result<(), ConfigError> {
    let method = config.merge_method;
    let row = method.row();
    for entry in entries {
        parameters(config, entry.parameters, &format!("{}.parameters", entry.path), Given::ForOne)?;
    }
    if row.base == BaseUse::Needed && base.is_none() {
        return Err(ConfigError::new("", Problem::NoBase { method }));
    }
    let as_base = base_position(row.base, base, entries.iter().map(|entry| entry.model));
    let models: Vec<&Listed> =
        entries.iter().enumerate().filter(|(index, _)| Some(*index) != as_base).map(|(_, entry)| entry).collect();
    if models.len() < row.models.least || row.models.most.is_some_and(|most| models.len() > most) {
        return Err(ConfigError::new(path, Problem::ModelCount { method, found: models.len() }));
    }
    for needed in row.parameters.iter().filter(|row| row.default == Default::Required) {
        let (parameter, name) = (needed.parameter, needed.parameter.name());
        if of_slice.get(parameter).or(config.parameters.get(parameter)).is_some() {
            continue;
        }
        if needed.scope == Scope::Merge {
            return Err(ConfigError::new("", Problem::MissingParameter { method, name, model: None }));
        }
        if let Some(entry) = models.iter().find(|entry| entry.parameters.get(parameter).is_none()) {
            let model = Some(entry.model.to_string());
            return Err(ConfigError::new(entry.path.clone(), Problem::MissingParameter { method, name, model }));
        }
    }
    Ok(())
}

/// Which entry of a list is the base: the first that names it, if the method gives a base a part of its own.
pub(crate) fn base_position<'a>(
    base_use: BaseUse,
    base: Option<&ModelRef>,
    mut listed: impl Iterator<Item = &'a ModelRef>,
) -> Option<usize> {
    match base_use {
        BaseUse::DonorOnly => None,
        BaseUse::Needed | BaseUse::Optional => base.and_then(|base| listed.position(|model| model == base)),
    }
}

/// Ranges of layers of one slice.
fn layers(config: &MergeConfig, slice: &super::Slice, base: Option<&ModelRef>, path: &str) -> Result<(), ConfigError> {
    not_empty(slice.sources.len(), &format!("{path}.sources"))?;
    for (index, source) in slice.sources.iter().enumerate() {
        if source.layers.is_empty() {
            let problem = Problem::LayerRange { from: source.layers.start, to: source.layers.end };
            return Err(ConfigError::new(format!("{path}.sources[{index}].layer_range"), problem));
        }
    }
    let lengths: Vec<usize> = slice.sources.iter().map(|source| source.layers.len()).collect();
    if lengths.iter().any(|length| *length != lengths[0]) {
        return Err(ConfigError::new(format!("{path}.sources"), Problem::SliceLengths { lengths }));
    }
    let same_layers = slice.sources.iter().all(|source| source.layers == slice.sources[0].layers);
    if let Some(base) = base
        && config.merge_method.row().base != BaseUse::DonorOnly
        && !same_layers
        && slice.sources.iter().all(|source| source.model != *base)
    {
        return Err(ConfigError::new(format!("{path}.sources"), Problem::BaseRange { base: base.to_string() }));
    }
    Ok(())
}

/// Names and values of the parameters that are given in one place.
fn parameters(config: &MergeConfig, given: &Parameters, path: &str, place: Given) -> Result<(), ConfigError> {
    let method = config.merge_method;
    for (parameter, setting) in &given.0 {
        let name = parameter.name();
        let path = format!("{path}.{name}");
        // Files that people have carry parameters of other methods along; the plan notes that they have no effect.
        let Some(row) = method.parameter(*parameter) else { continue };
        if row.scope == Scope::Merge && place == Given::ForOne && *parameter != Parameter::Int8Mask {
            return Err(ConfigError::new(path, Problem::Misplaced { method, name }));
        }
        well_formed(setting, &path)?;
        if let Some(wrong) = setting.scalars().find(|scalar| !parameter.accepts(scalar)) {
            let problem = Problem::ParameterValue { name, expected: parameter.expected(), found: wrong.to_string() };
            return Err(ConfigError::new(path, problem));
        }
    }
    Ok(())
}

/// Lists have entries, and gradients entries of one kind.
fn well_formed(setting: &Setting, path: &str) -> Result<(), ConfigError> {
    let gradients: Vec<&Gradient> = match setting {
        Setting::Everywhere(gradient) => vec![gradient],
        Setting::ByName(conditions) => conditions.iter().map(|condition| &condition.value).collect(),
    };
    not_empty(gradients.len(), path)?;
    for gradient in gradients {
        if let Gradient::OverLayers(scalars) = gradient {
            not_empty(scalars.len(), path)?;
            let numbers = scalars.iter().filter(|scalar| matches!(scalar, Scalar::Number(_))).count();
            if numbers != 0 && numbers != scalars.len() {
                return Err(ConfigError::new(path, Problem::MixedGradient));
            }
        }
    }
    Ok(())
}

/// `axis` says what the two older keys say.
fn axis_alone(config: &MergeConfig) -> Result<(), ConfigError> {
    let slices = match &config.form {
        Form::Models(_) => [].as_slice(),
        Form::Slices(slices) => slices.as_slice(),
    };
    let given = |parameter| {
        config.parameters.get(parameter).is_some()
            || slices.iter().any(|slice| slice.parameters.get(parameter).is_some())
    };
    for (parameter, second) in
        [(Parameter::NuslerpFlatten, "nuslerp_flatten"), (Parameter::NuslerpRowWise, "nuslerp_row_wise")]
    {
        if given(Parameter::Axis) && given(parameter) {
            return Err(ConfigError::new("parameters", Problem::Exclusive { first: "axis", second }));
        }
    }
    Ok(())
}
